//! The Engine against simulated traffic: what must be flagged, what must not, and how soon.

mod campaigns;
mod content;
mod dormant;
mod grants;
mod habits;
mod new_agents;
mod parameters;
mod policy;
mod replay;
mod robust;
mod rotation;
mod saved;
mod symbols;
mod synchrony;
mod thieves;
mod tokens;
mod world;

use std::net::Ipv4Addr;
use std::time::Duration;

use monitor_core::alert::{Entity, Severity};
use monitor_core::call::{Operation, Outcome};
use monitor_core::engine::{Engine, Impairment, Settings};
use monitor_core::time::EventTime;
use world::{DAY, HOUR, MINUTE, SECOND, START, World, call, detectors, show};

/// The stolen key: a new network, a burst, then withdrawals that are refused.
fn theft(world: &mut World, from: u64, key: u128) -> u64 {
    let thief = Ipv4Addr::new(203, 0, 113, 66);
    let mut time = from;
    for n in 0..300 {
        time += SECOND / 10;
        let op = if n % 3 == 0 { Operation::Trade } else { Operation::Read };
        world.feed(&call(time, Some(key), thief, op, Some(Outcome::Ok)));
    }
    let first_withdrawal = time + SECOND;
    for n in 0..5 {
        let outcome = Some(Outcome::PermissionDenied);
        let time = first_withdrawal + n * SECOND;
        world.feed(&call(time, Some(key), thief, Operation::Withdraw, outcome));
    }
    first_withdrawal
}

#[test]
fn a_stolen_key_is_one_incident_after_two_quiet_weeks() {
    let mut world = World::new(1, 12);
    world.ordinary(START, 14 * 1440, 1.0);
    assert_eq!(world.alerts.len(), 0, "{}", show(&world.alerts));
    assert_eq!(world.engine.keys(), 12);

    let key = world.clients[2].key;
    let stolen = call(0, Some(key), Ipv4Addr::LOCALHOST, Operation::Read, None).key.unwrap().id;
    let first_withdrawal = theft(&mut world, START + 14 * DAY + 10 * HOUR, key);

    assert_eq!(world.raised().len(), 1, "{}", show(&world.alerts));
    assert!(world.alerts.iter().all(|alert| alert.id == world.alerts[0].id));
    let full = world
        .alerts
        .iter()
        .find(|alert| detectors(alert) == ["D1", "D10", "D5", "D9"])
        .expect("all four join in one incident");
    assert_eq!(full.entity, Entity::Key(stolen));
    assert!(full.severity >= Severity::High);
    assert!(full.time.0 <= first_withdrawal + 2 * SECOND, "{}", full.time);
    assert!(full.calls >= 300);
    assert!(full.flows.len() == 1 && full.complete);
    let last = world.alerts.last().unwrap();
    assert_eq!(last.revision as usize, world.alerts.len() - 1);
    assert!(world.alerts.len() <= 5, "an update only for something new");
}

#[test]
fn one_client_with_thousands_of_bad_keys_is_one_alert() {
    let mut world = World::new(2, 6);
    world.ordinary(START, 120, 1.0);
    let attacker = Ipv4Addr::new(192, 0, 2, 99);
    let from = START + 2 * HOUR;
    for n in 0..5_000u64 {
        let outcome = if n % 2 == 0 { Outcome::BadKey } else { Outcome::BadSignature };
        let bad = call(
            from + n * SECOND / 50,
            Some(1 << 80 | u128::from(n)),
            attacker,
            Operation::Read,
            Some(outcome),
        );
        world.feed(&bad);
        if n == 30 {
            assert_eq!(world.alerts.len(), 1, "flagged while it runs");
        }
    }
    assert_eq!(world.raised().len(), 1);
    assert!((2..=5).contains(&world.alerts.len()), "updated as it grows, and not often");
    assert!(world.alerts.iter().all(|alert| alert.entity == Entity::Client(attacker.into())));
    assert!(world.alerts.iter().all(|alert| alert.severity == Severity::High));
    assert_eq!(world.engine.keys(), 6, "made-up keys get no state");
    assert!(world.engine.state_bytes() < 200_000, "{}", world.engine.state_bytes());

    // And then one of them works.
    world.feed(&call(from + 200 * SECOND, Some(7), attacker, Operation::Read, Some(Outcome::Ok)));
    let last = world.alerts.last().unwrap();
    assert_eq!((last.severity, last.entity), (Severity::Critical, Entity::Client(attacker.into())));
}

