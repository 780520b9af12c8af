//! D7: a key is used from several networks at the same time.
//!
//! Distance on the map plays no part: no database of places ships with Keywatch, and those that can be
//! had put whole clouds and carriers in one spot.

use super::{Detector, Found, Layer, Report, Rule, Scene};
use crate::alert::{Entity, Severity};
use crate::baseline::{Mark, prefix};
use crate::call::Outcome;

pub(super) struct ConcurrentUse;

static RULE: Rule = Rule {
    id: "D7",
    name: "use from several networks at once",
    layer: Layer::Behaviour,
    attack: &["T1550.001"],
    owasp: &["API2"],
};

/// Two networks never suffice: whoever has two egresses does as much. Each further one adds.
const EVIDENCE_TWO_MAX: f64 = 3.0;
const EVIDENCE_MORE: f64 = 0.75;
/// While a key is young it shows where it runs.
const EVIDENCE_YOUNG_MAX: f64 = 0.5;
/// Part of the log-odds that counts: minutes of use are not independent of each other.
const TEMPER: f64 = 0.5;
/// In turns within a quarter of an hour is how a telephone moves about too.
const EVIDENCE_TURNS_MAX: f64 = 2.5;
/// Minutes of use, and quarters of an hour, before a key's custom is known.
const MINUTES_MIN: u16 = 60;
const QUARTERS_MIN: u16 = 20;

impl Detector for ConcurrentUse {
    fn on_call(&self, scene: &mut Scene<'_>, report: &mut Report) {
        let Some((id, key)) = &mut scene.key else { return };
        if scene.call.outcome != Some(Outcome::Ok) {
            return;
        }
        let network = Mark::of(prefix(&scene.address));
        let is_v6 = scene.address[..10] != [0; 10];
        let in_minute = key.concurrency.note(network, is_v6).map(|networks| (networks, true));
        let in_quarter = key.turns.note(network, is_v6).map(|networks| (networks, false));
        let Some((networks, is_minute)) = in_minute.or(in_quarter) else { return };
        let (window, span, least, two_max) = if is_minute {
            (&mut key.concurrency, "a minute", MINUTES_MIN, EVIDENCE_TWO_MAX)
        } else {
            (&mut key.turns, "a quarter of an hour", QUARTERS_MIN, EVIDENCE_TURNS_MAX)
        };
        let (windows, chance) = (window.windows(), window.chance());
        if windows < least {
            return;
        }
        let is_young = scene.time.since(key.first_seen).as_secs() < scene.settings.young_key_s;
        let most = if is_young { EVIDENCE_YOUNG_MAX } else { two_max };
        let two = (-chance.ln() * TEMPER).clamp(0.0, most);
        let more = if is_young { 0.0 } else { EVIDENCE_MORE * (networks.saturating_sub(2)) as f64 };
        let evidence = if two < 1.0 { two } else { two + more };
        if evidence >= 1.0 {
            window.note_odd();
        }
        let client = scene.call.client();
        report.add(|| Found {
            entity: Entity::Key(*id),
            rule: &RULE,
            evidence: evidence as f32 * scene.weight,
            severity: Severity::Medium,
            alone: false,
            grown: false,
            complete: scene.call.complete,
            calls: 1,
            expected: format!("several networks within {span} one time in {:.0}", 1.0 / chance),
            seen: format!("{networks} networks in turns within {span}, one of them with {client}"),
            clause: format!("was used from {networks} networks in turns within {span}"),
            title: "API key used from several networks at once",
            first_step: "Ask the key's owner whether they run it in two places; \
                         if not, disable the key",
        });
    }
}
