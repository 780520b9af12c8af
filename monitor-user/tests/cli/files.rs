//! Which captures are replayed, and in what form they may be: folders, lists, compressed files.

use super::*;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

/// One exchange, which is told from others by its path.
fn a_capture(client_port: u16, path: &str) -> Vec<u8> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: api.example.com\r\n\r\n");
    let response = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
    pcap(&exchange_of(client_port, 8080, request.as_bytes(), response))
}

impl Sandbox {
    fn folder(&self, name: &str) {
        fs::create_dir_all(self.dir.path().join(name)).unwrap();
    }

    /// Replays, from stdin where it is given.
    fn replay_files(&self, args: &[&str], stdin: Option<&str>) -> Outcome {
        let all = [&["replay", "--summary", "json", "--calls", "-"], args].concat();
        match stdin {
            Some(file) => self.run_with_stdin(&all, &self.dir.path().join(file)),
            None => self.run(&all),
        }
    }
}

/// Paths of the calls, in order.
fn paths(outcome: &Outcome) -> Vec<String> {
    let call = |line: &str| serde_json::from_str::<Value>(line).unwrap();
    let path = |line| call(line)["request"]["path"].as_str().unwrap().to_owned();
    outcome.stdout.lines().map(path).collect()
}

#[test]
fn a_folder_is_replayed_by_name_and_what_is_no_capture_is_left_out() {
    let sandbox = Sandbox::new();
    sandbox.folder("d/b/deeper");
    sandbox.folder("empty");
    sandbox.write("d/c.pcap", a_capture(50_003, "/3"));
    sandbox.write("d/a.pcap.zst", zstd(&a_capture(50_001, "/1")));
    sandbox.write("d/b/deeper/without-ending", gzip(&a_capture(50_002, "/2")));
    sandbox.write("d/notes.txt", "notes");
    sandbox.write("d/notes.txt.gz", gzip(b"notes that are longer than the header of a capture"));
    sandbox.write("d/empty.pcap", "");
    sandbox.write("empty/notes.txt", "notes");

    let outcome = sandbox.replay_files(&["d"], None);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_eq!(paths(&outcome), ["/1", "/2", "/3"]);
    let replayed = &summary(&outcome)["replayed"];
    assert_eq!((&replayed["files"], &replayed["other_files"]), (&3.into(), &3.into()));

    // What is named is meant: then it is told.
    let outcome = sandbox.replay_files(&["d/notes.txt.gz", "d/c.pcap"], None);
    outcome.is_refused(
        1,
        "cannot replay: d/notes.txt.gz: decompressed from gzip: not a pcap or pcapng file (it \
         begins with [6e, 6f, 74, 65]); record one with tcpdump -w",
    );
    assert_eq!(paths(&outcome), ["/3"]);

    let outcome = sandbox.replay_files(&["empty", "d"], None);
    outcome.is_refused(1, "cannot replay: empty: no captures in this folder (1 other files)");
    assert_eq!(paths(&outcome), ["/1", "/2", "/3"]);
}

#[test]
fn a_list_comes_after_what_is_named() {
    let sandbox = Sandbox::new();
    sandbox.folder("d");
    sandbox.write("first.pcap", a_capture(50_001, "/1"));
    sandbox.write("d/second.pcap.gz", gzip(&a_capture(50_002, "/2")));
    sandbox.write("with space.pcap", a_capture(50_003, "/3"));
    sandbox.write("list", "d\n\nwith space.pcap\n");

    let outcome = sandbox.replay_files(&["--files-from", "list", "first.pcap"], None);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_eq!(paths(&outcome), ["/1", "/2", "/3"]);
    let outcome = sandbox.replay_files(&["--files-from", "-"], Some("list"));
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_eq!(paths(&outcome), ["/2", "/3"]);

    // A list may name stdin, unless it comes from there itself.
    sandbox.write("stdin", "with space.pcap\n-\n");
    let outcome = sandbox.replay_files(&["--files-from", "stdin"], Some("first.pcap"));
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_eq!(paths(&outcome), ["/3", "/1"]);
    for args in [&["--files-from", "-"][..], &["--files-from", "-", "-"]] {
        sandbox
            .replay_files(args, Some("stdin"))
            .is_refused(2, "stdin is both a list and a capture: -: give one of them as a file");
    }

    sandbox.replay_files(&["--files-from", "none"], None).is_refused(
        1,
        "cannot read the list of files: none: No such file or directory (os error 2)",
    );
    sandbox.write("gone", "gone.pcap\nfirst.pcap\n");
    let outcome = sandbox.replay_files(&["--files-from", "gone"], None);
    outcome.is_refused(
        1,
        "cannot replay: gone.pcap: cannot read at byte 0: No such file or directory (os error 2)",
    );
    assert_eq!(paths(&outcome), ["/1"]);
}

