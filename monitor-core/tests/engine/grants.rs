//! OAuth 2.0 that is abused.

use std::net::Ipv4Addr;

use monitor_core::alert::{Entity, Severity};
use monitor_core::call::{
    ApiCall, Carried, Detail, OAuth, Operation, Outcome, SignatureId, Signed,
};

use crate::world::{MINUTE, SECOND, START, World, call, detectors, show};

const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const OTHER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);

fn named(time: u64, ip: Ipv4Addr, outcome: Outcome, oauth: OAuth) -> ApiCall {
    let detail = Detail { oauth: Some(Box::new(oauth)), ..Detail::default() };
    let asked = call(time, None, ip, Operation::Auth, Some(outcome));
    ApiCall { detail: Some(Box::new(detail)), ..asked }
}

fn redirected(time: u64, outcome: Outcome, to: &str) -> ApiCall {
    let client = Some(SignatureId(7));
    named(time, OTHER, outcome, OAuth { client, redirect: Some(to.into()), ..OAuth::default() })
}

fn typed(time: u64, ip: Ipv4Addr, outcome: Outcome, code: u64) -> ApiCall {
    named(time, ip, outcome, OAuth { user_code: Some(SignatureId(code)), ..OAuth::default() })
}

#[test]
fn a_redirect_that_is_not_the_clients() {
    let mut world = World::new(90, 0);
    for n in 0..6 {
        world.feed(&redirected(START + n * MINUTE, Outcome::Ok, "https://desk.example/cb"));
    }
    let later = START + 60 * MINUTE;
    world.feed(&redirected(later, Outcome::Error, "https://desk.example.evil.example/cb"));
    assert_eq!(world.alerts.len(), 0, "it was refused: {}", show(&world.alerts));
    world.feed(&redirected(later, Outcome::Ok, "https://desk.example.evil.example/cb"));
    let raised = world.raised();
    assert_eq!(raised.len(), 1, "{}", show(&world.alerts));
    assert_eq!((detectors(raised[0]), raised[0].severity), (vec!["D26"], Severity::High));
    assert!(raised[0].findings[0].seen.contains("desk.example.evil.example"));
}

/// An answer that went somewhere, asked for at `asked` or anywhere.
fn answered(time: u64, asked: Option<&str>, to: &str, carries: Carried) -> ApiCall {
    let oauth = OAuth {
        client: Some(SignatureId(7)),
        redirect: asked.map(Into::into),
        answered: Some(to.into()),
        carries: Some(carries),
        ..OAuth::default()
    };
    named(time, OTHER, Outcome::Ok, oauth)
}

#[test]
fn an_answer_that_goes_elsewhere_than_it_was_asked_to() {
    const OWN: &str = "https://desk.example/cb";
    const EVIL: &str = "https://evil.example/cb";
    let settled = |seed| {
        let mut world = World::new(seed, 0);
        for n in 0..6 {
            let asked = (n % 2 == 0).then_some(OWN);
            world.feed(&answered(START + n * MINUTE, asked, OWN, Carried::Code));
        }
        world
    };
    let later = START + 60 * MINUTE;
    for asked in [Some(OWN), None] {
        let mut world = settled(94);
        world.feed(&answered(later, asked, EVIL, Carried::Error));
        assert_eq!(world.alerts.len(), 0, "it gave nothing: {}", show(&world.alerts));
        world.feed(&answered(later, asked, EVIL, Carried::Code));
        let raised = world.raised();
        assert_eq!(raised.len(), 1, "{}", show(&world.alerts));
        assert_eq!((detectors(raised[0]), raised[0].severity), (vec!["D26"], Severity::High));
        let seen = &raised[0].findings[0].seen;
        assert!(seen.contains("a code to https://evil.example/cb"), "{seen}");
        assert_eq!(seen.contains("and not to https://desk.example/cb"), asked.is_some(), "{seen}");
    }
    // A page of the server's own, and a slash more.
    let mut world = settled(95);
    world.feed(&answered(later, Some(OWN), "/consent", Carried::Code));
    world.feed(&answered(later, Some(OWN), "https://desk.example/cb/", Carried::Code));
    // Of another client nothing is known yet: weak evidence, and no alert.
    let mut first = answered(later, Some("https://new.example/cb"), EVIL, Carried::Token);
    let oauth = first.detail.as_mut().and_then(|detail| detail.oauth.as_mut());
    oauth.expect("has it").client = Some(SignatureId(8));
    world.feed(&first);
    assert_eq!(world.alerts.len(), 0, "{}", show(&world.alerts));
}

