//! NAT-PMP (RFC 6886): the external address and mappings, as bytes. IPv4 only.

use std::net::Ipv4Addr;

use super::Transport;

/// The version this codec speaks.
pub const VERSION: u8 = 0;

/// The largest message there is, in bytes.
pub const MAX_LEN: usize = 16;

const RESPONSE: u8 = 0x80;

/// A request (RFC 6886 sections 3.2 and 3.3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Request {
    /// Asks for the external address: 2 bytes.
    ExternalAddress,
    /// Makes, renews or, with lifetime 0, removes a mapping: 12 bytes.
    Map {
        /// The transport to map.
        transport: Transport,
        /// The port on the host.
        internal_port: u16,
        /// The wished outer port; 0 with lifetime 0.
        external_port: u16,
        /// The wished lifetime in seconds; 0 removes.
        lifetime: u32,
    },
}

/// A response.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Response {
    /// Whether it was done.
    pub result: ResultCode,
    /// Seconds since the gateway last lost its mappings (section 3.6).
    pub epoch: u32,
    /// What it answers.
    pub answer: Answer,
}

/// The body of a response.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Answer {
    /// The external address; unspecified where the gateway has none.
    ExternalAddress(Ipv4Addr),
    /// A mapping. In an error the ports mean nothing.
    Map {
        /// The mapped transport.
        transport: Transport,
        /// The port on the host.
        internal_port: u16,
        /// The outer port that was granted.
        external_port: u16,
        /// The granted lifetime in seconds.
        lifetime: u32,
    },
    /// An error without a body; the value is the opcode it answers.
    Bare(u8),
}

/// The result codes of RFC 6886 section 3.5.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ResultCode {
    /// Done.
    Success,
    /// The gateway speaks another version.
    UnsupportedVersion,
    /// The gateway can do it but the owner switched it off.
    NotAuthorized,
    /// The gateway has no address itself.
    NetworkFailure,
    /// The gateway cannot make more mappings.
    OutOfResources,
    /// The gateway does not know the opcode.
    UnsupportedOpcode,
    /// A number without a name.
    Other(u16),
}

impl ResultCode {
    /// The code for a number from the wire.
    #[must_use]
    pub const fn from_number(number: u16) -> Self {
        match number {
            0 => Self::Success,
            1 => Self::UnsupportedVersion,
            2 => Self::NotAuthorized,
            3 => Self::NetworkFailure,
            4 => Self::OutOfResources,
            5 => Self::UnsupportedOpcode,
            other => Self::Other(other),
        }
    }

    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u16 {
        match self {
            Self::Success => 0,
            Self::UnsupportedVersion => 1,
            Self::NotAuthorized => 2,
            Self::NetworkFailure => 3,
            Self::OutOfResources => 4,
            Self::UnsupportedOpcode => 5,
            Self::Other(other) => other,
        }
    }
}

/// Why bytes are not a NAT-PMP message this codec takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// Not the length its opcode has.
    #[error("a length no such NAT-PMP message has")]
    Length,
    /// Another version.
    #[error("version {0} instead of 0")]
    Version(u8),
    /// An unknown opcode, or one of the wrong direction.
    #[error("opcode {0}")]
    Opcode(u8),
}

impl Request {
    /// The bytes of this request.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match *self {
            Self::ExternalAddress => vec![VERSION, 0],
            Self::Map { transport, internal_port, external_port, lifetime } => {
                let mut bytes = vec![VERSION, opcode(transport), 0, 0];
                bytes.extend(internal_port.to_be_bytes());
                bytes.extend(external_port.to_be_bytes());
                bytes.extend(lifetime.to_be_bytes());
                bytes
            }
        }
    }

    /// Reads a request, as a gateway does.
    ///
    /// # Errors
    /// A [`DecodeError`] that says what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        match *bytes {
            [version, ..] if version != VERSION => Err(DecodeError::Version(version)),
            [_, 0] => Ok(Self::ExternalAddress),
            [_, code @ (1 | 2), _, _, i0, i1, x0, x1, l0, l1, l2, l3] => Ok(Self::Map {
                transport: transport(code),
                internal_port: u16::from_be_bytes([i0, i1]),
                external_port: u16::from_be_bytes([x0, x1]),
                lifetime: u32::from_be_bytes([l0, l1, l2, l3]),
            }),
            [_, 0..=2, ..] | [] | [_] => Err(DecodeError::Length),
            [_, code, ..] => Err(DecodeError::Opcode(code)),
        }
    }
}

