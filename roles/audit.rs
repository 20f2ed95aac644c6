//! `nzc audit verify`: checks an audit log against its own chain and against a head noted elsewhere.

use std::path::PathBuf;

use fabric::ops::audit::{self, Fault, Head};
use serde_json::json;

use crate::{exit::Exit, output};

/// Check the audit log of a daemon.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Find out whether anything was changed, inserted, moved or cut out; exit 0 when the log is whole, 65 when not
    #[command(after_help = EXAMPLES)]
    Verify {
        /// The files of one log, oldest first
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// A head that was noted elsewhere, as `nzc <role> status --json` shows it; it must be in the log
        #[arg(long, value_name = "NUMBER:HASH")]
        head: Option<Head>,
        /// Print JSON where text is printed otherwise
        #[arg(long)]
        json: bool,
    },
}

const EXAMPLES: &str = "\
Examples:
  Check the log of a running daemon
    nzc audit verify /var/lib/nzc/audit.jsonl
  Check it together with the file it was rotated from, against a head noted last week
    nzc audit verify audit.jsonl.1 audit.jsonl --head 1042:9a0f...

A log without keys cannot prove itself to someone who fears that all of it was rewritten: note the
head from time to time on another machine and pass it with --head.";

/// Runs the command.
pub(crate) fn run(args: Args) -> Exit {
    let Command::Verify { files, head, json } = args.command;
    match audit::verify(&files, head.as_ref()) {
        Ok(sound) => {
            let head = sound.head.to_string();
            if json {
                output::json(&json!({ "ok": true, "records": sound.records, "first": sound.first, "head": head }))
            } else {
                output::data(&format!("{} records from number {}, whole, head {head}\n", sound.records, sound.first))
            }
        }
        Err(broken) => {
            if json {
                let (file, fault) = (broken.file.display().to_string(), broken.fault.to_string());
                output::json(&json!({ "ok": false, "file": file, "line": broken.line, "fault": fault }));
            }
            output::complain(&broken);
            if matches!(broken.fault, Fault::Unreadable(_)) { Exit::NoInput } else { Exit::Data }
        }
    }
}
