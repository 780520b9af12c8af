//! `keywatch baseline`, `keywatch alert`, and replays that begin with a baseline.

use crate::Sandbox;

/// A key with a history, as an export has it.
const EXPORT: &str = concat!(
    r#"{"keywatch_baseline":1}"#,
    "\n",
    r#"{"key":"k_0000000000000000000000000000002a","state":{"first_seen":"2026-11-02T00:00:00Z","calls":77}}"#,
    "\n",
    r#"{"key":"k_00000000000000000000000000000f00","state":{"calls":5,"of_a_later_version":[1]}}"#,
    "\n",
);

fn imported() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("keys.jsonl", EXPORT);
    let outcome = sandbox.run(&["baseline", "import", "keys.jsonl"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(outcome.stderr.starts_with("keywatch: 2 keys imported into "), "{}", outcome.stderr);
    sandbox
}

#[test]
fn what_is_imported_is_listed_shown_and_exported() {
    let sandbox = imported();
    let list = sandbox.run(&["baseline", "list"]);
    assert_eq!(list.stdout.lines().count(), 2, "{}", list.stdout);
    assert!(list.stdout.contains("k_0000000000000000000000000000002a  2026-11-02T00:00:00Z"));
    let show = sandbox.run(&["baseline", "show", "k_0000000000000000000000000000002"]);
    assert!(show.stdout.contains("\"calls\": 77"), "{}", show.stdout);
    let export = sandbox.run(&["baseline", "export", "-"]);
    assert_eq!((export.code, export.stdout.lines().count()), (Some(0), 3));
    sandbox.write("again.jsonl", &export.stdout);
    let other = sandbox.run(&["baseline", "import", "again.jsonl", "--baseline", "other.redb"]);
    assert_eq!(other.code, Some(0), "{}", other.stderr);
    let again = sandbox.run(&["baseline", "export", "-", "--baseline", "other.redb"]);
    assert_eq!(again.stdout, export.stdout);
}

#[test]
fn what_is_not_there_is_one_line() {
    let sandbox = Sandbox::new();
    for args in [&["baseline", "list"][..], &["alert", "list"]] {
        let outcome = sandbox.run(args);
        assert_eq!(outcome.code, Some(1));
        assert!(outcome.stderr.starts_with("keywatch: no baseline: "), "{}", outcome.stderr);
        assert_eq!(outcome.stderr.lines().count(), 1);
    }
    let sandbox = imported();
    for (args, line) in [
        (&["baseline", "show", "k_9"][..], "no such key: k_9: `keywatch baseline list` shows"),
        (&["baseline", "show", "k_0000"], "several keys begin with k_0000: write more digits"),
        (&["baseline", "show", ""], "several keys begin with"),
        (
            &["alert", "dismiss", "a_0123456789abcdef", "--reason", "known"],
            "no such alert: a_0123456789abcdef: `keywatch alert list` shows",
        ),
        (&["baseline", "import", "none.jsonl"], "cannot read the export: none.jsonl: "),
    ] {
        let outcome = sandbox.run(args);
        assert_eq!(outcome.code, Some(1), "{args:?} {}", outcome.stderr);
        assert!(outcome.stderr.starts_with(&format!("keywatch: {line}")), "{}", outcome.stderr);
        assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    }
    for (args, line) in [
        (&["alert", "dismiss", "a_1", "--reason", "x"][..], "`a_1` is no alert: write a_ and 16"),
        (
            &["alert", "dismiss", "a_0123456789abcdef", "--reason", " "],
            "--reason: write a sentence",
        ),
        (&["alert", "mute", "k_0000000000000000000000000000002a", "--detector", "X"], "`X` is no"),
    ] {
        let outcome = sandbox.run(args);
        assert_eq!(outcome.code, Some(2), "{args:?} {}", outcome.stderr);
        assert!(outcome.stderr.starts_with(&format!("keywatch: {line}")), "{}", outcome.stderr);
    }
}

#[test]
fn a_broken_export_changes_nothing() {
    let sandbox = imported();
    let before = sandbox.run(&["baseline", "export", "-"]).stdout;
    for (text, line) in [
        ("", "the export is empty: bad.jsonl"),
        ("{\"keywatch_baseline\":2}\n", "the export is broken: bad.jsonl:1: a newer Keywatch"),
        ("{}\n", "the export is broken: bad.jsonl:1: not as"),
        (&format!("{EXPORT}{{\"key\":\"k_1\"}}\n"), "the export is broken: bad.jsonl:4: not as"),
        (
            &format!("{EXPORT}{{\"key\":\"k_0000000000000000000000000000002a\",\"state\":7}}\n"),
            "the export is broken: bad.jsonl:4: no state of a key",
        ),
    ] {
        sandbox.write("bad.jsonl", text);
        let outcome = sandbox.run(&["baseline", "import", "bad.jsonl"]);
        assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
        assert!(outcome.stderr.starts_with(&format!("keywatch: {line}")), "{}", outcome.stderr);
    }
    assert_eq!(sandbox.run(&["baseline", "export", "-"]).stdout, before);
}

#[test]
fn a_mute_is_noted_for_the_agent() {
    let sandbox = imported();
    let key = "k_0000000000000000000000000000002a";
    let outcome = sandbox.run(&["alert", "mute", key, "--for", "2h", "--detector", "D5"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let log = sandbox.read("state/baseline.feedback.jsonl");
    assert!(log.contains(key) && log.contains("\"detector\":\"D5\""), "{log}");
    assert_eq!(sandbox.run(&["alert", "list"]).code, Some(0));
}

#[test]
fn a_replay_begins_with_a_baseline_and_leaves_it_alone() {
    let sandbox = imported();
    let file = sandbox.dir.path().join("state/baseline.redb");
    let before = std::fs::read(&file).unwrap();
    sandbox.write("empty.pcap", crate::pcap(&[]));
    let args = ["replay", "--secret-file", "s", "--baseline", "state/baseline.redb", "empty.pcap"];
    let outcome = sandbox.run(&args);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_eq!(std::fs::read(&file).unwrap(), before);
    sandbox.write("bad.redb", b"redb? no");
    let args = ["replay", "--secret-file", "s", "--baseline", "bad.redb", "empty.pcap"];
    let outcome = sandbox.run(&args);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.starts_with("keywatch: the baseline is damaged: bad.redb: "));
    assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
}
