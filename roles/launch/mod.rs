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

pub(crate) use args::{Common, DaemonArgs};

use crate::{exit::Exit, output};

/// The version of the program.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// How long the log may take to be written out at the end.
const FLUSH: Duration = Duration::from_millis(500);

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
    /// The system refuses something else.
    #[error("{what}: {source}")]
    System { what: &'static str, source: std::io::Error },
}

impl StartError {
    fn exit(&self) -> Exit {
        match self {
            Self::Bind(error) if error.is_permission() => Exit::Permission,
            _ => Exit::Unavailable,
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

/// Reads the configuration the way a start and a reload do. Every complaint the start would make is made here.
struct Loader {
    role: &'static str,
    args: DaemonArgs,
    flags: serde_json::Value,
}

impl Loader {
    fn load<D: Daemon>(&self) -> Result<(Sources, Resolved<Keys<D>>), config::Problems> {
        let environment = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        let sources = Sources::gather(self.role, self.args.config.as_deref(), environment, &self.flags)?;
        let resolved = config::resolve::<Keys<D>>(&sources, |(common, own), findings| {
            common.check(findings);
            D::check(own, findings);
        })?;
        Ok((sources, resolved))
    }
}

/// Runs a daemon from its command line to its end. `flags` serialises to the keys that were given as flags.
pub(crate) fn run<D: Daemon>(args: DaemonArgs, flags: &impl serde::Serialize) -> Exit {
    // First of all, while there is one thread.
    let listeners = Listeners::from_environment();
    let mut merged = serde_json::to_value(&args.common).unwrap_or_default();
    if let (Some(merged), Ok(serde_json::Value::Object(own))) = (merged.as_object_mut(), serde_json::to_value(flags)) {
        merged.extend(own);
    }
    let loader = Loader { role: D::ROLE, args, flags: merged };
    let (sources, resolved) = match loader.load::<D>() {
        Ok(loaded) => loaded,
        Err(problems) => return refuse(&loader.args, &problems),
    };
    if let Some(args::Action::Status) = loader.args.action {
        return status::run(&resolved.settings.0, loader.args.json);
    }
    if loader.args.print_config {
        return print(&loader.args, &resolved);
    }
    if loader.args.check_config {
        return approve(&loader.args, &resolved);
    }
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
    let exit = runtime.block_on(serve::<D>(&loader, &sources, resolved, listeners, &log));
    runtime.shutdown_timeout(FLUSH);
    log.flush(FLUSH);
    exit
}

fn refuse(args: &DaemonArgs, problems: &config::Problems) -> Exit {
    if args.json && (args.check_config || args.print_config) {
        output::json(&json!({ "ok": false, "problems": problems.0 }));
    }
    for problem in &problems.0 {
        output::complain(problem);
    }
    // What was typed is a matter of usage; what was written down is a matter of configuration.
    let typed = |problem: &config::Problem| matches!(problem.origin, config::Origin::Flag { .. });
    if problems.0.iter().all(typed) { Exit::Usage } else { Exit::Config }
}

fn print<S>(args: &DaemonArgs, resolved: &Resolved<S>) -> Exit {
    if args.json {
        output::json(&json!({ "digest": resolved.digest(), "settings": resolved.listing }))
    } else {
        output::data(&config::listing(&resolved.listing))
    }
}

fn approve<S>(args: &DaemonArgs, resolved: &Resolved<S>) -> Exit {
    for warning in &resolved.warnings {
        output::complain(warning);
    }
    if args.json {
        output::json(&json!({ "ok": true, "digest": resolved.digest(), "problems": [] }))
    } else {
        output::data(&format!("the configuration is sound, digest {}\n", resolved.digest()))
    }
}

async fn serve<D: Daemon>(
    loader: &Loader,
    sources: &Sources,
    resolved: Resolved<Keys<D>>,
    mut listeners: Listeners,
    log: &Log,
) -> Exit {
    let (failed, failures) = mpsc::channel(1);
    let (metrics, health) = (Metrics::new(D::ROLE, VERSION), Health::default());
    log.register(&metrics);
    let audit = match Audit::start(resolved.settings.0.audit_log.as_deref(), &metrics, &health) {
        Ok(audit) => audit,
        Err(error) => {
            tracing::error!("{error}");
            return match error {
                audit::OpenError::Foreign(_) => Exit::Data,
                audit::OpenError::Io { .. } => Exit::CannotCreate,
            };
        }
    };
    let board = Board::new(D::ROLE, VERSION, health.clone(), audit.clone(), &metrics);
    let ops = Ops { metrics, health, board, audit, failed };
    for warning in &resolved.warnings {
        tracing::warn!("{warning}");
    }
    let started = async {
        let signals =
            Signals::listen().map_err(|source| StartError::System { what: "no signals can be taken", source })?;
        let admin = start_admin(&resolved.settings.0, &ops, &mut listeners)?;
        let daemon = D::start(resolved.settings.1.clone(), &ops, &mut listeners).await?;
        Ok::<_, StartError>((signals, admin, daemon))
    };
    let (signals, _admin, daemon) = match started.await {
        Ok(started) => started,
        Err(error) => {
            tracing::error!("{error}");
            return error.exit();
        }
    };
    for unused in listeners.unused() {
        tracing::warn!("a socket was passed on that no key asks for: {unused}");
    }
    drop(listeners);
    ops.board.config_loaded(sources.file(), resolved.digest(), Vec::new());
    ops.health.set_phase(Phase::Serving);
    let listeners: Vec<_> =
        ops.board.status().listeners.iter().map(|it| format!("{} {}", it.transport, it.address)).collect();
    tracing::info!(role = D::ROLE, version = VERSION, ?listeners, "serving");
    systemd::ready("serving");
    if loader.args.ready_json {
        announce(&ops.board);
    }
    let _watchdog = Task(tokio::spawn(systemd::feed_watchdog(ops.health.clone())).abort_handle());
    ops.audit.record("started", json!({ "role": D::ROLE, "version": VERSION, "digest": resolved.digest() }));
    life::Life { loader, log, ops: &ops, resolved, signals, failures }.live(daemon).await
}

/// Tells whoever started the process where it listens; with port 0 in the configuration nobody else knows.
fn announce(board: &Board) {
    let status = board.status();
    let listen: Vec<_> = status.listeners.iter().map(|it| format!("{}://{}", it.transport, it.address)).collect();
    let line = serde_json::json!({ "role": status.role, "pid": status.pid, "listen": listen });
    output::data(&format!("{line}\n"));
}

fn start_admin(common: &Common, ops: &Ops, listeners: &mut Listeners) -> Result<Option<Admin>, StartError> {
    let Some(address) = common.admin.address() else { return Ok(None) };
    let listener = listeners.tcp("admin", address)?;
    let system = |source| StartError::System { what: "the admin listener cannot be served", source };
    let admin = Admin::start(listener, &common.admin_hosts, &ops.board, &ops.metrics).map_err(system)?;
    ops.board.add_listener("admin", "http", admin.address());
    Ok(Some(admin))
}
