//! What a process tells about itself: who it is, where it listens, which configuration is in force.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use prometheus_client::{metrics::gauge::Gauge, registry::Unit};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    audit::Audit,
    health::{Health, Report},
    metrics::Metrics,
};

/// One listening socket.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, ToSchema)]
pub struct Listener {
    /// The configuration key it belongs to.
    pub key: String,
    /// `udp`, `tcp`, `tls` and so on.
    pub transport: String,
    /// Address and port.
    pub address: String,
}

/// The configuration in force.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, ToSchema)]
pub struct Configuration {
    /// The file it was read from, if any.
    pub file: Option<String>,
    /// Equal digests, equal configuration; secrets are left out.
    pub digest: String,
    /// When it was loaded, in seconds of Unix time.
    pub loaded_at: u64,
    /// How often a reload was asked for.
    pub reloads: u64,
    /// Why the last reload was refused; null when it was not.
    pub reload_error: Option<String>,
    /// Keys that were changed on disk and wait for the next start.
    pub restart_needed: Vec<String>,
}

/// The answer of `/v1/status`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, ToSchema)]
pub struct Status {
    /// The role this process plays.
    pub role: String,
    /// The version of the program.
    pub version: String,
    /// The process number.
    pub pid: u32,
    /// Seconds since the start.
    pub uptime_seconds: u64,
    /// Readiness with each check.
    pub health: Report,
    /// Where it listens.
    pub listeners: Vec<Listener>,
    /// The configuration in force.
    pub configuration: Configuration,
    /// Number and hash of the last audit record; null without an audit log. Note it elsewhere to prove the log later.
    pub audit_head: Option<String>,
}

/// The board the parts of a process write their state on. Cheap to clone; all clones are the same board.
#[derive(Clone, Debug)]
pub struct Board(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    role: String,
    version: String,
    started: Instant,
    health: Health,
    audit: Audit,
    state: Mutex<(Vec<Listener>, Configuration)>,
    reload_ok: Gauge<i64, AtomicI64>,
    reload_at: Gauge<f64, AtomicU64>,
}

impl Board {
    /// An empty board; its gauges go to `metrics`.
    #[must_use]
    pub fn new(role: &str, version: &str, health: Health, audit: Audit, metrics: &Metrics) -> Self {
        let inner = Inner {
            role: role.to_owned(),
            version: version.to_owned(),
            started: Instant::now(),
            health,
            audit,
            state: Mutex::default(),
            reload_ok: Gauge::default(),
            reload_at: Gauge::default(),
        };
        metrics.floor("ops", |ops| {
            let help = "Whether the last load of the configuration succeeded";
            ops.register("config_reload_success", help, inner.reload_ok.clone());
            let help = "Unix time of the last load of the configuration that succeeded";
            ops.register_with_unit(
                "config_last_reload_success_timestamp",
                help,
                Unit::Seconds,
                inner.reload_at.clone(),
            );
        });
        Self(Arc::new(inner))
    }

    fn state(&self) -> MutexGuard<'_, (Vec<Listener>, Configuration)> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a listening socket.
    pub fn add_listener(&self, key: &str, transport: &str, address: impl ToString) {
        let (key, transport, address) = (key.to_owned(), transport.to_owned(), address.to_string());
        self.state().0.push(Listener { key, transport, address });
    }

    /// A configuration was loaded. `restart_needed` are the keys whose change waits for the next start.
    pub fn config_loaded(&self, file: Option<&std::path::Path>, digest: String, restart_needed: Vec<String>) {
        let now = unix_now();
        let mut state = self.state();
        let reloads = if state.1.loaded_at == 0 { 0 } else { state.1.reloads + 1 };
        let file = file.map(|file| file.display().to_string());
        state.1 = Configuration { file, digest, loaded_at: now.as_secs(), reloads, reload_error: None, restart_needed };
        self.0.reload_ok.set(1);
        self.0.reload_at.set(now.as_secs_f64());
    }

    /// A reload was refused and the old configuration stays in force.
    pub fn config_refused(&self, reason: String) {
        let mut state = self.state();
        state.1.reloads += 1;
        state.1.reload_error = Some(reason);
        self.0.reload_ok.set(0);
    }

    /// The health of the process.
    #[must_use]
    pub fn health(&self) -> &Health {
        &self.0.health
    }

    /// Everything on the board.
    #[must_use]
    pub fn status(&self) -> Status {
        let (listeners, configuration) = self.state().clone();
        Status {
            role: self.0.role.clone(),
            version: self.0.version.clone(),
            pid: std::process::id(),
            uptime_seconds: self.0.started.elapsed().as_secs(),
            health: self.0.health.readiness(),
            listeners,
            configuration,
            audit_head: self.0.audit.head().map(|head| head.to_string()),
        }
    }
}

fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
