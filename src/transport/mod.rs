//! Bytes between addresses: sockets, batches, framing, TLS. Nothing here knows what the bytes mean.
//!
//! - [`udp`]: datagrams in batches, one system call for many, from the address that was asked.
//! - [`framing`]: the pure part of a stream: where one message ends and the next begins.
//! - [`tcp`]: listeners that survive a lack of file descriptors, and caps on connections.
//! - [`tls`]: certificates that can be replaced while connections live.

pub mod framing;
pub mod tcp;
pub mod tls;
pub mod udp;
