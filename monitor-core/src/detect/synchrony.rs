//! D20: many keys do the same new thing at the same time. Each by itself looks like a customer with a
//! new idea; together they are one hand.

use std::hash::BuildHasher;

use foldhash::quality::FixedState;
use smallvec::SmallVec;

use super::{
    Detector, Found, Layer, Report, Rule, Scene, examples, group, is_refusal, op_words, span,
};
use crate::alert::{Entity, Severity, network_of};
use crate::baseline::{
    AWAY_MAX, Edge, Kind, Place, Standing, Synchrony as Newcomers, Together, prefix,
};
use crate::call::{ApiCall, Operation, Outcome};
use crate::engine::{Joined, SynchronySettings, WAITING_MAX};
use crate::incident::campaign::{Tie, Told};
use crate::time::EventTime;

pub(super) struct Synchrony;

static RULE: Rule = Rule {
    id: "D20",
    name: "fleet synchrony",
    layer: Layer::Behaviour,
    attack: &["T1078", "T1657"],
    owasp: &["API2"],
};

/// One hand behind all: certain enough for any alert.
const EVIDENCE: f32 = 8.0;
/// It may still be an operator who moves, or news that only some read.
const EVIDENCE_DOUBTFUL: f32 = 5.5;

const FIRST_STEP: &str =
    "Halt withdrawals of these keys and of those that follow, then ask some of their owners";

/// Newcomers to one regular before it is no crowd that others merely join.
const PER_REGULAR: u64 = 3;

impl Detector for Synchrony {
    fn on_call(&self, scene: &mut Scene<'_>, report: &mut Report) {
        let call = scene.call;
        let Some((id, key)) = &scene.key else { return };
        // Young keys are still showing what they do.
        let age_s = scene.time.since(key.first_seen).as_secs();
        let is_good = call.outcome == Some(Outcome::Ok);
        let was_asked = is_good || (scene.is_authentic && is_refusal(call));
        let settings = &scene.settings.synchrony;
        let away = scene.place == Place::NewNetwork
            && !key.familiar.is_empty()
            && key.familiar.chance_of_new_network() < AWAY_MAX;
        let edge = |kind, target, standing| Edge {
            kind,
            target,
            key: *id,
            standing,
            away,
            home: hash(&prefix(&key.familiar.last())),
        };
        let known_long = age_s >= scene.settings.young_key_s;
        let mut edges: SmallVec<[Edge; 3]> = SmallVec::new();
        if is_good
            && call.op == Operation::Trade
            && let Some(symbol) = &call.symbol
        {
            let target = hash(symbol.as_bytes());
            let first = scene.across.synchrony.is_first(target ^ id.0 as u64, settings);
            let standing = match (first, known_long) {
                (true, true) => Standing::Newcomer,
                (true, false) => Standing::Unknown,
                (false, _) => Standing::Regular,
            };
            edges.push(edge(Kind::Symbol, target, standing));
        }
        if away && was_asked && age_s >= settings.key_age_min_s {
            edges.push(edge(Kind::Network, hash(&prefix(&scene.address)), Standing::Newcomer));
        }
        if was_asked && moves(call.op) && known_long {
            let fresh = key.first_used_s[scene.op] == 0 || away;
            let standing = if fresh { Standing::Newcomer } else { Standing::Regular };
            edges.push(edge(Kind::Operation, scene.op as u64, standing));
        }
        // Nearly every call comes to nothing that counts here.
        if edges.is_empty() {
            return;
        }
        for edge in edges {
            let (address, fleet) = (prefix(&scene.address), &mut *scene.fleet);
            let day = scene.now_s / 86_400;
            let at_home = || fleet.keys_in_network(&address, day);
            judge(
                &edge,
                call,
                scene.weight,
                at_home,
                &mut scene.across.synchrony,
                settings,
                report,
            );
            if let Some(joined) = &mut scene.joined {
                let known = scene.fleet.keys_in_network(&address, day);
                // Nobody took them for long.
                if joined.len() >= WAITING_MAX {
                    joined.pop_front();
                }
                joined.push_back(Joined { edge, known, weight: scene.weight, tied: None });
            }
        }
    }
}

/// Judges what a key came to together with what others did. `at_home` tells how many keys are so in the
/// network of the call.
pub(crate) fn judge(
    edge: &Edge,
    call: &ApiCall,
    weight: f32,
    at_home: impl FnOnce() -> u32,
    synchrony: &mut Newcomers,
    settings: &SynchronySettings,
    report: &mut Report,
) {
    let Some(together) = synchrony.note(edge, call.time, settings) else { return };
    let at_home = u64::from(at_home());
    let Some(severity) = severity(edge.kind, &together, at_home, settings.keys_min) else { return };
    synchrony.reported(edge, &together);
    report.add(|| found(edge, &together, severity, call, weight));
}

