//! What a packet cannot say stands in its comment: `keywatch: NAME key=value ...`.

use std::fmt;

use compact_str::CompactString;
use monitor_core::engine::{Feedback, Impairment};
use monitor_core::input::{Direction, Owner};

/// What every such comment begins with.
pub(crate) const PREFIX: &str = "keywatch: ";

/// What a packet of a recording stands for, if it is not just a segment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Mark {
    /// A section begins.
    Section {
        /// Random; the same in all files of a recording.
        recording: u64,
        /// From 1, over all its files.
        number: u64,
        /// Ports that the live run watched.
        ports: Vec<u16>,
    },
    /// The interface of this packet is that of a scope.
    Scope(u64),
    /// A connection is known from here on. The packet goes from client to server.
    Open {
        /// Client's initial sequence number.
        client_isn: u32,
        /// Next sequence number from the client.
        client_next: u32,
        /// Next sequence number from the server.
        server_next: u32,
        /// Bytes had passed before.
        midstream: bool,
        /// It was announced in an earlier section already.
        again: bool,
    },
    /// A packet that stands for nothing; it makes the handshake whole.
    Drawn,
    /// The process of a connection. The packet goes from client to server.
    Owner {
        /// The process.
        owner: Owner,
        /// It was announced in an earlier section already.
        again: bool,
    },
    /// Payload bytes that the kernel could not deliver. The packet goes the way they went.
    Lost {
        /// Which way that is.
        direction: Direction,
        /// How many.
        bytes: u64,
    },
    /// Plaintext inside TLS: the packet's payload. The packet goes the way it went.
    Plain {
        /// Which way that is.
        direction: Direction,
        /// Bytes of this direction before it.
        before: u64,
        /// Others had passed before the first that is known.
        midstream: bool,
        /// Nothing follows in this direction.
        end: bool,
    },
    /// The connection is gone. The packet goes from client to server.
    Close,
    /// Time went on without traffic.
    Tick,
    /// Capture is impaired.
    Impaired(Impairment),
    /// Somebody said something of an alert.
    Said(Feedback),
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        match self {
            Mark::Section { recording, number, ports } => {
                write!(f, "section recording={recording:016x} number={number} ports=")?;
                for (place, port) in ports.iter().enumerate() {
                    write!(f, "{}{port}", if place == 0 { "" } else { "," })?;
                }
                Ok(())
            }
            Mark::Scope(scope) => write!(f, "scope netns={scope}"),
            Mark::Open { client_isn, client_next, server_next, midstream, again } => write!(
                f,
                "open client_isn={client_isn} client_next={client_next} \
                 server_next={server_next} midstream={} again={}",
                u8::from(*midstream),
                u8::from(*again)
            ),
            Mark::Drawn => f.write_str("drawn"),
            Mark::Owner { owner, again } => {
                write!(f, "owner process={} pid={}", Escaped(&owner.process), owner.pid)?;
                if let Some(container) = &owner.container {
                    write!(f, " container={}", Escaped(container))?;
                }
                write!(f, " again={}", u8::from(*again))
            }
            Mark::Lost { direction: Direction::ToServer, bytes } => {
                write!(f, "lost direction=to_server bytes={bytes}")
            }
            Mark::Lost { direction: Direction::ToClient, bytes } => {
                write!(f, "lost direction=to_client bytes={bytes}")
            }
            Mark::Plain { direction, before, midstream, end } => {
                let direction = match direction {
                    Direction::ToServer => "to_server",
                    Direction::ToClient => "to_client",
                };
                write!(
                    f,
                    "plain direction={direction} before={before} midstream={} end={}",
                    u8::from(*midstream),
                    u8::from(*end)
                )
            }
            Mark::Close => f.write_str("close"),
            Mark::Tick => f.write_str("tick"),
            Mark::Impaired(Impairment::Lost { bytes, events }) => {
                write!(f, "impaired bytes={bytes} events={events}")
            }
            Mark::Impaired(Impairment::Detached { program }) => {
                write!(f, "detached program={}", Escaped(program))
            }
            Mark::Impaired(Impairment::Unseen { what }) => {
                write!(f, "unseen what={}", Escaped(what))
            }
            Mark::Said(feedback) => {
                let json = serde_json::to_string(feedback).map_err(|_| fmt::Error)?;
                write!(f, "said json={}", Escaped(&json))
            }
        }
    }
}

