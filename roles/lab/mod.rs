//! `nzc lab`: the other roles as processes on one machine, and checks that they work together.
//!
//! The lab starts the binary it is part of, so what it tries is what an operator would run. With `--nat` it first
//! re-executes itself in namespaces of its own; whatever happens there ends with it.

pub(crate) mod args;
mod check;
mod child;
mod nat;
mod stun;

use fabric::netlab::kind::Kind;
use fabric::netlab::sandbox;

use crate::exit::Exit;
use crate::output;
use args::{Args, LIST};
use check::Checks;

/// Runs the lab and says whether everything in it worked.
pub(crate) fn run(args: &Args) -> Exit {
    let kind = match args.nat.as_deref() {
        None => None,
        Some(LIST) if args.json => return output::json(&nat::list_json()),
        Some(LIST) => return output::data(&nat::list()),
        Some(name) => {
            // The process starts over inside, and comes by here again.
            if let Err(error) = sandbox::enter() {
                output::complain(format_args!("--nat {name}: {error}"));
                return Exit::Unavailable;
            }
            Kind::named(name)
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::complain(format_args!("the system gives no event loop: {error}"));
            return Exit::Internal;
        }
    };
    runtime.block_on(async {
        tokio::select! {
            exit = scenes(args, kind) => exit,
            // Dropping the scenes kills the children.
            () = interrupted() => {
                output::complain("interrupted, everything is stopped");
                Exit::Unavailable
            }
        }
    })
}

/// Waits for a signal that asks the lab to end.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let waiting = |kind| async move {
        match signal(kind) {
            Ok(mut signals) => drop(signals.recv().await),
            // Without a handler the signal ends the process by itself.
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = waiting(SignalKind::interrupt()) => {}
        () = waiting(SignalKind::terminate()) => {}
        () = waiting(SignalKind::hangup()) => {}
    }
}

async fn scenes(args: &Args, kind: Option<&'static Kind>) -> Exit {
    let mut checks = Checks::default();
    let diagnosis = match kind {
        None => stun::scene(&mut checks, !args.json).await,
        Some(kind) => nat::scene(&mut checks, kind, !args.json).await,
    };
    let printed =
        if args.json { output::json(&checks) } else { output::data(&format!("{diagnosis}\n{}", checks.table())) };
    match printed {
        Exit::Ok if !checks.all_ok() => Exit::Unavailable,
        exit => exit,
    }
}
