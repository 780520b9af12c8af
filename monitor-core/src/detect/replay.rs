//! D12: a signed request is made again, or an old nonce is taken (CAPEC-60).
//!
//! A client that gets no answer may send the same bytes again; nobody else has them. What passes a proxy
//! on this host is seen twice too.

use std::hash::BuildHasher;

use foldhash::quality::FixedState;

use super::{Detector, Found, Layer, Report, Rule, Scene, op_words, outside_network, span};
use crate::alert::{Entity, Severity};
use crate::baseline::{Again, Signing};
use crate::call::{ApiCall, Key, KeyId, Operation, Outcome, SignatureId, Signed};
use crate::time::EventTime;

pub(super) struct Replay;

static RULE: Rule = Rule {
    id: "D12",
    name: "signature or nonce replay",
    layer: Layer::Invariant,
    attack: &["T1557"],
    owasp: &["API2"],
};

/// The server took what it should not have.
const EVIDENCE_ACCEPTED: f32 = 6.0;
/// It did not.
const EVIDENCE_REFUSED: f32 = 3.0;
/// A program that repeats itself.
const EVIDENCE_SAME_CLIENT: f32 = 1.0;
/// A nonce that is far behind.
const EVIDENCE_NONCE: f32 = 3.0;

/// A retry comes within this; time-outs of client libraries are 5 to 30 s.
pub(super) const RETRY_S: u64 = 60;
/// A proxy passes a request on within this; they wait a minute at most for one to be free.
const PROXY_S: u64 = 60;
/// Requests that overtake each other are seconds apart. A nonce that is a time is measured as one.
const NONCE_BEHIND_MS: u64 = 600_000;
/// Others count requests.
const NONCE_BEHIND: u64 = 1_000;

impl Detector for Replay {
    fn on_call(&self, scene: &mut Scene<'_>, report: &mut Report) {
        let call = scene.call;
        let Some(detail) = &call.detail else { return };
        let Some(signed) = detail.signed else { return };
        // Codes and tokens are no signatures: see `token_reuse`.
        if detail.name.as_deref().is_some_and(|name| name.starts_with("grant_type=")) {
            return;
        }
        let Some(key) = &call.key else { return };
        let settings = &scene.settings.replay;
        let network = outside_network(&scene.address);
        let (time_s, max) = (scene.time.secs(), settings.requests_max);
        let again = hashes(call, key, &signed)
            .find_map(|hash| scene.across.replays.add(hash, network, time_s, max));
        let Some((id, state)) = &mut scene.key else { return };
        let minute = u32::try_from(scene.time.secs() / 60).unwrap_or(u32::MAX);
        let what = op_words(call.op);
        let words = |evidence, severity, alone, expected: &str, seen: String| Found {
            entity: Entity::Key(*id),
            rule: &RULE,
            evidence,
            severity,
            alone,
            grown: false,
            complete: call.complete,
            calls: 1,
            expected: expected.into(),
            clause: format!("had {seen}"),
            seen,
            title: "Signed request replayed",
            first_step: "Find out who can read the traffic of this key, give it a new secret, \
                         and let the server refuse signatures that it has seen",
        };
        if let Some(again) = again
            && let Some((severity, evidence, alone)) = judge(again, call)
        {
            if state.signing.is_news(minute, severity as u8) {
                report.add(|| {
                    let Again { same_client, age_s, .. } = again;
                    let whose = if same_client { "its own" } else { "another" };
                    let ago = span(std::time::Duration::from_secs(age_s));
                    let ended = call.outcome.map_or("unanswered", Outcome::as_str);
                    let client = call.client();
                    let seen = format!(
                        "{what} made again with the same signature from {client} ({ended}), first \
                         seen {ago} before from {whose} network"
                    );
                    words(evidence * scene.weight, severity, alone, "each signature once", seen)
                });
            }
            return;
        }
        let Some(nonce) = signed.nonce.filter(|_| call.outcome == Some(Outcome::Ok)) else {
            return;
        };
        let behind = far_behind(&state.signing, nonce, scene.time);
        state.signing.learn_nonce(nonce);
        if let Some(behind) = behind.filter(|_| state.signing.is_news(minute, 0)) {
            report.add(|| {
                let seen = format!("{what} accepted with a nonce {behind} behind its largest");
                let evidence = EVIDENCE_NONCE * scene.weight;
                words(evidence, Severity::Medium, false, "nonces that grow", seen)
            });
        }
    }
}

/// How bad, how sure, and whether it suffices alone; `None` for what clients and proxies do.
fn judge(again: Again, call: &ApiCall) -> Option<(Severity, f32, bool)> {
    let changes = !matches!(call.op, Operation::Public | Operation::Read);
    let soon = again.age_s <= RETRY_S;
    if again.inside && again.age_s <= PROXY_S || again.same_client && soon {
        return None;
    }
    if call.outcome == Some(Outcome::Ok) {
        // One client with two ways out asks again: no harm in a read.
        return Some(if again.same_client || soon && !changes {
            (Severity::Low, EVIDENCE_SAME_CLIENT, false)
        } else {
            (Severity::High, EVIDENCE_ACCEPTED, true)
        });
    }
    let is_late = matches!(call.outcome, Some(Outcome::ReplayedNonce | Outcome::Skew));
    let is_other = is_late && !again.same_client;
    is_other.then_some((Severity::Medium, EVIDENCE_REFUSED, false))
}

/// In words how far a nonce is behind, when it is too far for requests that overtook each other.
fn far_behind(signing: &Signing, nonce: u64, now: EventTime) -> Option<String> {
    let behind = signing.nonce_behind(nonce);
    let now_ms = now.0 / 1_000_000;
    // A day about now, in the unit that fits.
    let unit = [1, 1_000, 1_000_000].into_iter().find(|unit| {
        let nonce_ms = nonce.saturating_add(behind) / unit;
        nonce_ms.abs_diff(now_ms) < 86_400_000
    });
    match unit {
        Some(unit) if behind / unit > NONCE_BEHIND_MS => {
            Some(span(std::time::Duration::from_millis(behind / unit)))
        }
        Some(_) => None,
        None => (behind > NONCE_BEHIND).then(|| behind.to_string()),
    }
}

/// Of key, signature, and what is asked: some APIs sign the parameters and not the path. First under the
/// secret before, while that is kept: who made the request before it changed is known by that, and so are
/// the agents that have not read the new one.
fn hashes(call: &ApiCall, key: &Key, signed: &Signed) -> impl Iterator<Item = u64> {
    let hash = |(key, fingerprint): (KeyId, SignatureId)| {
        let request = call.request.as_ref()?;
        let asked = (key, fingerprint, &request.method, &request.path);
        Some(FixedState::with_seed(0).hash_one(asked))
    };
    let former = key.former().first().copied().zip(signed.former).and_then(hash);
    let present = signed.fingerprint.and_then(|fingerprint| hash((key.id, fingerprint)));
    former.into_iter().chain(present)
}
