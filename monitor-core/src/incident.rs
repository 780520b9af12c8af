//! Findings about one entity within a quarter of an hour are one incident, and one alert.

pub(crate) mod campaign;
mod fold;
pub(crate) mod history;
pub(crate) mod verdicts;

use std::borrow::Cow;
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use smallvec::SmallVec;

use crate::alert::{Alert, AlertId, Entity, Finding, Severity};
use crate::baseline::{Slots, family, op_index, prefix};
use crate::call::{ApiCall, FlowId};
use crate::detect::{Found, Layer};
use crate::engine::{Counters, Settings};
use crate::time::EventTime;
use campaign::{Campaigns, Member};
use verdicts::Verdicts;

/// Log-odds against an attack before anything is found: one oddity in twenty.
const PRIOR: f32 = 3.0;
/// Different detectors that must agree, and their evidence, for one step more in severity.
const AGREEING_MIN: usize = 3;
const AGREEING_EVIDENCE_MIN: f32 = 8.0;

/// For so long what is new to a key stays so, seconds: a session.
const NOVEL_S: u64 = 3_600;
/// One in so many of a day's alerts, once half of them are spent, may be about what was told of on that day
/// before: keys that are used from the same network, or do the same with the same program that is new to
/// each, or are of a crowd that has an alert. One thief with many keys leaves room for what others do.
const REPEATED_PART: u32 = 4;
/// The detector of client programs that are new to a key.
const NEW_PROGRAM: &str = "D6";
/// For so long a crowd explains a key that does the same, seconds.
const CROWD_S: u64 = 3_600;

/// Where a call came from and what it did.
pub(crate) struct Place {
    pub(crate) flow: FlowId,
    pub(crate) address: [u8; 16],
    /// Place of the operation in tables.
    pub(crate) op: usize,
    /// Family of the client program.
    pub(crate) program: u16,
}

impl Place {
    pub(crate) fn of(call: &ApiCall) -> Place {
        Place {
            flow: call.flow.id,
            address: call.client_address(),
            op: op_index(call.op),
            program: family(call),
        }
    }
}

/// Open incidents, and the alerts that wait to be taken.
pub(crate) struct Incidents {
    open: Slots<Entity, Incident>,
    waiting: VecDeque<Alert>,
    budget: Budget,
    verdicts: Verdicts,
    campaigns: Campaigns,
    /// Keys that may be of a group, for an Engine that sees those of others; `None` while nobody asks.
    tied: Option<VecDeque<Member>>,
}

#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Incident {
    first_detector: Cow<'static, str>,
    first: EventTime,
    last: EventTime,
    findings: Vec<Held>,
    flows: Vec<FlowId>,
    /// Where the calls with findings came from, and what they did: a bit an operation.
    addresses: Vec<[u8; 16]>,
    ops: u16,
    calls: u64,
    complete: bool,
    raised: Option<Raised>,
    is_suppressed: bool,
    /// It is told of with others, in the alert about these.
    part_of: Option<Entity>,
    /// Why somebody said that it is of no interest.
    dismissed: Option<String>,
}

/// A finding, and what becomes of it. Owned, because a snapshot brings it back.
#[derive(Clone, Serialize, Deserialize)]
struct Held {
    finding: Finding,
    evidence: f32,
    alone: bool,
    layer: Layer,
    calls: u64,
    clause: String,
    title: Cow<'static, str>,
    first_step: Cow<'static, str>,
}

/// How the alert stands that was last given out.
#[derive(Clone, Serialize, Deserialize)]
struct Raised {
    id: AlertId,
    severity: Severity,
    revision: u32,
}

/// New alerts of the running day.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Budget {
    day: u64,
    raised: u32,
    /// Networks that they came from, and how many came from one that was told of before.
    origins: BTreeSet<[u8; 16]>,
    repeated: u32,
    /// What keys did with programs that were new to them.
    thefts: BTreeSet<Theft>,
    /// What many keys did at once, a bit an operation, and until when that explains a key of them.
    crowd_ops: u16,
    crowd_until: EventTime,
    bypassed: u32,
    /// Of those that bypassed it: clients and networks.
    sources: u32,
}

impl Incidents {
    pub(crate) fn new(settings: &Settings) -> Incidents {
        Incidents {
            open: Slots::new(settings.incidents_max, |incident| incident.raised.is_some()),
            waiting: VecDeque::new(),
            budget: Budget::default(),
            verdicts: Verdicts::default(),
            campaigns: Campaigns::new(),
            tied: None,
        }
    }

