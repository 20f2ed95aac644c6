//! What is wrong with a configuration, where, and what was probably meant.

use std::{fmt, path::PathBuf};

use serde::Serialize;

use super::yaml::Position;

/// Where a value came from.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(tag = "from", rename_all = "kebab-case")]
pub enum Origin {
    /// Nothing set it.
    Default,
    /// A line of the configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
    },
    /// An environment variable.
    Environment {
        /// Its name.
        variable: String,
    },
    /// A flag of the command line.
    Flag {
        /// Its name with dashes.
        flag: String,
    },
}

impl Origin {
    pub(super) fn file(path: &std::path::Path, at: Option<Position>) -> Self {
        let at = at.unwrap_or(Position { line: 1, column: 1 });
        Self::File { path: path.to_owned(), line: at.line, column: at.column }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Self::Environment { variable } => write!(f, "environment {variable}"),
            Self::Flag { flag } => write!(f, "flag {flag}"),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, thiserror::Error)]
#[error("{origin}: {message}{}", suggestion.as_ref().map(|it| format!(", did you mean `{it}`?")).unwrap_or_default())]
pub struct Problem {
    /// Where.
    pub origin: Origin,
    /// What, naming the key.
    pub message: String,
    /// The name that was probably meant.
    pub suggestion: Option<String>,
}

/// Everything that is wrong, in the order of discovery. Never empty.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{}", .0.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Problems(pub Vec<Problem>);

/// The candidate nearest to `word`, where one is near enough to be worth naming.
#[must_use]
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let fold = |text: &str| text.to_lowercase().replace('-', "_");
    let word = fold(word);
    candidates
        .into_iter()
        .map(|candidate| {
            let folded = fold(candidate);
            let typing = strsim::normalized_damerau_levenshtein(&word, &folded);
            // A shared start weighs in, so that a half-remembered name finds its key.
            (typing.max(strsim::jaro_winkler(&word, &folded) - 0.25), candidate)
        })
        .filter(|(likeness, _)| *likeness >= 0.55)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// Splits "unknown field `x`, expected one of `a`, `b`" of serde into what was read and what was possible.
pub(super) fn suggestion_in(message: &str) -> Option<String> {
    if !message.contains("unknown field") && !message.contains("unknown variant") {
        return None;
    }
    let mut quoted = message.split('`').skip(1).step_by(2);
    let word = quoted.next()?;
    nearest(word, quoted).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_the_one_that_was_probably_meant() {
        let keys = ["listen", "alternate", "tls_listen", "drain_timeout", "admin"];
        for (word, meant) in [
            ("lisen", "listen"),
            ("Listen", "listen"),
            ("tls-listen", "tls_listen"),
            ("drain_time", "drain_timeout"),
            ("amdin", "admin"),
        ] {
            assert_eq!(nearest(word, keys), Some(meant), "{word}");
        }
        assert_eq!(nearest("zzz", keys), None);
    }

    #[test]
    fn an_unknown_variant_gets_a_suggestion_from_the_message() {
        let message = "unknown variant `jsn`, expected one of `auto`, `text`, `json`";
        assert_eq!(suggestion_in(message), Some("json".to_owned()));
        assert_eq!(suggestion_in("invalid type: string"), None);
    }
}
