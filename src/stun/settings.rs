//! What an operator can choose about the answers. All of it can change while the server runs.

use std::net::SocketAddr;

use super::guard::Limits;
use crate::address::Rate;

/// How a server answers.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Caps on replies over UDP.
    pub limits: Limits,
    /// Answers clients of RFC 3489, which send no magic cookie, over UDP.
    pub rfc3489: bool,
    /// Keeps the amplification ratio on servers with alternates, at the price of clients that need every address in the
    /// answer to a bare request.
    pub strict_amplification: bool,
    /// Sends IPv4 clients elsewhere: every request is answered with 300 (RFC 8489 section 10).
    pub alternate_server_v4: Option<SocketAddr>,
    /// Sends IPv6 clients elsewhere.
    pub alternate_server_v6: Option<SocketAddr>,
    /// Calls back over a fresh port on request, over TCP and TLS only (the DIAL-BACK attribute). The rate is for one host.
    pub dial_back: Option<Rate>,
}

impl Settings {
    /// How often one host may be called back: once a second, sixteen times at once, which is one full diagnosis.
    pub const DIAL_BACK_RATE: Rate = Rate::new(1, 16);

    /// Where clients of this family are sent instead.
    #[must_use]
    pub const fn alternate_server(&self, source: SocketAddr) -> Option<SocketAddr> {
        if source.is_ipv4() { self.alternate_server_v4 } else { self.alternate_server_v6 }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            rfc3489: false,
            strict_amplification: false,
            alternate_server_v4: None,
            alternate_server_v6: None,
            dial_back: None,
        }
    }
}