    pub(crate) fn poll(&mut self) -> Option<Alert> {
        self.waiting.pop_front()
    }

    pub(crate) fn evicted(&self) -> u64 {
        self.open.evicted
    }

    pub(crate) fn bytes(&self) -> usize {
        self.open.bytes() + self.campaigns.bytes()
    }

    /// A further call of an entity that may have an open incident; true when that goes on by it.
    pub(crate) fn note_call(
        &mut self,
        entity: Entity,
        call: &ApiCall,
        settings: &Settings,
    ) -> bool {
        if let Some(incident) = self.open.find(&entity)
            && !incident.is_over(call.time, settings)
        {
            incident.calls += 1;
            incident.note_flow(call.flow.id, settings);
            incident.goes_on(call, settings)
        } else {
            false
        }
    }

    /// Adds what one call showed to the incidents of its entities, and raises or updates each
    /// alert once when due.
    pub(crate) fn add(
        &mut self,
        found: SmallVec<[Found; 2]>,
        time: EventTime,
        place: Option<&Place>,
        settings: &Settings,
        counters: &mut Counters,
    ) {
        let groups = self.take_in(found, time, place, settings, counters);
        // What is about a group is of none itself.
        self.take_in(groups, time, place, settings, counters);
    }

    /// Gives what is found of groups by that.
    fn take_in(
        &mut self,
        found: SmallVec<[Found; 2]>,
        time: EventTime,
        place: Option<&Place>,
        settings: &Settings,
        counters: &mut Counters,
    ) -> SmallVec<[Found; 2]> {
        let mut groups = SmallVec::new();
        let mut touched: SmallVec<[(Entity, bool); 2]> = SmallVec::new();
        for mut found in found {
            if !self.verdicts.lets_pass(&mut found, time) {
                counters.muted += 1;
                continue;
            }
            let (entity, grown) = (found.entity, found.grown);
            let is_open =
                self.open.find(&entity).is_some_and(|known| !known.is_over(time, settings));
            let incident = self.open.find_or_insert(entity, Incident::default);
            if !is_open {
                *incident = Incident::new(&found, time);
            }
            let is_news = incident.add(found, time, settings) || grown;
            if let Some(place) = place {
                incident.note_place(place, settings);
            }
            match touched.iter_mut().find(|(known, _)| *known == entity) {
                Some((_, any_news)) => *any_news |= is_news,
                None => touched.push((entity, is_news)),
            }
        }
        for (entity, is_news) in touched {
            if self.is_folded(entity, time, place, &mut groups, settings, counters) {
                continue;
            }
            self.settle(entity, is_news, time, place, settings, counters);
        }
        groups
    }

    /// Whether a key is told of with others that have the same cause.
    fn is_folded(
        &mut self,
        entity: Entity,
        time: EventTime,
        place: Option<&Place>,
        groups: &mut SmallVec<[Found; 2]>,
        settings: &Settings,
        counters: &mut Counters,
    ) -> bool {
        let (Entity::Key(key), Some(place)) = (entity, place) else { return false };
        let Some(incident) = self.open.find(&entity) else { return false };
        let verdict = incident.verdict();
        if incident.raised.is_none() && !verdict.is_due(settings) {
            return false;
        }
        let members = incident.ties(key, place, verdict.severity);
        let is_folded = self.fold(&members, time, groups, settings, counters);
        if !is_folded && let Some(incident) = self.open.find(&entity) {
            incident.part_of = None;
        }
        is_folded
    }

    fn settle(
        &mut self,
        entity: Entity,
        is_news: bool,
        time: EventTime,
        place: Option<&Place>,
        settings: &Settings,
        counters: &mut Counters,
    ) {
        let Some(incident) = self.open.find(&entity) else { return };
        let verdict = incident.verdict();
        match &incident.raised {
            Some(raised) => {
                let is_news = is_news || verdict.severity > raised.severity;
                if !is_news || raised.revision >= settings.updates_max {
                    counters.updates_withheld += u64::from(is_news);
                    return;
                }
            }
            None if !verdict.is_due(settings) => return,
            None => {
                let story = Story {
                    origin: place.map(|place| prefix(&place.address)),
                    theft: place.and_then(|place| incident.theft(place.program)),
                };
                if !self.budget.allows(entity, &verdict, &story, time, settings) {
                    counters.suppressed_by_budget += u64::from(!incident.is_suppressed);
                    incident.is_suppressed = true;
                    return;
                }
                counters.incidents += 1;
            }
        }
        self.give_out(entity, time, settings, counters);
    }

