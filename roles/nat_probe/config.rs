//! The keys of the NAT probe.

use std::net::IpAddr;

use fabric::ops::config::{Findings, Span};
use serde::{Deserialize, Serialize};

/// Which address families to diagnose.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FamilyChoice {
    /// Whatever this host and the servers have.
    #[default]
    Any,
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl FamilyChoice {
    /// Whether the family is wanted.
    pub(super) const fn wants(self, ipv4: bool) -> bool {
        matches!((self, ipv4), (Self::Any, _) | (Self::Ipv4, true) | (Self::Ipv6, false))
    }
}

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

fabric::settings! {
    /// The keys of the NAT probe.
    pub(crate) struct Settings {
        /// STUN servers to ask, as HOST:PORT. The more operators and networks, the less one of them can lie; at least one
        /// that follows RFC 5780 is needed to tell the filtering of UDP; for TCP a helper (nzc nat-probe --listen) will do.
        pub(super) server: Vec<String> = [
            "stun.cloudflare.com:3478",
            "stun.l.google.com:19302",
            "stun.nextcloud.com:3478",
            "stunserver2025.stunprotocol.org:3478",
        ].map(str::to_owned).to_vec(),
        /// Local address to send from; the one that leads to the servers where absent.
        pub(super) bind: Option<IpAddr> = None,
        /// Families to diagnose: any, ipv4 or ipv6.
        pub(super) family: FamilyChoice = FamilyChoice::Any,
        /// Whether TCP is tested beside UDP.
        pub(super) tcp: bool = true,
        /// Whether the router is asked for port mappings (UPnP IGD, NAT-PMP, PCP). A mapping is made for a moment, tried
        /// from outside where a server calls back, and removed.
        pub(super) port_map: bool = true,
        /// The longest life of an idle mapping to look for, at most 600s; it takes as long as the mapping lives and a
        /// second. Absent: it is not looked for.
        pub(super) lifetime: Option<Span> = None,
        /// Whether to find out whether the NAT turns packets round that are sent to its own outer address. Some firewalls
        /// take such packets for an attack, so it is off.
        pub(super) hairpin: bool = false,
        /// Everything ends by then, whatever is known.
        pub(super) timeout: Span = Span::from_secs(12),
        /// Colours: auto, always or never.
        pub(super) color: Color = Color::Auto,
    }
}

impl Settings {
    /// Finds what is wrong with values that parse.
    pub(super) fn check(&self, findings: &mut Findings) {
        if self.server.is_empty() {
            findings.problem("server", "needs at least one server, HOST:PORT");
        }
        for server in &self.server {
            if let Err(problem) = split(server) {
                findings.problem("server", format_args!("`{server}` {problem}"));
            }
        }
        if let Some(bind) = self.bind
            && (bind.is_unspecified() || !self.family.wants(bind.is_ipv4()))
        {
            findings.problem("bind", "must be one address of the family that is diagnosed");
        }
        if self.timeout.0.is_zero() {
            findings.problem("timeout", "must be longer than nothing");
        }
    }
}

/// Takes `HOST:PORT` apart; an IPv6 address stands in brackets. A host alone gets the port of STUN.
pub(super) fn split(server: &str) -> Result<(String, u16), &'static str> {
    let (host, port) = match server.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, "")) => (host, "3478"),
            Some((host, port)) => (host, port.strip_prefix(':').ok_or("has something after the bracket")?),
            None => return Err("lacks the closing bracket"),
        },
        None if server.matches(':').count() > 1 => return Err("needs brackets around the IPv6 address"),
        None => server.rsplit_once(':').unwrap_or((server, "3478")),
    };
    let port = port.parse().ok().filter(|port| *port != 0).ok_or("needs a port from 1 to 65535")?;
    if host.is_empty() { Err("lacks the host") } else { Ok((host.to_owned(), port)) }
}

/// `HOST:PORT` as the system's resolver takes it.
pub(super) fn canonical(server: &str) -> Result<String, &'static str> {
    let (host, port) = split(server)?;
    Ok(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_taken_apart() {
        let good = |text| split(text).ok();
        assert_eq!(good("stun.example.org:3479"), Some(("stun.example.org".to_owned(), 3479)));
        assert_eq!(good("stun.example.org"), Some(("stun.example.org".to_owned(), 3478)));
        assert_eq!(good("[2a00::1]:5"), Some(("2a00::1".to_owned(), 5)));
        assert_eq!(good("[2a00::1]"), Some(("2a00::1".to_owned(), 3478)));
        for bad in ["2a00::1", "[2a00::1", "[2a00::1]5", "host:0", "host:65536", "host:", ":3478", ""] {
            assert!(split(bad).is_err(), "{bad}");
        }
    }
}
