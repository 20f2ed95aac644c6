//! Logs that never hold up whoever writes them.
//!
//! A record is formatted by the caller, made harmless and put into a bounded queue. One thread writes the queue to
//! standard error. Where that is blocked or closed, records are dropped and counted, and the count is told as soon as
//! writing works again.

use std::{
    io::{self, IsTerminal as _, Write},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    time::{Duration, SystemTime},
};

use prometheus_client::metrics::counter::Counter;
use serde::{Deserialize, Serialize};
use tracing_subscriber::{EnvFilter, Registry, fmt::MakeWriter, layer::SubscriberExt as _, reload};

use super::{metrics::Metrics, rfc3339::rfc3339};

/// How records look.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text where standard error is a terminal, JSON where it is not.
    #[default]
    Auto,
    /// One line of text a record.
    Text,
    /// One JSON object a record.
    Json,
}

/// How many records wait for a blocked reader before more are dropped.
const QUEUE: usize = 1024;

/// A filter expression that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("is no log filter, which looks like `info` or `warn,nzc=debug`: {0}")]
pub struct FilterError(#[from] tracing_subscriber::filter::ParseError);

/// Whether `filter` can be used.
///
/// # Errors
/// [`FilterError`] where it cannot.
pub fn check_filter(filter: &str) -> Result<(), FilterError> {
    EnvFilter::builder().parse(filter).map(drop).map_err(FilterError::from)
}

/// The running log.
#[derive(Clone, Debug)]
pub struct Log {
    filter: reload::Handle<EnvFilter, Registry>,
    sink: Sink,
    panics: Counter,
}

impl Log {
    /// Makes standard error the place where this process logs to.
    ///
    /// # Errors
    /// [`FilterError`] where the filter cannot be read. A second call in one process leaves the first in place.
    pub fn start(format: LogFormat, filter: &str) -> Result<Self, FilterError> {
        let json = match format {
            LogFormat::Auto => !io::stderr().is_terminal(),
            LogFormat::Text => false,
            LogFormat::Json => true,
        };
        Self::start_on(io::stderr(), json, filter)
    }

    fn start_on(target: impl Write + Send + 'static, json: bool, filter: &str) -> Result<Self, FilterError> {
        let (filter, handle) = reload::Layer::new(EnvFilter::builder().parse(filter)?);
        let sink = Sink::spawn(target, json);
        let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(sink.clone());
        let registry = tracing_subscriber::registry().with(filter);
        let set = if json {
            tracing::subscriber::set_global_default(registry.with(layer.json().flatten_event(true)))
        } else {
            tracing::subscriber::set_global_default(registry.with(layer))
        };
        if set.is_err() {
            tracing::debug!("the log was started before");
        }
        let log = Self { filter: handle, sink, panics: Counter::default() };
        log.take_panics();
        Ok(log)
    }

    /// Makes a panic a record like any other and counts it.
    fn take_panics(&self) {
        let panics = self.panics.clone();
        std::panic::set_hook(Box::new(move |panic| {
            panics.inc();
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            tracing::error!(place, "panic: {}", panic.payload_as_str().unwrap_or("without a message"));
        }));
    }

    /// Changes the filter from now on.
    ///
    /// # Errors
    /// [`FilterError`] where it cannot be read; the old one stays.
    pub fn set_filter(&self, filter: &str) -> Result<(), FilterError> {
        let filter = EnvFilter::builder().parse(filter)?;
        if let Err(error) = self.filter.reload(filter) {
            tracing::debug!(%error, "the log filter could not be changed");
        }
        Ok(())
    }

    /// Shows in `metrics` how many records were dropped because nobody read them, and how many panics there were.
    pub fn register(&self, metrics: &Metrics) {
        metrics.floor("ops", |ops| {
            ops.register("log_dropped", "Log records dropped because nobody read them", self.sink.dropped.clone());
            ops.register("panics", "Panics of threads and tasks", self.panics.clone());
        });
    }

    /// Waits until everything logged before is written, at most `limit`.
    pub fn flush(&self, limit: Duration) {
        let (done, wait) = sync_channel(1);
        if self.sink.queue.try_send(Item::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(limit);
        }
    }
}

#[derive(Debug)]
enum Item {
    Record(Vec<u8>),
    Flush(SyncSender<()>),
}

/// The sending end of the queue.
#[derive(Clone, Debug)]
struct Sink {
    queue: SyncSender<Item>,
    dropped: Counter,
    json: bool,
}

impl Sink {
    fn spawn(target: impl Write + Send + 'static, json: bool) -> Self {
        let (queue, records) = sync_channel(QUEUE);
        let dropped = Counter::default();
        let sink = Self { queue, dropped: dropped.clone(), json };
        let spawned = std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_all(&records, target, &dropped, json));
        if let Err(error) = spawned {
            // Without its thread the queue fills and every record counts as dropped, which the metric shows.
            tracing::debug!(%error, "no thread for the log");
        }
        sink
    }
}