    /// The alert as it is now.
    fn give_out(
        &mut self,
        entity: Entity,
        time: EventTime,
        settings: &Settings,
        counters: &mut Counters,
    ) {
        let Some(incident) = self.open.find(&entity) else { return };
        let verdict = incident.verdict();
        let revision = incident.raised.as_ref().map_or(0, |raised| raised.revision + 1);
        let alert = incident.alert(entity, revision, &verdict, time, settings);
        incident.raised = Some(Raised { id: alert.id, severity: verdict.severity, revision });
        if self.waiting.len() >= settings.alerts_waiting_max {
            counters.alerts_dropped += 1;
            return;
        }
        counters.alerts += 1;
        self.waiting.push_back(alert);
    }
}

/// What an incident amounts to.
struct Verdict {
    severity: Severity,
    evidence: f32,
    /// Some finding needs no other.
    alone: bool,
    /// Nothing but novelty.
    only_novelty: bool,
    /// What was done: a bit an operation.
    ops: u16,
    /// May not be held back: an invariant that is high, or anything critical.
    urgent: bool,
}

/// What makes an alert one more about the same.
struct Story {
    /// Network that it came from.
    origin: Option<[u8; 16]>,
    /// What was done, with a program that is new to the key.
    theft: Option<Theft>,
}

/// Family of the program, and the detector that has most to say beside what is merely new.
type Theft = (u16, String);

impl Verdict {
    fn is_due(&self, settings: &Settings) -> bool {
        self.alone || (self.evidence >= settings.alert_evidence_min && !self.only_novelty)
    }
}

impl Budget {
    fn allows(
        &mut self,
        entity: Entity,
        verdict: &Verdict,
        story: &Story,
        time: EventTime,
        settings: &Settings,
    ) -> bool {
        let day = time.secs() / 86_400;
        // A clock that goes back a little does not give a new day's budget.
        if day > self.day || day + 1 < self.day {
            *self = Budget { day, ..Budget::default() };
        }
        if self.raised + self.bypassed >= settings.alerts_per_day_hard_max {
            return false;
        }
        // A botnet has more addresses than anybody reads alerts.
        let is_source = matches!(entity, Entity::Client(_) | Entity::Network(_));
        let is_one_of_many = is_source
            && verdict.severity < Severity::Critical
            && self.sources >= settings.alerts_per_day_max;
        if verdict.urgent && !is_one_of_many {
            self.note_told(entity, verdict, story, time);
            self.bypassed += 1;
            self.sources += u32::from(is_source);
            return true;
        }
        let is_of_crowd = matches!(entity, Entity::Key(_))
            && time < self.crowd_until
            && verdict.ops & self.crowd_ops != 0;
        let is_repeated = is_of_crowd
            || story.origin.is_some_and(|origin| self.origins.contains(&origin))
            || story.theft.as_ref().is_some_and(|theft| self.thefts.contains(theft));
        let max = settings.alerts_per_day_max;
        let has_room = !is_repeated || self.raised < max / 2 || self.repeated * REPEATED_PART < max;
        let allowed = self.raised < max && has_room;
        if allowed {
            self.raised += 1;
            self.repeated += u32::from(is_repeated);
            self.note_told(entity, verdict, story, time);
        }
        allowed
    }

    /// Somebody reads of it now.
    fn note_told(&mut self, entity: Entity, verdict: &Verdict, story: &Story, time: EventTime) {
        self.origins.extend(story.origin);
        if let (Entity::Key(_), Some(theft)) = (entity, &story.theft) {
            self.thefts.insert(theft.clone());
        }
        if matches!(entity, Entity::Group(_)) {
            self.crowd_ops = if time < self.crowd_until { self.crowd_ops } else { 0 } | verdict.ops;
            self.crowd_until = time.after(Duration::from_secs(CROWD_S));
        }
    }
}

impl Incident {
    fn new(found: &Found, time: EventTime) -> Incident {
        Incident {
            first_detector: Cow::Borrowed(found.rule.id),
            first: time,
            last: time,
            complete: true,
            ..Incident::default()
        }
    }

