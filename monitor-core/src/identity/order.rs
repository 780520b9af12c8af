//! The order in which a client writes its header fields: what its library does without being asked
//! (docs/decisions/0054).

use std::sync::LazyLock;

use httparse::Header;

use super::profile::Headers;
use crate::ascii::is_name;
use crate::call::HeaderOrder;

/// Fields that come and go with what is asked, with the state of the client, or with what passes the
/// request on: they say nothing of the program. In lower case.
const VARYING: [&str; 62] = [
    // Of one hop (RFC 9110, 7.6.1).
    "connection",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    // Of a body.
    "content-digest",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-length",
    "content-md5",
    "content-type",
    "digest",
    "idempotency-key",
    // Of a session, or of what was asked before.
    "authorization",
    "cache-control",
    "cookie",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-event-id",
    "origin",
    "pragma",
    "range",
    "referer",
    // Of a trace.
    "b3",
    "baggage",
    "correlation-id",
    "request-id",
    "sentry-trace",
    "traceparent",
    "tracestate",
    "uber-trace-id",
    "x-amzn-trace-id",
    "x-b3-flags",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-spanid",
    "x-b3-traceid",
    "x-cloud-trace-context",
    "x-correlation-id",
    "x-request-id",
    "x-request-start",
    // Of who passes it on.
    "cdn-loop",
    "cf-connecting-ip",
    "cf-ray",
    "forwarded",
    "true-client-ip",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-forwarded-server",
    "x-real-ip",
];

/// 64 bits of pi (Schneier, 1993): odd, and nothing up a sleeve.
const FACTOR: u64 = 0x243f_6a88_85a3_08d3;
/// Letters in small: what else a name may have (RFC 9110, 5.6.2) stays apart.
const SMALL: u64 = 0x2020_2020_2020_2020;

static VARYING_TABLE: LazyLock<Headers<()>> =
    LazyLock::new(|| Headers::new(VARYING.map(|name| (name.into(), ()))));

/// Names of fields so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Order(u64);

impl Order {
    /// That of a request's fields, behind its pseudo-fields if it has any; `None` when they say nothing.
    pub(crate) fn of(mut self, headers: &[Header<'_>]) -> Option<HeaderOrder> {
        // HTTP/2 has the host among the pseudo-fields.
        let has_host = self != Order::default();
        for header in headers {
            let name = header.name.as_bytes();
            let is_left_out = has_host && is_name(name, b"host");
            if !is_left_out && VARYING_TABLE.find(header.name).is_none() {
                self.add(name);
            }
        }
        (self != Order::default()).then_some(HeaderOrder((self.0 >> 32) as u32))
    }

    /// One more name, in any case.
    #[inline]
    pub(crate) fn add(&mut self, name: &[u8]) {
        let mut hash = self.0 ^ name.len() as u64;
        let (words, rest) = name.as_chunks::<8>();
        for word in words {
            hash = mix(hash ^ (u64::from_le_bytes(*word) | SMALL));
        }
        if let Some(last) = name.last_chunk::<8>() {
            if !rest.is_empty() {
                hash = mix(hash ^ (u64::from_le_bytes(*last) | SMALL));
            }
        } else if let (Some(first), Some(last)) = (name.first_chunk::<4>(), name.last_chunk::<4>())
        {
            let both = u64::from(u32::from_le_bytes(*first)) << 32;
            hash = mix(hash ^ (both | u64::from(u32::from_le_bytes(*last)) | SMALL));
        } else {
            let short = name.iter().fold(0, |short, byte| short << 8 | u64::from(*byte));
            hash = mix(hash ^ (short | SMALL));
        }
        self.0 = hash;
    }
}

/// Both halves of the product.
fn mix(number: u64) -> u64 {
    let product = u128::from(number) * u128::from(FACTOR);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[&str]) -> Option<HeaderOrder> {
        let mut order = Order::default();
        names.iter().for_each(|name| order.add(name.as_bytes()));
        order.of(&[])
    }

    #[test]
    fn order_and_names_count_and_case_does_not() {
        let usual = of(&["Host", "User-Agent", "Accept", "X-MBX-APIKEY"]);
        assert_eq!(usual, of(&["host", "user-agent", "ACCEPT", "x-mbx-apikey"]));
        for other in [
            &["User-Agent", "Host", "Accept", "X-MBX-APIKEY"][..],
            &["Host", "User-Agent", "Accept"],
            &["Host", "User-Agent", "Accept", "X-MBX-APIKEZ"],
            &["Host", "User-Agent", "Accepts", "X-MBX-APIKEY"],
            &["HostUser", "-Agent", "Accept", "X-MBX-APIKEY"],
        ] {
            assert_ne!(usual, of(other), "{other:?}");
        }
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn every_byte_of_a_name_counts() {
        let name = "sec-websocket-extensions-and-more-of-it";
        for len in 1..=name.len() {
            let whole = of(&[&name[..len]]);
            for at in 0..len {
                let mut other = name.as_bytes()[..len].to_vec();
                other[at] = b'~';
                assert_ne!(whole, of(&[str::from_utf8(&other).unwrap()]), "{len} {at}");
            }
        }
    }

    /// Those of decision 0054: records of other years are compared with those of today.
    #[test]
    fn the_definition_stays() {
        let shown = |names: &[&str]| of(names).map(|order| order.to_string());
        assert_eq!(shown(&["host"]).as_deref(), Some("o_1fd10af7"));
        assert_eq!(
            shown(&["host", "user-agent", "accept", "x-mbx-apikey"]).as_deref(),
            Some("o_5270f5c7")
        );
        assert_eq!(
            shown(&[":method", ":path", ":authority", ":scheme"]).as_deref(),
            Some("o_45d7186f")
        );
    }

    #[test]
    fn names_that_vary_are_in_small_letters_and_named_once() {
        for (at, name) in VARYING.iter().enumerate() {
            assert_eq!(*name, name.to_ascii_lowercase());
            assert!(!VARYING[..at].contains(name), "{name}");
        }
    }
}
