//! Sockets, threads and connections around the [`Service`].
//!
//! UDP is served by threads of their own, one a core, each with its own socket for every local address (SO_REUSEPORT).
//! They share nothing that is written for each packet but the caps on replies. TCP and TLS are served by tasks.
//!
//! Settings, limits and certificates can be exchanged while all of it runs: a thread picks them up with its next batch, a
//! connection with its next message. Nothing is dropped, because nothing is stopped.
#![cfg_attr(not(test), expect(clippy::disallowed_methods, reason = "a driver owns clock, sockets and tasks"))]

mod dial;
mod metrics;
mod open;
mod stream;
mod udp;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::counters::{Counter, Counters};
use super::plan::{PlanError, plan};
use super::service::{Moment, Service};
use super::settings::Settings;
use crate::ops::health::Health;
use crate::ops::listen::{BindError, Listeners};
use crate::ops::metrics::Metrics;
use crate::transport::tcp::{ConnectionCaps, ConnectionLimits};
use crate::transport::tls::{Certificate, CertificateError};
use crate::transport::udp::SocketBuffers;

/// How often certificate files are looked at.
const CERTIFICATE_POLL: Duration = Duration::from_secs(5);

/// An expiry nearer than this is worth a warning, once for each.
const EXPIRY_WARNINGS: [Duration; 4] =
    [Duration::from_secs(21 * 86_400), Duration::from_secs(7 * 86_400), Duration::from_secs(86_400), Duration::ZERO];

/// Calls back over TCP that may be under way at once.
const DIALS_UNDER_WAY: usize = 64;

/// How connections are limited.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct StreamLimits {
    /// How many there may be.
    pub connections: ConnectionLimits,
    /// How long the first byte of the first message may take from the acceptance on; over TLS this includes the handshake.
    pub first_byte: Duration,
    /// How long a message may take from its first byte to its last, and an answer to be taken.
    pub message: Duration,
    /// How long a connection may be silent between messages.
    pub idle: Duration,
}

impl Default for StreamLimits {
    /// A client that does nothing useful, however it goes about it, is gone after 14 seconds.
    fn default() -> Self {
        Self {
            connections: ConnectionLimits::default(),
            first_byte: Duration::from_secs(8),
            message: Duration::from_secs(6),
            idle: Duration::from_secs(60),
        }
    }
}

/// What can be exchanged while a server runs.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// How messages are answered.
    pub settings: Settings,
    /// How connections are limited.
    pub streams: StreamLimits,
}

/// What a server is started with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Addresses for UDP and, with [`Config::tcp`], TCP. Port 0 takes a free port.
    pub listen: Vec<SocketAddr>,
    /// Second addresses and ports (RFC 5780), see [`plan`](super::plan()).
    pub alternates: Vec<SocketAddr>,
    /// Whether TCP is served on the same addresses.
    pub tcp: bool,
    /// Addresses for TLS.
    pub tls_listen: Vec<SocketAddr>,
    /// Certificate chain and key in PEM, for TLS.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// UDP threads; zero stands for one a core.
    pub workers: usize,
    /// The kernel's buffers of each UDP socket.
    pub buffers: SocketBuffers,
    /// What can be exchanged later.
    pub live: Live,
}

impl Default for Config {
    /// No address at all, TCP beside UDP, one thread a core.
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            alternates: Vec::new(),
            tcp: true,
            tls_listen: Vec::new(),
            certificate: None,
            workers: 0,
            buffers: SocketBuffers::default(),
            live: Live::default(),
        }
    }
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The addresses make no sense together.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A socket cannot be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// TLS is asked for without a certificate.
    #[error("TLS needs a certificate and its key")]
    NoCertificate,
    /// The certificate cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The system refuses something else.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// What a listener is reached by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Listening {
    /// `udp`, `tcp` or `tls`.
    pub transport: &'static str,
    /// The address, with the port the system gave.
    pub address: SocketAddr,
}

