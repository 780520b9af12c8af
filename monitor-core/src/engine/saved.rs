//! What outlives a restart, as bytes: whoever keeps them has a disk, the Engine has none.
//!
//! MessagePack with the names of fields, so that a field which a later version adds has its default
//! when an older snapshot is read, and one that is gone is passed over.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Engine, KeyView, Past, Unsaved};
use crate::baseline::{Fleet, Groups, GroupsRef, KeyState, Tables, TablesRef};
use crate::call::KeyId;
use crate::incident::history;
use crate::time::EventTime;

/// Version of the form. One that adds fields keeps it; one that gives a field another meaning does
/// not, and an older program then refuses the snapshot.
pub const SNAPSHOT_VERSION: u32 = 1;

/// Keys that changed, as they are now.
#[derive(Debug, Default)]
pub struct Changes {
    /// Each with its state.
    pub keys: Vec<(KeyId, Vec<u8>)>,
    /// Keys that are known no more.
    pub gone: Vec<KeyId>,
}

/// Bytes that are no state.
#[derive(Debug, Error)]
#[error("not a state that Keywatch wrote: {0}")]
pub struct Unreadable(String);

/// What is not of one key.
#[derive(Serialize)]
struct CommonRef<'a> {
    latest: EventTime,
    fleet: &'a Fleet,
    networks: Vec<([u8; 16], u32)>,
    incidents: history::Saved,
    /// Of an Engine that judges what keys of others came to.
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<GroupsRef<'a>>,
    /// Of one that judges its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    own_groups: Option<GroupsRef<'a>>,
    tables: TablesRef<'a>,
    /// Former ids of keys, and those that they have now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    moved: Vec<(KeyId, KeyId)>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Common {
    latest: EventTime,
    fleet: Fleet,
    networks: Vec<([u8; 16], u32)>,
    incidents: history::Saved,
    groups: Option<Groups>,
    own_groups: Option<Groups>,
    tables: Tables,
    moved: Vec<(KeyId, KeyId)>,
}

/// Former ids in a snapshot, 75 B each: those that were noted last.
const MOVED_MAX: usize = 16_384;

impl Engine {
    /// From now on changed keys are noted, for [`take_changes`](Engine::take_changes).
    pub fn note_changes(&mut self) {
        self.unsaved.get_or_insert_default();
    }

    /// Keys that changed and were not taken yet.
    pub fn changed(&self) -> usize {
        self.unsaved.as_ref().map_or(0, |unsaved| unsaved.changed.len())
    }

    /// Up to `max` changed keys, those that changed first; a microsecond or two each.
    pub fn take_changes(&mut self, max: usize) -> Changes {
        let Some(unsaved) = &mut self.unsaved else { return Changes::default() };
        let Unsaved { changed, gone } = unsaved;
        let mut changes = Changes { keys: Vec::new(), gone: std::mem::take(gone) };
        for id in changed.drain(..max.min(changed.len())) {
            // One that was dropped since then is no more.
            let Some(state) = self.keys.peek_mut(&id) else { continue };
            (state.is_changed, state.is_saved) = (false, true);
            changes.keys.push((id, encode(&**state)));
        }
        // One that came back is there again.
        changes.gone.retain(|id| self.keys.peek(id).is_none());
        changes
    }

    /// All that is not of one key: the fleet, alerts that were raised, the budget, what people said, tried
    /// credentials, what many keys came to. Not lost capture, which a restart ends.
    pub fn save_common(&self) -> Vec<u8> {
        let early = self.moved.len().saturating_sub(MOVED_MAX);
        let (now_s, young_s) = (self.latest.secs(), self.settings.young_key_s);
        let parameters = self.across.parameters.save(|endpoint| {
            let known = self.inventory.endpoint(endpoint);
            known.is_some_and(|known| known.has_shown(now_s, young_s))
        });
        encode(&CommonRef {
            latest: self.latest,
            fleet: &self.fleet,
            networks: self.fleet.networks().collect(),
            incidents: self.incidents.save(self.latest, &self.settings),
            groups: self.has_joined.then(|| self.across.synchrony.save(true)),
            own_groups: (!self.has_joined).then(|| self.across.synchrony.save(false)),
            tables: TablesRef::of(&self.fleet, &self.sources, &self.owners, parameters),
            moved: self.moved.iter().skip(early).map(|(from, to)| (*from, *to)).collect(),
        })
    }

