//! What keys come to, handed from Engines that see some keys each to one that sees what all of them do (D20).

use std::hash::BuildHasher;

use foldhash::quality::FixedState;
use serde::{Deserialize, Serialize};

use super::saved::{decode, encode};
use super::{Engine, Unreadable};
use crate::baseline::{Edge, Kind, Standing};
use crate::call::ApiCall;
use crate::detect::{Report, synchrony};
use crate::incident::Place;
use crate::incident::campaign::Member;

/// A key came to a symbol, a network or an operation; whether it is new to it is known where its habits are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Joined {
    pub(crate) edge: Edge,
    /// Keys that are at home in the network of the call, of those that the Engine sees.
    pub(crate) known: u32,
    /// What evidence of the call is worth, from 0 to 1.
    pub(crate) weight: f32,
    /// The key was flagged, and may be one of many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tied: Option<Member>,
}

/// What waits to be taken: it is taken after each call, and one makes three at most.
pub(crate) const WAITING_MAX: usize = 1_000;

impl Joined {
    /// The same for all that came to one thing: who judges it has to see all of them.
    pub fn group(&self) -> u64 {
        self.edge.target ^ (self.edge.kind as u64)
    }

    /// Whether the key was never there before. What regulars do is of interest once in a while only.
    pub fn is_newcomer(&self) -> bool {
        self.edge.standing == Standing::Newcomer || self.tied.is_some()
    }

    /// A key that was flagged. As an edge it is a regular's, of which whoever does not know better makes
    /// nothing.
    fn of_tied(member: Member) -> Joined {
        let target = FixedState::with_seed(3).hash_one((member.tie, &member.detector));
        let edge = Edge {
            kind: Kind::Network,
            target,
            key: member.key,
            standing: Standing::Regular,
            away: false,
            home: 0,
        };
        Joined { edge, known: 0, weight: 1.0, tied: Some(member) }
    }

    /// As seen by an Engine of one part of `parts`, into which keys are spread by chance.
    #[must_use]
    pub fn of_a_part(self, parts: u32) -> Joined {
        Joined { known: self.known.saturating_mul(parts), ..self }
    }

    /// As bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }

    /// Takes what [`to_bytes`](Joined::to_bytes) gave.
    ///
    /// # Errors
    ///
    /// When it is something else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Joined, Unreadable> {
        let joined: Joined = decode(bytes)?;
        let weight = if joined.weight.is_finite() { joined.weight.clamp(0.0, 1.0) } else { 0.0 };
        Ok(Joined { weight, ..joined })
    }
}

impl Engine {
    /// From now on what keys come to is noted, for [`poll_joined`](Engine::poll_joined).
    pub fn note_joined(&mut self) {
        self.joined.get_or_insert_default();
        self.incidents.note_tied();
    }

    /// Keys that were flagged by the call, for [`poll_joined`](Engine::poll_joined).
    pub(super) fn join_tied(&mut self) {
        let Some(joined) = &mut self.joined else { return };
        while let Some(member) = self.incidents.poll_tied() {
            if joined.len() >= WAITING_MAX {
                joined.pop_front();
            }
            joined.push_back(Joined::of_tied(member));
        }
    }

    /// The next that a key came to.
    pub fn poll_joined(&mut self) -> Option<Joined> {
        self.joined.as_mut()?.pop_front()
    }

    /// A key of another Engine came to something with `call`, roughly in order of time.
    pub fn handle_joined(&mut self, joined: &Joined, call: &ApiCall) {
        self.counters.calls += 1;
        self.has_joined = true;
        self.note_time(call.time);
        let Joined { edge, known, weight, tied } = joined;
        if let Some(member) = tied {
            let (settings, counters) = (&self.settings, &mut self.counters);
            return self.incidents.add_tied(
                member,
                call.time,
                &Place::of(call),
                settings,
                counters,
            );
        }
        let mut report = Report::new(true);
        let (synchrony, settings) = (&mut self.across.synchrony, &self.settings.synchrony);
        synchrony::judge(edge, call, *weight, || *known, synchrony, settings, &mut report);
        if report.found.is_empty() {
            return;
        }
        let (settings, counters) = (&self.settings, &mut self.counters);
        self.incidents.add(report.found, call.time, Some(&Place::of(call)), settings, counters);
    }
}