/// What threads and tasks share.
struct Shared {
    service: Service,
    live: ArcSwap<Live>,
    counters: Counters,
    epoch: Instant,
    connections: Arc<ConnectionCaps>,
    certificate: Option<Certificate>,
    dials: Semaphore,
    /// Finish what was begun.
    drain: CancellationToken,
    /// Threads leave.
    stop: AtomicBool,
    failure: watch::Sender<Option<String>>,
}

impl Shared {
    fn now(&self) -> Moment {
        Moment { monotonic: self.epoch.elapsed(), wall: SystemTime::now() }
    }
}

/// Reads the counters of a server.
#[derive(Clone)]
pub struct Counts(Arc<Shared>);

impl Counts {
    /// How often something was counted.
    #[must_use]
    pub fn get(&self, what: Counter) -> u64 {
        self.0.counters.get(what)
    }
}

impl fmt::Debug for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counts")
    }
}

/// A running server. Dropping it ends it.
pub struct Server {
    shared: Arc<Shared>,
    listening: Vec<Listening>,
    workers: Vec<udp::Worker>,
    tasks: JoinSet<()>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("listening", &self.listening).finish_non_exhaustive()
    }
}

impl Server {
    /// Opens every socket, then starts to serve. Must be called inside a tokio runtime. The loops beat in `health`.
    ///
    /// # Errors
    /// [`StartError`] where a socket or a certificate cannot be had; nothing is left open then.
    pub fn start(config: Config, listeners: &mut Listeners, health: &Health) -> Result<Self, StartError> {
        let sites = plan(&config.listen, &config.alternates)?;
        let certificate = match (&config.certificate, config.tls_listen.is_empty()) {
            (_, true) => None,
            (None, false) => return Err(StartError::NoCertificate),
            (Some((chain, key)), false) => Some(Certificate::load(chain, key)?),
        };
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let workers = if config.workers == 0 { cores } else { config.workers };
        let opened = open::open(&sites, &config, workers, listeners)?;
        let system = |what| move |source| StartError::System { what, source };
        let shared = Arc::new(Shared {
            service: Service::new(opened.endpoints, [rand::random(), rand::random()]),
            live: ArcSwap::from_pointee(config.live),
            counters: Counters::default(),
            epoch: Instant::now(),
            connections: Arc::default(),
            certificate,
            dials: Semaphore::new(DIALS_UNDER_WAY),
            drain: CancellationToken::new(),
            stop: AtomicBool::new(false),
            failure: watch::Sender::new(None),
        });
        let mut server = Self { shared, listening: opened.listening, workers: Vec::new(), tasks: JoinSet::new() };
        for (number, sockets) in opened.udp.into_iter().enumerate() {
            if sockets.is_empty() {
                continue;
            }
            let name = format!("stun-udp-{number}");
            let pulse = health.heartbeat(name.clone());
            let worker = udp::Worker::spawn(name, sockets, Arc::clone(&server.shared), pulse);
            server.workers.push(worker.map_err(system("a thread cannot be started"))?);
        }
        for (slot, transport, listener) in opened.streams {
            let address = listener.local_addr().map_err(system("a listener has no address"))?;
            let listener = tokio::net::TcpListener::from_std(listener);
            let listener = listener.map_err(system("a listener cannot be served"))?;
            let pulse = health.heartbeat(format!("stun-{} {address}", transport.name()));
            let shared = Arc::clone(&server.shared);
            server.tasks.spawn(stream::listen(shared, slot, transport, listener, pulse));
        }
        if server.shared.certificate.is_some() {
            server.tasks.spawn(watch_certificate(Arc::clone(&server.shared)));
        }
        Ok(server)
    }

    /// Where it listens, with the ports the system gave, in the order of the configuration. A group of four is listed as
    /// primary, other port, other address, both other.
    #[must_use]
    pub fn listening(&self) -> &[Listening] {
        &self.listening
    }

