//! Small internets for tests and for `nzc lab`: network namespaces, routers of every NAT kind, and no privileges.
//!
//! 1. [`sandbox::enter`] re-executes the running program in user, mount, PID and network namespaces of its own. From
//!    there on the program may make namespaces, links and nftables rules, and all of it vanishes with the process.
//! 2. [`world::Plan`] says who lives there: homes with routers ([`kind::Kind`] names the usual ones, [`router::Router`]
//!    describes any other), hosts behind them, and how they reach the public segment.
//! 3. [`world::World::build`] makes it in about a quarter of a second. Programs are run in a [`namespace::Namespace`].
//!
//! ```text
//!            11.0.0.1  11.0.0.2   (one STUN server with two addresses)
//!            12.0.0.1  13.0.0.1   (further servers, each in a network of its own)
//!                  public
//!          11.1.0.1 |   | 11.2.0.1
//!                   |   |             a wire of the test may stand here: delay, loss, reordering
//!          11.1.0.2 |   | 11.2.0.2
//!              router   router
//!       192.168.1.1 |   | 192.168.2.1
//!                   |   |
//!       192.168.1.2 |   | 192.168.2.2
//!                host   host
//! ```
//!
//! The addresses look public because code that meets documentation or private ranges treats them as such. They never
//! leave the namespaces.

pub mod kind;
pub mod miniupnpd;
pub mod namespace;
pub mod router;
mod rules;
pub mod sandbox;
pub mod world;

use std::io;

/// Why a lab could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabError {
    /// A program the lab is built with could not be started.
    #[error("cannot run {program}: {source} (Debian packages: util-linux, iproute2, nftables)")]
    Program {
        /// The name of the program.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// The system refuses namespaces to this user.
    #[error("unprivileged namespaces are not allowed here: {0}")]
    NotAllowed(String),
    /// A command of the construction failed.
    #[error("{step} failed: {said}")]
    Step {
        /// What was being done.
        step: String,
        /// What the command wrote to standard error.
        said: String,
    },
    /// The plan cannot be built.
    #[error("the plan cannot be built: {0}")]
    Plan(String),
    /// A daemon did not come up in time.
    #[error("{program} did not become ready: {said}")]
    NotReady {
        /// The name of the program.
        program: String,
        /// What it said so far.
        said: String,
    },
}
