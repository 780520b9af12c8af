//! What a client sends between a request that may change the protocol and the answer to it: whose
//! bytes these are is known when the answer is.

use crate::time::EventTime;

/// Changes of time kept apart; bytes after more of them count as of the last. What comes before an
/// answer comes in one or two segments.
const PIECES_MAX: usize = 64;

/// Client bytes that wait, in order, with the gaps between them.
#[derive(Default)]
pub(super) struct Early {
    pieces: Vec<Piece>,
    bytes: usize,
}

/// Bytes of one time, and what is missing after them.
pub(super) struct Piece {
    /// When they were captured.
    pub(super) time: EventTime,
    /// The bytes.
    pub(super) bytes: Vec<u8>,
    /// How many are missing after them.
    pub(super) missing_bytes: u64,
}

impl Early {
    /// Bytes that wait.
    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    /// Adds bytes.
    pub(super) fn add(&mut self, time: EventTime, chunk: &[u8]) {
        self.bytes += chunk.len();
        let is_full = self.pieces.len() >= PIECES_MAX;
        match self.pieces.last_mut() {
            Some(last) if last.missing_bytes == 0 && (last.time == time || is_full) => {
                last.bytes.extend_from_slice(chunk);
            }
            Some(_) | None => {
                self.pieces.push(Piece { time, bytes: chunk.to_vec(), missing_bytes: 0 });
            }
        }
    }

    /// Bytes are missing here.
    pub(super) fn gap(&mut self, time: EventTime, bytes: u64) {
        match self.pieces.last_mut() {
            Some(last) => last.missing_bytes = last.missing_bytes.saturating_add(bytes),
            None => self.pieces.push(Piece { time, bytes: Vec::new(), missing_bytes: bytes }),
        }
    }

    /// Whether there is no room for more gaps.
    pub(super) fn is_full(&self, bytes_max: usize) -> bool {
        self.bytes >= bytes_max || self.pieces.len() >= 2 * PIECES_MAX
    }

    /// What waited, in order.
    pub(super) fn into_pieces(self) -> Vec<Piece> {
        self.pieces
    }

    /// Memory held, bytes.
    pub(super) fn held_bytes(&self) -> usize {
        let bytes: usize = self.pieces.iter().map(|piece| piece.bytes.capacity()).sum();
        bytes + self.pieces.capacity() * size_of::<Piece>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(early: Early) -> Vec<(u64, String, u64)> {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let pieces = early.into_pieces().into_iter();
        pieces.map(|piece| (piece.time.0, text(piece.bytes), piece.missing_bytes)).collect()
    }

    #[test]
    fn pieces_are_told_apart_by_time_and_gap_only() {
        let mut early = Early::default();
        early.add(EventTime(1), b"ab");
        early.add(EventTime(1), b"c");
        early.add(EventTime(2), b"d");
        early.gap(EventTime(3), 7);
        early.gap(EventTime(3), 1);
        early.add(EventTime(2), b"e");
        assert_eq!(early.len(), 5);
        let expected = [(1, "abc".into(), 0), (2, "d".into(), 8), (2, "e".into(), 0)];
        assert_eq!(pieces(early), expected);
    }

    #[test]
    fn the_number_of_pieces_is_bounded() {
        let mut early = Early::default();
        for time in 0..10_000 {
            early.add(EventTime(time), b"x");
            if time % 50 == 0 {
                early.gap(EventTime(time), 1);
            }
            if early.is_full(usize::MAX) {
                break;
            }
        }
        assert!(early.pieces.len() <= 2 * PIECES_MAX, "{}", early.pieces.len());
        assert!(early.is_full(early.len()) && !Early::default().is_full(1));
    }
}
