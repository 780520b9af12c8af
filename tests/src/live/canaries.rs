//! Credentials are in nothing that Keywatch writes, says or sends while it runs, whatever sinks are on.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use memchr::memmem;
use xtask::http::Connection;
use xtask::kafka::{Kafka, Secured};
use xtask::process;

use super::rig::Rig;
use super::sinks::{receiver, signing_secret};

/// Part of every credential that is sent. In base64 it shows in one of three ways, by where it begins.
const CANARY: &str = "c4n4ryS3cr3tV4lu3";
const ENCODED: [&str; 3] =
    ["YzRuNHJ5UzNjcjN0VjRsdT", "M0bjRyeVMzY3IzdFY0bHUz", "jNG40cnlTM2NyM3RWNGx1M"];
/// In paths, so that every output can be seen to hold something of what was sent.
const MARK: &str = "canary-was-here";

/// All sinks at once, of which Kafka is not there and so waits in its spool; the table of metrics, the
/// baseline, and a log that says everything.
pub(crate) fn are_nowhere() -> Result<()> {
    let mut rig = Rig::without_agent()?;
    let secured = Secured::prepare(rig.dir())?;
    let (_syslog, syslog) = receiver(rig.dir(), "syslog", &secured)?;
    let (_webhook, webhook) = receiver(rig.dir(), "webhook", &secured)?;
    let metrics = SocketAddr::from(([127, 0, 0, 1], process::free_server_port()?));
    let nobody = process::free_server_port()?;
    let signing = signing_secret(rig.dir())?;
    let (dir, signing) = (rig.dir().display().to_string(), signing.display());
    let ca = secured.file("ca.pem");
    let config = format!(
        "[engine]\nhost = \"test\"\n[metrics]\nlisten = \"{metrics}\"\n\
         [sinks.spool]\ndir = \"{dir}/spool\"\n\
         [sinks.kafka]\nbrokers = [\"127.0.0.1:{nobody}\"]\nflush_max = \"1s\"\n\
         [sinks.syslog]\naddress = \"127.0.0.1:{syslog}\"\ntls = true\nca_file = \"{ca}\"\n\
         kinds = [\"alert\", \"activity\"]\nflush_max = \"30s\"\n\
         [sinks.webhook]\nurl = \"https://127.0.0.1:{webhook}/\"\nca_file = \"{ca}\"\n\
         secret_file = \"{signing}\"\nkinds = [\"alert\", \"activity\"]\nformat = \"ecs\"\nflush_max = \"30s\"\n\
         [sinks.file]\npath = \"{dir}/file.jsonl\"\nkinds = [\"alert\", \"activity\"]\n\
         [sinks.stdout]\nformat = \"native\"\nkinds = [\"alert\", \"activity\"]\n"
    );
    fs::write(rig.dir().join("keywatch.toml"), config)?;
    let connections = format!("{dir}/connections.jsonl");
    let ports = [rig.server.port(), rig.http2.port()];
    rig.start_agent_on(&ports, &["-vv".into(), "--connections".into(), connections])?;
    let calls = everywhere(rig.server)?;
    over_http2(rig.http2)?;
    let mut asked = Connection::open(metrics)?;
    let page = asked.call("GET", "/metrics", "Connection: close\r\n", b"")?.body;
    ensure!(memmem::find(&page, b"keywatch_").is_some(), "no metrics");
    clean("the page of metrics", &page)?;
    let output = rig.agent()?.output();
    let seen = rig.stop_agent()?;
    ensure!(seen.len() == calls + 1, "{} calls, {calls} and one over HTTP/2 made", seen.len());
    clean("what it says", output.as_bytes())?;
    let mut held = Vec::new();
    files(rig.dir(), &mut held)?;
    for name in ["calls.jsonl", "file.jsonl", "syslog.txt", "webhook.txt", "keywatch.log", "spool"]
    {
        ensure!(held.iter().any(|file| file.contains(name)), "{name} holds nothing: {held:?}");
    }
    Ok(())
}

/// In a broker's topics neither: what records hold, their keys and header fields.
pub(crate) fn are_not_in_kafka() -> Result<()> {
    let kafka = Kafka::start()?;
    let mut rig = Rig::without_agent()?;
    let config = format!(
        "[engine]\nhost = \"test\"\n[sinks.spool]\ndir = \"{}\"\n[sinks.kafka]\n\
         brokers = [\"{}\"]\nformat = \"native\"\npartitions = 1\nflush_max = \"30s\"\n\
         activity = true\n",
        rig.dir().join("spool").display(),
        kafka.bootstrap
    );
    fs::write(rig.dir().join("keywatch.toml"), config)?;
    rig.start_agent(&[])?;
    let calls = everywhere(rig.server)?;
    rig.stop_agent()?;
    for (topic, records_min) in
        [("keywatch.alerts", 1), ("keywatch.activity", calls), ("keywatch.health", 0)]
    {
        let format = ["-C", "-e", "-q", "-f", "%k %h %s\\n"];
        let from = ["-b", kafka.bootstrap.as_str(), "-t", topic];
        let held = match kafka.kcat(&[&from[..], &format[..]].concat()) {
            // Nothing was wrong with the capture, so nobody has made this topic.
            Err(_) if records_min == 0 => continue,
            held => held?,
        };
        clean(topic, held.as_bytes())?;
        let records = held.lines().count();
        ensure!(records >= records_min, "{records} records in {topic}");
        ensure!(records_min == 0 || held.contains("k_"), "no key is in {topic}");
    }
    Ok(())
}

