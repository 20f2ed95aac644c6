//! The pre-scan: one pass over a datagram that decides whether it is a STUN message at all.
//!
//! What may follow what (RFC 8489 sections 9, 14.5 to 14.7), and what this codec makes of it:
//!
//! | after | may follow and counts | may follow and is ignored | refused |
//! |---|---|---|---|
//! | MESSAGE-INTEGRITY | MESSAGE-INTEGRITY-SHA256, FINGERPRINT | every other attribute | a second MESSAGE-INTEGRITY |
//! | MESSAGE-INTEGRITY-SHA256 | FINGERPRINT | every other attribute, the first MESSAGE-INTEGRITY too | a second MESSAGE-INTEGRITY-SHA256 |
//! | FINGERPRINT | nothing | nothing | anything |
//!
//! The specification would have a repeated integrity attribute ignored like any other latecomer. No honest sender
//! writes one, and decoders are known that spend cubic time on many, so the scan refuses the message instead: whoever
//! can append an attribute on the path can as well drop the packet, so nothing is lost.

use super::{AttributeType, Class, HEADER_LEN, MAGIC_COOKIE, Method, TransactionId, attribute, split_message_type};

/// Why a datagram is not a STUN message this codec accepts. Each is a counted drop, never an answer.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ScanError {
    /// Shorter than a header.
    #[error("shorter than a STUN header")]
    TooShort,
    /// Larger than the caller allows.
    #[error("larger than the limit")]
    TooLong,
    /// The two leading bits are not zero.
    #[error("the two leading bits are not zero")]
    NotStun,
    /// The magic cookie is missing: an RFC 3489 client, or not STUN.
    #[error("no magic cookie")]
    NoCookie,
    /// The length field is not a multiple of four or not what follows the header.
    #[error("the length field does not match the datagram")]
    BadLength,
    /// An attribute claims more bytes than the message has.
    #[error("an attribute overruns the message")]
    Overrun,
    /// MESSAGE-INTEGRITY, MESSAGE-INTEGRITY-SHA256 or FINGERPRINT stands twice or has a length it cannot have.
    #[error("a repeated or malformed integrity attribute")]
    BadIntegrity,
    /// Something follows FINGERPRINT.
    #[error("FINGERPRINT is not the last attribute")]
    FingerprintNotLast,
}

/// One attribute as it stands in the message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Attribute<'a> {
    /// Its number.
    pub kind: AttributeType,
    /// Its value without padding.
    pub value: &'a [u8],
}

/// A scanned message: a borrowed view whose framing is known to be sound.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    bytes: &'a [u8],
    class: Class,
    method: Method,
    /// Where the attributes that may be believed end: at the first integrity attribute, FINGERPRINT or the end.
    visible_end: usize,
    sha1_at: Option<usize>,
    sha256_at: Option<(usize, usize)>,
    fingerprint_at: Option<usize>,
}

impl<'a> Packet<'a> {
    /// The largest message [`Packet::scan`] takes: what fits one IPv6 datagram.
    pub const MAX_LEN: usize = 65_535;

    /// Checks header, length and attribute framing of one whole message.
    ///
    /// # Errors
    /// A [`ScanError`] that says what is wrong. No error deserves an answer.
    pub fn scan(bytes: &'a [u8]) -> Result<Self, ScanError> {
        let header = bytes.first_chunk::<HEADER_LEN>().ok_or(ScanError::TooShort)?;
        if bytes.len() > Self::MAX_LEN {
            return Err(ScanError::TooLong);
        }
        if header[0] & 0xC0 != 0 {
            return Err(ScanError::NotStun);
        }
        if u32::from_be_bytes([header[4], header[5], header[6], header[7]]) != MAGIC_COOKIE {
            return Err(ScanError::NoCookie);
        }
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if length % 4 != 0 || Some(length) != bytes.len().checked_sub(HEADER_LEN) {
            return Err(ScanError::BadLength);
        }
        let (class, method) = split_message_type(u16::from_be_bytes([header[0], header[1]]));
        let mut packet = Self {
            bytes,
            class,
            method,
            visible_end: bytes.len(),
            sha1_at: None,
            sha256_at: None,
            fingerprint_at: None,
        };
        packet.scan_attributes()?;
        Ok(packet)
    }

