//! The keys of the STUN server.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use fabric::address::Rate;
use fabric::ops::config::{Findings, Span};
use fabric::stun::driver::StreamLimits;
use fabric::stun::{Limits, PlanError, plan};
use fabric::transport::tcp::ConnectionLimits;
use fabric::transport::tls::Certificate;
use fabric::transport::udp::SocketBuffers;
use serde::{Deserialize, Serialize};

use super::users;

/// Who may ask.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Auth {
    #[default]
    None,
    ShortTerm,
    LongTerm,
}

fabric::settings! {
    /// The keys of the STUN server.
    pub(crate) struct Settings {
        /// Addresses and ports to answer on over UDP and TCP.
        pub(super) listen [restart]: Vec<SocketAddr> =
            vec![(Ipv4Addr::UNSPECIFIED, 3478).into(), (Ipv6Addr::UNSPECIFIED, 3478).into()],
        /// The second address and port of RFC 5780, at most one per family, so that clients can find out how their NAT
        /// maps and filters. It is paired with the first listening address of its family; both must be addresses of
        /// this host that differ in address and port. All four combinations are opened.
        pub(super) alternate [restart]: Vec<SocketAddr> = Vec::new(),
        /// Whether the same addresses answer over TCP.
        pub(super) tcp [restart]: bool = true,
        /// Addresses and ports to answer on over TLS.
        pub(super) tls_listen [restart]: Vec<SocketAddr> = Vec::new(),
        /// Certificate chain for TLS, in PEM. It is loaded again on HUP and when the file changes.
        pub(super) cert [restart]: Option<PathBuf> = None,
        /// Private key of the certificate, in PEM.
        pub(super) key [restart]: Option<PathBuf> = None,
        /// Threads for UDP, 0 for one a core.
        pub(super) threads [restart]: usize = 0,
        /// The kernel's receive buffer of each UDP socket in bytes. The kernel may give less (net.core.rmem_max).
        pub(super) receive_buffer [restart]: usize = SocketBuffers::default().receive,
        /// The kernel's send buffer of each UDP socket in bytes. The kernel may give less (net.core.wmem_max).
        pub(super) send_buffer [restart]: usize = SocketBuffers::default().send,
        /// Who may ask: `none` for everybody, `short-term` or `long-term` for holders of such credentials (RFC 8489
        /// section 9).
        pub(super) auth: Auth = Auth::None,
        /// The realm of long-term credentials.
        pub(super) realm: String = "stun".to_owned(),
        /// File with one `name:password` a line; lines that begin with # are comments. Read again on HUP.
        pub(super) users: Option<PathBuf> = None,
        /// How long a long-term nonce is valid.
        pub(super) nonce_lifetime: Span = Span::from_secs(600),
        /// Send clients to this server instead (300 Try Alternate), at most one per family.
        pub(super) alternate_server: Vec<SocketAddr> = Vec::new(),
        /// Whether RFC 3489 clients, which send no magic cookie, are answered.
        pub(super) rfc3489: bool = false,
        /// With alternates RFC 5780 makes an answer 3.4 (IPv4) or 5.8 (IPv6) times as long as the shortest request. With
        /// this switched on the ratio stays at 1.6 and 2.2: addresses are left out unless the request is long enough.
        /// Old clients that need them in the answer to a bare request then find none.
        pub(super) strict_amplification: bool = false,
        /// Whether a client that asks over TCP or TLS is called back from a fresh port, so that it learns whether
        /// strangers reach it (the DIAL-BACK attribute).
        pub(super) dial_back: bool = false,
        /// UDP answers a second to one IPv4 address or one IPv6 /64, twice that at once; 0 for no cap.
        pub(super) limit_host: u32 = 50_000,
        /// UDP answers a second to one IPv4 /24 or one IPv6 /48, twice that at once; 0 for no cap.
        pub(super) limit_site: u32 = 200_000,
        /// Connections open at once, all together; 0 for no cap.
        pub(super) max_connections: u32 = ConnectionLimits::default().total,
        /// Connections open at once from one IPv4 address or one IPv6 /64; 0 for no cap.
        pub(super) max_connections_host: u32 = ConnectionLimits::default().per_host,
        /// Connections open at once from one IPv4 /24 or one IPv6 /48; 0 for no cap.
        pub(super) max_connections_site: u32 = ConnectionLimits::default().per_site,
        /// How long the first byte of a connection may take; over TLS this includes the handshake.
        pub(super) first_byte_timeout: Span = Span(StreamLimits::default().first_byte),
        /// How long a message over a connection may take from its first byte to its last.
        pub(super) message_timeout: Span = Span(StreamLimits::default().message),
        /// How long a connection may be silent between messages.
        pub(super) idle_timeout: Span = Span(StreamLimits::default().idle),
    }
}

