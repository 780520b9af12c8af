//! What outlives a restart, and what people say of alerts.
#![expect(clippy::unwrap_used, reason = "what fails here fails a test")]

use std::net::Ipv4Addr;

use monitor_core::alert::{AlertId, Entity, Severity};
use monitor_core::call::{KeyId, Operation, Outcome};
use monitor_core::engine::{Engine, Feedback, Joined, Said, Settings};
use monitor_core::time::EventTime;

use crate::theft;
use crate::world::{DAY, HOUR, MINUTE, SECOND, START, World, call, detectors, show};

fn key_id(key: u128) -> KeyId {
    call(0, Some(key), Ipv4Addr::LOCALHOST, Operation::Read, None).key.unwrap().id
}

/// Everything that is to be kept, taken in slices as an agent does.
struct Snapshot {
    keys: Vec<(KeyId, Vec<u8>)>,
    common: Vec<u8>,
}

fn save(engine: &mut Engine) -> Snapshot {
    let mut keys = Vec::new();
    while engine.changed() > 0 {
        keys.extend(engine.take_changes(5).keys);
    }
    Snapshot { keys, common: engine.save_common() }
}

fn restored(snapshot: &Snapshot) -> Engine {
    let mut engine = Engine::new(Settings { host: "edge-1".into(), ..Settings::default() });
    engine.note_changes();
    for (id, state) in &snapshot.keys {
        engine.restore_key(*id, state).unwrap();
    }
    engine.restore_common(&snapshot.common).unwrap();
    engine
}

/// A world that has learnt for a week.
fn learnt(seed: u64) -> World {
    let mut world = World::new(seed, 12);
    world.engine.note_changes();
    world.learning = true;
    world.ordinary(START, 7 * 1440, 1.0);
    world.learning = false;
    world
}

#[test]
fn after_a_restart_the_same_is_flagged_in_the_same_words() {
    let mut world = learnt(40);
    let snapshot = save(&mut world.engine);
    assert_eq!(snapshot.keys.len(), 12, "each once");
    let largest = snapshot.keys.iter().map(|(_, state)| state.len()).max().unwrap();
    assert!(largest <= 3_072, "{largest} bytes a key");
    let from = START + 7 * DAY + 10 * HOUR;
    theft(&mut world, from, 1002);
    let expected = show(&world.alerts);
    assert!(!expected.is_empty());

    let mut again = World::new(40, 12);
    again.engine = restored(&snapshot);
    assert_eq!(again.engine.keys(), 12);
    theft(&mut again, from, 1002);
    assert_eq!(show(&again.alerts), expected);

    let mut fresh = World::new(40, 12);
    theft(&mut fresh, from, 1002);
    assert_ne!(show(&fresh.alerts), expected, "without a baseline it looks different");
}

#[test]
fn what_many_keys_come_to_outlives_a_restart_of_who_judges_it() {
    let mut world = learnt(45);
    world.engine.note_joined();
    let mut groups = Engine::new(Settings::default());
    let mut alerts = Vec::new();
    let keys: Vec<u128> = world.clients.iter().map(|client| client.key).collect();
    // From networks new to them five are a crowd; neither three before nor three after the restart are.
    for (key, n) in keys.into_iter().take(6).zip(0..) {
        let (time, thief) = (START + 7 * DAY + n * MINUTE, Ipv4Addr::new(203, 0, 113, 66));
        let refused = Some(Outcome::PermissionDenied);
        let withdrawal = call(time, Some(key), thief, Operation::Withdraw, refused);
        world.feed(&withdrawal);
        while let Some(joined) = world.engine.poll_joined() {
            let joined = Joined::from_bytes(&joined.to_bytes()).unwrap();
            groups.handle_joined(&joined, &withdrawal);
        }
        alerts.extend(std::iter::from_fn(|| groups.poll_alert()));
        if n == 2 {
            assert!(alerts.is_empty());
            let common = groups.save_common();
            groups = Engine::new(Settings::default());
            groups.restore_common(&common).unwrap();
        }
    }
    assert!(alerts.iter().any(|alert| detectors(alert) == ["D20"]), "{}", show(&alerts));
}

#[test]
fn a_stuffing_attack_goes_on_over_a_restart() {
    // One client tries thirty keys, or a crowd of clients forty; half of them before the restart.
    let refused = |world: &mut World, n: u64, ip: Ipv4Addr| {
        let (time, key) = (START + 7 * DAY + n * 10 * SECOND, Some(1 << 80 | u128::from(n)));
        world.feed(&call(time, key, ip, Operation::Read, Some(Outcome::BadKey)));
    };
    let one = |_: u64| Ipv4Addr::new(203, 0, 113, 66);
    let crowd = |n: u64| Ipv4Addr::from(0x5000_0000 + n as u32 % 20 * 65_536);
    for (tried, from) in [(30, &one as &dyn Fn(u64) -> Ipv4Addr), (44, &crowd)] {
        let raised = |keeps: bool| {
            let mut world = learnt(48);
            (0..tried / 2).for_each(|n| refused(&mut world, n, from(n)));
            assert_eq!(world.alerts.len(), 0, "{}", show(&world.alerts));
            let mut snapshot = save(&mut world.engine);
            if !keeps {
                snapshot.common = b"\x80".to_vec();
            }
            let mut again = World::new(48, 12);
            again.engine = restored(&snapshot);
            (tried / 2..tried).for_each(|n| refused(&mut again, n, from(n)));
            again.raised().iter().map(|alert| detectors(alert).join(" ")).collect::<Vec<_>>()
        };
        assert_eq!(raised(true), ["D3"], "{tried} tried");
        assert!(raised(false).is_empty(), "{tried} tried");
    }
}

