//! Addresses of peers: one canonical form, what is special about a range, and limits by prefix.
//!
//! - [`PeerAddr`] is the form every decision about a peer is made on: each way of writing an IPv4 address inside an
//!   IPv6 address is folded into the IPv4 address itself, so that no second spelling passes a check the first one fails.
//! - [`special`] holds the IANA special-purpose registries with longest-prefix lookup.
//! - [`prefix`] groups addresses: one subscriber, one site, one network.
//! - [`token_bucket`] and [`rate_table`] limit how often something happens, the latter for any number of prefixes in a
//!   fixed amount of memory.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

pub mod peer_addr;
pub mod prefix;
pub mod rate_table;
pub mod special;
pub mod token_bucket;

pub use peer_addr::PeerAddr;
pub use prefix::Prefix;
pub use rate_table::RateTable;
pub use token_bucket::{Rate, TokenBucket};
