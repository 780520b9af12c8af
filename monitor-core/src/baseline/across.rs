//! What is known across keys.

use super::grants::Grants;
use super::objects::Objects;
use super::parameters::Parameters;
use super::probes::Probes;
use super::replays::Replays;
use super::routes::Routes;
use super::synchrony::Synchrony;
use crate::engine::Settings;

/// State of the detectors that look at many keys, clients or endpoints at once.
pub(crate) struct Across {
    pub(crate) synchrony: Synchrony,
    pub(crate) replays: Replays,
    pub(crate) probes: Probes,
    pub(crate) routes: Routes,
    pub(crate) parameters: Parameters,
    pub(crate) grants: Grants,
    /// Refresh tokens that were taken, and those of them that the same client had used before.
    pub(crate) refreshes: u32,
    pub(crate) repeated_refreshes: u32,
    /// Keys that ask for objects.
    pub(crate) walkers: usize,
}

impl Across {
    pub(crate) fn new(settings: &Settings) -> Across {
        Across {
            synchrony: Synchrony::new(&settings.synchrony),
            replays: Replays::default(),
            probes: Probes::new(&settings.scan),
            routes: Routes::new(&settings.latency),
            parameters: Parameters::new(),
            grants: Grants::new(),
            refreshes: 0,
            repeated_refreshes: 0,
            walkers: 0,
        }
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.synchrony.bytes()
            + self.replays.bytes()
            + self.probes.bytes()
            + self.routes.bytes()
            + self.parameters.bytes()
            + self.grants.bytes()
            + self.walkers * size_of::<Objects>()
    }

    /// What was dropped to keep the bounds.
    pub(crate) fn evicted(&self) -> u64 {
        self.synchrony.evicted()
            + self.probes.evicted()
            + self.routes.evicted()
            + self.parameters.evicted()
            + self.grants.evicted()
    }
}
