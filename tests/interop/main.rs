//! Programs nobody here wrote, against ours: coturn's command-line clients and Debian's RFC 3489 client on our server,
//! and our probe on coturn's server. Everything stays on loopback.

mod probe;
mod server;

#[path = "../support/daemon.rs"]
mod daemon;
#[path = "../support/foreign.rs"]
mod foreign;

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use daemon::Daemon;

fn main() {
    let arguments = libtest_mimic::Arguments::from_args();
    let trials = server::trials().into_iter().chain(probe::trials()).collect();
    libtest_mimic::run(&arguments, trials).exit();
}

/// Starts `nzc stun-server` with these flags and returns it with the UDP addresses it says it listens on.
fn stun_server(flags: &[&str]) -> (Daemon, Vec<SocketAddr>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nzc"));
    command.args(["stun-server", "--admin", "off", "--ready-json"]).args(flags);
    Daemon::start(&mut command, Duration::from_secs(10), |line| {
        let ready: serde_json::Value = serde_json::from_str(line).ok()?;
        let listen = ready.get("listen")?.as_array()?;
        Some(listen.iter().filter_map(|value| value.as_str()?.strip_prefix("udp://")?.parse().ok()).collect())
    })
}
