//! What the profiles say, and what is said of those that are wrong.

use super::*;

fn faults(text: &str) -> Vec<String> {
    match Profiles::with(&[("p.toml".into(), text.into())]) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.iter().map(Fault::to_string).collect(),
    }
}

#[test]
fn those_that_come_with_keywatch_are_right() {
    let profiles = Profiles::with(&[]).map_err(|faults| faults[0].to_string()).unwrap();
    assert_eq!(profiles.iter().count(), BUILTIN.len());
    for profile in profiles.iter() {
        assert!(!profile.title.is_empty(), "{}", profile.name);
    }
}

#[test]
fn the_example_in_the_readme_is_right() {
    let readme = include_str!("../../../../profiles/README.md");
    let example = readme.split("```").nth(1).unwrap().strip_prefix("toml\n").unwrap();
    assert_eq!(faults(example), Vec::<String>::new());
}

#[test]
fn a_fault_is_a_line_with_its_mend() {
    let check = |text: &str, expect: &str| assert_eq!(faults(text), [expect], "{text}");
    check(
        "name = \"x\"\nkeys = [{ header = \"A\", query = \"b\" }]",
        "p.toml:2: wrong key: name one place: header, scheme, query, form, cookie, fix or member",
    );
    check(
        "name = \"x\"\n\nkeys = [\n  { header = \"A\" },\n  { query = \"b\", on_paths = true },\n]",
        "p.toml:5: wrong key: `on_paths` needs `paths`, `hosts` or `fix_targets` in this profile",
    );
    check(
        "name = \"x\"\n[operations]\ntrade = [\n  \"/order\"]",
        "p.toml:4: wrong rule `/order`: no method: write `POST /path`, `* /path` or `rpc name`",
    );
    check("name = \"X y\"", "p.toml:1: a name is 1 to 20 small letters, digits and dashes");
    check("name = \"x\"\npaths = [\"api\"]", "p.toml:2: `api` is no path: begin it with `/`");
    check(
        "name = \"x\"\n[outcome]\ncode = [\"a..b\"]",
        "p.toml:3: wrong member `a..b`: an empty name: write a path such as `params.apiKey` or \
         `args[0]`",
    );
    check(
        "name = \"x\"\n[outcome.status]\n999 = \"error\"",
        "p.toml:3: `999` is no status: write 100 to 599",
    );
    let first = faults("name = \"x\"\nwrong = 1").remove(0);
    assert!(first.starts_with("p.toml:2: unknown field `wrong`, expected one of"), "{first}");
    let first = faults("name = \"x\"\n[operations]\nbuy = []").remove(0);
    assert!(first.starts_with("p.toml:3: "), "{first}");
    assert!(faults("name = ").remove(0).starts_with("p.toml:1: "));
    assert_eq!(faults("").len(), 1);
}

#[test]
fn a_file_takes_the_place_of_one_that_comes_with_keywatch() {
    let text = "name = \"okx\"\ntitle = \"ours\"\nkeys = [{ header = \"X-Ours\" }]";
    let profiles = Profiles::with(&[("okx.toml".into(), text.into())]).unwrap();
    assert_eq!(profiles.iter().count(), BUILTIN.len());
    assert_eq!(profiles.style("okx"), Some(Style(0)), "and comes first");
    assert_eq!(profiles.headers.find("x-ours"), Some(InRequest::Key(0)));
    assert_eq!(profiles.headers.find("ok-access-key"), None);
    let twice = [("a.toml".to_owned(), text.to_owned()), ("b.toml".to_owned(), text.to_owned())];
    let faults = Profiles::with(&twice).unwrap_err();
    assert_eq!(faults[0].to_string(), "b.toml:1: the name is used in a.toml too: choose another");
}

#[test]
fn hosts_and_paths_tell_a_style() {
    let profiles = Profiles::builtin();
    let name = |host: &str, path: &str| {
        let style = profiles.of_place(Some(host.as_bytes()), path.as_bytes());
        profiles.profile(style).map(|it| it.name.to_string()).unwrap_or_default()
    };
    assert_eq!(name("h", "/api/v3/order"), "binance");
    assert_eq!(name("h", "/api/v3/brokerage/orders"), "coinbase-advanced", "the longest counts");
    assert_eq!(name("API.KuCoin.com:443", "/api/v1/orders"), "kucoin");
    assert_eq!(name("xkucoin.com", "/api/v1/orders"), "");
    assert_eq!(name("[::1]", "/0/private/Balance"), "kraken");
    assert_eq!(name("", "/x"), "");
}

#[test]
fn rules_of_the_styles() {
    let profiles = Profiles::builtin();
    for (style, method, path, expect) in [
        ("kraken", "POST", "/0/private/Balance", Some(Operation::Read)),
        ("kraken", "POST", "/0/private/Withdraw", Some(Operation::Withdraw)),
        ("kraken", "POST", "/0/private/GetWebSocketsToken", Some(Operation::Auth)),
        ("kraken-futures", "POST", "/derivatives/api/v3/sendorder", Some(Operation::Trade)),
        ("kraken-futures", "POST", "/derivatives/api/v3/cancelorder", Some(Operation::Cancel)),
        ("okx", "POST", "/api/v5/asset/withdrawal", Some(Operation::Withdraw)),
        ("okx", "POST", "/api/v5/users/subaccount/modify-apikey", Some(Operation::KeyManagement)),
        ("okx", "POST", "/api/v5/users/subaccount/create-subaccount", Some(Operation::Subaccount)),
        ("okx", "GET", "/api/v5/asset/balances", None),
        ("bybit", "POST", "/v5/user/create-sub-api", Some(Operation::KeyManagement)),
        ("bybit", "POST", "/v5/asset/transfer/inter-transfer", Some(Operation::Transfer)),
        ("deribit", "GET", "/api/v2/private/withdraw", Some(Operation::Withdraw)),
        (
            "deribit",
            "GET",
            "/api/v2/private/disable_tfa_for_subaccount",
            Some(Operation::Subaccount),
        ),
        ("bitfinex", "POST", "/v2/auth/r/wallets", Some(Operation::Read)),
        ("bitfinex", "POST", "/v2/auth/w/withdraw", Some(Operation::Withdraw)),
        ("kucoin", "POST", "/api/v1/bullet-private", Some(Operation::Auth)),
        ("kucoin", "DELETE", "/api/v1/orders/7", Some(Operation::Cancel)),
        ("gate", "POST", "/api/v4/sub_accounts/7/keys", Some(Operation::KeyManagement)),
        ("gate", "POST", "/api/v4/futures/usdt/orders", Some(Operation::Trade)),
        ("bitmex", "POST", "/api/v1/user/walletTransfer", Some(Operation::Transfer)),
        ("bitmex", "POST", "/api/v1/order", Some(Operation::Trade)),
        ("coinbase-exchange", "POST", "/withdrawals/crypto", Some(Operation::Withdraw)),
        (
            "coinbase-advanced",
            "POST",
            "/v2/accounts/a/withdrawals/b/commit",
            Some(Operation::Withdraw),
        ),
        ("coinbase-advanced", "POST", "/api/v3/brokerage/orders", Some(Operation::Trade)),
    ] {
        let number = profiles.style(style).unwrap();
        let seen = profiles.operation(number, method, path.as_bytes());
        assert_eq!(seen, expect, "{style} {method} {path}");
    }
}
