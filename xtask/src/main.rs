//! Everything about Keywatch that a person would otherwise type.

fn main() {}