#[test]
fn a_compressed_capture_gives_the_same_calls() {
    let sandbox = Sandbox::new();
    let capture = a_capture(50_001, "/1");
    let (half, rest) = capture.split_at(capture.len() / 2);
    sandbox.write("plain.pcap", &capture);
    let plain = sandbox.replay_files(&["plain.pcap"], None);
    assert_eq!((plain.code, paths(&plain)), (Some(0), vec!["/1".to_owned()]));
    for (name, bytes) in [
        ("one.gz", gzip(&capture)),
        ("one.zst", zstd(&capture)),
        ("two.gz", [gzip(half), gzip(rest)].concat()),
        ("two.zst", [zstd(half), zstd(rest)].concat()),
        // Recognised by what is in it.
        ("compressed.pcap", gzip(&capture)),
    ] {
        sandbox.write(name, bytes);
        for (args, stdin) in [([name], None), (["-"], Some(name))] {
            let outcome = sandbox.replay_files(&args, stdin);
            assert_eq!(outcome.code, Some(0), "{name} {args:?}: {}", outcome.stderr);
            assert_eq!(outcome.stdout, plain.stdout, "{name} {args:?}");
            assert_eq!(summary(&outcome)["replayed"], summary(&plain)["replayed"], "{name}");
        }
    }
}

#[test]
fn a_compressed_capture_that_is_cut_is_read_to_the_cut() {
    let sandbox = Sandbox::new();
    let packets = exchange(50_000, 8080);
    let whole = pcap(&packets);
    // Request and response are before it, the end of the connection is behind.
    let start = pcap(&packets[..5]);
    let (first, rest) = whole.split_at(start.len());
    sandbox.write("good.pcap", a_capture(50_001, "/good"));
    for (name, codec, first, rest) in
        [("cut.gz", "gzip", gzip(first), gzip(rest)), ("cut.zst", "zstd", zstd(first), zstd(rest))]
    {
        // Within the header of the second part.
        sandbox.write(name, [&first[..], &rest[..5]].concat());
        let outcome = sandbox.replay_files(&[name, "good.pcap"], None);
        let offset = start.len();
        outcome.is_refused(
            1,
            &format!(
                "cannot replay: {name}: the {codec} stream is cut off; it was read to its byte \
                 {offset} as decompressed"
            ),
        );
        assert_eq!(paths(&outcome), ["/api/v3/time", "/good"], "{name}");
        assert_eq!(summary(&outcome)["replayed"]["packets"], 5 + 8, "{name}");
    }

    // The capture within is cut, the stream around it is not.
    sandbox.write("within.zst", zstd(&whole[..whole.len() - 1]));
    let offset = whole.len() - 16 - packets[7].len();
    let outcome = sandbox.replay_files(&["within.zst"], None);
    outcome.is_refused(
        1,
        &format!(
            "cannot replay: within.zst: decompressed from zstd: the capture is cut off in packet \
             8 at byte {offset}"
        ),
    );
    assert_eq!(paths(&outcome), ["/api/v3/time"]);
}

#[test]
fn a_damaged_compressed_capture_is_told_and_stops_no_other() {
    let sandbox = Sandbox::new();
    let capture = a_capture(50_001, "/1");
    let mut damaged = gzip(&capture);
    // The checksum: all before it is right, and nothing after it can be trusted.
    let at = damaged.len() - 8;
    damaged[at] ^= 1;
    sandbox.write("damaged.gz", damaged);
    sandbox.write("twice.gz", gzip(&zstd(&capture)));
    sandbox.write("good.pcap", a_capture(50_002, "/good"));
    let outcome = sandbox.replay_files(&["damaged.gz", "twice.gz", "good.pcap"], None);
    outcome.is_refused(
        1,
        "cannot replay: twice.gz: decompressed from gzip: compressed once more, with zstd; \
         decompress it once and pipe it in",
    );
    let told = "keywatch: cannot replay: damaged.gz: the gzip stream is broken after its byte ";
    let lines = outcome.stderr.lines().filter(|line| line.starts_with(told));
    assert_eq!(lines.count(), 1, "{}", outcome.stderr);
    assert_eq!(paths(&outcome), ["/1", "/good"]);
}
