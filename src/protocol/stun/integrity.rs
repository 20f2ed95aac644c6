//! MESSAGE-INTEGRITY, MESSAGE-INTEGRITY-SHA256, FINGERPRINT and the keys behind them (RFC 8489 sections 9 and 14).
//!
//! Both HMACs run over the bytes as received, with the length field changed to end at the attribute itself, and are
//! compared in constant time.

use hmac::{Hmac, KeyInit as _};
use md5::Digest as _;
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use super::{HEADER_LEN, Packet};

const FINGERPRINT_XOR: u32 = 0x5354_554E;

/// Which of the two integrity attributes protects a message.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Integrity {
    /// MESSAGE-INTEGRITY: HMAC-SHA1 (RFC 8489 section 14.5).
    Sha1,
    /// MESSAGE-INTEGRITY-SHA256 (RFC 8489 section 14.6).
    Sha256,
}

impl Integrity {
    /// The attribute of `packet` that counts: SHA-256 where it is there, else SHA-1 (RFC 8489 sections 9.1.3, 9.2.4).
    #[must_use]
    pub fn of(packet: &Packet<'_>) -> Option<Self> {
        if packet.message_integrity_sha256().is_some() {
            Some(Self::Sha256)
        } else {
            packet.message_integrity().map(|_| Self::Sha1)
        }
    }

    /// Whether this attribute is in `packet` and right under `key`.
    #[must_use]
    pub fn verify(self, packet: &Packet<'_>, key: &[u8]) -> bool {
        match self {
            Self::Sha1 => verify_sha1(packet, key),
            Self::Sha256 => verify_sha256(packet, key),
        }
    }
}

/// The long-term key for MD5 (RFC 8489 section 18.5.1.1): MD5 of `username:realm:password`.
#[must_use]
pub fn long_term_key_md5(username: &str, realm: &str, password: &str) -> [u8; 16] {
    let mut hash = md5::Md5::new();
    feed_credentials(&mut hash, username, realm, password);
    hash.finalize().into()
}

/// The long-term key for SHA-256 (RFC 8489 section 18.5.1.2).
#[must_use]
pub fn long_term_key_sha256(username: &str, realm: &str, password: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    feed_credentials(&mut hash, username, realm, password);
    hash.finalize().into()
}

/// USERHASH (RFC 8489 section 14.4): SHA-256 of `username:realm`.
#[must_use]
pub fn userhash(username: &str, realm: &str) -> [u8; 32] {
    Sha256::new().chain_update(username).chain_update(b":").chain_update(realm).finalize().into()
}

fn feed_credentials(hash: &mut impl md5::Digest, username: &str, realm: &str, password: &str) {
    for (index, part) in [username, realm, password].into_iter().enumerate() {
        if index > 0 {
            hash.update(b":");
        }
        hash.update(part);
    }
}

/// Whether MESSAGE-INTEGRITY is there and right under `key`.
#[must_use]
pub fn verify_sha1(packet: &Packet<'_>, key: &[u8]) -> bool {
    let Some((at, tag)) = packet.message_integrity() else { return false };
    let Some(covered) = packet.as_bytes().get(..at) else { return false };
    sha1_tag(covered, 24, key).as_slice().ct_eq(tag).into()
}

/// Whether MESSAGE-INTEGRITY-SHA256 is there and right under `key`. A truncated tag (16 bytes or more, section 14.6) is
/// refused: no profile served here allows truncation.
#[must_use]
pub fn verify_sha256(packet: &Packet<'_>, key: &[u8]) -> bool {
    let Some((at, tag)) = packet.message_integrity_sha256() else { return false };
    let Some(covered) = packet.as_bytes().get(..at) else { return false };
    sha256_tag(covered, 36, key).as_slice().ct_eq(tag).into()
}

/// Whether FINGERPRINT is absent or right.
#[must_use]
pub fn fingerprint_is_sound(packet: &Packet<'_>) -> bool {
    packet.fingerprint().is_none_or(|(at, value)| {
        packet.as_bytes().get(..at).is_some_and(|covered| fingerprint(covered).to_be_bytes() == value)
    })
}

/// HMAC-SHA1 over `covered` with the length field set to end `own` bytes later.
pub(super) fn sha1_tag(covered: &[u8], own: usize, key: &[u8]) -> [u8; 20] {
    let mac = Hmac::<Sha1>::new_from_slice(key).expect("HMAC takes keys of any length");
    finish(mac, covered, own)
}

/// HMAC-SHA256 over `covered` with the length field set to end `own` bytes later.
pub(super) fn sha256_tag(covered: &[u8], own: usize, key: &[u8]) -> [u8; 32] {
    let mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    finish(mac, covered, own)
}

fn finish<M: hmac::Mac, const N: usize>(mut mac: M, covered: &[u8], own: usize) -> [u8; N]
where
    hmac::digest::Output<M>: Into<[u8; N]>,
{
    feed(covered, own, |bytes| mac.update(bytes));
    mac.finalize().into_bytes().into()
}

/// The CRC of RFC 8489 section 14.7 over `covered` with the length field set to include FINGERPRINT itself.
pub(super) fn fingerprint(covered: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    feed(covered, 8, |bytes| crc.update(bytes));
    crc.finalize() ^ FINGERPRINT_XOR
}

fn feed(covered: &[u8], own: usize, mut update: impl FnMut(&[u8])) {
    let end = covered.len().saturating_add(own).saturating_sub(HEADER_LEN);
    let length = u16::try_from(end).unwrap_or(u16::MAX);
    update(covered.get(..2).unwrap_or_default());
    update(&length.to_be_bytes());
    update(covered.get(4..).unwrap_or_default());
}
