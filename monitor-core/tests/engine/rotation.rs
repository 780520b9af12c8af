//! The secret changes under which keys are hashed: what is known of a key follows it to its new id.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use monitor_core::alert::Entity;
use monitor_core::call::{ApiCall, Key, KeyId, Operation, Outcome};
use monitor_core::engine::{Engine, Feedback, Said, Settings};
use monitor_core::policy::Policy;
use monitor_core::time::EventTime;

use crate::world::{DAY, HOUR, MINUTE, SECOND, START, World, call, detectors, show};

/// The id of a key, so many secrets later.
fn later(id: KeyId, secrets: u32) -> KeyId {
    KeyId(id.0.rotate_left(secrets * 8) ^ u128::from(secrets))
}

/// The call as it is seen once the secret has changed so often, with that many former ones kept.
fn rotated(mut call: ApiCall, secrets: u32, kept: u32) -> ApiCall {
    if let Some(Key { id, former, .. }) = &mut call.key {
        let ids: Vec<KeyId> =
            (secrets.saturating_sub(kept)..secrets).rev().map(|n| later(*id, n)).collect();
        (*id, *former) = (later(*id, secrets), (!ids.is_empty()).then(|| ids.into()));
    }
    call
}

fn learnt() -> World {
    let mut world = World::new(60, 12);
    world.engine.note_changes();
    world.learning = true;
    world.ordinary(START, 8 * 1440, 1.0);
    world.learning = false;
    world
}

fn ordinary(world: &mut World, from: u64, minutes: u64, change: impl Fn(ApiCall) -> ApiCall) {
    for minute in 0..minutes {
        for call in world.ordinary_minute(from + minute * MINUTE, 1.0) {
            world.feed(&change(call));
        }
    }
}

const LATER: u64 = START + 8 * DAY;

/// A withdrawal of a key that never made one: high, because it is known for a week.
fn first_withdrawal(world: &World, at: u64) -> ApiCall {
    let client = &world.clients[1];
    call(at, Some(client.key), client.ip, Operation::Withdraw, Some(Outcome::Ok))
}

#[test]
fn a_key_keeps_what_was_learnt_of_it() {
    let mut world = learnt();
    ordinary(&mut world, LATER, 120, |call| rotated(call, 1, 1));
    assert_eq!(world.alerts.len(), 0, "{}", show(&world.alerts));
    assert_eq!(world.engine.keys(), 12, "no key is there twice");
    let withdrawal = rotated(first_withdrawal(&world, LATER + 2 * HOUR), 1, 1);
    world.feed(&withdrawal);
    let [alert] = world.raised()[..] else { panic!("{}", show(&world.alerts)) };
    assert_eq!(detectors(alert), ["D9"]);
    assert_eq!(alert.entity, Entity::Key(withdrawal.key.unwrap().id), "under its new id");
    // Without the former id it is a young key that does what young keys do.
    let mut world = learnt();
    let withdrawal = rotated(first_withdrawal(&world, LATER), 1, 0);
    world.feed(&withdrawal);
    assert!(world.raised().iter().all(|alert| detectors(alert) != ["D9"]));
    assert_eq!(world.engine.keys(), 13);
}

#[test]
fn two_changes_and_a_connection_from_before_both() {
    let mut world = learnt();
    ordinary(&mut world, LATER, 30, |call| rotated(call, 1, 1));
    ordinary(&mut world, LATER + 30 * MINUTE, 30, |call| rotated(call, 2, 2));
    // A connection that logged on at first, and an agent that has not read the secret again.
    ordinary(&mut world, LATER + 60 * MINUTE, 30, |call| rotated(call, 0, 0));
    ordinary(&mut world, LATER + 90 * MINUTE, 30, |call| rotated(call, 1, 1));
    assert_eq!(world.alerts.len(), 0, "{}", show(&world.alerts));
    assert_eq!(world.engine.keys(), 12);
    let withdrawal = first_withdrawal(&world, LATER + 2 * HOUR);
    let present = later(withdrawal.key.as_ref().unwrap().id, 2);
    world.feed(&withdrawal);
    assert_eq!(world.raised()[0].entity, Entity::Key(present));
}