fn write_all(records: &Receiver<Item>, mut target: impl Write, dropped: &Counter, json: bool) {
    let mut told = 0;
    while let Ok(item) = records.recv() {
        match item {
            Item::Record(record) => {
                if target.write_all(&record).is_err() {
                    dropped.inc();
                    continue;
                }
                let lost = dropped.get();
                if lost > told && target.write_all(lost_notice(lost - told, json).as_bytes()).is_ok() {
                    told = lost;
                }
            }
            Item::Flush(done) => {
                let _ = target.flush();
                let _ = done.try_send(());
            }
        }
    }
}

fn lost_notice(lost: u64, json: bool) -> String {
    let now = rfc3339(SystemTime::now());
    let message = "log records were dropped";
    if json {
        format!("{{\"timestamp\":\"{now}\",\"level\":\"WARN\",\"message\":\"{message}\",\"dropped\":{lost}}}\n")
    } else {
        format!("{now}  WARN {message} dropped={lost}\n")
    }
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = Record<'a>;

    fn make_writer(&'a self) -> Record<'a> {
        Record { sink: self, bytes: Vec::new() }
    }
}

/// Collects one record and queues it when it is complete.
struct Record<'a> {
    sink: &'a Sink,
    bytes: Vec<u8>,
}

impl Write for Record<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        let text = String::from_utf8_lossy(&self.bytes);
        let mut line = harmless(text.strip_suffix('\n').unwrap_or(&text), self.sink.json);
        line.push('\n');
        if self.sink.queue.try_send(Item::Record(line.into_bytes())).is_err() {
            self.sink.dropped.inc();
        }
    }
}

/// Escapes what a terminal or a log reader could take for more than text: control characters, line breaks, and the
/// characters that change the direction of writing. In JSON they can stand only inside strings, so the escape is
/// valid there.
#[must_use]
pub fn harmless(text: &str, json: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let turns =
            matches!(c, '\u{61C}' | '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
        if !c.is_control() && !turns {
            out.push(c);
        } else if json {
            out.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            out.extend(c.escape_default());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Condvar, Mutex};

    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    /// Threat T27 at the sink every record passes.
    #[test]
    fn t27_ten_thousand_hostile_strings_leave_no_control_character_in_a_line() {
        let mut rng = rand::rngs::SmallRng::seed_from_u64(27);
        let pieces =
            ["\x1b[2J", "\n", "\r\n", "\0", "%s%n", "\u{9b}31m", "\u{202e}", "\x07", "ä", "\\", "\"", "\x7f", "x"];
        for _ in 0..10_000 {
            let hostile: String =
                (0..rng.random_range(1..12)).map(|_| pieces[rng.random_range(0..pieces.len())]).collect();
            for json in [false, true] {
                let line = if json { serde_json::to_string(&hostile).unwrap() } else { hostile.clone() };
                let safe = harmless(&line, json);
                assert!(!safe.chars().any(char::is_control), "{safe:?}");
                assert!(!safe.contains('\u{202e}'));
                if json {
                    assert_eq!(serde_json::from_str::<String>(&safe).unwrap(), hostile);
                }
            }
        }
    }

    /// A reader that takes nothing until it is told to.
    #[derive(Clone, Default)]
    struct Blocked(Arc<Gate>);

    #[derive(Default)]
    struct Gate {
        /// Whether it takes anything, and what it took.
        state: Mutex<(bool, Vec<u8>)>,
        opened: Condvar,
    }

    impl Write for Blocked {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let Gate { state, opened } = &*self.0;
            let mut state = opened.wait_while(state.lock().unwrap(), |(open, _)| !*open).unwrap();
            state.1.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn f39_a_blocked_reader_costs_records_but_never_blocks_the_writer() {
        let reader = Blocked::default();
        let sink = Sink::spawn(reader.clone(), false);
        for n in 0..QUEUE + 500 {
            writeln!(sink.make_writer(), "record {n}").unwrap();
        }
        let lost = sink.dropped.get();
        assert!((499..=500).contains(&lost), "{lost}");
        let Gate { state, opened } = &*reader.0;
        state.lock().unwrap().0 = true;
        opened.notify_all();
        let (done, wait) = sync_channel(1);
        sink.queue.send(Item::Flush(done)).unwrap();
        wait.recv().unwrap();
        let text = String::from_utf8(state.lock().unwrap().1.clone()).unwrap();
        assert!(text.starts_with("record 0\n"));
        assert!(text.contains(&format!("log records were dropped dropped={lost}\n")), "{text}");
    }

    #[test]
    fn f39_a_closed_reader_is_counted_and_survived() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let sink = Sink::spawn(Closed, true);
        writeln!(sink.make_writer(), "{{}}").unwrap();
        let (done, wait) = sync_channel(1);
        sink.queue.send(Item::Flush(done)).unwrap();
        wait.recv().unwrap();
        assert_eq!(sink.dropped.get(), 1);
    }

    #[test]
    fn a_filter_is_checked_before_it_is_used() {
        assert!(check_filter("warn,nzc=debug").is_ok());
        assert!(check_filter("info").is_ok());
        assert!(check_filter("nzc=loud").is_err());
    }
}
