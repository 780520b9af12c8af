//! Cases that other projects published, and how far Keywatch agrees with them.

pub mod hpack;
pub mod http2_frames;

/// How far a set agrees.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Score {
    /// Cases looked at.
    pub cases: usize,
    /// Cases that agree.
    pub agreed: usize,
    /// The others, by name; after `: ` what was seen and what was expected.
    pub disagreed: Vec<String>,
}

impl Score {
    /// Adds a case that agrees.
    pub fn agree(&mut self) {
        self.cases += 1;
        self.agreed += 1;
    }

    /// Adds a case that does not, and in what.
    pub fn disagree(&mut self, case: &str, how: &str) {
        self.cases += 1;
        self.disagreed.push(format!("{case}: {how}"));
    }
}
