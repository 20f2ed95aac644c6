//! Attributes `stun_codec` lacks, or has in a form that does not serve.
//!
//! - Missing there: USERHASH, PASSWORD-ALGORITHM, PASSWORD-ALGORITHMS, PADDING, ADDRESS-ERROR-CODE, ICMP, CONNECTION-ID,
//!   ALTERNATE-DOMAIN and our DIAL-BACK.
//! - CHANGE-REQUEST: its decoder reads the flags one bit too low, so that "change port" comes out as "change IP".
//! - RESPONSE-PORT: its encoder writes port 0 whatever it is given.
//! - ERROR-CODE: it refuses the 6xx codes and a reason that is not UTF-8.
//! - REQUESTED-ADDRESS-FAMILY: it refuses families it does not know, where a server owes the client a 440 answer
//!   (RFC 8656 section 7.2).

use bytecodec::bytes::{BytesEncoder, RemainingBytesDecoder};
use bytecodec::{ByteCount, Decode, Encode, Eos, Error, ErrorKind, Result, SizedEncode, TryTaggedDecode};
use stun_codec::AttributeType;

use super::super::algorithm::{self, PasswordAlgorithm};
use super::super::dial_back::DialBack;

/// Plugs a type with `from_value` and `to_value` into the traits of `stun_codec`.
macro_rules! plug_in {
    ($($name:ident = $codepoint:literal, $decoder:ident, $encoder:ident;)*) => {$(
        impl $name {
            /// The registered number.
            pub const CODEPOINT: u16 = $codepoint;
        }

        impl stun_codec::Attribute for $name {
            type Decoder = $decoder;
            type Encoder = $encoder;

            fn get_type(&self) -> AttributeType {
                AttributeType::new(Self::CODEPOINT)
            }
        }

        /// Collects the value, then reads it.
        #[derive(Debug, Default)]
        pub struct $decoder(RemainingBytesDecoder);

        impl Decode for $decoder {
            type Item = $name;

            fn decode(&mut self, buf: &[u8], eos: Eos) -> Result<usize> {
                self.0.decode(buf, eos)
            }

            fn finish_decoding(&mut self) -> Result<$name> {
                let value = self.0.finish_decoding()?;
                $name::from_value(&value).ok_or_else(|| Error::from(ErrorKind::InvalidInput))
            }

            fn requiring_bytes(&self) -> ByteCount {
                self.0.requiring_bytes()
            }

            fn is_idle(&self) -> bool {
                self.0.is_idle()
            }
        }

        impl TryTaggedDecode for $decoder {
            type Tag = AttributeType;

            fn try_start_decoding(&mut self, kind: AttributeType) -> Result<bool> {
                Ok(kind.as_u16() == $name::CODEPOINT)
            }
        }

        /// Writes the value.
        #[derive(Debug, Default)]
        pub struct $encoder(BytesEncoder);

        impl Encode for $encoder {
            type Item = $name;

            fn encode(&mut self, buf: &mut [u8], eos: Eos) -> Result<usize> {
                self.0.encode(buf, eos)
            }

            fn start_encoding(&mut self, item: $name) -> Result<()> {
                self.0.start_encoding(Vec::from(item.to_value()))
            }

            fn requiring_bytes(&self) -> ByteCount {
                self.0.requiring_bytes()
            }

            fn is_idle(&self) -> bool {
                self.0.is_idle()
            }
        }

        impl SizedEncode for $encoder {
            fn exact_requiring_bytes(&self) -> u64 {
                self.0.exact_requiring_bytes()
            }
        }
    )*};
}

plug_in! {
    ChangeRequest = 0x0003, ChangeRequestDecoder, ChangeRequestEncoder;
    ErrorCode = 0x0009, ErrorCodeDecoder, ErrorCodeEncoder;
    RequestedAddressFamily = 0x0017, RequestedAddressFamilyDecoder, RequestedAddressFamilyEncoder;
    PasswordAlgorithmChoice = 0x001D, PasswordAlgorithmChoiceDecoder, PasswordAlgorithmChoiceEncoder;
    Userhash = 0x001E, UserhashDecoder, UserhashEncoder;
    Padding = 0x0026, PaddingDecoder, PaddingEncoder;
    ResponsePort = 0x0027, ResponsePortDecoder, ResponsePortEncoder;
    ConnectionId = 0x002A, ConnectionIdDecoder, ConnectionIdEncoder;
    AddressErrorCode = 0x8001, AddressErrorCodeDecoder, AddressErrorCodeEncoder;
    PasswordAlgorithms = 0x8002, PasswordAlgorithmsDecoder, PasswordAlgorithmsEncoder;
    AlternateDomain = 0x8003, AlternateDomainDecoder, AlternateDomainEncoder;
    Icmp = 0x8004, IcmpDecoder, IcmpEncoder;
    DialBack = 0xC05B, DialBackDecoder, DialBackEncoder;
}

