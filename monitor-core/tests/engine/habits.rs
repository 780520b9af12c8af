//! What a key does otherwise than it did: D7, D8, D14, D19, D21, D22 and D23.

use std::net::Ipv4Addr;

use monitor_core::alert::Severity;
use monitor_core::call::{ApiCall, Operation, Outcome, Quota, Response};

use crate::world::{
    DAY, HOUR, MINUTE, SECOND, START, World, call, detectors, found, show, with_agent,
};

const KEY: u128 = 5;
const HOME: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const AWAY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);

fn at(time: u64, ip: Ipv4Addr, op: Operation) -> ApiCall {
    call(time, Some(KEY), ip, op, Some(Outcome::Ok))
}

fn answered(mut call: ApiCall, body_bytes: u64, quota: Option<Quota>) -> ApiCall {
    call.response = Some(Response { status: Some(200), body_bytes, quota });
    call
}

/// One call a minute from `from` on, each made by `make` of its number and time.
fn each_minute(world: &mut World, from: u64, minutes: u64, make: impl Fn(u64, u64) -> ApiCall) {
    for n in 0..minutes {
        world.feed(&make(n, from + n * MINUTE));
    }
}

/// In turns from two places within a minute.
fn in_turns(world: &mut World, from: u64, calls: u64) {
    for n in 0..calls {
        let ip = if n % 2 == 0 { HOME } else { AWAY };
        world.feed(&at(from + n * 5 * SECOND, ip, Operation::Read));
    }
}

#[test]
fn use_from_two_networks_at_once() {
    let mut world = World::new(60, 0);
    world.learning = true;
    each_minute(&mut world, START, 5 * 1440, |_, time| at(time, HOME, Operation::Read));
    world.learning = false;
    in_turns(&mut world, START + 5 * DAY, 8);
    let alert = world.alerts.last().expect("flagged");
    assert_eq!(detectors(alert), ["D5", "D7"], "{}", show(&world.alerts));
    assert_eq!(alert.severity, Severity::Medium);
}

#[test]
fn two_networks_at_once_are_usual_for_some_and_a_move_is_no_use_at_once() {
    let mut world = World::touchy(61, 0);
    world.learning = true;
    for minute in 0..600 {
        in_turns(&mut world, START + minute * 3 * MINUTE, 6);
    }
    world.learning = false;
    in_turns(&mut world, START + 2 * DAY, 8);
    assert!(
        found(&world.alerts, "D7").iter().all(|finding| finding.evidence < 0.5),
        "{}",
        show(&world.alerts)
    );

    let mut world = World::touchy(62, 0);
    world.learning = true;
    each_minute(&mut world, START, 2880, |_, time| at(time, HOME, Operation::Read));
    world.learning = false;
    for (n, ip) in [HOME, AWAY, AWAY, HOME].into_iter().enumerate() {
        world.feed(&at(START + 2 * DAY + n as u64 * SECOND, ip, Operation::Read));
    }
    assert!(found(&world.alerts, "D7").is_empty());

    let mut cold = World::touchy(63, 0);
    in_turns(&mut cold, START, 200);
    assert_eq!(cold.alerts.len(), 0, "{}", show(&cold.alerts));
}

const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:131.0) Gecko/20100101 Firefox/131.0";
const CHROME: &str = "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/130.0 Safari/537.36";

fn browsed(time: u64, ip: Ipv4Addr, agent: &str, source: &str) -> ApiCall {
    let mut call = with_agent(at(time, ip, Operation::Read), agent);
    call.key.as_mut().expect("a key").source = source.into();
    call
}

/// What D14 says of calls ten seconds apart.
fn shared(source: &str, calls: &[(Ipv4Addr, &str)]) -> Vec<Severity> {
    let mut world = World::new(64, 0);
    for (n, (ip, agent)) in calls.iter().enumerate() {
        world.feed(&browsed(START + n as u64 * 10 * SECOND, *ip, agent, source));
    }
    let of = |alert: &&monitor_core::alert::Alert| detectors(alert).contains(&"D14");
    world.alerts.iter().filter(of).map(|alert| alert.severity).collect()
}

