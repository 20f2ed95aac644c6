//! The Port Control Protocol (RFC 6887): ANNOUNCE and MAP, as bytes.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |  version = 2  |R|   opcode    |   reserved    |  result (R=1) |
//! |                    lifetime in seconds                        |
//! |       client address (R=0), or epoch and 96 reserved bits     |
//! |                         (128 bits)                            |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |  MAP: nonce (96), protocol (8), reserved (24), internal port  |
//! |  (16), external port (16), external address (128)             |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::Transport;

/// The version this codec speaks.
pub const VERSION: u8 = 2;

/// The largest message (RFC 6887 section 7), in bytes.
pub const MAX_LEN: usize = 1100;

/// Both headers, in bytes.
pub const HEADER_LEN: usize = 24;

/// The MAP payload (RFC 6887 section 11.1), in bytes.
pub const MAP_LEN: usize = 36;

const OPCODE_ANNOUNCE: u8 = 0;
const OPCODE_MAP: u8 = 1;
const RESPONSE: u8 = 0x80;

/// The 96 bits that make a mapping its owner's (RFC 6887 section 11.2).
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Nonce(pub [u8; 12]);

/// The body of a MAP request or response.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Map {
    /// The owner's nonce, which a response repeats.
    pub nonce: Nonce,
    /// The transport to map.
    pub transport: Transport,
    /// The port on the host.
    pub internal_port: u16,
    /// The outer port and address: a wish in a request, a fact in a response. Unspecified and 0 mean "any".
    pub external: SocketAddr,
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Operation {
    /// Asks whether the server lives and what its epoch is (section 14.1).
    Announce,
    /// Makes, renews or, with lifetime 0, removes a mapping (section 11).
    Map(Map),
}

/// A request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Request {
    /// The address the client believes it sends from; a server that sees another answers ADDRESS_MISMATCH.
    pub client: IpAddr,
    /// The wanted lifetime in seconds; 0 removes.
    pub lifetime: u32,
    /// What is asked.
    pub operation: Operation,
}

/// A response.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Response {
    /// Whether it was done.
    pub result: ResultCode,
    /// Granted lifetime in seconds, or for an error how long it will stand.
    pub lifetime: u32,
    /// Seconds since the server last lost its mappings (section 8.5).
    pub epoch: u32,
    /// The body. `None` where an error came without one, or the opcode is not one of the two.
    pub operation: Option<Operation>,
}

/// The result codes of RFC 6887 section 7.4.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ResultCode {
    /// Done.
    Success,
    /// The server does not speak this version.
    UnsupportedVersion,
    /// Refused by policy, or the nonce is not the owner's.
    NotAuthorized,
    /// The server could not parse the request.
    MalformedRequest,
    /// The server does not know the opcode.
    UnsupportedOpcode,
    /// A mandatory option is unknown.
    UnsupportedOption,
    /// An option does not parse.
    MalformedOption,
    /// The network behind the server is down.
    NetworkFailure,
    /// The server is out of resources.
    NoResources,
    /// The transport cannot be mapped.
    UnsupportedProtocol,
    /// This client has as many mappings as it may.
    UserExceededQuota,
    /// The wished outer address or port cannot be had, and it was mandatory.
    CannotProvideExternal,
    /// A NAT stands between client and server.
    AddressMismatch,
    /// Too many remote peers in a filter.
    ExcessiveRemotePeers,
    /// A number without a name.
    Other(u8),
}

