//! D14: a session's cookie or token is used by another client elsewhere, while the one that it was
//! given to still uses it.
//!
//! A browser that is updated, a phone that roams and an app with two HTTP libraries do not go back
//! and forth between programs and networks at once. A thief who comes while the owner is away does not
//! either: a session that passes to a program and a network that its key was never seen with says so too,
//! as far as hardly anybody uses that program.

use super::{Detector, Found, Layer, Report, Rule, Scene};
use crate::alert::{Entity, Severity};
use crate::baseline::{Held, Holder, Mark, News, Place, prefix, print};
use crate::call::{ApiCall, Key, Outcome};

pub(super) struct SharedSession;

static RULE: Rule = Rule {
    id: "D14",
    name: "session used by another client",
    layer: Layer::Behaviour,
    attack: &["T1550.004", "T1539"],
    owasp: &["API2"],
};

/// Suffices alone: a browser session has one holder.
const EVIDENCE: f32 = 5.5;
/// A bearer token of a service, which may run in two places; with anything else it suffices.
const EVIDENCE_BEARER: f32 = 4.0;
/// A session that passed to another client: with what is new about that one it suffices.
const EVIDENCE_PASSED: f32 = 3.0;

impl Detector for SharedSession {
    fn on_call(&self, scene: &mut Scene<'_>, report: &mut Report) {
        let call = scene.call;
        let Some(kind) = call.key.as_ref().and_then(|key| kind(call, key)) else { return };
        let Some((id, key)) = &mut scene.key else { return };
        let agent = call.request.as_ref().and_then(|request| request.user_agent.as_deref());
        // Messages of a WebSocket have no agent: nothing to compare.
        if call.outcome != Some(Outcome::Ok) || agent.is_none_or(str::is_empty) {
            return;
        }
        let issued = call.token.as_ref().map(|token| (token.issued, token.expires));
        let holder = Holder {
            session: Mark::of(issued).number(),
            print: Mark::of(print(call)).number(),
            network: Mark::of(prefix(&scene.address)).number(),
        };
        let held = key.sessions.note(holder, scene.now_s);
        let rarity = if scene.place == Place::NewNetwork { scene.agent_rarity } else { 0.0 };
        let evidence = match (held, &kind) {
            (Held::InTurns, Kind::Cookie | Kind::Token) => EVIDENCE,
            (Held::InTurns, Kind::Bearer) => EVIDENCE_BEARER,
            (Held::Passed, Kind::Cookie | Kind::Token) if rarity > 0.0 => EVIDENCE_PASSED * rarity,
            // A service is moved to another machine with its token.
            (Held::Passed | Held::ByOne, _) => return,
        };
        let news = if held == Held::InTurns { News::Shared } else { News::Passed };
        if !key.is_news(news) {
            return;
        }
        let client = call.client();
        let what = match kind {
            Kind::Cookie => "session cookie",
            Kind::Token => "login token",
            Kind::Bearer => "bearer token",
        };
        let (seen, how) = match held {
            Held::InTurns => ("two client programs in two networks in turns", "in turns"),
            Held::Passed | Held::ByOne => (
                "another client program in another network than it was given to",
                "one after the other",
            ),
        };
        report.add(|| Found {
            entity: Entity::Key(*id),
            rule: &RULE,
            evidence: evidence * scene.weight,
            severity: Severity::High,
            alone: false,
            grown: false,
            complete: call.complete,
            calls: 2,
            expected: format!("one client program in one place for a {what}"),
            seen: format!("{seen}, one of them at {client}"),
            clause: format!("had its {what} used by two client programs in two networks {how}"),
            title: "Session used by two clients",
            first_step: "End the session and have its owner log in again; \
                         look at what was done since the second client appeared",
        });
    }
}

/// What names the caller.
enum Kind {
    Cookie,
    /// A token that says of itself when it was given.
    Token,
    Bearer,
}

/// `None` for keys that are no session.
fn kind(call: &ApiCall, key: &Key) -> Option<Kind> {
    if key.source.starts_with("cookie:") {
        Some(Kind::Cookie)
    } else if call.token.is_some() || key.profile == "jwt" {
        Some(Kind::Token)
    } else {
        (key.profile == "bearer").then_some(Kind::Bearer)
    }
}
