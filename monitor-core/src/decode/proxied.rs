//! What a proxy in front says of the client before anything else: the PROXY protocol, versions 1 and 2
//! (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>).
//!
//! The header is passed over whoever sent it, and what follows is read as if it were not there. Whether it
//! counts for who asks depends on who sent it. Of what version 2 may add (TLVs) nothing is kept.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::input::Endpoint;

/// The longest header of version 1, with its line end (2.1).
const LINE_BYTES_MAX: usize = 107;

/// Signature, version, command, family and length of version 2 (2.2).
const FIXED_BYTES: usize = 16;

/// Addresses and ports of IPv6.
const ADDRESSES_BYTES: usize = 36;

/// What version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// A header, as far as it came.
pub(super) struct Header {
    version: Version,
    bytes: [u8; LINE_BYTES_MAX],
    count: usize,
    /// Bytes of version 2 behind those that are kept.
    skipped: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Version {
    /// A line of text.
    One,
    /// Binary.
    Two,
}

/// What more bytes show.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict<'c> {
    /// It goes on.
    Open,
    /// It is over; what follows it.
    Over(Says, &'c [u8]),
    /// It is none after all; what was not looked at.
    Bad(&'c [u8]),
}

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Says {
    /// The client.
    Client(Endpoint),
    /// Nothing: the proxy asks for itself, or does not know.
    Nothing,
}

impl Header {
    pub(super) fn new(version: Version) -> Header {
        let mut header = Header { version, bytes: [0; LINE_BYTES_MAX], count: 0, skipped: 0 };
        if version == Version::Two {
            // Line ends at the start were passed over where it was told what this is.
            header.bytes[..4].copy_from_slice(&SIGNATURE[..4]);
            header.count = 4;
        }
        header
    }

    /// The next bytes of the client's side.
    pub(super) fn data<'c>(&mut self, chunk: &'c [u8]) -> Verdict<'c> {
        match self.version {
            Version::One => self.line(chunk),
            Version::Two => self.binary(chunk),
        }
    }

    fn line<'c>(&mut self, chunk: &'c [u8]) -> Verdict<'c> {
        for (at, byte) in chunk.iter().enumerate() {
            let Some(place) = self.bytes.get_mut(self.count) else {
                return Verdict::Bad(&chunk[at..]);
            };
            *place = *byte;
            self.count += 1;
            if *byte == b'\n' {
                let rest = &chunk[at + 1..];
                return match said_in_line(&self.bytes[..self.count]) {
                    Some(says) => Verdict::Over(says, rest),
                    None => Verdict::Bad(rest),
                };
            }
        }
        Verdict::Open
    }

    fn binary<'c>(&mut self, chunk: &'c [u8]) -> Verdict<'c> {
        let mut rest = chunk;
        self.take(&mut rest, FIXED_BYTES);
        if self.count < FIXED_BYTES {
            return Verdict::Open;
        }
        let [command, family] = [self.bytes[12], self.bytes[13]];
        if self.bytes[..12] != *SIGNATURE || !matches!(command, 0x20 | 0x21) {
            return Verdict::Bad(rest);
        }
        let length = usize::from(u16::from_be_bytes([self.bytes[14], self.bytes[15]]));
        self.take(&mut rest, FIXED_BYTES + length.min(ADDRESSES_BYTES));
        let more = length.saturating_sub(ADDRESSES_BYTES) - self.skipped;
        let skipped = rest.len().min(more);
        self.skipped += skipped;
        rest = &rest[skipped..];
        if self.count < FIXED_BYTES + length.min(ADDRESSES_BYTES) || skipped < more {
            return Verdict::Open;
        }
        let addresses = &self.bytes[FIXED_BYTES..self.count];
        // Local, or a family that has no address: it asks for itself.
        let says = match (command, family >> 4) {
            (0x21, 1) => said_by::<4>(addresses, |ip| Ipv4Addr::from(ip).into()),
            (0x21, 2) => said_by::<16>(addresses, |ip| Ipv6Addr::from(ip).into()),
            (_, _) => Some(Says::Nothing),
        };
        match says {
            Some(says) => Verdict::Over(says, rest),
            None => Verdict::Bad(rest),
        }
    }

    /// Fills up to `count` bytes.
    fn take(&mut self, from: &mut &[u8], count: usize) {
        let wanted = count.saturating_sub(self.count).min(from.len());
        let (taken, rest) = from.split_at(wanted);
        self.bytes[self.count..self.count + wanted].copy_from_slice(taken);
        self.count += wanted;
        *from = rest;
    }
}

