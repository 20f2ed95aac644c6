//! The `nzc` binary as its users meet it: command line, files, signals, the admin listener.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so with a panic")]

mod admin;
mod audit;
mod config;
mod documents;
mod life;
mod listen;
mod logs;
mod probe;
mod server;

#[path = "../support/daemon.rs"]
mod daemon;