#[test]
fn a_change_is_saved_and_outlives_a_restart() {
    let mut world = learnt();
    let saved = world.engine.take_changes(100).keys;
    ordinary(&mut world, LATER, 120, |call| rotated(call, 1, 1));
    let changes = world.engine.take_changes(100);
    let common = world.engine.save_common();
    let before: BTreeSet<KeyId> = saved.iter().map(|(id, _)| *id).collect();
    let gone: BTreeSet<KeyId> = changes.gone.into_iter().collect();
    let now: BTreeSet<KeyId> = changes.keys.iter().map(|(id, _)| *id).collect();
    assert_eq!((gone.len(), &gone), (12, &before), "the former ids leave the file");
    assert_eq!(now, before.iter().map(|id| later(*id, 1)).collect());
    let mut engine = Engine::new(Settings::default());
    for (id, state) in &changes.keys {
        engine.restore_key(*id, state).unwrap();
    }
    engine.restore_common(&common).unwrap();
    world.engine = engine;
    ordinary(&mut world, LATER + 2 * HOUR, 60, |call| rotated(call, 1, 1));
    assert_eq!((world.engine.keys(), world.alerts.len()), (12, 0), "{}", show(&world.alerts));
    // Connections and agents from before the change go on with the former ids.
    ordinary(&mut world, LATER + 3 * HOUR, 60, |call| call);
    assert_eq!((world.engine.keys(), world.alerts.len()), (12, 0), "{}", show(&world.alerts));
}

#[test]
fn a_change_while_the_agent_was_down_is_followed_too() {
    let mut world = learnt();
    let saved = world.engine.take_changes(100).keys;
    world.engine = Engine::new(Settings::default());
    for (id, state) in &saved {
        world.engine.restore_key(*id, state).unwrap();
    }
    let withdrawal = rotated(first_withdrawal(&world, LATER), 3, 3);
    world.feed(&withdrawal);
    assert_eq!(detectors(world.raised()[0]), ["D9"]);
    assert_eq!(world.engine.keys(), 12);
}

#[test]
fn what_people_and_policies_said_of_the_former_id_counts() {
    let mut world = learnt();
    let withdrawal = first_withdrawal(&world, LATER);
    let id = withdrawal.key.as_ref().unwrap().id;
    let mute = |key| Feedback {
        time: EventTime(LATER),
        said: Said::Mute { key, detector: None, until: EventTime(LATER + DAY) },
    };
    world.engine.handle_feedback(&mute(id)).unwrap();
    world.feed(&rotated(withdrawal, 1, 1));
    assert_eq!(world.alerts.len(), 0, "muted under its former id: {}", show(&world.alerts));

    // Somebody who still has the former id mutes it after the change.
    let mut world = learnt();
    ordinary(&mut world, LATER, 60, |call| rotated(call, 1, 1));
    world.engine.handle_feedback(&mute(id)).unwrap();
    world.feed(&rotated(first_withdrawal(&world, LATER + HOUR), 1, 1));
    assert_eq!(world.alerts.len(), 0, "{}", show(&world.alerts));

    let mut world = learnt();
    let text = format!("[keys.{id}]\noperations = [\"read\"]\n");
    world.engine.set_policy(Arc::new(Policy::new(toml::from_str(&text).unwrap()).unwrap()));
    let client = &world.clients[1];
    let trade = call(LATER, Some(client.key), client.ip, Operation::Trade, Some(Outcome::Ok));
    world.feed(&rotated(trade, 1, 1));
    assert_eq!(detectors(world.raised()[0]), ["D9"], "its policy goes with it");
}

#[test]
fn made_up_keys_move_nothing() {
    let mut world = learnt();
    for n in 0..5_000_u64 {
        let outcome = Some(Outcome::BadKey);
        let ip = Ipv4Addr::new(192, 0, 2, 1);
        let made_up = call(LATER + n, Some(1 << 80 | u128::from(n)), ip, Operation::Read, outcome);
        world.feed(&rotated(made_up, 1, 1));
    }
    assert_eq!(world.engine.keys(), 12);
    ordinary(&mut world, LATER + SECOND, 60, |call| rotated(call, 1, 1));
    assert_eq!(world.engine.keys(), 12);
}
