//! Kafka over TLS with SCRAM and with client certificates, and what is said when it does not work.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xtask::kafka::{Kafka, PASSWORD, Secured, USER};
use xtask::{process, setup};

use crate::replay::{common_args, keywatch, scratch};

const TOPIC: &str = "keywatch.alerts";

/// With both SCRAM mechanisms and with a client certificate: every alert arrives, topics are as the
/// config says, and another client reads them over the same way.
pub(crate) fn scram_and_certificates() -> Result<()> {
    let kafka = Kafka::start_secured("")?;
    let secured = secured(&kafka)?;
    let ways = [
        ("scram256", scram(secured, "SCRAM-SHA-256", PASSWORD)),
        ("scram512", scram(secured, "SCRAM-SHA-512", PASSWORD)),
        ("mutual", mutual(secured, "client")),
    ];
    for (name, options) in &ways {
        let address = if *name == "mutual" { secured.mutual } else { secured.scram };
        let more = format!(
            "alerts_topic = \"{name}.alerts\"\nactivity_topic = \"{name}.activity\"\n\
             partitions = 3\nformat = \"native\"\nalerts_retention = \"1day\"\n"
        );
        let run = publish(&address.to_string(), &more, options)?;
        ensure!(run.code == Some(0), "{name}: {}", run.said);
        ensure!(!run.alerts.is_empty(), "{name}: no alert");
        let mut kcat = vec!["-b".to_owned(), address.to_string(), "-t".to_owned()];
        kcat.push(format!("{name}.alerts"));
        kcat.extend(["-C", "-e", "-q"].map(str::to_owned));
        for (option, value) in options {
            kcat.extend(["-X".to_owned(), format!("{option}={value}")]);
        }
        let kcat: Vec<&str> = kcat.iter().map(String::as_str).collect();
        let read = kafka.kcat(&kcat)?;
        ensure!(read.lines().eq(run.alerts.lines()), "{name}: the topic differs from the file");
        let about = kafka.kcat(&["-b", &kafka.bootstrap, "-L", "-t", &format!("{name}.alerts")])?;
        ensure!(about.contains("with 3 partitions"), "{name}: {about}");
        // Other programs may read this configuration; the password stands in no line of ours.
        ensure!(!run.said.contains(PASSWORD), "{name}: the password was printed");
    }
    Ok(())
}

/// OCSF is what is sent when nothing else is said, with CloudEvents headers and the key's id as key.
pub(crate) fn ocsf_by_default() -> Result<()> {
    let kafka = Kafka::start()?;
    let run = publish(&kafka.bootstrap, "", &[])?;
    ensure!(run.code == Some(0), "{}", run.said);
    let format = "%k|%h|%s\n";
    let read =
        kafka.kcat(&["-b", &kafka.bootstrap, "-t", TOPIC, "-C", "-e", "-q", "-f", format])?;
    let alerts: Vec<Value> =
        run.alerts.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    ensure!(read.lines().count() == alerts.len(), "{} alerts in Kafka", read.lines().count());
    for alert in &alerts {
        let id = format!("{}.{}", text_of(&alert["id"]), alert["revision"]);
        let line = read.lines().find(|line| line.contains(&format!("ce_id={id},")));
        let line = line.with_context(|| format!("alert {id} is not in Kafka"))?;
        let mut parts = line.splitn(3, '|');
        let (key, headers, body) = (parts.next(), parts.next(), parts.next());
        ensure!(key == Some(text_of(&alert["entity"]["id"])), "{line}");
        let headers = headers.unwrap_or_default();
        for header in [
            "ce_specversion=1.0",
            "ce_type=keywatch.alert.ocsf.v1",
            "content-type=application/json",
        ] {
            ensure!(headers.contains(header), "{headers}");
        }
        let body: Value = serde_json::from_str(body.unwrap_or_default())?;
        ensure!(body["class_uid"] == 2004 && body["metadata"]["uid"] == id, "{body}");
    }
    // A client that shares no code with ours reads the same.
    let python = setup::python_with_kafka().context("no Python has the module kafka")?;
    let reader = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/live/kafka_reader.py");
    let by_python = process::run(Command::new(python).arg(reader).args([&kafka.bootstrap, TOPIC]))?;
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    ensure!(sorted(&by_python) == sorted(&read), "kcat: {read}\nPython: {by_python}");
    let summary: Value = serde_json::from_str(run.said.lines().last().unwrap_or_default())?;
    let arrived = alerts.len() + run.calls;
    ensure!(summary["sinks"][0]["arrived"] == arrived, "{}", summary["sinks"]);
    let mut tail = Command::new(keywatch()?);
    tail.args(["tail", "--all", "--once"]).args(&common_args(run.dir.path())[..2]);
    let shown = tail.output().context("starting keywatch tail")?;
    let text = String::from_utf8_lossy(&shown.stdout);
    ensure!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
    // Three lines each: what it is, what happened, what to do.
    ensure!(text.lines().count() == 3 * alerts.len(), "{text}");
    for alert in &alerts {
        ensure!(
            text.contains(text_of(&alert["title"]))
                && text.contains(text_of(&alert["explanation"]))
        );
    }
    let activity = kafka.read_topic("keywatch.activity")?;
    ensure!(activity.iter().all(|line| line.contains("\"class_uid\":6003")));
    ensure!(activity.len() == run.calls, "{} calls in Kafka of {}", activity.len(), run.calls);
    Ok(())
}

