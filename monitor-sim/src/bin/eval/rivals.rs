//! What people use instead, in the same harness and under the same budget.

use std::collections::HashMap;
use std::net::IpAddr;

use monitor_core::alert::Entity;
use monitor_core::call::{ApiCall, KeyId};
use monitor_core::time::EventTime;

use crate::score::Raised;

/// Alerts a day, as the Engine's.
const BUDGET: u32 = 20;
/// One alert about one key or address in a quarter of an hour.
const QUIET_S: u64 = 900;
/// Minutes before a rate is taken to be known.
const KNOWN_MINUTES: u64 = 1440;

enum Rule {
    /// More calls a minute of a key than this.
    Fixed(u32),
    /// Calls a minute beside an exponentially weighted mean and variance.
    Ewma(f64),
    /// Tail of a Poisson law around that mean.
    Poisson(f64),
    /// A bucket an address: size and drops a second.
    Bucket(f64, f64),
}

#[derive(Default)]
struct Rate {
    minute: u64,
    minutes: u64,
    count: u32,
    mean: f64,
    variance: f64,
    told: bool,
}

pub(crate) struct Rival {
    pub(crate) name: &'static str,
    pub(crate) raised: Vec<Raised>,
    rule: Rule,
    keys: HashMap<KeyId, Rate>,
    buckets: HashMap<IpAddr, (f64, EventTime)>,
    quiet: HashMap<Entity, u64>,
    day: (u64, u32),
}

impl Rival {
    pub(crate) fn all() -> Vec<Rival> {
        [
            ("fixed threshold (300 a minute)", Rule::Fixed(300)),
            ("EWMA z-score > 4.75", Rule::Ewma(4.75)),
            ("Poisson tail < 1e-6", Rule::Poisson(1e-6)),
            ("leaky bucket per address", Rule::Bucket(300.0, 20.0)),
        ]
        .map(|(name, rule)| Rival {
            name,
            raised: Vec::new(),
            rule,
            keys: HashMap::new(),
            buckets: HashMap::new(),
            quiet: HashMap::new(),
            day: (0, 0),
        })
        .into()
    }

    pub(crate) fn handle_call(&mut self, call: &ApiCall, test: EventTime) {
        let entity = match (&self.rule, &call.key) {
            (Rule::Bucket(size, leak), _) => {
                let (level, last) = self.buckets.entry(call.client()).or_default();
                *level = (*level - call.time.since(*last).as_secs_f64() * leak).max(0.0) + 1.0;
                *last = call.time;
                (*level > *size).then(|| Entity::Client(call.client()))
            }
            (rule, Some(key)) => {
                let rate = self.keys.entry(key.id).or_default();
                rate.advance(call.time.secs() / 60);
                rate.count += 1;
                let odd = !rate.told && rate.is_odd(rule);
                rate.told |= odd;
                odd.then_some(Entity::Key(key.id))
            }
            (_, None) => None,
        };
        if let Some(entity) = entity
            && call.time >= test
        {
            self.raise(entity, call.time);
        }
    }

    fn raise(&mut self, entity: Entity, time: EventTime) {
        let until = self.quiet.entry(entity).or_default();
        let quiet = time.secs() < *until;
        *until = time.secs() + QUIET_S;
        let day = time.secs() / 86_400;
        if day != self.day.0 {
            self.day = (day, 0);
        }
        if quiet || self.day.1 >= BUDGET {
            return;
        }
        self.day.1 += 1;
        self.raised.push(Raised {
            id: None,
            time,
            entity,
            detectors: Vec::new(),
            text: String::new(),
            named: Vec::new(),
        });
    }
}

impl Rate {
    fn advance(&mut self, minute: u64) {
        if minute <= self.minute {
            return;
        }
        let passed = if self.minute == 0 { 1 } else { (minute - self.minute).min(10_000) };
        for n in 0..passed {
            let count = if n == 0 { f64::from(self.count) } else { 0.0 };
            self.minutes += 1;
            let step = 1.0 / (self.minutes.min(KNOWN_MINUTES) as f64);
            let apart = count - self.mean;
            self.mean += step * apart;
            self.variance = (1.0 - step) * (self.variance + step * apart * apart);
        }
        (self.minute, self.count, self.told) = (minute, 0, false);
    }

    fn is_odd(&self, rule: &Rule) -> bool {
        let count = f64::from(self.count);
        if self.minutes < KNOWN_MINUTES || self.count < 20 {
            return matches!(rule, Rule::Fixed(least) if self.count > *least);
        }
        match rule {
            Rule::Fixed(least) => self.count > *least,
            Rule::Ewma(z) => count - self.mean > z * self.variance.sqrt().max(0.5),
            // Chernoff's bound of the tail.
            Rule::Poisson(p) => {
                let mean = self.mean.max(0.02);
                count > mean && count - mean + count * (mean / count).ln() < p.ln()
            }
            Rule::Bucket(..) => false,
        }
    }
}
