//! One pass over a request target: credentials out, instrument and object ids noted.
//!
//! The target is hostile. It is read one percent-decoding level deep, so that an encoded separator
//! or name hides nothing; `;`, `?` and `#` separate parameters like `&`; and once a secret's value
//! has begun, nothing is shown before the next plain `&`.

use compact_str::CompactString;

use super::credential::Keyring;
use super::profile::Parameter;
use super::{OBJECT_IDS_MAX, RequestHead, Style, TARGET_BYTES_MAX, body, percent};
use crate::ascii;
use crate::plain::{is_card, plain as shows};

const REDACTED: &str = "[redacted]";
const CUT: &str = "[cut]";

/// A symbol or object id that is longer is not one: the longest in use are UUIDs with a prefix.
const NAME_BYTES_MAX: usize = 64;

/// What a target said.
pub(super) struct Scanned<'t> {
    pub(super) target: CompactString,
    pub(super) path: CompactString,
    /// The path as it stood on the wire: to classify by, never to keep.
    pub(super) raw_path: &'t [u8],
    pub(super) symbol: Option<CompactString>,
    pub(super) object_ids: Vec<CompactString>,
    pub(super) account: Option<CompactString>,
    pub(super) amount: Option<CompactString>,
    /// Orders in a list.
    pub(super) parts: u32,
}

/// The pass itself.
pub(super) struct Scan<'t, 'k, 'h> {
    raw: &'t str,
    keyring: &'k mut Keyring<'h>,
    style: Style,
    out: CompactString,
    cut: bool,
    /// Raw bytes before this are in `out`, or left out of it.
    taken: usize,
    in_query: bool,
    /// Within the value of a secret.
    hidden: bool,
    segments: usize,
    symbol: Option<CompactString>,
    object_ids: Vec<CompactString>,
    account: Option<CompactString>,
    amount: Option<CompactString>,
    parts: u32,
}

/// What stands between two separators.
#[derive(Default)]
struct Token {
    start: usize,
    /// Where the name ends and the value begins.
    equals: Option<(usize, usize)>,
    encoded: bool,
    /// Where the first colon stands.
    colon: Option<usize>,
    /// Where the last `@` after a colon stands.
    userinfo_end: Option<usize>,
    brace: bool,
    capital_j: bool,
}

