//! The STUN server under attack: spoofed sources and floods, in a network of its own.
//!
//! Trials print what they measured. The process continues inside a sandbox, where raw sockets are allowed and 11.0.0.0/8
//! is local.

#![expect(clippy::print_stdout, reason = "a measurement is printed beside its verdict")]

#[path = "../support/foreign.rs"]
mod foreign;

mod flood;
mod ipv6;
mod spoof;
mod wire;

use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let mut arguments = libtest_mimic::Arguments::from_args();
    // Floods and measurements want the machine for themselves.
    arguments.test_threads = Some(1);
    // Listing needs no sandbox; where none is allowed, each trial says so.
    if !arguments.list && fabric::netlab::sandbox::enter().is_ok() {
        for command in [
            "route add local 11.0.0.0/8 dev lo",
            "address add fd00:5780::1/128 dev lo",
            "address add fd00:5780::2/128 dev lo",
        ] {
            let done = Command::new("ip").args(command.split(' ')).status();
            assert!(done.is_ok_and(|status| status.success()), "ip {command}");
        }
    }
    let trials = [ipv6::trials(), spoof::trials(), flood::trials()].into_iter().flatten().collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}
