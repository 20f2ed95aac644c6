//! # fabric: the shared stack of `nzc`
//!
//! This crate is the library under the `nzc` binary. It is a house of floors: a floor may use strictly lower floors and
//! itself, and neighbours on one floor never use each other (`tests/architecture.rs` enforces it). From the ground up:
//!
//! - **F0 [`sansio`]**: what a core without I/O hands to whoever drives it: datagrams to send, deadlines, backoff.
//! - **F0 [`address`]**: the canonical peer address, the special-purpose registries, prefix groups, token buckets.
//! - **F1 [`ops`]**: what any daemon needs to be operated, naming no domain: configuration from four layers with the
//!   origin of each value, logs that never block, metrics, health and heartbeats, the admin listener with its OpenAPI
//!   description, listening sockets opened or inherited, signals, the service manager.
//! - **F1 [`netlab`]**: small internets out of network namespaces: homes behind NATs of every kind, for tests and for
//!   `nzc lab`.
//! - **F2 [`transport`]**: bytes between addresses: UDP in batches, TCP listeners, TLS certificates, stream framing.
//! - **F3 [`protocol`]**: bytes to meaning and back. [`protocol::stun`] is the one codec for STUN and TURN.
//! - **F4 [`stun`]**: the Binding service with the second address and port of RFC 5780, for servers and for dial-back.
//! - **F4 [`nat`]**: what stands between this host and its peers: [`nat::detector`] discovers it, [`nat::port_map`] asks
//!   the router for an open port.
//!
//! ## Cores and drivers
//!
//! A *core* takes the time, bytes and a seeded generator as parameters and returns data. It never reads a clock, opens
//! a socket or spawns a task. A *driver* (`driver.rs`) owns sockets, timers and one core. The same cores run against
//! real sockets and against simulated links.

pub mod address;
pub mod nat;
pub mod netlab;
pub mod ops;
pub mod protocol;
pub mod sansio;
pub mod stun;
pub mod transport;