/// What follows a header that these first bytes of a connection begin with: all of them without one, nothing
/// when it is cut short or bad.
pub fn behind_proxy_header(bytes: &[u8]) -> &[u8] {
    let (version, bytes) = if bytes.starts_with(b"PROXY ") {
        (Version::One, bytes)
    } else if bytes.starts_with(SIGNATURE) {
        (Version::Two, &bytes[4..])
    } else {
        return bytes;
    };
    match Header::new(version).data(bytes) {
        Verdict::Over(_, rest) => rest,
        Verdict::Open | Verdict::Bad(_) => &[],
    }
}

/// `PROXY TCP4 192.0.2.1 198.51.100.5 51512 443`, and the line end.
fn said_in_line(line: &[u8]) -> Option<Says> {
    let line = std::str::from_utf8(line.strip_suffix(b"\r\n")?).ok()?;
    let mut words = line.split(' ');
    let mut next = || words.next();
    if next() != Some("PROXY") {
        return None;
    }
    let family = next()?;
    if family == "UNKNOWN" {
        return Some(Says::Nothing);
    }
    let (source, target) = (next()?.parse::<IpAddr>().ok()?, next()?.parse::<IpAddr>().ok()?);
    let port = port(next()?)?;
    // The target's counts for nothing, and must be one.
    self::port(next()?)?;
    let is_four = match family {
        "TCP4" => true,
        "TCP6" => false,
        _ => return None,
    };
    let fits = source.is_ipv4() == is_four && target.is_ipv4() == is_four && next().is_none();
    fits.then(|| Says::Client(Endpoint::new(source, port)))
}

/// A decimal number without leading zeros or a sign.
fn port(word: &str) -> Option<u16> {
    let is_plain = word.bytes().all(|byte| byte.is_ascii_digit());
    let is_shortest = word == "0" || !word.starts_with('0');
    (is_plain && is_shortest).then(|| word.parse().ok())?
}

