//! Reads the files of `tests/vectors` and names what they share.

/// The user of RFC 5769 section 2.4 and RFC 8489 appendix B.1.
pub(crate) const MATRIX_USER: &str = "\u{30DE}\u{30C8}\u{30EA}\u{30C3}\u{30AF}\u{30B9}";
/// Their realm.
pub(crate) const MATRIX_REALM: &str = "example.org";
/// Their password after preparation.
pub(crate) const MATRIX_PASSWORD: &str = "TheMatrIX";
/// The short-term password of RFC 5769.
pub(crate) const SHORT_TERM_PASSWORD: &str = "VOkJxbRl1RmTxUk/WvJxBt";

/// The bytes of a file of `tests/vectors`.
pub(crate) fn read(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/vectors/{name}.hex", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let digits: Vec<u32> = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default())
        .flat_map(str::chars)
        .filter(|character| !character.is_whitespace())
        .map(|character| character.to_digit(16).unwrap_or_else(|| panic!("{path}: {character:?}")))
        .collect();
    assert_eq!(digits.len() % 2, 0, "{path}: odd number of digits");
    digits.chunks_exact(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}
