//! The one canonical address of a peer.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// How an IPv6 address carries an IPv4 address.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Embedding {
    /// `::ffff:a.b.c.d` (RFC 4291 section 2.5.5.2): what a dual-stack socket reports for an IPv4 peer.
    Mapped,
    /// `::a.b.c.d` (RFC 4291 section 2.5.5.1, deprecated).
    Compatible,
    /// `::ffff:0:a.b.c.d` (RFC 2765 section 2.1).
    Translated,
    /// `2002:aabb:ccdd::/48` (RFC 3056 section 2).
    SixToFour,
    /// `64:ff9b::a.b.c.d` (RFC 6052 section 2.1).
    Nat64,
    /// `64:ff9b:1::a.b.c.d` (RFC 8215), read with the 96-bit prefix.
    Nat64Local,
    /// `2001:0:...` (RFC 4380 section 4): the client's address stands inverted in the last 32 bits.
    Teredo,
}

/// The IPv4 address an IPv6 address carries, where it carries one, and how.
///
/// The local NAT64 prefix `64:ff9b:1::/48` may be used with subnet bits and in shorter prefix lengths, and then where
/// the IPv4 address stands is the operator's secret. Only `64:ff9b:1::/96` is read here; the rest of the prefix stays an
/// IPv6 address, which [`super::special`] calls not globally reachable.
#[must_use]
pub const fn embedded_v4(ip: Ipv6Addr) -> Option<(Embedding, Ipv4Addr)> {
    let bits = ip.to_bits();
    let low = Ipv4Addr::from_bits(bits as u32);
    match bits >> 32 {
        0x0000_0000_0000_0000_0000_ffff => return Some((Embedding::Mapped, low)),
        0x0000_0000_0000_0000_ffff_0000 => return Some((Embedding::Translated, low)),
        0x0064_ff9b_0000_0000_0000_0000 => return Some((Embedding::Nat64, low)),
        0x0064_ff9b_0001_0000_0000_0000 => return Some((Embedding::Nat64Local, low)),
        // The unspecified address and the loopback address are themselves, not 0.0.0.0 and 0.0.0.1.
        0 if bits > 1 => return Some((Embedding::Compatible, low)),
        _ => {}
    }
    if bits >> 112 == 0x2002 {
        return Some((Embedding::SixToFour, Ipv4Addr::from_bits((bits >> 80) as u32)));
    }
    if bits >> 96 == 0x2001_0000 {
        return Some((Embedding::Teredo, Ipv4Addr::from_bits(!(bits as u32))));
    }
    None
}

/// The address a policy sees: every [`Embedding`] folded into the IPv4 address it leads to.
#[must_use]
pub const fn canonical_ip(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(v6) => match embedded_v4(v6) {
            Some((_, v4)) => IpAddr::V4(v4),
            None => ip,
        },
    }
}

/// The address as it stands on the wire: only what a dual-stack socket adds (`::ffff:`) is taken off.
///
/// A packet goes to this address, and a mapped address is reported as this. A decision about the peer is made on
/// [`PeerAddr`].
#[must_use]
pub const fn on_the_wire(address: SocketAddr) -> SocketAddr {
    if let SocketAddr::V6(v6) = address
        && let Some(v4) = v6.ip().to_ipv4_mapped()
    {
        return SocketAddr::new(IpAddr::V4(v4), address.port());
    }
    address
}

/// A peer's address and port in canonical form. Two of them are equal exactly if they lead to the same place.
///
/// It is what access rules, limits and tables are keyed by. There is no way back to the spelling it came from.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PeerAddr {
    ip: IpAddr,
    port: u16,
}

impl PeerAddr {
    /// Folds an address as received from a socket or a message. Scope and flow label are dropped.
    #[must_use]
    pub const fn new(address: SocketAddr) -> Self {
        Self { ip: canonical_ip(address.ip()), port: address.port() }
    }

    /// The canonical IP address.
    #[must_use]
    pub const fn ip(self) -> IpAddr {
        self.ip
    }

    /// The port.
    #[must_use]
    pub const fn port(self) -> u16 {
        self.port
    }
}

impl From<SocketAddr> for PeerAddr {
    fn from(address: SocketAddr) -> Self {
        Self::new(address)
    }
}

impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::new(self.ip, self.port).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn peer(text: &str) -> PeerAddr {
        PeerAddr::new(SocketAddr::new(text.parse().expect("an IP address"), 9))
    }

    #[test]
    fn every_spelling_of_an_ipv4_address_is_the_same_peer() {
        let plain = peer("192.0.2.33");
        for spelling in [
            "::ffff:192.0.2.33",
            "::192.0.2.33",
            "::ffff:0:192.0.2.33",
            "2002:c000:221::",
            "2002:c000:221:1234:5678:9abc:def0:1",
            "64:ff9b::192.0.2.33",
            "64:ff9b:1::192.0.2.33",
            "2001:0:4136:e378:8000:63bf:3fff:fdde",
        ] {
            assert_eq!(peer(spelling), plain, "{spelling}");
        }
    }

    #[test]
    fn the_loopback_and_the_unspecified_address_stay_themselves() {
        assert_eq!(peer("::1").ip(), IpAddr::V6(Ipv6Addr::LOCALHOST));
        assert_eq!(peer("::").ip(), IpAddr::V6(Ipv6Addr::UNSPECIFIED));
        assert_eq!(peer("::2").ip(), IpAddr::V4(Ipv4Addr::new(0, 0, 0, 2)));
    }

    #[test]
    fn a_local_nat64_address_with_subnet_bits_is_not_guessed_at() {
        for ambiguous in ["64:ff9b:1:7f00:0:100::", "64:ff9b:1:0:7f:0:100:1", "64:ff9b:1:1::8.8.8.8"] {
            assert_eq!(peer(ambiguous).ip().to_string(), ambiguous.parse::<IpAddr>().expect("IP").to_string());
        }
    }

    #[test]
    fn on_the_wire_takes_off_only_what_a_dual_stack_socket_adds() {
        let wire = |text: &str| on_the_wire(text.parse().expect("a socket address")).to_string();
        assert_eq!(wire("[::ffff:192.0.2.33]:9"), "192.0.2.33:9");
        assert_eq!(wire("[2002:c000:221::]:9"), "[2002:c000:221::]:9");
        assert_eq!(wire("[64:ff9b::192.0.2.33]:9"), "[64:ff9b::c000:221]:9");
    }

    proptest! {
        #[test]
        fn folding_is_idempotent(bits: u128, port: u16) {
            let once = PeerAddr::new(SocketAddr::new(Ipv6Addr::from_bits(bits).into(), port));
            prop_assert_eq!(PeerAddr::new(SocketAddr::new(once.ip(), once.port())), once);
        }

        #[test]
        fn each_embedding_gives_back_the_address_put_in(v4: u32, rest: u64) {
            let v4 = u128::from(v4);
            let spellings = [
                (0xffff << 32) | v4,
                (0xffff_0000 << 32) | v4,
                (0x0064_ff9b << 96) | v4,
                (0x0064_ff9b_0001 << 80) | v4,
                (0x2002 << 112) | (v4 << 80) | u128::from(rest),
                (0x2001_0000 << 96) | (u128::from(rest) << 32) | (!v4 & 0xffff_ffff),
            ];
            for bits in spellings {
                let folded = canonical_ip(Ipv6Addr::from_bits(bits).into());
                prop_assert_eq!(folded, IpAddr::V4(Ipv4Addr::from_bits(v4 as u32)));
            }
        }
    }
}