    fn scan_attributes(&mut self) -> Result<(), ScanError> {
        let mut at = HEADER_LEN;
        let mut sealed = false;
        let mut sha1_seen = false;
        while at < self.bytes.len() {
            if self.fingerprint_at.is_some() {
                return Err(ScanError::FingerprintNotLast);
            }
            let (attribute, next) = attribute_at(self.bytes, at).ok_or(ScanError::Overrun)?;
            let length = attribute.value.len();
            match attribute.kind {
                AttributeType::MESSAGE_INTEGRITY => {
                    if sha1_seen || length != 20 {
                        return Err(ScanError::BadIntegrity);
                    }
                    sha1_seen = true;
                    // After SHA-256 the SHA-1 attribute is one of those that must be ignored (section 9).
                    if self.sha256_at.is_none() {
                        self.sha1_at = Some(at);
                    }
                }
                AttributeType::MESSAGE_INTEGRITY_SHA256 => {
                    if self.sha256_at.is_some() || !(16..=32).contains(&length) || length % 4 != 0 {
                        return Err(ScanError::BadIntegrity);
                    }
                    self.sha256_at = Some((at, length));
                }
                AttributeType::FINGERPRINT => {
                    if length != 4 {
                        return Err(ScanError::BadIntegrity);
                    }
                    self.fingerprint_at = Some(at);
                }
                _ => {
                    at = next;
                    continue;
                }
            }
            if !sealed {
                self.visible_end = at;
                sealed = true;
            }
            at = next;
        }
        Ok(())
    }

    /// The class of the message.
    #[must_use]
    pub const fn class(&self) -> Class {
        self.class
    }

    /// The method of the message.
    #[must_use]
    pub const fn method(&self) -> Method {
        self.method
    }

    /// The transaction ID.
    #[must_use]
    pub fn transaction_id(&self) -> TransactionId {
        let mut id = [0; 12];
        id.copy_from_slice(self.bytes.get(8..HEADER_LEN).unwrap_or(&[0; 12]));
        TransactionId(id)
    }

    /// The whole message as received.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The attributes before the first integrity attribute, in order. These are the ones a receiver may act on.
    pub fn attributes(&self) -> impl Iterator<Item = Attribute<'a>> + use<'a> {
        let bytes = self.bytes.get(..self.visible_end).unwrap_or_default();
        let mut at = HEADER_LEN;
        std::iter::from_fn(move || {
            let (attribute, next) = attribute_at(bytes, at)?;
            at = next;
            Some(attribute)
        })
    }

