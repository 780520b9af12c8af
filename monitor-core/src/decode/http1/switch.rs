//! Upgrade and CONNECT (RFC 9110, 7.8 and 9.3.6): what a request offers, what a response agrees to.

use compact_str::CompactString;
use httparse::Header;

/// `Sec-WebSocket-Extensions` of a server names one or two; the longest in use are under 200 bytes.
const EXTENSIONS_BYTES_MAX: usize = 1024;

/// `HTTP2-Settings` holds six settings of six bytes, in base64; a frame of 16 KiB in the extreme.
const SETTINGS_BYTES_MAX: usize = 22 << 10;

/// Protocols that a request offers to change to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) protocols: Protocols,
    /// `HTTP2-Settings`.
    pub(super) settings: Option<Box<[u8]>>,
}

/// What a 101 response says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Agreement {
    /// `None` when it does not name any.
    pub(super) protocols: Option<Protocols>,
    /// `Sec-WebSocket-Extensions`.
    pub(super) extensions: Option<CompactString>,
}

/// Names in an `Upgrade` field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Protocols {
    pub(super) websocket: bool,
    pub(super) h2c: bool,
    /// RFC 2817.
    pub(super) tls: bool,
    pub(super) other: bool,
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Upgrade {
    WebSocket,
    Http2,
    Tls,
    Other,
}

impl Offer {
    /// Of a request that has an `Upgrade` field; `None` when its `Connection` field does not name it.
    pub(super) fn read(headers: &[Header<'_>]) -> Option<Box<Offer>> {
        let mut offer = Offer::default();
        let mut named = false;
        for header in headers {
            if header.name.eq_ignore_ascii_case("upgrade") {
                offer.protocols.add(header.value);
            } else if header.name.eq_ignore_ascii_case("connection") {
                named |= items(header.value).any(|item| item.eq_ignore_ascii_case(b"upgrade"));
            } else if header.name.eq_ignore_ascii_case("http2-settings") {
                let value = header.value.trim_ascii();
                if value.len() <= SETTINGS_BYTES_MAX {
                    offer.settings = Some(value.into());
                }
            }
        }
        named.then(|| Box::new(offer))
    }
}

impl Agreement {
    /// Of a 101 response.
    pub(super) fn read(headers: &[Header<'_>]) -> Box<Agreement> {
        let mut agreement = Agreement::default();
        for header in headers {
            if header.name.eq_ignore_ascii_case("upgrade") {
                agreement.protocols.get_or_insert_default().add(header.value);
            } else if header.name.eq_ignore_ascii_case("sec-websocket-extensions") {
                agreement.add_extensions(header.value);
            }
        }
        Box::new(agreement)
    }

    /// Several fields are one list (RFC 6455, 9.1).
    fn add_extensions(&mut self, value: &[u8]) {
        let value = CompactString::from_utf8_lossy(value.trim_ascii());
        let list = self.extensions.get_or_insert_default();
        if list.len() + value.len() + 2 <= EXTENSIONS_BYTES_MAX {
            if !list.is_empty() {
                list.push_str(", ");
            }
            list.push_str(&value);
        }
    }

    /// What the connection changes to, when the request had made this offer.
    pub(super) fn to(&self, offer: Option<&Offer>) -> Upgrade {
        let offered = offer.map(|offer| offer.protocols).unwrap_or_default();
        // A server that does not say means what was asked for, if that was one thing.
        let agreed = self.protocols.unwrap_or(offered);
        match (offered.both(agreed), agreed.count()) {
            (Protocols { websocket: true, .. }, 1) => Upgrade::WebSocket,
            (Protocols { h2c: true, .. }, 1) => Upgrade::Http2,
            // `TLS/1.0, HTTP/1.1` (RFC 2817, 3.3): the protocol below comes first.
            (Protocols { tls: true, websocket: false, h2c: false, .. }, _) => Upgrade::Tls,
            (Protocols { .. }, _) => Upgrade::Other,
        }
    }
}

impl Protocols {
    /// Names and versions, between commas (RFC 9110, 7.8).
    fn add(&mut self, value: &[u8]) {
        for item in items(value) {
            let name = item.split(|byte| *byte == b'/').next().unwrap_or_default();
            if item.eq_ignore_ascii_case(b"websocket") {
                self.websocket = true;
            } else if item.eq_ignore_ascii_case(b"h2c") {
                self.h2c = true;
            } else if name.eq_ignore_ascii_case(b"tls") {
                self.tls = true;
            } else {
                self.other = true;
            }
        }
    }

    fn both(self, other: Protocols) -> Protocols {
        Protocols {
            websocket: self.websocket && other.websocket,
            h2c: self.h2c && other.h2c,
            tls: self.tls && other.tls,
            other: self.other && other.other,
        }
    }

    fn count(self) -> usize {
        [self.websocket, self.h2c, self.tls, self.other].into_iter().filter(|one| *one).count()
    }
}

/// The members of a list (RFC 9110, 5.6.1).
fn items(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers<'a>(fields: &[(&'a str, &'a str)]) -> Vec<Header<'a>> {
        let header = |&(name, value): &(&'a str, &'a str)| Header { name, value: value.as_bytes() };
        fields.iter().map(header).collect()
    }

    fn check(asked: &[(&str, &str)], answered: &[(&str, &str)], expected: Upgrade) {
        let offer = Offer::read(&headers(asked));
        let agreement = Agreement::read(&headers(answered));
        assert_eq!(agreement.to(offer.as_deref()), expected, "{asked:?} {answered:?}");
    }

    #[test]
    fn only_what_was_offered_and_agreed_to_counts() {
        let offer = |value| [("connection", "keep-alive, Upgrade"), ("upgrade", value)];
        check(&offer("WebSocket"), &[("Upgrade", "websocket")], Upgrade::WebSocket);
        check(&offer("websocket"), &[], Upgrade::WebSocket);
        check(&offer("h2c, websocket"), &[("Upgrade", "h2c")], Upgrade::Http2);
        check(&offer("h2c, websocket"), &[], Upgrade::Other);
        check(&offer("h2c"), &[("Upgrade", "websocket")], Upgrade::Other);
        check(&offer("TLS/1.0"), &[("Upgrade", "TLS/1.0, HTTP/1.1")], Upgrade::Tls);
        check(&offer("mqtt"), &[("Upgrade", "mqtt")], Upgrade::Other);
        check(&[("upgrade", "websocket")], &[("Upgrade", "websocket")], Upgrade::Other);
        check(&[], &[("Upgrade", "websocket")], Upgrade::Other);
    }

    #[test]
    fn settings_and_extensions_are_kept() {
        let asked = [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c")];
        let mut asked = headers(&asked);
        asked.push(Header { name: "HTTP2-Settings", value: b"AAMAAABk" });
        let settings = Offer::read(&asked).and_then(|offer| offer.settings);
        assert_eq!(settings.as_deref(), Some(&b"AAMAAABk"[..]));
        let field = ("Sec-WebSocket-Extensions", "permessage-deflate");
        let answered = headers(&[field, ("sec-websocket-extensions", " x; y ")]);
        let extensions = Agreement::read(&answered).extensions;
        assert_eq!(extensions.as_deref(), Some("permessage-deflate, x; y"));
    }
}
