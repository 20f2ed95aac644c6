//! Nonces without state: a server recognises its own by an HMAC and keeps nothing for a source that proved nothing.
//!
//! ```text
//! obMatJos2  AAAD      QxkJ2a          hP3...13 characters
//! cookie     features  issued, unix s  HMAC-SHA256(key, cookie | address | port | issued), 78 bits
//! ```
//!
//! 32 characters in all, so that a challenge stays small: it is what a spoofed source gets sent to its victim.
//!
//! About the order of the feature bits: section 9.2 of RFC 8489 puts bit 0 first, the test vector of its appendix B.1
//! and the erratum 6290 put bit 0 last, and implementations are found on both sides. This codec writes bit 0 last, like
//! the vector, and reads both: the bits in question are assigned to nothing else.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

const COOKIE: &[u8] = b"obMatJos2";
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The STUN security features a nonce promises (RFC 8489 section 18.1), so that stripping them is noticed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Features {
    /// The challenge lists PASSWORD-ALGORITHMS.
    pub password_algorithms: bool,
    /// The server takes USERHASH.
    pub username_anonymity: bool,
}

impl Features {
    /// Reads the features out of a nonce; `None` where it does not start with the nonce cookie.
    #[must_use]
    pub fn of_nonce(nonce: &[u8]) -> Option<Self> {
        let bits = unspell(nonce.strip_prefix(COOKIE)?.get(..4)?)?;
        let has = |bit: u32| bits & ((1 << bit) | (0x80_0000 >> bit)) != 0;
        Some(Self { password_algorithms: has(0), username_anonymity: has(1) })
    }

    const fn bits(self) -> u128 {
        self.password_algorithms as u128 | (self.username_anonymity as u128) << 1
    }
}

/// The lifetime of nonces is zero or not in whole seconds.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a nonce lifetime must be at least one second")]
pub struct InvalidLifetime;

/// What a nonce a client sent is worth.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NonceState {
    /// Issued here, to this address, not too long ago.
    Valid,
    /// Issued here, to this address, too long ago or, after the clock was set back, in the future.
    Expired,
    /// Not issued here, or issued to another address, or changed on the way.
    Foreign,
}

/// Issues and recognises nonces.
#[derive(Clone)]
pub struct NonceMint {
    /// Keyed once, cloned for each nonce: half the work of keying it each time.
    mac: Hmac<Sha256>,
    lifetime: u64,
}

impl NonceMint {
    /// The length of every nonce in bytes.
    pub const NONCE_LEN: usize = 32;

    /// A mint. Servers that share the key recognise each other's nonces.
    ///
    /// # Errors
    /// [`InvalidLifetime`] where `lifetime` is under a second.
    pub fn new(key: [u8; 32], lifetime: Duration) -> Result<Self, InvalidLifetime> {
        if lifetime.as_secs() == 0 {
            return Err(InvalidLifetime);
        }
        let mac = Hmac::<Sha256>::new_from_slice(&key).expect("HMAC takes keys of any length");
        Ok(Self { mac, lifetime: lifetime.as_secs() })
    }

    /// The nonce for `client` at `now`.
    #[must_use]
    pub fn issue(&self, client: SocketAddr, now: SystemTime, features: Features) -> [u8; Self::NONCE_LEN] {
        self.spell_out(client, seconds(now), features)
    }

    /// What `nonce` is worth from `client` at `now`. It is valid from its issue through its lifetime, to the second.
    #[must_use]
    pub fn check(&self, nonce: &[u8], client: SocketAddr, now: SystemTime, features: Features) -> NonceState {
        let Some(issued) = nonce.get(13..19).and_then(unspell) else { return NonceState::Foreign };
        let expected = self.spell_out(client, issued, features);
        if !bool::from(expected.as_slice().ct_eq(nonce)) {
            return NonceState::Foreign;
        }
        match seconds(now).checked_sub(issued) {
            Some(age) if age <= self.lifetime => NonceState::Valid,
            _ => NonceState::Expired,
        }
    }

    fn spell_out(&self, client: SocketAddr, issued: u64, features: Features) -> [u8; Self::NONCE_LEN] {
        let mut nonce = [0; Self::NONCE_LEN];
        let (cookie, rest) = nonce.split_at_mut(COOKIE.len());
        let (bits, rest) = rest.split_at_mut(4);
        let (time, tag) = rest.split_at_mut(6);
        cookie.copy_from_slice(COOKIE);
        spell(features.bits(), bits);
        spell(u128::from(issued), time);
        let address = match client.ip().to_canonical() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let mut mac = self.mac.clone();
        mac.update(cookie);
        mac.update(bits);
        mac.update(time);
        mac.update(&address.octets());
        mac.update(&client.port().to_be_bytes());
        let mac = mac.finalize().into_bytes();
        let head = mac.first_chunk::<16>().copied().unwrap_or_default();
        spell(u128::from_be_bytes(head), tag);
        nonce
    }
}

impl std::fmt::Debug for NonceMint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NonceMint").field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}

/// Whole seconds since 1970, kept to the 36 bits that six characters hold (until the year 4147).
fn seconds(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() & 0xF_FFFF_FFFF
}

/// Writes the low bits of `value`, six to a character.
fn spell(mut value: u128, out: &mut [u8]) {
    for slot in out.iter_mut().rev() {
        *slot = ALPHABET.get((value & 63) as usize).copied().unwrap_or_default();
        value >>= 6;
    }
}

/// Reads up to six characters back.
fn unspell(text: &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for character in text {
        let digit = ALPHABET.iter().position(|candidate| candidate == character)?;
        value = (value << 6) | digit as u64;
    }
    Some(value)
}
