//! Password algorithms (RFC 8489 section 18.5) and the two attributes that name them (sections 14.11 and 14.12).
//!
//! Each entry is a 16-bit algorithm number, a 16-bit parameter length and the parameters, padded to four bytes. Neither
//! registered algorithm has parameters.

use super::integrity;

/// How a long-term key is derived from a password.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum PasswordAlgorithm {
    /// MD5 of `username:realm:password`, a key of 16 bytes (RFC 8489 section 18.5.1.1).
    Md5,
    /// SHA-256 of `username:realm:password`, a key of 32 bytes (RFC 8489 section 18.5.1.2).
    Sha256,
}

impl PasswordAlgorithm {
    /// The registered number.
    #[must_use]
    pub const fn number(self) -> u16 {
        match self {
            Self::Md5 => 1,
            Self::Sha256 => 2,
        }
    }

    /// The algorithm behind a registered number.
    #[must_use]
    pub const fn from_number(number: u16) -> Option<Self> {
        match number {
            1 => Some(Self::Md5),
            2 => Some(Self::Sha256),
            _ => None,
        }
    }

    /// The value of PASSWORD-ALGORITHM.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 4] {
        let [high, low] = self.number().to_be_bytes();
        [high, low, 0, 0]
    }

    /// Reads the value of PASSWORD-ALGORITHM. Parameters, which no known algorithm has, make it unknown.
    #[must_use]
    pub fn from_bytes(value: &[u8]) -> Option<Self> {
        let mut entries = entries(value);
        let Some(Ok((number, []))) = entries.next() else { return None };
        entries.next().is_none().then(|| Self::from_number(number))?
    }

    /// The long-term key (RFC 8489 section 9.2.2). Realm and password must have passed
    /// [`opaque_string`](super::auth::opaque_string).
    #[must_use]
    pub fn key(self, username: &str, realm: &str, password: &str) -> Vec<u8> {
        match self {
            Self::Md5 => integrity::long_term_key_md5(username, realm, password).to_vec(),
            Self::Sha256 => integrity::long_term_key_sha256(username, realm, password).to_vec(),
        }
    }
}

/// The value of PASSWORD-ALGORITHMS is cut off within an entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("an entry of PASSWORD-ALGORITHMS overruns the attribute")]
pub struct TruncatedEntry;

/// The entries of a PASSWORD-ALGORITHMS value: number and parameters, in the order of preference of the server.
///
/// The padding behind the last entry may be missing, because it is also the padding of the attribute.
pub fn entries(mut value: &[u8]) -> impl Iterator<Item = Result<(u16, &[u8]), TruncatedEntry>> {
    std::iter::from_fn(move || {
        if value.is_empty() {
            return None;
        }
        Some(take_entry(&mut value).ok_or_else(|| {
            value = &[];
            TruncatedEntry
        }))
    })
}

fn take_entry<'a>(value: &mut &'a [u8]) -> Option<(u16, &'a [u8])> {
    let (head, rest) = value.split_first_chunk::<4>()?;
    let number = u16::from_be_bytes([head[0], head[1]]);
    let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
    let parameters = rest.get(..length)?;
    *value = rest.get(length.checked_next_multiple_of(4)?..).unwrap_or_default();
    Some((number, parameters))
}

/// The value of PASSWORD-ALGORITHMS for these algorithms.
#[must_use]
pub fn encode_list(algorithms: &[PasswordAlgorithm]) -> Vec<u8> {
    algorithms.iter().flat_map(|algorithm| algorithm.to_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_round_trips_in_the_order_of_preference() {
        let list = encode_list(&[PasswordAlgorithm::Sha256, PasswordAlgorithm::Md5]);
        assert_eq!(list, [0, 2, 0, 0, 0, 1, 0, 0]);
        let read: Vec<_> = entries(&list).map(|entry| entry.expect("sound").0).collect();
        assert_eq!(read, [2, 1]);
    }

    #[test]
    fn parameters_are_skipped_with_their_padding() {
        let list = [0, 9, 0, 1, 0xAA, 0, 0, 0, 0, 1, 0, 0];
        let read: Vec<_> = entries(&list).map(|entry| entry.expect("sound")).collect();
        assert_eq!(read, [(9, &[0xAA][..]), (1, &[][..])]);
    }

    #[test]
    fn an_entry_that_is_cut_off_is_an_error_and_ends_the_list() {
        for list in [&[0, 2, 0][..], &[0, 2, 0, 5, 1, 2, 3, 4]] {
            assert_eq!(entries(list).collect::<Vec<_>>(), [Err(TruncatedEntry)]);
        }
    }

    #[test]
    fn a_single_algorithm_with_parameters_or_company_is_unknown() {
        assert_eq!(PasswordAlgorithm::from_bytes(&[0, 2, 0, 0]), Some(PasswordAlgorithm::Sha256));
        assert_eq!(PasswordAlgorithm::from_bytes(&[0, 2, 0, 1, 7, 0, 0, 0]), None);
        assert_eq!(PasswordAlgorithm::from_bytes(&[0, 2, 0, 0, 0, 1, 0, 0]), None);
        assert_eq!(PasswordAlgorithm::from_bytes(&[0, 3, 0, 0]), None);
        assert_eq!(PasswordAlgorithm::from_bytes(&[]), None);
    }
}