#[test]
fn a_botnet_in_one_network_is_one_alert() {
    let mut world = World::new(3, 0);
    for n in 0..2_000u64 {
        let bot = Ipv4Addr::new(192, 0, 2, (n % 200) as u8);
        let key = Some(1 << 80 | u128::from(n));
        world.feed(&call(
            START + n * SECOND / 20,
            key,
            bot,
            Operation::Read,
            Some(Outcome::BadKey),
        ));
    }
    let raised = world.raised();
    assert_eq!(raised.len(), 1);
    assert_eq!(raised[0].entity, Entity::Network(Ipv4Addr::new(192, 0, 2, 0).into()));
    assert!(raised[0].time.0 < START + 5 * SECOND);
    assert!(world.alerts.len() <= 4);
}

#[test]
fn a_botnet_everywhere_does_not_flood_the_analyst() {
    let mut world = World::new(18, 0);
    for n in 0..20_000u64 {
        let bot = Ipv4Addr::from(0x0a00_0000 + (n / 25) as u32 * 256);
        let key = Some(1 << 80 | u128::from(n));
        world.feed(&call(
            START + n * SECOND / 50,
            key,
            bot,
            Operation::Read,
            Some(Outcome::BadKey),
        ));
    }
    assert_eq!(world.raised().len(), 40, "the day's budget, and as many again");
    assert_eq!(world.engine.counters().suppressed_by_budget, 800 - 40);
}

#[test]
fn failed_logins_without_a_key_count_too() {
    let mut world = World::new(4, 0);
    for n in 0..500 {
        let ip = Ipv4Addr::new(192, 0, 2, 1);
        world.feed(&call(START + n * SECOND, None, ip, Operation::Auth, Some(Outcome::BadKey)));
    }
    assert_eq!(world.raised().len(), 1);
    assert_eq!(detectors(&world.alerts[0]), ["D3"]);
}

#[test]
fn a_cold_start_is_quiet() {
    let mut world = World::new(5, 60);
    world.ordinary(START + 9 * HOUR, 60, 1.0);
    // A fast client, from nothing.
    for n in 0..6_000 {
        let ip = Ipv4Addr::new(198, 18, 0, 1);
        let time = START + 10 * HOUR + n * SECOND / 50;
        world.feed(&call(time, Some(5), ip, Operation::Trade, Some(Outcome::Ok)));
    }
    assert_eq!(world.alerts.len(), 0, "{}", show(&world.alerts));
}

#[test]
fn a_young_key_may_withdraw_from_where_it_reads() {
    let mut world = World::new(6, 12);
    world.ordinary(START + 9 * HOUR, 60, 1.0);
    let client = &world.clients[0];
    let (key, ip) = (Some(client.key), client.ip);
    world.feed(&call(START + 10 * HOUR, key, ip, Operation::Withdraw, Some(Outcome::Ok)));
    assert!(world.alerts.iter().all(|alert| alert.severity <= Severity::Medium));
}

#[test]
fn an_old_key_that_withdraws_for_the_first_time_is_flagged() {
    let mut world = World::new(7, 12);
    world.learning = true;
    world.ordinary(START, 8 * 1440, 1.0);
    world.learning = false;
    let client = &world.clients[1];
    let (key, ip) = (Some(client.key), client.ip);
    world.feed(&call(START + 8 * DAY, key, ip, Operation::Withdraw, Some(Outcome::Ok)));
    assert_eq!(world.raised().len(), 1);
    assert_eq!(detectors(&world.alerts[0]), ["D9"]);
    assert_eq!(world.alerts[0].severity, Severity::High);
    // One that does it every day is not.
    let client = &world.clients[5];
    let (key, ip) = (Some(client.key), client.ip);
    world.feed(&call(START + 8 * DAY + SECOND, key, ip, Operation::Withdraw, Some(Outcome::Ok)));
    assert_eq!(world.raised().len(), 1);
}

