//! What stands between this host and its peers: behaviour discovery, and what follows from it.
//!
//! - [`behaviour`]: the words, RFC 4787 and RFC 3489, and facts with evidence.
//! - [`client`]: the STUN client, many Binding exchanges side by side.
//! - [`detector`]: turns answers and silences into facts.
//! - [`driver`]: one whole diagnosis.
//! - [`outlook`]: "will it work?", this host against every kind of peer.
//! - [`port_map`]: asks the router to open ports.
//! - [`report`]: what a diagnosis says, in a schema with a version.
//! - [`stream`]: the same questions for TCP.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

pub mod behaviour;
pub mod client;
pub mod detector;
pub mod driver;
pub mod outlook;
pub mod port_map;
pub mod report;
pub mod stream;