impl ResultCode {
    /// The code for a number from the wire.
    #[must_use]
    pub const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Success,
            1 => Self::UnsupportedVersion,
            2 => Self::NotAuthorized,
            3 => Self::MalformedRequest,
            4 => Self::UnsupportedOpcode,
            5 => Self::UnsupportedOption,
            6 => Self::MalformedOption,
            7 => Self::NetworkFailure,
            8 => Self::NoResources,
            9 => Self::UnsupportedProtocol,
            10 => Self::UserExceededQuota,
            11 => Self::CannotProvideExternal,
            12 => Self::AddressMismatch,
            13 => Self::ExcessiveRemotePeers,
            other => Self::Other(other),
        }
    }

    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::UnsupportedVersion => 1,
            Self::NotAuthorized => 2,
            Self::MalformedRequest => 3,
            Self::UnsupportedOpcode => 4,
            Self::UnsupportedOption => 5,
            Self::MalformedOption => 6,
            Self::NetworkFailure => 7,
            Self::NoResources => 8,
            Self::UnsupportedProtocol => 9,
            Self::UserExceededQuota => 10,
            Self::CannotProvideExternal => 11,
            Self::AddressMismatch => 12,
            Self::ExcessiveRemotePeers => 13,
            Self::Other(other) => other,
        }
    }
}

/// Why bytes are not a PCP message this codec takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// Shorter than its header or body, longer than 1100 bytes, or not a multiple of four.
    #[error("a length no PCP message has")]
    Length,
    /// Another version: 0 is a NAT-PMP server's answer (RFC 6887 section 9).
    #[error("version {0} instead of 2")]
    Version(u8),
    /// A request where a response was expected, or the reverse.
    #[error("the direction bit is wrong")]
    Direction,
    /// A request with an opcode other than ANNOUNCE and MAP.
    #[error("opcode {0}")]
    Opcode(u8),
    /// A MAP body with a transport other than TCP and UDP.
    #[error("transport {0}")]
    Transport(u8),
}

impl Request {
    /// The bytes of this request: 24 for ANNOUNCE, 60 for MAP.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let opcode = match self.operation {
            Operation::Announce => OPCODE_ANNOUNCE,
            Operation::Map(_) => OPCODE_MAP,
        };
        let mut bytes = Vec::with_capacity(HEADER_LEN.saturating_add(MAP_LEN));
        bytes.extend([VERSION, opcode, 0, 0]);
        bytes.extend(self.lifetime.to_be_bytes());
        bytes.extend(to_wide(self.client).octets());
        self.operation.encode_into(&mut bytes);
        bytes
    }

    /// Reads a request, as a server does. Options are skipped.
    ///
    /// # Errors
    /// A [`DecodeError`] that says what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (header, body) = split(bytes)?;
        let [_, opcode, _, _, l0, l1, l2, l3, client @ ..] = *header;
        if opcode & RESPONSE != 0 {
            return Err(DecodeError::Direction);
        }
        let operation = Operation::decode(opcode, body)?.ok_or(DecodeError::Opcode(opcode))?;
        let client = to_narrow(Ipv6Addr::from(client));
        Ok(Self { client, lifetime: u32::from_be_bytes([l0, l1, l2, l3]), operation })
    }
}

impl Response {
    /// The bytes of this response.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let opcode = match self.operation {
            Some(Operation::Map(_)) => OPCODE_MAP,
            Some(Operation::Announce) | None => OPCODE_ANNOUNCE,
        };
        let mut bytes = Vec::with_capacity(HEADER_LEN.saturating_add(MAP_LEN));
        bytes.extend([VERSION, opcode | RESPONSE, 0, self.result.number()]);
        bytes.extend(self.lifetime.to_be_bytes());
        bytes.extend(self.epoch.to_be_bytes());
        bytes.extend([0; 12]);
        if let Some(operation) = self.operation {
            operation.encode_into(&mut bytes);
        }
        bytes
    }

    /// Reads a response, as a client does. Options are skipped.
    ///
    /// # Errors
    /// A [`DecodeError`] that says what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (header, body) = split(bytes)?;
        let [_, opcode, _, result, l0, l1, l2, l3, e0, e1, e2, e3, ..] = *header;
        if opcode & RESPONSE == 0 {
            return Err(DecodeError::Direction);
        }
        let result = ResultCode::from_number(result);
        let operation = match Operation::decode(opcode & !RESPONSE, body) {
            Ok(operation) => operation,
            // An error may come without the body it answers.
            Err(_) if result != ResultCode::Success => None,
            Err(error) => return Err(error),
        };
        Ok(Self {
            result,
            lifetime: u32::from_be_bytes([l0, l1, l2, l3]),
            epoch: u32::from_be_bytes([e0, e1, e2, e3]),
            operation,
        })
    }
}

