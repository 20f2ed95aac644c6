//! The STUN server: builds the service from its keys and leaves the rest to [`launch`].

pub(crate) mod args;
mod config;
mod users;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use config::{Auth, Settings};
use fabric::ops::audit::Audit;
use fabric::ops::config::Findings;
use fabric::ops::listen::{Listeners, Transport};
use fabric::protocol::stun::auth::{LongTermServer, NonceMint};
use fabric::stun::driver::{self, Config, Counts, Live, Server};
use fabric::stun::{self, Counter, Credentials};
use fabric::transport::udp::SocketBuffers;

use crate::exit::Exit;
use crate::launch::{self, Daemon, Ops, StartError, Task};

/// Runs the role.
pub(crate) fn run(args: args::Args) -> Exit {
    launch::run::<StunServer>(args.daemon, &args.flags)
}

/// The running server.
pub(crate) struct StunServer {
    server: Server,
    /// Stays the same over reloads, so that a nonce outlives one.
    nonce_key: [u8; 32],
    _tasks: [Task; 2],
}

impl Daemon for StunServer {
    const ROLE: &'static str = "stun-server";
    type Settings = Settings;

    fn check(settings: &Settings, findings: &mut Findings) {
        settings.check(findings);
    }

    async fn start(settings: Settings, ops: &Ops, listeners: &mut Listeners) -> Result<Self, StartError> {
        let nonce_key = rand::random();
        let listen = listeners.addresses("listen", Transport::Udp, &settings.listen);
        let live = live(&settings, nonce_key).map_err(|error| system("the credentials cannot be used", error))?;
        let config = Config {
            alternates: settings.alternate.clone(),
            tcp: settings.tcp,
            tls_listen: listeners.addresses("tls_listen", Transport::Tcp, &settings.tls_listen),
            certificate: settings.cert.clone().zip(settings.key.clone()),
            workers: settings.threads,
            buffers: SocketBuffers { receive: settings.receive_buffer, send: settings.send_buffer },
            live,
            listen,
        };
        let server = open(config, &settings, ops, listeners)?;
        server.register(&ops.metrics);
        for listener in server.listening() {
            let key = if listener.transport == "tls" { "tls_listen" } else { "listen" };
            ops.board.add_listener(key, listener.transport, listener.address);
            tracing::info!(transport = listener.transport, address = %listener.address, "listening");
        }
        let failure = server.failure();
        let watch = ops.spawn("the STUN threads", async move {
            let thread = failure.await;
            tracing::error!(thread, "a thread ended that must not");
        });
        let audit = ops.spawn("the audit of credentials", audit_refusals(server.counts(), ops.audit.clone()));
        Ok(Self { server, nonce_key, _tasks: [watch, audit] })
    }

    async fn reload(&mut self, settings: Settings) -> Result<(), String> {
        let live = live(&settings, self.nonce_key).map_err(|error| error.to_string())?;
        self.server.reload(live).map_err(|error| error.to_string())
    }

    async fn drain(&mut self) {
        self.server.drain().await;
    }
}

/// Starts the server. On a host without IPv6 the default addresses come down to IPv4; an address that was asked for is
/// never left out.
fn open(config: Config, settings: &Settings, ops: &Ops, listeners: &mut Listeners) -> Result<Server, StartError> {
    let is_default = config.listen == Settings::default().listen && settings.alternate.is_empty();
    let without_v6 =
        Config { listen: config.listen.iter().copied().filter(SocketAddr::is_ipv4).collect(), ..config.clone() };
    match Server::start(config, listeners, &ops.health) {
        Err(driver::StartError::Bind(error)) if is_default && is_without_ipv6(&error.source, error.address) => {
            tracing::warn!("this host has no IPv6, serving IPv4 only");
            Server::start(without_v6, listeners, &ops.health).map_err(explain)
        }
        started => started.map_err(explain),
    }
}

fn is_without_ipv6(error: &io::Error, address: SocketAddr) -> bool {
    /// Address family not supported by protocol.
    const EAFNOSUPPORT: i32 = 97;
    address.is_ipv6() && (error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(EAFNOSUPPORT))
}

fn explain(error: driver::StartError) -> StartError {
    match error {
        driver::StartError::Bind(error) => StartError::Bind(error),
        driver::StartError::System { what, source } => StartError::System { what, source },
        other => system("the server cannot be started", other),
    }
}

/// Writes refused credentials to the audit log: one record a second at most, with how many there were, so that a flood of
/// guesses does not become a flood of records.
async fn audit_refusals(counts: Counts, audit: Audit) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    let mut before = 0;
    loop {
        tick.tick().await;
        let refused = [Counter::AuthUnknownUser, Counter::AuthWrongIntegrity].map(|what| counts.get(what));
        let total = refused.iter().sum();
        if total != before {
            let [unknown_user, wrong_integrity] = refused;
            let fields = serde_json::json!({
                "count": total - before,
                "unknown_user_total": unknown_user,
                "wrong_integrity_total": wrong_integrity,
            });
            audit.record("credentials-refused", fields);
            before = total;
        }
    }
}

fn system(what: &'static str, error: impl std::error::Error + Send + Sync + 'static) -> StartError {
    StartError::System { what, source: io::Error::other(error) }
}

/// Why credentials that passed the check of the configuration cannot be used after all.
#[derive(Debug, thiserror::Error)]
enum CredentialsError {
    #[error(transparent)]
    Users(#[from] users::UsersError),
    #[error(transparent)]
    Realm(#[from] fabric::protocol::stun::auth::InvalidRealm),
    #[error(transparent)]
    Lifetime(#[from] fabric::protocol::stun::auth::InvalidLifetime),
}

fn live(settings: &Settings, nonce_key: [u8; 32]) -> Result<Live, CredentialsError> {
    let accounts = || match &settings.users {
        Some(path) => users::read(path, &settings.realm).map(Arc::new),
        None => Ok(Arc::default()),
    };
    let credentials = match settings.auth {
        Auth::None => Credentials::None,
        Auth::ShortTerm => Credentials::ShortTerm(accounts()?),
        Auth::LongTerm => {
            let mint = NonceMint::new(nonce_key, settings.nonce_lifetime.0)?;
            Credentials::LongTerm(Arc::new(LongTermServer::new(&settings.realm, mint)?), accounts()?)
        }
    };
    let elsewhere = |family: fn(&SocketAddr) -> bool| settings.alternate_server.iter().copied().find(family);
    let answers = stun::Settings {
        credentials,
        limits: settings.limits(),
        rfc3489: settings.rfc3489,
        strict_amplification: settings.strict_amplification,
        alternate_server_v4: elsewhere(SocketAddr::is_ipv4),
        alternate_server_v6: elsewhere(SocketAddr::is_ipv6),
        dial_back: settings.dial_back.then_some(stun::Settings::DIAL_BACK_RATE),
    };
    Ok(Live { settings: answers, streams: settings.streams() })
}
