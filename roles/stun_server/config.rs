//! The keys of the STUN server.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use fabric::ops::config::Findings;

fabric::settings! {
    /// The keys of the STUN server.
    pub(crate) struct Settings {
        /// UDP addresses and ports to answer on.
        pub(super) listen [restart]: Vec<SocketAddr> =
            vec![(Ipv4Addr::UNSPECIFIED, 3478).into(), (Ipv6Addr::UNSPECIFIED, 3478).into()],
    }
}

impl Settings {
    /// Finds what is wrong with values that parse.
    pub(super) fn check(&self, findings: &mut Findings) {
        if self.listen.is_empty() {
            findings.problem("listen", "needs at least one address");
        }
        for (index, address) in self.listen.iter().enumerate() {
            if self.listen.iter().take(index).any(|earlier| overlap(*earlier, *address)) {
                findings.problem("listen", format_args!("{address} overlaps with an address before it"));
            }
        }
    }
}

/// Whether two sockets cannot be open side by side.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let same_family = a.is_ipv4() == b.is_ipv4();
    let same_address = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    same_family && same_address && a.port() == b.port() && a.port() != 0
}
