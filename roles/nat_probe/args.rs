//! The command line of the NAT probe.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Serialize;

use crate::launch::ConfigArgs;

/// Find out what the NAT in front of this host does, and what that means for reaching peers
///
/// The probe asks STUN servers from fresh sockets, side by side, and derives facts from what comes back: how addresses are
/// mapped, what is filtered, which port mappings the router makes and whether they really open a port. A fact is true,
/// false or unknown, and says why. With a server that follows RFC 5780 everything can be told; plain STUN servers tell
/// the mapping, but not the filtering.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(super) configuration: ConfigArgs,
    #[command(flatten, next_help_heading = "Diagnosis")]
    pub(super) flags: Flags,
    /// Show the evidence behind each fact, and every packet
    #[arg(long, help_heading = "Output")]
    pub(super) explain: bool,
    /// Leave every address out of what is shown, so that it can be pasted anywhere
    #[arg(long, help_heading = "Output")]
    pub(super) redact: bool,
    /// Say what changed since this report, which was written with --json
    #[arg(long, value_name = "OLD.json", help_heading = "Output")]
    pub(super) compare: Option<PathBuf>,
    /// Diagnose again and again and say what changed; the default interval is 30 s
    #[arg(long, help_heading = "Output", value_name = "SECONDS", num_args = 0..=1, default_missing_value = "30",
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(super) watch: Option<u64>,
    /// Be the helper of a probe elsewhere: answer here over UDP and TCP, and call back whoever asks for it
    #[arg(long, value_name = "ADDR:PORT", conflicts_with_all = ["server", "watch", "compare", "explain", "redact"])]
    pub(super) listen: Option<SocketAddr>,
    /// Removes the mappings of a probe that died; the probe starts this by itself
    #[arg(long, hide = true)]
    pub(super) mapping_guard: bool,
}

const EXAMPLES: &str = "\
Examples:
  Diagnose, with the public servers of the default configuration
    nzc nat-probe
  Ask a server of your own that follows RFC 5780, and keep the answer
    nzc nat-probe --server stun.example.org:3478 --json > today.json
  What changed since then, and why is it believed?
    nzc nat-probe --compare today.json --explain
  TCP filtering and port mappings tried from outside: a helper on a public host, the probe at home
    nzc nat-probe --listen 0.0.0.0:3478
    nzc nat-probe --server helper.example.org:3478

Exit status: 0 diagnosed, 10 inconclusive (servers contradict each other, or too little came back),
69 network blocked.";

/// The keys of the role as flags.
#[derive(Debug, Serialize, clap::Args)]
pub(crate) struct Flags {
    /// Ask this STUN server; repeatable
    #[arg(long, value_name = "HOST:PORT")]
    server: Vec<String>,
    /// Send from this local address
    #[arg(long, value_name = "ADDR")]
    bind: Option<String>,
    /// Diagnose only this family
    #[arg(long, value_name = "FAMILY", value_parser = ["any", "ipv4", "ipv6"])]
    family: Option<String>,
    /// IPv4 only
    #[arg(short = '4', conflicts_with_all = ["family", "six"])]
    #[serde(skip)]
    pub(super) four: bool,
    /// IPv6 only
    #[arg(short = '6', conflicts_with = "family")]
    #[serde(skip)]
    pub(super) six: bool,
    /// Do not ask the router for port mappings
    #[arg(long)]
    #[serde(skip)]
    pub(super) no_port_map: bool,
    /// Do not test TCP
    #[arg(long)]
    #[serde(skip)]
    pub(super) no_tcp: bool,
    /// Find out how long an idle mapping lives, up to this long; it takes as long as that and a second
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "120s")]
    lifetime: Option<String>,
    /// Find out whether the NAT turns packets round; some firewalls take them for an attack
    #[arg(long)]
    #[serde(skip)]
    pub(super) hairpin: bool,
    /// End by then, whatever is known
    #[arg(long, value_name = "TIME")]
    timeout: Option<String>,
    /// Colours: when the output is a terminal, always or never
    #[arg(long, value_name = "WHEN", value_parser = ["auto", "always", "never"])]
    color: Option<String>,
}

/// The switches as the keys they stand for.
#[derive(Debug, Serialize)]
pub(super) struct Switches {
    family: Option<&'static str>,
    port_map: Option<bool>,
    hairpin: Option<bool>,
    tcp: Option<bool>,
}

impl Flags {
    /// The switches of this command line.
    pub(super) fn switches(&self) -> Switches {
        let family = match (self.four, self.six) {
            (true, _) => Some("ipv4"),
            (_, true) => Some("ipv6"),
            _ => None,
        };
        Switches {
            family,
            port_map: self.no_port_map.then_some(false),
            hairpin: self.hairpin.then_some(true),
            tcp: self.no_tcp.then_some(false),
        }
    }
}
