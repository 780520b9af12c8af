//! Finding the next message after bytes were lost or made no sense.
//!
//! A message begins with a line that can hardly be anything else: a request line ends in ` HTTP/1.1`,
//! a status line begins with `HTTP/1.1 ` and three digits. Both may follow the last byte of a body
//! without a line end between, so they are looked for within lines. What is found depends on the
//! bytes alone, not on how they were cut into segments.

use std::collections::VecDeque;

use memchr::{memchr, memmem};

use crate::input::Direction;
use crate::time::EventTime;

/// Bytes kept of a line that has not ended: nginx takes request lines of up to 8 KiB.
const LINE_BYTES_MAX: usize = 8 << 10;

/// Changes of time remembered: a first line comes in one or two segments.
const TIMES_MAX: usize = 8;

/// Methods that a request may be found by (RFC 9110, 9; RFC 5789). None is the end of another.
const METHODS: [&[u8]; 9] =
    [b"GET", b"POST", b"PUT", b"DELETE", b"PATCH", b"HEAD", b"OPTIONS", b"CONNECT", b"TRACE"];

/// The search, over any number of chunks.
#[derive(Default)]
pub(super) struct Resync {
    /// The current line, or at least the end of it.
    line: Vec<u8>,
    /// From which byte of the search on what time counts; the last few.
    times: VecDeque<(u64, EventTime)>,
    passed_bytes: u64,
}

/// A message that was found.
pub(super) struct Found {
    /// Its first line.
    pub(super) line: Vec<u8>,
    /// When its first byte was captured.
    pub(super) time: EventTime,
    /// Bytes of the chunk that were looked at.
    pub(super) used: usize,
    /// Bytes passed over since the search began.
    pub(super) skipped_bytes: u64,
}

impl Resync {
    /// A search that begins with bytes already taken, which hold no line end.
    pub(super) fn after(line: Vec<u8>, time: EventTime) -> Resync {
        Resync { passed_bytes: line.len() as u64, line, times: VecDeque::from([(0, time)]) }
    }

    /// Memory held, bytes.
    pub(super) fn held_bytes(&self) -> usize {
        self.line.capacity() + self.times.capacity() * size_of::<(u64, EventTime)>()
    }

    /// Bytes are missing here: no line goes across.
    pub(super) fn gap(&mut self) {
        self.line.clear();
    }

    /// Looks for the first line of a message.
    pub(super) fn search(
        &mut self,
        direction: Direction,
        time: EventTime,
        chunk: &[u8],
    ) -> Option<Found> {
        self.mark(time);
        let mut at = 0;
        while at < chunk.len() {
            let end = memchr(b'\n', &chunk[at..]).map(|end| at + end + 1);
            let piece = &chunk[at..end.unwrap_or(chunk.len())];
            self.passed_bytes += piece.len() as u64;
            let Some(next) = end else {
                self.keep(piece);
                return None;
            };
            // Most lines are in one piece and not what is sought: look before copying.
            let line = if self.line.is_empty() {
                piece
            } else {
                self.keep(piece);
                &self.line
            };
            let line = &line[line.len().saturating_sub(LINE_BYTES_MAX)..];
            if let Some(start) = start_of_message(direction, line) {
                let line = Vec::from(&line[start..]);
                let skipped_bytes = self.passed_bytes - line.len() as u64;
                let time = self.time_of(skipped_bytes).unwrap_or(time);
                *self = Resync::default();
                return Some(Found { line, time, used: next, skipped_bytes });
            }
            self.line.clear();
            at = next;
        }
        None
    }

    /// What comes next has this time.
    fn mark(&mut self, time: EventTime) {
        if self.times.back().is_some_and(|(_, last)| *last == time) {
            return;
        }
        if self.times.len() == TIMES_MAX {
            self.times.pop_front();
        }
        self.times.push_back((self.passed_bytes, time));
    }

    fn time_of(&self, position: u64) -> Option<EventTime> {
        let mark = self.times.iter().rev().find(|(from, _)| *from <= position);
        mark.or(self.times.front()).map(|(_, time)| *time)
    }

