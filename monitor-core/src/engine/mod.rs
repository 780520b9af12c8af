//! The Engine: API calls in, alerts out.

mod feedback;
mod joined;
mod moved;
mod saved;
mod settings;

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::alert::{Alert, Entity};
use crate::baseline::{
    Across, Cold, Fleet, Inventory, KeyState, Named, Names, Owners, Place, Slots, Sources, op_index,
};
use crate::call::{ApiCall, Key, KeyId, Outcome};
use crate::detect::{
    Capture, DETECTORS, Report, Scene, is_refusal, is_sensitive, refuses_credential,
};
use crate::incident::{Incidents, Place as Origin};
use crate::policy::Policy;
use crate::time::EventTime;

pub use crate::baseline::{KeyView, OperationView};
pub use crate::incident::history::Past;
pub use feedback::{Feedback, Said, UnknownAlert};
pub use joined::Joined;
pub(crate) use joined::WAITING_MAX;
pub use saved::{Changes, SNAPSHOT_VERSION, Unreadable};
pub use settings::{
    CaptureSettings, ErrorSettings, LatencySettings, RateSettings, ReplaySettings, ScanSettings,
    Settings, StuffingSettings, SynchronySettings,
};

/// Capture itself is impaired.
#[derive(Clone, Debug, PartialEq)]
pub enum Impairment {
    /// Bytes were lost between kernel and user side.
    Lost {
        /// Payload bytes.
        bytes: u64,
        /// Records that did not fit.
        events: u64,
    },
    /// A kernel program is no longer attached.
    Detached {
        /// Its name.
        program: String,
    },
    /// TLS of a process cannot be looked into.
    Unseen {
        /// Which process, and why.
        what: String,
    },
}

/// What the Engine did and where it met a bound.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Calls judged.
    pub calls: u64,
    /// Calls learnt from only.
    pub learnt: u64,
    /// Calls more than [`Settings::late_max_s`] behind the latest.
    pub late_calls: u64,
    /// Calls more than an hour ahead of the one before: the clock was set, or nothing was seen.
    pub clock_jumps: u64,
    /// Incidents that became alerts.
    pub incidents: u64,
    /// Alerts given out, updates too.
    pub alerts: u64,
    /// Incidents that did not become alerts because the day's budget was spent.
    pub suppressed_by_budget: u64,
    /// Keys that are told of with others, in the alert about these.
    #[serde(default)]
    pub folded: u64,
    /// Updates not given out because an alert had its share of them.
    pub updates_withheld: u64,
    /// Alerts lost because nobody took them.
    pub alerts_dropped: u64,
    /// Findings that somebody said are of no interest.
    pub muted: u64,
    /// Known keys that were dropped to keep the bound.
    pub keys_evicted: u64,
    /// Clients and networks that were dropped to keep the bound.
    pub sources_evicted: u64,
    /// Symbols, endpoints and the like that were dropped to keep the bound.
    pub across_evicted: u64,
    /// Incidents that were dropped to keep the bound.
    pub incidents_evicted: u64,
}

/// A step ahead in time that is counted as a jump of the clock.
const JUMP_NS: u64 = 3_600_000_000_000;

/// Learns how every key behaves and flags what does not fit.
///
/// Time is that of the calls. They may come out of order by [`Settings::late_max_s`]; when the
/// clock is set back further, running windows are thrown away rather than judged.
pub struct Engine {
    settings: Settings,
    counters: Counters,
    latest: EventTime,
    keys: Slots<KeyId, Box<KeyState>>,
    /// Keys whose id has changed with the secret, by ids that they had before.
    moved: Slots<KeyId, KeyId>,
    /// Summaries of keys that had to make room. One that came back leaves its own behind.
    cold: Slots<KeyId, Cold>,
    fleet: Fleet,
    sources: Sources,
    across: Across,
    capture: Capture,
    incidents: Incidents,
    policy: Arc<Policy>,
    owners: Owners,
    names: Names,
    inventory: Inventory,
    /// What a snapshot does not have yet; `None` while nobody keeps any.
    unsaved: Option<Unsaved>,
    /// What keys came to, for another Engine; `None` while nobody asks for it.
    joined: Option<VecDeque<Joined>>,
    /// It judges what keys of others came to.
    has_joined: bool,
}