impl Mark {
    /// From a comment; `None` when it is not one of these.
    pub(crate) fn parse(comment: &str) -> Option<Mark> {
        let text = comment.strip_prefix(PREFIX)?;
        let (name, fields) = text.split_once(' ').unwrap_or((text, ""));
        let fields = Fields(fields);
        Some(match name {
            "section" => Mark::Section {
                recording: u64::from_str_radix(fields.text("recording")?, 16).ok()?,
                number: fields.number("number")?,
                ports: fields
                    .text("ports")?
                    .split(',')
                    .filter(|port| !port.is_empty())
                    .map(|port| port.parse().ok())
                    .collect::<Option<_>>()?,
            },
            "scope" => Mark::Scope(fields.number("netns")?),
            "open" => Mark::Open {
                client_isn: fields.number("client_isn")?,
                client_next: fields.number("client_next")?,
                server_next: fields.number("server_next")?,
                midstream: fields.number::<u8>("midstream")? != 0,
                again: fields.number::<u8>("again")? != 0,
            },
            "drawn" => Mark::Drawn,
            "owner" => Mark::Owner {
                owner: Owner {
                    process: fields.unescaped("process")?,
                    pid: fields.number("pid")?,
                    container: match fields.text("container") {
                        Some(_) => Some(fields.unescaped("container")?),
                        None => None,
                    },
                },
                again: fields.number::<u8>("again")? != 0,
            },
            "lost" => Mark::Lost { direction: fields.direction()?, bytes: fields.number("bytes")? },
            "plain" => Mark::Plain {
                direction: fields.direction()?,
                before: fields.number("before")?,
                midstream: fields.number::<u8>("midstream")? != 0,
                end: fields.number::<u8>("end")? != 0,
            },
            "close" => Mark::Close,
            "tick" => Mark::Tick,
            "impaired" => Mark::Impaired(Impairment::Lost {
                bytes: fields.number("bytes")?,
                events: fields.number("events")?,
            }),
            "detached" => Mark::Impaired(Impairment::Detached {
                program: fields.unescaped("program")?.into(),
            }),
            "unseen" => {
                Mark::Impaired(Impairment::Unseen { what: fields.unescaped("what")?.into() })
            }
            "said" => Mark::Said(serde_json::from_str(&fields.unescaped("json")?).ok()?),
            _ => return None,
        })
    }
}

/// `key=value`, separated by blanks.
struct Fields<'a>(&'a str);

impl<'a> Fields<'a> {
    fn text(&self, key: &str) -> Option<&'a str> {
        let mut words = self.0.split(' ');
        words.find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    fn number<T: std::str::FromStr>(&self, key: &str) -> Option<T> {
        self.text(key)?.parse().ok()
    }

    fn direction(&self) -> Option<Direction> {
        match self.text("direction")? {
            "to_server" => Some(Direction::ToServer),
            "to_client" => Some(Direction::ToClient),
            _ => None,
        }
    }

    fn unescaped(&self, key: &str) -> Option<CompactString> {
        unescape(self.text(key)?)
    }
}

/// Text without blanks and control characters: those stand as `%` and two hexadecimal digits.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in self.0.split_inclusive(|c: char| c.is_control() || c == ' ' || c == '%') {
            match part.char_indices().next_back() {
                Some((at, c)) if c.is_control() || c == ' ' || c == '%' => {
                    f.write_str(&part[..at])?;
                    part[at..].bytes().try_for_each(|byte| write!(f, "%{byte:02x}"))?;
                }
                Some(_) | None => f.write_str(part)?,
            }
        }
        Ok(())
    }
}

