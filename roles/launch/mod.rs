//! What every daemon shares, from the command line to the last signal.
//!
//! 1. The configuration is resolved from flags, environment, file and defaults. `--check-config` and `--print-config`
//!    end here, on the same path a start takes.
//! 2. Log, metrics, health and the admin listener come up; the role opens its sockets. A socket that cannot be had ends
//!    the process before anything is served.
//! 3. The service manager hears READY, and signals rule: HUP reloads, USR1 drains and stays, TERM drains and exits, a
//!    second TERM exits now.

mod args;
mod life;
mod settings;
mod status;

use std::{fmt, time::Duration};

use fabric::ops::{
    admin::Admin,
    audit::{self, Audit},
    config::{self, Findings, Resolved, Settings, Sources},
    health::{Health, Phase},
    listen::{BindError, Listeners},
    logging::Log,
    metrics::Metrics,
    signals::Signals,
    status::Board,
    systemd,
};
use serde_json::json;
use tokio::sync::mpsc;

pub(crate) use args::{AdminAddress, Common, DaemonArgs};
pub(crate) use settings::{ConfigArgs, ErasedFlags, Loader};

use crate::{exit::Exit, output};

/// The version of the program.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// How long the log may take to be written out at the end, and tasks to end.
const FLUSH: Duration = Duration::from_millis(300);
/// How long the audit log may take. With the two above it stays below the 2 s a second TERM is promised.
const AUDIT_FLUSH: Duration = Duration::from_secs(1);

/// A role that runs until it is told to stop.
pub(crate) trait Daemon: Sized {
    /// The name on the command line.
    const ROLE: &'static str;
    /// Its own keys.
    type Settings: Settings;

    /// Finds what is wrong with settings that parse: keys that contradict each other, files that cannot be used. Runs
    /// before every start, on `--check-config` and on every reload.
    fn check(settings: &Self::Settings, findings: &mut Findings);

    /// Opens every socket, then starts to serve. All sockets are open before the first is served.
    async fn start(settings: Self::Settings, ops: &Ops, listeners: &mut Listeners) -> Result<Self, StartError>;

    /// Applies new settings without dropping a packet. An error leaves the old ones in force.
    async fn reload(&mut self, settings: Self::Settings) -> Result<(), String>;

    /// Takes nothing new and returns when what was begun is finished. May be dropped in the middle.
    async fn drain(&mut self);
}

/// A role could not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// A socket cannot be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The audit log cannot be written.
    #[error(transparent)]
    Audit(#[from] audit::OpenError),
    /// The system refuses something else.
    #[error("{what}: {source}")]
    System { what: &'static str, source: std::io::Error },
}

impl StartError {
    fn exit(&self) -> Exit {
        match self {
            Self::Bind(error) if error.is_permission() => Exit::Permission,
            Self::Audit(audit::OpenError::Foreign(_)) => Exit::Data,
            Self::Audit(audit::OpenError::Io { .. }) => Exit::CannotCreate,
            Self::Bind(_) | Self::System { .. } => Exit::Unavailable,
        }
    }
}

/// What a role is given to be operated. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Ops {
    /// Where its metrics go.
    pub(crate) metrics: Metrics,
    /// Where its checks and heartbeats go.
    pub(crate) health: Health,
    /// Where its listeners are told.
    pub(crate) board: Board,
    /// Where its security events go.
    pub(crate) audit: Audit,
    failed: mpsc::Sender<String>,
}

impl Ops {
    /// Runs a task the role cannot do without: if it ends, whether by itself or by a panic, the process ends with 70.
    /// Dropping the handle stops it.
    pub(crate) fn spawn(&self, name: impl fmt::Display, task: impl Future<Output = ()> + Send + 'static) -> Task {
        let (name, failed) = (name.to_string(), self.failed.clone());
        let task = tokio::spawn(task);
        let guard = Task(task.abort_handle());
        tokio::spawn(async move {
            match task.await {
                Err(error) if error.is_cancelled() => {}
                _ => drop(failed.send(name).await),
            }
        });
        guard
    }
}

