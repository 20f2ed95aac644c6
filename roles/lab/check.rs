//! What the lab found out, as a list of checks.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

/// One thing that was tried.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Check {
    /// What was tried.
    pub(crate) name: String,
    /// Whether it went as it should.
    pub(crate) ok: bool,
    /// What was measured or seen.
    pub(crate) value: Value,
    /// The unit of a measured value, empty for a word.
    pub(crate) unit: &'static str,
}

/// All that was tried, in order.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Checks {
    checks: Vec<Check>,
}

impl Checks {
    /// Adds a duration in milliseconds.
    pub(crate) fn milliseconds(&mut self, name: &str, ok: bool, took: Duration) {
        self.add(name, ok, (took.as_secs_f64() * 1e5).round() / 1e2, "ms");
    }

    /// Adds a word that must be as expected.
    pub(crate) fn word(&mut self, name: &str, expected: &str, seen: &str) {
        self.add(name, seen == expected, seen, "");
    }

    /// Adds a check.
    pub(crate) fn add(&mut self, name: &str, ok: bool, value: impl Into<Value>, unit: &'static str) {
        self.checks.push(Check { name: name.to_owned(), ok, value: value.into(), unit });
    }

    /// Adds a failure with its reason.
    pub(crate) fn fail(&mut self, name: &str, reason: impl std::fmt::Display) {
        self.add(name, false, reason.to_string(), "");
    }

    /// Whether there is at least one check and all are ok.
    pub(crate) fn all_ok(&self) -> bool {
        !self.checks.is_empty() && self.checks.iter().all(|check| check.ok)
    }

    /// A table for a person.
    pub(crate) fn table(&self) -> String {
        let width = self.checks.iter().map(|check| check.name.len()).max().unwrap_or_default();
        let mut text = String::new();
        for check in &self.checks {
            let mark = if check.ok { "ok    " } else { "FAILED" };
            let value = check.value.as_str().map_or_else(|| check.value.to_string(), str::to_owned);
            let line = format!("{mark}  {:width$}  {value} {}", check.name, check.unit);
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_list_is_not_a_success() {
        assert!(!Checks::default().all_ok());
    }

    #[test]
    fn one_failure_spoils_the_whole() {
        let mut checks = Checks::default();
        checks.word("a", "x", "x");
        assert!(checks.all_ok());
        checks.word("b", "x", "y");
        assert!(!checks.all_ok());
        assert!(checks.table().contains("FAILED"));
    }
}