#[test]
fn a_stolen_session_cookie_shows_at_once() {
    let stolen = [(HOME, FIREFOX), (HOME, FIREFOX), (AWAY, CHROME), (HOME, FIREFOX)];
    assert_eq!(shared("cookie:session", &stolen), [Severity::High]);
    assert_eq!(shared("header:x-api-key", &stolen), [], "no session");
    let update = [(HOME, FIREFOX), (HOME, CHROME), (AWAY, CHROME), (HOME, CHROME)];
    assert_eq!(shared("cookie:session", &update), [], "another browser that roams");
    let roaming = [(HOME, FIREFOX), (AWAY, FIREFOX), (HOME, FIREFOX), (AWAY, FIREFOX)];
    assert_eq!(shared("cookie:session", &roaming), []);
    let app = [(HOME, FIREFOX), (HOME, CHROME), (HOME, FIREFOX), (HOME, CHROME)];
    assert_eq!(shared("cookie:session", &app), [], "two programs of one app");
}

#[test]
fn a_session_that_passes_to_another_client_while_its_owner_is_away() {
    let passed = |source: &str, ip: Ipv4Addr, agent: &str| {
        let mut world = World::new(67, 0);
        world.learning = true;
        // The browser that others use as well.
        for key in 0..40u128 {
            let mut call = browsed(START, HOME, FIREFOX, source);
            call.key.as_mut().expect("a key").id = monitor_core::call::KeyId(1 << 90 | key);
            world.feed(&call);
        }
        for n in 0..96 {
            world.feed(&browsed(START + n * 3_600 * SECOND, HOME, CHROME, source));
        }
        world.learning = false;
        world.feed(&browsed(START + 100 * 3_600 * SECOND, ip, agent, source));
        world.alerts.last().map(|alert| detectors(alert).join(" "))
    };
    let own = "curl/8.5.0";
    assert_eq!(passed("cookie:session", AWAY, own).as_deref(), Some("D14 D5 D6"));
    assert_eq!(passed("cookie:session", HOME, own), None, "another program at home");
    assert_eq!(passed("cookie:session", AWAY, CHROME), None, "on a journey");
    assert_eq!(passed("cookie:session", AWAY, FIREFOX), None, "a program that all have");
    assert_eq!(passed("header:x-api-key", AWAY, own), None, "no session");
}

/// Three days of 70 % reads, 20 % orders and 10 % cancellations.
fn trader(world: &mut World) -> u64 {
    world.learning = true;
    for n in 0..6_000u64 {
        let op = match world.random.below(10) {
            0..7 => Operation::Read,
            7..9 => Operation::Trade,
            _ => Operation::Cancel,
        };
        world.feed(&at(START + n * 43 * SECOND, HOME, op));
    }
    world.learning = false;
    START + 3 * DAY
}

#[test]
fn another_operation_mix_is_evidence() {
    let mut world = World::touchy(65, 0);
    let from = trader(&mut world);
    each_minute(&mut world, from, 256, |_, time| at(time, HOME, Operation::Transfer));
    let shift = found(&world.alerts, "D8");
    assert!(!shift.is_empty(), "{}", show(&world.alerts));
    assert!(shift[0].seen.contains("transfer"), "{}", shift[0].seen);
    assert!(shift.iter().all(|finding| finding.evidence <= 3.0));
}

#[test]
fn who_works_in_batches_has_no_mix_and_no_order_to_change() {
    let mut world = World::touchy(66, 0);
    let batch = |n: u64, time| {
        let op = [Operation::Read, Operation::Trade, Operation::Cancel][n as usize / 80 % 3];
        at(time, HOME, op)
    };
    world.learning = true;
    each_minute(&mut world, START, 6_000, batch);
    world.learning = false;
    each_minute(&mut world, START + 6_000 * MINUTE, 3_000, batch);
    for id in ["D8", "D19", "D23"] {
        assert!(found(&world.alerts, id).is_empty(), "{id} {}", show(&world.alerts));
    }
}

