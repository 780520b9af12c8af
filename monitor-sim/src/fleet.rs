//! What moves everybody: volatile hours, listings, maintenance, new versions of client programs.
//!
//! - Volatility: an hourly AR(1) of the logarithm (0.9, stationary deviation 0.3: hourly volumes of large
//!   spot pairs vary by that much around their daily shape), and events, one in two days, that multiply
//!   the load by 1.5 to 6 and fade over 20 to 120 minutes.
//! - Maintenance: once a week, 10 to 30 minutes in which nearly everything fails.
//! - Listings: one in four days, a new symbol that many trade for the next hours.
//! - Programs: a new version each 5 to 20 days; users follow over days.

use crate::names::{PROGRAMS, SYMBOLS};
use crate::random::Random;
use crate::{DAY, HOUR, MINUTE, START};

/// How the fleet is, minute by minute; drawn ahead for the whole of the world.
pub(crate) struct Fleet {
    /// By hour.
    level: Vec<f64>,
    /// Start, length and height of volatile spells.
    events: Vec<(u64, u64, f64)>,
    maintenance: Vec<(u64, u64)>,
    /// Time and symbol.
    listings: Vec<(u64, u16)>,
    /// By program: when each version came out.
    versions: [Vec<u64>; PROGRAMS.len()],
}

impl Fleet {
    pub(crate) fn new(random: &mut Random, days: u32) -> Fleet {
        let end = START + u64::from(days) * DAY;
        let mut x = 0.0;
        let level = (0..=days * 24)
            .map(|_| {
                x = 0.9 * x + random.lognormal(1.0, 0.3 * (1.0f64 - 0.81).sqrt()).ln();
                x.exp()
            })
            .collect();
        let times = |random: &mut Random, mean_days: f64| {
            let mut all = Vec::new();
            let mut at = START as f64 + random.exponential(mean_days) * DAY as f64;
            while at < end as f64 {
                all.push(at as u64);
                at += random.exponential(mean_days) * DAY as f64;
            }
            all
        };
        let events = times(random, 2.0)
            .into_iter()
            .map(|at| (at, random.between(20.0, 120.0) as u64 * MINUTE, random.between(1.5, 6.0)))
            .collect();
        let maintenance = (0..u64::from(days).div_ceil(7))
            .map(|week| {
                let at = START
                    + (week * 7 + random.below(7)) * DAY
                    + random.between(0.0, 24.0) as u64 * HOUR;
                (at, at + random.between(10.0, 30.0) as u64 * MINUTE)
            })
            .collect();
        let listings = times(random, 4.0)
            .into_iter()
            .enumerate()
            .map(|(n, at)| (at, SYMBOLS + n as u16))
            .collect();
        let versions = std::array::from_fn(|_| {
            let mean = random.between(5.0, 20.0);
            times(random, mean)
        });
        Fleet { level, events, maintenance, listings, versions }
    }

    /// How many times its usual the load is.
    pub(crate) fn load(&self, now: u64) -> f64 {
        let hour = ((now - START) / HOUR) as usize;
        let level = self.level.get(hour).copied().unwrap_or(1.0);
        self.events.iter().filter(|(at, ..)| *at <= now).fold(
            level,
            |load, (at, length, height)| {
                let age = (now - at) as f64 / *length as f64;
                load * (1.0 + (height - 1.0) * (-2.0 * age).exp())
            },
        )
    }

    pub(crate) fn in_maintenance(&self, now: u64) -> bool {
        self.maintenance.iter().any(|(from, to)| (*from..*to).contains(&now))
    }

    /// The last symbol that was listed within twelve hours.
    pub(crate) fn fresh_listing(&self, now: u64) -> Option<u16> {
        let fresh = |(at, _): &&(u64, u16)| *at <= now && now < at + 12 * HOUR;
        self.listings.iter().rev().find(fresh).map(|(_, symbol)| *symbol)
    }

    /// The version in use by one who waits `lag_ns` with each.
    pub(crate) fn version(&self, program: u8, now: u64, lag_ns: u64) -> u16 {
        let out = self.versions[usize::from(program) % PROGRAMS.len()].iter();
        out.filter(|at| *at + lag_ns <= now).count() as u16
    }
}