impl<'t, 'k, 'h> Scan<'t, 'k, 'h> {
    /// The first `known` bytes are a path that [`is_plain`].
    pub(super) fn run(
        head: &RequestHead<'t>,
        known: usize,
        keyring: &'k mut Keyring<'h>,
    ) -> Scanned<'t> {
        let mut scan = Scan {
            raw: head.target,
            style: keyring.style(),
            keyring,
            out: CompactString::with_capacity(room_for(head.target)),
            cut: false,
            taken: 0,
            in_query: false,
            hidden: false,
            segments: 0,
            symbol: None,
            object_ids: Vec::new(),
            account: None,
            amount: None,
            parts: 0,
        };
        let connect = head.method == "CONNECT";
        let raw_path_start = scan.take_authority(connect);
        // A target of another form has its path elsewhere.
        let known = if connect || raw_path_start > 0 { 0 } else { known };
        let path_start = scan.out.len();
        let (path_end, raw_path_end) = scan.take_rest(raw_path_start, known);
        let path = match scan.out.get(path_start..path_end) {
            _ if connect => "",
            None | Some("") => "/",
            Some(path) => path,
        };
        Scanned {
            path: path.into(),
            raw_path: &head.target.as_bytes()[raw_path_start..raw_path_end],
            target: scan.out,
            symbol: scan.symbol,
            object_ids: scan.object_ids,
            account: scan.account,
            amount: scan.amount,
            parts: scan.parts,
        }
    }

    /// The scheme and authority of an absolute target (RFC 9112, 3.2.2) without its user part;
    /// gives the place where the path begins.
    fn take_authority(&mut self, connect: bool) -> usize {
        if !connect && self.raw.starts_with('/') {
            return 0;
        }
        let before_query = self.raw.find(['?', '#']).unwrap_or(self.raw.len());
        let start = match self.raw[..before_query].find("://") {
            Some(colon) if !self.raw[..colon].contains('/') => colon + 3,
            Some(_) | None if connect => 0,
            Some(_) | None => return 0,
        };
        let rest = &self.raw[start..before_query];
        let mut end = start + rest.find('/').unwrap_or(rest.len());
        if let Some(at) = user_part_end(rest, end - start) {
            self.replace(start, start + at, REDACTED);
            end = end.max(start + at);
            end += self.raw[end..before_query].find('/').unwrap_or(before_query - end);
        }
        self.copy_until(end);
        end
    }

    /// Path, query and fragment; gives where the path ends in `out` and in the raw target.
    fn take_rest(&mut self, start: usize, known: usize) -> (usize, usize) {
        let raw = self.raw.as_bytes();
        let mut path_ends = None;
        let mut at = start;
        if known > 0 {
            self.copy_until(known);
            if known == raw.len() {
                return (self.out.len(), known);
            }
            // Before the query, or the fragment.
            path_ends = Some((self.out.len(), known));
            (self.in_query, at) = (true, known + 1);
        }
        let mut token = Token { start: at, ..Token::default() };
        while let Some(plain) = plain_bytes(&raw[at..]) {
            at += plain;
            let (byte, width) = percent::decode_at(raw, at);
            token.encoded |= width > 1;
            match byte {
                b'&' | b';' | b'?' | b'#' => self.end_token(&mut token, at, width),
                b'/' if !self.in_query => self.end_token(&mut token, at, width),
                b'=' if token.equals.is_none() => token.equals = Some((at, at + width)),
                b':' => token.colon = token.colon.or(Some(at)),
                b'@' if token.colon.is_some() => token.userinfo_end = Some(at),
                b'{' => token.brace = true,
                b'J' => token.capital_j = true,
                _ => {}
            }
            if matches!(byte, b'?' | b'#') {
                self.in_query = true;
                if width == 1 && path_ends.is_none() {
                    self.copy_until(at);
                    path_ends = Some((self.out.len(), at));
                }
            }
            at += width;
        }
        self.end_token(&mut token, raw.len(), 0);
        self.copy_until(raw.len());
        path_ends.unwrap_or((self.out.len(), raw.len()))
    }

    /// Deals with the token that ends at `end`, where a separator of `width` raw bytes stands.
    fn end_token(&mut self, token: &mut Token, end: usize, width: usize) {
        let ended = std::mem::replace(token, Token { start: end + width, ..Token::default() });
        let raw = self.raw.as_bytes();
        let named = ended.equals.map(|(name_end, value)| (&raw[ended.start..name_end], value));
        if self.hidden {
            // A key inside another secret's value still says who asks.
            if let Some((name, value)) = named
                && value < end
                && self.holds(name) == Parameter::Key
            {
                self.keyring.add_parameter(name, &raw[value..end]);
            }
        } else {
            match named {
                Some((name, value)) if value < end => self.end_parameter(&ended, name, value, end),
                Some((name, _)) => {
                    self.end_segment(&ended, end);
                    if matches!(self.holds(name), Parameter::Key | Parameter::Secret) {
                        // A secret that begins with a separator, which none should.
                        self.copy_until(end);
                        self.hidden = true;
                    }
                }
                None => self.end_segment(&ended, end),
            }
        }
        let separator = if width == 1 { raw[end] } else { 0 };
        let shows = match separator {
            b'&' => true,
            b'/' | b'?' => !self.in_query,
            _ => false,
        };
        if self.hidden {
            self.taken = end;
            self.hidden = !shows;
        }
        self.segments += 1;
    }

    fn end_parameter(&mut self, token: &Token, name: &[u8], value: usize, end: usize) {
        let raw = &self.raw.as_bytes()[value..end];
        let (parameter, stated) = self.keyring.look(name, self.style);
        if let Some(stated) = stated {
            self.keyring.note_signed(stated, raw);
        }
        let is_secret = matches!(parameter, Parameter::Key | Parameter::Secret);
        if token.brace && !is_secret {
            self.parts = self.parts.max(body::encoded_orders(raw));
        }
        let plain = self.end_plain(token, if is_secret { value } else { end });
        if plain && !is_secret && is_card(raw) {
            return self.replace(value, end, REDACTED);
        }
        match parameter {
            Parameter::Key => {
                let id = self.keyring.add_parameter(name, raw);
                let shown = id.map(|id| compact_str::format_compact!("[{id}]"));
                self.hide(value, end, shown.as_deref().unwrap_or(REDACTED));
            }
            Parameter::Secret => self.hide(value, end, REDACTED),
            Parameter::Symbol if plain && self.symbol.is_none() => self.symbol = name_text(raw),
            Parameter::Object if plain => {
                if let Some(id) = name_text(raw) {
                    self.add_object(id);
                }
            }
            Parameter::Account if plain && self.account.is_none() => {
                self.account = name_text(raw).filter(|it| shows(it.as_bytes()).is_some());
            }
            Parameter::Amount if plain && self.amount.is_none() => {
                self.amount = name_text(raw).filter(|it| is_amount(it));
            }
            Parameter::Symbol
            | Parameter::Object
            | Parameter::Account
            | Parameter::Amount
            | Parameter::Plain => {}
        }
    }

    fn holds(&self, name: &[u8]) -> Parameter {
        self.keyring.look(name, self.style).0
    }

    /// A path segment, or a parameter without a value.
    fn end_segment(&mut self, token: &Token, end: usize) {
        let plain = self.end_plain(token, end);
        let raw = &self.raw.as_bytes()[token.start..end];
        // The first segment of a path is a version or a mount point, whatever it looks like.
        if plain
            && !self.in_query
            && self.segments > 1
            && is_object_id(raw)
            && let Some(id) = name_text(raw)
        {
            self.add_object(id);
        }
    }

    /// Takes out what is a secret whatever its name, from the part of the token before `end`; true
    /// when there was nothing.
    fn end_plain(&mut self, token: &Token, end: usize) -> bool {
        if token.brace {
            // A JSON document may hold anything, and holds no separators that could be trusted.
            self.hide(token.start, end, REDACTED);
            return false;
        }
        let user_part = token.userinfo_end.filter(|at| *at < end).map(|at| {
            let value = token.equals.map_or(token.start, |(_, value)| value);
            let in_value = token.colon.is_some_and(|colon| colon >= value);
            (if in_value { value } else { token.start }, at)
        });
        let token_start = if token.capital_j || token.encoded {
            find_token(&self.raw.as_bytes()[token.start..end]).map(|at| token.start + at)
        } else {
            None
        };
        match (user_part, token_start) {
            (None, None) => return true,
            (Some((start, at)), None) => self.replace(start, at, REDACTED),
            (None, Some(start)) => self.replace(start, end, REDACTED),
            (Some((start, _)), Some(other)) => self.replace(start.min(other), end, REDACTED),
        }
        false
    }

    fn add_object(&mut self, id: CompactString) {
        if self.object_ids.len() < OBJECT_IDS_MAX && !self.object_ids.contains(&id) {
            self.object_ids.push(id);
        }
    }

    /// Shows `text` for a secret from `start` to `end`, and nothing of what may still belong to it.
    fn hide(&mut self, start: usize, end: usize, text: &str) {
        if self.taken < end {
            self.replace(start.max(self.taken), end, text);
        }
        self.hidden = true;
    }

    /// Shows `text` for the raw bytes from `start` to `end`.
    fn replace(&mut self, start: usize, end: usize, text: &str) {
        self.copy_until(start);
        self.emit(text);
        self.taken = end;
    }

    fn copy_until(&mut self, end: usize) {
        if self.hidden && end > self.taken {
            self.taken = end;
        }
        let raw = self.raw;
        if let Some(text) = raw.get(self.taken..end) {
            self.emit(text);
        }
        self.taken = self.taken.max(end);
    }

    fn emit(&mut self, text: &str) {
        if self.cut {
            return;
        }
        let room = TARGET_BYTES_MAX - self.out.len().min(TARGET_BYTES_MAX);
        if text.len() <= room {
            self.out.push_str(text);
            return;
        }
        self.out.push_str(&text[..text.floor_char_boundary(room)]);
        self.out.push_str(CUT);
        self.cut = true;
    }
}

