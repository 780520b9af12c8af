//! Signed requests that are made again, nonces that go back, clocks that change.

use std::net::Ipv4Addr;

use monitor_core::alert::{Alert, Severity};
use monitor_core::call::{
    ApiCall, Detail, KeyId, Operation, Outcome, Request, SignatureId, Signed,
};
use monitor_core::engine::{Engine, Settings};

use crate::world::{DAY, HOUR, MINUTE, SECOND, START, World, call, detectors, show};

const OWNER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
const THIEF: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 66);

fn signed(time: u64, ip: Ipv4Addr, op: Operation, signed: Signed) -> ApiCall {
    let request = Request {
        method: "POST".into(),
        host: None,
        target: "/api/v3/order?signature=[redacted]".into(),
        path: "/api/v3/order".into(),
        user_agent: None,
        header_order: None,
        body_bytes: 0,
    };
    let detail = Detail { signed: Some(signed), ..Detail::default() };
    ApiCall {
        request: Some(request),
        detail: Some(Box::new(detail)),
        ..call(time, Some(1), ip, op, Some(Outcome::Ok))
    }
}

fn of(fingerprint: u64) -> Signed {
    Signed { fingerprint: Some(SignatureId(fingerprint)), ..Signed::default() }
}

fn of_d12(world: &World) -> Vec<&Alert> {
    world.raised().into_iter().filter(|alert| detectors(alert).contains(&"D12")).collect()
}

/// A day of orders, each signed anew.
fn settled(touchy: bool) -> World {
    let mut world = if touchy { World::touchy(60, 0) } else { World::new(60, 0) };
    for n in 0..1440 {
        world.feed(&signed(START + n * MINUTE, OWNER, Operation::Trade, of(n)));
    }
    assert_eq!(world.alerts.len(), 0, "{}", show(&world.alerts));
    world
}

const NOW: u64 = START + DAY;

#[test]
fn an_order_that_somebody_else_makes_again_is_flagged_when_it_is_taken() {
    let mut world = settled(false);
    world.feed(&signed(NOW, THIEF, Operation::Trade, of(1_430)));
    let alerts = of_d12(&world);
    assert_eq!(alerts.len(), 1, "{}", show(&world.alerts));
    assert_eq!(alerts[0].severity, Severity::High);
    assert!(alerts[0].explanation.contains("the same signature from 203.0.113.66"));
    // A thousand more in the same minute are one alert.
    for n in 0..1_000 {
        world.feed(&signed(NOW + n, THIEF, Operation::Trade, of(400 + n)));
    }
    assert_eq!(of_d12(&world).len(), 1, "{}", show(&world.alerts));
}

#[test]
fn a_replay_that_is_refused_is_evidence_only() {
    let mut world = settled(false);
    let replayed = signed(NOW, THIEF, Operation::Trade, of(1_430));
    world.feed(&ApiCall { outcome: Some(Outcome::ReplayedNonce), ..replayed.clone() });
    assert_eq!(of_d12(&world).len(), 0, "{}", show(&world.alerts));
    let mut world = settled(true);
    world.feed(&ApiCall { outcome: Some(Outcome::ReplayedNonce), ..replayed });
    assert_eq!(of_d12(&world)[0].severity, Severity::Medium);
}

#[test]
fn retries_and_proxies_are_quiet() {
    let mut world = settled(true);
    // No answer in time, so once more; from the next address of the same network too.
    for n in 0..3u64 {
        let ip = Ipv4Addr::new(198, 51, 100, 10 + n as u8 % 2);
        world.feed(&signed(NOW + n * 5 * SECOND, ip, Operation::Trade, of(9_000)));
    }
    // nginx passes it on within the host, and that record comes first.
    let inside = Ipv4Addr::new(127, 0, 0, 1);
    world.feed(&signed(NOW + MINUTE + 2, inside, Operation::Trade, of(9_001)));
    world.feed(&signed(NOW + MINUTE, OWNER, Operation::Trade, of(9_001)));
    // The same parameters in the same millisecond, to another endpoint.
    let mut other = signed(NOW + 2 * MINUTE, THIEF, Operation::Read, of(9_001));
    other.request.as_mut().unwrap().path = "/api/v3/account".into();
    world.feed(&other);
    assert_eq!(of_d12(&world).len(), 0, "{}", show(&world.alerts));
    // A program that repeats itself an hour later is odd, and no more.
    world.feed(&signed(NOW + HOUR, OWNER, Operation::Trade, of(9_000)));
    assert_eq!(of_d12(&world)[0].severity, Severity::Low);
}