    /// Adds to the current line. Of a long one only the end stays; it is cut at twice the limit, so
    /// that single bytes do not each move it.
    fn keep(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(LINE_BYTES_MAX)..];
        if self.line.len() + bytes.len() > 2 * LINE_BYTES_MAX {
            let keep = LINE_BYTES_MAX.saturating_sub(bytes.len());
            self.line.drain(..self.line.len().saturating_sub(keep));
        }
        self.line.extend_from_slice(bytes);
    }
}

/// Where in a line a message begins, if one does.
fn start_of_message(direction: Direction, line: &[u8]) -> Option<usize> {
    match direction {
        Direction::ToServer => start_of_request(line),
        Direction::ToClient => start_of_response(line),
    }
}

/// `METHOD SP target SP HTTP/1.x`, the method perhaps after the end of a body.
fn start_of_request(line: &[u8]) -> Option<usize> {
    let line = line.strip_suffix(b"\n")?;
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let line = line.strip_suffix(b" HTTP/1.1").or_else(|| line.strip_suffix(b" HTTP/1.0"))?;
    let space = line.iter().rposition(|byte| *byte == b' ')?;
    if space + 1 == line.len() {
        return None;
    }
    let method = METHODS.into_iter().find(|method| line[..space].ends_with(method))?;
    Some(space - method.len())
}

/// `HTTP/1.x SP ddd`, perhaps after the end of a body.
fn start_of_response(line: &[u8]) -> Option<usize> {
    let start = memmem::rfind(line, b"HTTP/1.")?;
    match &line[start + b"HTTP/1.".len()..] {
        [b'0' | b'1', b' ', a, b, c, b' ' | b'\r' | b'\n', ..]
            if [a, b, c].iter().all(|digit| digit.is_ascii_digit()) =>
        {
            Some(start)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(direction: Direction, text: &str, line: Option<(&str, u64)>) {
        for step in 1..=text.len() {
            let mut resync = Resync::default();
            let found = text
                .as_bytes()
                .chunks(step)
                .find_map(|c| resync.search(direction, EventTime(1), c));
            let found =
                found.map(|found| (String::from_utf8(found.line).unwrap(), found.skipped_bytes));
            let found = found.as_ref().map(|(line, skipped)| (&line[..], *skipped));
            assert_eq!(found, line, "step {step}");
        }
    }

    #[test]
    fn requests_are_found_within_lines() {
        let found = Some(("POST /x HTTP/1.1\r\n", 5));
        check(Direction::ToServer, "a\n{}}POST /x HTTP/1.1\r\nHost: a\r\n", found);
        check(Direction::ToServer, "GET /x HTTP/1.0\n", Some(("GET /x HTTP/1.0\n", 0)));
        for text in
            ["GET /x HTTP/2\r\n", "GOT /x HTTP/1.1\r\n", "GET  HTTP/1.1\r\n", "GET /x HTTP/1.1"]
        {
            check(Direction::ToServer, text, None);
        }
    }

    #[test]
    fn responses_are_found_within_lines() {
        let found = Some(("HTTP/1.1 200 OK\r\n", 4));
        check(Direction::ToClient, "a\n{}HTTP/1.1 200 OK\r\nHost: a\r\n", found);
        check(Direction::ToClient, "HTTP/1.0 200\n", Some(("HTTP/1.0 200\n", 0)));
        for text in
            ["HTTP/1.1 20 OK\r\n", "HTTP/1.2 200 OK\r\n", "HTTP/1.1 200x\n", "HTTP/1.1 200 OK"]
        {
            check(Direction::ToClient, text, None);
        }
    }

    #[test]
    fn a_long_line_is_not_kept_whole() {
        for step in [1, 1000, 100_000] {
            let mut resync = Resync::default();
            let text = "x".repeat(100_000) + "HTTP/1.1 200 OK\r\n";
            let mut found = None;
            for chunk in text.as_bytes().chunks(step) {
                found = found.or(resync.search(Direction::ToClient, EventTime(1), chunk));
                assert!(resync.held_bytes() <= 4 * LINE_BYTES_MAX);
            }
            let found = found.unwrap();
            assert_eq!(
                (&found.line[..], found.skipped_bytes),
                (&b"HTTP/1.1 200 OK\r\n"[..], 100_000)
            );
        }
    }
}
