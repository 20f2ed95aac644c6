//! Configuration: flags over environment over file over defaults, strict about every key, and able to say where each
//! value came from.
//!
//! A set of keys is declared once with [`settings!`](crate::settings); defaults, documentation, the commented example
//! file and the manual page all come from that declaration. Resolving goes like this:
//!
//! 1. [`Sources::gather`] reads the file and the environment and takes the flags.
//! 2. [`resolve`] reads every key from the strongest source that has it. Values in weaker sources are checked all the
//!    same, so that a typo does not wait for the day its flag is dropped.
//! 3. Keys nobody declared are problems, each with its line, column and the name that was probably meant.
//!
//! All problems are reported together, not one per start.

mod document;
mod layers;
mod problem;
mod value;
mod yaml;

use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

pub use document::{example_yaml, listing};
pub use layers::Layers;
pub use problem::{Origin, Problem, Problems, nearest};
pub use value::{REDACTED, Secret, Span, SpanError};

/// The largest configuration or secret file that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// One key of a configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// The name in the file; flags and variables derive from it.
    pub name: &'static str,
    /// What it means, for a person.
    pub doc: String,
    /// Its default.
    pub default: Value,
    /// Whether the value is kept out of every output and may come from a file named by a variable.
    pub secret: bool,
    /// Whether a change waits for the next start instead of applying on reload.
    pub restart: bool,
}

/// A set of keys that can be read from layered sources. [`settings!`](crate::settings) writes the implementation.
pub trait Settings: Clone + std::fmt::Debug + Send + Sync + Sized + 'static {
    /// The keys in the order of their declaration.
    fn keys() -> Vec<Key>;
    /// Reads every key.
    fn read(layers: &mut Layers<'_>) -> Self;
}

impl<A: Settings, B: Settings> Settings for (A, B) {
    fn keys() -> Vec<Key> {
        A::keys().into_iter().chain(B::keys()).collect()
    }

    fn read(layers: &mut Layers<'_>) -> Self {
        (A::read(layers), B::read(layers))
    }
}