#[test]
fn an_old_nonce_that_is_taken_is_evidence() {
    let nonce = |nonce| Signed { nonce: Some(nonce), ..Signed::default() };
    for unit in [1_000_000, 1_000, 1] {
        let mut world = World::touchy(61, 0);
        for n in 0..100u64 {
            // Requests overtake each other.
            let at = START + (n ^ 1) * SECOND;
            let order = signed(START + n * SECOND, OWNER, Operation::Trade, nonce(at / unit));
            world.feed(&order);
        }
        assert_eq!(world.alerts.len(), 0, "{}", show(&world.alerts));
        let old = nonce((START - HOUR) / unit);
        world.feed(&signed(START + HOUR, OWNER, Operation::Trade, old));
        assert_eq!(of_d12(&world).len(), 1, "{}", show(&world.alerts));
        assert_eq!(of_d12(&world)[0].severity, Severity::Medium);
    }
    let mut world = World::touchy(61, 0);
    for counter in [5_000, 5_001, 4_990, 5_002, 9] {
        world.feed(&signed(START + HOUR, OWNER, Operation::Trade, nonce(counter)));
    }
    assert_eq!(of_d12(&world).len(), 1, "{}", show(&world.alerts));
    for hostile in [0, u64::MAX, 0, 1, u64::MAX - 1] {
        world.feed(&signed(START + HOUR, OWNER, Operation::Trade, nonce(hostile)));
    }
    assert_eq!(of_d12(&world).len(), 1);
}

#[test]
fn another_clock_is_evidence_and_never_an_alert_alone() {
    let stated = |n: u64, ms: u64| Signed { stated_ms: Some(ms), ..of(n) };
    let drive = |world: &mut World| {
        for n in 0..200u64 {
            let time = START + n * MINUTE;
            let late_ms = 40 + n % 30;
            world.feed(&signed(
                time,
                OWNER,
                Operation::Trade,
                stated(n, time / 1_000_000 - late_ms),
            ));
        }
        assert_eq!(world.alerts.len(), 0, "{}", show(&world.alerts));
        for n in 200..240u64 {
            let time = START + n * MINUTE;
            world.feed(&signed(time, OWNER, Operation::Trade, stated(n, time / 1_000_000 + 4_000)));
        }
    };
    let mut world = World::new(62, 0);
    drive(&mut world);
    assert_eq!(world.alerts.len(), 0, "{}", show(&world.alerts));
    let id = world.clients.first().map(|client| client.key);
    assert_eq!(id, None);
    // Hostile times do no harm.
    for ms in [0, u64::MAX, 1] {
        world.feed(&signed(START + DAY, OWNER, Operation::Trade, stated(ms, ms)));
    }
    assert_eq!(world.alerts.len(), 0, "{}", show(&world.alerts));
}

#[test]
fn a_flood_of_signatures_stays_in_its_room() {
    let mut settings = Settings::default();
    settings.replay.requests_max = 10_000;
    let mut world = World::new(63, 0);
    world.engine = Engine::new(settings);
    for n in 0..200_000u64 {
        world.feed(&signed(START + n * SECOND / 100, OWNER, Operation::Trade, of(n)));
    }
    assert!(world.engine.state_bytes() < 1_000_000, "{}", world.engine.state_bytes());
    assert_eq!(of_d12(&world).len(), 0);
}

/// A request for tokens that is granted.
fn granted(time: u64, ip: Ipv4Addr, grant: &str, presented: u64) -> ApiCall {
    let mut asked = signed(time, ip, Operation::Auth, of(presented));
    asked.key = None;
    if let Some(detail) = &mut asked.detail {
        detail.name = Some(format!("grant_type={grant}").into());
    }
    asked
}

/// Clients that refresh every hour for a day, each token once, or the same one all the time.
fn refreshed(rotates: bool) -> World {
    let mut world = World::new(61, 0);
    for n in 0..240 {
        let ip = Ipv4Addr::new(198, 51, n as u8 % 10, 10);
        let token = if rotates { 1_000 + n } else { n % 10 };
        world.feed(&granted(START + n * 6 * MINUTE, ip, "refresh_token", token));
    }
    assert_eq!(world.alerts.len(), 0, "{}", show(&world.alerts));
    world
}

