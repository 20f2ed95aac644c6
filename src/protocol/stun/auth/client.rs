//! The client side of both mechanisms: what to add to a request, and what a response is worth.

use super::{Features, Key, NotOpaque, opaque_string, write_realm_and_nonce};
use crate::protocol::stun::{
    AttributeType, Class, Integrity, Packet, PasswordAlgorithm, WriteError, Writer, algorithm, integrity,
};

/// What a response means for the transaction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Take it: it is authentic, or it answers a request that was not signed.
    Take,
    /// Sign the request again in a new transaction.
    Retry,
    /// Treat it as if it had never come; over a reliable transport, end the transaction as violated.
    Discard,
    /// Give up: sending the same again would change nothing.
    GiveUp(Rejection),
}

/// Why a client gives up.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// The server does not accept user and password.
    #[error("the server refuses the user name or the password")]
    Credentials,
    /// The challenge has no usable REALM or NONCE.
    #[error("the challenge of the server has no usable realm or nonce")]
    BadChallenge,
    /// The nonce promises PASSWORD-ALGORITHMS but the attribute is gone: somebody on the way weakens the exchange.
    #[error("the challenge was stripped of its password algorithms on the way")]
    BidDown,
    /// None of the password algorithms offered is known here.
    #[error("the server offers no password algorithm known here")]
    NoCommonAlgorithm,
    /// The server declared one fresh nonce after the other stale.
    #[error("the server declares every nonce stale")]
    NonceLoop,
}

/// Short-term credentials on the client (RFC 8489 sections 9.1.2, 9.1.4 and 9.1.5).
#[derive(Clone, Debug)]
pub struct ShortTermClient {
    username: String,
    key: Key,
    agreed: Option<Integrity>,
}

impl ShortTermClient {
    /// Credentials that were exchanged elsewhere.
    ///
    /// # Errors
    /// [`NotOpaque`] where name or password holds characters that are not allowed.
    pub fn new(username: &str, password: &str) -> Result<Self, NotOpaque> {
        let username = opaque_string(username)?.into_owned();
        Ok(Self { username, key: Key::short_term(&opaque_string(password)?), agreed: None })
    }

    /// Adds USERNAME and the integrity attributes: both until a response has shown which one the server speaks. Only
    /// [`Writer::fingerprint`] may follow.
    ///
    /// # Errors
    /// [`WriteError`] where they do not fit.
    pub fn sign(&self, writer: &mut Writer<'_>) -> Result<(), WriteError> {
        writer.attribute(AttributeType::USERNAME, self.username.as_bytes())?;
        match self.agreed {
            Some(integrity) => {
                writer.integrity(integrity, self.key.as_bytes())?;
            }
            None => {
                writer.integrity(Integrity::Sha1, self.key.as_bytes())?;
                writer.integrity(Integrity::Sha256, self.key.as_bytes())?;
            }
        }
        Ok(())
    }

    /// What a response to a signed request is worth.
    pub fn handle(&mut self, response: &Packet<'_>) -> Outcome {
        let Some(carried) = Integrity::of(response) else { return Outcome::Discard };
        if self.agreed.is_some_and(|agreed| agreed != carried) || !carried.verify(response, self.key.as_bytes()) {
            return Outcome::Discard;
        }
        self.agreed = Some(carried);
        Outcome::Take
    }
}

/// Long-term credentials on the client (RFC 8489 sections 9.2.3 and 9.2.5).
#[derive(Clone, Debug)]
pub struct LongTermClient {
    username: String,
    password: Secret,
    challenge: Option<Challenge>,
    /// How often in a row the server asked for another try.
    retries: u32,
}

#[derive(Clone)]
struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct Challenge {
    /// As received, which is how it goes back.
    realm: String,
    /// Stands for the user where the server takes USERHASH.
    userhash: Option<[u8; 32]>,
    nonce: Vec<u8>,
    /// The offer as received and the algorithm picked from it; `None` with a server from before RFC 8489.
    offer: Option<(Vec<u8>, PasswordAlgorithm)>,
    key: Key,
}

impl Challenge {
    const fn integrity(&self) -> Integrity {
        if self.offer.is_some() { Integrity::Sha256 } else { Integrity::Sha1 }
    }
}

impl LongTermClient {
    /// How many challenges in a row are answered before giving up.
    const MAX_RETRIES: u32 = 3;

    /// An account on a server.
    ///
    /// # Errors
    /// [`NotOpaque`] where name or password holds characters that are not allowed.
    pub fn new(username: &str, password: &str) -> Result<Self, NotOpaque> {
        Ok(Self {
            username: opaque_string(username)?.into_owned(),
            password: Secret(opaque_string(password)?.into_owned()),
            challenge: None,
            retries: 0,
        })
    }

