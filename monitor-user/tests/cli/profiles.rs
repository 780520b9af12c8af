//! `keywatch profile`: profiles are listed, shown and checked, and used from a folder.

use crate::{Sandbox, exchange_of, pcap};

#[test]
fn profiles_are_listed_and_shown() {
    let sandbox = Sandbox::new();
    let list = sandbox.run(&["profile", "list"]);
    assert_eq!(list.code, Some(0));
    assert!(list.stdout.starts_with("binance "), "{}", list.stdout);
    assert!(list.stdout.contains("\nkraken-futures "));
    let shown = sandbox.run(&["profile", "show", "okx"]);
    assert!(shown.stdout.contains("name = \"okx\""));
    let own = sandbox.write("okx.toml", &shown.stdout);
    let checked = sandbox.run(&["profile", "check", "okx.toml"]);
    assert_eq!((checked.code, checked.stdout.as_str()), (Some(0), "okx.toml: ok\n"), "{own:?}");
    sandbox
        .run(&["profile", "show", "none"])
        .is_refused(2, "no profile of this name: none: `keywatch profile list` names all");
}

#[test]
fn a_wrong_profile_is_a_line_with_the_mend() {
    let sandbox = Sandbox::new();
    sandbox.write("p.toml", "name = \"x\"\nkeys = [\n  { header = \"A\", query = \"b\" },\n]");
    sandbox.run(&["profile", "check", "p.toml"]).is_refused(
        2,
        "wrong profile: p.toml:3: wrong key: name one place: header, scheme, query, form, \
         cookie, fix or member",
    );
    sandbox.write("keywatch.toml", "[identity]\nprofiles = \"none\"");
    let outcome = sandbox.run(&["--config", "keywatch.toml", "profile", "list"]);
    outcome.is_refused(
        1,
        "cannot read the folder of profiles: none: No such file or directory (os error 2)",
    );
}

#[test]
fn a_profile_is_checked_against_a_capture_and_used_from_a_folder() {
    let sandbox = Sandbox::new();
    let secret = "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zv";
    let request = format!(
        "GET /desk/v1/positions?ref={secret} HTTP/1.1\r\nHost: a\r\nX-Desk-Key: {secret}\r\n\
         X-Odd: {secret}\r\n\r\n"
    );
    let reply = "HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{\"status\":\"nope\"}";
    sandbox.write("c.pcap", pcap(&exchange_of(40_000, 8080, request.as_bytes(), reply.as_bytes())));
    std::fs::create_dir(sandbox.dir.path().join("profiles")).unwrap();
    let profile = "name = \"desk\"\ntitle = \"Ours\"\npaths = [\"/desk/\"]\n\
                   keys = [{ header = \"X-Desk-Key\" }]\n[operations]\n\
                   withdraw = [\"GET /desk/v1/positions\"]\n[outcome]\ncode = [\"status\"]\n\
                   ok = [\"fine\"]\n[outcome.codes]\nlocked = [\"nope\"]\n";
    sandbox.write("profiles/desk.toml", profile);
    let args = ["profile", "check", "profiles/desk.toml", "--port", "8080", "--against", "c.pcap"];
    let report = sandbox.run(&args);
    assert_eq!(report.code, Some(0), "{}", report.stderr);
    assert_eq!(
        report.stdout,
        "desk: 1 of 1 requests are of this profile\n\
         keys found:\n          1  desk  header:x-desk-key\n\
         operations of its 1 calls with a key:\n          1  withdraw\n\
         outcomes of these:\n          1  locked\n\
         look like secrets and are not declared:\n          1  header x-odd\n          1  query ref\n"
    );
    sandbox.write("keywatch.toml", "[identity]\nprofiles = \"profiles\"");
    let replay = sandbox.run(&["--config", "keywatch.toml", "replay", "--calls", "-", "c.pcap"]);
    for text in ["\"profile\":\"desk\"", "\"op\":\"withdraw\"", "\"outcome\":\"locked\""] {
        assert!(replay.stdout.contains(text), "{text}: {}", replay.stdout);
    }
}