#[test]
fn whose_account_it_is_and_what_programs_there_are_outlive_a_restart() {
    let mut world = learnt(49);
    let (owner, thief) = (world.clients[0].key, world.clients[1].key);
    let on = |time: u64, key: u128, account: &str| {
        let ip = Ipv4Addr::new(198, 51, 100, 7);
        let mut order = call(time, Some(key), ip, Operation::Trade, Some(Outcome::Ok));
        let account = Some(account.into());
        order.detail = Some(Box::new(monitor_core::call::Detail { account, ..Default::default() }));
        order
    };
    world.learning = true;
    for n in 0..100 {
        world.feed(&on(START + 7 * DAY + n * MINUTE, owner, "of-owner"));
        world.feed(&on(START + 7 * DAY + n * MINUTE, thief, "of-thief"));
    }
    let mut again = World::new(49, 12);
    again.engine = restored(&save(&mut world.engine));
    again.feed(&on(START + 8 * DAY, thief, "of-owner"));
    let found = &again.alerts.last().expect("flagged").findings[0];
    assert!(found.seen.contains(&key_id(owner).to_string()), "{}", show(&again.alerts));
}

#[test]
fn only_what_changed_is_saved_again() {
    let mut world = learnt(41);
    save(&mut world.engine);
    assert_eq!(world.engine.changed(), 0);
    let (key, ip) = (world.clients[3].key, world.clients[3].ip);
    for n in 0..10 {
        let time = START + 7 * DAY + n * SECOND;
        world.feed(&call(time, Some(key), ip, Operation::Read, Some(Outcome::Ok)));
    }
    let changes = world.engine.take_changes(100);
    assert_eq!(changes.keys.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [key_id(key)]);
}

#[test]
fn a_saved_key_that_is_dropped_is_named() {
    let mut world = World::new(42, 0);
    world.engine = Engine::new(Settings { keys_max: 10, ..Settings::default() });
    world.engine.note_changes();
    let mut feed = |from: u64, n: u64| {
        for key in from..from + n {
            let ip = Ipv4Addr::new(192, 0, 2, 1);
            let read = call(START + key, Some(key.into()), ip, Operation::Read, Some(Outcome::Ok));
            world.feed(&read);
        }
        world.engine.take_changes(1_000)
    };
    let first = feed(0, 10);
    assert_eq!((first.keys.len(), first.gone.len()), (10, 0));
    let second = feed(100, 4);
    assert_eq!((second.keys.len(), second.gone.len()), (4, 4));
    assert!(second.gone.iter().all(|gone| first.keys.iter().any(|(id, _)| id == gone)));
    // A flood between two snapshots names nobody whom no snapshot has.
    let third = feed(1_000, 5_000);
    assert!(third.keys.len() <= 10 && third.gone.len() <= 10, "{}", third.gone.len());
}

#[test]
fn an_alert_is_not_raised_twice_after_a_restart() {
    let mut world = learnt(43);
    let from = START + 7 * DAY + 10 * HOUR;
    theft(&mut world, from, 1002);
    let raised = world.raised()[0].clone();
    let mut again = World::new(43, 12);
    again.engine = restored(&save(&mut world.engine));
    theft(&mut again, from + 2 * MINUTE, 1002);
    assert!(again.alerts.iter().all(|alert| alert.id == raised.id), "{}", show(&again.alerts));
    assert!(again.raised().is_empty(), "{}", show(&again.alerts));
    let past = again.engine.past_alerts();
    assert_eq!(past.iter().map(|past| past.id).collect::<Vec<_>>(), [raised.id]);
    assert_eq!(past[0].entity, Entity::Key(key_id(1002)));
    assert!(past[0].severity >= Severity::High);
}