/// Each is one line with the reason, and exit code 1.
pub(crate) fn what_is_wrong_is_said() -> Result<()> {
    let kafka = Kafka::start_secured("")?;
    let secured = secured(&kafka)?;
    let (by_password, by_certificate) = (secured.scram.to_string(), secured.mutual.to_string());
    let trusts_another = {
        let mut options = scram(secured, "SCRAM-SHA-512", PASSWORD);
        options.retain(|(name, _)| *name != "ssl.ca.location");
        options.push(("ssl.ca.location", secured.file("other-ca.pem")));
        options
    };
    for (address, options, reason) in [
        (
            &by_password,
            scram(secured, "SCRAM-SHA-512", "another-made-up-password"),
            "invalid credentials",
        ),
        (&by_password, trusts_another, "certificate verify failed"),
        (&by_certificate, mutual(secured, "expired"), "certificate"),
        (&by_certificate, mutual(secured, "stranger"), "certificate"),
        (&"127.0.0.1:1".to_owned(), Vec::new(), "no broker answers"),
    ] {
        let run = publish(address, "", &options)?;
        let expected = format!("keywatch: Kafka cannot be used: {address}: ");
        ensure!(run.code == Some(1), "{reason}: ended with {:?}: {}", run.code, run.said);
        ensure!(run.said.lines().count() == 1, "{reason}: more than one line: {}", run.said);
        ensure!(run.said.starts_with(&expected), "{reason}: {}", run.said);
        ensure!(run.said.to_lowercase().contains(reason), "{reason}: {}", run.said);
        ensure!(!run.said.contains("made-up-password"), "the password was printed");
    }
    // Somebody listens, takes everything and never answers.
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    let address = silent.local_addr()?.to_string();
    let run = publish(&address, "", &[])?;
    ensure!(run.code == Some(1) && run.said.contains("no broker answers"), "{}", run.said);
    Ok(())
}

/// What is larger than the broker takes is in the dead-letter topic with the reason and kept whole on
/// this host; everything else arrives.
pub(crate) fn larger_than_the_broker_takes() -> Result<()> {
    let kafka = Kafka::start_secured("message.max.bytes=1500\n")?;
    // Alerts in OCSF are larger than that, calls are not; nothing may be squeezed below it.
    let options = [("compression.type", "none".to_owned())];
    let run = publish(&kafka.bootstrap, "flush_max = \"60s\"\n", &options)?;
    let alerts: Vec<Value> =
        run.alerts.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let arrived = kafka.read_topic(TOPIC)?;
    let letters = kafka.read_topic("keywatch.dlq")?;
    let refused = fs::read_to_string(run.dir.path().join("spool/kafka/refused"))?;
    ensure!(!letters.is_empty(), "nothing in the dead-letter topic: {}", run.said);
    ensure!(letters.len() == refused.lines().count(), "{letters:?}\n{refused}");
    ensure!(letters.iter().all(|letter| letter.contains("too large")), "{letters:?}");
    let calls = kafka.read_topic("keywatch.activity")?.len();
    let all = arrived.len() + calls + letters.len();
    ensure!(all == alerts.len() + run.calls, "{all} of {} and {}", alerts.len(), run.calls);
    ensure!(calls > 0, "no call arrived");
    Ok(())
}

/// What a replay with `--publish` did.
struct Run {
    code: Option<i32>,
    /// Lines on stderr.
    said: String,
    /// Alerts in the file.
    alerts: String,
    calls: usize,
    dir: tempfile::TempDir,
}

/// Replays a capture with alerts in it to a broker.
fn publish(broker: &str, more: &str, options: &[(&str, String)]) -> Result<Run> {
    let dir = scratch()?;
    let options: Vec<String> =
        options.iter().map(|(name, value)| format!("\"{name}\" = \"{value}\"")).collect();
    let config = format!(
        "[engine]\nhost = \"test\"\n[sinks.spool]\ndir = \"{}\"\n[sinks.kafka]\n\
         brokers = [\"{broker}\"]\n{more}options = {{ {} }}\n",
        dir.path().join("spool").display(),
        options.join(", ")
    );
    fs::write(dir.path().join("keywatch.toml"), config)?;
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases/attack-stuffing");
    let file = |name: &str| dir.path().join(name);
    let mut command = Command::new(keywatch()?);
    command.arg("replay").args(common_args(dir.path())).args([
        "--quiet",
        "--publish",
        "--port",
        "8080",
        "--summary",
        "json",
    ]);
    command.arg("--alerts").arg(file("alerts.jsonl")).arg("--calls").arg(file("calls.jsonl"));
    command.arg(case.join("input.pcap"));
    let output = command.output().context("starting keywatch")?;
    let lines = |name: &str| fs::read_to_string(file(name)).unwrap_or_default();
    Ok(Run {
        code: output.status.code(),
        said: String::from_utf8_lossy(&output.stderr).into_owned(),
        alerts: lines("alerts.jsonl"),
        calls: lines("calls.jsonl").lines().count(),
        dir,
    })
}

fn secured(kafka: &Kafka) -> Result<&Secured> {
    kafka.secured.as_ref().context("the broker has no TLS")
}

fn scram(secured: &Secured, mechanism: &str, password: &str) -> Vec<(&'static str, String)> {
    vec![
        ("security.protocol", "SASL_SSL".into()),
        ("sasl.mechanism", mechanism.into()),
        ("sasl.username", USER.into()),
        ("sasl.password", password.into()),
        ("ssl.ca.location", secured.file("ca.pem")),
    ]
}

fn mutual(secured: &Secured, name: &str) -> Vec<(&'static str, String)> {
    vec![
        ("security.protocol", "SSL".into()),
        ("ssl.ca.location", secured.file("ca.pem")),
        ("ssl.certificate.location", secured.file(&format!("{name}.pem"))),
        ("ssl.key.location", secured.file(&format!("{name}.key"))),
    ]
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