/// A credential in every place that a key, a secret or a session can have; how many calls that makes.
fn everywhere(server: SocketAddr) -> Result<usize> {
    // c4n4ryS3cr3tV4lu3 as user, as password, and as the subject of a token.
    let basic = "Authorization: Basic YzRuNHJ5UzNjcjN0VjRsdTM6YzRuNHJ5UzNjcjN0VjRsdTM=\r\n";
    let jwt = "Authorization: Bearer eyJhbGciOiJub25lIn0.\
               eyJpc3MiOiJpZC5leGFtcGxlIiwic3ViIjoiYzRuNHJ5UzNjcjN0VjRsdTMifQ.YzRuNHJ5UzNjcjN0VjRsdTM\r\n";
    let mut calls = 0;
    let mut connection = Connection::open(server)?;
    let mut send = |method: &str, target: &str, headers: &str, body: &str| -> Result<()> {
        calls += 1;
        connection.call(method, target, headers, body.as_bytes()).map(drop)
    };
    for name in [
        "X-MBX-APIKEY",
        "OK-ACCESS-KEY",
        "OK-ACCESS-SIGN",
        "OK-ACCESS-PASSPHRASE",
        "X-BAPI-API-KEY",
        "X-BAPI-SIGN",
        "CB-ACCESS-KEY",
        "CB-ACCESS-SIGN",
        "CB-ACCESS-PASSPHRASE",
        "API-Key",
        "API-Sign",
        "APIKey",
        "Authent",
        "bfx-apikey",
        "bfx-signature",
        "KC-API-KEY",
        "KC-API-SIGN",
        "KC-API-PASSPHRASE",
        "KEY",
        "SIGN",
        "api-key",
        "api-signature",
        "X-API-Key",
        "X-Auth-Token",
        "X-SSL-Client-S-DN",
        "Proxy-Authorization",
        "X-Csrf-Token",
        "X-OTP",
    ] {
        send("GET", &format!("/api/{MARK}"), &format!("{name}: {CANARY}\r\n"), "")?;
    }
    let cookie = format!("Cookie: session={CANARY}; sid={CANARY}\r\n");
    let deribit =
        format!("Authorization: deri-hmac-sha256 id={CANARY},sig={CANARY},nonce={CANARY}\r\n");
    let bearer = format!("Authorization: Bearer {CANARY}\r\n");
    for headers in [basic, jwt, &cookie, &deribit, &bearer] {
        send("GET", &format!("/api/{MARK}"), headers, "")?;
    }
    for name in
        ["api_key", "apiKey", "signature", "access_token", "token", "password", "otp", "code"]
    {
        send("GET", &format!("/api/{MARK}?{name}={CANARY}"), "", "")?;
        let form = "Content-Type: application/x-www-form-urlencoded\r\n";
        send("POST", "/note", form, &format!("{name}={CANARY}&mark={MARK}"))?;
        let json = format!("{{\"{name}\":\"{CANARY}\",\"in\":{{\"{name}\":\"{CANARY}\"}}}}");
        send("POST", "/note", "Content-Type: application/json\r\n", &json)?;
    }
    let rpc = format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"public/auth\",\"params\":{{\
         \"client_id\":\"{CANARY}\",\"client_secret\":\"{CANARY}\",\"refresh_token\":\"{CANARY}\"}}}}"
    );
    send("POST", "/note", "Content-Type: application/json\r\n", &rpc)?;
    // A key that is good, and withdrawals that it may not make: an alert.
    let key = format!("X-MBX-APIKEY: {CANARY}-good\r\n");
    send("GET", "/api/account", &key, "")?;
    for _ in 0..2 {
        let target = format!("/sapi/v1/capital/withdraw/apply?coin=BTC&signature={CANARY}");
        send("POST", &target, &key, "")?;
    }
    Ok(calls)
}

fn over_http2(server: SocketAddr) -> Result<()> {
    let mut curl = std::process::Command::new("curl");
    curl.args(["--silent", "--fail", "--http2-prior-knowledge"]);
    curl.args(["--header", &format!("Authorization: Bearer {CANARY}")]);
    curl.args(["--header", &format!("Cookie: session={CANARY}")]);
    process::run(curl.arg(format!("http://{server}/api/{MARK}?api_key={CANARY}"))).map(drop)
}

/// Looks at every file below a folder; notes those that hold the mark. What nginx logs is its own.
fn files(dir: &Path, held: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.display().to_string();
        if path.is_dir() {
            files(&path, held)?;
            continue;
        }
        if name.ends_with("access.log") {
            continue;
        }
        let bytes = fs::read(&path).with_context(|| name.clone())?;
        clean(&name, &bytes)?;
        if memmem::find(&bytes, MARK.as_bytes()).is_some() {
            held.push(name);
        }
    }
    Ok(())
}

fn clean(what: &str, bytes: &[u8]) -> Result<()> {
    let found =
        ENCODED.iter().chain([&CANARY]).position(|it| memmem::find(bytes, it.as_bytes()).is_some());
    ensure!(found.is_none(), "a credential is in {what}");
    Ok(())
}
