//! DIAL-BACK: asks a server for a packet from a port it has never used towards the client.
//!
//! A private comprehension-optional attribute of this project. A host behind an address-restricted NAT cannot learn from
//! RFC 5780 alone whether a stranger reaches it, and a server with one address cannot help at all. With DIAL-BACK:
//!
//! 1. The client sends a Binding request over TCP, which proves its return path, with a [`DialBack::Ask`].
//! 2. The server answers as ever, then sends a Binding indication to the *source address* of the connection, at the port
//!    asked for, over the transport asked for. The transaction ID is four zero bytes and the nonce
//!    ([`DialBack::transaction_id`]), and the same attribute comes along.
//! 3. A server that offers the service says so with an empty attribute ([`DialBack::Offer`]), over TCP and only when
//!    asked with the attribute.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |   transport   |       0       |             port              |
//! |                        nonce (64 bits)                        |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```

use super::TransactionId;

/// The transport a dial-back comes over, by its IP protocol number.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum DialTransport {
    /// A TCP connection (6).
    Tcp,
    /// A single datagram (17).
    Udp,
}

impl DialTransport {
    /// The IP protocol number.
    #[must_use]
    pub const fn protocol(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// The value of DIAL-BACK.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum DialBack {
    /// The server would do it.
    Offer,
    /// The client asks for it, and the indication that answers carries the same.
    Ask {
        /// The transport to come over.
        transport: DialTransport,
        /// The port to come to.
        port: u16,
        /// What the client recognises the answer by.
        nonce: [u8; 8],
    },
}

impl DialBack {
    /// The longest value in bytes.
    pub const MAX_LEN: usize = 12;

    /// Reads a value. Another transport, port 0 or any other length make it none.
    #[must_use]
    pub fn from_bytes(value: &[u8]) -> Option<Self> {
        if value.is_empty() {
            return Some(Self::Offer);
        }
        let value = <&[u8; Self::MAX_LEN]>::try_from(value).ok()?;
        let (head, nonce) = value.split_first_chunk::<4>()?;
        let transport = match head[0] {
            6 => DialTransport::Tcp,
            17 => DialTransport::Udp,
            _ => return None,
        };
        let port = u16::from_be_bytes([head[2], head[3]]);
        if port == 0 {
            return None;
        }
        Some(Self::Ask { transport, port, nonce: nonce.try_into().ok()? })
    }

    /// The value as it stands in the attribute.
    #[must_use]
    pub fn to_bytes(self) -> Vec<u8> {
        match self {
            Self::Offer => Vec::new(),
            Self::Ask { transport, port, nonce } => {
                let [high, low] = port.to_be_bytes();
                [&[transport.protocol(), 0, high, low][..], &nonce].concat()
            }
        }
    }

    /// The transaction ID of the indication that answers an ask with this nonce.
    #[must_use]
    pub fn transaction_id(nonce: [u8; 8]) -> TransactionId {
        let mut id = [0; 12];
        let (_, tail) = id.split_at_mut(4);
        tail.copy_from_slice(&nonce);
        TransactionId(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ask_has_twelve_bytes_and_round_trips() {
        let ask = DialBack::Ask { transport: DialTransport::Udp, port: 0x1234, nonce: [1, 2, 3, 4, 5, 6, 7, 8] };
        assert_eq!(ask.to_bytes(), [17, 0, 0x12, 0x34, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(DialBack::from_bytes(&ask.to_bytes()), Some(ask));
        assert_eq!(DialBack::from_bytes(&DialBack::Offer.to_bytes()), Some(DialBack::Offer));
    }

    #[test]
    fn another_transport_port_zero_and_other_lengths_are_refused() {
        assert_eq!(DialBack::from_bytes(&[1, 0, 0x12, 0x34, 1, 2, 3, 4, 5, 6, 7, 8]), None);
        assert_eq!(DialBack::from_bytes(&[17, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]), None);
        assert_eq!(DialBack::from_bytes(&[17, 0, 0x12, 0x34, 1, 2, 3, 4, 5, 6, 7]), None);
        assert_eq!(DialBack::from_bytes(&[17, 0, 0x12, 0x34, 1, 2, 3, 4, 5, 6, 7, 8, 9]), None);
    }

    #[test]
    fn the_indication_is_recognised_by_four_zero_bytes_and_the_nonce() {
        assert_eq!(DialBack::transaction_id([9; 8]).0, [0, 0, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9]);
    }
}