#[test]
fn codes_of_devices_that_are_guessed() {
    let mut world = World::new(91, 0);
    for n in 0..20 {
        world.feed(&typed(START + n * SECOND, CLIENT, Outcome::Ok, n));
        world.feed(&typed(START + n * SECOND, CLIENT, Outcome::Error, 99));
    }
    assert_eq!(world.alerts.len(), 0, "an office: {}", show(&world.alerts));
    (0..9).for_each(|n| world.feed(&typed(START + n * SECOND, OTHER, Outcome::Error, 100 + n)));
    let raised = world.raised();
    assert_eq!(raised.len(), 1, "{}", show(&world.alerts));
    assert_eq!(
        (detectors(raised[0]), raised[0].entity),
        (vec!["D3"], Entity::Client(OTHER.into()))
    );
}

#[test]
fn a_device_that_asks_too_often() {
    let polls = |gap: u64| {
        let mut world = World::touchy(92, 0);
        let fingerprint = Some(SignatureId(5));
        for n in 0..120 {
            let signed = Some(Signed { fingerprint, ..Signed::default() });
            let name = Some("grant_type=device_code".into());
            let detail = Detail { name, signed, ..Detail::default() };
            let time = START + n * gap;
            let asked = call(time, None, CLIENT, Operation::Auth, Some(Outcome::Error));
            world.feed(&ApiCall { detail: Some(Box::new(detail)), ..asked });
        }
        let asks = |alert: &&&monitor_core::alert::Alert| alert.title.contains("too often");
        world.raised().iter().filter(asks).count()
    };
    assert_eq!((polls(5 * SECOND), polls(SECOND)), (0, 1));
}

#[test]
fn a_device_that_is_let_in_from_another_network() {
    let mut world = World::new(93, 0);
    let device = |time: u64, ip, name: &str, outcome, n: u64, code: bool| {
        let signed = Some(Signed { fingerprint: Some(SignatureId(n)), ..Signed::default() });
        let oauth = OAuth { user_code: Some(SignatureId(n + 1_000)), ..OAuth::default() };
        let oauth = code.then(|| Box::new(oauth));
        let detail = Detail { name: Some(name.into()), signed, oauth, ..Detail::default() };
        let asked = call(time, None, ip, Operation::Auth, Some(outcome));
        ApiCall { detail: Some(Box::new(detail)), ..asked }
    };
    let mut let_in = |n: u64, from: Ipv4Addr| {
        let time = START + n * MINUTE;
        world.feed(&device(time, CLIENT, "device_authorization", Outcome::Ok, n, true));
        world.feed(&device(time, CLIENT, "grant_type=device_code", Outcome::Error, n, false));
        world.feed(&typed(time + SECOND, from, Outcome::Ok, n + 1_000));
        world.feed(&device(time, CLIENT, "grant_type=device_code", Outcome::Ok, n, false));
        world.alerts.len()
    };
    // At home; a telephone on its own network may be usual as far as anybody knows.
    assert_eq!(let_in(500, OTHER), 0);
    (0..30).for_each(|n| assert_eq!(let_in(n * 30, CLIENT), 0));
    let_in(1_000, OTHER);
    let raised = world.raised();
    assert_eq!(raised.len(), 1, "{}", show(&world.alerts));
    assert_eq!(detectors(raised[0]), ["D14"]);
}
