//! How far Keywatch agrees with what other projects published for their own parsers.

pub mod llhttp;

/// What came of one set.
#[derive(Debug, Default)]
pub struct Score {
    /// Cases that were looked at.
    pub cases: usize,
    /// Cases with the same result.
    pub agreed: usize,
    /// Names of the others, with what differs.
    pub disagreed: Vec<String>,
}
