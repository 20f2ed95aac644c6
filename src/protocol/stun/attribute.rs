//! Attribute numbers (IANA "STUN Attributes") and address values.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{MAGIC_COOKIE, TransactionId};

/// The 16-bit number of an attribute.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct AttributeType(pub u16);

macro_rules! attribute_types {
    ($($(#[$doc:meta])* $name:ident = $value:literal => $text:literal;)*) => {
        impl AttributeType {
            $($(#[$doc])* pub const $name: Self = Self($value);)*

            /// The registered name, where this codec knows the attribute.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some($text),)*
                    _ => None,
                }
            }
        }
    };
}

attribute_types! {
    /// RFC 8489 section 14.1.
    MAPPED_ADDRESS = 0x0001 => "MAPPED-ADDRESS";
    /// RFC 5780 section 7.2.
    CHANGE_REQUEST = 0x0003 => "CHANGE-REQUEST";
    /// RFC 8489 section 14.3.
    USERNAME = 0x0006 => "USERNAME";
    /// RFC 8489 section 14.5.
    MESSAGE_INTEGRITY = 0x0008 => "MESSAGE-INTEGRITY";
    /// RFC 8489 section 14.8.
    ERROR_CODE = 0x0009 => "ERROR-CODE";
    /// RFC 8489 section 14.13.
    UNKNOWN_ATTRIBUTES = 0x000A => "UNKNOWN-ATTRIBUTES";
    /// RFC 8656 section 18.1.
    CHANNEL_NUMBER = 0x000C => "CHANNEL-NUMBER";
    /// RFC 8656 section 18.2.
    LIFETIME = 0x000D => "LIFETIME";
    /// RFC 8656 section 18.3.
    XOR_PEER_ADDRESS = 0x0012 => "XOR-PEER-ADDRESS";
    /// RFC 8656 section 18.4.
    DATA = 0x0013 => "DATA";
    /// RFC 8489 section 14.9.
    REALM = 0x0014 => "REALM";
    /// RFC 8489 section 14.10.
    NONCE = 0x0015 => "NONCE";
    /// RFC 8656 section 18.5.
    XOR_RELAYED_ADDRESS = 0x0016 => "XOR-RELAYED-ADDRESS";
    /// RFC 8656 section 18.6.
    REQUESTED_ADDRESS_FAMILY = 0x0017 => "REQUESTED-ADDRESS-FAMILY";
    /// RFC 8656 section 18.7.
    EVEN_PORT = 0x0018 => "EVEN-PORT";
    /// RFC 8656 section 18.8.
    REQUESTED_TRANSPORT = 0x0019 => "REQUESTED-TRANSPORT";
    /// RFC 8656 section 18.9.
    DONT_FRAGMENT = 0x001A => "DONT-FRAGMENT";
    /// RFC 8489 section 14.6.
    MESSAGE_INTEGRITY_SHA256 = 0x001C => "MESSAGE-INTEGRITY-SHA256";
    /// RFC 8489 section 14.12.
    PASSWORD_ALGORITHM = 0x001D => "PASSWORD-ALGORITHM";
    /// RFC 8489 section 14.4.
    USERHASH = 0x001E => "USERHASH";
    /// RFC 8489 section 14.2.
    XOR_MAPPED_ADDRESS = 0x0020 => "XOR-MAPPED-ADDRESS";
    /// RFC 8656 section 18.10.
    RESERVATION_TOKEN = 0x0022 => "RESERVATION-TOKEN";
    /// RFC 8445 section 7.1.1.
    PRIORITY = 0x0024 => "PRIORITY";
    /// RFC 8445 section 7.1.2.
    USE_CANDIDATE = 0x0025 => "USE-CANDIDATE";
    /// RFC 5780 section 7.6.
    PADDING = 0x0026 => "PADDING";
    /// RFC 5780 section 7.5.
    RESPONSE_PORT = 0x0027 => "RESPONSE-PORT";
    /// RFC 6062 section 6.2.1.
    CONNECTION_ID = 0x002A => "CONNECTION-ID";
    /// RFC 8656 section 18.11.
    ADDITIONAL_ADDRESS_FAMILY = 0x8000 => "ADDITIONAL-ADDRESS-FAMILY";
    /// RFC 8656 section 18.12.
    ADDRESS_ERROR_CODE = 0x8001 => "ADDRESS-ERROR-CODE";
    /// RFC 8489 section 14.11.
    PASSWORD_ALGORITHMS = 0x8002 => "PASSWORD-ALGORITHMS";
    /// RFC 8489 section 14.16.
    ALTERNATE_DOMAIN = 0x8003 => "ALTERNATE-DOMAIN";
    /// RFC 8656 section 18.13.
    ICMP = 0x8004 => "ICMP";
    /// RFC 8489 section 14.14.
    SOFTWARE = 0x8022 => "SOFTWARE";
    /// RFC 8489 section 14.15.
    ALTERNATE_SERVER = 0x8023 => "ALTERNATE-SERVER";
    /// RFC 5780 section 7.7.
    CACHE_TIMEOUT = 0x8027 => "CACHE-TIMEOUT";
    /// RFC 8489 section 14.7.
    FINGERPRINT = 0x8028 => "FINGERPRINT";
    /// RFC 8445 section 7.1.3.
    ICE_CONTROLLED = 0x8029 => "ICE-CONTROLLED";
    /// RFC 8445 section 7.1.3.
    ICE_CONTROLLING = 0x802A => "ICE-CONTROLLING";
    /// RFC 5780 section 7.3.
    RESPONSE_ORIGIN = 0x802B => "RESPONSE-ORIGIN";
    /// RFC 5780 section 7.4.
    OTHER_ADDRESS = 0x802C => "OTHER-ADDRESS";
    /// RFC 8016 section 3.5.
    MOBILITY_TICKET = 0x8030 => "MOBILITY-TICKET";
    /// Of this project, from the unassigned comprehension-optional range: asks for a packet from a fresh port.
    DIAL_BACK = 0xC05B => "DIAL-BACK";
}

impl AttributeType {
    /// Whether an agent that does not know the attribute must refuse the message (RFC 8489 section 14).
    #[must_use]
    pub const fn is_comprehension_required(self) -> bool {
        self.0 < 0x8000
    }

    /// Whether the whole value is text.
    #[must_use]
    pub const fn is_text(self) -> bool {
        matches!(self, Self::USERNAME | Self::REALM | Self::NONCE | Self::SOFTWARE | Self::ALTERNATE_DOMAIN)
    }

    /// The most bytes a receiver takes in an attribute of this kind that holds text.
    ///
    /// USERNAME stays under 509 bytes (RFC 8489 section 14.3), ALTERNATE-DOMAIN under 256 (section 14.16); REALM, NONCE,
    /// SOFTWARE and the reason phrase stay under 128 characters, which a receiver may meet as up to 763 bytes.
    #[must_use]
    pub const fn text_limit(self) -> usize {
        match self {
            Self::USERNAME => 508,
            Self::ALTERNATE_DOMAIN => 255,
            _ => 763,
        }
    }
}

/// Reads a MAPPED-ADDRESS style value: zero, family, port, address.
///
/// Returns `None` where the family is neither 1 nor 2 or the length does not fit the family.
#[must_use]
pub fn decode_address(value: &[u8]) -> Option<SocketAddr> {
    let (head, ip) = value.split_first_chunk::<4>()?;
    let port = u16::from_be_bytes([head[2], head[3]]);
    let ip = match head[1] {
        1 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(ip).ok()?)),
        2 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(ip).ok()?)),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// Reads a XOR-MAPPED-ADDRESS style value (RFC 8489 section 14.2).
#[must_use]
pub fn decode_xor_address(value: &[u8], transaction: TransactionId) -> Option<SocketAddr> {
    decode_address(value).map(|plain| xor_address(plain, transaction))
}

/// Applies the XOR of RFC 8489 section 14.2, which is its own inverse.
#[must_use]
pub fn xor_address(address: SocketAddr, transaction: TransactionId) -> SocketAddr {
    let port = address.port() ^ (MAGIC_COOKIE >> 16) as u16;
    let ip = match address.ip() {
        IpAddr::V4(ip) => IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() ^ MAGIC_COOKIE)),
        IpAddr::V6(ip) => {
            let mut mask = [0u8; 16];
            let (cookie, id) = mask.split_at_mut(4);
            cookie.copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
            id.copy_from_slice(&transaction.0);
            IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() ^ u128::from_be_bytes(mask)))
        }
    };
    SocketAddr::new(ip, port)
}
