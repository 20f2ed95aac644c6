//! Conformance tests. The tree is the tree of the specifications: `rfc8489/section_9_2.rs` holds what section 9.2 of
//! RFC 8489 demands.

mod rfc5769;
mod rfc5780;
mod rfc8489;
mod vector;
