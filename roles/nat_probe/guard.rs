//! Nothing stays in the router: the guard process and the journal of port mappings.
//!
//! Before the first mapping the probe starts itself once more as a guard, in a process group of its own so that Ctrl-C
//! does not reach it. The guard reads the journal from a pipe; the pipe closes when the probe ends, however it ends, and
//! the guard removes what is left.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use fabric::nat::port_map::journal::driver::{self, Journal};

use crate::exit::Exit;

/// A journal with a guard, after what dead processes left behind was removed.
pub(super) async fn journal() -> Journal {
    let journal = Journal::default();
    if let Some(directory) = driver::default_directory() {
        let left = driver::clean_up_after_the_dead(&directory).await;
        if left.removed > 0 {
            tracing::info!(removed = left.removed, "mappings of a process that died were removed");
        }
        if let Err(error) = journal.keep_in(&directory) {
            tracing::debug!(%error, "the journal of mappings cannot be kept on disk");
        }
    }
    match start() {
        Ok(pipe) => journal.watch_over(pipe),
        Err(error) => tracing::debug!(%error, "no guard watches over mappings"),
    }
    journal
}

fn start() -> std::io::Result<std::process::ChildStdin> {
    let mut child = Command::new(std::env::current_exe()?)
        .args([super::ROLE, "--mapping-guard"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    child.stdin.take().ok_or_else(|| std::io::ErrorKind::BrokenPipe.into())
}

/// Is the guard: reads the journal until the probe is gone, then cleans up.
pub(super) async fn run() -> Exit {
    // It ends by itself; whoever signals the terminal's processes means the probe.
    let _quiet = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup());
    let outcome = driver::guard(tokio::io::stdin()).await;
    if outcome.left == 0 { Exit::Ok } else { Exit::Unavailable }
}
