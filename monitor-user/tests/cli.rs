//! The built program from outside: exit codes, messages, files.
#![expect(clippy::unwrap_used, reason = "what fails here fails a test")]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use etherparse::PacketBuilder;
use serde_json::Value;
use tempfile::TempDir;

#[path = "cli/baseline.rs"]
mod baseline;
#[path = "cli/files.rs"]
mod files;
#[path = "cli/keys.rs"]
mod keys;
#[path = "cli/profiles.rs"]
mod profiles;
#[path = "cli/seeing.rs"]
mod seeing;

struct Sandbox {
    dir: TempDir,
}

struct Outcome {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Sandbox {
    fn new() -> Sandbox {
        Sandbox { dir: tempfile::tempdir().unwrap() }
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.dir.path().join(name)).unwrap()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keywatch"));
        command
            .args(args)
            .current_dir(self.dir.path())
            .env("STATE_DIRECTORY", self.dir.path().join("state"))
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Outcome {
        outcome(self.command(args).output().unwrap())
    }

    fn run_with_stdin(&self, args: &[&str], stdin: &Path) -> Outcome {
        outcome(self.command(args).stdin(File::open(stdin).unwrap()).output().unwrap())
    }
}

fn outcome(output: std::process::Output) -> Outcome {
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Outcome {
    /// Failed with exactly this exit code and this line.
    fn is_refused(&self, code: i32, line: &str) {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        let expected = format!("keywatch: {line}");
        assert!(self.stderr.lines().any(|got| got == expected), "{line}\nnot in\n{}", self.stderr);
        assert!(!self.stderr.contains("backtrace"), "{}", self.stderr);
    }
}

/// One exchange over a fresh connection: handshake, request, response, end.
fn exchange(client_port: u16, server_port: u16) -> Vec<Vec<u8>> {
    let request = b"GET /api/v3/time HTTP/1.1\r\nHost: api.example.com\r\n\r\n";
    let response = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
    exchange_of(client_port, server_port, request, response)
}

fn exchange_of(
    client_port: u16,
    server_port: u16,
    request: &[u8],
    response: &[u8],
) -> Vec<Vec<u8>> {
    let (client, server) = ([192, 0, 2, 1], [198, 51, 100, 2]);
    let up = |seq: u32, ack: Option<u32>, syn: bool, fin: bool, payload: &[u8]| {
        let mut step = PacketBuilder::ethernet2([1; 6], [2; 6]).ipv4(client, server, 64).tcp(
            client_port,
            server_port,
            seq,
            64_000,
        );
        step = if syn { step.syn() } else { step };
        step = if fin { step.fin() } else { step };
        step = if let Some(ack) = ack { step.ack(ack) } else { step };
        let mut bytes = Vec::new();
        step.write(&mut bytes, payload).unwrap();
        bytes
    };
    let down = |seq: u32, ack: u32, syn: bool, fin: bool, payload: &[u8]| {
        let mut step = PacketBuilder::ethernet2([2; 6], [1; 6])
            .ipv4(server, client, 64)
            .tcp(server_port, client_port, seq, 64_000)
            .ack(ack);
        step = if syn { step.syn() } else { step };
        step = if fin { step.fin() } else { step };
        let mut bytes = Vec::new();
        step.write(&mut bytes, payload).unwrap();
        bytes
    };
    let asked = 101 + request.len() as u32;
    let answered = 901 + response.len() as u32;
    vec![
        up(100, None, true, false, b""),
        down(900, 101, true, false, b""),
        up(101, Some(901), false, false, b""),
        up(101, Some(901), false, false, request),
        down(901, asked, false, false, response),
        up(asked, Some(answered), false, true, b""),
        down(answered, asked + 1, false, true, b""),
        up(asked + 1, Some(answered + 1), false, false, b""),
    ]
}

fn pcap(packets: &[Vec<u8>]) -> Vec<u8> {
    let words = [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 262_144, 1];
    let mut file: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    for (number, packet) in packets.iter().enumerate() {
        let length = packet.len() as u32;
        let words = [1_795_464_000, number as u32 * 500, length, length];
        file.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        file.extend(packet);
    }
    file
}

fn summary(outcome: &Outcome) -> Value {
    let line = outcome.stderr.lines().find(|line| line.starts_with('{'));
    serde_json::from_str(line.unwrap_or_else(|| panic!("{}", outcome.stderr))).unwrap()
}

#[test]
fn wrong_use_gives_2_and_says_how() {
    let sandbox = Sandbox::new();
    for args in [
        &[][..],
        &["fly"],
        &["replay"],
        &["run", "--port", "0"],
        &["run", "--port", "65536"],
        &["run", "--duration", "soon"],
        &["run", "-q", "-v"],
    ] {
        let outcome = sandbox.run(args);
        assert_eq!(outcome.code, Some(2), "{args:?}");
        assert!(outcome.stderr.contains("Usage:") || outcome.stderr.contains("--help"), "{args:?}");
    }
    sandbox.run(&["run"]).is_refused(
        2,
        "no ports to watch: name them with --port, such as --port 8080, or under [capture] in the \
         config",
    );
}

#[test]
fn help_manual_and_completions_come_on_stdout() {
    let sandbox = Sandbox::new();
    for (args, part) in [
        (&["--help"][..], "Exit codes: 0 done, 1 failed, 2 wrong use or config."),
        (&["run", "--help"], "keywatch run --port 8080"),
        (&["man"], ".TH keywatch 1"),
        (&["completions", "bash"], "_keywatch()"),
        (&["--version"], "keywatch "),
    ] {
        let outcome = sandbox.run(args);
        assert_eq!(outcome.code, Some(0), "{args:?}");
        assert!(outcome.stdout.contains(part), "{args:?}: {}", outcome.stdout);
        assert_eq!(outcome.stderr, "", "{args:?}");
    }
}

#[test]
fn a_config_is_checked() {
    let sandbox = Sandbox::new();
    sandbox.write("good.toml", "[capture]\nports = [8080]\n");
    let outcome = sandbox.run(&["check-config", "good.toml"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(0), "good.toml: ok\n"));
    let outcome = sandbox.run(&["check-config", "-v", "good.toml"]);
    assert!(outcome.stdout.contains("\nports = [8080]\n"), "{}", outcome.stdout);

    sandbox.write("bad.toml", "[capture]\nprots = [80]\nports = [0]\n");
    for args in [
        &["check-config", "bad.toml"][..],
        &["run", "--config", "bad.toml"],
        &["replay", "--config", "bad.toml", "x.pcap"],
        &["doctor", "--config", "bad.toml"],
    ] {
        let outcome = sandbox.run(args);
        outcome.is_refused(2, "unknown key capture.prots: bad.toml:2: did you mean `ports`?");
        outcome.is_refused(
            2,
            "wrong value of capture.ports: bad.toml:3: 0 is not a port; write 1 to 65535",
        );
        assert_eq!(outcome.stderr.lines().count(), 2, "{}", outcome.stderr);
    }
    sandbox
        .run(&["check-config", "none.toml"])
        .is_refused(2, "cannot read the config: none.toml: No such file or directory (os error 2)");
}

#[test]
fn a_capture_is_replayed() {
    let sandbox = Sandbox::new();
    sandbox.write("a.pcap", pcap(&exchange(50_000, 8080)));
    let args = ["replay", "--summary", "json", "--calls", "calls.jsonl", "--alerts", "-", "a.pcap"];
    let outcome = sandbox.run(&args);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let seen = summary(&outcome);
    assert_eq!(seen["replayed"]["packets"], 8);
    assert_eq!(seen["replayed"]["segments"], 8);
    let calls = sandbox.read("calls.jsonl");
    let records: Vec<Value> =
        calls.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((records.len(), &seen["calls"]), (1, &Value::from(1)));
    assert_eq!(records[0]["request"]["path"], "/api/v3/time");
    assert_eq!(records[0]["response"]["status"], 200);
    assert_eq!(records[0]["time"], "2026-11-23T20:00:00.001500000Z");
    assert_eq!(records[0]["latency_us"], 500);
    assert_eq!(records[0]["complete"], true);
    assert_eq!(seen["outcomes"]["ok"], 1);
    assert_eq!(seen["latency_us"]["max"], 500);
    assert_eq!(seen["lost"]["bytes"], 0);

    // Once more, from stdin: the same bytes.
    let args = ["replay", "--calls", "again.jsonl", "-"];
    let outcome = sandbox.run_with_stdin(&args, &sandbox.dir.path().join("a.pcap"));
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_eq!(sandbox.read("again.jsonl"), calls);
}

#[test]
fn ports_that_are_not_watched_are_left_out() {
    let sandbox = Sandbox::new();
    let packets = [exchange(50_000, 8080), exchange(50_001, 22)].concat();
    sandbox.write("a.pcap", pcap(&packets));
    let outcome = sandbox.run(&["replay", "--summary", "json", "--port", "8080", "a.pcap"]);
    assert_eq!(outcome.code, Some(0));
    assert_eq!(summary(&outcome)["other_ports"], 8);
}

#[test]
fn a_bad_capture_does_not_stop_the_others() {
    let sandbox = Sandbox::new();
    let good = pcap(&exchange(50_000, 8080));
    sandbox.write("cut.pcap", &good[..good.len() - 1]);
    sandbox.write("garbage.pcap", "this is not a capture at all");
    sandbox.write("new.pcapng", b"\x0a\x0d\x0d\x0a\x00\x00\x00\x00");
    sandbox.write("empty.pcap", "");
    sandbox.write("good.pcap", &good);
    let outcome = sandbox.run(&[
        "replay",
        "--summary",
        "json",
        "cut.pcap",
        "garbage.pcap",
        "new.pcapng",
        "empty.pcap",
        "none.pcap",
        "good.pcap",
    ]);
    let offset = good.len() - 16 - 54;
    for line in [
        &format!("cannot replay: cut.pcap: the capture is cut off in packet 8 at byte {offset}")
            as &str,
        "cannot replay: garbage.pcap: not a pcap or pcapng file (it begins with [74, 68, 69, 73]); record one with tcpdump -w",
        "cannot replay: new.pcapng: the capture is cut off in block 1 at byte 0",
        "cannot replay: empty.pcap: the file ends within its header, after 0 bytes",
        "cannot replay: none.pcap: cannot read at byte 0: No such file or directory (os error 2)",
    ] {
        outcome.is_refused(1, line);
    }
    assert_eq!(summary(&outcome)["replayed"]["packets"], 7 + 8);
}

#[test]
fn an_output_that_cannot_be_opened_fails_the_replay() {
    let sandbox = Sandbox::new();
    sandbox.write("a.pcap", pcap(&exchange(50_000, 8080)));
    let missing = sandbox.run(&["replay", "--calls", "no/such/dir/calls.jsonl", "a.pcap"]);
    missing.is_refused(
        1,
        "cannot open the output: no/such/dir/calls.jsonl: No such file or directory (os error 2)",
    );
}

#[test]
fn a_full_disk_fails_the_replay() {
    let sandbox = Sandbox::new();
    sandbox.write("a.pcap", pcap(&exchange(50_000, 8080)));
    sandbox.run(&["replay", "--calls", "/dev/full", "a.pcap"]).is_refused(
        1,
        "output failed: /dev/full: No space left on device (os error 28): free the place and \
         repeat",
    );
}

#[test]
fn calls_and_alerts_share_a_file_line_by_line() {
    let sandbox = Sandbox::new();
    let packets = [exchange(50_000, 8080), exchange(50_001, 8080)].concat();
    sandbox.write("a.pcap", pcap(&packets));
    let outcome = sandbox.run(&["replay", "-q", "--calls", "-", "--alerts", "-", "a.pcap"]);
    let calls: Vec<Value> =
        outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(calls.len(), 2, "{}", outcome.stdout);
}

#[test]
fn an_input_is_not_overwritten() {
    let sandbox = Sandbox::new();
    let bytes = pcap(&exchange(50_000, 8080));
    sandbox.write("a.pcap", &bytes);
    let outcome = sandbox.run(&["replay", "--calls", "./a.pcap", "a.pcap"]);
    outcome.is_refused(2, "the output is also an input: ./a.pcap: write to another file");
    assert_eq!(fs::read(sandbox.dir.path().join("a.pcap")).unwrap(), bytes);
}

#[test]
fn the_secret_is_made_and_guarded() {
    let sandbox = Sandbox::new();
    sandbox.write("a.pcap", pcap(&exchange(50_000, 8080)));
    assert_eq!(sandbox.run(&["replay", "a.pcap"]).code, Some(0));
    assert_eq!(sandbox.read("state/identity.secret").len(), 65);
    let open = sandbox.write("open.secret", "0".repeat(64));
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).unwrap();
    sandbox.run(&["replay", "--secret-file", "open.secret", "a.pcap"]).is_refused(
        1,
        "the secret can be read by others (mode 0644): open.secret: chmod 600 open.secret",
    );
}

#[test]
fn a_broken_history_names_its_line_and_not_its_content() {
    let sandbox = Sandbox::new();
    sandbox.write("a.pcap", pcap(&exchange(50_000, 8080)));
    sandbox.write("history.jsonl", "\n{\"time\":\"hunter2\"}\n");
    let outcome = sandbox.run(&["replay", "--history", "history.jsonl", "a.pcap"]);
    outcome
        .is_refused(1, "the history is broken: history.jsonl:2: not a call as --calls writes them");
    assert!(!outcome.stderr.contains("hunter2"));
}

#[test]
fn own_output_is_a_history() {
    let sandbox = Sandbox::new();
    sandbox.write("a.pcap", pcap(&exchange(50_000, 8080)));
    assert_eq!(sandbox.run(&["replay", "--calls", "calls.jsonl", "a.pcap"]).code, Some(0));
    let outcome = sandbox.run(&["replay", "--history", "calls.jsonl", "a.pcap"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let sandbox = Sandbox::new();
    let packets: Vec<_> = (0..200).flat_map(|n| exchange(50_000 + n, 8080)).collect();
    sandbox.write("a.pcap", pcap(&packets));
    let mut child = sandbox
        .command(&["replay", "-q", "--calls", "-", "a.pcap"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let outcome = outcome(child.wait_with_output().unwrap());
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
}

#[test]
fn publishing_needs_a_broker() {
    let sandbox = Sandbox::new();
    sandbox.write("a.pcap", pcap(&exchange(50_000, 8080)));
    sandbox.run(&["replay", "--publish", "a.pcap"]).is_refused(
        2,
        "nowhere to publish: --publish: set brokers under [sinks.kafka] in the config",
    );
}

#[test]
fn quiet_is_quiet_and_logs_may_be_json() {
    let sandbox = Sandbox::new();
    sandbox.write("a.pcap", pcap(&exchange(50_000, 8080)));
    sandbox.write("empty.jsonl", "");
    assert_eq!(sandbox.run(&["replay", "-q", "a.pcap"]).stderr, "");
    let args = ["replay", "--log-format", "json", "--summary", "off", "--history", "empty.jsonl"];
    let outcome = sandbox.run(&[&args[..], &["a.pcap"]].concat());
    let lines: Vec<Value> =
        outcome.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 1, "{}", outcome.stderr);
    assert_eq!(lines[0]["fields"]["message"], "learnt from history");
}

#[test]
fn the_doctor_reports_in_lines_and_in_json() {
    let sandbox = Sandbox::new();
    let text = sandbox.run(&["doctor", "--port", "1"]);
    assert!(text.stdout.lines().any(|line| line.contains("kernel: ")), "{}", text.stdout);
    assert!(text.stdout.contains("warn  port: 1: nobody listens here"), "{}", text.stdout);
    let json = sandbox.run(&["doctor", "--json", "--port", "1"]);
    let checks: Vec<Value> =
        json.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let failed = checks.iter().any(|check| check["verdict"] == "fail");
    assert_eq!(json.code, Some(i32::from(failed)));
    assert_eq!(checks.len(), text.stdout.lines().count());
}

#[test]
fn special_files_can_be_written_to() {
    let sandbox = Sandbox::new();
    let mut file = File::create(sandbox.dir.path().join("a.pcap")).unwrap();
    file.write_all(&pcap(&exchange(50_000, 8080))).unwrap();
    let outcome = sandbox.run(&["replay", "--calls", "/dev/null", "a.pcap"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
}
