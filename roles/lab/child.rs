//! The roles as child processes of the lab: the same binary, started, waited for, stopped.

use std::ffi::OsStr;
use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use fabric::netlab::namespace::Namespace;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// A daemon that said it is ready. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    /// The line it printed when it was ready.
    pub(crate) ready: serde_json::Value,
}

/// Where a child runs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place<'a> {
    /// In the network of this process.
    Here,
    /// In a namespace of the lab.
    In(&'a Namespace),
}

/// This binary with these arguments.
fn nzc(place: Place<'_>, arguments: &[impl AsRef<OsStr>]) -> anyhow::Result<Command> {
    let program = std::env::current_exe().context("this program cannot find itself")?;
    let mut command = match place {
        Place::Here => Command::new(program),
        Place::In(namespace) => namespace.command(program).into(),
    };
    // The lab tries the roles as they are, not as this user's environment sets them.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"NZC_")) {
        command.env_remove(name);
    }
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    Ok(command)
}

impl Daemon {
    /// Starts a daemon with `--ready-json` and waits for the line.
    pub(crate) async fn start(
        place: Place<'_>,
        arguments: &[impl AsRef<OsStr>],
        limit: Duration,
    ) -> anyhow::Result<Self> {
        let mut child = nzc(place, arguments)?.stdout(Stdio::piped()).spawn()?;
        let out = child.stdout.take().context("the daemon has no output")?;
        let mut lines = BufReader::new(out).lines();
        let Some(line) = timeout(limit, lines.next_line()).await.context("not ready in time")?? else {
            bail!("it ended before it was ready ({})", child.wait().await?);
        };
        Ok(Self { child, ready: serde_json::from_str(&line)? })
    }

    /// Sends TERM and waits for the end.
    pub(crate) async fn stop(mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let id = self.child.id().context("it is already gone")?;
        let sent = Command::new("kill").arg(id.to_string()).stdin(Stdio::null()).status().await?;
        anyhow::ensure!(sent.success(), "TERM could not be sent");
        Ok(timeout(limit, self.child.wait()).await.context("still running")??)
    }
}

/// Runs one command of this binary to its end.
pub(crate) async fn run(place: Place<'_>, arguments: &[impl AsRef<OsStr>], limit: Duration) -> anyhow::Result<Output> {
    let output = nzc(place, arguments)?.stdout(Stdio::piped()).stderr(Stdio::piped()).output();
    Ok(timeout(limit, output).await.context("still running")??)
}
