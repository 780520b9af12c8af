//! One connection for each style of exchange: a withdrawal or order that goes well, and failures as
//! the exchange tells them, most of them with status 200.

use super::Case;
use super::conversation::{Conversation, interleave};
use super::http::{get, ok, one, reply, request};

/// Every case of this kind.
pub(super) fn all() -> Vec<Case> {
    vec![
        styles_that_answer_200(),
        styles_with_statuses(),
        bodies(),
        proxied(),
        proxy_protocol(),
        oauth(),
        leaks(),
        undeclared_secrets(),
    ]
}

const JSON: &str = "Content-Type: application/json\r\n";
const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";

fn post(target: &str, headers: &str, body: &str) -> String {
    request("POST", target, headers, body)
}

fn styles_that_answer_200() -> Case {
    let okx = format!(
        "{JSON}OK-ACCESS-KEY: made-up-okx-key\r\nOK-ACCESS-SIGN: made-up-sign\r\n\
         OK-ACCESS-TIMESTAMP: 2026-11-23T20:00:00.000Z\r\nOK-ACCESS-PASSPHRASE: made-up-pass\r\n"
    );
    let bybit = format!(
        "{JSON}X-BAPI-API-KEY: made-up-bybit-key\r\nX-BAPI-SIGN: made-up-sign\r\n\
         X-BAPI-TIMESTAMP: 1795464000000\r\nX-BAPI-RECV-WINDOW: 5000\r\n"
    );
    let kraken = format!("{FORM}API-Key: made-up-kraken-key\r\nAPI-Sign: made-up-sign\r\n");
    let futures = format!("{FORM}APIKey: made-up-futures-key\r\nAuthent: made-up-sign\r\n");
    let kucoin = format!(
        "{JSON}KC-API-KEY: made-up-kucoin-key\r\nKC-API-SIGN: made-up-sign\r\n\
         KC-API-PASSPHRASE: made-up-pass\r\nKC-API-TIMESTAMP: 1795464000000\r\n"
    );
    let order = r#"{"instId":"BTC-USDT","tdMode":"cash","side":"buy","ordType":"limit","sz":"0.5","px":"100","clOrdId":"b15"}"#;
    let withdrawal = r#"{"ccy":"BTC","amt":"1","dest":"4","toAddr":"made-up-address"}"#;
    one(
        "styles-that-answer-200",
        &[
            (
                post("/api/v5/trade/order", &okx, order),
                ok(r#"{"code":"0","msg":"","data":[{"ordId":"9","sCode":"0"}]}"#),
            ),
            (
                post("/api/v5/asset/withdrawal", &okx, withdrawal),
                ok(r#"{"code":"60023","msg":"address","data":[]}"#),
            ),
            (
                get("/api/v5/account/balance", &okx),
                ok(r#"{"code":"50102","msg":"Timestamp request expired"}"#),
            ),
            (
                post(
                    "/v5/order/create",
                    &bybit,
                    r#"{"category":"linear","symbol":"BTCUSDT","qty":"1"}"#,
                ),
                ok(r#"{"retCode":0,"retMsg":"OK","result":{"orderId":"a"}}"#),
            ),
            (
                post("/v5/user/create-sub-api", &bybit, r#"{"subuid":53888000}"#),
                ok(r#"{"retCode":10005,"retMsg":"Permission denied"}"#),
            ),
            (
                post(
                    "/0/private/AddOrder",
                    &kraken,
                    "nonce=1795464000&pair=XBTUSD&volume=1.25&type=buy",
                ),
                ok(r#"{"error":[],"result":{"txid":["OU22CG"]}}"#),
            ),
            (
                post(
                    "/0/private/Withdraw",
                    &kraken,
                    "nonce=1795464000&asset=XBT&amount=0.725&key=made-up",
                ),
                ok(r#"{"error":["EAPI:Invalid nonce"]}"#),
            ),
            (
                post(
                    "/derivatives/api/v3/sendorder",
                    &futures,
                    "orderType=lmt&symbol=PI_XBTUSD&size=1",
                ),
                ok(
                    r#"{"result":"error","error":"apiLimitExceeded","serverTime":"2026-11-23T20:00:00Z"}"#,
                ),
            ),
            (
                post(
                    "/api/v1/hf/orders",
                    &kucoin,
                    r#"{"clientOid":"a-1","symbol":"KCS-USDT","size":"1"}"#,
                ),
                ok(r#"{"code":"200000","data":{"orderId":"5bd"}}"#),
            ),
            (
                post("/api/v1/withdrawals", &kucoin, r#"{"currency":"BTC","amount":2}"#),
                ok(
                    r#"{"code":"400006","msg":"The requested ip address is not in the api whitelist"}"#,
                ),
            ),
        ],
    )
}

fn styles_with_statuses() -> Case {
    let exchange = format!(
        "{JSON}CB-ACCESS-KEY: made-up-cb-key\r\nCB-ACCESS-SIGN: made-up-sign\r\n\
         CB-ACCESS-TIMESTAMP: 1795464000\r\nCB-ACCESS-PASSPHRASE: made-up-pass\r\n"
    );
    // {"alg":"ES256","kid":"made-up"}.{"sub":"made-up-key","iss":"cdp","exp":1795464120,"nbf":1795464000}
    let advanced = format!(
        "{JSON}Authorization: Bearer eyJhbGciOiJFUzI1NiIsImtpZCI6Im1hZGUtdXAifQ.\
         eyJzdWIiOiJtYWRlLXVwLWtleSIsImlzcyI6ImNkcCIsImV4cCI6MTc5NTQ2NDEyMCwibmJmIjoxNzk1NDY0MDAwfQ.\
         bWFkZS11cA\r\n"
    );
    let deribit = "Authorization: deri-hmac-sha256 id=made-up-id,ts=1795464000000,\
                   sig=made-up-sign,nonce=made-up-nonce\r\n";
    let bitfinex = format!(
        "{JSON}bfx-apikey: made-up-bfx-key\r\nbfx-signature: made-up-sign\r\nbfx-nonce: 1795464000\r\n"
    );
    let gate =
        format!("{JSON}KEY: made-up-gate-key\r\nSIGN: made-up-sign\r\nTimestamp: 1795464000\r\n");
    let bitmex = format!(
        "{JSON}api-key: made-up-mex-key\r\napi-signature: made-up-sign\r\napi-expires: 1795464060\r\n"
    );
    let limits = "HTTP/1.1 200 OK\r\nX-RateLimit-Limit: 120\r\nX-RateLimit-Remaining: 119\r\n\
                  Content-Length: 2\r\n\r\n{}";
    one(
        "styles-with-statuses",
        &[
            (
                post("/withdrawals/crypto", &exchange, r#"{"amount":"10.00","currency":"BTC"}"#),
                reply("401 Unauthorized", r#"{"message":"invalid signature"}"#),
            ),
            (
                post("/v2/accounts/a-1/withdrawals", &advanced, r#"{"amount":"10"}"#),
                reply("402 Payment Required", r#"{"errors":[{"id":"two_factor_required"}]}"#),
            ),
            (
                post(
                    "/api/v3/brokerage/orders",
                    &advanced,
                    r#"{"client_order_id":"x1","product_id":"BTC-USD"}"#,
                ),
                ok(r#"{"success":false,"failure_reason":"UNKNOWN"}"#),
            ),
            (
                get("/api/v2/private/withdraw?currency=BTC&amount=1", deribit),
                reply(
                    "400 Bad Request",
                    r#"{"jsonrpc":"2.0","error":{"code":13003,"message":"tfa_code_not_matched"}}"#,
                ),
            ),
            (
                post("/v2/auth/w/withdraw", &bitfinex, r#"{"wallet":"exchange","amount":"5"}"#),
                reply("500 Internal Server Error", r#"["error",10100,"apikey: invalid"]"#),
            ),
            (post("/v2/auth/r/wallets", &bitfinex, "{}"), ok(r#"[["exchange","BTC",1,0,null]]"#)),
            (
                post("/api/v4/withdrawals", &gate, r#"{"currency":"USDT","amount":"222"}"#),
                reply("403 Forbidden", r#"{"label":"IP_FORBIDDEN","message":"x"}"#),
            ),
            (
                post(
                    "/api/v1/order",
                    &bitmex,
                    r#"{"symbol":"XBTUSD","orderQty":1,"clOrdID":"m1"}"#,
                ),
                limits.into(),
            ),
            (
                get("/api/v1/user/margin", &bitmex),
                reply(
                    "401 Unauthorized",
                    r#"{"error":{"message":"This key is disabled.","name":"HTTPError"}}"#,
                ),
            ),
        ],
    )
}

/// A key in a form, JSON-RPC over HTTP, GraphQL, a batch, and two pieces of one body.
fn bodies() -> Case {
    let key = "X-API-Key: made-up-key\r\n";
    let rpc = r#"{"jsonrpc":"2.0","id":1,"method":"public/auth","params":{"grant_type":"client_credentials","client_id":"made-up-id","client_secret":"made-up-secret"}}"#;
    let batch = r#"[{"symbol":"A-USD","clientOrderId":"a1","quantity":1},{"symbol":"B-USD","clientOrderId":"b2"}]"#;
    one(
        "bodies",
        &[
            (
                post("/v2/private/order/create", FORM, "api_key=made-up-key&symbol=BTCUSD&sign=made-up-sign&qty=3"),
                ok(r#"{"ret_code":10006,"ret_msg":"too many"}"#),
            ),
            (post("/api/v2", JSON, rpc), reply("400 Bad Request", r#"{"error":{"code":13004,"message":"x"}}"#)),
            (
                post("/graphql", key, r#"{"operationName":"CreateWithdrawal","query":"mutation CreateWithdrawal { x }","variables":{"accountId":"77"}}"#),
                ok("{}"),
            ),
            (
                post("/graphql", key, r#"{"query":"mutation { a: createWithdrawal(amount: 1) { id } }"}"#),
                ok(r#"{"data":null,"errors":[{"message":"permission denied"}]}"#),
            ),
            (post("/v1/orders/batch", key, batch), ok("{}")),
            (
                "POST /v1/orders HTTP/1.1\r\nHost: api.example.com\r\nX-API-Key: made-up-key\r\n\
                 Transfer-Encoding: chunked\r\n\r\n9\r\n{\"symbol\"\r\n11\r\n:\"C-USD\",\"id\":\"9\"\r\n1\r\n}\r\n0\r\n\r\n"
                    .into(),
                ok("{}"),
            ),
        ],
    )
}

/// Two keys of one server in turn over a connection that a proxy keeps.
fn proxied() -> Case {
    let key = |number: u32| {
        format!(
            "X-Forwarded-For: 203.0.113.{number}\r\nOK-ACCESS-KEY: made-up-key-{number}\r\n\
             OK-ACCESS-SIGN: made-up-sign\r\n"
        )
    };
    let answer = || ok(r#"{"code":"0","data":[]}"#);
    one(
        "proxied-keys",
        &[
            (get("/api/v5/account/balance", &key(1)), answer()),
            (get("/api/v5/account/balance", &key(2)), answer()),
            (get("/api/v5/account/balance", &key(1)), answer()),
        ],
    )
}

/// What proxies say before all else: both versions, one with more than addresses and one for itself; a chain
/// of two; a header behind a client's own, from who is no proxy, and one that is none.
fn proxy_protocol() -> Case {
    let two = |command: u8, family: u8, content: &[u8]| {
        let length = u16::try_from(content.len()).unwrap_or_default().to_be_bytes();
        [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, content].concat()
    };
    let four: &[u8] = &[203, 0, 113, 9, 10, 0, 0, 5, 0xc9, 0x38, 0x1f, 0x90];
    let six = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[9], &[0; 16], &[0xc9, 0x38, 0x1f, 0x90]];
    // PP2_TYPE_AUTHORITY, as long as a segment.
    let added = [four, &[2, 0x05, 0xdc], &[b'a'; 1500]].concat();
    let line = "PROXY TCP4 203.0.113.9 10.0.0.5 51512 8080\r\n";
    let chain = "PROXY TCP4 10.0.0.2 10.0.0.5 51512 8080\r\n";
    let headers: [(&str, Vec<u8>); 8] = [
        ("10.0.0.1", line.into()),
        ("10.0.0.1", two(0x21, 0x21, &six.concat())),
        ("10.0.0.1", two(0x21, 0x11, &added)),
        ("10.0.0.1", two(0x20, 0, b"")),
        ("10.0.0.1", [chain, line].concat().into()),
        ("10.0.0.1", [line, chain].concat().into()),
        ("203.0.113.77", line.into()),
        ("10.0.0.1", "PROXY TCP4 here there 51512 8080\r\n".into()),
    ];
    let key = "X-API-Key: made-up-key\r\n";
    let forwarded = "X-API-Key: made-up-key\r\nX-Forwarded-For: 203.0.113.88\r\n";
    let mut talks = Vec::new();
    for (number, (from, header)) in headers.into_iter().enumerate() {
        let client = format!("{from}:{}", 40_000 + number);
        let mut talk = Conversation::between(&client, "198.51.100.5:8080");
        talk.open();
        talk.ask([&header[..], get("/v1/orders", key).as_bytes()].concat()).answer(ok("[]"));
        talk.ask(get("/v1/balances", forwarded)).answer(ok("{}")).close();
        talks.push(talk);
    }
    Case::new("proxy-protocol", interleave(&talks))
}

/// Tokens on every grant: a code with a verifier, with a secret, and alone; a refresh token; a device code
/// that is asked for until the user agrees; and a passkey that is checked.
fn oauth() -> Case {
    let token = |form: &str| post("/oauth/token", FORM, form);
    let device = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code&\
                  device_code=made-up-device-code&client_id=desk";
    let basic = format!("{FORM}Authorization: Basic bWFkZS11cDptYWRlLXVwLXNlY3JldA==\r\n");
    let given = || ok(r#"{"access_token":"made-up-access","refresh_token":"made-up-refresh-2"}"#);
    let code =
        "grant_type=authorization_code&code=made-up-code&redirect_uri=https%3A%2F%2Fdesk.example";
    let pending = || reply("400 Bad Request", r#"{"error":"authorization_pending"}"#);
    let key = format!("{JSON}X-API-Key: made-up-key\r\n");
    one(
        "oauth",
        &[
            (token(&format!("{code}&client_id=desk&code_verifier=made-up-verifier")), given()),
            (post("/oauth/token", &basic, code), given()),
            (token(&format!("{code}&client_id=desk")), given()),
            (
                token("grant_type=refresh_token&refresh_token=made-up-refresh&client_id=desk"),
                given(),
            ),
            (
                get(
                    "/oauth/authorize?response_type=code&client_id=desk&state=made-up-state&\
                     redirect_uri=https%3A%2F%2Fdesk.example%2Fcb%3Fx%3D1&code_challenge=c",
                    "",
                ),
                "HTTP/1.1 302 Found\r\nLocation: https://desk.example/cb?code=made-up-code&\
                 state=made-up-state\r\nContent-Length: 0\r\n\r\n"
                    .into(),
            ),
            (
                post(
                    "/oauth/token",
                    JSON,
                    r#"{"grant_type":"authorization_code","code":"made-up-code-2","client_id":"desk","redirect_uri":"https:\/\/evil.example\/cb","code_verifier":"made-up-verifier"}"#,
                ),
                given(),
            ),
            (
                post("/oauth/device_authorization", FORM, "client_id=desk"),
                ok(r#"{"device_code":"made-up-device-code","user_code":"WDJB-MJHT","interval":5}"#),
            ),
            (post("/device", FORM, "user_code=wdjbmjht"), ok("{}")),
            (token(device), pending()),
            (token(device), given()),
            (
                token("grant_type=client_credentials&client_id=desk&client_secret=made-up-secret"),
                reply("401 Unauthorized", r#"{"error":"invalid_client"}"#),
            ),
            (post("/webauthn/assertion/options", &key, "{}"), ok(r#"{"challenge":"made-up"}"#)),
            (post("/webauthn/assertion/verify", &key, r#"{"response":{}}"#), ok("{}")),
        ],
    )
}

/// Answers with what belongs in none: in an error, and in one that comes with status 200. A login's token
/// is in order.
fn leaks() -> Case {
    let okx = "OK-ACCESS-KEY: made-up-okx-key\r\nOK-ACCESS-SIGN: made-up-sign\r\n";
    let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJtYWRlLXVwIn0.bWFkZS11cA";
    one(
        "leaks",
        &[
            (
                get("/api/v5/account/balance", okx),
                ok(r#"{"code":"0","data":[{"holder":"x","card":"4111 1111 1111 1111"}]}"#),
            ),
            (
                get("/v1/me", "X-API-Key: made-up-key\r\n"),
                reply(
                    "500 Internal Server Error",
                    &format!(r#"{{"error":"upstream refused {jwt}"}}"#),
                ),
            ),
            (get("/v1/me", "X-API-Key: made-up-key\r\n"), reply("404 Not Found", "{}")),
            (
                get("/v1/profile", "X-API-Key: made-up-key\r\n"),
                ok(r#"{"name":"x","totp_secret":"made-up"}"#),
            ),
            (get("/debug/config", ""), ok(r#"{"db":{"password":"made-up"}}"#)),
            (
                get("/api/v3/time", "X-MBX-APIKEY: made-up-binance-key\r\n"),
                ok(r#"{"serverTime":1}"#),
            ),
        ],
    )
}

/// An API of no profile, with credentials where nobody looks for them.
fn undeclared_secrets() -> Case {
    let secret = "kQ7fL2pX9vT4mB8nR1sW6yZ3cD5hJ0gA";
    let headers = format!("{JSON}X-Desk-Key: made-up-key\r\nX-Desk-Proof: {secret}\r\n");
    let body = format!(r#"{{"side":"buy","proof":"{secret}"}}"#);
    let target = format!("/desk/orders?voucher={secret}");
    one("undeclared-secrets", &[(post(&target, &headers, &body), ok("{}"))])
}
