//! Header fields that come again: most clients, and many servers, send the same ones byte by byte in each
//! message of a connection. Parsed once, they are taken from there as long as they stay the same.

use httparse::Header;
use smallvec::SmallVec;
use zeroize::Zeroizing;

/// Longer ones are parsed each time: bytes, from the first field's name to the end of the head.
const BYTES_MAX: usize = 1024;

/// So many messages whose fields differ from those before, and for a while none are kept.
const MISSES_MAX: u8 = 4;

/// That while, in messages.
const PAUSE: u8 = 60;

/// The fields of the message before, if they are worth keeping, and what they come to.
pub(super) struct Known<F> {
    fields: Option<Box<Fields<F>>>,
    /// Messages in a row whose fields were others.
    misses: u8,
    /// Messages to let pass before any are kept.
    pause: u8,
    /// A message was read: who sends only one is not waited for.
    has_begun: bool,
}

/// Fields as they stood on the wire, where, and what they come to.
pub(super) struct Fields<F> {
    /// They hold credentials.
    text: Zeroizing<Box<str>>,
    spans: Box<[Span]>,
    pub(super) meaning: F,
}

/// A field's name and value, by where they begin and end in the text.
#[derive(Clone, Copy)]
struct Span {
    name: (u16, u16),
    value: (u16, u16),
}

impl<F> Default for Known<F> {
    fn default() -> Known<F> {
        Known { fields: None, misses: 0, pause: 0, has_begun: false }
    }
}

impl<F: Clone> Known<F> {
    /// The fields, where they are those that follow a first line at the front of `bytes`, that line, and how
    /// many bytes both have.
    pub(super) fn find<'b>(&self, bytes: &'b [u8]) -> Option<(&Fields<F>, &'b [u8], usize)> {
        let fields = self.fields.as_deref()?;
        let end = memchr::memchr(b'\n', bytes)?;
        let (line, rest) = bytes.split_at(end + 1);
        let text = fields.text.as_bytes();
        let is_same = line.ends_with(b"\r\n") && rest.starts_with(text);
        is_same.then_some((fields, line, line.len() + text.len()))
    }

    /// Notes that they were.
    pub(super) fn hit(&mut self) {
        self.misses = 0;
    }

    /// Takes the fields of a head that was parsed and has nothing odd, unless they have been others too
    /// often.
    pub(super) fn note(&mut self, head: &[u8], headers: &[Header<'_>], meaning: &F) {
        if !std::mem::replace(&mut self.has_begun, true) {
            return;
        }
        if self.pause > 0 {
            self.pause -= 1;
            return;
        }
        self.misses += 1;
        if self.misses > MISSES_MAX {
            (self.misses, self.pause, self.fields) = (0, PAUSE, None);
            return;
        }
        self.fields = Fields::new(head, headers, meaning).map(Box::new);
    }

    /// Memory held, bytes.
    pub(super) fn held_bytes(&self) -> usize {
        self.fields.as_ref().map_or(0, |fields| {
            size_of::<Fields<F>>() + fields.text.len() + size_of_val(&*fields.spans)
        })
    }
}

impl<F: Clone> Fields<F> {
    /// `None` when they are none, too many bytes, or no text.
    fn new(head: &[u8], headers: &[Header<'_>], meaning: &F) -> Option<Fields<F>> {
        let at = |part: &[u8]| (part.as_ptr() as usize).checked_sub(head.as_ptr() as usize);
        let begin = at(headers.first()?.name.as_bytes())?;
        let follows_line = memchr::memchr(b'\n', head)? + 1 == begin;
        let text = head.get(begin..).filter(|text| follows_line && text.len() <= BYTES_MAX)?;
        let text = str::from_utf8(text).ok()?;
        let span = |part: &[u8]| {
            // An empty value may be anywhere.
            let from = if part.is_empty() { 0 } else { at(part)?.checked_sub(begin)? };
            Some((u16::try_from(from).ok()?, u16::try_from(from + part.len()).ok()?))
        };
        let span = |header: &Header<'_>| {
            Some(Span { name: span(header.name.as_bytes())?, value: span(header.value)? })
        };
        let spans = headers.iter().map(span).collect::<Option<Box<[Span]>>>()?;
        Some(Fields { text: Zeroizing::new(text.into()), spans, meaning: meaning.clone() })
    }

    /// Adds the fields, parsed.
    pub(super) fn headers<'f>(&'f self, headers: &mut SmallVec<[Header<'f>; 16]>) {
        let range = |(from, to): (u16, u16)| usize::from(from)..usize::from(to);
        headers.extend(self.spans.iter().map(|span| Header {
            name: &self.text[range(span.name)],
            value: &self.text.as_bytes()[range(span.value)],
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nX-Empty:\r\nX-Key:  k e y \r\n\r\n";

    fn noted(heads: &[&[u8]]) -> Known<u8> {
        let mut known = Known::default();
        for head in heads {
            let mut headers = [httparse::EMPTY_HEADER; 8];
            let mut request = httparse::Request::new(&mut headers);
            assert!(request.parse(head).is_ok_and(|status| status.is_complete()));
            known.note(head, request.headers, &7);
        }
        known
    }

    #[test]
    fn fields_are_found_again_behind_another_first_line() {
        let known = noted(&[HEAD, HEAD]);
        let next = [b"POST /orders?id=1 HTTP/1.1\r\n", &HEAD[16..], b"body"].concat();
        let (fields, line, bytes) = known.find(&next).unwrap_or_else(|| panic!("not found"));
        assert_eq!((line, bytes), (&next[..28], next.len() - 4));
        let mut headers = [httparse::EMPTY_HEADER; 8];
        let mut request = httparse::Request::new(&mut headers);
        assert!(request.parse(&next).is_ok());
        let mut headers = SmallVec::new();
        fields.headers(&mut headers);
        assert_eq!((headers.as_slice(), fields.meaning), (&*request.headers, 7));
    }

    #[test]
    fn what_differs_in_a_byte_is_not_found() {
        let known = noted(&[HEAD, HEAD]);
        for at in 16..HEAD.len() {
            let mut other = HEAD.to_vec();
            other[at] ^= 1;
            assert!(known.find(&other).is_none(), "{at}");
        }
        for end in 0..HEAD.len() {
            assert!(known.find(&HEAD[..end]).is_none(), "{end}");
        }
        let twice = [&HEAD[..16], HEAD].concat();
        assert!(known.find(&twice).is_none());
        let bare = [b"GET / HTTP/1.1\n", &HEAD[16..]].concat();
        assert!(known.find(&bare).is_none());
    }

    #[test]
    fn fields_of_a_single_message_and_those_that_always_differ_are_not_kept() {
        assert_eq!(noted(&[HEAD]).held_bytes(), 0);
        let heads: Vec<Vec<u8>> = (0..=MISSES_MAX + 1)
            .map(|number| format!("GET / HTTP/1.1\r\nX-Time: {number}\r\n\r\n").into_bytes())
            .collect();
        let heads: Vec<&[u8]> = heads.iter().map(Vec::as_slice).collect();
        assert!(noted(&heads[..heads.len() - 1]).held_bytes() > 0);
        assert_eq!(noted(&heads).held_bytes(), 0);
        let mut known = noted(&heads);
        for _ in 0..PAUSE {
            known.note(HEAD, &[], &7);
        }
        assert_eq!(known.pause, 0);
        let long = format!("GET / HTTP/1.1\r\nX-Long: {}\r\n\r\n", "a".repeat(BYTES_MAX));
        assert_eq!(noted(&[long.as_bytes(), long.as_bytes()]).held_bytes(), 0);
    }
}