impl Settings {
    /// Finds what is wrong with values that parse.
    pub(super) fn check(&self, findings: &mut Findings) {
        if self.listen.is_empty() && self.tls_listen.is_empty() {
            findings.problem("listen", "needs at least one address");
        }
        for (key, addresses) in [("listen", &self.listen), ("tls_listen", &self.tls_listen)] {
            for (index, address) in addresses.iter().enumerate() {
                if addresses.iter().take(index).any(|earlier| overlap(*earlier, *address)) {
                    findings.problem(key, format_args!("{address} overlaps with an address before it"));
                }
            }
        }
        if self.tcp
            && let Some(both) = self.tls_listen.iter().find(|tls| self.listen.iter().any(|tcp| overlap(*tcp, **tls)))
        {
            findings.problem("tls_listen", format_args!("{both} is taken by TCP already (`listen`)"));
        }
        if let Err(error) = plan(&self.listen, &self.alternate) {
            let key = if matches!(error, PlanError::TooMany(_)) { "listen" } else { "alternate" };
            findings.problem(key, error);
        }
        self.check_certificate(findings);
        self.check_credentials(findings);
        for family in [SocketAddr::is_ipv4, SocketAddr::is_ipv6] {
            if self.alternate_server.iter().filter(|server| family(server)).count() > 1 {
                findings.problem("alternate_server", "has more than one address of a family");
            }
        }
        let spans = [
            ("first_byte_timeout", self.first_byte_timeout),
            ("message_timeout", self.message_timeout),
            ("idle_timeout", self.idle_timeout),
        ];
        for (key, span) in spans {
            if span.0.is_zero() {
                findings.problem(key, "must be longer than nothing");
            }
        }
    }

    fn check_certificate(&self, findings: &mut Findings) {
        match (&self.cert, &self.key) {
            (Some(chain), Some(key)) => {
                if let Err(error) = Certificate::load(chain, key) {
                    findings.problem("cert", error);
                }
            }
            (Some(_), None) => findings.problem("cert", "needs `key` beside it"),
            (None, Some(_)) => findings.problem("key", "needs `cert` beside it"),
            (None, None) if !self.tls_listen.is_empty() => findings.problem("tls_listen", "needs `cert` and `key`"),
            (None, None) => {}
        }
    }

    fn check_credentials(&self, findings: &mut Findings) {
        if self.auth == Auth::None {
            return;
        }
        if self.nonce_lifetime.0.as_secs() == 0 {
            findings.problem("nonce_lifetime", "must be at least one second");
        }
        match &self.users {
            None => findings.problem("auth", "needs `users`"),
            Some(path) => {
                if let Err(error) = users::read(path, &self.realm) {
                    findings.problem("users", error);
                }
            }
        }
    }

    /// The caps on answers.
    pub(super) const fn limits(&self) -> Limits {
        const fn cap(per_second: u32) -> Option<Rate> {
            if per_second == 0 { None } else { Some(Rate::new(per_second, per_second.saturating_mul(2))) }
        }
        Limits { per_host: cap(self.limit_host), per_site: cap(self.limit_site) }
    }

    /// The limits of connections.
    pub(super) const fn streams(&self) -> StreamLimits {
        StreamLimits {
            connections: ConnectionLimits {
                total: self.max_connections,
                per_host: self.max_connections_host,
                per_site: self.max_connections_site,
            },
            first_byte: self.first_byte_timeout.0,
            message: self.message_timeout.0,
            idle: self.idle_timeout.0,
        }
    }
}

/// Whether two sockets cannot be open side by side.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let same_family = a.is_ipv4() == b.is_ipv4();
    let same_address = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    same_family && same_address && a.port() == b.port() && a.port() != 0
}
