//! What a policy forbids, foreign accounts, and endpoints that answer without a key.

use std::sync::Arc;

use monitor_core::alert::Severity;
use monitor_core::call::{Anomalies, ApiCall, Detail, KeyId, Operation, Outcome, Request, Token};
use monitor_core::policy::Policy;
use monitor_core::time::EventTime;

use crate::world::{DAY, HOUR, SECOND, START, World, call, detectors, show};

const LATER: u64 = START + DAY;

fn world() -> World {
    let mut world = World::new(3, 4);
    world.ordinary(START, 60, 1.0);
    world
}

fn asked(world: &World, n: u64, op: Operation) -> ApiCall {
    let (key, ip) = (world.clients[0].key, world.clients[0].ip);
    call(LATER + n * SECOND, Some(key), ip, op, Some(Outcome::Ok))
}

fn id(world: &World) -> KeyId {
    asked(world, 0, Operation::Read).key.expect("a key").id
}

/// What is raised once the first client's key has these rules, when it makes this call.
fn raised_with(rules: &str, change: impl Fn(&mut ApiCall)) -> Vec<(Vec<String>, Severity)> {
    let mut world = world();
    let text = format!("[keys.{}]\n{rules}", id(&world));
    let policy = Policy::new(toml::from_str(&text).expect("TOML")).expect("a policy");
    world.engine.set_policy(Arc::new(policy));
    for n in 0..2 {
        let mut asked = asked(&world, n, Operation::Trade);
        asked.symbol = Some("BTCUSDT".into());
        change(&mut asked);
        world.feed(&asked);
    }
    raised(&world)
}

fn raised(world: &World) -> Vec<(Vec<String>, Severity)> {
    let ids = |alert| detectors(alert).into_iter().map(str::to_owned).collect();
    world.raised().into_iter().map(|alert| (ids(alert), alert.severity)).collect()
}

fn one(detector: &str, severity: Severity) -> Vec<(Vec<String>, Severity)> {
    vec![(vec![detector.to_owned()], severity)]
}

#[test]
fn what_a_policy_forbids_is_one_alert() {
    let with = |rules| raised_with(rules, |_| {});
    assert_eq!(with("operations = [\"read\"]"), one("D9", Severity::Medium));
    assert_eq!(with("networks = [\"192.0.2.0/24\"]"), one("D5", Severity::Medium));
    assert_eq!(with("symbols = [\"ETHUSDT\"]"), one("D18", Severity::Medium));
    assert_eq!(with("calls_per_minute_max = 1"), one("D1", Severity::Medium));
    assert_eq!(with("revoked = 2020-01-01"), one("D16", Severity::Critical));
    let all = "operations = [\"trade\"]\nnetworks = [\"0.0.0.0/0\"]\nsymbols = [\"BTCUSDT\"]\n\
               calls_per_minute_max = 2\nrevoked = 2100-01-01\nhours = \"00:00-24:00\"";
    assert_eq!(with(all), []);
    assert_eq!(with("created = 2020-01-01\nrotation_age_max = \"90d\""), [], "old is no alert");
}

#[test]
fn what_is_refused_breaks_no_policy() {
    let refused = |rules, outcome| raised_with(rules, move |call| call.outcome = Some(outcome));
    for rules in ["operations = [\"read\"]", "revoked = 2020-01-01"] {
        assert_eq!(refused(rules, Outcome::PermissionDenied), [], "{rules}");
        assert_eq!(refused(rules, Outcome::BadKey), [], "{rules}");
    }
}

#[test]
fn a_policy_may_ask_for_a_second_factor() {
    let withdraw = |rules: &str, change: &dyn Fn(&mut ApiCall)| {
        let fired = raised_with(rules, |call| {
            call.op = Operation::Withdraw;
            change(call);
        });
        fired.iter().any(|(ids, _)| ids.iter().any(|id| id == "D17"))
    };
    assert!(withdraw("step_up = true", &|_| {}));
    assert!(!withdraw("step_up = false", &|_| {}));
    let token = |call: &mut ApiCall| {
        let issued = i64::try_from(LATER / SECOND).unwrap();
        let amr = vec!["pwd".into(), "otp".into()];
        call.token = Some(Arc::new(Token { issued: Some(issued), amr, ..Token::default() }));
    };
    assert!(!withdraw("step_up = true", &token));
}

