//! The local addresses of a server and how they belong together.

use std::net::{IpAddr, SocketAddr};

/// One local address, by its place in [`Endpoints`].
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LocalSlot(usize);

impl LocalSlot {
    /// The slot at this place.
    #[must_use]
    pub const fn new(index: usize) -> Self {
        Self(index)
    }

    /// Its place, counted from zero.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0
    }
}

/// Which part of the local address an answer leaves from is to be the other one (RFC 5780 section 7.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Flip {
    /// The other IP address.
    pub ip: bool,
    /// The other port.
    pub port: bool,
}

impl Flip {
    /// Both.
    pub const BOTH: Self = Self { ip: true, port: true };
    /// Neither.
    pub const NEITHER: Self = Self { ip: false, port: false };

    /// Reads the value of CHANGE-REQUEST. Bits that mean nothing are ignored.
    #[must_use]
    pub fn from_change_request(value: &[u8]) -> Option<Self> {
        let flags = u32::from_be_bytes(value.try_into().ok()?);
        Some(Self { ip: flags & 4 != 0, port: flags & 2 != 0 })
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Endpoint {
    address: SocketAddr,
    /// Where this address stands in a group of four, if it does: bit 0 is the port, bit 1 the IP address.
    corner: Option<usize>,
}

/// The local addresses of a server: single ones, and groups of two IP addresses with two ports each.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Endpoints {
    endpoints: Vec<Endpoint>,
}

impl Endpoints {
    /// Adds an address without alternates.
    pub fn add_single(&mut self, address: SocketAddr) -> LocalSlot {
        self.push(address, None)
    }

    /// Adds two addresses with two ports each, in the order primary, other port, other IP address, both other.
    pub fn add_group(&mut self, corners: [SocketAddr; 4]) -> [LocalSlot; 4] {
        let mut number = 0;
        corners.map(|address| {
            let slot = self.push(address, Some(number));
            number += 1;
            slot
        })
    }

    fn push(&mut self, address: SocketAddr, corner: Option<usize>) -> LocalSlot {
        self.endpoints.push(Endpoint { address, corner });
        LocalSlot(self.endpoints.len() - 1)
    }

    /// All addresses, in the order they were added.
    pub fn iter(&self) -> impl Iterator<Item = (LocalSlot, SocketAddr)> {
        self.endpoints.iter().enumerate().map(|(index, endpoint)| (LocalSlot(index), endpoint.address))
    }

    /// The address of a slot.
    #[must_use]
    pub fn address(&self, slot: LocalSlot) -> Option<SocketAddr> {
        Some(self.endpoints.get(slot.0)?.address)
    }

    /// Whether there is a group.
    #[must_use]
    pub fn has_groups(&self) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.corner.is_some())
    }

    /// The slot seen from this one with the IP address, the port or both exchanged, or `None` for a single address.
    #[must_use]
    pub fn flipped(&self, slot: LocalSlot, flip: Flip) -> Option<LocalSlot> {
        let corner = self.endpoints.get(slot.0)?.corner?;
        let other = corner ^ (usize::from(flip.port) | usize::from(flip.ip) << 1);
        Some(LocalSlot(slot.0 - corner + other))
    }

    /// Whether a packet with this source comes from one of our own sockets. `local` is the address it was sent to; for a
    /// wildcard socket that stands for the socket's own.
    #[must_use]
    pub fn is_own(&self, source: SocketAddr, local: Option<IpAddr>) -> bool {
        self.endpoints.iter().any(|endpoint| {
            let own = endpoint.address;
            own.port() == source.port()
                && (own.ip() == source.ip() || (own.ip().is_unspecified() && local == Some(source.ip())))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("a socket address")
    }

    #[test]
    fn flips_follow_table_1_of_rfc_5780_from_every_corner() {
        let mut endpoints = Endpoints::default();
        endpoints.add_single(address("127.0.0.9:1"));
        let corners = ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.2:1", "127.0.0.2:2"].map(address);
        let slots = endpoints.add_group(corners);
        for slot in slots {
            let here = endpoints.address(slot).expect("an address");
            for (ip, port) in [(false, false), (false, true), (true, false), (true, true)] {
                let there = endpoints.flipped(slot, Flip { ip, port }).and_then(|slot| endpoints.address(slot));
                let there = there.expect("an address");
                assert_eq!((there.ip() != here.ip(), there.port() != here.port()), (ip, port));
            }
        }
    }

    #[test]
    fn a_single_address_has_no_other() {
        let mut endpoints = Endpoints::default();
        let slot = endpoints.add_single(address("127.0.0.1:1"));
        assert_eq!(endpoints.flipped(slot, Flip::BOTH), None);
        assert_eq!(endpoints.flipped(slot, Flip::NEITHER), None);
    }

    #[test]
    fn change_request_has_its_flags_in_bits_two_and_one() {
        assert_eq!(Flip::from_change_request(&[0, 0, 0, 6]), Some(Flip::BOTH));
        assert_eq!(Flip::from_change_request(&[0, 0, 0, 4]), Some(Flip { ip: true, port: false }));
        assert_eq!(Flip::from_change_request(&[0xff, 0xff, 0xff, 0xf9]), Some(Flip::NEITHER));
        assert_eq!(Flip::from_change_request(&[0, 6]), None);
    }

    #[test]
    fn own_sockets_are_recognised_behind_a_wildcard_too() {
        let mut endpoints = Endpoints::default();
        endpoints.add_single(address("0.0.0.0:3478"));
        let local = Some("192.0.2.1".parse().expect("IP"));
        assert!(endpoints.is_own(address("192.0.2.1:3478"), local));
        assert!(!endpoints.is_own(address("192.0.2.1:3479"), local));
        assert!(!endpoints.is_own(address("192.0.2.2:3478"), local));
    }
}
