//! The NAT lab: every kind of router proven by plain sockets, and our tools tried behind each.
#![allow(clippy::print_stdout, reason = "a number that nobody sees is no measurement")]

#[path = "../support/daemon.rs"]
mod daemon;
#[path = "../support/foreign.rs"]
mod foreign;
#[path = "../support/netns.rs"]
mod netns;
#[path = "../support/wire.rs"]
mod wire;

mod bar;
mod budget;
mod builds;
mod depth;
mod kinds;
mod lab_role;
mod leaves_nothing;
mod liars;
mod matrix;
mod measure;
mod port_map;
mod port_mapping;
mod probe;
mod probe_maps;
mod punch;
mod streams;
mod wires;

use std::process::ExitCode;

fn main() -> ExitCode {
    if port_map::play_part() {
        return ExitCode::SUCCESS;
    }
    leaves_nothing::hold();
    let mut arguments = libtest_mimic::Arguments::from_args();
    // Listing needs no lab; where none is allowed, each trial says so.
    if !arguments.list {
        let _ = fabric::netlab::sandbox::enter();
    }
    let trials = [
        bar::trials(),
        builds::trials(),
        depth::trials(),
        kinds::trials(),
        lab_role::trials(),
        leaves_nothing::trials(),
        liars::trials(),
        matrix::trials(),
        port_map::trials(),
        port_mapping::trials(),
        probe_maps::trials(),
        streams::trials(),
        wires::trials(),
    ]
    .into_iter()
    .flatten()
    .collect();
    let most = libtest_mimic::run(&arguments, trials);
    // What measures time has the machine to itself.
    arguments.test_threads = Some(1);
    let rest = libtest_mimic::run(&arguments, budget::trials());
    if most.has_failed() { most.exit_code() } else { rest.exit_code() }
}
