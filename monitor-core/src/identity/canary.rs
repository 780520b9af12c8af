//! No credential leaves: canaries in every place, and random targets around them.

use httparse::Header;
use proptest::prelude::*;

use super::*;
use crate::call::KeyId;

const CANARY: &str = "c4n4ryS3cr3tV4lu3";

fn identifier() -> Identifier {
    Identifier::new(Secret::new([7; 32]))
}

fn header<'a>(name: &'a str, value: &'a str) -> Header<'a> {
    Header { name, value: value.as_bytes() }
}

fn identify(method: &str, target: &str, headers: &[Header<'_>]) -> Identified {
    identifier().identify(&RequestHead { method, target, headers })
}

fn get(target: &str) -> Identified {
    identify("GET", target, &[])
}

fn with(name: &str, value: &str) -> Identified {
    identify("GET", "/api/v3/account", &[header(name, value)])
}

/// Everything that can be printed of it.
fn printed(identified: &Identified) -> String {
    let key = serde_json::to_string(&identified.key).unwrap();
    let named = serde_json::to_string(&(&identified.symbol, &identified.object_ids)).unwrap();
    format!("{identified:?} {key} {named} {} {}", identified.target, identified.path)
}

fn id(identified: &Identified) -> KeyId {
    identified.key.as_ref().expect("a key was given").id
}

#[test]
fn one_raw_key_has_one_id_wherever_it_stands() {
    let places = [
        (with("X-MBX-APIKEY", CANARY), "header:x-mbx-apikey", "binance"),
        (with("x-api-key", CANARY), "header:x-api-key", "x-api-key"),
        (with("AUTHORIZATION", &format!("bEaReR  {CANARY} ")), "header:authorization", "bearer"),
        // c4n4ryS3cr3tV4lu3:password
        (
            with("authorization", "Basic YzRuNHJ5UzNjcjN0VjRsdTM6cGFzc3dvcmQ="),
            "header:authorization",
            "basic",
        ),
        (get(&format!("/x?api_key={CANARY}")), "query:api_key", "query-key"),
        (get("/x?a=b;API%2dKEY=c4n4ryS3cr3tV%34lu3"), "query:api_key", "query-key"),
    ];
    for (identified, source, profile) in &places {
        let key = identified.key.as_ref().unwrap();
        assert_eq!((key.source.as_str(), key.profile.as_str()), (*source, *profile));
        assert_eq!(key.id, id(&places[0].0), "{source} {profile}");
        assert_eq!(identified.anomalies, Anomalies::empty());
        assert!(!printed(identified).contains(CANARY));
    }
    let other = Identifier::new(Secret::new([8; 32]));
    let headers = [header("x-api-key", CANARY)];
    let head = RequestHead { method: "GET", target: "/", headers: &headers };
    assert_ne!(id(&other.identify(&head)), id(&places[0].0), "the id hangs on the secret");
}

#[test]
fn after_a_change_of_the_secret_both_ids_are_said_wherever_the_key_stands() {
    let before = identifier();
    let mut after = Identifier::new(Secret::new([8; 32]).after([7; 32]).after([6; 32]));
    // {"iss":"id.example.com","sub":"u-1"}
    let token = "Bearer eyJhbGciOiJub25lIn0.eyJpc3MiOiJpZC5leGFtcGxlLmNvbSIsInN1YiI6InUtMSJ9.c2ln";
    let encoded = format!("/x?api_key={}", CANARY.replace('4', "%34"));
    for (target, name, value) in [
        ("/", "x-api-key", CANARY),
        ("/", "authorization", token),
        ("/", "authorization", "Basic YzRuNHJ5UzNjcjN0VjRsdTM6cGFzc3dvcmQ="),
        (encoded.as_str(), "accept", "*/*"),
    ] {
        let headers = [header(name, value)];
        let head = RequestHead { method: "GET", target, headers: &headers };
        let known = id(&before.identify(&head));
        for _ in 0..2 {
            let key = after.identify(&head).key.unwrap();
            assert_eq!((key.former()[0], key.former().len()), (known, 2), "{name} {target}");
            assert!(key.id != known && key.lasting() == key.former()[1]);
        }
    }
    after.set_secret(&Secret::new([7; 32]));
    let headers = [header("x-api-key", CANARY)];
    let head = RequestHead { method: "GET", target: "/", headers: &headers };
    let key = after.identify(&head).key.unwrap();
    assert_eq!((key.id, key.former), (id(&before.identify(&head)), None));
}

#[test]
fn the_id_is_an_hmac_of_domain_and_key() {
    use hmac::{Hmac, KeyInit, Mac};
    let mac = Hmac::<sha2::Sha256>::new_from_slice(&[7; 32]).unwrap();
    let tag = mac.chain_update(b"keywatch key id v1\0").chain_update(CANARY).finalize();
    let first = u128::from_be_bytes(tag.into_bytes()[..16].try_into().unwrap());
    assert_eq!(id(&with("x-api-key", CANARY)), KeyId(first));
}

#[test]
fn canaries_in_a_target_never_show() {
    let targets = [
        "/x?signature=CANARY",
        "/x?SIGN=CANARY",
        "/x?sig=CANARY",
        "/x?passphrase=CANARY",
        "/x?password=CANARY",
        "/x?client_secret=CANARY",
        "/x?token=CANARY",
        "/x?access_token=CANARY",
        "/x?refresh_token=CANARY",
        "/x?id_token=CANARY",
        "/x?code=CANARY",
        "/x?otp=CANARY",
        "/x?totp=CANARY",
        "/x?listenKey=CANARY",
        "/x?session=CANARY",
        "/x?sessionId=CANARY",
        "/x?api%4bey=CANARY",
        "/x?api_key=CANARY",
        "/x?apiKey=CANARY&apiKey=CANARY",
        "/x?a=1;apiKey=CANARY",
        "/x?apiKey=;signature=CANARY",
        "/x?signature=;CANARY",
        "/x?signature=a;CANARY&b=1",
        "/x?signature=a;b=CANARY",
        "/x?signature=a/CANARY",
        "/x?signature=a?CANARY",
        "/x?signature=a#CANARY",
        "/x?signature=a%26CANARY",
        "/x?signature==CANARY",
        "/x?&&=&signature=CANARY",
        "/x#access_token=CANARY",
        "/x?y#z&access_token=CANARY",
        "/x;jsessionid=CANARY",
        "/x;jsessionid=CANARY/y?z=1",
        "/x%3fapi_key=CANARY",
        "/x%3Fapi_key%3DCANARY",
        "/x?%73ignature=CANARY",
        "/x?signatur%65%3dCANARY",
        "/x?api[key]=CANARY",
        "/x?r=https%3A%2F%2Fh%2F%3Ftoken%3DCANARY%26a%3Db",
        "/x?r=https://u:CANARY@h/",
        "/x?r=https%3a%2f%2fu%3aCANARY%40h",
        "/x?u:CANARY@h=1",
        "http://u:CANARY@h/x",
        "http://CANARY@h/x",
        "http://u:CANARY@h",
        "//u:CANARY@h/x",
        "http://u:CAN/CANARY@h/x",
        "http://u:CANARY?@h/x",
        "http://u:CANARY@h?a=b",
        "/proxy/http://u:CANARY@h/x",
        "/x/eyJhbGciOiJ9.CANARY.sig",
        "/x?y=eyJhbGciOiJ9.eyJzdWIiOiJ9.CANARY",
        "/eyJhbGciOiJ9.CANARY.sig=",
        "/x?eyJhbGciOiJ9.CANARY.sig=1",
        "/x?a=b%65yJh.CANARY%2e",
        "/x?eyJhbGciOiJ9aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.CANARY.sig=1",
        "/x?symbol=eyJhbGciOiJ9.CANARY.sig",
        "/x?p={\"api_key\":\"CANARY\"}",
        "/x?p=%7b%22token%22:%22CANARY%22%7d&b",
        "/x?api_key={CANARY}",
        "/x?api%254bey=CANARY",
        "/#/eyJa.CANARY.b:=%40",
        "/?api_key=CANARYeyJ../",
        "/?u:CANARY=@h",
    ];
    for target in targets {
        let identified = get(&target.replace("CANARY", CANARY));
        assert!(!printed(&identified).contains(CANARY), "{target} -> {}", identified.target);
    }
    let connect = identify("CONNECT", &format!("u:{CANARY}@h:443"), &[]);
    assert!(!printed(&connect).contains(CANARY));
    assert_eq!((connect.target.as_str(), connect.path.as_str()), ("[redacted]@h:443", ""));
}

#[test]
fn what_is_shown() {
    let shown = |target: &str| get(target).target.to_string();
    let key = id(&get("/?apiKey=K"));
    assert_eq!(shown("/a?apiKey=K&b=1"), format!("/a?apiKey=[{key}]&b=1"));
    assert_eq!(shown("/a?signature=s;c&b=1"), "/a?signature=[redacted]&b=1");
    assert_eq!(shown("/a?apiKey=&b"), "/a?apiKey=&b");
    assert_eq!(shown("http://u:p@h:80/a/b?c#d"), "http://[redacted]@h:80/a/b?c#d");
    assert_eq!(shown("http://h:80/users/me@x"), "http://h:80/users/me@x");
    assert_eq!(shown("/a/eyJh.b.c/d"), "/a/[redacted]/d");
    assert_eq!(shown("/ü?q=é%20&x="), "/ü?q=é%20&x=");
    assert_eq!(shown("/a?x=4111111111111111&b=1"), "/a?x=[redacted]&b=1");
    assert_eq!(shown("/a?t=1795464000123"), "/a?t=1795464000123");
    assert_eq!(shown("/a?cvv=123&card_number=1"), "/a?cvv=[redacted]&card_number=[redacted]");
    assert_eq!(shown("*"), "*");
    assert_eq!(shown(""), "");
    let path = |target: &str| get(target).path.to_string();
    assert_eq!(path("http://h"), "/");
    assert_eq!(path("http://u@h/a;x=1?b"), "/a;x=1");
    assert_eq!(path("/a;sid=1/b?c"), "/a;sid=[redacted]/b");
    assert_eq!(path("*"), "*");
}

#[test]
fn long_targets_are_cut() {
    let long = format!("/a?x={}&apiKey={CANARY}", "ü".repeat(16_000));
    let identified = get(&long);
    assert_eq!(id(&identified), id(&get(&format!("/?apikey={CANARY}"))), "read to the end");
    assert!(identified.target.ends_with("[cut]"));
    assert!(identified.target.len() <= TARGET_BYTES_MAX + 5, "{}", identified.target.len());
    let hidden = format!("/{}/withdraw", "a/".repeat(2000));
    assert_eq!(identify("POST", &hidden, &[]).op, Operation::Withdraw, "classified uncut");
}

#[test]
fn precedence_and_conflict() {
    let all = [
        header("authorization", "Bearer b"),
        header("x-api-key", "x"),
        header("x-mbx-apikey", "m"),
    ];
    let identified = identify("GET", "/?apiKey=q", &all);
    assert_eq!(identified.key.as_ref().unwrap().source, "header:x-mbx-apikey");
    assert_eq!(identified.anomalies, Anomalies::KEY_CONFLICT);
    assert_eq!(Some(identified.style), Profiles::builtin().style("binance"));
    let same = identify("GET", "/?apiKey=k", &[header("x-api-key", "k")]);
    assert_eq!(same.anomalies, Anomalies::empty());
    assert_eq!(get("/?apiKey=a&apiKey=b").anomalies, Anomalies::KEY_CONFLICT);
    let many = get(&format!("/?{}", "apiKey=a&".repeat(9)));
    assert_eq!(many.anomalies, Anomalies::KEY_CONFLICT, "more than are compared");
}

#[test]
fn nothing_is_invented() {
    for value in ["", "Bearer", "Bearer ", "Basic ", "Basic !!!", "Basic OnBhc3M=", "Digest a=b"] {
        assert!(with("authorization", value).key.is_none(), "{value}");
    }
    assert!(with("x-api-key", "  ").key.is_none());
    assert!(get("/x?apiKey=").key.is_none());
}

#[test]
fn basic_ignores_the_password() {
    let one = id(&with("authorization", "Basic dXNlcjpwYXNz")); // user:pass
    assert_eq!(one, id(&with("authorization", "Basic dXNlcjpvdGhlcg"))); // user:other, unpadded
    assert_eq!(one, id(&with("x-api-key", "user")));
}

#[test]
fn a_token_is_known_by_its_subject() {
    // {"sub":"key-1","iss":"cdp","exp":1} and {"iss":"cdp","exp":2,"sub":"key-1","x":[{}]}
    let one =
        with("authorization", "Bearer eyJh.eyJzdWIiOiJrZXktMSIsImlzcyI6ImNkcCIsImV4cCI6MX0.s");
    let two = with(
        "authorization",
        "Bearer eyJi.eyJpc3MiOiJjZHAiLCJleHAiOjIsInN1YiI6ImtleS0xIiwieCI6W3t9XX0.t",
    );
    assert_eq!(id(&one), id(&two));
    // {"sub":"key-1"}: no issuer, so the token stands for itself.
    let bare = "eyJh.eyJzdWIiOiJrZXktMSJ9.s";
    assert_eq!(id(&with("authorization", &format!("Bearer {bare}"))), id(&with("x-api-key", bare)));
    assert_ne!(id(&one), id(&with("authorization", &format!("Bearer {bare}"))));
}

#[test]
fn symbols_and_objects() {
    let identified =
        get("/v1/orders/42/fills/7f3a1b2c-0000-4000-8000-00000000abcd?symbol=BTC-USDT&orderId=9");
    assert_eq!(identified.symbol.as_deref(), Some("BTC-USDT"));
    assert_eq!(identified.object_ids, ["42", "7f3a1b2c-0000-4000-8000-00000000abcd", "9"]);
    assert!(get("/0/private").object_ids.is_empty());
    assert_eq!(get(&format!("/x{}", "/1/2/3/4/5/6/7/8/9")).object_ids.len(), OBJECT_IDS_MAX);
    assert_eq!(get("/x?symbol=%3Cscript%3E").symbol, None);
}

#[test]
fn a_head_prints_sizes_only() {
    let headers = [header("x-api-key", CANARY)];
    let head = RequestHead { method: CANARY, target: CANARY, headers: &headers };
    assert_eq!(
        format!("{head:?}"),
        "RequestHead { method_bytes: 17, target_bytes: 17, headers: 1 }"
    );
}

/// Pieces that mean something to the scan, so that random targets reach its corners.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "/", "?", "&", ";", "#", "=", "%", ":", "@", "{", "}", ".", "eyJ", "://", "%3D", "%26",
            "%3f", "%2f", "%40", "%7B", "%e", "a", "apiKey", "symbol", "http", "id", "ü", "[", "J",
        ])
        .prop_map(String::from),
        "[ -~]{0,6}",
        any::<char>().prop_map(String::from),
    ]
}

