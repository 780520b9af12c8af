//! TLS secrets as a key log gives them
//! (<https://www.ietf.org/archive/id/draft-ietf-tls-keylogfile-02.html>). They are credentials: nothing
//! here can be printed, and what is dropped is wiped.

use std::collections::{BTreeMap, VecDeque};

use zeroize::Zeroizing;

use crate::decode::Counters;

/// A master secret or traffic secret.
pub(super) type Secret = Zeroizing<Box<[u8]>>;

/// Random of a client's hello.
pub(super) type Random = [u8; 32];

/// What a secret is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Label {
    /// Master secret of TLS 1.2 and before.
    Master,
    ClientEarly,
    ClientHandshake,
    ServerHandshake,
    ClientTraffic,
    ServerTraffic,
}

/// Every secret that is known, by the client's random. Bounded: the oldest go first.
#[derive(Default)]
pub(in crate::decode) struct Secrets {
    known: BTreeMap<(Random, Label), Secret>,
    /// In the order in which they came.
    order: VecDeque<(Random, Label)>,
    /// There is a key log, be it one that says nothing yet.
    expected: bool,
}

/// What a line of a key log is.
enum Line {
    Secret(Random, Label, Secret),
    /// A secret that nothing is decrypted with.
    Unused,
    /// Empty or a comment.
    Nothing,
    Bad,
}

/// The longest secret: SHA-384's output, and the master secret.
const SECRET_BYTES_MAX: usize = 48;

impl Secrets {
    /// Takes lines of a key log.
    pub(in crate::decode) fn read(&mut self, lines: &[u8], max: usize, counters: &mut Counters) {
        self.expected = true;
        for line in lines.split(|byte| *byte == b'\n') {
            match parse(line) {
                Line::Secret(random, label, secret) => {
                    counters.tls_secrets += 1;
                    self.insert(random, label, secret, max, counters);
                }
                Line::Unused => counters.tls_secrets_unused += 1,
                Line::Bad => counters.tls_secrets_bad += 1,
                Line::Nothing => {}
            }
        }
    }

    fn insert(
        &mut self,
        random: Random,
        label: Label,
        secret: Secret,
        max: usize,
        counters: &mut Counters,
    ) {
        if self.known.insert((random, label), secret).is_none() {
            self.order.push_back((random, label));
        }
        while self.known.len() > max {
            let Some(oldest) = self.order.pop_front() else { return };
            self.known.remove(&oldest);
            counters.tls_secrets_evicted += 1;
        }
    }

    /// Whether there are any, or will be.
    pub(super) fn are_expected(&self) -> bool {
        self.expected
    }

    /// A secret of a connection.
    pub(super) fn find(&self, random: &Random, label: Label) -> Option<&Secret> {
        self.known.get(&(*random, label))
    }
}

fn parse(line: &[u8]) -> Line {
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let Some(name) = words.next() else { return Line::Nothing };
    if name.starts_with(b"#") {
        return Line::Nothing;
    }
    let label = match name {
        b"CLIENT_RANDOM" => Label::Master,
        b"CLIENT_EARLY_TRAFFIC_SECRET" => Label::ClientEarly,
        b"CLIENT_HANDSHAKE_TRAFFIC_SECRET" => Label::ClientHandshake,
        b"SERVER_HANDSHAKE_TRAFFIC_SECRET" => Label::ServerHandshake,
        b"CLIENT_TRAFFIC_SECRET_0" => Label::ClientTraffic,
        b"SERVER_TRAFFIC_SECRET_0" => Label::ServerTraffic,
        name if is_name(name) && words.next().is_some() => return Line::Unused,
        _ => return Line::Bad,
    };
    let (Some(random), Some(secret), None) = (words.next(), words.next(), words.next()) else {
        return Line::Bad;
    };
    let mut bytes = [0; 32];
    let fits = match label {
        Label::Master => secret.len() == 2 * SECRET_BYTES_MAX,
        Label::ClientEarly
        | Label::ClientHandshake
        | Label::ServerHandshake
        | Label::ClientTraffic
        | Label::ServerTraffic => [64, 2 * SECRET_BYTES_MAX].contains(&secret.len()),
    };
    let mut key = Zeroizing::new(vec![0; secret.len() / 2].into_boxed_slice());
    if fits && unhex(random, &mut bytes) && unhex(secret, &mut key) {
        Line::Secret(bytes, label, key)
    } else {
        Line::Bad
    }
}

fn is_name(word: &[u8]) -> bool {
    word.iter().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_')
}

/// Hexadecimal digits to bytes, exactly as many as there is room for.
fn unhex(digits: &[u8], bytes: &mut [u8]) -> bool {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    digits.len() == 2 * bytes.len()
        && bytes.iter_mut().zip(digits.chunks_exact(2)).all(|(byte, pair)| {
            let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else { return false };
            *byte = high << 4 | low;
            true
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 3;

    fn read(lines: &str) -> (Secrets, Counters) {
        let (mut secrets, mut counters) = (Secrets::default(), Counters::default());
        secrets.read(lines.as_bytes(), MAX, &mut counters);
        (secrets, counters)
    }

    fn line(label: &str, random: u8, secret_bytes: usize) -> String {
        format!("{label} {} {}\n", format!("{random:02x}").repeat(32), "aB".repeat(secret_bytes))
    }

    #[test]
    fn lines_are_told_apart() {
        let lines = [
            "# a comment\n\r\n".to_owned(),
            line("CLIENT_RANDOM", 1, 48),
            line("SERVER_TRAFFIC_SECRET_0", 2, 32).replace('\n', "\r\n"),
            line("EXPORTER_SECRET", 2, 32),
            "RSA 0011223344556677 00\n".to_owned(),
            line("CLIENT_RANDOM", 3, 32),
            line("CLIENT_TRAFFIC_SECRET_0", 3, 47),
            line("CLIENT_RANDOM", 3, 48).replace("03", "0x"),
            "CLIENT_RANDOM 00\n".to_owned(),
            "\u{0}\u{1}binary\n".to_owned(),
            "lower case\n".to_owned(),
        ];
        let (secrets, counters) = read(&lines.concat());
        assert_eq!(counters.tls_secrets, 2);
        assert_eq!(counters.tls_secrets_unused, 2);
        assert_eq!(counters.tls_secrets_bad, 6);
        let found = secrets.find(&[1; 32], Label::Master).unwrap();
        assert_eq!(***found, [0xab; 48]);
        assert!(secrets.find(&[2; 32], Label::ServerTraffic).is_some());
        assert!(secrets.find(&[2; 32], Label::ClientTraffic).is_none());
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let lines: String = (0..5).map(|random| line("CLIENT_RANDOM", random, 48)).collect();
        // One that is known already takes no room.
        let (secrets, counters) = read(&format!("{lines}{}", line("CLIENT_RANDOM", 4, 48)));
        assert_eq!((secrets.known.len(), secrets.order.len()), (MAX, MAX));
        assert_eq!(counters.tls_secrets_evicted, 2);
        let left = (0..5).filter(|random| secrets.find(&[*random; 32], Label::Master).is_some());
        assert_eq!(left.collect::<Vec<_>>(), [2, 3, 4]);
    }
}