/// CHANGE-REQUEST (RFC 5780 section 7.2): from where the answer should come.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct ChangeRequest {
    /// From the other address.
    pub ip: bool,
    /// From the other port.
    pub port: bool,
}

impl ChangeRequest {
    const IP: u8 = 0x04;
    const PORT: u8 = 0x02;

    /// Reads the value: 32 bits, of which two count.
    #[must_use]
    pub fn from_value(value: &[u8]) -> Option<Self> {
        let [.., flags] = <[u8; 4]>::try_from(value).ok()?;
        Some(Self { ip: flags & Self::IP != 0, port: flags & Self::PORT != 0 })
    }

    /// The value as it stands in the attribute.
    #[must_use]
    pub const fn to_value(self) -> [u8; 4] {
        let ip = if self.ip { Self::IP } else { 0 };
        let port = if self.port { Self::PORT } else { 0 };
        [0, 0, 0, ip | port]
    }
}

/// ERROR-CODE (RFC 8489 section 14.8).
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct ErrorCode {
    /// 300 to 699.
    pub code: u16,
    /// For people.
    pub reason: String,
}

impl ErrorCode {
    fn from_value(value: &[u8]) -> Option<Self> {
        let (head, reason) = value.split_first_chunk::<4>()?;
        Some(Self { code: code_of(head[2], head[3])?, reason: reason_of(reason) })
    }

    fn to_value(&self) -> Vec<u8> {
        let [class, number] = class_and_number(self.code);
        [&[0, 0, class, number][..], self.reason.as_bytes()].concat()
    }
}

/// ADDRESS-ERROR-CODE (RFC 8656 section 18.12): why one of two families was not allocated.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct AddressErrorCode {
    /// The family, 1 for IPv4 and 2 for IPv6.
    pub family: u8,
    /// 300 to 699.
    pub code: u16,
    /// For people.
    pub reason: String,
}

impl AddressErrorCode {
    fn from_value(value: &[u8]) -> Option<Self> {
        let (head, reason) = value.split_first_chunk::<4>()?;
        Some(Self { family: head[0], code: code_of(head[2], head[3])?, reason: reason_of(reason) })
    }

    fn to_value(&self) -> Vec<u8> {
        let [class, number] = class_and_number(self.code);
        [&[self.family, 0, class, number][..], self.reason.as_bytes()].concat()
    }
}

/// The code of a hundreds digit (three bits, 3 to 6) and the rest (0 to 99).
fn code_of(class: u8, number: u8) -> Option<u16> {
    let class = class & 0x07;
    if !(3..=6).contains(&class) || number > 99 {
        return None;
    }
    u16::from(class).checked_mul(100)?.checked_add(u16::from(number))
}

fn class_and_number(code: u16) -> [u8; 2] {
    let code = code.clamp(300, 699);
    [(code / 100) as u8, (code % 100) as u8]
}

/// The reason phrase, which informs and decides nothing: bytes that are not UTF-8 are replaced.
fn reason_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// REQUESTED-ADDRESS-FAMILY (RFC 8656 section 18.6), any family: one that is not served is worth a 440 answer.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct RequestedAddressFamily(
    /// The family, 1 for IPv4 and 2 for IPv6.
    pub u8,
);

impl RequestedAddressFamily {
    fn from_value(value: &[u8]) -> Option<Self> {
        let [family, ..] = <[u8; 4]>::try_from(value).ok()?;
        Some(Self(family))
    }

    fn to_value(self) -> [u8; 4] {
        [self.0, 0, 0, 0]
    }
}

/// PASSWORD-ALGORITHM (RFC 8489 section 14.12): the algorithm a client picked.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct PasswordAlgorithmChoice(
    /// The algorithm.
    pub PasswordAlgorithm,
);

impl PasswordAlgorithmChoice {
    fn from_value(value: &[u8]) -> Option<Self> {
        PasswordAlgorithm::from_bytes(value).map(Self)
    }

    fn to_value(self) -> [u8; 4] {
        self.0.to_bytes()
    }
}

/// PASSWORD-ALGORITHMS (RFC 8489 section 14.11): what a server takes, best first. Entries of unknown algorithms are kept
/// because a client echoes the list unchanged.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct PasswordAlgorithms(
    /// The value as received.
    pub Vec<u8>,
);

