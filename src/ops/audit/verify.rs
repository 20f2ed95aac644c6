//! Checks that nothing was changed, inserted, moved or cut out of an audit log.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
};

use super::{
    chain::{BEGUN, ENDED, Head, Record, RecordError},
    head_path,
};

/// The longest line that can be a record, in bytes.
const MAX_LINE: u64 = 1024 * 1024;

/// What is wrong, and in which line of which file.
#[derive(Debug, thiserror::Error)]
#[error("{}:{line}: {fault}", file.display())]
pub struct Broken {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: u64,
    /// What is wrong there.
    pub fault: Fault,
}

/// What can be wrong with an audit log.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// The line is no sound record.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The record does not follow the one before.
    #[error("the record does not follow the one before it: expected number {expected}, found {found}")]
    Sequence {
        /// The number that should stand here.
        expected: u64,
        /// The number that stands here.
        found: u64,
    },
    /// The record names another predecessor.
    #[error("the record was written after another one than the one before it")]
    Predecessor,
    /// The file does not start with the record every file starts with.
    #[error("the beginning of the file is missing")]
    NoBeginning,
    /// The chain ends before the anchor.
    #[error("the end is missing: record {expected} was written, the last one here is {found}")]
    Cut {
        /// The number of the anchored record.
        expected: u64,
        /// The number of the last record.
        found: u64,
    },
    /// The anchored record has another hash.
    #[error("record {0} is not the one its anchor vouches for")]
    Anchor(u64),
    /// Nothing tells where the file ended.
    #[error("nothing vouches for the end of the file: neither a closing record nor {}", .0.display())]
    NoAnchor(PathBuf),
    /// The side file is damaged.
    #[error("the side file {} does not hold a head", .0.display())]
    SideFile(PathBuf),
}

/// A log that is whole.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sound {
    /// The number of records.
    pub records: u64,
    /// The number of the first record; above 1, earlier files exist.
    pub first: u64,
    /// The last record.
    pub head: Head,
}

/// Verifies the files of one log, oldest first. `anchor` is a head that was noted elsewhere; it must be in the chain.
///
/// The end of the last file is vouched for by its closing record, by its side file, or by `anchor`.
///
/// # Errors
/// The first thing that is [`Broken`].
pub fn verify(files: &[PathBuf], anchor: Option<&Head>) -> Result<Sound, Broken> {
    let mut walk = Walk { previous: None, first: 0, records: 0, anchors: anchor.cloned().into_iter().collect() };
    let (mut file, mut line, mut closed) = (Path::new(""), 0, false);
    for (index, path) in files.iter().enumerate() {
        file = path;
        if index + 1 == files.len() {
            let side = head_path(path);
            match std::fs::read_to_string(&side).map(|text| text.parse()) {
                Ok(Ok(head)) => walk.anchors.push(head),
                Ok(Err(_)) => return Err(Broken { file: path.clone(), line: 0, fault: Fault::SideFile(side) }),
                Err(_) => {}
            }
        }
        line = 0;
        let broken = |line: u64, fault: Fault| Broken { file: path.clone(), line, fault };
        let mut reader = BufReader::new(File::open(path).map_err(|error| broken(0, error.into()))?);
        closed = false;
        loop {
            line += 1;
            let mut bytes = Vec::new();
            let read = reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut bytes);
            if read.map_err(|error| broken(line, error.into()))? == 0 {
                break;
            }
            // A line without its end was cut in the middle, however well it reads.
            let bytes = bytes.strip_suffix(b"\n").ok_or_else(|| broken(line, RecordError::Form.into()))?;
            closed = walk.step(bytes, line == 1).map_err(|fault| broken(line, fault))?;
        }
    }
    walk.finish(closed, file).map_err(|fault| Broken { file: file.to_owned(), line, fault })
}

struct Walk {
    previous: Option<Head>,
    first: u64,
    records: u64,
    anchors: Vec<Head>,
}

impl Walk {
    /// Takes the next record and says whether it closes its file.
    fn step(&mut self, line: &[u8], opens_file: bool) -> Result<bool, Fault> {
        let record = Record::read(line)?;
        if opens_file && record.event != BEGUN {
            return Err(Fault::NoBeginning);
        }
        match &self.previous {
            None => {
                self.first = record.seq;
                if record.seq <= 1 && record.prev != Head::default().hash {
                    return Err(Fault::Predecessor);
                }
            }
            Some(previous) => {
                let expected = previous.sequence.saturating_add(1);
                if record.seq != expected {
                    return Err(Fault::Sequence { expected, found: record.seq });
                }
                if record.prev != previous.hash {
                    return Err(Fault::Predecessor);
                }
            }
        }
        if self.anchors.iter().any(|anchor| anchor.sequence == record.seq && anchor.hash != record.hash) {
            return Err(Fault::Anchor(record.seq));
        }
        self.records += 1;
        self.previous = Some(record.head());
        Ok(record.event == ENDED)
    }

    fn finish(self, closed: bool, last: &Path) -> Result<Sound, Fault> {
        let head = self.previous.unwrap_or_default();
        if let Some(anchor) = self.anchors.iter().find(|anchor| anchor.sequence > head.sequence) {
            return Err(Fault::Cut { expected: anchor.sequence, found: head.sequence });
        }
        if !closed && self.anchors.is_empty() {
            return Err(Fault::NoAnchor(head_path(last)));
        }
        Ok(Sound { records: self.records, first: self.first, head })
    }
}
