//! A new install: nothing is known of two hundred keys that all begin at once. Nobody reads a storm, and a
//! theft that needs no history is told of all the same.

use std::net::{IpAddr, Ipv4Addr};

use monitor_core::alert::{Alert, Entity};
use monitor_core::call::{ApiCall, KeyId, Operation, Outcome};
use monitor_core::engine::{Engine, Settings};
use monitor_core::input::Endpoint;
use monitor_core::time::EventTime;
use monitor_sim::{DAY, Plan, START, World};

const MINUTE: u64 = 60_000_000_000;
const HOUR: u64 = 60 * MINUTE;
const KEYS: u32 = 200;

/// New alerts of the first day of a clean world, seen by an Engine that knows nothing; `theft` is done to a
/// key that calls in the first hour.
fn first_day(seed: u64, theft: bool) -> (Vec<Alert>, Option<KeyId>) {
    let plan = Plan { seed, keys: KEYS, days: 1, quiet_days: 1, attacks: Vec::new() };
    let mut engine = Engine::new(Settings::default());
    let (mut alerts, mut stolen): (Vec<Alert>, Option<KeyId>) = (Vec::new(), None);
    for call in World::new(&plan) {
        engine.handle_call(&call);
        let is_good = call.outcome == Some(Outcome::Ok) && call.op == Operation::Read;
        if theft && stolen.is_none() && is_good && call.time.0 > START + HOUR / 2 {
            stolen = call.key.as_ref().map(|key| key.id);
            engine.handle_call(&refused_withdrawal(&call));
        }
        alerts.extend(std::iter::from_fn(|| engine.poll_alert()).filter(|it| it.revision == 0));
    }
    (alerts, stolen)
}

/// With the key of a call, from elsewhere.
fn refused_withdrawal(of: &ApiCall) -> ApiCall {
    let mut call = of.clone();
    let mut flow = (*call.flow).clone();
    flow.client = Endpoint::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 66)), 40_000);
    call.flow = flow.into();
    (call.op, call.outcome) = (Operation::Withdraw, Some(Outcome::PermissionDenied));
    call
}

fn shown(alerts: &[Alert]) -> String {
    alerts.iter().map(|it| format!("{} {}\n", it.time, it.explanation)).collect()
}

#[test]
fn the_first_day_is_quiet_but_for_what_needs_no_history() {
    let within = |alerts: &[Alert], ns: u64| {
        alerts.iter().filter(|it| it.time <= EventTime(START + ns)).count()
    };
    for seed in [301, 302] {
        let (alerts, _) = first_day(seed, false);
        assert!(within(&alerts, HOUR) <= 1, "{}", shown(&alerts));
        assert!(within(&alerts, DAY) <= 4, "one in fifty keys: {}", shown(&alerts));
    }
    let (alerts, stolen) = first_day(301, true);
    let id = stolen.expect("a key is used in the first hour");
    let told = alerts.iter().find(|it| it.entity == Entity::Key(id)).expect("it is told of");
    assert!(told.time <= EventTime(START + HOUR), "{}", shown(&alerts));
    assert_eq!(told.findings[0].detector, "D10", "{}", told.explanation);
}