    fn is_over(&self, time: EventTime, settings: &Settings) -> bool {
        time.since(self.last) > Duration::from_secs(settings.incident_window_s)
            || time.since(self.first) > Duration::from_secs(settings.incident_max_s)
    }

    /// What is new stays new for a while: as long as calls come from where the findings were made, those
    /// of novelty do not age, up to [`NOVEL_S`] in all.
    fn goes_on(&mut self, call: &ApiCall, settings: &Settings) -> bool {
        let is_novel = |held: &&mut Held| held.layer == Layer::Novelty;
        if call.time.since(self.first) > Duration::from_secs(NOVEL_S)
            || self.is_over(call.time, settings)
            || !self.addresses.contains(&call.client_address())
        {
            return false;
        }
        let mut goes_on = false;
        for held in self.findings.iter_mut().filter(is_novel) {
            held.finding.time = held.finding.time.max(call.time);
            goes_on = true;
        }
        if goes_on {
            self.last = self.last.max(call.time);
        }
        goes_on
    }

    /// Keeps the strongest finding of each detector; true when this one had not spoken yet.
    fn add(&mut self, found: Found, time: EventTime, settings: &Settings) -> bool {
        self.last = self.last.max(time);
        self.calls = self.calls.max(found.calls);
        self.complete &= found.complete;
        let window = Duration::from_secs(settings.incident_window_s);
        if self.raised.is_none() {
            self.findings.retain(|held| time.since(held.finding.time) <= window);
        }
        match self.findings.iter_mut().find(|held| held.finding.detector == found.rule.id) {
            Some(held)
                if (found.severity, found.evidence) >= (held.finding.severity, held.evidence) =>
            {
                *held = Held::new(found, time);
                false
            }
            Some(held) => {
                held.finding.time = time;
                false
            }
            None => {
                self.findings.push(Held::new(found, time));
                true
            }
        }
    }

    /// What was done with this program, when it is new to the key.
    fn theft(&self, program: u16) -> Option<Theft> {
        let found = || self.findings.iter();
        let told = found().filter(|held| held.layer != Layer::Novelty);
        let most = told.max_by(|a, b| a.evidence.total_cmp(&b.evidence))?;
        self.has_new_program().then(|| (program, most.finding.detector.to_string()))
    }

    fn has_new_program(&self) -> bool {
        self.findings.iter().any(|held| held.finding.detector == NEW_PROGRAM)
    }

    fn note_place(&mut self, place: &Place, settings: &Settings) {
        self.note_flow(place.flow, settings);
        self.ops |= 1 << place.op;
        let room = self.addresses.len() < settings.flows_per_alert_max;
        if room && !self.addresses.contains(&place.address) {
            self.addresses.push(place.address);
        }
    }

    fn note_flow(&mut self, flow: FlowId, settings: &Settings) {
        if self.flows.len() < settings.flows_per_alert_max && !self.flows.contains(&flow) {
            self.flows.push(flow);
        }
    }

    fn verdict(&self) -> Verdict {
        let found = || self.findings.iter();
        let evidence: f32 = found().map(|found| found.evidence).sum();
        let worst = found().map(|held| held.finding.severity).max().unwrap_or(Severity::Low);
        let agreeing = found().filter(|found| found.evidence >= 1.0).count();
        let agrees = agreeing >= AGREEING_MIN && evidence >= AGREEING_EVIDENCE_MIN;
        let severity = if agrees { worse(worst) } else { worst };
        let urgent = |held: &Held| {
            let is_high = held.finding.severity >= Severity::High;
            held.alone && held.layer == Layer::Invariant && is_high
        };
        Verdict {
            severity,
            evidence,
            alone: found().any(|found| found.alone),
            ops: self.ops,
            only_novelty: found().all(|held| held.layer == Layer::Novelty),
            urgent: severity == Severity::Critical || found().any(urgent),
        }
    }

