//! Bytes read as a script: what each end of a connection sends in turn. Any bytes are a script, so
//! that each change of a byte is another conversation.

use monitor_core::input::Direction;

/// What is sent next. As bytes: a tag, the length, and so many bytes, or as many as there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn<'a> {
    /// Who it goes to.
    pub direction: Direction,
    /// The capture lost it.
    pub lost: bool,
    /// Four bits for the target to use.
    pub kind: u8,
    /// At most 255 in a turn; several in one direction are one piece.
    pub bytes: &'a [u8],
}

const TO_CLIENT: u8 = 1;
const LOST: u8 = 2;
const KIND_SHIFT: u8 = 4;

/// The turns of a script.
pub(crate) fn read(mut script: &[u8]) -> impl Iterator<Item = Turn<'_>> {
    std::iter::from_fn(move || {
        let [tag, length, rest @ ..] = script else { return None };
        let (bytes, after) = rest.split_at(usize::from(*length).min(rest.len()));
        script = after;
        let direction =
            if tag & TO_CLIENT == 0 { Direction::ToServer } else { Direction::ToClient };
        Some(Turn { direction, lost: tag & LOST != 0, kind: tag >> KIND_SHIFT, bytes })
    })
}

/// A script of turns, of any length.
pub fn write(turns: &[Turn<'_>]) -> Vec<u8> {
    let mut script = Vec::new();
    for turn in turns {
        let to_client = if turn.direction == Direction::ToClient { TO_CLIENT } else { 0 };
        let lost = if turn.lost { LOST } else { 0 };
        for piece in turn.bytes.chunks(usize::from(u8::MAX)) {
            script.extend([turn.kind << KIND_SHIFT | lost | to_client, piece.len() as u8]);
            script.extend(piece);
        }
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let long = [7; 300];
        let turn = |direction, bytes| Turn { direction, lost: true, kind: 9, bytes };
        let turns = [turn(Direction::ToServer, &b"ab"[..]), turn(Direction::ToClient, &long)];
        let script = write(&turns);
        let read: Vec<Turn<'_>> = read(&script).collect();
        assert_eq!(read[0], turns[0]);
        assert_eq!([read[1].bytes, read[2].bytes].concat(), long);
        assert_eq!((read[1].direction, read[1].kind, read[1].lost), (Direction::ToClient, 9, true));
    }
}
