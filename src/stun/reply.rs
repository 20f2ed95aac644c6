//! The success response: which addresses it carries and how long it may be.

use std::net::SocketAddr;

use crate::protocol::stun::{AttributeType, WriteError, Writer};

/// The length of an address attribute with its header.
const fn address_len(address: SocketAddr) -> usize {
    if address.is_ipv4() { 12 } else { 24 }
}

/// The longest answer that keeps the amplification ratio: 1.6 over IPv4, 2.2 over IPv6. It is what the shortest possible
/// success needs for the shortest possible request.
#[must_use]
pub(super) const fn fair_length(request: usize, source: SocketAddr) -> usize {
    if source.is_ipv4() { request.saturating_mul(8) / 5 } else { request.saturating_mul(11) / 5 }
}

/// The addresses RFC 5780 section 6.1 adds to XOR-MAPPED-ADDRESS.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Origins {
    /// Where the answer leaves from.
    pub(super) origin: SocketAddr,
    /// The other address and the other port, seen from where the request came in.
    pub(super) other: SocketAddr,
}

/// What goes between the header and the integrity attributes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Body {
    pub(super) source: SocketAddr,
    pub(super) origins: Option<Origins>,
    /// The whole answer is filled up with PADDING to the length allowed.
    pub(super) padded: bool,
    /// The longest the answer may be.
    pub(super) allowed: usize,
    /// What the integrity attributes and FINGERPRINT will take.
    pub(super) tail: usize,
}

/// The shortest answer is longer than the longest allowed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum BodyError {
    /// PADDING was asked for by a request that does not pay for it.
    Underpaid,
    /// The buffer is too small.
    NoRoom,
}

impl From<WriteError> for BodyError {
    fn from(_: WriteError) -> Self {
        Self::NoRoom
    }
}

impl Body {
    /// Writes the addresses, as many as are allowed, and PADDING.
    pub(super) fn write(self, writer: &mut Writer<'_>) -> Result<(), BodyError> {
        let padding_header = if self.padded { 4 } else { 0 };
        let reserved = self.tail.saturating_add(padding_header);
        let room = |written: usize| self.allowed.saturating_sub(reserved).saturating_sub(written);
        if self.padded && room(writer.as_bytes().len()) < address_len(self.source) {
            return Err(BodyError::Underpaid);
        }
        writer.xor_address(AttributeType::XOR_MAPPED_ADDRESS, self.source)?;
        if let Some(Origins { origin, other }) = self.origins {
            for (kind, address) in [
                (AttributeType::OTHER_ADDRESS, other),
                (AttributeType::RESPONSE_ORIGIN, origin),
                (AttributeType::MAPPED_ADDRESS, self.source),
            ] {
                if room(writer.as_bytes().len()) >= address_len(address) {
                    writer.address(kind, address)?;
                }
            }
        }
        if self.padded {
            let length = room(writer.as_bytes().len()) / 4 * 4;
            writer.zeroes(AttributeType::PADDING, length)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_answer_is_just_fair_for_the_shortest_request() {
        assert_eq!(fair_length(20, "192.0.2.1:1".parse().expect("address")), 32);
        assert_eq!(fair_length(20, "[2001:db8::1]:1".parse().expect("address")), 44);
    }
}
