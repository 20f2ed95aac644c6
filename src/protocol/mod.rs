//! Bytes to meaning and back. Nothing here does I/O, and nothing a peer sends can make it panic.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

pub mod stun;
