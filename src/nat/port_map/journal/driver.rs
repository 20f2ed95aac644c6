//! The journal's file, its guard and the clean-up after a death.
#![cfg_attr(not(test), expect(clippy::disallowed_methods, reason = "a driver owns clock, sockets and tasks"))]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::time::{Instant, sleep, sleep_until};

use super::super::mapping::driver::{Claimant, undo};
use super::super::mapping::{Claim, Record, Removal};
use super::{Entry, Ledger, MAX_LINE};

/// The largest journal read back, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// How long the guard and the next start try, at most.
const CLEAN_UP_LIMIT: Duration = Duration::from_secs(10);

/// When a record whose request may still be on its way is tried, after the first time. A gateway that serves two TCP
/// connections at once may carry out the maker's last request after the guard's first.
const SECOND_LOOKS: [Duration; 2] = [Duration::from_millis(300), Duration::from_millis(1500)];

/// Writes lines to where they outlive the writer.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    sinks: Arc<Mutex<Sinks>>,
}

#[derive(Debug, Default)]
struct Sinks {
    file: Option<(PathBuf, File)>,
    guard: Option<Box<dyn Pipe>>,
    child: Option<Child>,
    /// Whether nothing is to be kept, by choice.
    forgetful: bool,
    /// The lines so far.
    ledger: Ledger,
}

/// The writing end of the pipe to a guard.
trait Pipe: io::Write + std::fmt::Debug + Send {}
impl<W: io::Write + std::fmt::Debug + Send> Pipe for W {}

impl Journal {
    /// A journal that keeps nothing. Every mapping is then left to its lease if the process dies.
    #[must_use]
    pub fn forgetful() -> Self {
        let journal = Self::default();
        journal.locked(|sinks| sinks.forgetful = true);
        journal
    }

    /// Keeps the lines in a new file in `directory`, which is made with mode 0700. The file is locked while this process
    /// lives: an unlocked one is a dead one's.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn keep_in(&self, directory: &Path) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let name = format!("{}-{:08x}", std::process::id(), rand::random::<u32>());
        // Locked before it gets the name others look for, so that nobody takes a file in the making for a dead one.
        let (draft, path) = (directory.join(format!("{name}.new")), directory.join(format!("{name}.journal")));
        let file = OpenOptions::new().create_new(true).append(true).mode(0o600).open(&draft)?;
        file.try_lock()?;
        fs::rename(&draft, &path)?;
        File::open(directory)?.sync_all()?;
        self.locked(|sinks| {
            sinks.announce(&path);
            sinks.file = Some((path, file));
        });
        Ok(())
    }

    /// Sends the lines to a guard as well: the writing end of a pipe whose reader runs [`guard`].
    pub fn watch_over(&self, pipe: impl io::Write + std::fmt::Debug + Send + 'static) {
        self.locked(|sinks| {
            sinks.guard = Some(Box::new(pipe));
            if let Some((path, _)) = &sinks.file {
                let path = path.clone();
                sinks.announce(&path);
            }
        });
    }

    /// Starts a guard: `command` must run [`guard`] on its standard input. It gets a process group of its own, so that
    /// Ctrl-C at the terminal reaches the maker alone, and says nothing.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn guarded_by(&self, mut command: Command) -> io::Result<()> {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let mut child = command.spawn()?;
        if let Some(pipe) = child.stdin.take() {
            self.watch_over(pipe);
        }
        self.locked(|sinks| sinks.child = Some(child));
        Ok(())
    }

    /// Writes one entry and waits until it is safe.
    ///
    /// # Errors
    /// Where no place kept it, unless the journal is forgetful.
    pub async fn write(&self, entry: &Entry) -> io::Result<()> {
        let line = entry.to_line()?;
        let journal = self.clone();
        self.locked(|sinks| sinks.ledger.apply(entry.clone()));
        tokio::task::spawn_blocking(move || journal.locked(|sinks| sinks.write(&line)))
            .await
            .map_err(io::Error::other)?
    }

    /// Removes what this process has outstanding, after an error or an interruption, and closes the journal.
    pub async fn settle(&self) -> CleanUp {
        let ledger = self.locked(|sinks| sinks.ledger.clone());
        let outcome = clean_up(&ledger).await;
        if outcome.left == 0 {
            for record in ledger.outstanding() {
                log_failure(self.write(&Entry::Removed { id: record.id }).await, "removal not journaled");
            }
        }
        self.close();
        outcome
    }

    /// Closes the pipe to the guard and removes the file. To be called once nothing is outstanding; otherwise the guard
    /// starts to clean up, and the file stays.
    pub fn close(&self) {
        self.locked(|sinks| {
            sinks.guard = None;
            // It ends by itself. One that still has work outlives this process, and then somebody else's wait is due.
            if let Some(child) = &mut sinks.child {
                log_failure(child.try_wait().map(|_| ()), "the mapping guard cannot be waited for");
            }
            if let Some((path, file)) = sinks.file.take() {
                let is_clean = fs::read_to_string(&path).is_ok_and(|text| Ledger::read(&text).is_empty());
                if is_clean {
                    log_failure(fs::remove_file(&path), "journal not removed");
                }
                drop(file);
            }
        });
    }

    fn locked<T>(&self, work: impl FnOnce(&mut Sinks) -> T) -> T {
        work(&mut self.sinks.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Sinks {
    fn write(&mut self, line: &str) -> io::Result<()> {
        let mut outcome = if self.forgetful { Ok(()) } else { Err(io::ErrorKind::NotConnected.into()) };
        if let Some(guard) = &mut self.guard {
            match guard.write_all(line.as_bytes()).and_then(|()| guard.flush()) {
                Ok(()) => outcome = Ok(()),
                Err(error) => {
                    tracing::debug!(%error, "the mapping guard is gone");
                    self.guard = None;
                }
            }
        }
        if let Some((_, file)) = &mut self.file {
            match file.write_all(line.as_bytes()).and_then(|()| file.sync_data()) {
                Ok(()) => outcome = Ok(()),
                Err(error) if outcome.is_ok() => tracing::debug!(%error, "journal line not kept"),
                Err(error) => outcome = Err(error),
            }
        }
        outcome
    }

    fn announce(&mut self, path: &Path) {
        let Ok(line) = Entry::File { path: path.to_owned() }.to_line() else { return };
        if let Some(guard) = &mut self.guard {
            log_failure(guard.write_all(line.as_bytes()), "the mapping guard is gone");
        }
    }
}

/// Where journals are kept: `$XDG_STATE_HOME`, else `$HOME/.local/state`, else `$XDG_RUNTIME_DIR`, below them
/// `nzc/port-mappings`. `None` where none is set to an absolute path.
#[must_use]
pub fn default_directory() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .or_else(|| absolute("XDG_RUNTIME_DIR"))
        .map(|path| path.join("nzc/port-mappings"))
}

/// What a clean-up did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct CleanUp {
    /// Mappings removed, or found gone.
    pub removed: usize,
    /// Mappings the gateway keeps until their lease ends, or that it could not be asked about.
    pub left: usize,
}

