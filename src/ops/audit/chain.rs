//! The format of a record and the chain that ties records together.
//!
//! A record is one line. Its hash is the SHA-256 of the bytes of the line before `,"hash":`, and these hold the hash of
//! the record before. A file begins with the event [`BEGUN`]; a file that was rotated away ends with [`ENDED`].
//!
//! ```text
//! {"seq":7,"time":"2026-11-02T09:30:00.123Z","event":"config-reloaded","fields":{},"prev":"5d41...","hash":"9a0f..."}
//! ```

use std::time::SystemTime;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::ops::{logging::harmless, rfc3339::rfc3339};

/// The first event of every file.
pub const BEGUN: &str = "audit-file-begun";
/// The last event of a file that was rotated away.
pub const ENDED: &str = "audit-file-ended";

const HASH_FIELD: &str = ",\"hash\":\"";
/// What stands after the digits of the hash.
const TAIL: &str = "\"}";
const HEX: usize = 64;

/// The last record of a chain.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Head {
    /// Its number; 0 before the first record.
    pub sequence: u64,
    /// Its hash in hexadecimal; zeros before the first record.
    pub hash: String,
}

impl Default for Head {
    fn default() -> Self {
        Self { sequence: 0, hash: "0".repeat(HEX) }
    }
}

/// `7:9a0f...`, the form in which a head is written down.
impl std::fmt::Display for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.sequence, self.hash)
    }
}

/// A text that is no head.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("expected a number, a colon and 64 hexadecimal digits")]
pub struct HeadError;

impl std::str::FromStr for Head {
    type Err = HeadError;

    fn from_str(text: &str) -> Result<Self, HeadError> {
        let (sequence, hash) = text.trim_end().split_once(':').ok_or(HeadError)?;
        let sequence = sequence.parse().map_err(|_| HeadError)?;
        if hash.len() != HEX || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(HeadError);
        }
        Ok(Self { sequence, hash: hash.to_owned() })
    }
}

impl Head {
    /// Writes the record after this one, without a line break, and moves on to it.
    pub(super) fn seal(&mut self, time: SystemTime, event: &str, fields: &serde_json::Value) -> String {
        self.sequence += 1;
        let body = format!(
            "{{\"seq\":{},\"time\":\"{}\",\"event\":{},\"fields\":{},\"prev\":\"{}\"",
            self.sequence,
            rfc3339(time),
            harmless(&serde_json::Value::from(event).to_string(), true),
            harmless(&fields.to_string(), true),
            self.hash
        );
        self.hash = hash_of(&body);
        format!("{body}{HASH_FIELD}{}{TAIL}", self.hash)
    }
}

fn hash_of(body: &str) -> String {
    Sha256::digest(body.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One record as it was read, its own hash checked.
#[derive(Debug, Deserialize)]
pub(super) struct Record {
    pub(super) seq: u64,
    pub(super) event: String,
    pub(super) prev: String,
    pub(super) hash: String,
}

/// What is wrong with a line by itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RecordError {
    /// It has not the form of a record.
    #[error("this is not a record")]
    Form,
    /// Its bytes are not those that were hashed.
    #[error("the record was changed: its hash does not fit")]
    Hash,
}

impl Record {
    /// Reads a line without its line break.
    pub(super) fn read(line: &[u8]) -> Result<Self, RecordError> {
        let line = std::str::from_utf8(line).map_err(|_| RecordError::Form)?;
        let body_end = line.len().checked_sub(HASH_FIELD.len() + HEX + TAIL.len()).ok_or(RecordError::Form)?;
        let (body, seal) = line.split_at_checked(body_end).ok_or(RecordError::Form)?;
        let hash = seal.strip_prefix(HASH_FIELD).and_then(|it| it.strip_suffix(TAIL)).ok_or(RecordError::Form)?;
        if hash != hash_of(body) {
            return Err(RecordError::Hash);
        }
        serde_json::from_str(line).map_err(|_| RecordError::Form)
    }

    pub(super) fn head(&self) -> Head {
        Head { sequence: self.seq, hash: self.hash.clone() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn a_sealed_record_reads_back_and_holds_no_control_character() {
        let mut head = Head::default();
        let line = head.seal(UNIX_EPOCH, "peer-denied", &serde_json::json!({"name": "a\u{9b}31m\n\"x\u{202e}"}));
        assert!(!line.chars().any(|c| c.is_control() || c == '\u{202e}'), "{line}");
        let record = Record::read(line.as_bytes()).unwrap();
        assert_eq!((record.head(), record.event.as_str()), (head.clone(), "peer-denied"));
        assert_eq!(head.to_string().parse::<Head>().unwrap(), head);
    }
}