    /// The addresses of one transport (`udp`, `tcp` or `tls`).
    #[must_use]
    pub fn addresses(&self, transport: &str) -> Vec<SocketAddr> {
        self.listening.iter().filter(|it| it.transport == transport).map(|it| it.address).collect()
    }

    /// How often something was counted.
    #[must_use]
    pub fn count(&self, what: Counter) -> u64 {
        self.shared.counters.get(what)
    }

    /// The counters, to be read from elsewhere.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts(Arc::clone(&self.shared))
    }

    /// How many connections are open.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.shared.connections.open()
    }

    /// Puts the counters into a registry.
    pub fn register(&self, metrics: &Metrics) {
        let collector = metrics::Collector::new(Arc::clone(&self.shared));
        metrics.floor("stun", |stun| stun.register_collector(Box::new(collector)));
    }

    /// Exchanges what can be exchanged, and reads the certificate again.
    ///
    /// # Errors
    /// [`CertificateError`] where the certificate cannot be replaced; the old one stays, and so do the old settings.
    pub fn reload(&self, live: Live) -> Result<(), CertificateError> {
        reload_certificate(&self.shared)?;
        self.shared.live.store(Arc::new(live));
        Ok(())
    }

    /// Ends with the name of a thread that ended and must not. Otherwise it never ends.
    pub fn failure(&self) -> impl Future<Output = String> + Send + use<> {
        let mut failure = self.shared.failure.subscribe();
        async move {
            let failed = failure.wait_for(Option::is_some).await.ok().and_then(|name| name.clone());
            match failed {
                Some(name) => name,
                None => std::future::pending().await,
            }
        }
    }

    /// Takes no new connection, lets messages under way finish, closes the connections and returns when all are closed.
    /// Datagrams are answered until the server is dropped.
    pub async fn drain(&mut self) {
        self.shared.drain.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.drain.cancel();
        for worker in &mut self.workers {
            worker.finish();
        }
    }
}

/// Looks at the certificate's files until the server drains.
async fn watch_certificate(shared: Arc<Shared>) {
    let mut tick = tokio::time::interval(CERTIFICATE_POLL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut complained, mut warned) = (false, 0);
    loop {
        tokio::select! {
            () = shared.drain.cancelled() => return,
            _ = tick.tick() => {}
        }
        warned = warn_of_expiry(&shared, warned);
        if !shared.certificate.as_ref().is_some_and(Certificate::has_changed) {
            continue;
        }
        match reload_certificate(&shared) {
            Ok(()) => complained = false,
            Err(error) if complained => tracing::debug!(%error, "the certificate is still not replaced"),
            Err(error) => {
                tracing::warn!(%error, "the certificate was changed and cannot be used; the old one stays");
                complained = true;
            }
        }
    }
}

fn reload_certificate(shared: &Shared) -> Result<(), CertificateError> {
    let Some(certificate) = &shared.certificate else { return Ok(()) };
    match certificate.reload() {
        Ok(()) => {
            shared.counters.count(Counter::CertificateReloaded);
            tracing::info!(not_after = certificate.not_after(), "certificate loaded");
            Ok(())
        }
        Err(error) => {
            shared.counters.count(Counter::CertificateKept);
            Err(error)
        }
    }
}

/// Warns when another limit of [`EXPIRY_WARNINGS`] is passed, and returns how many are.
fn warn_of_expiry(shared: &Shared, warned: usize) -> usize {
    let Some(expiry) = shared.certificate.as_ref().and_then(Certificate::not_after) else { return 0 };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let left = Duration::from_secs(u64::try_from(expiry).unwrap_or(0)).saturating_sub(now);
    let passed = EXPIRY_WARNINGS.iter().filter(|limit| left <= **limit).count();
    if passed > warned {
        let days = left.as_secs() / 86_400;
        if left.is_zero() {
            tracing::warn!("the certificate has expired");
        } else {
            tracing::warn!(days, "the certificate expires soon");
        }
    }
    passed
}
