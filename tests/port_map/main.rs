//! Port mapping against routers: honest, limited, lying and hostile ones in this process, and Debian's miniupnpd in
//! network namespaces.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "a test may panic, and prints what it measured"
)]

mod fake;
mod hostile;
mod kill;
mod mapping;
mod survey;
