//! The flags and keys every daemon has.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr};

use fabric::ops::{
    config::{Findings, Span},
    logging::{self, LogFormat},
};
use serde::{Deserialize, Serialize};

use super::settings::ConfigArgs;

/// Flags of every daemon.
#[derive(Debug, clap::Args)]
pub(crate) struct DaemonArgs {
    /// Print one line of JSON to standard output when everything listens: role, process number and addresses
    #[arg(long, help_heading = "Operation")]
    pub(super) ready_json: bool,
    #[command(flatten)]
    pub(super) config: ConfigArgs,
    #[command(flatten)]
    pub(super) common: CommonFlags,
    #[command(subcommand)]
    pub(super) action: Option<Action>,
}

/// What can be asked of a running daemon.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Action {
    /// Ask the running process how it is; exit 0 when it is ready, 69 when it is not or does not answer
    #[command(after_help = "Example: is the server with the default admin address ready?\n  nzc stun-server status")]
    Status,
}

/// The keys of [`Common`] as flags.
#[derive(Debug, Serialize, clap::Args)]
#[command(next_help_heading = "Operation")]
pub(super) struct CommonFlags {
    /// Serve health, metrics and status here, or `off`
    #[arg(long, value_name = "ADDR:PORT", global = true)]
    admin: Option<String>,
    /// Also answer admin requests for this host name; repeatable
    #[arg(long, value_name = "NAME")]
    admin_host: Vec<String>,
    /// Log what passes this filter, for example `info` or `warn,fabric=debug`
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// How log records look
    #[arg(long, value_name = "FORMAT", value_parser = ["auto", "text", "json"])]
    log_format: Option<String>,
    /// Append security events to this hash-chained file
    #[arg(long, value_name = "FILE")]
    audit_log: Option<String>,
    /// Keep serving at least this long after a drain was asked for
    #[arg(long, value_name = "TIME")]
    drain_grace: Option<String>,
    /// Give what was begun this long to finish
    #[arg(long, value_name = "TIME")]
    drain_timeout: Option<String>,
}

fabric::settings! {
    /// The keys every daemon has.
    pub(crate) struct Common {
        /// Where health, metrics and status are served over HTTP, or `off`.
        /// There is no authentication: keep it on loopback or behind a firewall.
        pub(crate) admin [restart]: AdminAddress = AdminAddress(Some(([127, 0, 0, 1], 9033).into())),
        /// Names under which the admin listener may be asked, besides its addresses and localhost.
        /// A request for any other name is refused, which defeats DNS rebinding.
        pub(crate) admin_host [restart]: Vec<String> = Vec::new(),
        /// What is logged: a level (error, warn, info, debug, trace), or levels by module such as `warn,fabric=debug`.
        pub(crate) log: String = "info".to_owned(),
        /// How log records look: `text`, `json`, or `auto` for text on a terminal and JSON elsewhere.
        pub(crate) log_format [restart]: LogFormat = LogFormat::Auto,
        /// The file that security events are appended to, hash-chained; without it they are only counted.
        /// Rotate it by moving it away and sending HUP; check it with `nzc audit verify`.
        pub(crate) audit_log [restart]: Option<PathBuf> = None,
        /// How long the process keeps serving after a drain was asked for, so that load balancers can notice.
        pub(crate) drain_grace: Span = Span::from_secs(0),
        /// How long what was begun may take to finish during a drain, after the grace.
        pub(crate) drain_timeout: Span = Span::from_secs(120),
    }
}

impl Common {
    /// Finds what is wrong with values that parse.
    pub(super) fn check(&self, findings: &mut Findings) {
        if let Err(error) = logging::check_filter(&self.log) {
            findings.problem("log", format_args!("`{}` {error}", self.log));
        }
    }
}

/// An address and port, or `off`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct AdminAddress(Option<SocketAddr>);

impl AdminAddress {
    /// The address, unless it is off.
    pub(crate) const fn address(self) -> Option<SocketAddr> {
        self.0
    }
}

impl FromStr for AdminAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => Ok(Self(None)),
            _ => text.parse().map(|address| Self(Some(address))).map_err(|_| "expected ADDRESS:PORT or `off`"),
        }
    }
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("off"),
        }
    }
}

impl Serialize for AdminAddress {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AdminAddress {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|error| serde::de::Error::custom(format_args!("`{text}`: {error}")))
    }
}