#[test]
fn a_new_network_alone_is_no_alert() {
    let mut world = World::touchy(8, 12);
    world.learning = true;
    world.ordinary(START, 3 * 1440, 1.0);
    world.learning = false;
    for client in &mut world.clients {
        client.ip = Ipv4Addr::new(100, 64, client.ip.octets()[2], 7);
    }
    world.ordinary(START + 3 * DAY, 1440, 1.0);
    assert_eq!(world.alerts.len(), 0, "{}", show(&world.alerts));
}

#[test]
fn a_volatile_market_moves_all_keys_and_flags_none() {
    let hour_of = |mut world: World, load: f64| {
        world.learning = true;
        world.ordinary(START, 3 * 1440, 1.0);
        world.learning = false;
        world.ordinary(START + 3 * DAY, 60, load);
        world
    };
    let world = hour_of(World::new(9, 30), 4.0);
    assert_eq!(world.alerts.len(), 0, "{}", show(&world.alerts));
    // At eight times the usual, single findings may come before the load of the others shows.
    let world = hour_of(World::touchy(9, 30), 8.0);
    assert!(world.raised().len() <= 2, "{} {}", world.raised().len(), show(&world.alerts));
}

#[test]
fn an_outage_fails_all_keys_and_flags_none() {
    let mut world = World::touchy(10, 30);
    world.learning = true;
    world.ordinary(START, 1440, 1.0);
    world.learning = false;
    for minute in 0..20 {
        for mut call in world.ordinary_minute(START + DAY + minute * MINUTE, 1.0) {
            call.outcome = Some(Outcome::Error);
            world.feed(&call);
        }
    }
    assert_eq!(world.alerts.len(), 0, "{}", show(&world.alerts));
}

#[test]
fn clock_jumps_raise_no_storm() {
    let mut world = World::new(11, 12);
    world.learning = true;
    world.ordinary(START, 2 * 1440, 1.0);
    world.learning = false;
    let mut time = START + 2 * DAY;
    for jump in [6, -6, -6, 6, 6, -6] {
        world.ordinary(time, 30, 1.0);
        time = time.saturating_add_signed(jump * HOUR as i64) + 30 * MINUTE;
    }
    assert_eq!(world.alerts.len(), 0, "{}", show(&world.alerts));
    let counters = world.engine.counters();
    assert!(counters.clock_jumps >= 3 && counters.late_calls >= 2, "{counters:?}");

    for time in [0, u64::MAX, START, 1, u64::MAX - 1, START] {
        world.ordinary(time.min(u64::MAX - HOUR), 1, 1.0);
        world.engine.handle_timeout(EventTime(time));
    }
    assert!(world.alerts.len() < 3, "{}", show(&world.alerts));
}

#[test]
fn odd_settings_do_no_harm() {
    let mut settings = Settings::default();
    settings.rate.tail_probability = f64::NAN;
    settings.rate.own_max_factor = f64::INFINITY;
    settings.errors.tail_probability = 0.0;
    settings.errors.own_max_factor = -1.0;
    settings.stuffing.window_s = 0;
    settings.capture.window_s = 0;
    settings.keys_max = 0;
    settings.clients_max = 0;
    settings.networks_max = 0;
    settings.incidents_max = 0;
    settings.settled_key_s = 0;
    settings.alert_evidence_min = f32::NAN;
    let mut world = World::new(12, 12);
    world.engine = Engine::new(settings);
    world.ordinary(START, 60, 10.0);
    theft(&mut world, START + HOUR, 1000);
    for alert in &world.alerts {
        assert!(alert.confidence.is_finite());
        assert!(alert.findings.iter().all(|finding| finding.evidence.is_finite()));
    }
    assert!(world.engine.keys() <= 1);
}

