//! Encodes a message into a caller's buffer. Padding is always zeroed: no byte of an earlier packet leaks.

use std::net::{IpAddr, SocketAddr};

use super::{
    AttributeType, Class, HEADER_LEN, Integrity, MAGIC_COOKIE, Method, TransactionId, attribute, integrity,
    message_type,
};

/// The buffer is too small for what was asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the buffer is too small for the message")]
pub struct WriteError;

/// Writes one message front to back.
#[derive(Debug)]
pub struct Writer<'b> {
    buffer: &'b mut [u8],
    length: usize,
    transaction: TransactionId,
}

impl<'b> Writer<'b> {
    /// Starts a message in `buffer`.
    ///
    /// # Errors
    /// [`WriteError`] where the buffer does not hold a header.
    pub fn new(
        buffer: &'b mut [u8],
        class: Class,
        method: Method,
        transaction: TransactionId,
    ) -> Result<Self, WriteError> {
        let header = buffer.first_chunk_mut::<HEADER_LEN>().ok_or(WriteError)?;
        header[..2].copy_from_slice(&message_type(class, method).to_be_bytes());
        header[2..4].copy_from_slice(&[0, 0]);
        header[4..8].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
        header[8..].copy_from_slice(&transaction.0);
        Ok(Self { buffer, length: HEADER_LEN, transaction })
    }

    /// Appends an attribute with a ready-made value.
    ///
    /// # Errors
    /// [`WriteError`] where it does not fit.
    pub fn attribute(&mut self, kind: AttributeType, value: &[u8]) -> Result<&mut Self, WriteError> {
        let space = self.reserve(kind, value.len())?;
        space.copy_from_slice(value);
        Ok(self)
    }

    /// Appends an attribute of `length` zero bytes, such as PADDING (RFC 5780 section 7.6).
    ///
    /// # Errors
    /// [`WriteError`] where it does not fit.
    pub fn zeroes(&mut self, kind: AttributeType, length: usize) -> Result<&mut Self, WriteError> {
        self.reserve(kind, length)?;
        Ok(self)
    }

    /// Appends a MAPPED-ADDRESS style attribute.
    ///
    /// # Errors
    /// [`WriteError`] where it does not fit.
    pub fn address(&mut self, kind: AttributeType, address: SocketAddr) -> Result<&mut Self, WriteError> {
        let [high, low] = address.port().to_be_bytes();
        match address.ip() {
            IpAddr::V4(ip) => {
                let [a, b, c, d] = ip.octets();
                self.attribute(kind, &[0, 1, high, low, a, b, c, d])
            }
            IpAddr::V6(ip) => {
                let mut value = [0; 20];
                let (head, rest) = value.split_at_mut(4);
                head.copy_from_slice(&[0, 2, high, low]);
                rest.copy_from_slice(&ip.octets());
                self.attribute(kind, &value)
            }
        }
    }

    /// Appends a XOR-MAPPED-ADDRESS style attribute.
    ///
    /// # Errors
    /// [`WriteError`] where it does not fit.
    pub fn xor_address(&mut self, kind: AttributeType, address: SocketAddr) -> Result<&mut Self, WriteError> {
        self.address(kind, attribute::xor_address(address, self.transaction))
    }

    /// Appends ERROR-CODE (RFC 8489 section 14.8). `code` is clamped to 300..=699 and the reason cut before its 128th
    /// character.
    ///
    /// # Errors
    /// [`WriteError`] where it does not fit.
    pub fn error_code(&mut self, code: u16, reason: &str) -> Result<&mut Self, WriteError> {
        let code = code.clamp(300, 699);
        let end = reason.char_indices().nth(127).map_or(reason.len(), |(at, _)| at);
        let reason = reason.get(..end).unwrap_or_default();
        let value = self.reserve(AttributeType::ERROR_CODE, 4usize.saturating_add(reason.len()))?;
        let (head, text) = value.split_at_mut(4);
        head.copy_from_slice(&[0, 0, (code / 100) as u8, (code % 100) as u8]);
        text.copy_from_slice(reason.as_bytes());
        Ok(self)
    }

