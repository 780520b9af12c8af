//! Message heads: gathered from chunks, bounded, parsed once.
//!
//! The common head lies whole in one chunk and is parsed where it is, by the letter. Others are
//! gathered; they are parsed when their end has been found, so that single bytes cost no more than one
//! look each, and as well as they can be.

use std::mem::MaybeUninit;

use httparse::{EMPTY_HEADER, Error, Header, Status};
use memchr::memchr;
use smallvec::SmallVec;

use super::framing::Framing;
use super::known::Known;
use super::odd::{self, OddHead};
use crate::call::Anomalies;
use crate::decode::Counters;
use crate::limits::Limits;

/// Header fields that fit on the stack; more are parsed in a buffer of their own.
const HEADERS_INLINE: usize = 128;

/// Bytes kept of a line behind the limit: enough for any framing field.
const LINE_BYTES_MAX: usize = 256;

/// What a head must show within its first bytes: methods have at most this many.
const METHOD_BYTES_MAX: usize = 32;

/// What requests and responses have each their own way of.
pub(super) trait Parse {
    /// What a head becomes.
    type Head;

    /// A first line by the letter.
    type Line<'b>;

    /// What its fields become.
    type Fields: Clone;

    /// Parses a head at the front of `bytes` by the letter: its first line, its fields, and how many bytes
    /// it took.
    fn parse<'h, 'b>(
        bytes: &'b [u8],
        headers: &'h mut [MaybeUninit<Header<'b>>],
    ) -> Result<Status<Parsed<'h, 'b, Self::Line<'b>>>, Error>;

    /// Parses a first line with its end, by the letter.
    fn parse_line(bytes: &[u8]) -> Option<Self::Line<'_>>;

    /// Whether a head of this line needs its fields besides what they come to.
    fn needs_fields(line: &Self::Line<'_>) -> bool;

    /// What fields come to, whatever line they follow.
    fn fields(&self, headers: &[Header<'_>]) -> Self::Fields;

    /// What a line and the fields after it come to.
    fn head(
        &self,
        line: &Self::Line<'_>,
        fields: Self::Fields,
        headers: &[Header<'_>],
    ) -> Self::Head;

    /// Reads a head that is not by the letter; `None` when its first line is none.
    fn parse_odd(&self, head: &OddHead<'_>) -> Option<Self::Head>;

    /// Stands for a head that does not parse.
    fn unreadable(&self) -> Self::Head;

    /// Framing and oddities of a head, to add to.
    fn framing<'h>(&self, head: &'h mut Self::Head) -> &'h mut Framing;

    /// Whether bytes, of which there may be few, can begin a head.
    fn plausible(&self, start: &[u8]) -> bool;

    /// Whether a first line, with its end, is a message of its own: no fields follow.
    fn is_whole(&self, line: &[u8]) -> bool;

    /// Whether a first line whose end is missing says all that it could.
    fn is_enough(&self, line: &[u8]) -> bool;
}

/// A head by the letter.
pub(super) struct Parsed<'h, 'b, L> {
    pub(super) line: L,
    pub(super) headers: &'h [Header<'b>],
    /// Bytes that it took.
    pub(super) used: usize,
}

/// Reads heads, one after the other.
pub(super) struct HeadReader<H, F> {
    /// Fields of the head before.
    known: Known<F>,
    /// A head that came in part.
    part: Option<Box<Part<H>>>,
}

/// What there is of a head.
enum Part<H> {
    /// Its first bytes, one at least, and whether its first line has ended.
    Begun { bytes: Vec<u8>, has_line: bool },
    /// It is too large: the rest of it.
    Rest(Rest<H>),
}

/// What came of a chunk.
pub(super) enum Step<H> {
    /// All of it was taken and the head goes on.
    More,
    /// A head ended after so many bytes of the chunk.
    Head(H, usize),
    /// These bytes, and the chunk after them, are not a head.
    Implausible(Vec<u8>),
}

struct Rest<H> {
    head: H,
    line: Vec<u8>,
}

impl<H, F> Default for HeadReader<H, F> {
    fn default() -> HeadReader<H, F> {
        HeadReader { known: Known::default(), part: None }
    }
}

impl<H, F: Clone> HeadReader<H, F> {
    /// Begins with bytes that were found by other means.
    pub(super) fn begin(&mut self, bytes: Vec<u8>) {
        let has_line = memchr(b'\n', &bytes).is_some();
        self.part = (!bytes.is_empty()).then(|| Box::new(Part::Begun { bytes, has_line }));
    }

    /// Whether no byte of a head has been seen.
    pub(super) fn is_empty(&self) -> bool {
        self.part.is_none()
    }

    /// Forgets what was gathered.
    pub(super) fn clear(&mut self) {
        self.part = None;
    }

    /// No byte follows: what a head says that has not ended, when its first line is whole.
    pub(super) fn cut<P: Parse<Head = H, Fields = F>>(
        &mut self,
        parser: &P,
        limits: &Limits,
        counters: &mut Counters,
    ) -> Option<H> {
        let part = self.part.take()?;
        counters.heads_cut += 1;
        let (mut bytes, has_line) = match *part {
            Part::Begun { bytes, has_line } => (bytes, has_line),
            Part::Rest(rest) => return Some(rest.head),
        };
        let mut odd = Anomalies::empty();
        if has_line {
            let lines = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            odd = odd::cut_line(&bytes[lines..]);
            bytes.truncate(lines);
        } else if parser.is_enough(&bytes) {
            bytes.extend_from_slice(b"\r\n");
        } else {
            return None;
        }
        bytes.extend_from_slice(b"\r\n");
        let mut head = parse_whole(parser, bytes, limits, counters);
        parser.framing(&mut head).odd |= odd;
        Some(head)
    }

    /// Memory held, bytes.
    pub(super) fn held_bytes(&self) -> usize {
        let part = self.part.as_ref().map_or(0, |part| {
            let bytes = match &**part {
                Part::Begun { bytes, .. } => bytes.capacity(),
                Part::Rest(_) => LINE_BYTES_MAX,
            };
            size_of::<Part<H>>() + bytes
        });
        self.known.held_bytes() + part
    }

    /// Takes a chunk that is not empty.
    pub(super) fn read<P: Parse<Head = H, Fields = F>>(
        &mut self,
        parser: &P,
        chunk: &[u8],
        limits: &Limits,
        counters: &mut Counters,
    ) -> Step<H> {
        let (bytes, has_line) = match self.part.take().map(|part| *part) {
            None => {
                // First, because the letter sets no bound to a method.
                if !parser.plausible(&chunk[..chunk.len().min(METHOD_BYTES_MAX)]) {
                    return Step::Implausible(Vec::new());
                }
                if let Some((head, used)) = self.read_in_place(parser, chunk, limits) {
                    return Step::Head(head, used);
                }
                (Vec::new(), false)
            }
            Some(Part::Begun { bytes, has_line }) => {
                if bytes.len() < METHOD_BYTES_MAX && !start_is_plausible(parser, &bytes, chunk) {
                    return Step::Implausible(bytes);
                }
                (bytes, has_line)
            }
            Some(Part::Rest(rest)) => return self.read_rest(parser, rest, chunk),
        };
        self.gather(parser, bytes, has_line, chunk, limits, counters)
    }

    /// Reads a head that lies whole at the front of a chunk, by the letter.
    fn read_in_place<P: Parse<Head = H, Fields = F>>(
        &mut self,
        parser: &P,
        chunk: &[u8],
        limits: &Limits,
    ) -> Option<(H, usize)> {
        if let Some((fields, line, used)) = self.known.find(chunk)
            && used <= limits.head_bytes_max
            && let Some(line) = P::parse_line(line)
        {
            let meaning = fields.meaning.clone();
            let head = match P::needs_fields(&line) {
                true => {
                    let mut headers = SmallVec::new();
                    fields.headers(&mut headers);
                    parser.head(&line, meaning, &headers)
                }
                false => parser.head(&line, meaning, &[]),
            };
            self.known.hit();
            return Some((head, used));
        }
        let mut headers = [const { MaybeUninit::uninit() }; HEADERS_INLINE];
        let count = limits.headers_max.min(HEADERS_INLINE);
        let Ok(Status::Complete(parsed)) = P::parse(chunk, &mut headers[..count]) else {
            return None;
        };
        if parsed.used > limits.head_bytes_max {
            return None;
        }
        let Parsed { line, headers, used } = parsed;
        let (odd, fields) = (line_ends(&chunk[..used], headers), parser.fields(headers));
        if odd.is_empty() {
            self.known.note(&chunk[..used], headers, &fields);
        }
        let mut head = parser.head(&line, fields, headers);
        parser.framing(&mut head).odd |= odd;
        Some((head, used))
    }

    /// Adds to the gathered bytes and parses them when the head is whole.
    fn gather<P: Parse<Head = H, Fields = F>>(
        &mut self,
        parser: &P,
        mut bytes: Vec<u8>,
        mut has_line: bool,
        chunk: &[u8],
        limits: &Limits,
        counters: &mut Counters,
    ) -> Step<H> {
        let had = bytes.len();
        let room = limits.head_bytes_max.saturating_sub(had).min(chunk.len());
        bytes.extend_from_slice(&chunk[..room]);
        let end = if has_line { None } else { end_of_line(&bytes, had) };
        has_line |= end.is_some();
        // The line end before the last two bytes may be part of the head's end.
        let end = end
            .filter(|end| parser.is_whole(&bytes[..*end]))
            .or_else(|| end_of_head(&bytes, had.saturating_sub(2)));
        if let Some(end) = end {
            bytes.truncate(end);
            return Step::Head(parse_whole(parser, bytes, limits, counters), end - had);
        }
        if bytes.len() < limits.head_bytes_max {
            self.part = Some(Box::new(Part::Begun { bytes, has_line }));
            return Step::More;
        }
        counters.heads_too_large += 1;
        let lines = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let line = bytes.split_off(lines);
        let mut head = if bytes.is_empty() {
            parser.unreadable()
        } else {
            bytes.extend_from_slice(b"\r\n");
            parse_whole(parser, bytes, limits, counters)
        };
        parser.framing(&mut head).odd |= Anomalies::HEAD_TOO_LARGE;
        let line = line.into_iter().take(LINE_BYTES_MAX).collect();
        match self.read_rest(parser, Rest { head, line }, &chunk[room..]) {
            Step::Head(head, used) => Step::Head(head, room + used),
            other @ (Step::More | Step::Implausible(_)) => other,
        }
    }

    /// Behind the limit only framing fields and the end are looked for.
    fn read_rest<P: Parse<Head = H, Fields = F>>(
        &mut self,
        parser: &P,
        mut rest: Rest<H>,
        chunk: &[u8],
    ) -> Step<H> {
        let mut at = 0;
        while at < chunk.len() {
            let end = memchr(b'\n', &chunk[at..]).map(|end| at + end);
            let piece = &chunk[at..end.unwrap_or(chunk.len())];
            let room = LINE_BYTES_MAX.saturating_sub(rest.line.len()).min(piece.len());
            rest.line.extend_from_slice(&piece[..room]);
            let Some(end) = end else { break };
            at = end + 1;
            if matches!(&rest.line[..], b"" | b"\r") {
                return Step::Head(rest.head, at);
            }
            add_line(parser.framing(&mut rest.head), &rest.line);
            rest.line.clear();
        }
        self.part = Some(Box::new(Part::Rest(rest)));
        Step::More
    }
}

/// Whether a head may begin with these bytes, which are few, and those after them.
fn start_is_plausible<P: Parse>(parser: &P, bytes: &[u8], chunk: &[u8]) -> bool {
    let mut start = [0; METHOD_BYTES_MAX];
    let both = bytes.iter().chain(chunk);
    let count = start.iter_mut().zip(both).map(|(to, from)| *to = *from).count();
    parser.plausible(&start[..count])
}

/// Where the first line ends, if that is among the bytes from `had` on.
fn end_of_line(bytes: &[u8], had: usize) -> Option<usize> {
    Some(had + memchr(b'\n', &bytes[had..])? + 1)
}

/// Where the head ends: after the first empty line. Looks from `from` on.
fn end_of_head(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(end) = memchr(b'\n', bytes.get(at..)?) {
        at += end + 1;
        match bytes.get(at..)? {
            [b'\n', ..] => return Some(at + 1),
            [b'\r', b'\n', ..] => return Some(at + 2),
            _ => {}
        }
    }
    None
}

/// Parses a head that is whole, as well as it can be.
fn parse_whole<P: Parse>(
    parser: &P,
    mut bytes: Vec<u8>,
    limits: &Limits,
    counters: &mut Counters,
) -> P::Head {
    let lines = memchr::memchr_iter(b'\n', &bytes).count();
    let mut too_many = Anomalies::empty();
    // The first line and the empty one are no fields.
    if lines.saturating_sub(2) > limits.headers_max {
        too_many = Anomalies::TOO_MANY_HEADERS;
        counters.headers_too_many += 1;
    }
    if let Some(mut head) = parse_strict(parser, &bytes, lines) {
        parser.framing(&mut head).odd |= too_many;
        return head;
    }
    let folded = odd::unfold(&mut bytes);
    let split = odd::split(&bytes);
    let mut head = parser.parse_odd(&split).unwrap_or_else(|| {
        counters.heads_bad += 1;
        let mut head = parser.unreadable();
        let framing = parser.framing(&mut head);
        split.headers.iter().for_each(|header| framing.add(header.name.as_bytes(), header.value));
        head
    });
    parser.framing(&mut head).odd |= too_many | folded | split.odd;
    head
}

fn parse_strict<P: Parse>(parser: &P, bytes: &[u8], lines: usize) -> Option<P::Head> {
    let mut inline = [const { MaybeUninit::uninit() }; HEADERS_INLINE];
    let mut many;
    let headers: &mut [MaybeUninit<Header<'_>>] = if lines <= HEADERS_INLINE {
        &mut inline
    } else {
        many = vec![MaybeUninit::new(EMPTY_HEADER); lines];
        &mut many
    };
    match P::parse(bytes, headers) {
        Ok(Status::Complete(Parsed { line, headers, used })) => {
            let mut head = parser.head(&line, parser.fields(headers), headers);
            parser.framing(&mut head).odd |= line_ends(&bytes[..used], headers);
            Some(head)
        }
        Ok(Status::Partial) | Err(_) => None,
    }
}

/// Line ends of a head that is by the letter otherwise.
fn line_ends(head: &[u8], headers: &[Header<'_>]) -> Anomalies {
    let begin = head.as_ptr() as usize;
    let crlf_before = |header: &Header<'_>| {
        // Names lie within the head: before each the line before it ends.
        let at = (header.name.as_ptr() as usize).wrapping_sub(begin);
        head.get(at.wrapping_sub(2)..at) == Some(b"\r\n")
    };
    if head.ends_with(b"\r\n\r\n") && headers.iter().all(crlf_before) {
        Anomalies::empty()
    } else {
        Anomalies::BARE_LF
    }
}

/// A header line of a head that is not parsed: only its framing counts.
fn add_line(framing: &mut Framing, line: &[u8]) {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if let Some(colon) = memchr(b':', line) {
        framing.add(odd::trim(&line[..colon]), odd::trim(&line[colon + 1..]));
    }
}