fn noise() -> impl Strategy<Value = String> {
    prop::collection::vec(piece(), 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn random_targets_never_panic(target in noise(), method in "GET|POST|CONNECT|[A-Z]{0,8}") {
        let identified = identify(&method, &target, &[]);
        prop_assert!(identified.target.len() <= TARGET_BYTES_MAX + CUT_BYTES);
        prop_assert!(identified.object_ids.len() <= OBJECT_IDS_MAX);
    }

    #[test]
    fn a_secret_never_leaks_whatever_stands_around_it(
        before in noise(),
        name in prop::sample::select(vec![
            "api_key", "apiKey", "api%4bey", "signature", "sig%6eature", "token", "password",
            "access%5Ftoken", "otp", "listenKey",
        ]),
        separator in prop::sample::select(vec!["?", "&", ";", "#", "%26", "?&"]),
        equals in prop::sample::select(vec!["=", "%3D", "%3d"]),
        after in noise(),
    ) {
        let target = format!("/{before}{separator}{name}{equals}{CANARY}{after}");
        let identified = get(&target);
        prop_assert!(!printed(&identified).contains(CANARY), "{} -> {}", target, identified.target);
    }

    #[test]
    fn a_token_never_leaks(before in noise(), after in noise()) {
        let target = format!("/{before}/eyJ{CANARY}.{CANARY}.{CANARY}{after}");
        prop_assert!(!get(&target).target.contains(CANARY), "{}", target);
    }

    #[test]
    fn random_header_values_never_panic_or_show(value in prop::collection::vec(any::<u8>(), 0..64)) {
        for name in ["authorization", "x-api-key"] {
            for scheme in [&b"Bearer "[..], b"Basic ", b""] {
                let value = [scheme, &value, CANARY.as_bytes()].concat();
                let headers = [Header { name, value: &value }];
                prop_assert!(!printed(&identify("GET", "/", &headers)).contains(CANARY));
            }
        }
    }

    #[test]
    fn random_bodies_never_panic(status in any::<u16>(), body in prop::collection::vec(any::<u8>(), 0..600)) {
        let profiles = Profiles::builtin();
        for profile in profiles.iter() {
            let style = profiles.style(&profile.name).unwrap();
            identifier().outcome(style, status, &body);
        }
    }
}

const CUT_BYTES: usize = 5;