/// How bad; `None` when there is a good reason for it. `at_home`: keys that are so in the network.
fn severity(kind: Kind, together: &Together, at_home: u64, keys_min: u64) -> Option<Severity> {
    let Together { fresh, away, homes, regulars, .. } = *together;
    let from_elsewhere = away * 2 >= fresh;
    match kind {
        Kind::Network => {
            let is_shared = at_home >= 4 * fresh;
            // From one network to another: an operator that moves, or one that leaked.
            let scattered = homes >= 3 && homes * 4 >= fresh;
            let severity = if scattered { Severity::Critical } else { Severity::High };
            (!is_shared).then_some(severity)
        }
        Kind::Symbol | Kind::Operation if fresh < PER_REGULAR * regulars => None,
        Kind::Symbol | Kind::Operation if from_elsewhere => Some(Severity::Critical),
        // From home: a listing, or news, unless very many and nobody else.
        Kind::Symbol | Kind::Operation => {
            let is_crowd = fresh >= 2 * keys_min && fresh >= 10 * regulars;
            (is_crowd && !together.is_novel).then_some(Severity::High)
        }
    }
}

fn found(
    edge: &Edge,
    together: &Together,
    severity: Severity,
    call: &ApiCall,
    weight: f32,
) -> Found {
    let Together { fresh, away, expected, .. } = together;
    let took = span(call.time.since(together.since));
    let (entity, what) = match edge.kind {
        Kind::Symbol => {
            let symbol = call.symbol.as_deref().unwrap_or("a symbol");
            (Entity::Group(group(b"symbol", edge.target)), format!("traded {symbol}"))
        }
        Kind::Operation => {
            let what = op_words(call.op);
            (Entity::Group(group(b"operation", edge.target)), format!("asked for {what}"))
        }
        Kind::Network => {
            (Entity::Network(network_of(call.client())), "were used from one network".into())
        }
    };
    let moved = if severity == Severity::High && edge.kind == Kind::Network {
        ", all known at one other network before"
    } else {
        ""
    };
    let clause = match edge.kind {
        Kind::Network => {
            format!("had {fresh} keys used from it within {took} that never were before{moved}")
        }
        Kind::Symbol | Kind::Operation => format!(
            "{what} within {took}: {fresh} keys that never did, {away} of them from networks new to them"
        ),
    };
    Found {
        entity,
        rule: &RULE,
        evidence: weight
            * if severity == Severity::Critical { EVIDENCE } else { EVIDENCE_DOUBTFUL },
        severity,
        alone: true,
        grown: together.grown,
        complete: call.complete,
        calls: *fresh,
        expected: format!("about {expected:.1} keys to do so for the first time within {took}"),
        seen: format!(
            "{fresh} keys {what} for the first time{moved}: {}",
            examples(&together.examples, *fresh)
        ),
        clause,
        title: "Many keys do the same new thing at once",
        first_step: FIRST_STEP,
    }
}

/// Many keys were flagged by one detector, and have more in common.
pub(crate) fn flagged_together(entity: Entity, told: &Told, time: EventTime) -> Found {
    let Told { keys, detector, title, .. } = told;
    let took = span(time.since(told.since));
    let (whose, clause) = match told.tie {
        Tie::Network(_) => {
            ("used from one network", format!("had {keys} keys flagged in it within {took}"))
        }
        Tie::Program(_) => (
            "used with one program that is new to each of them",
            format!("used one program that is new to each, and {keys} were flagged within {took}"),
        ),
    };
    Found {
        entity,
        rule: &RULE,
        evidence: EVIDENCE,
        severity: told.severity,
        alone: true,
        grown: told.has_grown,
        complete: true,
        calls: *keys,
        expected: "keys to be flagged one by one, each for a cause of its own".into(),
        seen: format!("{keys} keys {whose}: {}", examples(&told.examples, *keys)),
        clause: format!("{clause}, each as: {title} ({detector})"),
        title: "Many keys are flagged for the same at once",
        first_step: FIRST_STEP,
    }
}

fn hash(bytes: &[u8]) -> u64 {
    FixedState::with_seed(0).hash_one(bytes)
}

/// Moves funds, or changes who may and where to.
fn moves(op: Operation) -> bool {
    match op {
        Operation::Transfer
        | Operation::Withdraw
        | Operation::AddressBook
        | Operation::KeyManagement => true,
        Operation::Public
        | Operation::Read
        | Operation::Trade
        | Operation::Cancel
        | Operation::Subaccount
        | Operation::Auth => false,
    }
}
