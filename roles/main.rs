//! The `nzc` command.

fn main() {}
