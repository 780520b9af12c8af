//! D3: one client, one network, or a crowd of clients tries many keys or logins.

use super::{
    Detector, Found, Layer, Report, Rule, Scene, examples, group, ip, refuses_credential, span,
};
use crate::alert::{Entity, Severity};
use crate::baseline::{Place, Sprayed, Tide, Tried};
use crate::call::{KeyId, Operation, Outcome};

pub(super) struct Stuffing;

static RULE: Rule = Rule {
    id: "D3",
    name: "credential stuffing",
    layer: Layer::Invariant,
    attack: &["T1110.003", "T1110.004"],
    owasp: &["OAT-008"],
};

/// Nobody tries twenty keys by mistake.
const EVIDENCE: f32 = 5.5;
/// And then one that works.
const EVIDENCE_ACCEPTED: f32 = 8.0;

impl Detector for Stuffing {
    fn on_call(&self, scene: &mut Scene<'_>, report: &mut Report) {
        let settings = &scene.settings.stuffing;
        let key = scene.call.key.as_ref();
        if refuses_credential(scene.call.outcome) {
            let tried = match key {
                Some(key) => Tried::Key(hash(key.id)),
                None if scene.call.op == Operation::Auth => Tried::Login,
                None => return,
            };
            let found = scene.sources.refused(&scene.address, &tried, scene.time, settings);
            if let Some(sprayed) = found {
                report.add(|| spraying(scene, &sprayed));
            } else if let (Some(key), None) = (key, &scene.key) {
                let sources = &mut scene.sources;
                let watched_s = scene.now_s.saturating_sub(scene.watched_since_s);
                let (address, time) = (&scene.address, scene.time);
                let tide = sources.refused_unknown(address, key.id, time, watched_s, settings);
                if let Some(tide) = tide {
                    report.add(|| crowd(scene, &tide));
                }
            }
        } else if scene.call.outcome == Some(Outcome::Ok)
            && let Some(key) = key
        {
            scene.sources.accepted(&scene.address, hash(key.id), scene.time, settings);
            if scene.place == Place::NewNetwork && scene.sources.is_trying(&scene.address) {
                report.add(|| accepted_after(scene, key.id));
            }
        }
    }
}

fn spraying(scene: &Scene<'_>, sprayed: &Sprayed) -> Found {
    let settings = &scene.settings.stuffing;
    let took = span(scene.time.since(sprayed.since));
    let what = match (sprayed.keys, sprayed.logins) {
        (keys, 0) => format!("{keys} different keys"),
        (0, logins) => format!("{logins} logins"),
        (keys, logins) => format!("{keys} different keys and {logins} logins"),
    };
    let window = span(std::time::Duration::from_secs(settings.window_s));
    let (entity, least, from) = match sprayed.network_clients {
        None => (Entity::Client(ip(&sprayed.address)), settings.keys_per_client_min, String::new()),
        Some(clients) => (
            Entity::Network(ip(&sprayed.address)),
            settings.keys_per_network_min,
            format!(" from {clients} addresses"),
        ),
    };
    Found {
        entity,
        rule: &RULE,
        evidence: EVIDENCE,
        severity: Severity::High,
        alone: true,
        grown: sprayed.grown,
        complete: scene.call.complete,
        calls: sprayed.calls,
        expected: format!("fewer than {} refused keys in {window}", least.max(sprayed.accepted)),
        seen: format!("{what} refused in {took}{from}"),
        clause: format!("tried {what} in {took}{from}, all refused"),
        title: "Many keys are being tried",
        first_step: "Block it at the edge, then look for keys that were accepted from there",
    }
}

fn crowd(scene: &Scene<'_>, tide: &Tide) -> Found {
    let Tide { keys, networks, expected, .. } = tide;
    let took = span(scene.time.since(tide.since));
    let seen = format!("{keys} unknown keys refused in {took} from {networks} networks");
    Found {
        entity: Entity::Group(group(b"unknown keys", 0)),
        rule: &RULE,
        evidence: EVIDENCE,
        severity: Severity::High,
        alone: true,
        grown: tide.grown,
        complete: scene.call.complete,
        calls: *keys,
        expected: format!("about {expected:.0} unknown keys in this time"),
        clause: format!("had {seen}"),
        seen: format!("{seen}: {}", examples(&tide.examples, *keys)),
        title: "Many keys are being tried from many networks",
        first_step: "Look at what these clients have in common and throttle it at the edge, then look \
                     for keys that were accepted from there",
    }
}

fn accepted_after(scene: &Scene<'_>, id: KeyId) -> Found {
    Found {
        entity: Entity::Client(ip(&scene.address)),
        rule: &RULE,
        evidence: EVIDENCE_ACCEPTED * scene.weight,
        severity: Severity::Critical,
        alone: true,
        grown: true,
        complete: scene.call.complete,
        calls: 1,
        expected: "no key accepted from a client that tries keys".into(),
        seen: format!("{id} was accepted, at a network new to it"),
        clause: format!("had key {id} accepted after trying many"),
        title: "A tried key was accepted",
        first_step: "Disable the accepted key and block the address at the edge",
    }
}

/// Key ids are keyed hashes already.
fn hash(id: KeyId) -> u64 {
    id.0 as u64
}
