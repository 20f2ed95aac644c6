//! The command line of the STUN server.

use serde::Serialize;

use crate::launch::DaemonArgs;

/// Answer STUN Binding requests, so that clients learn the address others see them from.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(super) daemon: DaemonArgs,
    #[command(flatten)]
    pub(super) flags: Flags,
}

const EXAMPLES: &str = "\
Examples:
  Serve on every address of this host
    nzc stun-server
  Serve on loopback only, and look at it
    nzc stun-server --listen 127.0.0.1:3478 &
    nzc stun-server status
  See what a configuration file amounts to
    nzc stun-server --config stun-server.yaml --print-config

Every flag is also a key of the file and a variable: --drain-timeout, drain_timeout,
NZC_STUN_SERVER_DRAIN_TIMEOUT. Flags beat variables beat the file beats the defaults.

Signals: TERM drains and exits, a second TERM exits at once, HUP reloads, USR1 drains and stays.";

/// The keys of the role as flags.
#[derive(Debug, Serialize, clap::Args)]
pub(crate) struct Flags {
    /// Answer on this UDP address and port; repeatable
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Vec<String>,
}