#[test]
fn another_order_of_operations_is_evidence() {
    let ops = [Operation::Read, Operation::Trade, Operation::Cancel];
    let mut world = World::touchy(67, 0);
    world.learning = true;
    each_minute(&mut world, START, 4_000, |n, time| at(time, HOME, ops[n as usize % 3]));
    world.learning = false;
    let from = START + 4_000 * MINUTE;
    each_minute(&mut world, from, 60, |n, time| at(time, HOME, ops[2 - n as usize % 3]));
    assert!(!found(&world.alerts, "D23").is_empty(), "{}", show(&world.alerts));
    assert!(found(&world.alerts, "D8").is_empty(), "the mix is the same");
}

/// Orders that are all cancelled, five a second.
fn stuff(world: &mut World, from: u64) {
    for n in 0..600 {
        let op = if n % 2 == 0 { Operation::Trade } else { Operation::Cancel };
        world.feed(&at(from + n * SECOND / 10, HOME, op));
    }
}

#[test]
fn orders_that_are_all_cancelled_are_stuffing_unless_that_is_the_custom() {
    let mut world = World::touchy(68, 0);
    world.learning = true;
    each_minute(&mut world, START, 4_000, |n, time| {
        at(time, HOME, if n % 6 == 0 { Operation::Cancel } else { Operation::Trade })
    });
    world.learning = false;
    stuff(&mut world, START + 4_000 * MINUTE);
    assert!(!found(&world.alerts, "D19").is_empty(), "{}", show(&world.alerts));

    let mut maker = World::touchy(69, 0);
    maker.learning = true;
    each_minute(&mut maker, START, 4_000, |n, time| {
        at(time, HOME, if n % 2 == 0 { Operation::Cancel } else { Operation::Trade })
    });
    maker.learning = false;
    stuff(&mut maker, START + 4_000 * MINUTE);
    assert!(found(&maker.alerts, "D19").is_empty(), "{}", show(&maker.alerts));
}

#[test]
fn two_percent_more_every_day_shows_in_the_end() {
    let grow = |per_day: f64| {
        let mut world = World::touchy(70, 0);
        for day in 0..75 {
            let grown = (f64::from(day) - 15.0).max(0.0);
            let calls = (600.0 * per_day.powf(grown)) as u64;
            for n in 0..calls {
                let time = START + u64::from(day as u32) * DAY + n * DAY / calls;
                world.feed(&at(time, HOME, Operation::Read));
                // Others do not grow.
                for other in 0..if n < 600 { 4 } else { 0 } {
                    world.feed(&call(
                        time,
                        Some(900 + other),
                        Ipv4Addr::new(10, 9, other as u8, 1),
                        Operation::Read,
                        Some(Outcome::Ok),
                    ));
                }
            }
        }
        found(&world.alerts, "D21").len()
    };
    assert!(grow(1.02) > 0);
    assert_eq!(grow(1.0), 0);
}

#[test]
fn just_under_the_limit_for_half_an_hour() {
    let told = |time, used| {
        let quota = Quota { used: Some(used), limit: Some(1_200), remaining: None };
        answered(at(time, HOME, Operation::Read), 300, Some(quota))
    };
    let mut world = World::touchy(71, 0);
    world.learning = true;
    each_minute(&mut world, START, 2_000, |n, time| told(time, 100 + n as u32 % 400));
    world.learning = false;
    each_minute(&mut world, START + 2_000 * MINUTE, 60, |_, time| told(time, 1_150));
    let near = found(&world.alerts, "D21");
    assert!(!near.is_empty(), "{}", show(&world.alerts));
    // A bot that always lives there.
    let mut world = World::touchy(72, 0);
    each_minute(&mut world, START, 4_000, |n, time| {
        told(time, if n % 50 == 0 { 200 } else { 1_150 })
    });
    assert!(
        found(&world.alerts, "D21").iter().all(|finding| finding.evidence < 0.2),
        "{}",
        show(&world.alerts)
    );
}

