//! What people say of alerts, and what the Engine learns from it.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Engine;
use crate::alert::{AlertId, Entity};
use crate::baseline::OPS;
use crate::call::KeyId;
use crate::time::EventTime;

/// Something that somebody said: an input like any other, with its time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Feedback {
    /// When it was said.
    pub time: EventTime,
    /// What.
    pub said: Said,
}

/// What was said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Said {
    /// An alert was of no interest: what was found is in order for this key.
    Dismiss {
        /// Which.
        alert: AlertId,
        /// Why.
        reason: String,
    },
    /// Nobody wants to hear of a key for a while. A time that is over undoes it.
    Mute {
        /// Which.
        key: KeyId,
        /// Of this detector alone; `None`: of any.
        detector: Option<String>,
        /// Until then.
        until: EventTime,
    },
}

/// No alert has this id, or it was forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no such alert: {0}: `keywatch alert list` shows those that are known")]
pub struct UnknownAlert(pub AlertId);

/// A burst of failures that was in order is at least this surprising, in powers of ten: the default
/// threshold is 6.
const SURPRISE_ACCEPTED: f32 = 8.0;

impl Engine {
    /// Takes what somebody said.
    ///
    /// # Errors
    ///
    /// When it is about an alert that is not known.
    pub fn handle_feedback(&mut self, feedback: &Feedback) -> Result<(), UnknownAlert> {
        match &feedback.said {
            Said::Dismiss { alert, reason } => self.dismiss(*alert, feedback.time, reason),
            Said::Mute { key, detector, until } => {
                let key = self.present(*key);
                self.incidents.mute(Entity::Key(key), detector.as_deref(), *until);
                Ok(())
            }
        }
    }

    fn dismiss(&mut self, id: AlertId, time: EventTime, why: &str) -> Result<(), UnknownAlert> {
        let lesson = self.incidents.dismiss(id, time, why).ok_or(UnknownAlert(id))?;
        let Entity::Key(known) = lesson.entity else { return Ok(()) };
        let key = self.present(known);
        if key != known {
            self.incidents.follow(Entity::Key(known), Entity::Key(key));
        }
        let Some(state) = self.keys.find(&key) else { return Ok(()) };
        let now_s = u32::try_from(time.secs()).unwrap_or(u32::MAX).max(1);
        let ops = || (0..OPS).filter(|op| lesson.ops & 1 << op != 0);
        for (detector, calls) in &lesson.findings {
            match detector.as_str() {
                "D1" => {
                    let calls = u32::try_from(*calls).unwrap_or(u32::MAX);
                    ops().for_each(|op| state.rate.accept(op, calls));
                }
                "D2" => state.failures.accept(SURPRISE_ACCEPTED),
                "D5" => {
                    lesson.addresses.iter().for_each(|address| {
                        state.familiar.learn(address);
                    });
                }
                "D9" => {
                    for op in ops() {
                        let first = &mut state.first_used_s[op];
                        *first = if *first == 0 { now_s } else { *first };
                    }
                }
                // What an alert of another detector says of a key is in nothing that it learns.
                _ => {}
            }
        }
        self.mark_changed(key);
        Ok(())
    }
}
