//! The server side of both mechanisms: a verdict on a scanned request.

use std::net::SocketAddr;
use std::time::SystemTime;

use super::{
    Claim, Features, Identity, KeyKind, NonceMint, NonceState, Session, fits_quoted_text, opaque_string,
    write_realm_and_nonce,
};
use crate::protocol::stun::{
    AttributeType, Class, Integrity, Packet, PasswordAlgorithm, TextError, WriteError, Writer, algorithm,
};

/// What to do with a request or indication.
#[derive(Clone, Debug)]
pub enum Verdict<'s> {
    /// Carry it out and [`Session::seal`] the answer.
    Accepted(Session),
    /// Answer with [`Refusal::write`].
    Refused(Refusal<'s>),
    /// Drop it without an answer: an indication that proved nothing.
    Discarded,
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum RefusalReason {
    /// It carries no integrity attribute: the first request of a session. 401.
    NoIntegrity,
    /// USERNAME (or USERHASH), REALM or NONCE is missing or malformed. 400.
    Incomplete,
    /// The nonce was issued here but is too old. 438.
    StaleNonce,
    /// The nonce was not issued here or not to this address. 438.
    ForeignNonce,
    /// PASSWORD-ALGORITHM and PASSWORD-ALGORITHMS do not match the offer. 400.
    Algorithms,
    /// It counts on MD5, which is not offered. 401.
    LegacyAlgorithm,
    /// No such user. 401, and nothing in the answer tells it from a wrong password.
    UnknownUser,
    /// The integrity attribute does not match. 401.
    WrongIntegrity,
}

impl RefusalReason {
    /// The error code of the answer.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::Incomplete | Self::Algorithms => 400,
            Self::StaleNonce | Self::ForeignNonce => 438,
            Self::NoIntegrity | Self::LegacyAlgorithm | Self::UnknownUser | Self::WrongIntegrity => 401,
        }
    }

    /// A short fixed word, for a metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::NoIntegrity => "no_integrity",
            Self::Incomplete => "incomplete",
            Self::StaleNonce => "stale_nonce",
            Self::ForeignNonce => "foreign_nonce",
            Self::Algorithms => "algorithms",
            Self::LegacyAlgorithm => "legacy_algorithm",
            Self::UnknownUser => "unknown_user",
            Self::WrongIntegrity => "wrong_integrity",
        }
    }
}

/// An error reply. It carries no integrity attribute and no reason phrase: a spoofed source pays for every byte.
#[derive(Clone, Debug)]
pub struct Refusal<'s> {
    /// Why.
    pub reason: RefusalReason,
    challenge: Option<(&'s LongTermServer, [u8; NonceMint::NONCE_LEN])>,
}

impl Refusal<'_> {
    /// The error code.
    #[must_use]
    pub const fn code(&self) -> u16 {
        self.reason.code()
    }

    /// Writes the whole error response to `request`.
    ///
    /// # Errors
    /// [`WriteError`] where `buffer` is too small. A reply with a realm of `n` bytes needs 80 + `n`, rounded up to four.
    pub fn write(&self, buffer: &mut [u8], request: &Packet<'_>) -> Result<usize, WriteError> {
        let mut writer = Writer::new(buffer, Class::Error, request.method(), request.transaction_id())?;
        self.write_attributes(&mut writer)?;
        Ok(writer.finish())
    }

    /// Writes the attributes of the error response into a message that has only its header. FINGERPRINT may follow.
    ///
    /// # Errors
    /// [`WriteError`] where they do not fit.
    pub fn write_attributes(&self, writer: &mut Writer<'_>) -> Result<(), WriteError> {
        writer.error_code(self.code(), "")?;
        if let Some((server, nonce)) = &self.challenge {
            write_realm_and_nonce(writer, &server.realm, nonce)?;
            writer.attribute(AttributeType::PASSWORD_ALGORITHMS, &server.offer)?;
        }
        Ok(())
    }
}

/// The realm cannot be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a realm must have 1 to 127 characters, without control characters")]
pub struct InvalidRealm;

/// The long-term mechanism as one server speaks it.
#[derive(Clone, Debug)]
pub struct LongTermServer {
    realm: String,
    nonces: NonceMint,
    algorithms: Vec<PasswordAlgorithm>,
    offer: Vec<u8>,
}

impl LongTermServer {
    const FEATURES: Features = Features { password_algorithms: true, username_anonymity: true };

    /// A server for `realm` that offers SHA-256, then MD5.
    ///
    /// # Errors
    /// [`InvalidRealm`] where the realm is empty, too long or holds control characters.
    pub fn new(realm: &str, nonces: NonceMint) -> Result<Self, InvalidRealm> {
        let realm = opaque_string(realm).map_err(|_| InvalidRealm)?.into_owned();
        if !fits_quoted_text(&realm) {
            return Err(InvalidRealm);
        }
        let algorithms = vec![PasswordAlgorithm::Sha256, PasswordAlgorithm::Md5];
        Ok(Self { realm, nonces, offer: algorithm::encode_list(&algorithms), algorithms })
    }

    /// The same server without MD5: clients from before RFC 8489 are left out.
    #[must_use]
    pub fn without_md5(mut self) -> Self {
        self.algorithms = vec![PasswordAlgorithm::Sha256];
        self.offer = algorithm::encode_list(&self.algorithms);
        self
    }

    /// The realm.
    #[must_use]
    pub fn realm(&self) -> &str {
        &self.realm
    }

