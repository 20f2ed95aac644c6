//! Reads one key after the other from the file, the environment and the flags, and keeps a record of where each came from.

use std::{collections::BTreeSet, path::Path};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{Key, Origin, Problem, REDACTED, Setting, Sources, nearest, problem::suggestion_in, read_text, yaml};

/// What one source has for a key: nothing, a value with its origin, or a problem.
type Reading<T> = Option<Result<(T, Origin), Problem>>;

/// The sources of one resolution, read key by key.
#[derive(Debug)]
pub struct Layers<'a> {
    sources: &'a Sources,
    keys: &'a [Key],
    in_file: Vec<String>,
    listing: Vec<Setting>,
    used: BTreeSet<String>,
    problems: Vec<Problem>,
}

impl<'a> Layers<'a> {
    pub(super) fn open(sources: &'a Sources, keys: &'a [Key]) -> Self {
        let (in_file, listing, used, problems) = (Vec::new(), Vec::new(), BTreeSet::new(), Vec::new());
        let mut layers = Self { sources, keys, in_file, listing, used, problems };
        layers.open_file();
        layers
    }

    /// What was read, what is wrong, and what deserves a word.
    pub(super) fn close(mut self) -> (Vec<Setting>, Vec<Problem>, Vec<String>) {
        self.refuse_unknown_flags();
        let warnings = self.unknown_variables();
        (self.listing, self.problems, warnings)
    }

    /// Reads one declared key: `default` unless a source has it.
    pub fn read<T: DeserializeOwned + Serialize>(&mut self, name: &'static str, default: T) -> T {
        let mut value = default;
        let mut origin = Origin::Default;
        for read in [Self::file_value::<T>, Self::variable_value::<T>, Self::flag_value::<T>] {
            match read(self, name) {
                Some(Ok((read, from))) => (value, origin) = (read, from),
                Some(Err(problem)) => self.problems.push(problem),
                None => {}
            }
        }
        let (secret, restart) = self.key(name).map_or((false, false), |key| (key.secret, key.restart));
        let mut shown = serde_json::to_value(&value).unwrap_or_default();
        if secret && !shown.is_null() {
            shown = Value::from(REDACTED);
        }
        self.listing.push(Setting { key: name, value: shown, origin, restart });
        value
    }

    fn key(&self, name: &str) -> Option<&'a Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// Lists the keys of the file; unknown and repeated ones are problems.
    fn open_file(&mut self) {
        let Some((path, text)) = &self.sources.file else { return };
        match yaml::keys(text) {
            Ok(keys) => self.in_file = keys,
            Err(complaint) => {
                let origin = Origin::file(path, complaint.at);
                self.problems.push(Problem { origin, message: complaint.message, suggestion: None });
            }
        }
        for (index, name) in self.in_file.iter().enumerate() {
            let origin = || Origin::file(path, yaml::key_position(text, index));
            if self.key(name).is_none() {
                let message = format!("unknown key `{name}`");
                let suggestion = nearest(name, self.keys.iter().map(|key| key.name)).map(str::to_owned);
                self.problems.push(Problem { origin: origin(), message, suggestion });
            } else if self.in_file.iter().take(index).any(|earlier| earlier == name) {
                let message = format!("`{name}` is set a second time");
                self.problems.push(Problem { origin: origin(), message, suggestion: None });
            }
        }
    }

    fn file_value<T: DeserializeOwned>(&mut self, name: &'static str) -> Reading<T> {
        let (path, text) = self.sources.file.as_ref()?;
        let index = self.in_file.iter().position(|key| key == name)?;
        Some(match yaml::value(text, index) {
            Ok(value) => Ok((value, Origin::file(path, yaml::key_position(text, index)))),
            Err(complaint) => {
                // A type that reads a text first and judges it later makes the parser point to the start of the mapping.
                let key_at = yaml::key_position(text, index);
                let at = complaint.at.filter(|at| key_at.is_none_or(|key_at| *at >= key_at)).or(key_at);
                let message = complaint.message.strip_prefix(name).unwrap_or(&complaint.message);
                Err(self.misfit(name, message, Origin::file(path, at)))
            }
        })
    }