impl Operation {
    fn encode_into(self, bytes: &mut Vec<u8>) {
        let Self::Map(map) = self else { return };
        bytes.extend(map.nonce.0);
        bytes.extend([map.transport.number(), 0, 0, 0]);
        bytes.extend(map.internal_port.to_be_bytes());
        bytes.extend(map.external.port().to_be_bytes());
        bytes.extend(to_wide(map.external.ip()).octets());
    }

    fn decode(opcode: u8, body: &[u8]) -> Result<Option<Self>, DecodeError> {
        match opcode {
            OPCODE_ANNOUNCE => Ok(Some(Self::Announce)),
            OPCODE_MAP => {
                let body = body.first_chunk::<MAP_LEN>().ok_or(DecodeError::Length)?;
                let (nonce, rest) = body.split_first_chunk::<12>().ok_or(DecodeError::Length)?;
                let (fixed, address) = rest.split_first_chunk::<8>().ok_or(DecodeError::Length)?;
                let [transport, _, _, _, i0, i1, x0, x1] = *fixed;
                let address = <[u8; 16]>::try_from(address).map_err(|_| DecodeError::Length)?;
                Ok(Some(Self::Map(Map {
                    nonce: Nonce(*nonce),
                    transport: Transport::from_number(transport).ok_or(DecodeError::Transport(transport))?,
                    internal_port: u16::from_be_bytes([i0, i1]),
                    external: SocketAddr::new(to_narrow(Ipv6Addr::from(address)), u16::from_be_bytes([x0, x1])),
                })))
            }
            _ => Ok(None),
        }
    }
}

fn split(bytes: &[u8]) -> Result<(&[u8; HEADER_LEN], &[u8]), DecodeError> {
    // The version goes first: a NAT-PMP server answers with 8 bytes and version 0.
    match bytes.first() {
        Some(&VERSION) => {}
        Some(&other) => return Err(DecodeError::Version(other)),
        None => return Err(DecodeError::Length),
    }
    if bytes.len() > MAX_LEN || !bytes.len().is_multiple_of(4) {
        return Err(DecodeError::Length);
    }
    bytes.split_first_chunk().ok_or(DecodeError::Length)
}

/// An address in the 128-bit form of section 5: IPv4 as IPv4-mapped.
const fn to_wide(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

/// The reverse of [`to_wide`].
fn to_narrow(ip: Ipv6Addr) -> IpAddr {
    ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4)
}

