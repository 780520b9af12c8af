//! Many keys with one cause are one alert, and what is a key's own stays its own.

use std::net::Ipv4Addr;
use std::sync::Arc;

use monitor_core::alert::{Alert, Entity, network_of};
use monitor_core::call::{ApiCall, KeyId, Operation, Outcome, Token};
use monitor_core::engine::{Engine, Joined, Settings};

use crate::world::{DAY, MINUTE, SECOND, START, World, call, detectors, show, with_agent};

const KEYS: u64 = 60;
const THIEF: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 66);
const ATTACK: u64 = START + 10 * DAY;

fn id(key: u64) -> KeyId {
    call(0, Some(u128::from(key)), THIEF, Operation::Read, None).key.expect("it has one").id
}

fn home(key: u64) -> Ipv4Addr {
    Ipv4Addr::from(0xc633_0000 + key as u32 * 0x0001_0000 + 7)
}

fn by(key: u64, time: u64, ip: Ipv4Addr, op: Operation) -> ApiCall {
    with_agent(call(time, Some(u128::from(key)), ip, op, Some(Outcome::Ok)), "ccxt/4.1")
}

/// Ten days in which each key reads once in two hours, and none withdraws.
fn learnt(keys: impl Iterator<Item = u64> + Clone) -> World {
    let mut world = World::new(70, 0);
    world.learning = true;
    for hour in (0..240).step_by(2) {
        for key in keys.clone() {
            let time = START + hour * 60 * MINUTE + key * SECOND;
            world.feed(&by(key, time, home(key), Operation::Read));
        }
    }
    world.learning = false;
    world
}

/// A thief withdraws with a key; calls of two seconds.
fn theft(key: u64, time: u64, ip: Ipv4Addr) -> [ApiCall; 2] {
    [(Operation::Read, 0), (Operation::Withdraw, SECOND)]
        .map(|(op, later)| with_agent(by(key, time + later, ip, op), "curl/8.0"))
}

fn steal(world: &mut World, keys: std::ops::Range<u64>) {
    for key in keys {
        theft(key, ATTACK + key * 20 * SECOND, THIEF).iter().for_each(|call| world.feed(call));
    }
}

fn of_keys(alerts: &[Alert]) -> impl Iterator<Item = &Alert> {
    alerts.iter().filter(|alert| matches!(alert.entity, Entity::Key(_)))
}

fn about(alerts: &[Alert], key: u64) -> Vec<&Alert> {
    alerts.iter().filter(|alert| alert.entity == Entity::Key(id(key))).collect()
}

#[test]
fn keys_flagged_for_the_same_in_one_network_are_one_alert() {
    let mut world = learnt(0..KEYS);
    steal(&mut world, 0..24);
    let network = Entity::Network(network_of(THIEF.into()));
    let first = |alert: &&Alert| alert.revision == 0;
    assert_eq!(of_keys(&world.alerts).filter(first).count(), 3, "{}", show(&world.alerts));
    for key in 0..3 {
        let own = about(&world.alerts, key);
        assert_eq!(own.last().unwrap().part_of, Some(network), "folded once the group is known");
    }
    let group: Vec<_> = world.alerts.iter().filter(|alert| alert.entity == network).collect();
    assert!(group.iter().all(|alert| alert.id == group[0].id));
    assert!(group.len() >= 3, "it goes on: {}", show(&world.alerts));
    let last = &group.last().unwrap().findings[0];
    assert!(last.seen.contains(&id(0).to_string()) && last.detector == "D20", "{}", last.seen);
    assert_eq!(world.engine.counters().folded, 24);
}

#[test]
fn what_is_a_keys_own_is_told_beside_the_group() {
    let mut world = learnt(0..KEYS);
    steal(&mut world, 0..12);
    let own = |world: &World, key| about(&world.alerts, key).len();
    assert_eq!(own(&world, 8), 0, "{}", show(&world.alerts));
    let time = ATTACK + 12 * 20 * SECOND;
    let refused = Some(Outcome::PermissionDenied);
    world.feed(&call(time, Some(8), THIEF, Operation::Withdraw, refused));
    assert_eq!(own(&world, 8), 1, "a refused withdrawal");
    let mut forged = by(9, time + SECOND, THIEF, Operation::Trade);
    forged.token = Some(Arc::new(Token { algorithm: Some("none".into()), ..Token::default() }));
    world.feed(&forged);
    let alerts = about(&world.alerts, 9);
    assert_eq!(alerts.len(), 1, "another attack");
    assert!(detectors(alerts[0]).contains(&"D15") && alerts[0].part_of.is_none());
    assert_eq!(own(&world, 10), 0);
    // Elsewhere, the same is another's.
    let other = Ipv4Addr::new(192, 0, 2, 1);
    theft(40, time + 2 * SECOND, other).iter().for_each(|call| {
        world.feed(&with_agent(call.clone(), "okhttp/4.12"));
    });
    assert_eq!(own(&world, 40), 1, "{}", show(&world.alerts));
}

#[test]
fn a_group_outlives_a_restart() {
    let mut world = learnt(0..KEYS);
    world.engine.note_changes();
    steal(&mut world, 0..6);
    let mut later = World::new(70, 0);
    let changes = world.engine.take_changes(usize::MAX);
    later.engine.restore_common(&world.engine.save_common()).unwrap();
    // Those that did nothing since changes are noted are as they were.
    for key in 6..12 {
        let state = world.engine.export_key(id(key)).unwrap();
        later.engine.import_key(id(key), state).unwrap();
    }
    for (key, state) in changes.keys {
        later.engine.restore_key(key, &state).unwrap();
    }
    steal(&mut later, 6..12);
    assert_eq!(of_keys(&later.alerts).count(), 0, "{}", show(&later.alerts));
    let network = Entity::Network(network_of(THIEF.into()));
    let group = |world: &World| world.alerts.iter().find(|it| it.entity == network).unwrap().id;
    assert_eq!(group(&later), group(&world));
}

#[test]
fn keys_of_different_engines_are_one_group() {
    let mut parts = [learnt(0..3), learnt(3..6)];
    let mut all = Engine::new(Settings::default());
    for key in 0..6 {
        let part = &mut parts[key as usize / 3];
        part.engine.note_joined();
        for call in theft(key, ATTACK + key * 20 * SECOND, THIEF) {
            part.feed(&call);
            while let Some(joined) = part.engine.poll_joined() {
                let joined = Joined::from_bytes(&joined.of_a_part(2).to_bytes()).unwrap();
                all.handle_joined(&joined, &call);
            }
        }
    }
    let told: Vec<Alert> = std::iter::from_fn(|| all.poll_alert()).collect();
    let network = Entity::Network(network_of(THIEF.into()));
    let of_network: Vec<_> = told.iter().filter(|alert| alert.entity == network).collect();
    assert_eq!(of_network.len(), 1, "{}", show(&told));
    assert!(of_network[0].findings[0].seen.starts_with("4 keys"), "{}", show(&told));
}
