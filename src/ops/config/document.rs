//! A configuration as a person reads it: the commented example file and the listing with origins.

use std::fmt::Write as _;

use serde_json::Value;

use super::{Key, Setting};

/// The example file: every key commented out at its default under its documentation.
#[must_use]
pub fn example_yaml(title: &str, keys: &[Key]) -> String {
    let mut text = String::new();
    for line in title.lines() {
        comment(&mut text, line);
    }
    for key in keys {
        text.push('\n');
        for line in key.doc.lines() {
            comment(&mut text, line);
        }
        if key.restart {
            comment(&mut text, "A change takes effect at the next start.");
        }
        let _ = writeln!(text, "#{}: {}", key.name, flow(&key.default));
    }
    text
}

fn comment(text: &mut String, line: &str) {
    let _ = writeln!(text, "{}", format!("# {line}").trim_end());
}

/// The values in force, aligned, each with its origin as a comment: a valid configuration file in itself.
#[must_use]
pub fn listing(settings: &[Setting]) -> String {
    let pairs: Vec<_> = settings.iter().map(|it| (format!("{}: {}", it.key, flow(&it.value)), &it.origin)).collect();
    let width = pairs.iter().map(|(pair, _)| pair.chars().count()).filter(|width| *width <= 60).max().unwrap_or(0);
    pairs.iter().fold(String::new(), |mut text, (pair, origin)| {
        let _ = writeln!(text, "{pair:width$}  # {origin}");
        text
    })
}

/// One line of YAML. Plain words stay bare; everything else is written as JSON, which YAML includes.
fn flow(value: &Value) -> String {
    match value {
        Value::String(text) if is_plain(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(flow_quoted).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

fn flow_quoted(value: &Value) -> String {
    value.to_string()
}

/// Whether YAML reads the text as the same text without quotes, judged strictly.
fn is_plain(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-/:".contains(c))
        && !text.ends_with(':')
        && serde_yaml::from_str::<serde_yaml::Value>(text).is_ok_and(|value| value.as_str() == Some(text))
}
