//! D19: a key cancels far more of its orders than it does, at a rate that loads the market.
//!
//! What was filled does not stand in calls, so the ratio is of orders to cancellations. A market maker
//! cancels nearly all of them, always: each key's own custom is its tier.

use super::{Detector, Found, Layer, Report, Rule, Scene};
use crate::alert::{Entity, Severity};
use crate::baseline::op_index;
use crate::call::Operation;

pub(super) struct QuoteStuffing;

static RULE: Rule = Rule {
    id: "D19",
    name: "order to cancel ratio",
    layer: Layer::Behaviour,
    attack: &["T1499.003"],
    owasp: &["API6", "OAT-015"],
};

/// At the bar, at ten times the least volume, and at most.
const EVIDENCE_MIN: f32 = 2.0;
const EVIDENCE_MAX: f32 = 4.0;
/// Cancellations in a minute that load anything: one a second.
const CANCELS_MIN: u32 = 60;

impl Detector for QuoteStuffing {
    fn on_call(&self, scene: &mut Scene<'_>, report: &mut Report) {
        let is_cancel = match scene.call.op {
            Operation::Trade => false,
            Operation::Cancel => true,
            Operation::Public
            | Operation::Read
            | Operation::Transfer
            | Operation::Withdraw
            | Operation::AddressBook
            | Operation::KeyManagement
            | Operation::Subaccount
            | Operation::Auth => return,
        };
        let Some((id, key)) = &mut scene.key else { return };
        let age_s = scene.time.since(key.first_seen).as_secs();
        if !scene.is_authentic || age_s < scene.settings.young_key_s {
            return;
        }
        let (trade, cancel) = (op_index(Operation::Trade), op_index(Operation::Cancel));
        let (usual_orders, usual_cancels) = (key.rate.mean_of(trade), key.rate.mean_of(cancel));
        let (orders, cancels) = (key.rate.count_of(trade), key.rate.count_of(cancel));
        let judge = cancels >= CANCELS_MIN;
        if key.quoting.note(is_cancel, usual_orders, usual_cancels, judge).is_none() {
            return;
        }
        let volume = (cancels as f32 / CANCELS_MIN as f32).log10().clamp(0.0, 1.0);
        let usual = usual_cancels / usual_orders.max(1e-3);
        report.add(|| Found {
            entity: Entity::Key(*id),
            rule: &RULE,
            evidence: (EVIDENCE_MIN + (EVIDENCE_MAX - EVIDENCE_MIN) * volume) * scene.weight,
            severity: Severity::Medium,
            alone: false,
            grown: false,
            complete: scene.call.complete,
            calls: u64::from(orders) + u64::from(cancels),
            expected: format!("about {usual:.1} cancellations for each order"),
            seen: format!("{cancels} cancellations and {orders} orders within a minute"),
            clause: format!(
                "made {cancels} cancellations and {orders} orders within a minute where {usual:.1} \
                 an order are usual"
            ),
            title: "API key stuffs the market with orders that it cancels",
            first_step: "Throttle the key's orders and tell market surveillance",
        });
    }
}