#[test]
fn the_same_calls_give_the_same_bytes() {
    let run = || {
        let mut world = World::new(13, 12);
        world.learning = true;
        world.ordinary(START, 1440, 1.0);
        world.learning = false;
        theft(&mut world, START + DAY, 1003);
        world.alerts.iter().map(|alert| serde_json::to_string(alert).unwrap()).collect::<Vec<_>>()
    };
    let first = run();
    assert!(!first.is_empty());
    assert_eq!(first, run());
}

#[test]
fn a_broker_with_a_few_stale_keys_is_no_attacker() {
    let mut world = World::new(14, 0);
    let broker = Ipv4Addr::new(198, 51, 100, 1);
    for n in 0..30_000u64 {
        let key = u128::from(n * 7_919 % 300);
        let outcome = if key < 25 { Outcome::BadKey } else { Outcome::Ok };
        let time = START + n * SECOND / 10;
        world.feed(&call(time, Some(key), broker, Operation::Read, Some(outcome)));
    }
    assert_eq!(world.alerts.len(), 0, "{}", show(&world.alerts));
}

#[test]
fn refused_credentials_do_not_touch_the_key_they_name() {
    let mut world = World::new(15, 12);
    world.learning = true;
    world.ordinary(START, 2 * 1440, 1.0);
    world.learning = false;
    let bystander = world.clients[3].key;
    // Somebody who knows the key's name but not its secret, from elsewhere, fast.
    for n in 0..18 {
        let ip = Ipv4Addr::new(192, 0, 2, 50);
        let time = START + 2 * DAY + n * SECOND / 100;
        world.feed(&call(
            time,
            Some(bystander),
            ip,
            Operation::Withdraw,
            Some(Outcome::BadSignature),
        ));
    }
    assert!(world.alerts.iter().all(|alert| alert.severity <= Severity::Medium));
    assert!(world.alerts.iter().all(|alert| !detectors(alert).contains(&"D1")));
    assert!(world.alerts.iter().all(|alert| !detectors(alert).contains(&"D9")));
}

#[test]
fn the_key_table_is_bounded_and_floods_drive_out_themselves() {
    let mut world = World::new(16, 12);
    world.engine = Engine::new(Settings { keys_max: 200, ..Settings::default() });
    world.learning = true;
    world.ordinary(START, 1440, 1.0);
    // An open endpoint takes any key.
    for n in 0..20_000u64 {
        let ip = Ipv4Addr::new(192, 0, 2, 1);
        let key = Some(1 << 80 | u128::from(n));
        world.feed(&call(
            START + DAY + n * SECOND / 500,
            key,
            ip,
            Operation::Read,
            Some(Outcome::Ok),
        ));
    }
    world.learning = false;
    assert_eq!(world.engine.keys(), 200);
    assert_eq!(world.engine.counters().keys_evicted, 20_000 - 188);
    // The real keys are still known: a theft is seen as such.
    theft(&mut world, START + DAY + HOUR, 1004);
    let last = world.alerts.last().expect("flagged");
    assert!(detectors(last).contains(&"D5"), "{}", show(&world.alerts));
}

#[test]
fn lost_capture_is_one_alert_and_grows_with_the_loss() {
    let mut engine = Engine::new(Settings::default());
    let mut alerts = Vec::new();
    for n in 0..1_000u64 {
        let now = EventTime(START + n * SECOND / 10);
        engine.handle_impairment(now, &Impairment::Lost { bytes: 4_096, events: 3 });
        alerts.extend(std::iter::from_fn(|| engine.poll_alert()));
    }
    assert!(alerts.len() <= 4, "{}", show(&alerts));
    assert_eq!(alerts[0].severity, Severity::Medium);
    assert_eq!(alerts.last().unwrap().severity, Severity::High);
    assert!(alerts.iter().all(|alert| alert.id == alerts[0].id && alert.entity == Entity::Host));
    assert!(!alerts[0].complete);

    let later = EventTime(START).after(Duration::from_secs(86_400));
    engine.handle_impairment(later, &Impairment::Detached { program: "ingress".into() });
    let detached = engine.poll_alert().expect("at once");
    assert_eq!(detached.severity, Severity::High);
    assert!(detached.explanation.contains("ingress"));
    engine.finish();
    assert!(engine.poll_alert().is_none());
}

