//! The file an audit log is written to: appended, anchored, reopened after a rotation.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde_json::{Value, json};

use super::{
    chain::{BEGUN, ENDED, Head, Record},
    head_path,
};

/// The file exists and cannot be continued.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The system refuses it.
    #[error("the audit log {} cannot be opened: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its last line is no record of an audit log.
    #[error("{} does not end like an audit log; `nzc audit verify` shows where it breaks", .0.display())]
    Foreign(PathBuf),
}

/// How much of the end of a file is searched for its last record, in bytes.
const MAX_RECORD: u64 = 1024 * 1024;

/// An open audit log.
#[derive(Debug)]
pub(super) struct Writer {
    path: PathBuf,
    file: File,
    /// How much of the file is whole records.
    length: u64,
    head: Head,
}

impl Writer {
    /// Opens the log and continues its chain. What a crash left of an unfinished record is cut off, and said so.
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let fail = |source| OpenError::Io { path: path.to_owned(), source };
        let mut file = open(path).map_err(fail)?;
        let total = file.metadata().map_err(fail)?.len();
        let (length, head) = last_record(&mut file, total).map_err(fail)?.ok_or(OpenError::Foreign(path.to_owned()))?;
        let mut writer = Self { path: path.to_owned(), file, length, head };
        let opening = if length == 0 {
            // The chain goes on where the side file says an earlier file of this name ended.
            if let Ok(Ok(head)) = std::fs::read_to_string(head_path(path)).map(|text| text.parse()) {
                writer.head = head;
            }
            (BEGUN, json!({}))
        } else {
            ("audit-resumed", json!({ "cut_bytes": total - length }))
        };
        writer.append(&[(SystemTime::now(), opening.0, opening.1)]).map_err(fail)?;
        Ok(writer)
    }

    /// The last record.
    pub(super) const fn head(&self) -> &Head {
        &self.head
    }

    /// Appends records and anchors the last one. After an error nothing of them is in the file or in the chain.
    pub(super) fn append(&mut self, events: &[(SystemTime, &str, Value)]) -> io::Result<()> {
        let mut head = self.head.clone();
        let mut lines = String::new();
        for (time, event, fields) in events {
            lines.push_str(&head.seal(*time, event, fields));
            lines.push('\n');
        }
        if let Err(error) = self.write(&lines).and_then(|()| self.anchor(&head)) {
            // What was half written must not stand there as a broken line.
            self.file.set_len(self.length)?;
            return Err(error);
        }
        self.length += lines.len() as u64;
        self.head = head;
        Ok(())
    }

    fn write(&mut self, lines: &str) -> io::Result<()> {
        self.file.set_len(self.length)?;
        self.file.write_all(lines.as_bytes())?;
        self.file.sync_data()
    }

    /// Goes over to a new file if the one that is open was moved away.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        let open_inode = self.file.metadata()?.ino();
        if std::fs::metadata(&self.path).is_ok_and(|there| there.ino() == open_inode) {
            return Ok(());
        }
        // First what can fail: without a new file the old one is not closed.
        let fresh = open(&self.path)?;
        self.append(&[(SystemTime::now(), ENDED, json!({}))])?;
        self.file = fresh;
        self.length = self.file.metadata()?.len();
        self.append(&[(SystemTime::now(), BEGUN, json!({}))])
    }

    /// Notes a head in the side file, whole or not at all.
    fn anchor(&self, head: &Head) -> io::Result<()> {
        let side = head_path(&self.path);
        let fresh = side.with_extension("head.new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        writeln!(file, "{head}")?;
        std::fs::rename(&fresh, &side)
    }
}

/// Opens the file for this process alone: two writers would tear the chain.
fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(io::Error::new(io::ErrorKind::ResourceBusy, "another process writes it")),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Where the whole records end and the last of them. `None` where the last whole line is no record.
fn last_record(file: &mut File, total: u64) -> io::Result<Option<(u64, Head)>> {
    let start = total.saturating_sub(MAX_RECORD);
    file.seek(SeekFrom::Start(start))?;
    let mut tail = Vec::new();
    file.take(MAX_RECORD).read_to_end(&mut tail)?;
    let Some(end) = tail.iter().rposition(|byte| *byte == b'\n') else {
        // Nothing but an unfinished first record, or a file of another kind.
        let torn = tail.is_empty() || tail.starts_with(b"{\"seq\":");
        return Ok((start == 0 && torn).then(|| (0, Head::default())));
    };
    let begin = tail[..end].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let record = Record::read(&tail[begin..end]).ok();
    Ok(record.map(|record| (start + end as u64 + 1, record.head())))
}
