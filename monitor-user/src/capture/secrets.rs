//! Secrets that TLS libraries derive, as the lines of a key log that they would be
//! (<https://www.ietf.org/archive/id/draft-ietf-tls-keylogfile-02.html>), and the random of a client's hello,
//! which says whose they are.

use monitor_common::{TlsLabel, TlsSecret};
use monitor_core::decode::behind_proxy_header;
use zeroize::Zeroizing;

/// Random of a client's hello (RFC 8446, 4.1.2).
pub(super) type Random = [u8; 32];

/// That of the hello which the first bytes of a connection begin with, or which follows a header of the
/// PROXY protocol.
pub(super) fn client_random(payload: &[u8]) -> Option<Random> {
    const HANDSHAKE: u8 = 22;
    const CLIENT_HELLO: u8 = 1;
    // Record (RFC 8446, 5.1), message (4), version.
    let [HANDSHAKE, 3, _, _, _, CLIENT_HELLO, _, _, _, 3, _, rest @ ..] =
        behind_proxy_header(payload)
    else {
        return None;
    };
    rest.first_chunk().copied()
}

/// The line of a secret; `None` when it has a label or a length that nothing has.
pub(super) fn line(secret: &TlsSecret, random: &Random) -> Option<Zeroizing<Vec<u8>>> {
    let name = name(secret.label)?;
    let bytes = secret.secret.get(..usize::from(secret.secret_bytes))?;
    let mut line = Zeroizing::new(Vec::with_capacity(name.len() + 2 * (32 + bytes.len()) + 3));
    line.extend(name.bytes());
    for word in [random, bytes] {
        line.push(b' ');
        line.extend(word.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(digit));
    }
    line.push(b'\n');
    Some(line)
}

fn name(label: u8) -> Option<&'static str> {
    const NAMES: [(TlsLabel, &str); 6] = [
        (TlsLabel::Master, "CLIENT_RANDOM"),
        (TlsLabel::ClientEarly, "CLIENT_EARLY_TRAFFIC_SECRET"),
        (TlsLabel::ClientHandshake, "CLIENT_HANDSHAKE_TRAFFIC_SECRET"),
        (TlsLabel::ServerHandshake, "SERVER_HANDSHAKE_TRAFFIC_SECRET"),
        (TlsLabel::ClientTraffic, "CLIENT_TRAFFIC_SECRET_0"),
        (TlsLabel::ServerTraffic, "SERVER_TRAFFIC_SECRET_0"),
    ];
    NAMES.iter().find(|(it, _)| *it as u8 == label).map(|(_, name)| *name)
}

fn digit(value: u8) -> u8 {
    b"0123456789abcdef"[usize::from(value & 15)]
}

#[cfg(test)]
mod tests {
    use monitor_common::TLS_SECRET_BYTES_MAX;

    use super::*;

    /// The begin of a client's hello.
    fn hello(random: u8) -> Vec<u8> {
        let mut hello = vec![22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3];
        hello.extend([random; 32]);
        hello.extend([32, 0, 0]);
        hello
    }

    #[test]
    fn randoms_are_those_of_hellos() {
        assert_eq!(client_random(&hello(7)), Some([7; 32]));
        let proxied = [b"PROXY TCP4 192.0.2.1 192.0.2.2 5 443\r\n", &hello(8)[..]].concat();
        assert_eq!(client_random(&proxied), Some([8; 32]));
        let mut binary = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
        binary.extend([1; 12]);
        assert_eq!(client_random(&binary), None);
        binary.extend(hello(9));
        assert_eq!(client_random(&binary), Some([9; 32]));
        for end in 0..43 {
            assert_eq!(client_random(&hello(7)[..end]), None, "{end}");
        }
        let mut server = hello(7);
        server[5] = 2;
        assert_eq!(client_random(&server), None);
        assert_eq!(client_random(b"GET / HTTP/1.1\r\n\r\n"), None);
        assert_eq!(client_random(b"PROXY UNKNOWN"), None);
        assert_eq!(client_random(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff"), None);
    }

    #[test]
    fn lines_are_those_of_a_key_log() {
        let mut secret = TlsSecret {
            time_ns: 0,
            cookie: 0,
            random: [0; 32],
            secret: [0xa5; TLS_SECRET_BYTES_MAX],
            label: TlsLabel::ServerTraffic as u8,
            secret_bytes: 32,
            has_random: 0,
            padding: [0; 5],
        };
        let expected = format!("SERVER_TRAFFIC_SECRET_0 {} {}\n", "0f".repeat(32), "a5".repeat(32));
        assert_eq!(line(&secret, &[0x0f; 32]).unwrap().as_slice(), expected.as_bytes());
        secret.secret_bytes = 49;
        assert!(line(&secret, &[0; 32]).is_none());
        (secret.secret_bytes, secret.label) = (48, 0);
        assert!(line(&secret, &[0; 32]).is_none());
        secret.label = TlsLabel::Master as u8;
        assert!(line(&secret, &[0; 32]).unwrap().starts_with(b"CLIENT_RANDOM 00"));
    }
}
