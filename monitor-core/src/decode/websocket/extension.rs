//! What both ends agreed on: `Sec-WebSocket-Extensions` of the 101 (RFC 6455, 9.1; RFC 7692, 7.1).

use crate::connection::Deflate;
use crate::input::Direction;

/// Extensions in use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Agreed {
    /// permessage-deflate.
    pub(super) deflate: Option<Deflate>,
    /// Others, which may use the reserved bits as they like.
    pub(super) others: bool,
}

/// Window of a direction that says nothing of it (RFC 7692, 7.1.2).
const WINDOW_BITS: u8 = 15;

impl Agreed {
    /// From the header's value. Parameters that make no sense are passed over: the server decides,
    /// and what it really does is in the frames.
    pub(super) fn parse(value: &str) -> Agreed {
        let mut agreed = Agreed::default();
        for extension in value.split(',') {
            let mut parts = extension.split(';').map(str::trim);
            match parts.next() {
                None | Some("") => {}
                Some(name) if name.eq_ignore_ascii_case("permessage-deflate") => {
                    agreed.deflate.get_or_insert_with(|| deflate(parts));
                }
                Some(_) => agreed.others = true,
            }
        }
        agreed
    }
}

fn deflate<'v>(parameters: impl Iterator<Item = &'v str>) -> Deflate {
    let mut deflate = Deflate {
        client_no_context_takeover: false,
        server_no_context_takeover: false,
        client_max_window_bits: WINDOW_BITS,
        server_max_window_bits: WINDOW_BITS,
    };
    for parameter in parameters {
        let (name, value) = match parameter.split_once('=') {
            Some((name, value)) => (name.trim(), value.trim().trim_matches('"')),
            None => (parameter, ""),
        };
        let bits = value.parse().ok().filter(|bits| (8..=WINDOW_BITS).contains(bits));
        if name.eq_ignore_ascii_case("client_no_context_takeover") {
            deflate.client_no_context_takeover = true;
        } else if name.eq_ignore_ascii_case("server_no_context_takeover") {
            deflate.server_no_context_takeover = true;
        } else if name.eq_ignore_ascii_case("client_max_window_bits") {
            deflate.client_max_window_bits = bits.unwrap_or(WINDOW_BITS);
        } else if name.eq_ignore_ascii_case("server_max_window_bits") {
            deflate.server_max_window_bits = bits.unwrap_or(WINDOW_BITS);
        }
    }
    deflate
}

impl Deflate {
    /// Whether messages of a direction refer to those before.
    pub(super) fn takeover(&self, direction: Direction) -> bool {
        match direction {
            Direction::ToServer => !self.client_no_context_takeover,
            Direction::ToClient => !self.server_no_context_takeover,
        }
    }

    /// How far back the messages of a direction refer, bytes.
    pub(super) fn window_bytes(&self, direction: Direction) -> usize {
        let bits = match direction {
            Direction::ToServer => self.client_max_window_bits,
            Direction::ToClient => self.server_max_window_bits,
        };
        // zlib makes nine of eight.
        1 << bits.clamp(9, WINDOW_BITS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_as_servers_write_them() {
        let check = |value: &str, expected: Option<(bool, bool, u8, u8)>, others| {
            let agreed = Agreed::parse(value);
            let deflate = agreed.deflate.map(|it| {
                let bits = (it.client_max_window_bits, it.server_max_window_bits);
                (it.client_no_context_takeover, it.server_no_context_takeover, bits.0, bits.1)
            });
            assert_eq!((deflate, agreed.others), (expected, others), "{value}");
        };
        check("", None, false);
        check("permessage-deflate", Some((false, false, 15, 15)), false);
        check(
            "permessage-deflate; server_max_window_bits=12; client_max_window_bits=9",
            Some((false, false, 9, 12)),
            false,
        );
        check(
            "PerMessage-Deflate;client_no_context_takeover ; server_max_window_bits=\"10\"",
            Some((true, false, 15, 10)),
            false,
        );
        check("permessage-deflate; server_max_window_bits=7", Some((false, false, 15, 15)), false);
        check("x-other; a=b, permessage-deflate", Some((false, false, 15, 15)), true);
        check("x-webkit-deflate-frame", None, true);
    }
}
