//! The IO shell of Keywatch.
