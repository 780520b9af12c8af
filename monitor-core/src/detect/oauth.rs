//! OAuth 2.0 that is abused: D26, an answer that is to go, or goes, where the client's never went (RFC 9700, 4.1); D3,
//! codes of devices that are guessed (RFC 8628, 5.1), and devices that ask too often (3.5); D14, a device
//! that is let in from another network than its own (5.4).

use compact_str::CompactString;

use super::{Detector, Found, Layer, Report, Rule, Scene, ip, outside_network};
use crate::alert::{Entity, Severity};
use crate::baseline::RedirectStanding;
use crate::call::{Carried, OAuth, Operation, Outcome, SignatureId};
use crate::identity::DEVICE_AUTHORIZATION;

pub(super) struct Grants;

static REDIRECT: Rule = Rule {
    id: "D26",
    name: "redirect that is not the client's",
    layer: Layer::Invariant,
    attack: &["T1528"],
    owasp: &["API2"],
};

static GUESSED: Rule = Rule {
    id: "D3",
    name: "codes of devices guessed",
    layer: Layer::Invariant,
    attack: &["T1110.001", "T1528"],
    owasp: &["API2"],
};

static PHISHED: Rule = Rule {
    id: "D14",
    name: "device let in from elsewhere",
    layer: Layer::Behaviour,
    attack: &["T1528", "T1566"],
    owasp: &["API2"],
};

const EVIDENCE: f32 = 5.5;
/// It was refused, or is only a fast client.
const EVIDENCE_WEAK: f32 = 2.0;

/// Different codes from one address in a quarter of an hour that were refused: a person mistypes some. And
/// all, where a server answers with a page whatever was typed: of an office whose devices are set up.
const REFUSED_MIN: u16 = 8;
const TRIED_MIN: usize = 24;

/// Questions of one device in a minute: every 5 s is the default (RFC 8628, 3.2), and this is twice as many.
const POLLS_MAX: u16 = 24;

impl Detector for Grants {
    fn on_call(&self, scene: &mut Scene<'_>, report: &mut Report) {
        let call = scene.call;
        if call.op != Operation::Auth {
            return;
        }
        let Some(detail) = call.detail.as_deref() else { return };
        if let Some(oauth) = &detail.oauth {
            redirect(oauth, scene, report);
            answered(oauth, scene, report);
            if detail.name.as_deref() != Some(DEVICE_AUTHORIZATION) {
                user_code(oauth, scene, report);
            }
        }
        let Some(code) = detail.signed.and_then(|signed| signed.fingerprint) else { return };
        let name = detail.name.as_deref();
        if name == Some(DEVICE_AUTHORIZATION)
            && let Some(shown) = detail.oauth.as_ref().and_then(|oauth| oauth.user_code)
        {
            scene.across.grants.shows(code, shown);
        }
        if name == Some(DEVICE) && call.outcome == Some(Outcome::Ok) {
            let_in(code, scene, report);
        } else if name == Some(DEVICE) {
            let polls = scene.across.grants.poll(code, scene.time.secs(), POLLS_MAX);
            let Some(polls) = polls else { return };
            report.add(|| Found {
                evidence: EVIDENCE_WEAK * scene.weight,
                severity: Severity::Low,
                calls: u64::from(polls),
                expected: "a device that asks every few seconds whether it was let in".into(),
                seen: format!("{polls} questions in a minute"),
                clause: format!("asked {polls} times in a minute whether a device was let in"),
                title: "Device asks for tokens too often",
                first_step: "Look whether the server tells it to slow down, and refuses it if it does \
                             not",
                ..base(scene, &GUESSED)
            });
        }
    }
}

/// As calls with a device code are named.
const DEVICE: &str = "grant_type=device_code";

fn let_in(device: SignatureId, scene: &mut Scene<'_>, report: &mut Report) {
    let network = outside_network(&scene.address);
    let Some(is_rare) = scene.across.grants.let_in(device, network) else { return };
    report.add(|| Found {
        evidence: scene.weight * if is_rare { EVIDENCE } else { EVIDENCE_WEAK },
        severity: if is_rare { Severity::High } else { Severity::Low },
        alone: is_rare,
        calls: 2,
        expected: "a device that is let in from its own network".into(),
        seen: "its code was typed in another network".into(),
        clause: "got tokens for a device whose code was typed in another network".into(),
        title: "Device let in from another network",
        first_step: "Ask the account's owner whether the device is theirs: who is sent a code by \
                     somebody else lets that one in",
        ..base(scene, &PHISHED)
    });
}

