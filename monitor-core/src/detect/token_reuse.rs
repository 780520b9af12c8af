//! D14: a refresh token is taken from another client than the one that it was given to; D12: an
//! authorization or device code is taken twice (RFC 6749, 4.1.2 and 10.4; RFC 9700, 4.14).
//!
//! Where the server gives a new refresh token each time, an old one that is taken is a fault or a theft.
//! Where it does not, a client that has moved uses the same one: that is weak evidence alone. Which of the
//! two it is shows in what clients do in the same place.

use std::hash::BuildHasher;

use foldhash::quality::FixedState;

use super::replay::RETRY_S;
use super::{Detector, Found, Layer, Report, Rule, Scene, ip, outside_network, span};
use crate::alert::{Entity, Severity};
use crate::baseline::Again;
use crate::call::{Operation, Outcome};

pub(super) struct TokenReuse;

static REFRESH: Rule = Rule {
    id: "D14",
    name: "session used by another client",
    layer: Layer::Behaviour,
    attack: &["T1550.001", "T1528"],
    owasp: &["API2"],
};

static CODE: Rule = Rule {
    id: "D12",
    name: "signature or nonce replay",
    layer: Layer::Invariant,
    attack: &["T1550.001"],
    owasp: &["API2"],
};

const EVIDENCE: f32 = 5.5;
/// Of a server that may give the same token again.
const EVIDENCE_UNROTATED: f32 = 2.5;

/// Refreshes after which it is clear whether tokens are given anew.
const REFRESHES_MIN: u32 = 20;

/// Of so many refreshes one may be made again by the same client where tokens are given anew.
const REPEATED_PART: u32 = 10;

impl Detector for TokenReuse {
    fn on_call(&self, scene: &mut Scene<'_>, report: &mut Report) {
        let call = scene.call;
        // What is refused was polled for, or guessed.
        if call.op != Operation::Auth || call.outcome != Some(Outcome::Ok) {
            return;
        }
        let Some(detail) = &call.detail else { return };
        let grant = detail.name.as_deref().and_then(|name| name.strip_prefix("grant_type="));
        let (Some(grant), Some(signed)) = (grant, detail.signed) else { return };
        if signed.fingerprint.is_none() {
            return;
        }
        let is_refresh = grant == "refresh_token";
        if !is_refresh && grant != "authorization_code" && grant != "device_code" {
            return;
        }
        let network = outside_network(&scene.address);
        let max = scene.settings.replay.requests_max;
        let across = &mut scene.across;
        // As signatures: first under the secret before.
        let again = [signed.former, signed.fingerprint].into_iter().flatten().find_map(|id| {
            let hash = FixedState::with_seed(2).hash_one((id, grant));
            across.replays.add(hash, network, scene.time.secs(), max)
        });
        if is_refresh {
            across.refreshes = across.refreshes.saturating_add(1);
        }
        let Some(Again { same_client, inside, age_s }) = again else { return };
        if (inside || same_client) && age_s <= RETRY_S {
            return;
        }
        if is_refresh && (same_client || inside) {
            across.repeated_refreshes = across.repeated_refreshes.saturating_add(1);
            return;
        }
        let rotates = across.refreshes >= REFRESHES_MIN
            && across.repeated_refreshes <= across.refreshes / REPEATED_PART;
        let is_sure = !is_refresh || rotates;
        let entity = match &scene.key {
            Some((id, _)) => Entity::Key(*id),
            None => Entity::Client(ip(&scene.address)),
        };
        let what = match grant {
            "refresh_token" => "a refresh token",
            "device_code" => "a device code",
            _ => "an authorization code",
        };
        let whose = if same_client { "the same" } else { "another" };
        let ago = span(std::time::Duration::from_secs(age_s.max(1)));
        report.add(|| Found {
            entity,
            rule: if is_refresh { &REFRESH } else { &CODE },
            evidence: scene.weight * if is_sure { EVIDENCE } else { EVIDENCE_UNROTATED },
            severity: if is_sure { Severity::High } else { Severity::Medium },
            alone: is_sure,
            grown: false,
            complete: call.complete,
            calls: 2,
            expected: if is_refresh {
                "one client for a refresh token".into()
            } else {
                "each code once".into()
            },
            seen: format!("{what} that {whose} network had used {ago} before"),
            clause: format!("got tokens for {what} that {whose} network had used {ago} before"),
            title: "Tokens given for a code or token of somebody else",
            first_step: "End every session of the account, and let the server give a new refresh token \
                         each time and refuse the old one",
        });
    }
}
