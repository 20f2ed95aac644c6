//! Credentials: who may ask, and how both sides prove it (RFC 8489 section 9). Pure functions of bytes, time and keys.
//!
//! Long-term, the mechanism of servers with accounts:
//!
//! 1. The client asks without credentials. [`LongTermServer::judge`] refuses with 401: REALM, a NONCE and the password
//!    algorithms on offer.
//! 2. [`LongTermClient::handle`] takes the challenge, [`LongTermClient::sign`] adds user, realm, nonce and an HMAC.
//! 3. The server checks, cheapest first: is everything there (400), is the nonce its own, for this address, and young
//!    enough (438), do the algorithms match the offer (400), then user and HMAC (401).
//! 4. The answer carries the same kind of HMAC under the same key ([`Session::seal`]).
//!
//! RFC 8489 section 9.2.4 lists the nonce last. Here it comes before the user lookup and before the HMAC, so that a
//! flood from spoofed sources, which cannot hold a nonce for its address, costs one short HMAC and no lookup. What a
//! client sees differs in one case: an old nonce together with a wrong password gives 438 first and 401 next.
//!
//! Short-term, the mechanism of peers that exchanged a password elsewhere: [`short_term`] and [`ShortTermClient`].

mod accounts;
mod client;
mod nonce;
mod server;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use precis_profiles::precis_core::profile::PrecisFastInvocation as _;

use super::{AttributeType, Integrity, PasswordAlgorithm, WriteError, Writer};

pub use accounts::{Accounts, InvalidCredential};
pub use client::{LongTermClient, Outcome, Rejection, ShortTermClient};
pub use nonce::{Features, InvalidLifetime, NonceMint, NonceState};
pub use server::{InvalidRealm, LongTermServer, Refusal, RefusalReason, Verdict, short_term};

/// An HMAC key. Its bytes do not show up in `Debug`.
#[derive(Clone, Eq, PartialEq)]
pub struct Key(Arc<[u8]>);

impl Key {
    /// A key from its bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// The key of the short-term mechanism: the prepared password itself (RFC 8489 section 9.1.1).
    #[must_use]
    pub fn short_term(password: &str) -> Self {
        Self::new(password.as_bytes())
    }

    /// The key of the long-term mechanism (RFC 8489 section 9.2.2). Realm and password are taken as prepared.
    #[must_use]
    pub fn long_term(algorithm: PasswordAlgorithm, username: &str, realm: &str, password: &str) -> Self {
        Self::new(&algorithm.key(username, realm, password))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// How a request names its user.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Claim<'a> {
    /// By USERNAME.
    Username(&'a str),
    /// By USERHASH (RFC 8489 section 14.4).
    Userhash(&'a [u8; 32]),
}

/// Which key of a user is wanted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeyKind {
    /// For the short-term mechanism.
    ShortTerm,
    /// For the long-term mechanism under this algorithm.
    LongTerm(PasswordAlgorithm),
}

/// A user a lookup found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// The name, also where the request held only its hash.
    pub username: Arc<str>,
    /// The key asked for.
    pub key: Key,
}

/// A request that proved its user. What is left to do is to answer under the same key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Session {
    /// Who asked.
    pub username: Arc<str>,
    /// What the answer must carry.
    pub integrity: Integrity,
    key: Key,
}

impl Session {
    /// Appends the integrity attribute the answer must carry. Only [`Writer::fingerprint`] may follow.
    ///
    /// # Errors
    /// [`WriteError`] where it does not fit.
    pub fn seal(&self, writer: &mut Writer<'_>) -> Result<(), WriteError> {
        writer.integrity(self.integrity, self.key.as_bytes()).map(|_| ())
    }

    /// The key that proved the request.
    #[must_use]
    pub const fn key(&self) -> &Key {
        &self.key
    }
}

/// Text that the OpaqueString profile does not allow: empty, or with control or unassigned characters in it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("empty, or contains characters that are not allowed in credentials (RFC 8265)")]
pub struct NotOpaque;

/// Prepares and enforces text by the OpaqueString profile (RFC 8265 section 4.2), as RFC 8489 asks for user names,
/// realms and passwords: any space becomes U+0020, then NFC.
///
/// It runs where credentials enter the program. What stands in USERNAME and REALM on the wire was prepared by its sender
/// and is compared as it is.
///
/// # Errors
/// [`NotOpaque`] where the profile refuses the text.
pub fn opaque_string(text: &str) -> Result<Cow<'_, str>, NotOpaque> {
    precis_profiles::OpaqueString::enforce(text).map_err(|_| NotOpaque)
}

/// Whether text may stand in REALM, NONCE or SOFTWARE as a sender writes it: fewer than 128 characters and at most 509
/// bytes (RFC 8489 sections 14.9, 14.10, 14.14).
fn fits_quoted_text(text: &str) -> bool {
    text.len() <= 509 && text.chars().count() < 128
}

/// What every challenge starts with after ERROR-CODE.
fn write_realm_and_nonce(writer: &mut Writer<'_>, realm: &str, nonce: &[u8]) -> Result<(), WriteError> {
    writer.attribute(AttributeType::REALM, realm.as_bytes())?;
    writer.attribute(AttributeType::NONCE, nonce)?;
    Ok(())
}