/// Owns a task: dropping it stops the task.
#[derive(Debug)]
pub(crate) struct Task(tokio::task::AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The keys of a daemon: those all share and its own.
type Keys<D> = (Common, <D as Daemon>::Settings);

/// The keys a daemon reads.
pub(crate) fn keys<D: Daemon>() -> Vec<config::Key> {
    Keys::<D>::keys()
}

fn check<D: Daemon>((common, own): &Keys<D>, findings: &mut Findings) {
    common.check(findings);
    D::check(own, findings);
}

/// Runs a daemon from its command line to its end. `flags` serialises to the keys that were given as flags.
pub(crate) fn run<D: Daemon>(args: DaemonArgs, flags: &dyn ErasedFlags) -> Exit {
    // First of all, while there is one thread.
    let listeners = Listeners::from_environment();
    let loader = Loader::new(D::ROLE, args.config, &[&args.common, flags]);
    if let Some(args::Action::Status) = args.action {
        return status::run::<Keys<D>>(&loader, |(common, _)| common.admin);
    }
    let (sources, resolved) = match loader.settle(check::<D>) {
        Ok(settled) => settled,
        Err(exit) => return exit,
    };
    let common = &resolved.settings.0;
    let log = match Log::start(common.log_format, &common.log) {
        Ok(log) => log,
        Err(error) => {
            output::complain(error);
            return Exit::Config;
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::complain(format_args!("the system gives no threads: {error}"));
            return Exit::Internal;
        }
    };
    let start = Start { loader: &loader, sources: &sources, log: &log, announce: args.ready_json };
    let exit = runtime.block_on(start.serve::<D>(resolved, listeners));
    runtime.shutdown_timeout(FLUSH);
    log.flush(FLUSH);
    exit
}

/// What a start refers to.
struct Start<'a> {
    loader: &'a Loader,
    sources: &'a Sources,
    log: &'a Log,
    announce: bool,
}

impl Start<'_> {
    /// Opens everything, serves, and lives until the end.
    async fn serve<D: Daemon>(self, resolved: Resolved<Keys<D>>, mut listeners: Listeners) -> Exit {
        let (failed, failures) = mpsc::channel(1);
        let common = &resolved.settings.0;
        let opened = async {
            let ops = open_ops::<D>(common, self.log, failed)?;
            let signals =
                Signals::listen().map_err(|source| StartError::System { what: "no signals can be taken", source })?;
            let admin = start_admin(common, &ops, &mut listeners)?;
            let daemon = D::start(resolved.settings.1.clone(), &ops, &mut listeners).await?;
            Ok::<_, StartError>((ops, signals, admin, daemon))
        };
        let (ops, signals, _admin, daemon) = match opened.await {
            Ok(opened) => opened,
            Err(error) => {
                tracing::error!("{error}");
                return error.exit();
            }
        };
        for warning in &resolved.warnings {
            tracing::warn!("{warning}");
        }
        for unused in listeners.unused() {
            tracing::warn!("a socket was passed on that no key asks for: {unused}");
        }
        drop(listeners);
        ops.board.config_loaded(self.sources.file(), resolved.digest(), Vec::new());
        ops.health.set_phase(Phase::Serving);
        let told: Vec<String> =
            ops.board.status().listeners.iter().map(|it| format!("{} {}", it.transport, it.address)).collect();
        tracing::info!(role = D::ROLE, version = VERSION, listeners = told.join(", "), "serving");
        systemd::ready("serving");
        if self.announce {
            announce(&ops.board);
        }
        let _watchdog = Task(tokio::spawn(systemd::feed_watchdog(ops.health.clone())).abort_handle());
        ops.audit.record("started", json!({ "role": D::ROLE, "version": VERSION, "digest": resolved.digest() }));
        let (loader, log, started) = (self.loader, self.log, resolved.clone());
        life::Life { loader, log, ops: &ops, started, resolved, signals, failures }.live(daemon).await
    }
}

fn open_ops<D: Daemon>(common: &Common, log: &Log, failed: mpsc::Sender<String>) -> Result<Ops, StartError> {
    let (metrics, health) = (Metrics::new(D::ROLE, VERSION), Health::default());
    log.register(&metrics);
    let audit = Audit::start(common.audit_log.as_deref(), &metrics, &health)?;
    let board = Board::new(D::ROLE, VERSION, health.clone(), audit.clone(), &metrics);
    Ok(Ops { metrics, health, board, audit, failed })
}

/// Tells whoever started the process where it listens; with port 0 in the configuration nobody else knows.
fn announce(board: &Board) {
    let status = board.status();
    let listen: Vec<_> = status.listeners.iter().map(|it| format!("{}://{}", it.transport, it.address)).collect();
    let line = json!({ "role": status.role, "pid": status.pid, "listen": listen });
    output::data(&format!("{line}\n"));
}

fn start_admin(common: &Common, ops: &Ops, listeners: &mut Listeners) -> Result<Option<Admin>, StartError> {
    let Some(address) = common.admin.address() else { return Ok(None) };
    let listener = listeners.tcp("admin", address)?;
    let system = |source| StartError::System { what: "the admin listener cannot be served", source };
    let admin = Admin::start(listener, &common.admin_host, &ops.board, &ops.metrics).map_err(system)?;
    ops.board.add_listener("admin", "http", admin.address());
    Ok(Some(admin))
}