    fn alert(
        &self,
        entity: Entity,
        revision: u32,
        verdict: &Verdict,
        time: EventTime,
        settings: &Settings,
    ) -> Alert {
        let mut findings: Vec<&Held> = self.findings.iter().collect();
        findings.sort_by(|a, b| {
            let by_evidence = b.evidence.total_cmp(&a.evidence);
            let by_severity = b.finding.severity.cmp(&a.finding.severity);
            by_severity.then(by_evidence).then(a.finding.detector.cmp(&b.finding.detector))
        });
        let (title, first_step) = headline(entity, &findings);
        Alert {
            id: alert_id(&settings.host, entity, &self.first_detector, self.first),
            revision,
            time,
            severity: verdict.severity,
            confidence: confidence(verdict.evidence),
            entity,
            title,
            explanation: match self.part_of {
                Some(group) => format!(
                    "{} It is one of many keys, told of with {group}.",
                    explanation(entity, &findings)
                ),
                None => explanation(entity, &findings),
            },
            first_step,
            findings: findings.iter().map(|held| held.finding.clone()).collect(),
            first_seen: self.first,
            last_seen: self.last,
            flows: self.flows.clone(),
            calls: self.calls,
            complete: self.complete,
            host: settings.host.clone(),
            part_of: self.part_of,
        }
    }
}

impl Held {
    fn new(found: Found, time: EventTime) -> Held {
        let ids = |ids: &'static [&'static str]| ids.iter().map(|id| Cow::Borrowed(*id)).collect();
        Held {
            finding: Finding {
                detector: Cow::Borrowed(found.rule.id),
                name: Cow::Borrowed(found.rule.name),
                time,
                expected: found.expected,
                seen: found.seen,
                evidence: hundredths(found.evidence),
                severity: found.severity,
                attack: ids(found.rule.attack),
                owasp: ids(found.rule.owasp),
            },
            evidence: found.evidence,
            alone: found.alone,
            layer: found.rule.layer,
            calls: found.calls,
            clause: found.clause,
            title: Cow::Borrowed(found.title),
            first_step: Cow::Borrowed(found.first_step),
        }
    }
}

/// Several things at once that fit a thief say so; one thing says what it is.
fn headline(entity: Entity, findings: &[&Held]) -> (String, Cow<'static, str>) {
    let strongest = findings.first().map(|held| (&*held.title, held.first_step.clone()));
    let (title, first_step) =
        strongest.unwrap_or(("Something is unusual", Cow::Borrowed("Look at the findings")));
    match entity {
        Entity::Key(_) if findings.len() > 1 => ("API key may be stolen".into(), first_step),
        Entity::Key(_)
        | Entity::Client(_)
        | Entity::Network(_)
        | Entity::Group(_)
        | Entity::Host => (title.into(), first_step),
    }
}

/// "This key was …, made … and tried …."
fn explanation(entity: Entity, findings: &[&Held]) -> String {
    let mut text = String::from(match entity {
        Entity::Key(_) => "This key",
        Entity::Client(_) => "This address",
        Entity::Network(_) => "This network",
        Entity::Group(_) => "A group of keys",
        Entity::Host => "This host",
    });
    for (at, held) in findings.iter().enumerate() {
        text.push_str(match at {
            0 => " ",
            at if at + 1 == findings.len() => " and ",
            _ => ", ",
        });
        text.push_str(&held.clause);
    }
    text.push('.');
    text
}

/// Odds into a probability, as far as odds of this kind can be trusted: to two places.
fn confidence(evidence: f32) -> f32 {
    hundredths(1.0 / (1.0 + (PRIOR - evidence).exp())).min(0.99)
}

fn hundredths(value: f32) -> f32 {
    (value * 100.0).round() / 100.0
}

fn worse(severity: Severity) -> Severity {
    match severity {
        Severity::Low => Severity::Medium,
        Severity::Medium => Severity::High,
        Severity::High | Severity::Critical => Severity::Critical,
    }
}

/// The same in every replay: from host, entity, first detector and time.
fn alert_id(host: &str, entity: Entity, detector: &str, time: EventTime) -> AlertId {
    let mut hasher = Sha256::new();
    hasher.update(host.as_bytes());
    hasher.update([0]);
    match entity {
        Entity::Key(id) => hasher.update([&b"k"[..], &id.0.to_be_bytes()].concat()),
        Entity::Client(ip) => hasher.update(format!("c{ip}")),
        Entity::Network(ip) => hasher.update(format!("n{ip}")),
        Entity::Group(id) => hasher.update([&b"g"[..], &id.0.to_be_bytes()].concat()),
        Entity::Host => hasher.update(b"h"),
    }
    hasher.update([0]);
    hasher.update(detector.as_bytes());
    hasher.update(time.0.to_be_bytes());
    let digest: [u8; 32] = hasher.finalize().into();
    AlertId(digest[..8].iter().fold(0, |id, byte| id << 8 | u64::from(*byte)))
}
