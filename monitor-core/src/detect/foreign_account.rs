//! D26: a key names an account that is not its own, and is served (OWASP API1:2023, API3:2023).
//!
//! In February 2022 Coinbase took orders that named another account than the signer's. Each key's own
//! accounts are learnt; what other keys keep on naming is theirs; a policy may say both at once.

use super::{Detector, Found, Layer, Report, Rule, Scene, changes, granted, op_words};
use crate::alert::{Entity, Severity};
use crate::baseline::{Account, op_index};
use crate::call::{Key, Operation, Outcome};

pub(super) struct ForeignAccount;

static RULE: Rule = Rule {
    id: "D26",
    name: "account that is not the key's",
    layer: Layer::Invariant,
    attack: &["T1078"],
    owasp: &["API1", "API3"],
};

const EVIDENCE: f32 = 5.5;
/// It may be an account that was made just now.
const EVIDENCE_UNKNOWN: f32 = 3.0;

/// A key that has shown this many accounts gets more of them.
const FEW: u8 = 2;

impl Detector for ForeignAccount {
    fn on_call(&self, scene: &mut Scene<'_>, report: &mut Report) {
        let call = scene.call;
        let Some(account) = call.detail.as_ref().and_then(|detail| detail.account.as_deref())
        else {
            return;
        };
        let Some((id, key)) = &mut scene.key else { return };
        if call.outcome != Some(Outcome::Ok) {
            return;
        }
        let former = call.key.as_ref().map_or(&[][..], Key::former);
        let owner = scene.owners.note(account, *id, former);
        let learnt = key.accounts.get_or_insert_default().judge(account);
        let allowed = granted(scene.policy, *id, call).allows_account(account);
        let makes_accounts = key.first_used_s[op_index(Operation::Subaccount)] != 0;
        let changes = changes(call.op);
        let (evidence, severity, alone, expected) = match (allowed, learnt) {
            (Some(true), _) | (None, Account::Own) => return,
            (Some(false), _) => {
                if !key.duty.is_news(8, scene.time) {
                    return;
                }
                let severity = if changes { Severity::High } else { Severity::Medium };
                (EVIDENCE, severity, true, "the accounts of its policy".to_owned())
            }
            (None, Account::New(known)) => {
                let expected = match known {
                    1 => "the one account that it has named so far".to_owned(),
                    known => format!("one of the {known} accounts that it has named so far"),
                };
                let foreign = owner.is_some();
                let settled = known <= FEW && !makes_accounts;
                match (changes, foreign || settled) {
                    (true, true) => (EVIDENCE, Severity::High, true, expected),
                    (false, true) if foreign => (EVIDENCE, Severity::Medium, true, expected),
                    (_, _) => (EVIDENCE_UNKNOWN, Severity::Medium, false, expected),
                }
            }
        };
        let what = op_words(call.op);
        let whose = match owner {
            Some(owner) => format!("an account that {owner} uses"),
            None => "an account that it never named before".to_owned(),
        };
        report.add(|| Found {
            entity: Entity::Key(*id),
            rule: &RULE,
            evidence: evidence * scene.weight,
            severity,
            alone,
            grown: false,
            complete: call.complete,
            calls: 1,
            expected,
            seen: format!("{what} with {whose}"),
            clause: format!("made {what} with {whose}"),
            title: "Call on an account that is not the key's",
            first_step: "Check whether the account is the key owner's; if not, stop the endpoint and \
                         undo what was done",
        });
    }
}