/// The path of a target as it stands there, to tell the style by; empty where it is not plain.
pub(super) fn path_of(target: &str) -> &[u8] {
    let bytes = target.as_bytes();
    // Nearly all begin with their path, and none of those is looked through for a scheme.
    let absolute = if target.starts_with('/') { None } else { target.split_once("://") };
    let start = match absolute {
        Some((scheme, rest)) if !scheme.contains(['/', '?']) => {
            let authority = scheme.len() + 3;
            rest.find('/').map_or(bytes.len(), |slash| authority + slash)
        }
        Some(_) | None => 0,
    };
    let rest = &bytes[start..];
    &rest[..rest.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(rest.len())]
}

/// Whether a path is made of names alone, so that there is nothing in it to find: no id, no secret, no
/// parameter.
pub(super) fn is_plain(path: &[u8]) -> bool {
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-".contains(byte);
    path.first() == Some(&b'/')
        && path.iter().all(is_name)
        && !path.windows(3).any(|three| three == b"eyJ")
        && !path.split(|byte| *byte == b'/').skip(2).any(is_object_id)
}

/// What a target takes with its credentials replaced, most often; short ones need no allocation.
fn room_for(target: &str) -> usize {
    const KEY_BYTES: usize = "[k_00112233445566778899aabbccddeeff]".len();
    let more = if target.len() > size_of::<CompactString>() { KEY_BYTES } else { 0 };
    (target.len() + more).min(TARGET_BYTES_MAX)
}