#[test]
fn what_is_no_snapshot_is_refused_and_harmless() {
    let mut world = learnt(44);
    let snapshot = save(&mut world.engine);
    let (id, state) = &snapshot.keys[0];
    let mut engine = Engine::new(Settings::default());
    for cut in 0..state.len() {
        assert!(engine.restore_key(*id, &state[..cut]).is_err(), "{cut}");
    }
    assert!(engine.restore_common(b"nonsense").is_err());
    assert!(engine.restore_key(*id, b"\xc1").is_err());
    // Any byte may be wrong: what is still a state does no harm.
    let mut world = World::new(44, 0);
    for at in 0..state.len() {
        for flip in [0xff, 0x80, 0x01] {
            let mut state = state.clone();
            state[at] ^= flip;
            if world.engine.restore_key(*id, &state).is_ok() {
                let ip = Ipv4Addr::new(198, 51, 0, 10);
                for n in 0..40 {
                    let time = START + 7 * DAY + n * 10 * SECOND;
                    let outcome = [Outcome::Ok, Outcome::PermissionDenied][n as usize % 2];
                    let mut read = call(time, Some(1), ip, Operation::Withdraw, Some(outcome));
                    read.key.as_mut().unwrap().id = *id;
                    world.feed(&read);
                }
                let view = world.engine.view_key(*id).unwrap();
                assert!(view.failed_share.is_finite() && view.refusals_per_day.is_finite());
            }
        }
    }
    assert!(world.alerts.iter().all(|alert| alert.confidence.is_finite()));
}

#[test]
fn a_field_that_is_missing_has_its_default_and_a_new_one_is_passed_over() {
    let mut engine = Engine::new(Settings::default());
    // {"calls": 7, "of_a_later_version": [1]}
    let bytes = b"\x82\xa5calls\x07\xb2of_a_later_version\x91\x01";
    engine.restore_key(KeyId(1), bytes).unwrap();
    assert_eq!(engine.view_key(KeyId(1)).unwrap().calls, 7);
    engine.restore_common(b"\x80").unwrap();
}

#[test]
fn a_key_goes_to_another_host_as_json() {
    let mut world = learnt(45);
    let mut other = Engine::new(Settings::default());
    let ids: Vec<KeyId> = world.engine.key_ids().collect();
    for id in &ids {
        other.import_key(*id, world.engine.export_key(*id).unwrap()).unwrap();
        assert_eq!(other.view_key(*id), world.engine.view_key(*id));
    }
    assert_eq!(other.keys(), 12);
    assert!(other.export_key(KeyId(9)).is_none());
    assert!(other.import_key(ids[0], "text".into()).is_err());
    world.engine = other;
    theft(&mut world, START + 7 * DAY + 10 * HOUR, 1002);
    assert_eq!(detectors(world.alerts.last().unwrap())[0], "D1", "{}", show(&world.alerts));
}

#[test]
fn a_dismissed_alert_teaches_and_does_not_come_back() {
    let mut world = learnt(46);
    let from = START + 7 * DAY + 10 * HOUR;
    let client = &world.clients[1];
    let (key, old) = (client.key, client.ip);
    let moved = Ipv4Addr::new(203, 0, 113, 80);
    let withdraw = |world: &mut World, time: u64| {
        world.feed(&call(time, Some(key), moved, Operation::Withdraw, Some(Outcome::Ok)));
    };
    // Refused first, so that nothing of it is learnt by itself.
    let refused = Some(Outcome::Error);
    world.feed(&call(from, Some(key), moved, Operation::Withdraw, refused));
    let raised = world.raised()[0].clone();
    assert_eq!(detectors(&raised), ["D5", "D9"]);

    let dismissal = |alert| Feedback {
        time: EventTime(from + HOUR),
        said: Said::Dismiss { alert, reason: "the owner moved".into() },
    };
    let unknown = world.engine.handle_feedback(&dismissal(AlertId(1))).unwrap_err();
    assert!(unknown.to_string().starts_with("no such alert: a_0000000000000001: "), "{unknown}");
    world.engine.handle_feedback(&dismissal(raised.id)).unwrap();
    assert_eq!(world.engine.past_alerts()[0].dismissed.as_deref(), Some("the owner moved"));

    // Two days later, when nothing is muted any more, also after a restart.
    let mut again = World::new(46, 12);
    again.engine = restored(&save(&mut world.engine));
    for world in [&mut world, &mut again] {
        let before = world.alerts.len();
        withdraw(world, from + 2 * DAY);
        world.feed(&call(from + 2 * DAY, Some(key), old, Operation::Read, Some(Outcome::Ok)));
        assert_eq!(world.alerts.len(), before, "{}", show(&world.alerts));
    }
}

#[test]
fn a_muted_key_is_quiet_until_the_time_is_over() {
    let mut world = learnt(47);
    let from = START + 7 * DAY + 10 * HOUR;
    let mute = |detector: Option<&str>| Feedback {
        time: EventTime(from),
        said: Said::Mute {
            key: key_id(1001),
            detector: detector.map(str::to_owned),
            until: EventTime(from + HOUR),
        },
    };
    world.engine.handle_feedback(&mute(None)).unwrap();
    theft(&mut world, from, 1001);
    assert_eq!(world.alerts.len(), 0, "{}", show(&world.alerts));
    assert!(world.engine.counters().muted > 0);
    theft(&mut world, from + 2 * HOUR, 1001);
    assert!(!world.raised().is_empty());

    let mut world = learnt(47);
    world.engine.handle_feedback(&mute(Some("D5"))).unwrap();
    theft(&mut world, from, 1001);
    let spoke: Vec<_> = world.alerts.iter().flat_map(detectors).collect();
    assert!(spoke.contains(&"D1") && !spoke.contains(&"D5"), "{spoke:?}");
}
