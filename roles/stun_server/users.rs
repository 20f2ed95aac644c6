//! The file of accounts: one `name:password` a line.

use std::path::Path;

use fabric::protocol::stun::auth::{Accounts, InvalidCredential};

/// Why the accounts cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum UsersError {
    #[error("cannot read {path}: {source}")]
    Read { path: String, source: std::io::Error },
    #[error("{path} line {line}: expected name:password")]
    Syntax { path: String, line: usize },
    #[error("{path} line {line}: {source}")]
    Refused { path: String, line: usize, source: InvalidCredential },
    #[error("the realm cannot be used: {0}")]
    Realm(InvalidCredential),
    #[error("{path} holds no account")]
    Empty { path: String },
}

/// Reads the accounts of a realm. Empty lines and lines that begin with # are skipped; a password may hold colons.
pub(super) fn read(path: &Path, realm: &str) -> Result<Accounts, UsersError> {
    let shown = || path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|source| UsersError::Read { path: shown(), source })?;
    let mut accounts = Accounts::new(realm).map_err(UsersError::Realm)?;
    for (index, line) in text.lines().enumerate() {
        let line_number = index + 1;
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, password) =
            line.split_once(':').ok_or_else(|| UsersError::Syntax { path: shown(), line: line_number })?;
        accounts.insert(name, password).map_err(|source| UsersError::Refused {
            path: shown(),
            line: line_number,
            source,
        })?;
    }
    if accounts.is_empty() { Err(UsersError::Empty { path: shown() }) } else { Ok(accounts) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Accounts, UsersError> {
        let file = tempfile::NamedTempFile::new().expect("file");
        std::fs::write(file.path(), text).expect("written");
        read(file.path(), "stun")
    }

    #[test]
    fn comments_are_skipped_and_passwords_keep_their_colons() {
        assert_eq!(parse("# people\n\nann:a:b:c\nbob:x\n").expect("accounts").len(), 2);
    }

    #[test]
    fn a_mistake_is_named_with_its_line_and_without_the_password() {
        let error = parse("ann:secret\nbob\n").expect_err("no colon").to_string();
        assert!(error.ends_with("line 2: expected name:password"), "{error}");
        let error = parse("ann:secret\nann:other\n").expect_err("twice").to_string();
        assert!(error.contains("line 2") && !error.contains("other"), "{error}");
        assert!(parse("# nobody\n").is_err());
    }
}
