//! The command line of the STUN server.

use std::path::PathBuf;

use serde::Serialize;

use crate::launch::DaemonArgs;

/// Answer STUN Binding requests, so that clients learn the address others see them from.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(super) flags: Flags,
    #[command(flatten)]
    pub(super) daemon: DaemonArgs,
}

const EXAMPLES: &str = "\
Examples:
  Serve on every address of this host
    nzc stun-server
  Serve on loopback only, and look at it
    nzc stun-server --listen 127.0.0.1:3478 &
    nzc stun-server status
  Let clients find out how their NAT maps and filters (RFC 5780)
    nzc stun-server --listen 192.0.2.1:3478 --alternate 192.0.2.2:3479
  Serve TLS as well
    nzc stun-server --tls-listen 0.0.0.0:5349 --cert chain.pem --key key.pem
  See what a configuration file amounts to
    nzc stun-server --config stun-server.yaml --print-config

Every flag is also a key of the file and a variable: --drain-timeout, drain_timeout,
NZC_STUN_SERVER_DRAIN_TIMEOUT. Flags beat variables beat the file beats the defaults.

Signals: TERM drains and exits, a second TERM exits at once, HUP reloads, USR1 drains and stays.";

/// The keys of the role as flags.
#[derive(Debug, Serialize, clap::Args)]
pub(crate) struct Flags {
    /// Answer on this address and port over UDP and TCP; repeatable
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Vec<String>,
    /// Take this as the second address and port of RFC 5780, once per family; opens all four combinations
    #[arg(long, value_name = "ADDR:PORT")]
    alternate: Vec<String>,
    /// Answer over TCP on the same addresses
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    tcp: Option<bool>,
    /// Answer over TLS on this address and port; repeatable
    #[arg(long, value_name = "ADDR:PORT")]
    tls_listen: Vec<String>,
    /// Certificate chain for TLS, in PEM; loaded again on HUP and when the file changes
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// Private key of the certificate, in PEM
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Threads for UDP; 0 for one a core
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    #[command(flatten)]
    #[serde(flatten)]
    answers: AnswerFlags,
    #[command(flatten)]
    #[serde(flatten)]
    limits: LimitFlags,
}

/// Who is answered, and with what.
#[derive(Debug, Serialize, clap::Args)]
#[command(next_help_heading = "Answers")]
struct AnswerFlags {
    /// Who may ask: everybody, or holders of short-term or long-term credentials
    #[arg(long, value_name = "KIND", value_parser = ["none", "short-term", "long-term"])]
    auth: Option<String>,
    /// The realm of long-term credentials
    #[arg(long, value_name = "TEXT")]
    realm: Option<String>,
    /// File with one `name:password` a line
    #[arg(long, value_name = "FILE")]
    users: Option<PathBuf>,
    /// Send clients to this server instead (300 Try Alternate); once per family
    #[arg(long, value_name = "ADDR:PORT")]
    alternate_server: Vec<String>,
    /// Answer RFC 3489 clients, which send no magic cookie
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    rfc3489: Option<bool>,
    /// With alternates, leave addresses out of an answer that would be long for its request
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    strict_amplification: Option<bool>,
    /// Call back from a fresh port when a client asks over TCP
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    dial_back: Option<bool>,
}

/// What nobody gets more of.
#[derive(Debug, Serialize, clap::Args)]
#[command(next_help_heading = "Limits")]
struct LimitFlags {
    /// UDP answers a second to one IPv4 address or IPv6 /64; 0 for no cap
    #[arg(long, value_name = "RATE")]
    limit_host: Option<u32>,
    /// UDP answers a second to one IPv4 /24 or IPv6 /48; 0 for no cap
    #[arg(long, value_name = "RATE")]
    limit_site: Option<u32>,
    /// Connections open at once; 0 for no cap
    #[arg(long, value_name = "N")]
    max_connections: Option<u32>,
}