/// Keys that changed since they were last saved, each once, and saved keys that were dropped.
#[derive(Default)]
struct Unsaved {
    changed: VecDeque<KeyId>,
    gone: Vec<KeyId>,
}

impl Engine {
    /// Without any history.
    pub fn new(settings: Settings) -> Engine {
        Engine {
            counters: Counters::default(),
            latest: EventTime(0),
            keys: Slots::new(settings.keys_max, |key| key.is_established()),
            moved: Slots::new(settings.keys_max, |_| true),
            cold: Slots::new(settings.cold_keys_max, |_| true),
            fleet: Fleet::new(&settings),
            sources: Sources::new(&settings),
            across: Across::new(&settings),
            capture: Capture::default(),
            incidents: Incidents::new(&settings),
            unsaved: None,
            joined: None,
            has_joined: false,
            policy: Arc::default(),
            owners: Owners::new(settings.accounts_max),
            names: Names::new(),
            inventory: Inventory::new(settings.endpoints_max),
            settings,
        }
    }

    /// With another policy from now on.
    pub fn set_policy(&mut self, policy: Arc<Policy>) {
        self.policy = policy;
    }

    /// One call, roughly in order of time.
    pub fn handle_call(&mut self, call: &ApiCall) {
        self.counters.calls += 1;
        self.process(call, true);
    }

    /// One call of the past: learnt from, never alerted on.
    pub fn learn(&mut self, call: &ApiCall) {
        self.counters.learnt += 1;
        self.process(call, false);
    }

    /// Trouble with capture itself (D28).
    pub fn handle_impairment(&mut self, now: EventTime, what: &Impairment) {
        let mut report = Report::new(true);
        for detector in DETECTORS {
            detector.on_impairment(now, what, &mut self.capture, &self.settings, &mut report);
        }
        self.incidents.add(report.found, now, None, &self.settings, &mut self.counters);
    }

    /// Time has passed: the windows of all keys together move on.
    pub fn handle_timeout(&mut self, now: EventTime) {
        if now > self.latest {
            self.latest = now;
            self.fleet.advance(now, self.late_minutes());
        }
    }

    /// The next alert.
    pub fn poll_alert(&mut self) -> Option<Alert> {
        self.incidents.poll()
    }

    /// No call follows. Windows are judged while they run, so nothing is left to say; alerts that
    /// wait can still be taken.
    pub fn finish(&mut self) {}

    /// Keys of which a summary is left, and some that came back.
    pub fn cold_keys(&self) -> usize {
        self.cold.len()
    }

    /// Keys that are known in full.
    pub fn keys(&self) -> usize {
        self.keys.len()
    }

    /// Estimate of the bytes held.
    pub fn state_bytes(&self) -> usize {
        self.keys.bytes()
            + self.cold.bytes()
            + self.moved.bytes()
            + self.keys.len() * size_of::<KeyState>()
            + self.fleet.bytes()
            + self.sources.bytes()
            + self.across.bytes()
            + self.owners.bytes()
            + self.names.bytes()
            + self.inventory.bytes()
            + self.incidents.bytes()
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        Counters {
            keys_evicted: self.keys.evicted,
            sources_evicted: self.sources.evicted(),
            across_evicted: self.across.evicted(),
            incidents_evicted: self.incidents.evicted(),
            ..self.counters.clone()
        }
    }

