//! How long each endpoint takes to answer.

use std::hash::BuildHasher;

use foldhash::quality::FixedState;
use serde::{Deserialize, Serialize};

use super::Slots;
use super::names::{Named, hash, walk};
use super::seen::Seen;
use crate::call::Request;
use crate::engine::LatencySettings;

/// Different names in one place of a path before they vary: APIs have up to 150 side by side.
const NAMES_MAX: u16 = 256;
/// Latency is told apart to a quarter of an octave, from 1 µs to a minute.
const BUCKETS: usize = 4 * 26;

/// Endpoints that answered well.
pub(crate) struct Routes {
    known: Slots<u64, Endpoint>,
    /// How many names each place has: of what stands before.
    places: Slots<u64, u16>,
    /// Those names.
    names: Seen,
    names_max: usize,
}

/// Latency of one endpoint, 280 bytes.
#[derive(Default, Serialize, Deserialize)]
struct Endpoint {
    window: u64,
    /// Calls in the running window, by latency.
    counts: Vec<u16>,
    calls: u32,
    /// p99 over earlier windows, µs; and how many there were.
    usual_us: f32,
    windows: u32,
    told: bool,
}

/// An endpoint has become slow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Slow {
    /// 99 % of calls are answered within, milliseconds.
    pub(crate) p99_ms: f32,
    pub(crate) usual_ms: f32,
    pub(crate) calls: u32,
}

impl Routes {
    pub(crate) fn new(settings: &LatencySettings) -> Routes {
        Routes {
            known: Slots::new(settings.endpoints_max, |it| it.windows > 0 || it.calls >= 32),
            places: Slots::new(settings.endpoints_max, |names| *names > 8),
            names: Seen::default(),
            names_max: settings.endpoints_max.saturating_mul(4),
        }
    }

    /// Bytes held; walks over all endpoints.
    pub(crate) fn bytes(&self) -> usize {
        let held = self.known.values().map(|it| it.counts.capacity() * 2).sum::<usize>();
        self.known.bytes() + self.places.bytes() + self.names.bytes() + held
    }

    pub(crate) fn evicted(&self) -> u64 {
        self.known.evicted
    }

    /// An answer that went well; tells when a window of the endpoint is slow that just ended.
    pub(crate) fn note(
        &mut self,
        named: Named,
        request: &Request,
        latency_us: u64,
        time_s: u64,
        s: &LatencySettings,
    ) -> Option<Slow> {
        let endpoint = match self.known.place(&named.endpoint) {
            Some(place) => self.known.at(place),
            None => {
                let endpoint = self.learn(&request.path) ^ hash(request.method.as_bytes());
                self.known.find_or_insert(endpoint, Endpoint::default)
            }
        };
        let slow = endpoint.advance(time_s / s.window_s.max(1), s);
        endpoint.count(latency_us);
        slow
    }

    /// The route of a path that is not known yet: names beyond the most that a place has are one.
    fn learn(&mut self, path: &str) -> u64 {
        let Routes { places, names, names_max, .. } = self;
        walk(path, |before, name| {
            let count = places.find_or_insert(before, || 0);
            if *count <= NAMES_MAX {
                let hash = FixedState::with_seed(before).hash_one(name);
                *count += u16::from(names.insert(hash, *names_max));
            }
            *count > NAMES_MAX
        })
    }
}

impl Endpoint {
    fn count(&mut self, latency_us: u64) {
        if self.counts.is_empty() {
            self.counts = vec![0; BUCKETS];
        }
        let us = (latency_us.max(1)) as f32;
        let at = ((us.log2() * 4.0) as usize).min(BUCKETS - 1);
        self.counts[at] = self.counts[at].saturating_add(1);
        self.calls = self.calls.saturating_add(1);
    }

    fn advance(&mut self, window: u64, s: &LatencySettings) -> Option<Slow> {
        if window == self.window {
            return None;
        }
        let slow = if self.calls >= s.calls_min { self.judge(s) } else { None };
        self.window = window;
        self.counts.iter_mut().for_each(|count| *count = 0);
        self.calls = 0;
        slow
    }

    fn judge(&mut self, s: &LatencySettings) -> Option<Slow> {
        let p99 = self.p99_us();
        let usual = self.usual_us;
        let is_slow = self.windows >= s.windows_min
            && f64::from(p99) >= s.factor * f64::from(usual)
            && p99 - usual >= s.slower_ms as f32 * 1_000.0;
        let found = Slow { p99_ms: p99 / 1e3, usual_ms: usual / 1e3, calls: self.calls };
        // What is slow becomes usual by and by, and no faster.
        let merged = if is_slow { usual * 1.1 } else { p99 };
        self.windows = self.windows.saturating_add(1);
        let part = (1.0 / self.windows as f32).max(1.0 / 288.0);
        self.usual_us += (merged - usual) * part;
        let news = is_slow && !self.told;
        self.told = is_slow;
        news.then_some(found)
    }

    /// The upper end of the bucket in which the 99th of a hundred stands.
    fn p99_us(&self) -> f32 {
        let all: u32 = self.counts.iter().map(|count| u32::from(*count)).sum();
        let mut rest = all / 100;
        let slowest = self.counts.iter().rposition(|count| {
            let count = u32::from(*count);
            let here = count > rest;
            rest = rest.saturating_sub(count);
            here
        });
        ((slowest.unwrap_or(0) + 1) as f32 / 4.0).exp2()
    }
}

#[cfg(test)]
mod tests {
    use super::super::names::{Names, tests::request};
    use super::*;

    #[test]
    fn a_million_paths_are_few_endpoints() {
        let settings = LatencySettings::default();
        let mut routes = Routes::new(&settings);
        let mut names = Names::new();
        let mut note = |path: &str| {
            let request = request("h", "GET", path);
            let named = names.of(&request);
            routes.note(named, &request, 1_000, 60, &settings);
            named.endpoint
        };
        let mut kept = 0;
        for _ in 0..100 {
            kept = note("/api/v3/order");
        }
        for n in 0..1_000_000u64 {
            let name: String = format!("{n:07}").bytes().map(|it| char::from(it + 49)).collect();
            let path = match n % 3 {
                0 => format!("/x/{name}"),
                1 => format!("/{name}/{name}"),
                _ => format!("/y/{name}/z/{name}"),
            };
            note(&path);
        }
        assert!(routes.known.len() <= settings.endpoints_max);
        assert!(routes.bytes() < 4 << 20, "{}", routes.bytes());
        assert_eq!(routes.known.find(&kept).map(|it| it.calls), Some(100), "the one in use stays");
    }
}
