//! The `keywatch` command.

fn main() {}
