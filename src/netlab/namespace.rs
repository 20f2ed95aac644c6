//! One named network namespace and the commands run in it.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::LabError;
use super::sandbox::system_command;

/// A named network namespace. It exists as long as the world that made it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    pub(super) fn named(name: String) -> Self {
        Self { name }
    }

    /// The name, unique in the sandbox.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that a thread enters with `setns` and a program with `nsenter --net=`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// A command that will run in this namespace.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut flag = std::ffi::OsString::from("--net=");
        flag.push(self.path());
        let mut command = system_command("nsenter");
        command.arg(flag).arg("--").arg(program);
        command
    }

    /// Runs a shell script in this namespace to its end; the first command that fails ends it.
    ///
    /// # Errors
    /// [`LabError`] with what the script wrote to standard error.
    pub fn script(&self, text: &str) -> Result<(), LabError> {
        self.begin_script(text)?.finish()
    }

    /// Starts a shell script without waiting for it, so that several namespaces can be set up side by side.
    pub(super) fn begin_script(&self, text: &str) -> Result<Script, LabError> {
        let mut command = self.command("sh");
        command.arg("-e");
        Script::begin(command, text, format!("the set-up of {}", self.name))
    }
}

/// A script under way.
pub(super) struct Script {
    child: Child,
    step: String,
}

impl Script {
    /// Starts `command` with `input` on its standard input.
    pub(super) fn begin(mut command: Command, input: &str, step: String) -> Result<Self, LabError> {
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| LabError::Program { program, source })?;
        if let Some(mut stdin) = child.stdin.take() {
            // A child that ended early says why on standard error; the broken pipe says nothing more.
            let _ = stdin.write_all(input.as_bytes());
        }
        Ok(Self { child, step })
    }

    /// Waits for the end.
    pub(super) fn finish(self) -> Result<(), LabError> {
        let output =
            self.child.wait_with_output().map_err(|source| LabError::Program { program: self.step.clone(), source })?;
        if output.status.success() {
            Ok(())
        } else {
            Err(LabError::Step { step: self.step, said: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
        }
    }
}