#[test]
fn a_second_factor_on_the_wire_counts_for_an_hour() {
    let fires_for = |method: &str, path: &str, outcome, wait_s: u64| {
        let mut world = world();
        let text = format!("[keys.{}]\nstep_up = true", id(&world));
        world.engine.set_policy(Arc::new(Policy::new(toml::from_str(&text).unwrap()).unwrap()));
        let mut factor = asked(&world, 0, Operation::Auth);
        factor.request = Some(request(method, path));
        factor.outcome = Some(outcome);
        world.feed(&factor);
        world.feed(&asked(&world, wait_s, Operation::Withdraw));
        raised(&world).iter().any(|(ids, _)| ids.iter().any(|id| id == "D17"))
    };
    let fires = |path: &str, outcome, wait_s| fires_for("POST", path, outcome, wait_s);
    assert!(!fires("/auth/totp/verify", Outcome::Ok, 60));
    assert!(!fires("/v1/webauthn/assertion", Outcome::Ok, 60));
    assert!(fires("/auth/totp/verify", Outcome::Error, 60), "the code was wrong");
    assert!(fires("/auth/totp/verify", Outcome::Ok, 3700), "long ago");
    assert!(fires("/login", Outcome::Ok, 60), "a password alone");
    assert!(fires_for("GET", "/auth/mfa", Outcome::Ok, 60), "read about it");
    assert!(fires_for("DELETE", "/auth/mfa/totp", Outcome::Ok, 60), "taken away");
    for path in ["/webauthn/assertion/options", "/mfa/challenge", "/otp/send", "/passkeys/register"]
    {
        assert!(fires(path, Outcome::Ok, 60), "{path}: nothing is proven yet");
    }
}

#[test]
fn tokens_for_others_are_faulty_by_the_policy() {
    let raised = |audience: &[&str], issuer: &str, op| {
        let mut world = world();
        let text = "[hosts.\"api.example\"]\naudience = [\"trading\"]\nissuer = [\"https://idp.example/\"]";
        world.engine.set_policy(Arc::new(Policy::new(toml::from_str(text).unwrap()).unwrap()));
        let mut asked = asked(&world, 0, op);
        asked.request = Some(request("POST", "/orders"));
        asked.token = Some(Arc::new(Token {
            audience: audience.iter().map(|it| (*it).into()).collect(),
            issuer: Some(issuer.into()),
            ..Token::default()
        }));
        world.feed(&asked);
        raised(&world)
    };
    let trade = |audience, issuer| raised(audience, issuer, Operation::Trade);
    assert_eq!(trade(&["web", "trading"], "idp.example/"), []);
    assert_eq!(trade(&[], "idp.example"), [], "it names none");
    assert_eq!(trade(&["web"], "idp.example"), one("D15", Severity::Critical));
    assert_eq!(trade(&["trading"], "idp.evil.example"), one("D15", Severity::Critical));
    assert_eq!(raised(&["web"], "idp.example", Operation::Read), []);
}

fn with_account(world: &mut World, client: usize, n: u64, account: &str, outcome: Outcome) {
    let (key, ip) = (world.clients[client].key, world.clients[client].ip);
    let mut asked = call(LATER + n * SECOND, Some(key), ip, Operation::Trade, Some(outcome));
    let account = Some(account.into());
    asked.detail = Some(Box::new(Detail { account, ..Detail::default() }));
    world.feed(&asked);
}

#[test]
fn an_order_on_the_account_of_another_is_one_alert() {
    let mut world = world();
    for n in 0..60 {
        with_account(&mut world, 0, 10 * n, "own", Outcome::Ok);
        with_account(&mut world, 1, 10 * n + 1, "theirs", Outcome::Ok);
    }
    assert_eq!(raised(&world), [], "{}", show(&world.alerts));
    with_account(&mut world, 0, 700, "theirs", Outcome::PermissionDenied);
    assert_eq!(raised(&world), [], "it was refused");
    with_account(&mut world, 0, 710, "theirs", Outcome::Ok);
    assert_eq!(raised(&world), one("D26", Severity::High));
    let theirs = call(0, Some(world.clients[1].key), world.clients[1].ip, Operation::Read, None);
    let owner = theirs.key.unwrap().id.to_string();
    assert!(world.alerts[0].explanation.contains(&owner), "{}", show(&world.alerts));
}

