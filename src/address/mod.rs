//! Addresses of peers: one canonical form, what is special about a range, and limits by prefix.