/// How many plain bytes come before one that ends their run; `None` when nothing does.
fn plain_bytes(raw: &[u8]) -> Option<usize> {
    // Most runs are values of many bytes: one branch for eight of them.
    let (eights, _) = raw.as_chunks::<8>();
    let plain = eights.iter().take_while(|eight| !eight.iter().fold(false, marked)).count() * 8;
    let rest = raw[plain..].iter().position(|byte| MARKED[usize::from(*byte)])?;
    Some(plain + rest)
}

fn marked(any: bool, byte: &u8) -> bool {
    any | MARKED[usize::from(*byte)]
}

/// Bytes that end a run of plain ones.
const MARKED: [bool; 256] = ascii::marked(b"/?&;#=%J@:{");

/// Where the user part ends: at the last `@` of the authority, or beyond it when what stands there
/// is no host and port (a password may hold a slash that should have been encoded).
fn user_part_end(rest: &str, authority_len: usize) -> Option<usize> {
    let authority = &rest[..authority_len];
    if let Some(at) = authority.rfind('@') {
        return Some(at);
    }
    // Space at its end is the fault of another (RFC 9112, 3.2), not part of a password.
    let port = authority.rsplit_once(':')?.1.trim_ascii_end();
    let is_port = authority.starts_with('[') || port.bytes().all(|byte| byte.is_ascii_digit());
    if is_port { None } else { Some(rest.rfind('@').unwrap_or(authority_len)) }
}

/// Where something that looks like a JSON web token begins: `eyJ`, then two dots.
fn find_token(raw: &[u8]) -> Option<usize> {
    let mut window = [(0, 0); 3];
    let mut found = None;
    let mut dots = 0;
    for (at, byte) in percent::decoded(raw) {
        window = [window[1], window[2], (at, byte)];
        match found {
            None if window.map(|(_, byte)| byte) == *b"eyJ" => found = Some(window[0].0),
            Some(_) if byte == b'.' => dots += 1,
            None | Some(_) => {}
        }
    }
    found.filter(|_| dots >= 2)
}

/// A short plain name, decoded; anything else is no name.
pub(super) fn name_text(raw: &[u8]) -> Option<CompactString> {
    if raw.len() > NAME_BYTES_MAX {
        return None;
    }
    let mut text = CompactString::default();
    for (_, byte) in percent::decoded(raw) {
        match byte {
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'_' | b'/' | b':' | b'.' => {
                text.push(char::from(byte));
            }
            _ => return None,
        }
    }
    (!text.is_empty()).then_some(text)
}

/// A number as people and programs write it.
pub(super) fn is_amount(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || b".-+eE".contains(&byte))
}

/// Digits, or a UUID (RFC 9562, 4).
fn is_object_id(raw: &[u8]) -> bool {
    let digits = (1..=32).contains(&raw.len()) && raw.iter().all(u8::is_ascii_digit);
    digits
        || raw.len() == 36
            && raw.iter().enumerate().all(|(at, byte)| match at {
                8 | 13 | 18 | 23 => *byte == b'-',
                _ => byte.is_ascii_hexdigit(),
            })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Secret;
    use super::super::credential::Hasher;
    use super::super::profile::Profiles;
    use super::super::spellings::Spellings;
    use super::*;

    fn scan(method: &str, target: &str, known: usize) -> String {
        let (hasher, profiles) = (Hasher::new(&Secret::new([7; 32])), Profiles::builtin());
        let spellings = Spellings::new();
        let mut keyring = Keyring::new(&hasher, &spellings, &profiles, Style::GENERIC);
        let scanned = Scan::run(&RequestHead { method, target, headers: &[] }, known, &mut keyring);
        let signed = keyring.signed;
        let Scanned { target, path, raw_path, symbol, object_ids, account, amount, parts } =
            scanned;
        format!(
            "{target} {path} {raw_path:?} {symbol:?} {object_ids:?} {account:?} {amount:?} {parts} {signed:?}"
        )
    }

    proptest! {
        #[test]
        fn a_known_path_changes_nothing(
            target in r"/?([a-z]{0,3}[/?&;#=%:@.{]|eyJ|v1/|17|[0-9a-f]{8}-|api_key=|symbol=B|http://){0,9}",
            method in "GET|CONNECT",
        ) {
            let path = path_of(&target);
            if is_plain(path) {
                let seen = scan(&method, &target, path.len());
                prop_assert_eq!(seen, scan(&method, &target, 0));
            }
        }
    }

    #[test]
    fn only_names_are_plain() {
        for path in ["/", "/api/v3/order", "/0/private/AddOrder", "/a.b/c_d-e//"] {
            assert!(is_plain(path.as_bytes()), "{path}");
        }
        for path in ["", "a", "/orders/17", "/a=b", "/a%41", "/a:b@c", "/eyJa.b.c", "/{", "/a;b"] {
            assert!(!is_plain(path.as_bytes()), "{path}");
        }
    }
}