#[test]
fn a_refresh_token_that_somebody_else_uses_again_is_flagged_where_tokens_are_given_anew() {
    let mut world = refreshed(true);
    world.feed(&granted(NOW, THIEF, "refresh_token", 1_235));
    let [alert] = world.raised()[..] else { panic!("{}", show(&world.alerts)) };
    assert_eq!((detectors(alert), alert.severity), (vec!["D14"], Severity::High));
    assert!(alert.explanation.contains("got tokens for a refresh token that another network"));
    // Refused, it harms nobody.
    let mut world = refreshed(true);
    let mut refused = granted(NOW, THIEF, "refresh_token", 1_235);
    refused.outcome = Some(Outcome::Error);
    world.feed(&refused);
    // Where a token stays the same, a client that has moved is no thief.
    let mut roaming = refreshed(false);
    roaming.feed(&granted(NOW, THIEF, "refresh_token", 5));
    assert!(world.alerts.is_empty() && roaming.alerts.is_empty(), "{}", show(&roaming.alerts));
}

#[test]
fn a_code_is_taken_once() {
    for grant in ["authorization_code", "device_code"] {
        let mut world = World::new(62, 0);
        for n in 0..10 {
            let mut polled = granted(NOW + n * SECOND, OWNER, grant, 7);
            polled.outcome = Some(Outcome::Error);
            world.feed(&polled);
        }
        world.feed(&granted(NOW + MINUTE, OWNER, grant, 7));
        // It had no answer.
        world.feed(&granted(NOW + MINUTE + SECOND, OWNER, grant, 7));
        assert!(world.alerts.is_empty(), "{grant}: {}", show(&world.alerts));
        world.feed(&granted(NOW + 2 * MINUTE, THIEF, grant, 7));
        let [alert] = world.raised()[..] else { panic!("{grant}: {}", show(&world.alerts)) };
        assert_eq!((detectors(alert), alert.severity), (vec!["D12"], Severity::High));
    }
}

/// The call as an agent says it once the secret has changed, with the one before kept.
fn under_a_new_secret(mut call: ApiCall) -> ApiCall {
    let key = call.key.as_mut().expect("has a key");
    (key.id, key.former) = (KeyId(!key.id.0), Some([key.id].into()));
    let signed = call.detail.as_mut().and_then(|detail| detail.signed.as_mut()).expect("is signed");
    signed.former = signed.fingerprint;
    signed.fingerprint = signed.fingerprint.map(|id| SignatureId(id.0 ^ 1 << 40));
    call
}

#[test]
fn a_signature_is_known_across_a_change_of_the_secret() {
    let new = under_a_new_secret;
    let order = |time, ip, n| signed(time, ip, Operation::Trade, of(n));
    // Made before the change, or where the new secret was not read yet, and again after it; and the other
    // way round.
    let mut world = settled(false);
    world.feed(&new(order(NOW, OWNER, 3_000)));
    world.feed(&new(order(NOW + MINUTE, THIEF, 1_430)));
    assert_eq!(of_d12(&world).len(), 1, "{}", show(&world.alerts));
    let mut world = settled(false);
    world.feed(&new(order(NOW, OWNER, 3_000)));
    world.feed(&order(NOW + MINUTE, THIEF, 3_000));
    assert_eq!(of_d12(&world).len(), 1, "{}", show(&world.alerts));
    // The former secret is kept no more: the request is known by the new one.
    let mut world = settled(false);
    let mut kept = new(order(NOW, OWNER, 3_000));
    world.feed(&kept);
    let mut late = new(order(NOW + MINUTE, THIEF, 3_000));
    late.key.as_mut().unwrap().former = None;
    late.detail.as_mut().unwrap().signed.as_mut().unwrap().former = None;
    world.feed(&late);
    assert_eq!(of_d12(&world).len(), 1, "{}", show(&world.alerts));
    // Each signed anew is nobody's.
    let mut world = settled(false);
    for n in 0..200 {
        kept = new(order(NOW + n * MINUTE, OWNER, 3_000 + n));
        world.feed(&kept);
    }
    assert_eq!(world.alerts.len(), 0, "{}", show(&world.alerts));
    // Whose it was stays known: he who made it first may ask again at once, however often others did.
    let mut world = settled(false);
    (1..4).for_each(|n| world.feed(&new(order(NOW + n * HOUR, THIEF, 1_430))));
    assert_eq!(of_d12(&world).len(), 3, "{}", show(&world.alerts));
}
