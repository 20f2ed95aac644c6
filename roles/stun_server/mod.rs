//! The STUN server: opens its sockets, answers, and leaves the rest to [`launch`](crate::launch).

pub(crate) mod args;
mod config;

use std::{io, net::SocketAddr, sync::Arc};

use config::Settings;
use fabric::{
    ops::{
        config::Findings,
        health::{BEAT, Heartbeat},
        listen::{Listeners, Transport},
    },
    protocol::stun::binding,
};
use prometheus_client::metrics::counter::Counter;
use tokio::net::UdpSocket;

use crate::{
    exit::Exit,
    launch::{self, Daemon, Ops, StartError, Task},
};

/// Runs the role.
pub(crate) fn run(args: args::Args) -> Exit {
    launch::run::<StunServer>(args.daemon, &args.flags)
}

/// The running server.
struct StunServer {
    _loops: Vec<Task>,
}

impl Daemon for StunServer {
    const ROLE: &'static str = "stun-server";
    type Settings = Settings;

    fn check(settings: &Settings, findings: &mut Findings) {
        settings.check(findings);
    }

    async fn start(settings: Settings, ops: &Ops, listeners: &mut Listeners) -> Result<Self, StartError> {
        let mut sockets = Vec::new();
        for address in listeners.addresses("listen", Transport::Udp, &settings.listen) {
            let system = |source| StartError::System { what: "the socket cannot be served", source };
            let socket = UdpSocket::from_std(listeners.udp("listen", address)?).map_err(system)?;
            sockets.push((socket.local_addr().map_err(system)?, Arc::new(socket)));
        }
        let answers = Counter::<u64>::default();
        ops.metrics.floor("stun", |stun| stun.register("answers", "Binding requests answered", answers.clone()));
        let serve = |(address, socket): (SocketAddr, Arc<UdpSocket>)| {
            let name = format!("udp {address}");
            ops.board.add_listener("listen", "udp", address);
            let watched = Arc::clone(&socket);
            ops.health.add_check(format!("socket {name}"), move || match watched.take_error() {
                Ok(None) => Ok(()),
                Ok(Some(error)) | Err(error) => Err(error.to_string()),
            });
            let pulse = ops.health.heartbeat(format!("loop {name}"));
            ops.spawn(name, answer(socket, pulse, answers.clone()))
        };
        Ok(Self { _loops: sockets.into_iter().map(serve).collect() })
    }

    async fn reload(&mut self, _settings: Settings) -> Result<(), String> {
        // Every key of this role waits for the next start.
        Ok(())
    }

    async fn drain(&mut self) {
        // A Binding exchange is over with its answer: there is never anything left to finish.
    }
}

/// Answers bare Binding requests until it is dropped.
async fn answer(socket: Arc<UdpSocket>, pulse: Heartbeat, answers: Counter) {
    let mut tick = tokio::time::interval(BEAT);
    let (mut request, mut response) = ([0; 2048], [0; 64]);
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut request) => received,
            _ = tick.tick() => {
                pulse.beat();
                continue;
            }
        };
        match received {
            Ok((length, source)) => {
                let Some(transaction) = binding::bare_request(&request[..length]) else { continue };
                let Ok(length) = binding::write_success(&mut response, transaction, source) else { continue };
                match socket.try_send_to(&response[..length], source) {
                    Ok(_) => drop(answers.inc()),
                    Err(error) => tracing::debug!(%error, "an answer was not sent"),
                }
            }
            // An ICMP error of an earlier answer; the socket itself is well.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => {
                tracing::debug!(%error, "nothing could be received");
                tokio::task::yield_now().await;
            }
        }
    }
}
