//! Nothing stays in the router: the guard process and the journal of port mappings.
//!
//! Before the first mapping the probe starts itself once more as a guard, in a process group of its own so that Ctrl-C
//! does not reach it. The guard reads the journal from a pipe; the pipe closes when the probe ends, however it ends, and
//! the guard removes what is left.

use std::process::Command;

use fabric::nat::port_map::journal::driver::{self, Journal};
use tokio::signal::unix::{SignalKind, signal};

use crate::exit::Exit;

/// A journal with a guard.
pub(super) fn journal() -> Journal {
    let journal = Journal::default();
    if let Some(directory) = driver::default_directory()
        && let Err(error) = journal.keep_in(&directory)
    {
        tracing::debug!(%error, "the journal of mappings cannot be kept on disk");
    }
    let started = std::env::current_exe().and_then(|program| {
        let mut command = Command::new(program);
        command.args([super::ROLE, "--mapping-guard"]);
        journal.guarded_by(command)
    });
    if let Err(error) = started {
        tracing::debug!(%error, "no guard watches over mappings");
    }
    journal
}

/// Is the guard: reads the journal until the probe is gone, then cleans up. Meanwhile it removes what processes before
/// this one left behind, which would keep the probe waiting.
pub(super) async fn run() -> Exit {
    // It ends by itself; whoever signals the programs of a terminal or a service means the probe. A handler that is
    // installed stays, and nobody listens to it.
    for kind in [SignalKind::hangup(), SignalKind::interrupt(), SignalKind::terminate()] {
        if let Err(error) = signal(kind) {
            tracing::debug!(%error, "a signal is not ignored");
        }
    }
    let before = async {
        match driver::default_directory() {
            Some(directory) => driver::clean_up_after_the_dead(&directory).await,
            None => driver::CleanUp::default(),
        }
    };
    let (own, before) = tokio::join!(driver::guard(tokio::io::stdin()), before);
    if own.left == 0 && before.left == 0 { Exit::Ok } else { Exit::Unavailable }
}
