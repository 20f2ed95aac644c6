//! The vocabulary between cores without I/O and their drivers.
//!
//! A core is driven in this order: feed it what happened (`handle_input`, `handle_timeout`), then drain
//! `poll_transmit` and `poll_event` until both return `None`, then sleep until `poll_timeout`.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

use std::net::SocketAddr;

/// A datagram a core wants sent.
///
/// `socket` names the local socket in the numbering of the core that produced it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Transmit<S> {
    /// The local socket to send from.
    pub socket: S,
    /// The destination.
    pub to: SocketAddr,
    /// The bytes of one datagram.
    pub payload: Vec<u8>,
}
