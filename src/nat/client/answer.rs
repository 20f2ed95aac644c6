//! What a Binding answer says.

use std::net::SocketAddr;

use crate::protocol::stun::{AttributeType, Class, Method, Packet};

/// The content of a success or error response to a Binding request.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Answer {
    /// XOR-MAPPED-ADDRESS.
    pub xor_mapped: Option<SocketAddr>,
    /// MAPPED-ADDRESS, the one that rewriting middleboxes touch.
    pub plain_mapped: Option<SocketAddr>,
    /// RESPONSE-ORIGIN: where the server believes it answered from.
    pub origin: Option<SocketAddr>,
    /// OTHER-ADDRESS: the server's alternate address and port.
    pub other: Option<SocketAddr>,
    /// The code of ERROR-CODE.
    pub error: Option<u16>,
    /// Whether the server offers to call back.
    pub dials_back: bool,
    /// The length of the datagram's payload in bytes.
    pub length: usize,
}

impl Answer {
    /// Reads a response to a Binding request; anything else is `None`.
    #[must_use]
    pub fn read(packet: &Packet<'_>) -> Option<Self> {
        if packet.method() != Method::BINDING {
            return None;
        }
        let length = packet.as_bytes().len();
        match packet.class() {
            Class::Success => Some(Self {
                xor_mapped: packet.xor_address(AttributeType::XOR_MAPPED_ADDRESS),
                plain_mapped: packet.address(AttributeType::MAPPED_ADDRESS),
                origin: packet.address(AttributeType::RESPONSE_ORIGIN),
                other: packet.address(AttributeType::OTHER_ADDRESS),
                error: None,
                dials_back: packet.find(AttributeType::DIAL_BACK).is_some(),
                length,
            }),
            Class::Error => {
                Some(Self { error: Some(packet.error_code().map_or(0, |(code, _)| code)), length, ..Self::default() })
            }
            Class::Request | Class::Indication => None,
        }
    }

    /// The mapped address to believe: the one no middlebox rewrites, where the server sends it.
    #[must_use]
    pub fn mapped(&self) -> Option<SocketAddr> {
        self.xor_mapped.or(self.plain_mapped)
    }

    /// Whether the two forms of the mapped address contradict each other: something on the path rewrote one.
    #[must_use]
    pub fn is_rewritten(&self) -> bool {
        matches!((self.xor_mapped, self.plain_mapped), (Some(xor), Some(plain)) if xor != plain)
    }
}
