//! The secret under which keys are hashed has changed, and their ids with it: what is known of a key
//! under a former id is known under the present one from then on.

use super::Engine;
use crate::alert::Entity;
use crate::baseline::KeyState;
use crate::call::KeyId;

impl Engine {
    /// The id under which a key is known now. Connections that logged on before the change go on with the
    /// former one, and so do agents that have not read the secret again.
    pub(super) fn present(&mut self, id: KeyId) -> KeyId {
        if self.moved.is_empty() {
            return id;
        }
        self.moved.find(&id).copied().unwrap_or(id)
    }

    /// Moves what is known under former ids of a key that is not known in full under its present one;
    /// whether it is known now. `is_admitted`: it is to be known from now on in any case.
    pub(super) fn follow(&mut self, id: KeyId, former: &[KeyId], is_admitted: bool) -> bool {
        let mut is_known = false;
        let mut is_remembered = self.cold.peek(&id).is_some();
        for known in former {
            if let Some(state) = self.keys.remove(known) {
                self.rename(*known, state, id, &mut is_known);
            }
            if let Some(cold) = self.cold.remove(known)
                && !is_remembered
            {
                self.cold.insert(id, cold);
                is_remembered = true;
            }
            if is_known || is_remembered || is_admitted {
                self.incidents.follow(Entity::Key(*known), Entity::Key(id));
                *self.moved.find_or_insert(*known, || id) = id;
            }
        }
        is_known
    }

    /// Of what is known under several former ids, that under the latest counts.
    fn rename(&mut self, known: KeyId, mut state: Box<KeyState>, id: KeyId, is_known: &mut bool) {
        if let Some(unsaved) = &mut self.unsaved
            && state.is_saved
        {
            unsaved.gone.push(known);
        }
        let walkers = &mut self.across.walkers;
        *walkers = walkers.saturating_sub(usize::from(state.objects.is_some()));
        if std::mem::replace(is_known, true) {
            return self.fleet.forget_habits(&state);
        }
        (state.is_saved, state.is_changed) = (false, false);
        self.insert(id, *state);
        self.mark_changed(id);
    }
}