fn unescape(text: &str) -> Option<CompactString> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let (digits, after) = rest.split_first_chunk::<2>()?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = after;
    }
    CompactString::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use monitor_core::alert::AlertId;
    use monitor_core::call::KeyId;
    use monitor_core::engine::Said;
    use monitor_core::time::EventTime;
    use proptest::prelude::*;

    use super::*;

    fn marks() -> impl Strategy<Value = Mark> {
        let owner = (".{0,15}", any::<u32>(), prop::option::of("[0-9a-f]{64}")).prop_map(
            |(process, pid, container)| Owner {
                process: process.into(),
                pid,
                container: container.map(CompactString::from),
            },
        );
        let direction = prop_oneof![Just(Direction::ToServer), Just(Direction::ToClient)];
        prop_oneof![
            (any::<u64>(), any::<u64>(), prop::collection::vec(any::<u16>(), 0..4))
                .prop_map(|(recording, number, ports)| Mark::Section { recording, number, ports }),
            any::<u64>().prop_map(Mark::Scope),
            any::<(u32, u32, u32, bool, bool)>().prop_map(
                |(client_isn, client_next, server_next, midstream, again)| Mark::Open {
                    client_isn,
                    client_next,
                    server_next,
                    midstream,
                    again
                }
            ),
            Just(Mark::Drawn),
            (owner, any::<bool>()).prop_map(|(owner, again)| Mark::Owner { owner, again }),
            (direction.clone(), any::<u64>())
                .prop_map(|(direction, bytes)| Mark::Lost { direction, bytes }),
            (direction, any::<(u64, bool, bool)>()).prop_map(
                |(direction, (before, midstream, end))| Mark::Plain {
                    direction,
                    before,
                    midstream,
                    end
                }
            ),
            Just(Mark::Close),
            Just(Mark::Tick),
            any::<(u64, u64)>()
                .prop_map(|(bytes, events)| Mark::Impaired(Impairment::Lost { bytes, events })),
            ".{0,20}".prop_map(|program| Mark::Impaired(Impairment::Detached { program })),
            (any::<(u32, u64, u128)>(), ".{0,20}").prop_map(|((time, alert, key), reason)| {
                let time = EventTime(u64::from(time) * 1_000_000_000);
                let said = if alert % 2 == 0 {
                    Said::Dismiss { alert: AlertId(alert), reason }
                } else {
                    Said::Mute { key: KeyId(key), detector: Some(reason), until: time }
                };
                Mark::Said(Feedback { time, said })
            }),
            ".{0,20}".prop_map(|what| Mark::Impaired(Impairment::Unseen { what })),
        ]
    }

    proptest! {
        #[test]
        fn a_mark_survives_its_comment(mark in marks()) {
            let comment = mark.to_string();
            prop_assert!(!comment.chars().any(char::is_control), "{:?}", comment);
            prop_assert_eq!(Mark::parse(&comment), Some(mark));
        }

        #[test]
        fn any_comment_is_a_mark_or_none(text in ".{0,60}", name in "(section|open|owner|lost|scope) ") {
            Mark::parse(&text);
            Mark::parse(&format!("{PREFIX}{name}{text}"));
        }
    }

    #[test]
    fn a_comment_reads_as_it_should() {
        let owner = Owner { process: "my server%".into(), pid: 7, container: None };
        let mark = Mark::Owner { owner, again: false };
        assert_eq!(mark.to_string(), "keywatch: owner process=my%20server%25 pid=7 again=0");
        assert_eq!(Mark::parse("keywatch: open client_isn=1"), None);
        assert_eq!(Mark::parse("keywatch: fly"), None);
        assert_eq!(Mark::parse("tick"), None);
    }
}