    /// Adds what the last challenge asks for; nothing before the first one. Only [`Writer::fingerprint`] may follow.
    ///
    /// # Errors
    /// [`WriteError`] where it does not fit.
    pub fn sign(&self, writer: &mut Writer<'_>) -> Result<(), WriteError> {
        let Some(challenge) = &self.challenge else { return Ok(()) };
        match &challenge.userhash {
            Some(hash) => writer.attribute(AttributeType::USERHASH, hash)?,
            None => writer.attribute(AttributeType::USERNAME, self.username.as_bytes())?,
        };
        write_realm_and_nonce(writer, &challenge.realm, &challenge.nonce)?;
        if let Some((offer, choice)) = &challenge.offer {
            writer.attribute(AttributeType::PASSWORD_ALGORITHMS, offer)?;
            writer.attribute(AttributeType::PASSWORD_ALGORITHM, &choice.to_bytes())?;
        }
        writer.integrity(challenge.integrity(), challenge.key.as_bytes())?;
        Ok(())
    }

    /// What a response to the last request is worth. A new challenge is taken over.
    pub fn handle(&mut self, response: &Packet<'_>) -> Outcome {
        let code = match response.class() {
            Class::Error => response.error_code().map_or(0, |(code, _)| code),
            Class::Success => 0,
            Class::Request | Class::Indication => return Outcome::Discard,
        };
        if matches!(code, 401 | 438) {
            return self.meet_challenge(response, code).map_or_else(Outcome::GiveUp, |()| Outcome::Retry);
        }
        let stripped = is_stripped(response);
        let Some(challenge) = &self.challenge else {
            return if stripped { Outcome::Discard } else { Outcome::Take };
        };
        let wanted = challenge.integrity();
        if stripped || Integrity::of(response) != Some(wanted) || !wanted.verify(response, challenge.key.as_bytes()) {
            return Outcome::Discard;
        }
        self.retries = 0;
        Outcome::Take
    }

    fn meet_challenge(&mut self, response: &Packet<'_>, code: u16) -> Result<(), Rejection> {
        if is_stripped(response) {
            return Err(Rejection::BidDown);
        }
        if self.retries >= Self::MAX_RETRIES {
            return Err(if code == 438 { Rejection::NonceLoop } else { Rejection::Credentials });
        }
        let next = self.read_challenge(response)?;
        if let Some(last) = &self.challenge {
            // A server that offered algorithms once cannot lose them; whoever took them away is not the server.
            if last.offer.is_some() && next.offer.is_none() {
                return Err(Rejection::BidDown);
            }
            let same = last.realm == next.realm && last.userhash == next.userhash && last.key == next.key;
            if code == 401 && same {
                return Err(Rejection::Credentials);
            }
        }
        self.challenge = Some(next);
        self.retries = self.retries.saturating_add(1);
        Ok(())
    }

    fn read_challenge(&self, response: &Packet<'_>) -> Result<Challenge, Rejection> {
        let realm = response.text(AttributeType::REALM).ok().flatten().ok_or(Rejection::BadChallenge)?;
        let nonce = response.text(AttributeType::NONCE).ok().flatten().ok_or(Rejection::BadChallenge)?;
        let offer = match response.find(AttributeType::PASSWORD_ALGORITHMS) {
            Some(list) => Some((list.to_vec(), pick(list).ok_or(Rejection::NoCommonAlgorithm)?)),
            None => None,
        };
        let algorithm = offer.as_ref().map_or(PasswordAlgorithm::Md5, |(_, choice)| *choice);
        let prepared = opaque_string(realm).map_err(|_| Rejection::BadChallenge)?;
        Ok(Challenge {
            nonce: nonce.as_bytes().to_vec(),
            userhash: Features::of_nonce(nonce.as_bytes())
                .filter(|features| features.username_anonymity)
                .map(|_| integrity::userhash(&self.username, &prepared)),
            offer,
            key: Key::long_term(algorithm, &self.username, &prepared, &self.password.0),
            realm: realm.to_owned(),
        })
    }
}

/// Whether the nonce of a response promises PASSWORD-ALGORITHMS that are not there.
fn is_stripped(response: &Packet<'_>) -> bool {
    response.find(AttributeType::NONCE).and_then(Features::of_nonce).is_some_and(|features| {
        features.password_algorithms && response.find(AttributeType::PASSWORD_ALGORITHMS).is_none()
    })
}

/// The first algorithm of an offer that is known here.
fn pick(offer: &[u8]) -> Option<PasswordAlgorithm> {
    algorithm::entries(offer)
        .map_while(Result::ok)
        .find_map(|(number, parameters)| PasswordAlgorithm::from_number(number).filter(|_| parameters.is_empty()))
}