/// Declares a set of configuration keys.
///
/// `[restart]` after its name marks a key whose change waits for the next start, `[secret]` one whose value is never shown.
///
/// ```
/// fabric::settings! {
///     /// What a greeter needs.
///     pub struct Greeter {
///         /// Whom to greet.
///         pub name: String = "world".to_owned(),
///         /// The password of the door.
///         pub password [secret, restart]: Option<fabric::ops::config::Secret> = None,
///     }
/// }
/// assert_eq!(Greeter::default().name, "world");
/// ```
#[macro_export]
macro_rules! settings {
    ($(#[$meta:meta])* $vis:vis struct $name:ident {
        $($(#[doc = $doc:literal])+ $field_vis:vis $field:ident $([$($mark:ident),+])? : $type:ty = $default:expr),* $(,)?
    }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        $vis struct $name {
            $($(#[doc = $doc])+ $field_vis $field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        impl $crate::ops::config::Settings for $name {
            fn keys() -> Vec<$crate::ops::config::Key> {
                let defaults = Self::default();
                vec![$($crate::ops::config::key(
                    stringify!($field), &[$($doc),+], &defaults.$field, &[$($(stringify!($mark)),+)?],
                )),*]
            }

            fn read(layers: &mut $crate::ops::config::Layers<'_>) -> Self {
                let defaults = Self::default();
                Self { $($field: layers.read(stringify!($field), defaults.$field),)* }
            }
        }
    };
}

/// Builds a [`Key`]; called by [`settings!`](crate::settings).
#[must_use]
pub fn key<T: Serialize>(name: &'static str, doc: &[&str], default: &T, marks: &[&str]) -> Key {
    let doc = doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join("\n");
    let default = serde_json::to_value(default).unwrap_or_default();
    Key { name, doc, default, secret: marks.contains(&"secret"), restart: marks.contains(&"restart") }
}

/// Everything a configuration can come from.
#[derive(Clone, Debug)]
pub struct Sources {
    prefix: String,
    file: Option<(PathBuf, String)>,
    environment: Vec<(String, String)>,
    flags: serde_json::Map<String, Value>,
}

impl Sources {
    /// Reads the file at `path`, or at the one `NZC_<ROLE>_CONFIG` names, and picks the role's variables from
    /// `environment`. `flags` serialises to a map from key to value, null where a flag was not given.
    ///
    /// # Errors
    /// [`Problems`] where the file cannot be read.
    pub fn gather(
        role: &str,
        path: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: &impl Serialize,
    ) -> Result<Self, Problems> {
        let prefix = format!("NZC_{}_", role.to_uppercase().replace('-', "_"));
        let mut environment: Vec<_> = environment.into_iter().filter(|(name, _)| name.starts_with(&prefix)).collect();
        environment.sort();
        let config = format!("{prefix}CONFIG");
        let from_env = environment.iter().find(|(name, _)| *name == config).map(|(_, path)| PathBuf::from(path));
        environment.retain(|(name, _)| *name != config);
        let file = match path.map(Path::to_owned).or(from_env) {
            Some(path) => match read_text(&path) {
                Ok(text) => Some((path, text)),
                Err(message) => {
                    let origin = Origin::file(&path, None);
                    return Err(Problems(vec![Problem { origin, message, suggestion: None }]));
                }
            },
            None => None,
        };
        let flags = match serde_json::to_value(flags) {
            Ok(Value::Object(map)) => map.into_iter().filter(|(_, value)| is_given(value)).collect(),
            _ => serde_json::Map::new(),
        };
        Ok(Self { prefix, file, environment, flags })
    }

    /// The configuration file, where there is one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.file.as_ref().map(|(path, _)| path.as_path())
    }
}

fn is_given(flag: &Value) -> bool {
    !flag.is_null() && flag.as_array().is_none_or(|list| !list.is_empty())
}

fn read_text(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("is larger than {MAX_FILE} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())
}

/// The value of one key, and where it came from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Setting {
    /// The key.
    pub key: &'static str,
    /// The value in force; secrets are redacted.
    pub value: Value,
    /// Where it came from.
    pub origin: Origin,
    /// Whether a change waits for the next start.
    pub restart: bool,
}

/// A configuration that is ready to be used.
#[derive(Clone, Debug)]
pub struct Resolved<S> {
    /// The typed values.
    pub settings: S,
    /// Each key with its value and origin.
    pub listing: Vec<Setting>,
    /// What deserves a word but is no error: variables with the role's prefix that no key answers to. Service managers
    /// invent such names, so they cannot be refused.
    pub warnings: Vec<String>,
}

impl<S> Resolved<S> {
    /// A short digest of the values in force, secrets left out: equal digests, equal configuration.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for setting in &self.listing {
            hash.update(format!("{}={}\n", setting.key, setting.value));
        }
        hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// The keys whose values differ from those of `other`.
    #[must_use]
    pub fn changes(&self, other: &Self) -> Vec<&Setting> {
        self.listing.iter().filter(|it| other.listing.iter().any(|o| o.key == it.key && o.value != it.value)).collect()
    }
}

/// Resolves the keys of `S`; `check` adds what only the owner of the keys can know, such as two keys that contradict
/// each other. It runs only on values that were read without a problem.
///
/// # Errors
/// Every [`Problem`] that was found.
pub fn resolve<S: Settings>(sources: &Sources, check: impl FnOnce(&S, &mut Findings)) -> Result<Resolved<S>, Problems> {
    let keys = S::keys();
    let mut layers = Layers::open(sources, &keys);
    let settings = S::read(&mut layers);
    let (listing, problems, warnings) = layers.close();
    let mut findings = Findings { listing, problems };
    if findings.problems.is_empty() {
        check(&settings, &mut findings);
    }
    if findings.problems.is_empty() {
        Ok(Resolved { settings, listing: findings.listing, warnings })
    } else {
        Err(Problems(findings.problems))
    }
}

/// Collects what the owner of the keys finds wrong.
#[derive(Debug)]
pub struct Findings {
    listing: Vec<Setting>,
    problems: Vec<Problem>,
}

impl Findings {
    /// Reports that the value of `key` will not do; the place it came from is added.
    pub fn problem(&mut self, key: &str, message: impl std::fmt::Display) {
        let setting = self.listing.iter().find(|setting| setting.key == key);
        let origin = setting.map_or(Origin::Default, |setting| setting.origin.clone());
        self.problems.push(Problem { origin, message: format!("`{key}`: {message}"), suggestion: None });
    }
}

#[cfg(test)]
mod tests;