#[test]
fn a_key_that_makes_accounts_may_use_them() {
    let mut world = world();
    world.feed(&asked(&world, 0, Operation::Subaccount));
    for n in 0..60 {
        with_account(&mut world, 0, 10 * n, "own", Outcome::Ok);
    }
    with_account(&mut world, 0, 700, "made just now", Outcome::Ok);
    assert_eq!(raised(&world), [], "{}", show(&world.alerts));
}

fn request(method: &str, path: &str) -> Request {
    Request {
        method: method.into(),
        host: Some("api.example".into()),
        target: path.into(),
        path: path.into(),
        user_agent: None,
        header_order: None,
        body_bytes: 0,
    }
}

/// What is raised when, after some calls with keys, one comes without.
fn without_key(keyed_path: &str, op: Operation, policy: &str) -> Vec<(Vec<String>, Severity)> {
    let mut world = world();
    world.engine.set_policy(Arc::new(
        Policy::new(toml::from_str(policy).expect("TOML")).expect("a policy"),
    ));
    for n in 0..10 {
        let mut keyed = asked(&world, 10 * n, Operation::Read);
        keyed.request = Some(request("POST", keyed_path));
        world.feed(&keyed);
    }
    let ip = std::net::Ipv4Addr::new(192, 0, 2, 99);
    let mut open = call(LATER + 200 * SECOND, None, ip, op, Some(Outcome::Ok));
    open.request = Some(request("POST", "/orders/18"));
    world.feed(&open);
    raised(&world)
}

#[test]
fn what_needs_a_key_is_done_without_one() {
    let high = one("D24", Severity::High);
    assert_eq!(without_key("/orders/17", Operation::Trade, ""), high, "others had a key there");
    assert_eq!(without_key("/balances", Operation::Withdraw, ""), high, "others had a key");
    assert_eq!(without_key("/balances", Operation::Trade, ""), [], "not sure");
    assert_eq!(without_key("/orders/17", Operation::Public, ""), [], "no matter");
}

#[test]
fn endpoints_that_a_policy_does_not_know() {
    let medium = one("D24", Severity::Medium);
    let policy = |rules: &str| format!("[hosts.\"api.example\"]\n{rules}");
    let open = |rules: &str| without_key("/balances", Operation::Public, &policy(rules));
    assert_eq!(open("retired = [\"/orders/*\"]"), medium);
    assert_eq!(open("endpoints = [\"/balances\"]"), medium);
    assert_eq!(open("endpoints = [\"/balances\", \"POST /orders/*\"]"), []);
}

#[test]
fn secrets_in_a_response_are_one_alert_an_endpoint() {
    let raised_by = |op, odd| {
        let mut world = world();
        // Within a day of the clock; the next would be another alert.
        for n in 0..20 {
            let mut asked = asked(&world, n, op);
            asked.time = EventTime(asked.time.0 + n * HOUR);
            asked.request = Some(request("GET", "/profile"));
            (asked.outcome, asked.anomalies) = (Some(Outcome::Error), odd);
            world.feed(&asked);
        }
        raised(&world)
    };
    for odd in [Anomalies::SECRET_IN_RESPONSE, Anomalies::CARD_IN_RESPONSE] {
        assert_eq!(raised_by(Operation::Read, odd), one("D24", Severity::Medium));
        assert_eq!(raised_by(Operation::Auth, odd), [], "a login gives tokens");
        let new_key = raised_by(Operation::KeyManagement, odd);
        let is_told = new_key.iter().any(|(detectors, _)| detectors.contains(&"D24".to_owned()));
        assert!(!is_told, "who makes a key is shown its secret: {new_key:?}");
    }
    assert_eq!(raised_by(Operation::Read, Anomalies::empty()), []);
}
