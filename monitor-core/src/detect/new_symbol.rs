//! D18: a key trades what it never traded, and hardly anybody trades.
//!
//! One order is novelty, which never alerts alone; a run of them is behaviour. A liquid symbol, and
//! one that is newly listed and taken up by several keys, is no surprise.

use super::{Detector, Found, Layer, Report, Rule, Scene, span};
use crate::alert::{Entity, Severity};
use crate::baseline::{Familiarity, Market, News};
use crate::call::{Operation, Outcome};

pub(super) struct NewSymbol;

const ID: &str = "D18";
const NAME: &str = "new illiquid symbol";
const ATTACK: &[&str] = &["T1657"];

static NOVEL: Rule =
    Rule { id: ID, name: NAME, layer: Layer::Novelty, attack: ATTACK, owasp: &["API6"] };
static RUN: Rule =
    Rule { id: ID, name: NAME, layer: Layer::Behaviour, attack: ATTACK, owasp: &["API6"] };

/// The most that novelty may weigh: half of what an alert takes.
const EVIDENCE_MAX: f64 = 2.5;
/// A run of orders: with anything else it suffices when it is a long one.
const EVIDENCE_RUN_MAX: f64 = 4.5;
/// Part of the log-odds that counts: days of trading are not independent of each other.
const TEMPER: f64 = 0.8;
/// Orders for a new symbol within an hour that are a run, and a long one. Somebody who tries a pair
/// makes a few.
const RUN_ORDERS: u16 = 8;
const RUN_ORDERS_LONG: u16 = 20;
/// Orders before a key has shown what it trades.
const ORDERS_MIN: u16 = 30;
/// A symbol with this part of all trades is liquid: the hundred largest pairs have.
const LIQUID_SHARE: f64 = 0.01;
/// One with less is not at all.
const ILLIQUID_SHARE: f64 = 0.001;

impl Detector for NewSymbol {
    fn on_call(&self, scene: &mut Scene<'_>, report: &mut Report) {
        if scene.call.op != Operation::Trade || !scene.is_authentic {
            return;
        }
        let Some((id, key)) = &mut scene.key else { return };
        let Some(name) = scene.call.symbol.as_deref() else { return };
        let (symbol, day) = (Market::hash(name), scene.now_s / 86_400);
        let age = scene.time.since(key.first_seen);
        let symbols = key.symbols.get_or_insert_default();
        let look = symbols.look(symbol, scene.now_s);
        let is_settled = age.as_secs() >= scene.settings.settled_key_s;
        if let Familiarity::Fresh(orders) = look
            && is_settled
            && (symbols.orders() >= ORDERS_MIN || symbols.never_traded())
            && (matches!(orders, 1 | RUN_ORDERS) || orders >= RUN_ORDERS_LONG)
        {
            let is_run = orders >= RUN_ORDERS;
            let standing = scene.fleet.market.standing(symbol, day);
            let rarity = standing.share.map_or(0.0, |share| rarity(f64::from(share)));
            if rarity > 0.0
                && !standing.is_listing
                && key.is_news(if is_run { News::SymbolRun } else { News::NewSymbol })
            {
                let symbols = key.symbols.get_or_insert_default();
                let chance = if symbols.never_traded() {
                    1.0 / (age.as_secs_f64() / 86_400.0 + 2.0)
                } else {
                    symbols.chance_of_new()
                };
                let odds = -chance.ln() * TEMPER;
                let length = f64::from(orders) / f64::from(RUN_ORDERS_LONG);
                let (rule, longer, severity) = match (is_run, length >= 1.0) {
                    (true, true) => (&RUN, 1.0, Severity::High),
                    (true, false) => (&RUN, length, Severity::Medium),
                    (false, _) => (&NOVEL, 0.0, Severity::Medium),
                };
                let (factor, max) =
                    (1.0 + longer, EVIDENCE_MAX + longer * (EVIDENCE_RUN_MAX - EVIDENCE_MAX));
                let evidence = ((odds * factor).clamp(0.0, max) * rarity) as f32;
                let (known, keys) = (symbols.known(), standing.keys);
                let shown = printable(name);
                let times = if is_run { format!("{orders} orders") } else { "an order".into() };
                report.add(|| Found {
                    entity: Entity::Key(*id),
                    rule,
                    evidence: evidence * scene.weight,
                    severity,
                    alone: false,
                    grown: false,
                    complete: scene.call.complete,
                    calls: u64::from(orders),
                    expected: match symbols.never_traded() {
                        true => format!("no orders in {}", span(age)),
                        false => format!("{} that it traded before", counted(known, "symbol")),
                    },
                    seen: format!(
                        "{times} for {shown}, which {} ever traded",
                        counted(keys as usize, "key")
                    ),
                    clause: format!("made {times} for {shown}, which it never traded and few do"),
                    title: "API key trades a thin market that is new to it",
                    first_step: "Look at who is on the other side of these orders; stop the key's \
                                 trading until its owner confirms them",
                });
            }
        }
        if scene.call.outcome == Some(Outcome::Ok) {
            if key.symbols.get_or_insert_default().learn(symbol, scene.now_s) {
                scene.fleet.market.note_key(symbol, day, is_settled);
            }
            if look == Familiarity::Usual || !is_settled {
                scene.fleet.market.note_trade(symbol, day);
            }
        }
    }
}

/// How thinly a symbol with this part of all trades is traded, from 0 to 1.
fn rarity(share: f64) -> f64 {
    let (liquid, illiquid) = (LIQUID_SHARE.ln(), ILLIQUID_SHARE.ln());
    ((liquid - share.max(1e-9).ln()) / (liquid - illiquid)).clamp(0.0, 1.0)
}

/// What a client wrote, as far as it may stand in an alert.
fn printable(name: &str) -> String {
    name.chars().filter(char::is_ascii_graphic).take(32).collect()
}

/// `one key`, `2 keys`.
fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("one {what}"),
        count => format!("{count} {what}s"),
    }
}
