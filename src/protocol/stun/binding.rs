//! The Binding exchange by hand: what a client sends and what a server under load answers.

use std::net::SocketAddr;

use super::{AttributeType, Class, HEADER_LEN, MAGIC_COOKIE, Method, TransactionId, WriteError, Writer};

/// Recognises the plainest request there is: a Binding request without attributes, 20 bytes.
///
/// Anything else returns `None` and takes the scanned path.
#[must_use]
pub fn bare_request(bytes: &[u8]) -> Option<TransactionId> {
    let header = <&[u8; HEADER_LEN]>::try_from(bytes).ok()?;
    let (head, id) = header.split_first_chunk::<8>()?;
    let [a, b, c, d] = MAGIC_COOKIE.to_be_bytes();
    if *head != [0, 1, 0, 0, a, b, c, d] {
        return None;
    }
    Some(TransactionId(id.try_into().ok()?))
}

/// Writes a success response with XOR-MAPPED-ADDRESS only: 32 bytes for IPv4, 44 for IPv6.
///
/// # Errors
/// [`WriteError`] where `buffer` is too small.
pub fn write_success(buffer: &mut [u8], transaction: TransactionId, source: SocketAddr) -> Result<usize, WriteError> {
    let mut writer = Writer::new(buffer, Class::Success, Method::BINDING, transaction)?;
    writer.xor_address(AttributeType::XOR_MAPPED_ADDRESS, source)?;
    Ok(writer.finish())
}
