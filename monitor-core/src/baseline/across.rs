//! What is known across keys.

use super::synchrony::Synchrony;
use crate::engine::Settings;

/// State of the detectors that look at many keys, clients or endpoints at once.
pub(crate) struct Across {
    pub(crate) synchrony: Synchrony,
}

impl Across {
    pub(crate) fn new(settings: &Settings) -> Across {
        Across { synchrony: Synchrony::new(&settings.synchrony) }
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.synchrony.bytes()
    }

    /// What was dropped to keep the bounds.
    pub(crate) fn evicted(&self) -> u64 {
        self.synchrony.evicted()
    }
}
