//! What an operator can choose about the answers. All of it can change while the server runs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use super::guard::Limits;
use crate::address::Rate;
use crate::protocol::stun::Packet;
use crate::protocol::stun::auth::{Accounts, LongTermServer, Verdict, short_term};

/// Who may ask (RFC 8489 section 9).
#[derive(Clone, Debug, Default)]
pub enum Credentials {
    /// Everybody.
    #[default]
    None,
    /// Whoever signs with a password exchanged elsewhere.
    ShortTerm(Arc<Accounts>),
    /// Whoever answers a challenge with the password of an account.
    LongTerm(Arc<LongTermServer>, Arc<Accounts>),
}

impl Credentials {
    /// Judges a request; `None` where everybody may ask.
    pub(super) fn judge(&self, request: &Packet<'_>, client: SocketAddr, now: SystemTime) -> Option<Verdict<'_>> {
        match self {
            Self::None => None,
            Self::ShortTerm(accounts) => Some(short_term(request, |claim, kind| accounts.find(claim, kind))),
            Self::LongTerm(server, accounts) => {
                Some(server.judge(request, client, now, |claim, kind| accounts.find(claim, kind)))
            }
        }
    }
}

/// How a server answers.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who may ask.
    pub credentials: Credentials,
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

    /// Whether a request without attributes from here is answered with nothing but its address.
    pub(super) const fn is_plain(&self, source: SocketAddr) -> bool {
        matches!(self.credentials, Credentials::None) && self.alternate_server(source).is_none()
    }

    /// Where clients of this family are sent instead.
    #[must_use]
    pub const fn alternate_server(&self, source: SocketAddr) -> Option<SocketAddr> {
        if source.is_ipv4() { self.alternate_server_v4 } else { self.alternate_server_v6 }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            credentials: Credentials::None,
            limits: Limits::default(),
            rfc3489: false,
            strict_amplification: false,
            alternate_server_v4: None,
            alternate_server_v6: None,
            dial_back: None,
        }
    }
}