    /// Judges a request from `client` at `now` (RFC 8489 section 9.2.4, the nonce earlier, see [`super`]). `lookup`
    /// finds a user and is called at most once, only for a request with a valid nonce.
    pub fn judge(
        &self,
        request: &Packet<'_>,
        client: SocketAddr,
        now: SystemTime,
        lookup: impl FnOnce(Claim<'_>, KeyKind) -> Option<Identity>,
    ) -> Verdict<'_> {
        match self.check(request, client, now, lookup) {
            Ok(session) => Verdict::Accepted(session),
            Err(reason) => Verdict::Refused(self.refusal(reason, client, now)),
        }
    }

    fn check(
        &self,
        request: &Packet<'_>,
        client: SocketAddr,
        now: SystemTime,
        lookup: impl FnOnce(Claim<'_>, KeyKind) -> Option<Identity>,
    ) -> Result<Session, RefusalReason> {
        let carried = Integrity::of(request).ok_or(RefusalReason::NoIntegrity)?;
        let claim = claim_of(request)?;
        request.text(AttributeType::REALM).ok().flatten().ok_or(RefusalReason::Incomplete)?;
        let nonce = request.find(AttributeType::NONCE).ok_or(RefusalReason::Incomplete)?;
        match self.nonces.check(nonce, client, now, Self::FEATURES) {
            NonceState::Valid => {}
            NonceState::Expired => return Err(RefusalReason::StaleNonce),
            NonceState::Foreign => return Err(RefusalReason::ForeignNonce),
        }
        let choice = self.algorithm_of(request)?;
        let algorithm = choice.unwrap_or(PasswordAlgorithm::Md5);
        let identity = lookup(claim, KeyKind::LongTerm(algorithm));
        // An unknown user costs the same HMAC as a known one with a wrong password.
        let proven = carried.verify(request, identity.as_ref().map_or(&[], |identity| identity.key.as_bytes()));
        let identity = identity.ok_or(RefusalReason::UnknownUser)?;
        if !proven {
            return Err(RefusalReason::WrongIntegrity);
        }
        let integrity = if choice.is_some() { Integrity::Sha256 } else { Integrity::Sha1 };
        Ok(Session { username: identity.username, integrity, key: identity.key })
    }

    /// The algorithm a request picked, `None` where it knows of none and thereby means MD5.
    fn algorithm_of(&self, request: &Packet<'_>) -> Result<Option<PasswordAlgorithm>, RefusalReason> {
        let choice = request.find(AttributeType::PASSWORD_ALGORITHM);
        let echo = request.find(AttributeType::PASSWORD_ALGORITHMS);
        match (choice, echo) {
            (None, None) if self.algorithms.contains(&PasswordAlgorithm::Md5) => Ok(None),
            (None, None) => Err(RefusalReason::LegacyAlgorithm),
            (Some(choice), Some(echo)) if echo == self.offer => PasswordAlgorithm::from_bytes(choice)
                .filter(|algorithm| self.algorithms.contains(algorithm))
                .map(Some)
                .ok_or(RefusalReason::Algorithms),
            _ => Err(RefusalReason::Algorithms),
        }
    }

    fn refusal(&self, reason: RefusalReason, client: SocketAddr, now: SystemTime) -> Refusal<'_> {
        let challenge = (reason.code() != 400).then(|| (self, self.nonces.issue(client, now, Self::FEATURES)));
        Refusal { reason, challenge }
    }
}

/// Judges a request or indication under the short-term mechanism (RFC 8489 section 9.1.3). Nothing in it limits replay
/// but the lifetime of the credential.
///
/// A message that carries both integrity attributes is judged by MESSAGE-INTEGRITY-SHA256, and so is the answer. Whoever
/// can make that attribute unreadable on the way brings both sides down to HMAC-SHA1; the specification accepts this for
/// the first exchange.
pub fn short_term(
    message: &Packet<'_>,
    lookup: impl FnOnce(Claim<'_>, KeyKind) -> Option<Identity>,
) -> Verdict<'static> {
    match check_short_term(message, lookup) {
        Ok(session) => Verdict::Accepted(session),
        Err(_) if message.class() != Class::Request => Verdict::Discarded,
        Err(reason) => Verdict::Refused(Refusal { reason, challenge: None }),
    }
}

fn check_short_term(
    message: &Packet<'_>,
    lookup: impl FnOnce(Claim<'_>, KeyKind) -> Option<Identity>,
) -> Result<Session, RefusalReason> {
    // Unlike the long-term mechanism there is no challenge to give: a message without integrity is a bad request.
    let integrity = Integrity::of(message).ok_or(RefusalReason::Incomplete)?;
    let name = message.text(AttributeType::USERNAME).ok().flatten().ok_or(RefusalReason::Incomplete)?;
    let identity = lookup(Claim::Username(name), KeyKind::ShortTerm);
    let proven = integrity.verify(message, identity.as_ref().map_or(&[], |identity| identity.key.as_bytes()));
    let identity = identity.ok_or(RefusalReason::UnknownUser)?;
    if !proven {
        return Err(RefusalReason::WrongIntegrity);
    }
    Ok(Session { username: identity.username, integrity, key: identity.key })
}

/// USERNAME, else USERHASH.
fn claim_of<'a>(request: &Packet<'a>) -> Result<Claim<'a>, RefusalReason> {
    if let Some(name) = request.text(AttributeType::USERNAME).map_err(|_: TextError| RefusalReason::Incomplete)? {
        return Ok(Claim::Username(name));
    }
    let hash = request.find(AttributeType::USERHASH).ok_or(RefusalReason::Incomplete)?;
    hash.try_into().map(Claim::Userhash).map_err(|_| RefusalReason::Incomplete)
}
