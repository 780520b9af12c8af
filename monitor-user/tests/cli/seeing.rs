//! The table, the summary, what is selected, and one connection by itself.

use std::os::unix::fs::PermissionsExt;

use super::*;

/// Key ids in the pinned text depend on it.
const SECRET: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0\n";

impl Sandbox {
    /// With the secret of the case folders.
    fn with_secret() -> Sandbox {
        let sandbox = Sandbox::new();
        let secret = sandbox.write("secret", SECRET);
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        sandbox
    }

    /// Replays with it.
    fn replay(&self, args: &[&str]) -> Outcome {
        let all = [&["replay", "--secret-file", "secret"], args].concat();
        self.run(&all)
    }
}

/// The capture of a case folder.
fn case(name: &str) -> String {
    format!("{}/../tests/cases/{name}/input.pcap", env!("CARGO_MANIFEST_DIR"))
}

fn calls(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_replay_shows_a_table() {
    let sandbox = Sandbox::with_secret();
    let outcome = sandbox.replay(&["-q", &case("key-styles"), &case("ipv6")]);
    let expected = "\
time (UTC)   client              key        method  status outcome           latency up/down   what
2026-11-23
20:00:00.003 203.0.113.9:51512   k_0fb0d5f1 GET     200    ok                1.00ms  0/15      api.example.com/api/v3/account
20:00:00.005 203.0.113.9:51512   k_0da90b2a GET     200    ok                1.00ms  0/8       api.example.com/v1/me
20:00:00.007 203.0.113.9:51512   k_61061ab0 GET     200    ok                1.00ms  0/8       api.example.com/v1/me
20:00:00.009 203.0.113.9:51512   k_48bec91b GET     200    ok                1.00ms  0/8       api.example.com/v1/me
20:00:00.011 203.0.113.9:51512   k_48bec91b GET     200    ok                1.00ms  0/8       api.example.com/v1/me
20:00:00.003 [2001:db8::9]:51512 -          GET     200    ok                1.00ms  0/3       api.example.com/first
20:00:00.005 [2001:db8::9]:51512 -          POST    403    permission_denied 1.00ms  7/2       api.example.com/second
";
    assert_eq!((outcome.stdout.as_str(), outcome.code), (expected, Some(0)));
    assert_eq!(outcome.stderr, "");
    let outcome = sandbox.replay(&["-q", &case("snap-length")]);
    let last: Vec<&str> = outcome.stdout.lines().skip(2).collect();
    let expected = [
        "20:00:00.003 203.0.113.9:51512   -          GET     200    ok                1.00ms  \
         0/10k     api.example.com/large [gap]",
        "20:00:00.011 203.0.113.9:51512   -          GET     200    ok                1.00ms  \
         0/1       api.example.com/small",
    ];
    assert_eq!(last, expected);
}

#[test]
fn alerts_are_lines_for_people_until_asked_for_as_json() {
    let sandbox = Sandbox::with_secret();
    let capture = case("attack-stolen-key");
    let outcome = sandbox.replay(&["-q", &capture]);
    let at = outcome.stdout.lines().position(|line| line.starts_with("ALERT ")).unwrap();
    let lines: Vec<&str> = outcome.stdout.lines().skip(at).take(3).collect();
    let expected = [
        "ALERT HIGH: API key may be stolen: k_0fb0d5f112cfa9b97cff5d0266a3f959",
        "      This key was refused a withdrawal (permission_denied), was used from 192.0.2.200, a \
         network never used before and tried a withdrawal for the first time in 10 min.",
        "      Disable the key until its owner confirms that they asked for this",
    ];
    assert_eq!(lines, expected);
    let outcome = sandbox.replay(&["-q", "--alerts", "-", &capture]);
    let alerts = calls(&outcome.stdout);
    assert_eq!((alerts.len(), &alerts[0]["severity"]), (1, &Value::from("high")));
}

#[test]
fn the_table_is_left_out_and_asked_for() {
    let sandbox = Sandbox::with_secret();
    let capture = case("ipv6");
    let shown = |args: &[&str]| sandbox.replay(&[&["-q", &capture], args].concat()).stdout;
    assert_eq!(shown(&[]).lines().count(), 4);
    assert_eq!(shown(&["--no-table"]), "");
    for kind in ["--calls", "--alerts", "--connections"] {
        assert_eq!(shown(&[kind, "out.jsonl"]), "", "{kind}");
        assert_eq!(shown(&[kind, "out.jsonl", "--table"]).lines().count(), 4, "{kind}");
    }
    sandbox
        .replay(&["--table", "--calls", "-", &capture])
        .is_refused(2, "stdout is taken: --table: write the JSON lines to a file");
    // A reader that goes away is no failure, and a full disk is one.
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut command = sandbox.command(&["replay", "--secret-file", "secret", &capture]);
    let outcome = outcome(command.stdout(full).stderr(Stdio::piped()).output().unwrap());
    outcome.is_refused(
        1,
        "output failed: stdout: No space left on device (os error 28): free the place and repeat",
    );
}

#[test]
fn text_from_the_wire_does_not_drive_the_terminal() {
    let sandbox = Sandbox::with_secret();
    let request = "GET /\u{9b}2J\u{202e}x HTTP/1.1\r\nHost: \u{202e}\u{9b}31mevil\r\n\r\n";
    let response = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
    let mut packets = exchange_of(50_000, 8080, request.as_bytes(), response);
    let escape = b"\x1bET /\x1b]0;owned\x07 HTTP/1.1\r\nHost: \x1b[2J\r\n\r\n";
    packets.extend(exchange_of(50_001, 8080, escape, response));
    sandbox.write("a.pcap", pcap(&packets));
    let outcome = sandbox.replay(&["a.pcap"]);
    let text = outcome.stdout + &outcome.stderr;
    assert!(text.contains("evil"), "{text}");
    let driven = text.chars().find(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}');
    assert_eq!(driven, None, "{text}");
}

#[test]
fn the_summary_says_who_and_what() {
    let sandbox = Sandbox::with_secret();
    let mut old = Vec::new();
    for (number, host) in ["one", "two", "three", "four", "five", "six", "one"].iter().enumerate() {
        let request = format!("GET /time HTTP/1.0\r\nHost: {host}\r\n\r\n").into_bytes();
        let response = b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        old.extend(exchange_of(50_000 + number as u16, 8080, &request, response));
    }
    sandbox.write("old.pcap", pcap(&old));
    let capture = case("snap-length");
    let args = [capture.as_str(), "old.pcap"];
    let text = sandbox.replay(&[&["--no-table"], &args[..]].concat()).stderr;
    for line in [
        "keywatch: latency: p50 500us, p90 1.00ms, p99 1.00ms, p99.9 1.00ms, max 1.00ms",
        "keywatch: protocol: http/1.0 7: p50 500us, p90 500us, p99 500us, p99.9 500us, max 500us",
        "keywatch: protocol: http/1.1 2: p50 1.00ms, p90 1.00ms, p99 1.00ms, p99.9 1.00ms, max \
         1.00ms",
        "keywatch: hosts: api.example.com 2, one 2, five 1, four 1, six 1, and 2 more",
        "keywatch: statuses: 200 9",
        "keywatch: operations: public 9",
        "keywatch: anomalies: gap 1",
        "keywatch: no alerts",
    ] {
        assert!(text.lines().any(|said| said == line), "{line}\nnot in\n{text}");
    }
    assert!(text.contains("\nkeywatch: connections: 8, "), "{text}");
    let args = [&["--no-table", "--summary", "json"][..], &args].concat();
    let seen = summary(&sandbox.replay(&args));
    assert_eq!(seen["protocols"]["http/1.0"]["calls"], 7);
    assert_eq!(seen["protocols"]["http/1.1"]["latency_us"]["p99.9"], 1000);
    assert_eq!(seen["statuses"]["200"], 9);
    assert_eq!(seen["operations"]["public"], 9);
    assert_eq!(seen["anomalies"]["gap"], 1);
    let hosts = seen["hosts"].as_object().unwrap().values();
    assert_eq!(hosts.map(|count| count.as_u64().unwrap()).sum::<u64>(), seen["calls"]);
    let missing = &seen["connections"]["missing_bytes"];
    assert!(missing.as_u64().unwrap() > 0, "{missing}");
}

#[test]
fn what_is_selected_is_written_and_summed_up() {
    let sandbox = Sandbox::with_secret();
    let capture = case("attack-stolen-key");
    let select = |args: &[&str]| {
        let all = [
            &["--calls", "c.jsonl", "--alerts", "a.jsonl", "--connections", "n.jsonl"][..],
            &["--summary", "json", capture.as_str()],
            args,
        ]
        .concat();
        let outcome = sandbox.replay(&all);
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        let lines = |name: &str| sandbox.read(name).lines().count();
        let counts = (lines("c.jsonl"), lines("a.jsonl"), lines("n.jsonl"));
        assert_eq!(summary(&outcome)["calls"], counts.0, "{args:?}");
        counts
    };
    // Calls, alerts, connections.
    for (args, expected) in [
        (&[][..], (222, 1, 2)),
        (&["--op", "withdraw"], (2, 1, 1)),
        (&["--op", "withdraw", "--op", "trade"], (222, 1, 2)),
        (&["--status", "4xx", "--outcome", "permission_denied"], (2, 1, 1)),
        (&["--status", "200-299", "--op", "withdraw"], (0, 1, 0)),
        (&["--key", "k_0fb0d5f1"], (222, 1, 2)),
        (&["--key", "0fb1", "--key", "ffff"], (0, 0, 0)),
        (&["--host", "API.example.com"], (222, 1, 2)),
        (&["--host", "*.example.com", "--path", "/sapi/"], (2, 1, 1)),
        (&["--host", "example.com"], (0, 1, 0)),
        (&["--protocol", "websocket"], (0, 1, 0)),
        (&["--protocol", "http/1.1", "--anomaly", "gap"], (0, 1, 0)),
        (&["--since", "2026-11-23T20:10:15Z"], (102, 1, 1)),
        (&["--until", "2026-11-23T20:10:15Z"], (120, 0, 1)),
        (&["--since", "+1m", "--until", "+2m"], (12, 0, 1)),
        (&["--since", "+2h"], (0, 0, 0)),
    ] {
        assert_eq!(select(args), expected, "{args:?}");
    }
    let id = calls(&sandbox.replay(&["--connections", "-", &capture]).stdout)[1]["flow"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(select(&["--flow", &id]), (102, 1, 1));
}

#[test]
fn what_cannot_be_selected_is_told_in_one_line() {
    let sandbox = Sandbox::with_secret();
    let capture = case("ipv6");
    for (option, value, form) in [
        ("--key", "k_xyz", "a key id such as k_1f2e3d4c, or its first digits"),
        ("--host", "*", "a host, or a domain such as .example.com"),
        (
            "--since",
            "soon",
            "a time such as 2026-11-23T20:00:00Z, or +10m from the capture's start",
        ),
        ("--until", "+", "a time such as 2026-11-23T20:00:00Z, or +10m from the capture's start"),
        ("--protocol", "http", "one of http/0.9, http/1.0, http/1.1, http/2, grpc, websocket, fix"),
        ("--flow", "f_1", "the id of a connection, such as f_0123456789abcdef"),
        ("--status", "ok", "a status such as 404, a class such as 5xx, or a range such as 400-499"),
        ("--anomaly", "odd", "the name of one as it stands in records, such as gap"),
    ] {
        let line = format!("unknown value: {option} {value}: write {form}");
        let outcome = sandbox.replay(&[option, value, &capture]);
        outcome.is_refused(2, &line);
        assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    }
}

#[test]
fn one_connection_is_extracted_as_packets_and_as_bytes() {
    let sandbox = Sandbox::with_secret();
    let request = |number: usize| format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes();
    let response = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
    let streams: Vec<Vec<Vec<u8>>> = (0..3_u16)
        .map(|number| exchange_of(50_000 + number, 8080, &request(number.into()), response))
        .collect();
    // Packet by packet in turn.
    let packets: Vec<Vec<u8>> =
        (0..8).flat_map(|at| streams.iter().map(move |packets| packets[at].clone())).collect();
    let whole = sandbox.write("a.pcap", pcap(&packets));
    // Without the handshakes.
    let late: Vec<Vec<u8>> = [3, 4, 5, 6]
        .into_iter()
        .flat_map(|at| streams.iter().map(move |packets: &Vec<Vec<u8>>| packets[at].clone()))
        .collect();
    sandbox.write("late.pcap", pcap(&late));
    for (capture, expected) in [("a.pcap", 8), ("late.pcap", 4)] {
        let all = sandbox.replay(&["--calls", "-", capture]).stdout;
        let all = calls(&all);
        let call = all.iter().find(|call| call["request"]["path"] == "/1").unwrap();
        let flow = call["flow"]["id"].as_str().unwrap();
        let dir = format!("{capture}.d");
        let outcome = sandbox.replay(&["--extract", flow, "--out", &dir, capture]);
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        let told = format!("keywatch: {flow}: {expected} packets to {dir}\n");
        assert!(outcome.stderr.starts_with(&told), "{}", outcome.stderr);
        assert_eq!(sandbox.read(&format!("{dir}/client.bin")).as_bytes(), request(1));
        assert_eq!(sandbox.read(&format!("{dir}/server.bin")).as_bytes(), response);
        let mode = |name: &str| {
            let path = sandbox.dir.path().join(name);
            path.metadata().unwrap().permissions().mode() & 0o777
        };
        assert_eq!((mode(&dir), mode(&format!("{dir}/client.bin"))), (0o700, 0o600));

        // From stdin as well; and the packets give the same calls.
        let out = format!("{capture}.pcapng");
        let args = ["replay", "-q", "--extract", flow, "--out", &out, "-"];
        let outcome = sandbox.run_with_stdin(&args, &sandbox.dir.path().join(capture));
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
        assert_eq!(mode(&out), 0o600);
        let again = sandbox.replay(&["--calls", "-", &out]).stdout;
        let of_flow = |call: &&Value| call["flow"]["id"] == flow;
        assert_eq!(calls(&again), all.iter().filter(of_flow).cloned().collect::<Vec<_>>());

        sandbox.replay(&["--extract", flow, "--out", &out, capture]).is_refused(
            1,
            &format!(
                "cannot make the recording: {out}: it is there already; name another or move it away"
            ),
        );
    }
    assert_eq!(fs::read(whole).unwrap(), pcap(&packets));
}

#[test]
fn an_extract_needs_a_connection_and_a_place() {
    let sandbox = Sandbox::with_secret();
    let capture = case("ipv6");
    sandbox.replay(&["--extract", "f_0000000000000001", "--out", "x", &capture]).is_refused(
        1,
        "no such connection in the capture: f_0000000000000001: --connections - lists them all",
    );
    sandbox.replay(&["--extract", "1", "--out", "x", &capture]).is_refused(
        2,
        "unknown value: --extract 1: write the id of a connection, such as f_0123456789abcdef",
    );
    assert_eq!(sandbox.replay(&["--extract", "f_0000000000000001", &capture]).code, Some(2));
    assert_eq!(sandbox.replay(&["--out", "x", &capture]).code, Some(2));
}

#[test]
fn recording_says_what_it_lacks() {
    let sandbox = Sandbox::new();
    for args in [
        &["record", "--port", "8080"][..],
        &["record", "--out", "a", "--port", "8080", "--rotate-size", "much"],
        &["record", "--out", "a", "--port", "8080", "--rotate-time", "soon"],
        &["record", "--out", "a", "--port", "8080", "--keep", "0"],
    ] {
        assert_eq!(sandbox.run(args).code, Some(2), "{args:?}");
    }
    sandbox.run(&["record", "--out", "a.pcapng"]).is_refused(
        2,
        "no ports to watch: name them with --port, such as --port 8080, or under [capture] in the \
         config",
    );
    let help = sandbox.run(&["record", "--help"]).stdout;
    assert!(help.contains("every credential") && help.contains("0600"), "{help}");
}