    /// Appends UNKNOWN-ATTRIBUTES (RFC 8489 section 14.13).
    ///
    /// # Errors
    /// [`WriteError`] where it does not fit.
    pub fn unknown_attributes(&mut self, kinds: &[AttributeType]) -> Result<&mut Self, WriteError> {
        let value = self.reserve(AttributeType::UNKNOWN_ATTRIBUTES, kinds.len().saturating_mul(2))?;
        for (slot, kind) in value.chunks_exact_mut(2).zip(kinds) {
            slot.copy_from_slice(&kind.0.to_be_bytes());
        }
        Ok(self)
    }

    /// Appends MESSAGE-INTEGRITY over everything so far.
    ///
    /// # Errors
    /// [`WriteError`] where it does not fit.
    pub fn message_integrity(&mut self, key: &[u8]) -> Result<&mut Self, WriteError> {
        let covered = self.length;
        self.reserve(AttributeType::MESSAGE_INTEGRITY, 20)?;
        let tag = integrity::sha1_tag(self.buffer.get(..covered).ok_or(WriteError)?, 24, key);
        self.tail(20)?.copy_from_slice(&tag);
        Ok(self)
    }

    /// Appends MESSAGE-INTEGRITY-SHA256 over everything so far, untruncated.
    ///
    /// # Errors
    /// [`WriteError`] where it does not fit.
    pub fn message_integrity_sha256(&mut self, key: &[u8]) -> Result<&mut Self, WriteError> {
        let covered = self.length;
        self.reserve(AttributeType::MESSAGE_INTEGRITY_SHA256, 32)?;
        let tag = integrity::sha256_tag(self.buffer.get(..covered).ok_or(WriteError)?, 36, key);
        self.tail(32)?.copy_from_slice(&tag);
        Ok(self)
    }

    /// Appends the integrity attribute asked for over everything so far.
    ///
    /// # Errors
    /// [`WriteError`] where it does not fit.
    pub fn integrity(&mut self, integrity: Integrity, key: &[u8]) -> Result<&mut Self, WriteError> {
        match integrity {
            Integrity::Sha1 => self.message_integrity(key),
            Integrity::Sha256 => self.message_integrity_sha256(key),
        }
    }

    /// Appends FINGERPRINT, which must be the last attribute.
    ///
    /// # Errors
    /// [`WriteError`] where it does not fit.
    pub fn fingerprint(&mut self) -> Result<&mut Self, WriteError> {
        let covered = self.length;
        self.reserve(AttributeType::FINGERPRINT, 4)?;
        let sum = integrity::fingerprint(self.buffer.get(..covered).ok_or(WriteError)?);
        self.tail(4)?.copy_from_slice(&sum.to_be_bytes());
        Ok(self)
    }

    /// The transaction ID of the message.
    #[must_use]
    pub const fn transaction_id(&self) -> TransactionId {
        self.transaction
    }

    /// The message so far. It is complete after every call: the length field is kept true.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.buffer.get(..self.length).unwrap_or_default()
    }

    /// The number of bytes written.
    #[must_use]
    pub const fn finish(self) -> usize {
        self.length
    }

    /// Makes room for an attribute, zeroes its padding and keeps the length field true.
    fn reserve(&mut self, kind: AttributeType, length: usize) -> Result<&mut [u8], WriteError> {
        let claimed = u16::try_from(length).map_err(|_| WriteError)?;
        let padded = length.checked_next_multiple_of(4).ok_or(WriteError)?;
        let start = self.length;
        let end = start.checked_add(4).and_then(|at| at.checked_add(padded)).ok_or(WriteError)?;
        let body = end.checked_sub(HEADER_LEN).and_then(|body| u16::try_from(body).ok()).ok_or(WriteError)?;
        let space = self.buffer.get_mut(start..end).ok_or(WriteError)?;
        let (head, value) = space.split_first_chunk_mut::<4>().ok_or(WriteError)?;
        head[..2].copy_from_slice(&kind.0.to_be_bytes());
        head[2..].copy_from_slice(&claimed.to_be_bytes());
        value.fill(0);
        self.length = end;
        self.buffer.get_mut(2..4).ok_or(WriteError)?.copy_from_slice(&body.to_be_bytes());
        let value_at = start.checked_add(4).ok_or(WriteError)?;
        self.buffer.get_mut(value_at..).and_then(|rest| rest.get_mut(..length)).ok_or(WriteError)
    }

    fn tail(&mut self, count: usize) -> Result<&mut [u8], WriteError> {
        let start = self.length.checked_sub(count).ok_or(WriteError)?;
        self.buffer.get_mut(start..self.length).ok_or(WriteError)
    }
}