/// Where a client's answer is to go.
fn redirect(oauth: &OAuth, scene: &mut Scene<'_>, report: &mut Report) {
    let (Some(client), Some(to)) = (oauth.client, &oauth.redirect) else { return };
    let is_taken = scene.call.outcome == Some(Outcome::Ok);
    if scene.call.outcome.is_none()
        || scene.across.grants.redirect(client, to, is_taken) != RedirectStanding::Odd
    {
        return;
    }
    let ended = if is_taken { "was taken" } else { "was refused" };
    report.add(|| Found {
        evidence: scene.weight * if is_taken { EVIDENCE } else { EVIDENCE_WEAK },
        severity: if is_taken { Severity::High } else { Severity::Low },
        alone: is_taken,
        seen: format!("{to}, which {ended}"),
        clause: format!("asked for a client's answer to go to {to}, which {ended}"),
        ..of_redirect(scene)
    });
}

/// Where it went, when that is not where it was to go: a server that reads an address otherwise than it
/// checks it, or that takes what was never asked for.
fn answered(oauth: &OAuth, scene: &mut Scene<'_>, report: &mut Report) {
    let (Some(client), Some(to), Some(carries)) = (oauth.client, &oauth.answered, oauth.carries)
    else {
        return;
    };
    let is_same = |asked: &CompactString| asked.trim_end_matches('/') == to.trim_end_matches('/');
    // What stays on the server is a page of its own.
    if !to.contains(':') || oauth.redirect.as_ref().is_some_and(is_same) {
        return;
    }
    let gives = carries != Carried::Error;
    let is_odd = match scene.across.grants.redirect(client, to, gives) {
        RedirectStanding::Known => return,
        RedirectStanding::New if oauth.redirect.is_none() => return,
        RedirectStanding::New => false,
        RedirectStanding::Odd => gives,
    };
    let asked = match &oauth.redirect {
        Some(asked) => format!(" and not to {asked}"),
        None => String::new(),
    };
    report.add(|| Found {
        evidence: scene.weight * if is_odd { EVIDENCE } else { EVIDENCE_WEAK },
        severity: if is_odd { Severity::High } else { Severity::Low },
        alone: is_odd,
        seen: format!("a redirect with a {carries} to {to}{asked}"),
        clause: format!("had a client's answer sent to {to}{asked}"),
        ..of_redirect(scene)
    });
}

fn of_redirect(scene: &Scene<'_>) -> Found {
    Found {
        calls: 1,
        expected: "an address that the client's answers went to before".into(),
        title: "Redirect that is not the client's",
        first_step: "Compare the address with what the client registered, character by character; if \
                     the server took another, end the tokens that it gave since",
        ..base(scene, &REDIRECT)
    }
}

fn user_code(oauth: &OAuth, scene: &mut Scene<'_>, report: &mut Report) {
    let Some(code) = oauth.user_code else { return };
    let is_refused = scene.call.outcome.is_some_and(|outcome| outcome != Outcome::Ok);
    let is_many = |tried, refused| refused >= REFUSED_MIN || tried >= TRIED_MIN;
    let network = outside_network(&scene.address);
    let grants = &mut scene.across.grants;
    if !is_refused {
        grants.typed(code, network);
    }
    let tried = grants.code(scene.address, code, is_refused, scene.time.secs(), is_many);
    let Some(tried) = tried else { return };
    report.add(|| Found {
        entity: Entity::Client(ip(&scene.address)),
        evidence: EVIDENCE,
        severity: Severity::High,
        alone: true,
        calls: tried as u64,
        expected: "a person who types the code of one device".into(),
        seen: format!("{tried} different codes in a quarter of an hour"),
        clause: format!("tried {tried} different codes of devices in a quarter of an hour"),
        title: "Codes of devices are guessed",
        first_step: "Block the address, and see which devices were let in from there",
        ..base(scene, &GUESSED)
    });
}

/// What all of them have in common.
fn base(scene: &Scene<'_>, rule: &'static Rule) -> Found {
    let entity = match &scene.key {
        Some((id, _)) => Entity::Key(*id),
        None => Entity::Client(ip(&scene.address)),
    };
    Found {
        entity,
        rule,
        evidence: 0.0,
        severity: Severity::Low,
        alone: false,
        grown: false,
        complete: scene.call.complete,
        calls: 0,
        expected: String::new(),
        seen: String::new(),
        clause: String::new(),
        title: "",
        first_step: "",
    }
}
