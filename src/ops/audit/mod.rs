//! The audit log: one JSON line for each event that matters to security, chained by hashes.
//!
//! Writers put events into a bounded queue and never wait; one thread appends them and syncs the file. What does not
//! fit is counted, and the count is itself recorded as soon as there is room. A hang-up reopens the file, so that it
//! can be rotated by moving it away; the chain goes on in the new file.
//!
//! ## What the chain can and cannot show
//! Each record holds the hash of the one before, so a change, an insertion, a swap or a gap breaks the chain at its line.
//! A missing end breaks no link. Therefore the head of the chain is noted in the side file `FILE.head` after each batch,
//! and a file that was rotated away ends with a closing record: a file whose end neither of them vouches for is not
//! accepted. The hashes use no key. Whoever can write the log, the side file and has the patience to recompute both can
//! forge a shorter history; to see that, note the head somewhere else. It is in `/v1/status`, its number is the metric
//! `nzc_ops_audit_sequence`, and `nzc audit verify --head` checks a log against it. Records that were queued and not yet
//! written when the process was killed are lost without a trace in the log.

mod chain;
mod verify;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    time::{Duration, SystemTime},
};

use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use serde_json::{Value, json};

pub use chain::{BEGUN, ENDED, Head, HeadError, RecordError};
pub use verify::{Broken, Fault, Sound, verify};
pub use writer::OpenError;

use super::{health::Health, metrics::Metrics};

/// How many events wait for a slow disk before more are dropped.
const QUEUE: usize = 4096;
/// How many events are written and synced together.
const BATCH: usize = 256;
/// How long after a failure the disk is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The side file that holds the head of the log at `path`.
fn head_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".head");
    PathBuf::from(name)
}

/// The handle events are recorded with. Cheap to clone; all clones write one log.
#[derive(Clone, Debug)]
pub struct Audit {
    queue: Option<SyncSender<Item>>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    events: Counter,
    dropped: Counter,
    sequence: Gauge,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    head: Option<Head>,
    error: Option<String>,
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
enum Item {
    Event(SystemTime, &'static str, Value),
    Reopen,
    Flush(SyncSender<()>),
}

impl Audit {
    /// Opens the log at `path`, or none: then events are only counted.
    ///
    /// # Errors
    /// [`OpenError`] where the file cannot be opened or is no audit log.
    pub fn start(path: Option<&Path>, metrics: &Metrics, health: &Health) -> Result<Self, OpenError> {
        let shared = Arc::new(Shared::default());
        metrics.floor("ops", |ops| {
            ops.register("audit_events", "Events that matter to security", shared.events.clone());
            ops.register("audit_dropped", "Audit events lost because the disk was too slow", shared.dropped.clone());
            ops.register("audit_sequence", "Number of the last record in the audit log", shared.sequence.clone());
        });
        let Some(path) = path else { return Ok(Self { queue: None, shared }) };
        let writer = writer::Writer::open(path)?;
        let (queue, events) = sync_channel(QUEUE);
        let state = Arc::clone(&shared);
        health.add_check("audit log", move || state.state().error.clone().map_or(Ok(()), Err));
        let writing = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || write(&events, writer, &writing))
            .map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
        Ok(Self { queue: Some(queue), shared })
    }

    /// Records an event. `event` is a fixed name, `fields` an object with its circumstances. Never blocks.
    pub fn record(&self, event: &'static str, fields: Value) {
        self.shared.events.inc();
        let Some(queue) = &self.queue else { return };
        if queue.try_send(Item::Event(SystemTime::now(), event, fields)).is_err() {
            self.shared.dropped.inc();
        }
    }

    /// Goes over to a new file if the log was moved away.
    pub fn reopen(&self) {
        if let Some(queue) = &self.queue
            && let Err(TrySendError::Full(_)) = queue.try_send(Item::Reopen)
        {
            tracing::warn!("the audit log is too busy to be reopened");
        }
    }

    /// The last record on disk, where there is a log.
    #[must_use]
    pub fn head(&self) -> Option<Head> {
        self.shared.state().head.clone()
    }

    /// Waits until everything recorded before is on disk, at most `limit`.
    pub fn flush(&self, limit: Duration) {
        let (done, wait) = sync_channel(1);
        if self.queue.as_ref().is_some_and(|queue| queue.try_send(Item::Flush(done)).is_ok()) {
            let _ = wait.recv_timeout(limit);
        }
    }
}

/// Writes until the last handle is gone. Events that cannot be written wait at the front and are tried again, so that a full
/// disk costs no event as long as there is room for them here.
fn write(events: &Receiver<Item>, mut writer: writer::Writer, shared: &Shared) {
    let mut pending: Vec<(SystemTime, &'static str, Value)> = Vec::new();
    let (mut told, mut reopen) = (0, false);
    note(&writer, shared, Ok(()));
    loop {
        // With something left over, the disk is asked again soon even if nothing new happens.
        let first = if pending.is_empty() && !reopen {
            events.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            events.recv_timeout(RETRY)
        };
        if matches!(first, Err(RecvTimeoutError::Disconnected)) {
            return;
        }
        let mut waiting = Vec::new();
        for item in first.into_iter().chain(events.try_iter().take(BATCH)) {
            match item {
                Item::Event(time, event, fields) if pending.len() < QUEUE => pending.push((time, event, fields)),
                Item::Event(..) => drop(shared.dropped.inc()),
                Item::Reopen => reopen = true,
                Item::Flush(done) => waiting.push(done),
            }
        }
        let outcome = append(&mut writer, &mut pending, shared.dropped.get(), &mut told);
        let outcome = outcome.and_then(|()| if std::mem::take(&mut reopen) { writer.reopen() } else { Ok(()) });
        note(&writer, shared, outcome);
        for done in waiting {
            let _ = done.try_send(());
        }
    }
}

/// Appends what is pending and, where events were lost since it was last told, how many.
fn append(
    writer: &mut writer::Writer,
    pending: &mut Vec<(SystemTime, &'static str, Value)>,
    dropped: u64,
    told: &mut u64,
) -> std::io::Result<()> {
    let kept = pending.len();
    if dropped > *told {
        pending.push((SystemTime::now(), "audit-events-dropped", json!({ "count": dropped - *told })));
    }
    if pending.is_empty() {
        return Ok(());
    }
    let outcome = writer.append(pending);
    pending.truncate(if outcome.is_ok() { 0 } else { kept });
    if outcome.is_ok() {
        *told = dropped;
    }
    outcome
}

fn note(writer: &writer::Writer, shared: &Shared, outcome: std::io::Result<()>) {
    let mut state = shared.state();
    state.error = outcome.err().map(|error| format!("cannot be written: {error}"));
    shared.sequence.set(i64::try_from(writer.head().sequence).unwrap_or(i64::MAX));
    state.head = Some(writer.head().clone());
}

#[cfg(test)]
mod tests;
