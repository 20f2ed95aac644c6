//! What stands between this host and the others, and what can be done about it.

pub mod port_map;
