//! What a request names, as hashes: its host, its path with what varies left out, and both with the
//! method. Most calls go to a few endpoints, so these are kept and not worked out again.

use std::hash::BuildHasher;

use compact_str::CompactString;
use foldhash::quality::FixedState;
use smallvec::SmallVec;

use crate::call::Request;

/// Requests that are remembered; 96 KiB and long paths.
const SLOTS: usize = 1024;
/// Longer paths are no endpoint's and are not kept.
const PATH_BYTES_MAX: usize = 128;
/// Segments of a path that are told apart.
const SEGMENTS_MAX: usize = 12;

/// Hashes of what one request names; all 0 without a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Named {
    /// The host, in any case.
    pub(crate) host: u64,
    /// The path: numbers, ids, hashes and symbols in it are one.
    pub(crate) route: u64,
    /// The route, with the method.
    pub(crate) endpoint: u64,
}

impl Named {
    /// The endpoint, with its host.
    pub(crate) fn at_host(&self) -> u64 {
        self.endpoint.rotate_left(32) ^ self.host
    }
}

/// Hashes of requests seen lately, each in the one place that it may have.
pub(crate) struct Names {
    slots: Box<[Slot]>,
}

#[derive(Clone, Default)]
struct Slot {
    host: CompactString,
    method: CompactString,
    path: CompactString,
    named: Named,
}

impl Names {
    pub(crate) fn new() -> Names {
        Names { slots: vec![Slot::default(); SLOTS].into() }
    }

    /// Bytes held, longer paths aside.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.slots)
    }

    /// What a request names.
    pub(crate) fn of(&mut self, request: &Request) -> Named {
        let host = request.host.as_deref().unwrap_or_default();
        let Request { method, path, .. } = request;
        if path.len() > PATH_BYTES_MAX {
            return named(host, method, path);
        }
        let slot = &mut self.slots[hash(path.as_bytes()) as usize % SLOTS];
        if !(slot.path == *path && slot.method == *method && slot.host == host) {
            let named = named(host, method, path);
            *slot = Slot { host: host.into(), method: method.clone(), path: path.clone(), named };
        }
        slot.named
    }
}

fn named(host: &str, method: &str, path: &str) -> Named {
    let route = walk(path, |_, _| false);
    Named { host: host_hash(host), route, endpoint: route ^ hash(method.as_bytes()) }
}

/// A hash of a path's route. `is_crowded`, of what stands before a segment and the hash of its name,
/// says that it varies too.
pub(super) fn walk(path: &str, mut is_crowded: impl FnMut(u64, u64) -> bool) -> u64 {
    let mut route = 0_u64;
    for segment in path.split('/').filter(|it| !it.is_empty()).take(SEGMENTS_MAX) {
        let name = hash(segment.as_bytes());
        let name = if varies(segment) || is_crowded(route, name) { 1 } else { name };
        route = FixedState::with_seed(route).hash_one(name);
    }
    route
}

/// Digits, ids in hexadecimal, names in capitals, long names with digits.
fn varies(segment: &str) -> bool {
    let bytes = segment.as_bytes();
    let digits = bytes.iter().filter(|byte| byte.is_ascii_digit()).count();
    let lower = bytes.iter().any(u8::is_ascii_lowercase);
    let upper = bytes.iter().any(u8::is_ascii_uppercase);
    digits == bytes.len()
        || (upper && !lower)
        || (digits > 0 && bytes.len() >= 8)
        || (bytes.len() > 64)
}

pub(super) fn hash(bytes: &[u8]) -> u64 {
    FixedState::with_seed(3).hash_one(bytes)
}

fn host_hash(host: &str) -> u64 {
    let lower: SmallVec<[u8; 64]> = host.bytes().map(|byte| byte.to_ascii_lowercase()).collect();
    hash(&lower)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn request(host: &str, method: &str, path: &str) -> Request {
        Request {
            method: method.into(),
            host: Some(host.into()),
            target: path.into(),
            path: path.into(),
            user_agent: None,
            header_order: None,
            body_bytes: 0,
        }
    }

    #[test]
    fn what_varies_in_a_path_is_left_out() {
        let same = |one, two| assert_eq!(named("", "", one), named("", "", two), "{one} {two}");
        let other = |one, two| assert_ne!(named("", "", one), named("", "", two), "{one} {two}");
        same("/orders/123", "/orders/9");
        same("/products/BTC-USD/book", "/products/ETHUSDT/book");
        same("/a/0b0f8c9e-9f6a-4f0e-8f7c-6d3f1a2b3c4d", "/a/ffffffff-9f6a-4f0e-8f7c-6d3f1a2b3c4d");
        same("/o/0a1b2c3d4e5f", "/o/ffeeddccbb00");
        other("/orders/123", "/orders");
        other("/orders/123", "/accounts/123");
        other("/api/v3/order", "/api/v1/order");
        other("/0/private/AddOrder", "/0/private/Balance");
        same("", "/");
    }

    #[test]
    fn requests_are_told_apart_by_host_method_and_route() {
        let mut names = Names::new();
        let mut of = |host, method, path| names.of(&request(host, method, path));
        let first = of("api.example", "GET", "/a/1");
        assert_eq!(of("API.example", "GET", "/a/2"), first, "a host is one in any case");
        assert_eq!(of("api.example", "GET", "/a/1"), first);
        let post = of("api.example", "POST", "/a/1");
        assert_eq!((post.host, post.route), (first.host, first.route));
        assert_ne!(post.endpoint, first.endpoint);
        let other = of("www.example", "GET", "/a/1");
        assert_ne!(other.host, first.host);
        assert_eq!(other.endpoint, first.endpoint);
        assert_ne!(of("", "GETx", "/"), of("", "GET", "x/"));
    }

    #[test]
    fn a_full_table_forgets_and_never_mixes() {
        let mut names = Names::new();
        let name = |n: usize| {
            let letters = n.to_string().bytes().map(|it| char::from(it + 49)).collect::<String>();
            request("h", "GET", &format!("/{letters}"))
        };
        for n in (0..2 * SLOTS).chain(0..2 * SLOTS) {
            let request = name(n);
            assert_eq!(names.of(&request), named("h", "GET", &request.path));
        }
    }
}