#[test]
fn a_process_whose_tls_is_not_seen_is_an_alert() {
    let mut engine = Engine::new(Settings::default());
    let what = "node (pid 7): no way in".to_owned();
    engine.handle_impairment(EventTime(START), &Impairment::Unseen { what });
    let alert = engine.poll_alert().expect("at once");
    assert_eq!((&alert.entity, alert.severity), (&Entity::Host, Severity::Medium));
    assert!(alert.explanation.contains("node (pid 7): no way in"), "{}", alert.explanation);
}

#[test]
fn the_budget_holds_back_what_is_not_urgent() {
    // Where many do it for the first time, each counts for less.
    let alert_evidence_min = 3.0;
    let settings = Settings { alerts_per_day_max: 3, alert_evidence_min, ..Settings::default() };
    let mut world = World::new(17, 12);
    world.engine = Engine::new(settings);
    world.learning = true;
    world.ordinary(START, 8 * 1440, 1.0);
    world.learning = false;
    for n in 0..12 {
        if !world.clients[n].withdraws {
            let (key, ip) = (Some(world.clients[n].key), world.clients[n].ip);
            let time = START + 8 * DAY + n as u64 * SECOND;
            world.feed(&call(time, key, ip, Operation::Withdraw, Some(Outcome::Ok)));
        }
    }
    assert_eq!(world.raised().len(), 3, "{}", show(&world.alerts));
    assert!(world.engine.counters().suppressed_by_budget >= 5);
    // A refused withdrawal is not held back.
    let (key, ip) = (Some(world.clients[0].key), world.clients[0].ip);
    let refused = Some(Outcome::AddressNotAllowed);
    world.feed(&call(START + 8 * DAY + MINUTE, key, ip, Operation::Withdraw, refused));
    assert_eq!(world.alerts.last().unwrap().findings[0].detector, "D10");
}

#[test]
fn a_withdrawal_that_is_refused_is_flagged_from_the_first_call() {
    let mut world = World::new(30, 0);
    let client = Ipv4Addr::new(198, 51, 100, 7);
    let refused = Some(Outcome::PermissionDenied);
    world.feed(&call(START, Some(1), client, Operation::Withdraw, refused));
    let raised = world.raised();
    assert_eq!(raised.len(), 1, "{}", show(&world.alerts));
    assert_eq!(detectors(raised[0]), ["D10"]);
    assert_eq!(raised[0].severity, Severity::Medium, "the key may be made up");

    let ten_minutes = 10 * MINUTE;
    world.feed(&call(START, Some(2), client, Operation::Read, Some(Outcome::Ok)));
    world.feed(&call(START + ten_minutes, Some(2), client, Operation::Withdraw, refused));
    assert_eq!(world.raised().last().unwrap().severity, Severity::High, "the key is good");
    assert_eq!(world.raised().len(), 2, "{}", show(&world.alerts));
}

#[test]
fn made_up_keys_whose_withdrawals_are_refused_spend_the_budget_only() {
    let mut world = World::new(31, 0);
    for n in 0..500u64 {
        let bot = Ipv4Addr::from(0x0a00_0000 + n as u32 * 256);
        let time = START + n * SECOND;
        let refused = Some(Outcome::PermissionDenied);
        world.feed(&call(time, Some(u128::from(n)), bot, Operation::Withdraw, refused));
    }
    assert_eq!(world.raised().len(), 20, "the day's budget");
}