/// The wish for any outer address of the family of `local` (section 11.1).
#[must_use]
pub const fn any_external(local: IpAddr, port: u16) -> SocketAddr {
    match local {
        IpAddr::V4(_) => SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port),
        IpAddr::V6(_) => SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port),
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            any::<u32>().prop_map(|bits| IpAddr::V4(bits.into())),
            // An IPv4-mapped IPv6 address has no form of its own on this wire.
            any::<u128>().prop_map(|bits| IpAddr::V6((bits | 1 << 127).into())),
        ]
    }

    fn operation() -> impl Strategy<Value = Operation> {
        let map = (any::<[u8; 12]>(), any::<bool>(), any::<u16>(), address(), any::<u16>()).prop_map(
            |(nonce, tcp, internal_port, ip, port)| {
                Operation::Map(Map {
                    nonce: Nonce(nonce),
                    transport: if tcp { Transport::Tcp } else { Transport::Udp },
                    internal_port,
                    external: SocketAddr::new(ip, port),
                })
            },
        );
        prop_oneof![Just(Operation::Announce), map]
    }

    proptest! {
        #[test]
        fn every_request_comes_back_from_its_bytes(client in address(), lifetime: u32, operation in operation()) {
            let request = Request { client, lifetime, operation };
            let bytes = request.encode();
            prop_assert_eq!(bytes.len(), if operation == Operation::Announce { 24 } else { 60 });
            prop_assert_eq!(Request::decode(&bytes), Ok(request));
            prop_assert_eq!(Response::decode(&bytes), Err(DecodeError::Direction));
        }

        #[test]
        fn every_response_comes_back_from_its_bytes(code: u8, lifetime: u32, epoch: u32, operation in operation()) {
            let result = ResultCode::from_number(code);
            prop_assert_eq!(result.number(), code);
            let response = Response { result, lifetime, epoch, operation: Some(operation) };
            let bytes = response.encode();
            prop_assert_eq!(Response::decode(&bytes), Ok(response));
            prop_assert_eq!(Request::decode(&bytes), Err(DecodeError::Direction));
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..1200)) {
            let _ = (Request::decode(&bytes), Response::decode(&bytes));
            if let [version, opcode, ..] = bytes.as_mut_slice() {
                (*version, *opcode) = (VERSION, *opcode & 0x81);
                let _ = (Request::decode(&bytes), Response::decode(&bytes));
            }
        }
    }

    #[test]
    fn a_map_request_has_the_bytes_of_the_specification() {
        let request = Request {
            client: "192.168.1.7".parse().unwrap(),
            lifetime: 7200,
            operation: Operation::Map(Map {
                nonce: Nonce(*b"abcdefghijkl"),
                transport: Transport::Udp,
                internal_port: 0x1234,
                external: "0.0.0.0:17185".parse().unwrap(),
            }),
        };
        #[rustfmt::skip]
        let golden = [
            2, 1, 0, 0, 0, 0, 0x1C, 0x20,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 192, 168, 1, 7,
            b'a', b'b', b'c', b'd', b'e', b'f', b'g', b'h', b'i', b'j', b'k', b'l',
            17, 0, 0, 0, 0x12, 0x34, 0x43, 0x21,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0, 0, 0,
        ];
        assert_eq!(request.encode(), golden);
    }

    #[test]
    fn a_response_with_an_option_is_read_up_to_the_option() {
        let map = Map {
            nonce: Nonce([7; 12]),
            transport: Transport::Tcp,
            internal_port: 80,
            external: "[2a00:11::1]:80".parse().unwrap(),
        };
        let response =
            Response { result: ResultCode::Success, lifetime: 1, epoch: 2, operation: Some(Operation::Map(map)) };
        let mut bytes = response.encode();
        bytes.extend([128, 0, 0, 4, 1, 2, 3, 4]);
        assert_eq!(Response::decode(&bytes), Ok(response));
    }

    #[test]
    fn wrong_lengths_and_versions_are_refused_by_name() {
        assert_eq!(Response::decode(&[]), Err(DecodeError::Length));
        assert_eq!(Response::decode(&[0, 129, 0, 1, 0, 0, 0, 9]), Err(DecodeError::Version(0)));
        let mut success = [0; 60];
        (success[0], success[1], success[36]) = (2, 0x81, 6);
        assert!(Response::decode(&success).is_ok());
        assert_eq!(Response::decode(&success[..56]), Err(DecodeError::Length), "a success without its body");
        assert_eq!(Response::decode(&success[..59]), Err(DecodeError::Length), "not a multiple of four");
        success[3] = 2;
        assert_eq!(Response::decode(&success[..24]).unwrap().operation, None, "an error may lack its body");
        success[36] = 132;
        assert_eq!(Request::decode(&success), Err(DecodeError::Direction));
        success[1] = 1;
        assert_eq!(Request::decode(&success), Err(DecodeError::Transport(132)));
        assert_eq!(Response::decode(&[2; 1104]), Err(DecodeError::Length));
    }
}
