//! What HTTP/1 can look like when every byte arrives in order.

use super::Case;
use super::conversation::Conversation;

/// A key as Binance's are: 64 letters and digits.
pub(super) const BINANCE_KEY: &str =
    "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A";

/// Every case of this kind.
pub(super) fn all() -> Vec<Case> {
    vec![
        one("get-no-key", &[(get("/api/v3/ping", ""), ok("{}"))]),
        key_styles(),
        post_bodies(),
        pipelined(),
        chunked(),
        no_body(),
        continued(),
        until_close(),
        http10(),
        one(
            "upgrade",
            &[(
                get("/stream", "Connection: Upgrade\r\nUpgrade: websocket\r\n"),
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\u{1}\u{2}frames"
                    .into(),
            )],
        ),
        redacted(),
        upgrade_refused(),
        tunnel_early(),
        http09(),
        smuggling(),
        faults(),
    ]
}

/// A GET in its everyday form. `headers` is whole lines.
pub(super) fn get(target: &str, headers: &str) -> String {
    request("GET", target, headers, "")
}

/// A request of any method.
pub(super) fn request(method: &str, target: &str, headers: &str, body: &str) -> String {
    let length = match body.len() {
        0 => String::new(),
        len => format!("Content-Length: {len}\r\n"),
    };
    format!(
        "{method} {target} HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: desk/1.0\r\n\
         {headers}{length}\r\n{body}"
    )
}

/// A reply with a body of known length.
pub(super) fn reply(status: &str, body: &str) -> String {
    let len = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len}\r\n\r\n{body}"
    )
}

/// 200 with a body.
pub(super) fn ok(body: &str) -> String {
    reply("200 OK", body)
}

/// One connection with one exchange after the other.
pub(super) fn one(name: &'static str, exchanges: &[(String, String)]) -> Case {
    let mut talk = Conversation::everyday();
    talk.open();
    for (request, reply) in exchanges {
        talk.ask(request).answer(reply);
    }
    talk.close();
    Case::new(name, talk.packets())
}

