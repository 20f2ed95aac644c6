//! Reads one YAML mapping key by key, so that every complaint carries the line and column the parser saw.
//!
//! The parser reports a position only with an error. A pass over the text that fails on purpose at the wanted place is
//! therefore how a position is found; configuration files are small enough to be read once per key.

use std::fmt;

use serde::Deserializer as _;
use serde::de::{DeserializeOwned, DeserializeSeed, Error as _, IgnoredAny, MapAccess, Visitor};

/// A place in a text, counted from 1.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Position {
    /// The line.
    pub(super) line: usize,
    /// The column, in characters.
    pub(super) column: usize,
}

/// What the parser said, and where.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Complaint {
    /// The complaint without its position.
    pub(super) message: String,
    /// Where, if the parser knew.
    pub(super) at: Option<Position>,
}

/// The keys of the mapping at the root of `text`, in the order of the file.
///
/// # Errors
/// A [`Complaint`] where the text is not YAML or not a mapping.
pub(super) fn keys(text: &str) -> Result<Vec<String>, Complaint> {
    // The whole tree first: a syntax error behind the last key, or an alias bomb, must not go unseen.
    serde_yaml::from_str::<serde_yaml::Value>(text).or_else(ignore_duplicates).map_err(complaint)?;
    visit(text, Keys)
}

/// Where key number `index` stands.
#[must_use]
pub(super) fn key_position(text: &str, index: usize) -> Option<Position> {
    visit(text, FailAtKey(index)).err().and_then(|complaint| complaint.at)
}

/// Reads the value of key number `index`.
///
/// # Errors
/// A [`Complaint`] with the position of the part of the value that does not fit.
pub(super) fn value<T: DeserializeOwned>(text: &str, index: usize) -> Result<T, Complaint> {
    visit(text, ReadValue(index, std::marker::PhantomData))
}

/// Duplicate keys are found by [`keys`]'s caller, who knows their position; the parser would point to 1:1.
fn ignore_duplicates(error: serde_yaml::Error) -> Result<serde_yaml::Value, serde_yaml::Error> {
    if error.to_string().contains("duplicate entry") { Ok(serde_yaml::Value::Null) } else { Err(error) }
}

fn visit<'de, V: Visitor<'de>>(text: &'de str, visitor: V) -> Result<V::Value, Complaint> {
    serde_yaml::Deserializer::from_str(text).deserialize_map(visitor).map_err(complaint)
}

fn complaint(error: serde_yaml::Error) -> Complaint {
    let at = error.location().map(|location| Position { line: location.line(), column: location.column() });
    let mut message = error.to_string();
    if let Some(at) = at {
        let suffix = format!(" at line {} column {}", at.line, at.column);
        if let Some(end) = message.rfind(&suffix) {
            message.truncate(end);
        }
    }
    Complaint { message, at }
}

const EXPECTED: &str = "a mapping of keys to values";

struct Keys;

impl<'de> Visitor<'de> for Keys {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut keys = Vec::new();
        while let Some(key) = map.next_key()? {
            keys.push(key);
            map.next_value::<IgnoredAny>()?;
        }
        Ok(keys)
    }
}

struct FailAtKey(usize);

impl<'de> Visitor<'de> for FailAtKey {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        for _ in 0..self.0 {
            map.next_entry::<IgnoredAny, IgnoredAny>()?;
        }
        map.next_key_seed(Fail).map(|_| ())
    }
}

/// Fails on whatever scalar it meets.
struct Fail;

impl<'de> DeserializeSeed<'de> for Fail {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Fail {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing")
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<(), E> {
        Err(E::custom("here"))
    }
}

struct ReadValue<T>(usize, std::marker::PhantomData<T>);

impl<'de, T: DeserializeOwned> Visitor<'de> for ReadValue<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        for _ in 0..self.0 {
            map.next_entry::<IgnoredAny, IgnoredAny>()?;
        }
        map.next_key::<IgnoredAny>()?.ok_or_else(|| A::Error::custom("the key is gone"))?;
        let value = map.next_value()?;
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_those_of_the_key_and_of_the_part_that_does_not_fit() {
        let text = "# comment\nfirst: 1\n\"second\":\n  - 1\n  - two\n{}third: 3\n".replace("{}", "");
        assert_eq!(keys(&text).unwrap(), ["first", "second", "third"]);
        assert_eq!(key_position(&text, 1), Some(Position { line: 3, column: 1 }));
        assert_eq!(key_position(&text, 2), Some(Position { line: 6, column: 1 }));
        let wrong = value::<Vec<u8>>(&text, 1).unwrap_err();
        assert_eq!(wrong.at, Some(Position { line: 5, column: 5 }));
        assert!(!wrong.message.contains("line"), "{}", wrong.message);
        assert_eq!(value::<u8>(&text, 2).unwrap(), 3);
    }

    #[test]
    fn flow_style_and_empty_texts_are_mappings_too() {
        assert_eq!(keys("{ a: 1, b: [2] }").unwrap(), ["a", "b"]);
        assert_eq!(key_position("{ a: 1, b: [2] }", 1), Some(Position { line: 1, column: 9 }));
        assert_eq!(keys("").unwrap(), Vec::<String>::new());
        assert_eq!(keys("# only a comment\n").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn what_is_no_mapping_is_refused_with_its_place() {
        assert!(keys("- 1\n- 2\n").is_err());
        assert!(keys("a: [1, 2\n").unwrap_err().at.is_some());
        assert!(keys("a: 1\nb: *nowhere\n").is_err());
        assert_eq!(keys("a: 1\na: 2\n").unwrap(), ["a", "a"]);
    }
}