impl Response {
    /// The bytes of this response.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let code = match self.answer {
            Answer::ExternalAddress(_) => 0,
            Answer::Map { transport, .. } => opcode(transport),
            Answer::Bare(code) => code & !RESPONSE,
        };
        let mut bytes = vec![VERSION, code | RESPONSE];
        bytes.extend(self.result.number().to_be_bytes());
        bytes.extend(self.epoch.to_be_bytes());
        match self.answer {
            Answer::ExternalAddress(ip) => bytes.extend(ip.octets()),
            Answer::Map { internal_port, external_port, lifetime, .. } => {
                bytes.extend(internal_port.to_be_bytes());
                bytes.extend(external_port.to_be_bytes());
                bytes.extend(lifetime.to_be_bytes());
            }
            Answer::Bare(_) => {}
        }
        bytes
    }

    /// Reads a response, as a client does.
    ///
    /// # Errors
    /// A [`DecodeError`] that says what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let Some((&[version, code, r0, r1, e0, e1, e2, e3], body)) = bytes.split_first_chunk::<8>() else {
            return Err(DecodeError::Length);
        };
        if version != VERSION {
            return Err(DecodeError::Version(version));
        }
        if code & RESPONSE == 0 {
            return Err(DecodeError::Opcode(code));
        }
        let result = ResultCode::from_number(u16::from_be_bytes([r0, r1]));
        let answer = match (code & !RESPONSE, body) {
            (0, &[a, b, c, d]) => Answer::ExternalAddress(Ipv4Addr::new(a, b, c, d)),
            (code @ (1 | 2), &[i0, i1, x0, x1, l0, l1, l2, l3]) => Answer::Map {
                transport: transport(code),
                internal_port: u16::from_be_bytes([i0, i1]),
                external_port: u16::from_be_bytes([x0, x1]),
                lifetime: u32::from_be_bytes([l0, l1, l2, l3]),
            },
            // The specification leaves the body of an error open.
            (code, _) if result != ResultCode::Success && bytes.len() <= MAX_LEN => Answer::Bare(code),
            (0..=2, _) => return Err(DecodeError::Length),
            (code, _) => return Err(DecodeError::Opcode(code)),
        };
        Ok(Self { result, epoch: u32::from_be_bytes([e0, e1, e2, e3]), answer })
    }
}

const fn opcode(transport: Transport) -> u8 {
    match transport {
        Transport::Udp => 1,
        Transport::Tcp => 2,
    }
}

const fn transport(opcode: u8) -> Transport {
    if opcode == 2 { Transport::Tcp } else { Transport::Udp }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn transports() -> impl Strategy<Value = Transport> {
        prop_oneof![Just(Transport::Tcp), Just(Transport::Udp)]
    }

    fn answers() -> impl Strategy<Value = Answer> {
        let map = (transports(), any::<u16>(), any::<u16>(), any::<u32>()).prop_map(
            |(transport, internal_port, external_port, lifetime)| Answer::Map {
                transport,
                internal_port,
                external_port,
                lifetime,
            },
        );
        prop_oneof![any::<u32>().prop_map(|bits| Answer::ExternalAddress(bits.into())), map]
    }

    proptest! {
        #[test]
        fn every_request_comes_back_from_its_bytes(
            transport in transports(), internal_port: u16, external_port: u16, lifetime: u32,
        ) {
            let request = Request::Map { transport, internal_port, external_port, lifetime };
            prop_assert_eq!(request.encode().len(), 12);
            prop_assert_eq!(Request::decode(&request.encode()), Ok(request));
        }

        #[test]
        fn every_response_comes_back_from_its_bytes(code: u16, epoch: u32, answer in answers()) {
            let result = ResultCode::from_number(code);
            prop_assert_eq!(result.number(), code);
            let response = Response { result, epoch, answer };
            prop_assert_eq!(Response::decode(&response.encode()), Ok(response));
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..24)) {
            let _ = (Request::decode(&bytes), Response::decode(&bytes));
            if let [version, code, ..] = bytes.as_mut_slice() {
                (*version, *code) = (VERSION, *code & 0x83);
                let _ = (Request::decode(&bytes), Response::decode(&bytes));
            }
        }
    }

    #[test]
    fn messages_have_the_bytes_of_the_specification() {
        assert_eq!(Request::ExternalAddress.encode(), [0, 0]);
        let map = Request::Map { transport: Transport::Tcp, internal_port: 22, external_port: 2222, lifetime: 3600 };
        assert_eq!(map.encode(), [0, 2, 0, 0, 0, 22, 0x08, 0xAE, 0, 0, 0x0E, 0x10]);
        let address = [0, 128, 0, 0, 0, 0, 0, 9, 11, 0, 0, 1];
        assert_eq!(
            Response::decode(&address),
            Ok(Response {
                result: ResultCode::Success,
                epoch: 9,
                answer: Answer::ExternalAddress(Ipv4Addr::new(11, 0, 0, 1)),
            })
        );
    }

    #[test]
    fn only_an_error_may_lack_its_body() {
        assert_eq!(Response::decode(&[0, 128, 0, 0, 0, 0, 0, 9]), Err(DecodeError::Length));
        let refused = Response::decode(&[0, 128, 0, 2, 0, 0, 0, 9]).unwrap();
        assert_eq!((refused.result, refused.answer), (ResultCode::NotAuthorized, Answer::Bare(0)));
        assert_eq!(Response::decode(&[0, 133, 0, 0, 0, 0, 0, 9]), Err(DecodeError::Opcode(5)));
        assert_eq!(Response::decode(&[2, 128, 0, 0, 0, 0, 0, 9]), Err(DecodeError::Version(2)));
        assert_eq!(Request::decode(&[]), Err(DecodeError::Length));
        assert_eq!(Request::decode(&[0, 1, 0, 0]), Err(DecodeError::Length));
    }
}