fn key_styles() -> Case {
    let binance = format!("X-MBX-APIKEY: {BINANCE_KEY}\r\n");
    let account = "/api/v3/account?timestamp=1795464000000&signature=00112233445566778899aabb";
    one(
        "key-styles",
        &[
            (get(account, &binance), ok(r#"{"balances":[]}"#)),
            (get("/v1/me", "Authorization: Bearer tok-3f9a1c77d2\r\n"), ok(r#"{"id":7}"#)),
            (get("/v1/me", "Authorization: Basic ZGVzazpzM2NyM3Q=\r\n"), ok(r#"{"id":8}"#)),
            (get("/v1/me", "x-api-key: live-0a1b2c3d4e5f\r\n"), ok(r#"{"id":9}"#)),
            (get("/v1/me?api_key=live-0a1b2c3d4e5f&x=1", ""), ok(r#"{"id":9}"#)),
        ],
    )
}

fn post_bodies() -> Case {
    let large = "x".repeat(10_000);
    one(
        "post-bodies",
        &[
            (request("POST", "/v1/note", "", "hello"), reply("201 Created", r#"{"id":1}"#)),
            (request("PUT", "/v1/blob", "", &large), reply("204 No Content", "")),
            (get("/v1/blob", ""), ok(&large)),
        ],
    )
}

/// Three requests in one segment, three replies in another.
fn pipelined() -> Case {
    let asked: String = ["/a", "/b", "/c"].map(|path| get(path, "")).concat();
    let answered = [ok("1"), reply("404 Not Found", "22"), ok("333")].concat();
    let mut talk = Conversation::everyday();
    talk.open().ask(asked).answer(answered).close();
    Case::new("pipelined", talk.packets())
}

/// Both ways, with an extension, upper and lower case sizes, and a trailer: 16 bytes there, 26 back.
fn chunked() -> Case {
    let asked = "POST /v1/batch HTTP/1.1\r\nHost: api.example.com\r\n\
                 Transfer-Encoding: chunked\r\n\r\n\
                 6\r\nabcdef\r\nA;ext=1\r\n0123456789\r\n0\r\n\r\n";
    let answered = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                    1a\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\nX-Sum: 1\r\n\r\n";
    one("chunked", &[(asked.into(), answered.into()), (get("/after", ""), ok("ok"))])
}

/// Replies whose headers name a length that is not there.
fn no_body() -> Case {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n";
    let not_modified = "HTTP/1.1 304 Not Modified\r\nContent-Length: 5000\r\n\r\n";
    let no_content = "HTTP/1.1 204 No Content\r\n\r\n";
    one(
        "no-body",
        &[
            (request("HEAD", "/file", "", ""), head.into()),
            (get("/file", "If-None-Match: \"a\"\r\n"), not_modified.into()),
            (request("DELETE", "/file", "", ""), no_content.into()),
            (get("/last", ""), ok("end")),
        ],
    )
}

fn continued() -> Case {
    let mut talk = Conversation::everyday();
    talk.open()
        .ask("POST /v1/note HTTP/1.1\r\nHost: api.example.com\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        .answer("HTTP/1.1 100 Continue\r\n\r\n")
        .ask("body")
        .answer(ok("done"))
        .close();
    Case::new("continue-100", talk.packets())
}

fn until_close() -> Case {
    use monitor_core::input::Direction;
    let mut talk = Conversation::everyday();
    talk.open()
        .ask(get("/export.csv", ""))
        .answer("HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\n\r\n")
        .answer("a,b\n1,2\n")
        .answer("3,4\n")
        .finish(Direction::ToClient)
        .finish(Direction::ToServer);
    Case::new("until-close", talk.packets())
}

fn http10() -> Case {
    use monitor_core::input::Direction;
    let mut talk = Conversation::everyday();
    talk.open()
        .ask("GET /old HTTP/1.0\r\n\r\n")
        .answer("HTTP/1.0 200 OK\r\n\r\nold style")
        .finish(Direction::ToClient)
        .finish(Direction::ToServer);
    Case::new("http10", talk.packets())
}

/// Credentials in the query, twice and in odd places: none may be seen in the output.
fn redacted() -> Case {
    let target = "/v1/x?apiKey=live-one&signature=sig-one&passphrase=pass-one&a=1";
    let both = format!("X-MBX-APIKEY: {BINANCE_KEY}\r\nX-API-Key: live-two\r\n");
    one("two-keys", &[(get(target, ""), ok("1")), (get("/v1/y", &both), ok("2"))])
}

/// An offer of h2c that the server does not take, and requests sent before it could say so.
fn upgrade_refused() -> Case {
    let offer =
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n";
    let mut talk = Conversation::everyday();
    talk.open()
        .ask(get("/offer", offer))
        .ask(get("/early", ""))
        .answer(ok("first"))
        .answer(ok("second"))
        .ask(get("/late", ""))
        .answer(ok("third"))
        .close();
    Case::new("upgrade-refused", talk.packets())
}

/// A client that does not wait for its tunnel, and a tunnel that is refused.
fn tunnel_early() -> Case {
    let connect = "CONNECT backend:8080 HTTP/1.1\r\nHost: backend:8080\r\n\r\n";
    let mut talk = Conversation::everyday();
    talk.open()
        .ask(connect)
        .answer(reply("403 Forbidden", "no"))
        .ask(connect)
        .ask(get("/inside", ""))
        .answer("HTTP/1.1 200 Connection established\r\n\r\n")
        .answer(ok("inside"))
        .close();
    Case::new("tunnel-early", talk.packets())
}

fn http09() -> Case {
    use monitor_core::input::Direction;
    let mut talk = Conversation::everyday();
    talk.open()
        .ask("GET /ancient?a=b\r\n")
        .answer("<p>no head, ")
        .answer("no status</p>")
        .finish(Direction::ToClient)
        .finish(Direction::ToServer);
    Case::new("http09", talk.packets())
}

/// One body read in two ways, in the forms in use: each hides `/hidden` from one kind of reader.
fn smuggling() -> Case {
    let hidden = "0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: api.example.com\r\n\r\n";
    let length = format!("Content-Length: {}\r\n", hidden.len());
    let talk = |port: u16, fields: &str| {
        let client = format!("203.0.113.9:{port}");
        let mut talk = Conversation::between(&client, "198.51.100.5:8080");
        talk.open()
            .ask(format!("POST /seen HTTP/1.1\r\nHost: api.example.com\r\n{fields}\r\n{hidden}"))
            .answer(ok("1"))
            .answer(ok("2"))
            .close();
        talk
    };
    let chunked = "Transfer-Encoding: chunked\r\n";
    let talks = [
        talk(51_001, &format!("{length}{chunked}")),
        talk(51_002, &format!("{length}Transfer-Encoding : chunked\r\n")),
        talk(51_003, &format!("{length}Transfer-Encoding: xchunked\r\n")),
        talk(51_004, &format!("{length}Transfer-Encoding:\u{b}chunked\r\n")),
        talk(51_005, &format!("{length}X: y\r\n Transfer-Encoding: chunked\r\n")),
        talk(51_006, &format!("{length}X: y\nTransfer-Encoding: chunked\r\n")),
        talk(51_007, &format!("{length}X: y\rTransfer-Encoding: chunked\r\n")),
        talk(51_008, &format!("{length}Content-Length: 5\r\n")),
        talk(51_009, &format!("{chunked}Transfer-Encoding: identity\r\n")),
    ];
    Case::new("smuggling", talks.iter().flat_map(Conversation::packets).collect())
}

/// Requests and answers that are not by the letter, each on its own.
fn faults() -> Case {
    let ask = |head: &str| format!("{head}\r\n\r\n");
    one(
        "faults",
        &[
            (ask("GET  /spaces HTTP/1.1\r\nHost: h"), ok("1")),
            (ask("get /lower HTTP/1.1\r\nHost: h"), ok("2")),
            (ask("GET /version HTTP/1.7\r\nHost: h"), ok("3")),
            (ask("GET /hosts HTTP/1.1\r\nHost: h\r\nHost: i"), ok("4")),
            (ask("GET /no-host HTTP/1.1"), ok("5")),
            (ask("GET /nul HTTP/1.1\r\nHost: h\r\nX: \0"), ok("6")),
            (ask("GET /colon HTTP/1.1\r\nHost: h\r\nno colon"), ok("7")),
            (get("/reason", ""), "HTTP/1.1 200\r\nContent-Length: 1\r\n\r\n8".into()),
            (get("/status", ""), "HTTP/1.1 2e2 OK\r\nContent-Length: 1\r\n\r\n9".into()),
            (
                get("/extension", ""),
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;\n0\r\n0\r\n\r\n".into(),
            ),
        ],
    )
}