    /// Takes back what [`take_changes`](Engine::take_changes) gave.
    ///
    /// # Errors
    ///
    /// When it is something else.
    pub fn restore_key(&mut self, id: KeyId, bytes: &[u8]) -> Result<(), Unreadable> {
        let state: KeyState = decode(bytes)?;
        self.put(id, state, true);
        Ok(())
    }

    /// Takes back what [`save_common`](Engine::save_common) gave.
    ///
    /// # Errors
    ///
    /// When it is something else.
    pub fn restore_common(&mut self, bytes: &[u8]) -> Result<(), Unreadable> {
        let common: Common = decode(bytes)?;
        self.latest = common.latest;
        self.fleet.restore(common.fleet, common.networks);
        self.incidents.restore(common.incidents);
        self.moved.take_back(common.moved);
        let (fleet, parameters) = (&mut self.fleet, &mut self.across.parameters);
        common.tables.restore(fleet, &mut self.sources, &mut self.owners, parameters);
        self.has_joined |= common.groups.is_some();
        if let Some(groups) = common.groups.or(common.own_groups) {
            self.across.synchrony.restore(groups);
        }
        Ok(())
    }

    /// A key's state as JSON, for other hosts and other versions. `None` when it is not known.
    pub fn export_key(&self, id: KeyId) -> Option<serde_json::Value> {
        self.keys.peek(&id).and_then(|state| serde_json::to_value(&**state).ok())
    }

    /// Takes what [`export_key`](Engine::export_key) gave; it replaces what is known of the key.
    ///
    /// # Errors
    ///
    /// When it is something else.
    pub fn import_key(&mut self, id: KeyId, state: serde_json::Value) -> Result<(), Unreadable> {
        let state = serde_json::from_value(state).map_err(|why| Unreadable(why.to_string()))?;
        self.put(id, state, false);
        if let Some(state) = self.keys.peek(&id) {
            self.fleet.note_habits(state);
        }
        self.mark_changed(id);
        Ok(())
    }

    /// What is known of a key, for people.
    pub fn view_key(&self, id: KeyId) -> Option<KeyView> {
        self.keys.peek(&id).map(|state| state.view())
    }

    /// Keys that are known, in the order in which they came to be.
    pub fn key_ids(&self) -> impl Iterator<Item = KeyId> {
        self.keys.iter().map(|(id, _)| *id)
    }

    /// Alerts that are remembered, oldest first.
    pub fn past_alerts(&self) -> Vec<Past> {
        self.incidents.past()
    }

    pub(super) fn mark_changed(&mut self, id: KeyId) {
        if let Some(unsaved) = &mut self.unsaved
            && let Some(state) = self.keys.peek_mut(&id)
            && !std::mem::replace(&mut state.is_changed, true)
        {
            unsaved.changed.push_back(id);
        }
    }

    fn put(&mut self, id: KeyId, mut state: KeyState, is_saved: bool) {
        state.mend();
        state.is_saved = is_saved;
        match self.keys.peek_mut(&id) {
            Some(known) => {
                state.is_changed = known.is_changed;
                **known = state;
            }
            None => self.insert(id, state),
        }
    }
}

pub(super) fn encode(value: &impl Serialize) -> Vec<u8> {
    // Into memory, and every field has a form: there is nothing to fail.
    rmp_serde::to_vec_named(value).unwrap_or_default()
}

pub(super) fn decode<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, Unreadable> {
    rmp_serde::from_slice(bytes).map_err(|why| Unreadable(why.to_string()))
}