/// Runs the guard: reads journal lines until the writer closes the pipe or dies, then removes what is outstanding.
pub async fn guard(input: impl AsyncRead + Unpin) -> CleanUp {
    let mut ledger = Ledger::default();
    let mut lines = BufReader::with_capacity(MAX_LINE, input).lines();
    // An error ends the reading like an end does: either way nobody speaks any more.
    while let Ok(Some(line)) = lines.next_line().await {
        ledger.line(&line);
    }
    let outcome = clean_up(&ledger).await;
    if outcome.left == 0
        && let Some(path) = ledger.file()
    {
        forget_dead(path).await;
    }
    outcome
}

/// Removes what dead processes left behind in `directory`.
pub async fn clean_up_after_the_dead(directory: &Path) -> CleanUp {
    let mut total = CleanUp::default();
    let Ok(entries) = fs::read_dir(directory) else { return total };
    for path in entries.flatten().map(|entry| entry.path()) {
        let is_journal = path.extension().is_some_and(|extension| extension == "journal" || extension == "new");
        if !is_journal {
            continue;
        }
        let Some((file, ledger)) = open_dead(&path) else { continue };
        let outcome = clean_up(&ledger).await;
        total.removed = total.removed.saturating_add(outcome.removed);
        total.left = total.left.saturating_add(outcome.left);
        // What is left is tried again at the next start, until its lease is over.
        if outcome.left == 0 {
            log_failure(fs::remove_file(&path), "journal not removed");
        }
        drop(file);
    }
    total
}

/// Opens a journal whose writer is dead: its lock is free. The lock is held as long as the file.
fn open_dead(path: &Path) -> Option<(File, Ledger)> {
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(path).ok()?;
    file.try_lock().ok()?;
    let mut text = Vec::new();
    (&file).take(MAX_FILE).read_to_end(&mut text).ok()?;
    Some((file, Ledger::read(&String::from_utf8_lossy(&text))))
}

/// Removes the journal of a writer that has just died. The kernel may give up the lock a moment after it closes the pipe.
async fn forget_dead(path: &Path) {
    for _ in 0..10 {
        if let Some((file, _)) = open_dead(path) {
            log_failure(fs::remove_file(path), "journal not removed");
            return drop(file);
        }
        if !path.exists() {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Removes every outstanding mapping of a ledger whose writer is gone.
pub async fn clean_up(ledger: &Ledger) -> CleanUp {
    let started = Instant::now();
    let deadline = started.checked_add(CLEAN_UP_LIMIT).unwrap_or(started);
    let now = unix_now();
    let mut tasks = tokio::task::JoinSet::new();
    let mut outcome = CleanUp::default();
    for record in ledger.outstanding() {
        if record.has_expired(now) {
            outcome.removed = outcome.removed.saturating_add(1);
        } else {
            tasks.spawn(clean_up_one(record.clone(), started, deadline));
        }
    }
    while let Some(done) = tasks.join_next().await {
        if done.unwrap_or(false) {
            outcome.removed = outcome.removed.saturating_add(1);
        } else {
            outcome.left = outcome.left.saturating_add(1);
        }
    }
    outcome
}

/// Whether the gateway says that the mapping is gone.
async fn clean_up_one(record: Record, started: Instant, deadline: Instant) -> bool {
    // Datagrams keep their order, and a granted mapping has no request left on its way.
    let one_look_is_enough = record.granted || !matches!(record.claim, Claim::Igd(_) | Claim::Pinhole { .. });
    let mut is_gone = false;
    for look in std::iter::once(Duration::ZERO).chain(SECOND_LOOKS) {
        sleep_until(started.checked_add(look).unwrap_or(deadline)).await;
        match undo(&record, Claimant::Heir, deadline).await {
            Ok(Removal::Removed | Removal::AlreadyGone) => is_gone = true,
            // After the first look: somebody else has the port by now.
            Ok(Removal::LeftToExpire { .. }) => {}
            Err(error) => tracing::debug!(%error, "mapping not removed"),
        }
        if is_gone && one_look_is_enough {
            break;
        }
    }
    is_gone
}

/// Seconds since 1970 by the wall clock.
pub(in super::super) fn unix_now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn log_failure(result: io::Result<()>, what: &'static str) {
    if let Err(error) = result {
        tracing::debug!(%error, what);
    }
}