    fn variable_value<T: DeserializeOwned>(&mut self, name: &'static str) -> Reading<T> {
        let key = self.key(name)?;
        let direct = format!("{}{}", self.sources.prefix, name.to_uppercase());
        let indirect = format!("{direct}_FILE");
        let find = |wanted: &str| self.sources.environment.iter().find(|(name, _)| name == wanted);
        let (text, path) = (find(&direct), find(&indirect).filter(|_| key.secret));
        let (variable, text) = match (text, path) {
            (None, None) => return None,
            (Some((_, text)), None) => (direct, Ok(text.clone())),
            (Some(_), Some(_)) => {
                self.used.insert(direct);
                (indirect, Err("is set twice, with and without _FILE".to_owned()))
            }
            (None, Some((_, path))) => {
                let text = read_text(Path::new(path)).map_err(|message| format!("{path} {message}"));
                (indirect, text.map(|text| text.trim_end_matches(['\r', '\n']).to_owned()))
            }
        };
        self.used.insert(variable.clone());
        let origin = Origin::Environment { variable };
        Some(match text {
            Err(message) => Err(Problem { origin, message: named(name, &message), suggestion: None }),
            Ok(text) => match from_text(&text, &key.default) {
                Ok(value) => Ok((value, origin)),
                Err(message) => Err(self.misfit(name, &message, origin)),
            },
        })
    }

    fn flag_value<T: DeserializeOwned>(&mut self, name: &'static str) -> Reading<T> {
        let value = self.sources.flags.get(name)?;
        let origin = Origin::Flag { flag: flag_name(name) };
        let read = match value {
            Value::String(text) => from_text(text, &self.key(name)?.default),
            other => serde_json::from_value(other.clone()).map_err(|error| error.to_string()),
        };
        Some(match read {
            Ok(value) => Ok((value, origin)),
            Err(message) => Err(self.misfit(name, &message, origin)),
        })
    }

    /// A value that does not fit its key. What is wrong with a secret is not said, because it would be quoted.
    fn misfit(&self, name: &str, message: &str, origin: Origin) -> Problem {
        if self.key(name).is_some_and(|key| key.secret) {
            let message = format!("`{name}`: the value does not fit this key");
            return Problem { origin, message, suggestion: None };
        }
        Problem { origin, message: named(name, message), suggestion: suggestion_in(message) }
    }

    /// A flag that no key answers to is a mistake of this program, and must not be silently without effect.
    fn refuse_unknown_flags(&mut self) {
        let unknown = self.sources.flags.keys().filter(|name| self.key(name).is_none());
        let refuse = |name: &String| Problem {
            origin: Origin::Flag { flag: flag_name(name) },
            message: format!("no key `{name}` answers to this flag"),
            suggestion: None,
        };
        let refused: Vec<_> = unknown.map(refuse).collect();
        self.problems.extend(refused);
    }

    fn unknown_variables(&self) -> Vec<String> {
        let names: Vec<_> =
            self.keys.iter().map(|key| format!("{}{}", self.sources.prefix, key.name.to_uppercase())).collect();
        let unknown = self.sources.environment.iter().filter(|(name, _)| !self.used.contains(name));
        unknown
            .map(|(name, _)| match nearest(name, names.iter().map(String::as_str)) {
                Some(meant) => format!("the variable {name} names no key and is ignored, did you mean {meant}?"),
                None => format!("the variable {name} names no key and is ignored"),
            })
            .collect()
    }
}

fn flag_name(key: &str) -> String {
    format!("--{}", key.replace('_', "-"))
}

/// Puts the key in front of a message that may begin with the rest of its path, as in `[1]: not an address`.
fn named(name: &str, message: &str) -> String {
    match message.split_once(": ") {
        Some((path, rest)) if path.starts_with(['[', '.']) => format!("`{name}{path}`: {rest}"),
        _ => format!("`{name}`: {}", message.trim_start_matches(": ")),
    }
}

/// Reads the text of a variable or a flag. Its shape follows the default: a list is split at commas, a text is taken as it
/// is, and anything else is read as YAML.
fn from_text<T: DeserializeOwned>(text: &str, default: &Value) -> Result<T, String> {
    let json = |value: Value| serde_json::from_value(value).map_err(|error| error.to_string());
    let yaml = |text: &str| serde_yaml::from_str(text).map_err(|error| error.to_string());
    match default {
        Value::Array(_) => {
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            let as_yaml = || yaml(text).or_else(|_| yaml(&format!("[{text}]"))).ok();
            json(parts.collect()).or_else(|error| as_yaml().ok_or(error))
        }
        Value::String(_) => json(Value::from(text)),
        Value::Null => json(Value::from(text)).or_else(|error| yaml(text).map_err(|_| error)),
        _ => yaml(text),
    }
}
