//! Tokens that should not have been taken, and withdrawals without a second factor.

use std::net::Ipv4Addr;
use std::sync::Arc;

use monitor_core::alert::Severity;
use monitor_core::call::{Operation, Outcome, Token};

use crate::world::{DAY, SECOND, START, World, call, detectors, show};

const NOW_S: i64 = ((START + DAY) / SECOND) as i64;

/// What is raised by a call with this token; each is made twice.
fn raised(op: Operation, outcome: Outcome, token: Token) -> Vec<(Vec<String>, Severity)> {
    let mut world = World::new(3, 4);
    world.ordinary(START, 60, 1.0);
    let (key, ip) = (world.clients[0].key, world.clients[0].ip);
    for n in 0..2 {
        let mut asked = call(START + DAY + n * SECOND, Some(key), ip, op, Some(outcome));
        asked.token = Some(Arc::new(token.clone()));
        world.feed(&asked);
    }
    let ids = |alert| detectors(alert).into_iter().map(str::to_owned).collect();
    world.raised().into_iter().map(|alert| (ids(alert), alert.severity)).collect()
}

fn token(expires: i64) -> Token {
    Token { expires: Some(expires), algorithm: Some("ES256".into()), ..Token::default() }
}

#[test]
fn a_faulty_token_that_is_taken_is_one_alert() {
    let trade = |token| raised(Operation::Trade, Outcome::Ok, token);
    let d15 = vec![(vec!["D15".to_owned()], Severity::Critical)];
    assert_eq!(trade(token(NOW_S - 301)), d15);
    assert_eq!(trade(Token { algorithm: Some("nOnE".into()), ..token(NOW_S + 60) }), d15);
    assert_eq!(trade(Token { not_before: Some(NOW_S + 400), ..token(NOW_S + 900) }), d15);
    assert_eq!(trade(token(NOW_S - 60)), [], "clocks differ");
    assert_eq!(trade(token(NOW_S + 60)), []);
    assert_eq!(raised(Operation::Read, Outcome::Ok, token(0)), [], "it may not be needed");
    assert_eq!(raised(Operation::Trade, Outcome::BadKey, token(0)), [], "it was not taken");
    assert_eq!(trade(Token { expires: Some(i64::MIN), ..token(0) }), d15);
}

#[test]
fn a_token_for_somebody_else_is_evidence_where_no_policy_names_whom_tokens_are_for() {
    let evidence = |audiences: &[&str]| -> Vec<f32> {
        let mut world = World::touchy(5, 12);
        world.learning = true;
        world.ordinary(START, 60, 1.0);
        let clients: Vec<_> = world.clients.iter().map(|client| (client.key, client.ip)).collect();
        let order = |world: &mut World, client: usize, day: u64, audience: &str| {
            let (key, ip) = clients[client];
            let time = START + day * DAY + client as u64 * SECOND;
            let mut asked = call(time, Some(key), ip, Operation::Trade, Some(Outcome::Ok));
            let audience = vec![audience.into()];
            asked.token = Some(Arc::new(Token { audience, ..token(NOW_S * 2) }));
            world.feed(&asked);
        };
        (0..10).for_each(|client| order(&mut world, client, 2, "api"));
        (10..12).for_each(|client| order(&mut world, client, 2, "rare"));
        world.learning = false;
        for (client, audience) in audiences.iter().enumerate() {
            order(&mut world, client, 3, audience);
        }
        let of = |it: &monitor_core::alert::Finding| it.detector == "D15";
        let alerts = world.raised();
        alerts
            .iter()
            .flat_map(|it| &it.findings)
            .filter(|it| of(it))
            .map(|it| it.evidence)
            .collect()
    };
    assert!(evidence(&["api"]).is_empty());
    assert_eq!(evidence(&["partner-portal"]), [4.0]);
    assert_eq!(evidence(&["rare"]), [4.0], "hardly any other");
    assert_eq!(evidence(&["new"; 8]), [4.0; 3], "a new service, after the first few");
}

#[test]
fn a_withdrawal_needs_a_fresh_second_factor_where_the_token_tells() {
    let fired = |token: Token| {
        let raised = raised(Operation::Withdraw, Outcome::Ok, token);
        raised.iter().any(|(ids, _)| ids.iter().any(|id| id == "D17"))
    };
    let login = |amr: &[&str], age_s: i64| Token {
        amr: amr.iter().map(|name| (*name).into()).collect(),
        auth_time: Some(NOW_S - age_s),
        ..token(NOW_S + 60)
    };
    assert!(fired(login(&["pwd"], 10)));
    assert!(fired(login(&["pwd", "otp"], 7200)));
    assert!(!fired(login(&["pwd", "otp"], 60)));
    assert!(!fired(token(NOW_S + 60)), "it does not tell");
    assert!(fired(Token { auth_time: Some(0), ..token(NOW_S + 60) }));
}

#[test]
fn tokens_of_nobody_are_no_key() {
    let mut world = World::new(4, 4);
    let ip = Ipv4Addr::new(192, 0, 2, 9);
    let mut asked = call(START, None, ip, Operation::Trade, Some(Outcome::Ok));
    asked.token = Some(Arc::new(token(0)));
    world.feed(&asked);
    assert_eq!(world.alerts.len(), 0, "{}", show(&world.alerts));
}
