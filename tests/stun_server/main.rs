//! The STUN server: its core message by message, its driver over real sockets on loopback.
//!
//! What needs namespaces stands in `tests/stun_lab`, what needs a process in `tests/stun_process.rs`.

mod auth;
mod desk;
mod dial_back;
mod host;
mod rfc3489;
mod rfc5780;
mod rfc8489;
mod sockets;
mod streams;
mod threats;
mod tls;
