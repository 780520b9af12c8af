//! nDPI's captures: nothing crashes, and the protocol is the one in the name of the file.

use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use super::replayed::{self, Replayed};
use super::{Score, entries};

/// Scores every capture.
pub(super) fn score(dir: &Path) -> Result<Score> {
    let mut score = Score::default();
    for capture in entries(dir)?.iter().filter(|path| is_capture(path)) {
        let name = replayed::name(capture);
        let replayed = replayed::replay(capture, None)?;
        let expected = expected(&name);
        let shows = expected.is_none_or(|protocol| protocol.shows(&replayed));
        match replayed.fault() {
            None if shows => score.agree(),
            None => score.disagree(
                &name,
                &format!(
                    "no {expected:?} among {} calls and {} connections; {}",
                    replayed.calls.len(),
                    replayed.connections.len(),
                    replayed.said.trim()
                ),
            ),
            Some(fault) => score.disagree(&name, &fault),
        }
    }
    Ok(score)
}

/// Whether a file is a capture, whatever its compression or number.
pub(super) fn is_capture(path: &Path) -> bool {
    path.is_file() && replayed::name(path).contains(".pcap")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Http,
    Tls,
}

/// The words of a name say what is in the file. DTLS is no TCP, and what merely looks like TLS
/// (`tlscrypt`) is another word.
fn expected(name: &str) -> Option<Protocol> {
    let stem = name.split(".pcap").next().unwrap_or(name).to_lowercase();
    let words: Vec<&str> = stem.split(['_', '-', '.', ' ']).collect();
    let has = |word: &str| words.contains(&word);
    if has("dtls") || has("quic") || has("udp") {
        None
    } else if has("tls") || has("ssl") || has("https") {
        Some(Protocol::Tls)
    } else if has("http") || has("http2") || has("websocket") {
        Some(Protocol::Http)
    } else {
        None
    }
}

impl Protocol {
    fn shows(self, replayed: &Replayed) -> bool {
        match self {
            Protocol::Http => !replayed.calls.is_empty(),
            Protocol::Tls => replayed.connections.iter().any(is_tls),
        }
    }
}

fn is_tls(connection: &Value) -> bool {
    connection["flow"]["tls"] == true || connection.get("tls").is_some_and(Value::is_object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_says_what_is_in_a_file() {
        assert_eq!(expected("http_auth.pcap"), Some(Protocol::Http));
        assert_eq!(expected("tls_1.2_unidirectional_client.pcapng"), Some(Protocol::Tls));
        assert_eq!(expected("stun_dtls_unidirectional_server.pcap"), None);
        assert_eq!(expected("openvpn-tlscrypt.pcap"), None);
        assert_eq!(expected("ftp-start-tls.pcap"), Some(Protocol::Tls));
    }
}