#[test]
fn answers_far_bigger_than_usual() {
    let answer =
        |time, bytes| answered(with_agent(at(time, HOME, Operation::Read), "x"), bytes, None);
    let mut world = World::touchy(73, 0);
    world.learning = true;
    each_minute(&mut world, START, 2_000, |n, time| answer(time, 400 + n % 900));
    world.learning = false;
    let from = START + 2_000 * MINUTE;
    each_minute(&mut world, from, 6, |_, time| answer(time, 20_000_000));
    let bulk = found(&world.alerts, "D22");
    assert!(!bulk.is_empty(), "{}", show(&world.alerts));
    assert!(bulk[0].seen.contains("20 MB"), "{}", bulk[0].seen);

    // An endpoint that gives as much to everybody.
    let mut world = World::touchy(74, 0);
    world.learning = true;
    each_minute(&mut world, START, 2_000, |n, time| answer(time, 400 + n % 900));
    for n in 0..100 {
        let mut export = answer(START + n * HOUR / 4, 20_000_000 + n * 1_000);
        export.key = call(0, Some(100 + u128::from(n % 9)), HOME, Operation::Read, None).key;
        export.request.as_mut().unwrap().path = "/api/v3/export".into();
        world.feed(&export);
    }
    world.learning = false;
    each_minute(&mut world, from, 6, |_, time| {
        let mut export = answer(time, 20_000_000);
        export.request.as_mut().unwrap().path = "/api/v3/export".into();
        export
    });
    assert!(found(&world.alerts, "D22").is_empty(), "{}", show(&world.alerts));
}

#[test]
fn sizes_quotas_and_times_that_make_no_sense_do_no_harm() {
    let mut world = World::touchy(75, 0);
    let wild = [0, 1, u32::MAX];
    for n in 0..3_000u64 {
        let time = [START + n * MINUTE, 0, u64::MAX, START][(n % 97 / 24).min(3) as usize];
        let quota = Quota {
            used: Some(wild[n as usize % 3]),
            limit: Some(wild[n as usize / 3 % 3]),
            remaining: Some(wild[n as usize / 9 % 3]),
        };
        let op = Operation::ALL[n as usize % 10];
        let mut call = answered(at(time, HOME, op), [0, u64::MAX, 1][n as usize % 3], Some(quota));
        call.symbol = Some(["", "\u{7}é", "X"][n as usize % 3].into());
        world.feed(&with_agent(call, ["", "\u{0}", "é 1"][n as usize % 3]));
    }
    for alert in &world.alerts {
        assert!(alert.findings.iter().all(|finding| finding.evidence.is_finite()));
    }
    for id in ["D4", "D7", "D19", "D21"] {
        assert!(found(&world.alerts, id).is_empty(), "{id} {}", show(&world.alerts));
    }
}

#[test]
fn a_first_withdrawal_is_held_against_those_of_keys_of_its_kind() {
    // For three weeks fifty people and fifty programs read each day; from the tenth on, each day another
    // person withdraws for the first time.
    let raised_by = |is_login: bool| {
        let mut world = World::new(64, 0);
        let by = |key: u64, time, op| {
            let ip = Ipv4Addr::from(0xc633_6400 + key as u32 * 0x0001_0000);
            let mut it = call(time, Some(u128::from(key)), ip, op, Some(Outcome::Ok));
            it.token = (key < 50).then(Default::default);
            it
        };
        world.learning = true;
        for hour in 0..21 * 24 {
            for key in 0..100 {
                world.feed(&by(key, START + hour * HOUR + key * SECOND, Operation::Read));
            }
            if hour >= 240 && hour.is_multiple_of(24) {
                let time = START + hour * HOUR + MINUTE * 10;
                world.feed(&by(hour / 24, time, Operation::Withdraw));
            }
        }
        world.learning = false;
        let key = if is_login { 40 } else { 60 };
        world.feed(&by(key, START + 21 * DAY, Operation::Withdraw));
        world.raised().len()
    };
    assert_eq!(raised_by(true), 0);
    assert_eq!(raised_by(false), 1);
}
