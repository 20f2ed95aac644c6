//! `nzc lab`: the other roles as processes on one machine, and checks that they work together.
//!
//! The lab starts the binary it is part of, so what it tries is what an operator would run.

pub(crate) mod args;
mod check;
mod child;
mod stun;

use crate::exit::Exit;
use crate::output;
use args::Args;
use check::Checks;

/// Runs the lab and says whether everything in it worked.
pub(crate) fn run(args: &Args) -> Exit {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::complain(format_args!("the system gives no event loop: {error}"));
            return Exit::Internal;
        }
    };
    runtime.block_on(async {
        tokio::select! {
            exit = scenes(args) => exit,
            // Dropping the scenes kills the children.
            _ = tokio::signal::ctrl_c() => {
                output::complain("interrupted, everything is stopped");
                Exit::Unavailable
            }
        }
    })
}

async fn scenes(args: &Args) -> Exit {
    let mut checks = Checks::default();
    let diagnosis = stun::scene(&mut checks, !args.json).await;
    let printed =
        if args.json { output::json(&checks) } else { output::data(&format!("{diagnosis}\n{}", checks.table())) };
    match printed {
        Exit::Ok if !checks.all_ok() => Exit::Unavailable,
        exit => exit,
    }
}
