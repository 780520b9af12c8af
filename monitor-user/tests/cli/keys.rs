//! `keywatch keys`.

use crate::{Sandbox, exchange_of, pcap};

#[test]
fn a_key_has_the_id_that_its_calls_carry() {
    let sandbox = Sandbox::new();
    let key = sandbox.write("key", "made-up-key-7\nmore\n");
    let empty = sandbox.write("empty", "\n");
    let missing = sandbox.run_with_stdin(&["keys", "hash"], &key);
    assert_eq!(missing.code, Some(1), "no secret is made: {}", missing.stderr);
    let request = b"GET /a HTTP/1.1\r\nHost: a\r\nX-API-Key: made-up-key-7\r\n\r\n";
    let reply = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    sandbox.write("c.pcap", pcap(&exchange_of(40_000, 8080, request, reply)));
    let calls = sandbox.run(&["replay", "--calls", "-", "c.pcap"]);
    let hashed = sandbox.run_with_stdin(&["keys", "hash"], &key);
    assert_eq!(hashed.code, Some(0), "{}", hashed.stderr);
    let id = hashed.stdout.trim();
    assert!(id.starts_with("k_") && calls.stdout.contains(id), "{id}: {}", calls.stdout);
    sandbox
        .run_with_stdin(&["keys", "hash"], &empty)
        .is_refused(2, "no key on stdin: write it on the first line");
}
