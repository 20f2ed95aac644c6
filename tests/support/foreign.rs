//! What a test needs from the machine beyond Rust and a C compiler, and what happens where it is missing.
//!
//! A test that cannot run is reported as ignored, with one visible line that says what is missing. With
//! `NZC_REQUIRE_LAB=1` in the environment the same test fails instead, so that a continuous build cannot pass by
//! skipping.
#![allow(dead_code, reason = "each test binary uses its own part of this")]
#![allow(clippy::print_stderr, reason = "a skipped test must be seen")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use libtest_mimic::{Failed, Trial};

/// Something that is not on every machine.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Needs {
    /// A program in PATH, and the Debian package that brings it.
    Program(&'static str, &'static str),
    /// Unprivileged user and network namespaces.
    Namespaces,
}

impl Needs {
    /// Says what is missing, or `None` where all is there.
    pub(crate) fn missing(self) -> Option<String> {
        match self {
            Self::Program(name, package) => {
                program(name).is_none().then(|| format!("the program {name} is missing (Debian package {package})"))
            }
            Self::Namespaces => {
                let made = Command::new("unshare")
                    .args(["-Urn", "true"])
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .status();
                (!made.is_ok_and(|status| status.success()))
                    .then(|| "unprivileged namespaces (unshare -Urn) are not allowed here".to_owned())
            }
        }
    }
}

/// The path of a program, looked for in PATH and in the system folders that a user's PATH may lack.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].iter().map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// A trial that runs where everything it needs is there, and is otherwise ignored in plain sight.
pub(crate) fn trial(name: &str, needs: &[Needs], run: impl FnOnce() -> Result<(), Failed> + Send + 'static) -> Trial {
    let Some(missing) = needs.iter().find_map(|need| need.missing()) else {
        return Trial::test(name, run);
    };
    if std::env::var_os("NZC_REQUIRE_LAB").is_some_and(|value| value == "1") {
        return Trial::test(name, move || Err(missing.into()));
    }
    eprintln!("skipped: {name}: {missing}");
    Trial::test(name, run).with_ignored_flag(true)
}