    fn process(&mut self, call: &ApiCall, is_judged: bool) {
        let mut report = Report::new(is_judged);
        let time = call.time;
        self.note_time(time);
        self.fleet.advance(time, self.late_minutes());
        let now_s = u32::try_from(time.secs()).unwrap_or(u32::MAX);
        let watched_since_s = self.fleet.note_watched(now_s);
        let is_authentic = !refuses_credential(call.outcome);
        let id = call.key.as_ref().map(|key| self.present(key.id));
        let known = id.and_then(|id| Some((id, self.admit(id, call)?)));
        let late_minutes = self.late_minutes();
        let keys = self.keys.len();
        let address = call.client_address();
        let mut key = known.map(|(id, place)| (id, &mut **self.keys.at(place)));
        let mut place = Place::Known;
        if let Some((_, state)) = &mut key {
            if state.advance(time, late_minutes, &mut self.fleet) || state.calls == 0 {
                self.fleet.note_active();
            }
            if is_authentic {
                let hour = u32::try_from(time.secs() / 3600).unwrap_or(u32::MAX);
                place = state.familiar.judge(&address, hour);
            }
        }
        let mut scene = Scene {
            call,
            time,
            now_s,
            watched_since_s,
            op: op_index(call.op),
            address,
            weight: if call.complete && call.outcome.is_some() { 1.0 } else { 0.5 },
            named: call.request.as_ref().map_or_else(Named::default, |it| self.names.of(it)),
            is_authentic,
            key,
            place,
            agent_rarity: 0.0,
            keys,
            fleet: &mut self.fleet,
            sources: &mut self.sources,
            across: &mut self.across,
            joined: self.joined.as_mut(),
            policy: &self.policy,
            owners: &mut self.owners,
            inventory: &mut self.inventory,
            settings: &self.settings,
        };
        for detector in DETECTORS {
            detector.on_call(&mut scene, &mut report);
        }
        if let Some((id, state)) = scene.key {
            state.calls += u64::from(call.outcome == Some(Outcome::Ok));
            if !state.is_changed
                && let Some(unsaved) = &mut self.unsaved
            {
                state.is_changed = true;
                unsaved.changed.push_back(id);
            }
            let goes_on = time < state.incident_until
                && self.incidents.note_call(Entity::Key(id), call, &self.settings);
            if goes_on || report.found.iter().any(|found| found.entity == Entity::Key(id)) {
                let window = std::time::Duration::from_secs(self.settings.incident_window_s);
                state.incident_until = time.after(window);
            }
        }
        if report.found.is_empty() {
            return;
        }
        let origin = Origin::of(call);
        self.incidents.add(report.found, time, Some(&origin), &self.settings, &mut self.counters);
        self.join_tied();
    }

    /// Where a key's state is. It is given one once it was accepted, or was refused a withdrawal for
    /// another reason than itself: a flood of made-up keys costs nothing here.
    fn admit(&mut self, id: KeyId, call: &ApiCall) -> Option<usize> {
        if let known @ Some(_) = self.keys.place(&id) {
            return known;
        }
        let is_good = call.outcome == Some(Outcome::Ok)
            || (is_sensitive(call.op) && is_refusal(call) && !refuses_credential(call.outcome));
        let former = call.key.as_ref().map_or(&[][..], Key::former);
        if !former.is_empty() && self.follow(id, former, is_good) {
            return self.keys.place(&id);
        }
        // Nobody wakes a key who does not have it.
        if !refuses_credential(call.outcome)
            && let Some(cold) = self.cold.find(&id)
        {
            let state = cold.grown(&self.fleet.cohort);
            self.fleet.note_habits(&state);
            self.insert(id, state);
        } else if is_good {
            let state = KeyState::new(call.time, &self.fleet.cohort);
            self.insert(id, state);
        }
        self.keys.place(&id)
    }

    /// What has to make room shrinks to its summary; what a made-up key left is not worth one.
    fn insert(&mut self, id: KeyId, state: KeyState) {
        self.across.walkers += usize::from(state.objects.is_some());
        let Some((mut gone, state)) = self.keys.insert(id, Box::new(state)).1 else { return };
        let walkers = &mut self.across.walkers;
        *walkers = walkers.saturating_sub(usize::from(state.objects.is_some()));
        self.fleet.forget_habits(&state);
        let mut is_saved = state.is_saved;
        if state.is_established() {
            let cold = Cold::of(&state);
            if let Some(known) = self.cold.peek_mut(&gone) {
                *known = cold;
                return;
            }
            let Some((coldest, _)) = self.cold.insert(gone, cold).1 else { return };
            // It may have come back meanwhile.
            is_saved = self.keys.peek(&coldest).is_none();
            gone = coldest;
        }
        if let Some(unsaved) = &mut self.unsaved
            && is_saved
        {
            unsaved.gone.push(gone);
        }
    }

    fn note_time(&mut self, time: EventTime) {
        let late = self.latest.since(time).as_secs() > self.settings.late_max_s;
        self.counters.late_calls += u64::from(late);
        let ahead = self.latest.0 != 0 && time.0.saturating_sub(self.latest.0) > JUMP_NS;
        self.counters.clock_jumps += u64::from(ahead);
        // A clock that was set back counts once and is then followed.
        self.latest = if late { time } else { self.latest.max(time) };
    }

    fn late_minutes(&self) -> u32 {
        u32::try_from(self.settings.late_max_s.div_ceil(60)).unwrap_or(u32::MAX)
    }
}
