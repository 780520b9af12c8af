//! D26: a key names an account that is not its own, and is served (OWASP API1:2023, API3:2023).
//!
//! In February 2022 Coinbase took orders that named another account than the signer's. Each key's own
//! accounts are learnt, none at all too; what other keys keep on naming is theirs; a policy may say both
//! at once. How often settled keys take up a new account, and one that others use, is counted over all keys:
//! where that is common, one more does not suffice alone. A key that acts for many accounts is judged by
//! those that are others', and by how often it named such.

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

/// Another's, or not of the policy.
const EVIDENCE: f32 = 5.5;
/// It may be an account that was made just now.
const EVIDENCE_UNKNOWN: f32 = 3.0;

/// A key that has shown this many accounts gets more of them.
const FEW: u8 = 2;
/// More accounts than are remembered one by one.
const MANY: u8 = u8::MAX;
/// Calls after which a key that names no account has shown that it needs none: as for those that do.
const CALLS_WITHOUT: u64 = 50;

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
        let owner = scene.owners.note(account, *id, former, scene.now_s);
        let age_s = scene.time.since(key.first_seen).as_secs();
        // It did the same without an account for long.
        let never_named = key.accounts.is_none()
            && key.calls >= CALLS_WITHOUT
            && age_s >= scene.settings.young_key_s
            && key.first_used_s[scene.op] != 0;
        let (day, keys) = (scene.now_s / 86_400, scene.keys);
        let accounts = key.accounts.get_or_insert_default();
        let learnt = accounts.judge(account);
        let others = owner.and_then(|_| accounts.note_others(account, day));
        let allowed = granted(scene.policy, *id, call).allows_account(account);
        let makes_accounts = key.first_used_s[op_index(Operation::Subaccount)] != 0;
        let changes = changes(call.op);
        let severity = if changes { Severity::High } else { Severity::Medium };
        let foreign = owner.is_some();
        let is_settled = age_s >= scene.settings.settled_key_s;
        let usual = |known: u8| match known {
            0 => format!("no account, as in {} calls before", key.calls),
            1 => "the one account that it has named so far".to_owned(),
            MANY => "one of the many accounts that are its own".to_owned(),
            known => format!("one of the {known} accounts that it has named so far"),
        };
        let known = match learnt {
            Account::Own if never_named => Some(0),
            Account::Own => None,
            Account::New(known) => Some(known),
            Account::Early(known) => foreign.then_some(known),
            // While it shows what it acts for, it may share that with another key.
            Account::OfMany => (others.is_some() && is_settled).then_some(MANY),
        };
        let (evidence, severity, alone, expected) = match (allowed, known) {
            (Some(true), _) | (None, None) => return,
            (Some(false), _) => {
                if !key.duty.is_news(8, scene.time) {
                    return;
                }
                (EVIDENCE, severity, true, "the accounts of its policy".to_owned())
            }
            (None, Some(known)) if foreign => {
                let rarity = &mut scene.fleet.others_accounts;
                let (before, is_first_today) =
                    others.map_or((0, false), |it| (it.before, it.is_first_today));
                let days = age_s as f32 / 86_400.0;
                let rare = rarity.evidence_of(day, keys, before, days).min(EVIDENCE);
                if is_settled && is_first_today {
                    rarity.note(day, keys);
                }
                (rare, severity, rare >= scene.settings.alert_evidence_min, usual(known))
            }
            (None, Some(known)) => {
                let fleet = &mut scene.fleet;
                let rarity =
                    if known == 0 { &mut fleet.first_accounts } else { &mut fleet.new_accounts };
                let rare = rarity.evidence(day, keys).min(EVIDENCE);
                if is_settled {
                    rarity.note(day, keys);
                }
                if known <= FEW && !makes_accounts && changes {
                    (rare, severity, false, usual(known))
                } else {
                    (rare.min(EVIDENCE_UNKNOWN), Severity::Medium, false, usual(known))
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
