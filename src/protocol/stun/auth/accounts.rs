//! A fixed set of accounts with their keys worked out in advance.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Claim, Identity, Key, KeyKind, NotOpaque, opaque_string};
use crate::protocol::stun::{AttributeType, PasswordAlgorithm, integrity};

/// Why an account was refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidCredential {
    /// The user name is empty, longer than 508 bytes, or holds characters that are not allowed.
    #[error("the user name {0:?} is empty, over 508 bytes, or contains characters that are not allowed")]
    Username(String),
    /// The password of this user is empty or holds characters that are not allowed.
    #[error("the password of {0:?} is empty or contains characters that are not allowed")]
    Password(String),
    /// The user stands there twice.
    #[error("the user {0:?} is listed twice")]
    Duplicate(String),
    /// The realm is empty or holds characters that are not allowed.
    #[error("the realm is empty or contains characters that are not allowed")]
    Realm,
}

impl From<NotOpaque> for InvalidCredential {
    fn from(_: NotOpaque) -> Self {
        Self::Realm
    }
}

/// Accounts of one realm, found by name or by USERHASH.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    realm: String,
    by_name: BTreeMap<Arc<str>, Keys>,
    by_hash: BTreeMap<[u8; 32], Arc<str>>,
}

#[derive(Clone, Debug)]
struct Keys {
    short_term: Key,
    md5: Key,
    sha256: Key,
}

impl Accounts {
    /// No accounts yet. Short-term credentials know no realm; any text will do.
    ///
    /// # Errors
    /// [`InvalidCredential::Realm`].
    pub fn new(realm: &str) -> Result<Self, InvalidCredential> {
        Ok(Self { realm: opaque_string(realm)?.into_owned(), ..Self::default() })
    }

    /// Adds an account.
    ///
    /// # Errors
    /// [`InvalidCredential`] where name or password cannot be used, or the name is taken.
    pub fn insert(&mut self, username: &str, password: &str) -> Result<(), InvalidCredential> {
        let name = opaque_string(username).map_err(|_| InvalidCredential::Username(username.to_owned()))?;
        if name.len() > AttributeType::USERNAME.text_limit() {
            return Err(InvalidCredential::Username(username.to_owned()));
        }
        let password = opaque_string(password).map_err(|_| InvalidCredential::Password(username.to_owned()))?;
        let name: Arc<str> = name.into();
        if self.by_name.contains_key(&name) {
            return Err(InvalidCredential::Duplicate(username.to_owned()));
        }
        let long_term = |algorithm| Key::long_term(algorithm, &name, &self.realm, &password);
        let keys = Keys {
            short_term: Key::short_term(&password),
            md5: long_term(PasswordAlgorithm::Md5),
            sha256: long_term(PasswordAlgorithm::Sha256),
        };
        self.by_hash.insert(integrity::userhash(&name, &self.realm), Arc::clone(&name));
        self.by_name.insert(name, keys);
        Ok(())
    }

    /// The user behind a claim, with the key asked for.
    #[must_use]
    pub fn find(&self, claim: Claim<'_>, kind: KeyKind) -> Option<Identity> {
        let name = match claim {
            Claim::Username(name) => name,
            Claim::Userhash(hash) => self.by_hash.get(hash)?,
        };
        let (username, keys) = self.by_name.get_key_value(name)?;
        let key = match kind {
            KeyKind::ShortTerm => &keys.short_term,
            KeyKind::LongTerm(PasswordAlgorithm::Md5) => &keys.md5,
            KeyKind::LongTerm(PasswordAlgorithm::Sha256) => &keys.sha256,
        };
        Some(Identity { username: Arc::clone(username), key: key.clone() })
    }

    /// The number of accounts.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}