    /// The value of the first attribute of this kind; of several, the first counts (RFC 8489 section 14).
    #[must_use]
    pub fn find(&self, kind: AttributeType) -> Option<&'a [u8]> {
        self.attributes().find(|attribute| attribute.kind == kind).map(|attribute| attribute.value)
    }

    /// The first attribute of this kind as text, within the length RFC 8489 allows a receiver to meet.
    ///
    /// `Ok(None)` where the attribute is absent.
    ///
    /// # Errors
    /// [`TextError`] where it is too long or no UTF-8: the sender is at fault, a request deserves a 400.
    pub fn text(&self, kind: AttributeType) -> Result<Option<&'a str>, TextError> {
        let Some(value) = self.find(kind) else { return Ok(None) };
        if value.len() > kind.text_limit() {
            return Err(TextError::TooLong(kind));
        }
        std::str::from_utf8(value).map(Some).map_err(|_| TextError::NotUtf8(kind))
    }

    /// The comprehension-required attributes that are not in `known`: what a 420 answer lists in UNKNOWN-ATTRIBUTES
    /// (RFC 8489 section 6.3.1). Attributes behind the integrity attribute do not count.
    #[must_use]
    pub fn unknown_required(&self, known: &[AttributeType]) -> UnknownRequired {
        let mut unknown = UnknownRequired::default();
        for attribute in self.attributes() {
            if attribute.kind.is_comprehension_required() && !known.contains(&attribute.kind) {
                unknown.note(attribute.kind);
            }
        }
        unknown
    }

    /// A MAPPED-ADDRESS style attribute of this kind.
    #[must_use]
    pub fn address(&self, kind: AttributeType) -> Option<std::net::SocketAddr> {
        attribute::decode_address(self.find(kind)?)
    }

    /// A XOR-MAPPED-ADDRESS style attribute of this kind.
    #[must_use]
    pub fn xor_address(&self, kind: AttributeType) -> Option<std::net::SocketAddr> {
        attribute::decode_xor_address(self.find(kind)?, self.transaction_id())
    }

    /// The code and reason of ERROR-CODE, where it is well-formed.
    #[must_use]
    pub fn error_code(&self) -> Option<(u16, &'a str)> {
        let (head, reason) = self.find(AttributeType::ERROR_CODE)?.split_first_chunk::<4>()?;
        let (class, number) = (head[2] & 0x07, head[3]);
        if !(3..=6).contains(&class) || number > 99 {
            return None;
        }
        let code = u16::from(class).checked_mul(100)?.checked_add(u16::from(number))?;
        Some((code, std::str::from_utf8(reason).unwrap_or_default()))
    }

    /// Offset of MESSAGE-INTEGRITY and its value, where the message has one that counts.
    #[must_use]
    pub fn message_integrity(&self) -> Option<(usize, &'a [u8])> {
        let at = self.sha1_at?;
        Some((at, attribute_at(self.bytes, at)?.0.value))
    }

    /// Offset of MESSAGE-INTEGRITY-SHA256 and its value (16 to 32 bytes), where the message has one.
    #[must_use]
    pub fn message_integrity_sha256(&self) -> Option<(usize, &'a [u8])> {
        let (at, _) = self.sha256_at?;
        Some((at, attribute_at(self.bytes, at)?.0.value))
    }

    /// Offset of FINGERPRINT and its value, where the message has one.
    #[must_use]
    pub fn fingerprint(&self) -> Option<(usize, &'a [u8])> {
        let at = self.fingerprint_at?;
        Some((at, attribute_at(self.bytes, at)?.0.value))
    }
}

/// Why an attribute that should be text is none.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// Longer than a receiver has to take (RFC 8489 sections 14.3, 14.9, 14.10, 14.14).
    #[error("attribute {:#06x} is longer than the specification allows", .0.0)]
    TooLong(AttributeType),
    /// Not UTF-8.
    #[error("attribute {:#06x} is not UTF-8", .0.0)]
    NotUtf8(AttributeType),
}

/// Comprehension-required attributes a receiver does not know, each once, in the order of the message.
///
/// It holds the first 32 kinds and leaves further ones out, so that a hostile request costs bounded work and its answer
/// stays small.
#[derive(Clone, Copy, Debug)]
pub struct UnknownRequired {
    kinds: [AttributeType; Self::CAPACITY],
    count: usize,
}

impl UnknownRequired {
    const CAPACITY: usize = 32;

    /// The kinds.
    #[must_use]
    pub fn as_slice(&self) -> &[AttributeType] {
        self.kinds.get(..self.count).unwrap_or_default()
    }

    /// Whether everything was known.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn note(&mut self, kind: AttributeType) {
        if self.as_slice().contains(&kind) {
            return;
        }
        if let Some(slot) = self.kinds.get_mut(self.count) {
            *slot = kind;
            self.count = self.count.saturating_add(1);
        }
    }
}

impl Default for UnknownRequired {
    fn default() -> Self {
        Self { kinds: [AttributeType(0); Self::CAPACITY], count: 0 }
    }
}

/// The attribute that starts at `at`, and where the next one starts.
fn attribute_at(bytes: &[u8], at: usize) -> Option<(Attribute<'_>, usize)> {
    let (head, rest) = bytes.get(at..)?.split_first_chunk::<4>()?;
    let kind = AttributeType(u16::from_be_bytes([head[0], head[1]]));
    let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
    let padded = length.checked_next_multiple_of(4)?;
    rest.get(..padded)?;
    let next = at.checked_add(4)?.checked_add(padded)?;
    Some((Attribute { kind, value: rest.get(..length)? }, next))
}
