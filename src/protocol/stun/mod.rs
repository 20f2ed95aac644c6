//! The one codec for STUN (RFC 8489) and what is built on it (RFC 5780, RFC 8656).
//!
//! A datagram goes through two stages, so that nothing costly runs on bytes nobody vouched for:
//!
//! 1. [`Packet::scan`] checks the header, the exact length and the attribute framing in one pass without copying. It
//!    refuses repeated integrity attributes and a FINGERPRINT that is not last, and it stops at the integrity
//!    attribute: what stands after it is not protected and is never seen by the layers above (RFC 8489 section 14.5).
//! 2. [`integrity`] verifies the HMAC over the raw bytes in constant time. [`auth`] says which key, and what the error
//!    reply is where there is none.
//! 3. [`Message`] is the typed view of what passed, for the control plane. It never sees an integrity attribute or
//!    anything behind one.
//!
//! [`Writer`] encodes into a caller's buffer without allocating. A Binding request has a path of its own,
//! [`binding`], which is what a server under load runs.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |0 0|  class and method (14)    |      length (4-aligned)       |
//! |                    magic cookie 0x2112A442                    |
//! |                   transaction ID (96 bits)                    |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```

pub mod algorithm;
pub mod attribute;
pub mod auth;
pub mod binding;
pub mod dial_back;
pub mod integrity;
pub mod message;
pub mod packet;
pub mod writer;

pub use algorithm::PasswordAlgorithm;
pub use attribute::AttributeType;
pub use integrity::Integrity;
pub use message::Message;
pub use packet::{Attribute, Packet, ScanError, TextError, UnknownRequired};
pub use writer::{WriteError, Writer};

/// The fixed value in bytes 4 to 8 of every STUN message (RFC 8489 section 5).
pub const MAGIC_COOKIE: u32 = 0x2112_A442;

/// The length of the fixed header in bytes.
pub const HEADER_LEN: usize = 20;

/// The 96-bit identifier that ties a response to its request.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TransactionId(pub [u8; 12]);

/// What kind of message this is within its method (RFC 8489 section 5).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Class {
    /// Asks for an answer.
    Request,
    /// Wants no answer and gets none.
    Indication,
    /// The answer to a request that was carried out.
    Success,
    /// The answer to a request that was refused.
    Error,
}

/// A STUN method: a 12-bit number.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Method(u16);

impl Method {
    /// Binding (RFC 8489).
    pub const BINDING: Self = Self(0x001);
    /// Allocate (RFC 8656).
    pub const ALLOCATE: Self = Self(0x003);
    /// Refresh (RFC 8656).
    pub const REFRESH: Self = Self(0x004);
    /// Send indication (RFC 8656).
    pub const SEND: Self = Self(0x006);
    /// Data indication (RFC 8656).
    pub const DATA: Self = Self(0x007);
    /// CreatePermission (RFC 8656).
    pub const CREATE_PERMISSION: Self = Self(0x008);
    /// ChannelBind (RFC 8656).
    pub const CHANNEL_BIND: Self = Self(0x009);
    /// Connect (RFC 6062).
    pub const CONNECT: Self = Self(0x00A);
    /// ConnectionBind (RFC 6062).
    pub const CONNECTION_BIND: Self = Self(0x00B);
    /// ConnectionAttempt indication (RFC 6062).
    pub const CONNECTION_ATTEMPT: Self = Self(0x00C);

    /// A method from its number; bits above the twelfth are dropped.
    #[must_use]
    pub const fn new(number: u16) -> Self {
        Self(number & 0x0FFF)
    }

    /// The 12-bit number.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }
}

/// Packs class and method into the first two bytes of a message.
#[must_use]
pub const fn message_type(class: Class, method: Method) -> u16 {
    let m = method.0;
    let spread = (m & 0x000F) | ((m & 0x0070) << 1) | ((m & 0x0F80) << 2);
    let c = match class {
        Class::Request => 0x0000,
        Class::Indication => 0x0010,
        Class::Success => 0x0100,
        Class::Error => 0x0110,
    };
    spread | c
}

/// Takes class and method out of the first two bytes of a message.
#[must_use]
pub const fn split_message_type(value: u16) -> (Class, Method) {
    let method = Method((value & 0x000F) | ((value & 0x00E0) >> 1) | ((value & 0x3E00) >> 2));
    let class = match value & 0x0110 {
        0x0000 => Class::Request,
        0x0010 => Class::Indication,
        0x0100 => Class::Success,
        _ => Class::Error,
    };
    (class, method)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_types_round_trip_for_every_method_and_class() {
        for number in 0..0x1000 {
            for class in [Class::Request, Class::Indication, Class::Success, Class::Error] {
                let packed = message_type(class, Method::new(number));
                assert_eq!(packed & 0xC000, 0);
                assert_eq!(split_message_type(packed), (class, Method::new(number)));
            }
        }
    }

    #[test]
    fn binding_has_the_numbers_of_the_specification() {
        assert_eq!(message_type(Class::Request, Method::BINDING), 0x0001);
        assert_eq!(message_type(Class::Indication, Method::BINDING), 0x0011);
        assert_eq!(message_type(Class::Success, Method::BINDING), 0x0101);
        assert_eq!(message_type(Class::Error, Method::BINDING), 0x0111);
    }
}
