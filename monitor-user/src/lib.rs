//! The IO shell of Keywatch.
pub mod capture;
