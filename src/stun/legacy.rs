//! Clients of RFC 3489: no magic cookie, a transaction ID of 16 bytes, plain addresses only.
//!
//! RESPONSE-ADDRESS, which sends the answer to anybody, is not served; a request with it gets 420.

use std::net::SocketAddr;

use super::endpoint::Flip;
use crate::protocol::stun::{
    AttributeType, Class, HEADER_LEN, Method, TransactionId, WriteError, Writer, message_type,
};

/// RFC 3489 section 11.2.1.
const SOURCE_ADDRESS: AttributeType = AttributeType(0x0004);
/// RFC 3489 section 11.2.1, today OTHER-ADDRESS.
const CHANGED_ADDRESS: AttributeType = AttributeType(0x0005);

/// A Binding request of RFC 3489.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Request {
    id: [u8; 16],
    /// What CHANGE-REQUEST asks for, `None` where it is malformed.
    pub(super) flip: Option<Flip>,
    /// The first attribute that must be understood and is not.
    pub(super) unknown: Option<AttributeType>,
}

impl Request {
    /// Reads a message without a magic cookie. `None` for everything but a well-formed Binding request.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (header, mut rest) = bytes.split_first_chunk::<HEADER_LEN>()?;
        let (head, id) = header.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let kind = u16::from_be_bytes([head[0], head[1]]);
        if kind != message_type(Class::Request, Method::BINDING) || length != rest.len() {
            return None;
        }
        let mut request = Self { id: id.try_into().ok()?, flip: Some(Flip::NEITHER), unknown: None };
        while !rest.is_empty() {
            let (head, tail) = rest.split_first_chunk::<4>()?;
            let kind = AttributeType(u16::from_be_bytes([head[0], head[1]]));
            let (value, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes([head[2], head[3]])))?;
            match kind {
                AttributeType::CHANGE_REQUEST => request.flip = Flip::from_change_request(value),
                // The upper half may be ignored (RFC 3489 section 11.2).
                _ if kind.0 > 0x7fff => {}
                _ => request.unknown = request.unknown.or(Some(kind)),
            }
            rest = tail;
        }
        Some(request)
    }

    /// Writes a success. `changed` is the other address and port, where the server has one.
    pub(super) fn write_success(
        &self,
        out: &mut [u8],
        source: SocketAddr,
        origin: SocketAddr,
        changed: Option<SocketAddr>,
    ) -> Result<usize, WriteError> {
        let mut writer = self.start(out, Class::Success)?;
        writer.address(AttributeType::MAPPED_ADDRESS, source)?.address(SOURCE_ADDRESS, origin)?;
        if let Some(changed) = changed {
            writer.address(CHANGED_ADDRESS, changed)?;
        }
        let length = writer.finish();
        self.restore_id(out);
        Ok(length)
    }

    /// Writes an error.
    pub(super) fn write_error(&self, out: &mut [u8], code: u16) -> Result<usize, WriteError> {
        let mut writer = self.start(out, Class::Error)?;
        writer.error_code(code, "")?;
        if let Some(unknown) = self.unknown {
            // RFC 3489 section 11.2.10 wants an even number of entries; a name may stand twice.
            writer.unknown_attributes(&[unknown, unknown])?;
        }
        let length = writer.finish();
        self.restore_id(out);
        Ok(length)
    }

    fn start<'b>(&self, out: &'b mut [u8], class: Class) -> Result<Writer<'b>, WriteError> {
        let mut tail = [0; 12];
        tail.copy_from_slice(self.id.get(4..).ok_or(WriteError)?);
        Writer::new(out, class, Method::BINDING, TransactionId(tail))
    }

    /// Puts the first four bytes of the client's ID where the writer put the magic cookie.
    fn restore_id(&self, out: &mut [u8]) {
        if let (Some(cookie), Some(head)) = (out.get_mut(4..8), self.id.get(..4)) {
            cookie.copy_from_slice(head);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(attributes: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 1, 0, attributes.len() as u8];
        bytes.extend(1..=16);
        bytes.extend(attributes);
        bytes
    }

    #[test]
    fn the_answer_carries_the_whole_sixteen_byte_id() {
        let parsed = Request::parse(&request(&[])).expect("a request");
        let address = |text: &str| text.parse().expect("address");
        let mut out = [0; 100];
        let length = parsed
            .write_success(&mut out, address("198.51.100.1:5"), address("192.0.2.1:1"), Some(address("192.0.2.2:2")))
            .expect("room");
        assert_eq!(length, 56);
        assert_eq!(out[..4], [1, 1, 0, 36]);
        assert_eq!(out[4..20], (1..=16).collect::<Vec<u8>>());
        assert_eq!(out[20..32], [0, 1, 0, 8, 0, 1, 0, 5, 198, 51, 100, 1]);
        assert_eq!(out[32..44], [0, 4, 0, 8, 0, 1, 0, 1, 192, 0, 2, 1]);
        assert_eq!(out[44..56], [0, 5, 0, 8, 0, 1, 0, 2, 192, 0, 2, 2]);
    }

    #[test]
    fn response_address_is_refused_as_unknown() {
        let parsed = Request::parse(&request(&[0, 2, 0, 8, 0, 1, 0, 9, 1, 2, 3, 4])).expect("a request");
        assert_eq!(parsed.unknown, Some(AttributeType(2)));
        let mut out = [0; 100];
        let length = parsed.write_error(&mut out, 420).expect("room");
        assert_eq!(out[20..length], [0, 9, 0, 4, 0, 0, 4, 20, 0, 10, 0, 4, 0, 2, 0, 2]);
    }

    #[test]
    fn change_request_is_read() {
        let parsed = Request::parse(&request(&[0, 3, 0, 4, 0, 0, 0, 6])).expect("a request");
        assert_eq!(parsed.flip, Some(Flip::BOTH));
        assert_eq!(Request::parse(&request(&[0, 3, 0, 4, 0, 0])), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Request::parse(&bytes);
        }
    }
}
