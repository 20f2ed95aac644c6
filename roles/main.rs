//! The `nzc` command. Each role is a module with `args::Args` and `run(args) -> Exit`.

mod audit;
mod documents;
mod exit;
mod lab;
mod launch;
mod nat_probe;
mod output;
mod stun_server;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use exit::Exit;

/// Network fabric toolkit: STUN and TURN servers, NAT diagnosis, peers.
#[derive(Debug, Parser)]
#[command(name = "nzc", version, max_term_width = 100, after_help = HELP)]
struct Nzc {
    #[command(subcommand)]
    command: Command,
}

const HELP: &str = "\
Example: serve STUN on loopback and look at its health
  nzc stun-server --listen 127.0.0.1:3478 &
  nzc stun-server status

Every command has its own --help. Exit codes follow sysexits.h: 0 done, 64 usage, 65 bad data,
69 unavailable, 70 internal error, 77 permission, 78 configuration.";

#[derive(Debug, Subcommand)]
enum Command {
    StunServer(Box<stun_server::args::Args>),
    NatProbe(Box<nat_probe::args::Args>),
    Lab(lab::args::Args),
    Audit(audit::Args),
    Completions(documents::CompletionsArgs),
    Man(documents::ManArgs),
}

/// The roles with a configuration, for the manual.
const CONFIGURED: &[documents::RoleKeys] =
    &[("stun-server", launch::keys::<stun_server::StunServer>), ("nat-probe", nat_probe::keys)];

fn main() -> ExitCode {
    let exit = match Nzc::try_parse() {
        Ok(Nzc { command }) => match command {
            Command::StunServer(args) => stun_server::run(*args),
            Command::NatProbe(args) => nat_probe::run(*args),
            Command::Lab(args) => lab::run(&args),
            Command::Audit(args) => audit::run(args),
            Command::Completions(args) => documents::completions(&args, Nzc::command()),
            Command::Man(args) => documents::man(&args, Nzc::command(), CONFIGURED),
        },
        Err(error) => {
            let asked_for_help = !error.use_stderr();
            // Nothing can be done where nobody reads the message.
            let _ = error.print();
            if asked_for_help { Exit::Ok } else { Exit::Usage }
        }
    };
    exit.into()
}
