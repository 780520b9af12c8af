//! Tokens of logins are good while they are used, a thief's too.

use monitor_sim::{Kind, Plan, World};

#[test]
fn a_session_that_is_stolen_before_its_owner_comes_has_a_token_that_is_good() {
    let attacks = vec![Kind::TheftWithdraws, Kind::StolenCookies];
    let world = World::new(&Plan { seed: 3, keys: 30, days: 1, quiet_days: 0, attacks });
    let mut seen = 0;
    for call in world {
        let expires = call.token.as_ref().and_then(|token| token.expires);
        assert!(expires.is_none_or(|at| at > call.time.secs() as i64), "{}", call.time);
        seen += usize::from(expires.is_some());
    }
    assert!(seen > 0, "somebody has a login");
}