/// Source and target, then their ports.
fn said_by<const N: usize>(bytes: &[u8], ip: fn([u8; N]) -> IpAddr) -> Option<Says> {
    let source = *bytes.first_chunk::<N>()?;
    let ports = bytes.get(2 * N..2 * N + 4)?;
    Some(Says::Client(Endpoint::new(ip(source), u16::from_be_bytes([ports[0], ports[1]]))))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_follows_a_header_is_found_in_first_bytes() {
        let line = b"PROXY TCP4 192.0.2.1 192.0.2.2 5 443\r\n";
        let binary = [&SIGNATURE[..], &[0x21, 0x11, 0, 12], &[1; 12]].concat();
        for header in [&b""[..], &line[..], &binary[..]] {
            assert_eq!(behind_proxy_header(&[header, b"GET / "].concat()), b"GET / ");
            for cut in (1..header.len()).filter(|cut| *cut >= SIGNATURE.len()) {
                assert_eq!(behind_proxy_header(&header[..cut]), b"", "{cut}");
            }
        }
        assert_eq!(behind_proxy_header(b"PROXY TCP4 nonsense\r\nGET / "), b"");
    }

    /// What a header says and what follows it, however the bytes are cut; `None`: it is none.
    fn read(version: Version, bytes: &[u8]) -> Option<(Says, Vec<u8>)> {
        // The caller has passed over line ends.
        let bytes = if version == Version::Two { &bytes[4..] } else { bytes };
        let mut results = Vec::new();
        for step in [1, 2, 3, 7, 16, 20, 64, usize::MAX] {
            let mut header = Header::new(version);
            let mut result = None;
            let mut chunks = bytes.chunks(step.min(bytes.len().max(1)));
            while let Some(chunk) = chunks.next() {
                match header.data(chunk) {
                    Verdict::Open => {}
                    Verdict::Over(says, rest) => {
                        result =
                            Some((says, [rest, &chunks.collect::<Vec<_>>().concat()].concat()));
                        break;
                    }
                    Verdict::Bad(_) => break,
                }
            }
            results.push(result);
        }
        assert!(results.windows(2).all(|two| two[0] == two[1]), "{results:?}");
        results.swap_remove(0)
    }

    fn client(text: &str) -> Says {
        Says::Client(text.parse::<std::net::SocketAddr>().unwrap().into())
    }

    fn two(command: u8, family: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, content].concat()
    }

    const FOUR: &[u8] = &[203, 0, 113, 9, 10, 0, 0, 5, 0xc9, 0x38, 0x01, 0xbb];

    #[test]
    fn lines_are_read() {
        let read = |text: &str| read(Version::One, text.as_bytes());
        let says = read("PROXY TCP4 203.0.113.9 10.0.0.5 51512 443\r\nGET /");
        assert_eq!(says, Some((client("203.0.113.9:51512"), b"GET /".to_vec())));
        let says = read("PROXY TCP6 2001:db8::9 2001:db8::5 51512 443\r\n");
        assert_eq!(says.unwrap().0, client("[2001:db8::9]:51512"));
        for text in ["PROXY UNKNOWN\r\n", "PROXY UNKNOWN ffff:f::1 ffff:f::2 65535 65535\r\n"] {
            assert_eq!(read(text).unwrap().0, Says::Nothing);
        }
    }

    #[test]
    fn lines_that_are_wrong_are_none() {
        for text in [
            "PROXY TCP4 203.0.113.9 10.0.0.5 51512 443\n",
            "PROXY TCP4 203.0.113.9 10.0.0.5 51512\r\n",
            "PROXY TCP4 203.0.113.9 10.0.0.5 51512 443 1\r\n",
            "PROXY TCP4  203.0.113.9 10.0.0.5 51512 443\r\n",
            "PROXY TCP4 203.0.113.9 10.0.0.5 051512 443\r\n",
            "PROXY TCP4 203.0.113.9 10.0.0.5 +1 443\r\n",
            "PROXY TCP4 203.0.113.9 10.0.0.5 65536 443\r\n",
            "PROXY TCP4 2001:db8::9 2001:db8::5 1 443\r\n",
            "PROXY TCP6 203.0.113.9 10.0.0.5 1 443\r\n",
            "PROXY TCP4 example.com 10.0.0.5 1 443\r\n",
            "PROXY UDP4 203.0.113.9 10.0.0.5 1 443\r\n",
            "PROXY \r\n",
            &format!("PROXY UNKNOWN {}\r\n", "x".repeat(LINE_BYTES_MAX)),
        ] {
            assert_eq!(read(Version::One, text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn binary_headers_are_read_and_what_they_add_is_passed_over() {
        let read = |bytes: &[u8]| read(Version::Two, bytes);
        let says = read(&[&two(0x21, 0x11, FOUR)[..], b"GET /"].concat());
        assert_eq!(says, Some((client("203.0.113.9:51512"), b"GET /".to_vec())));
        let six = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[9], &[0; 16], &[0, 80, 1, 0xbb]].concat();
        assert_eq!(read(&two(0x21, 0x21, &six)).unwrap().0, client("[2001:db8::9]:80"));
        for added in [1, 24, 25, 5_000, 65_000] {
            let content = [FOUR, &vec![7; added]].concat();
            let says = read(&[&two(0x21, 0x11, &content)[..], b"PRI"].concat());
            assert_eq!(says, Some((client("203.0.113.9:51512"), b"PRI".to_vec())), "{added}");
        }
        for (command, family, content) in
            [(0x20, 0x11, FOUR), (0x20, 0, b""), (0x21, 0, b""), (0x21, 0x31, &[7; 216])]
        {
            assert_eq!(read(&two(command, family, content)), Some((Says::Nothing, Vec::new())));
        }
    }

    #[test]
    fn binary_headers_that_are_wrong_are_none() {
        for bytes in [
            two(0x11, 0x11, FOUR),
            two(0x22, 0x11, FOUR),
            two(0x21, 0x11, &FOUR[1..]),
            two(0x21, 0x21, FOUR),
            two(0x21, 0x21, &[0; 35]),
            two(0x21, 0x11, b""),
        ] {
            assert_eq!(read(Version::Two, &bytes), None, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 4..200)) {
            read(Version::One, &bytes);
            read(Version::Two, &bytes);
            let rest = &bytes[4..];
            read(Version::Two, &[&SIGNATURE[..], rest].concat());
            read(Version::Two, &two(0x21, rest.first().copied().unwrap_or(0x11), rest));
        }
    }
}