impl PasswordAlgorithms {
    /// The list for these algorithms.
    #[must_use]
    pub fn new(algorithms: &[PasswordAlgorithm]) -> Self {
        Self(algorithm::encode_list(algorithms))
    }

    /// The known algorithms of the list.
    pub fn known(&self) -> impl Iterator<Item = PasswordAlgorithm> {
        algorithm::entries(&self.0).filter_map(|entry| match entry {
            Ok((number, [])) => PasswordAlgorithm::from_number(number),
            _ => None,
        })
    }

    fn from_value(value: &[u8]) -> Option<Self> {
        algorithm::entries(value).all(|entry| entry.is_ok()).then(|| Self(value.to_vec()))
    }

    fn to_value(&self) -> Vec<u8> {
        self.0.clone()
    }
}

/// USERHASH (RFC 8489 section 14.4): the hash that stands for a user name.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Userhash(
    /// SHA-256 of `username:realm`.
    pub [u8; 32],
);

impl Userhash {
    fn from_value(value: &[u8]) -> Option<Self> {
        value.try_into().ok().map(Self)
    }

    fn to_value(self) -> [u8; 32] {
        self.0
    }
}

/// PADDING (RFC 5780 section 7.6): makes a message large. Only its length means anything; it is written as zeros.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Padding {
    /// The length of the value in bytes.
    pub length: u16,
}

impl Padding {
    fn from_value(value: &[u8]) -> Option<Self> {
        value.len().try_into().ok().map(|length| Self { length })
    }

    fn to_value(self) -> Vec<u8> {
        vec![0; usize::from(self.length)]
    }
}

/// RESPONSE-PORT (RFC 5780 section 7.5): another port for the answer. Written with four bytes; the two that are padding
/// are counted in the length by some senders and left out by others, so both are read.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct ResponsePort(
    /// The port.
    pub u16,
);

impl ResponsePort {
    /// Reads the value.
    #[must_use]
    pub fn from_value(value: &[u8]) -> Option<Self> {
        match *value {
            [high, low] | [high, low, _, _] => Some(Self(u16::from_be_bytes([high, low]))),
            _ => None,
        }
    }

    /// The value as it stands in the attribute.
    #[must_use]
    pub const fn to_value(self) -> [u8; 4] {
        let [high, low] = self.0.to_be_bytes();
        [high, low, 0, 0]
    }
}

/// CONNECTION-ID (RFC 6062 section 6.2.1).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct ConnectionId(
    /// The number the server gave the peer connection.
    pub u32,
);

impl ConnectionId {
    fn from_value(value: &[u8]) -> Option<Self> {
        value.try_into().ok().map(|bytes| Self(u32::from_be_bytes(bytes)))
    }

    fn to_value(self) -> [u8; 4] {
        self.0.to_be_bytes()
    }
}

/// ALTERNATE-DOMAIN (RFC 8489 section 14.16): the name the certificate of an alternate server must carry.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct AlternateDomain(
    /// A domain name of at most 255 bytes.
    pub String,
);

impl AlternateDomain {
    fn from_value(value: &[u8]) -> Option<Self> {
        if value.len() > 255 {
            return None;
        }
        std::str::from_utf8(value).ok().map(|name| Self(name.to_owned()))
    }

    fn to_value(&self) -> Vec<u8> {
        self.0.clone().into_bytes()
    }
}

/// ICMP (RFC 8656 section 18.13): an ICMP message that hit an allocation.
///
/// The drawing of the specification gives the type 7 bits and the code 9; the ICMP fields have 8 each, which is what
/// this codec and others read.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Icmp {
    /// The ICMP type.
    pub kind: u8,
    /// The ICMP code.
    pub code: u8,
    /// Four bytes of the message, as the MTU of "packet too big".
    pub data: [u8; 4],
}

impl Icmp {
    fn from_value(value: &[u8]) -> Option<Self> {
        let [_, _, kind, code, data @ ..] = <[u8; 8]>::try_from(value).ok()?;
        Some(Self { kind, code, data })
    }

    fn to_value(self) -> [u8; 8] {
        let [a, b, c, d] = self.data;
        [0, 0, self.kind, self.code, a, b, c, d]
    }
}

impl DialBack {
    fn from_value(value: &[u8]) -> Option<Self> {
        Self::from_bytes(value)
    }

    fn to_value(self) -> Vec<u8> {
        self.to_bytes()
    }
}
