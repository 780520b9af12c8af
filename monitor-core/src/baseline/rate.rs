//! How fast a key usually calls: counts a minute per operation class, with an hour-of-day factor.

use serde::{Deserialize, Serialize};

use super::cold::Rates;
use super::math::{ln_tail_negative_binomial, quantile_negative_binomial};
use super::{OPS, saved};
use crate::engine::RateSettings;
use crate::time::EventTime;

/// Windows that the prior of a new key counts for: half an hour of its own calls outweighs it.
const PRIOR_WINDOWS: u32 = 30;
/// The same of long windows.
const PRIOR_LONG: u32 = PRIOR_WINDOWS / LONG_MINUTES;
/// Mean calls a minute of a class before anything is known of any key.
const PRIOR_MEAN: f32 = 5.0;
/// Dispersion over keys: their means spread like a gamma of shape 1/4, two orders of magnitude.
const PRIOR_DISPERSION: f32 = 4.0;
/// Least dispersion: even a clockwork client drifts by a fifth.
const DISPERSION_MIN: f64 = 0.05;
/// Least mean a minute: one call in an hour; below it nothing is told apart.
const MEAN_MIN: f64 = 0.02;
/// Memory of the means: three days, so that a new habit is learnt within a week.
const MEMORY_WINDOWS: u32 = 3 * 1440;
/// Memory of an hour's factor: that hour on 14 days.
const HOUR_MEMORY_WINDOWS: u16 = 14 * 60;
/// Windows of one hour that weigh as much as the assumption that all hours are alike.
const HOUR_PRIOR_WINDOWS: f64 = 240.0;
/// No hour is taken to be quieter or busier than the average by more.
const HOUR_FACTOR_MAX: f64 = 5.0;
/// The largest own surprise fades by half in a week.
const OWN_MAX_HALF_LIFE_WINDOWS: f32 = 7.0 * 1440.0;
/// Minutes of the long window, over all classes: what goes on so long is seen at a lower rate.
const LONG_MINUTES: u32 = 10;
/// Times the least of a minute that is the least of a long window: a tenth of what it may be.
const LONG_LEAST: u32 = 3;
/// A surprise beyond this (a probability of 1e-60) says nothing more.
const SURPRISE_MAX: f64 = 60.0;

/// One operation class. A surprise is -log10 of the tail probability.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default)]
struct Class {
    #[serde(rename = "m")]
    mean: f32,
    #[serde(rename = "s")]
    square: f32,
    #[serde(rename = "o")]
    own_max: f32,
    #[serde(rename = "c")]
    count: u32,
    /// Count at which to look closer; 0 before the first call of the window.
    #[serde(rename = "a")]
    check_at: u32,
    /// Least count that is too many; 0 while unknown.
    #[serde(rename = "t")]
    threshold: u32,
}

/// A class that is too fast.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spike {
    /// Calls in this window so far.
    pub(crate) count: u32,
    /// Most calls a minute that would pass.
    pub(crate) usual_max: u32,
    /// Surprise beyond the threshold, in powers of ten.
    pub(crate) excess: f64,
    /// When the window's first call came.
    pub(crate) since: EventTime,
}

/// Rates of one key, or of all keys together.
#[derive(Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Rate {
    minute: u32,
    windows: u32,
    opened: EventTime,
    #[serde(with = "saved::array")]
    classes: [Class; OPS],
    /// Of all classes, over the long window.
    #[serde(rename = "l")]
    long: Class,
    hour_means: [f32; 24],
    hour_windows: [u16; 24],
}

/// What happened to the running window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Advance {
    /// It runs on.
    Same,
    /// It was closed and merged; a new one is open.
    Closed,
    /// The clock went back: it was thrown away.
    Discarded,
}

impl Rate {
    /// With the means of other keys as a first guess.
    pub(crate) fn new(time: EventTime, guess: Option<&Cohort>) -> Rate {
        let class = |op: usize| {
            let mean = guess.and_then(|cohort| cohort.mean(op)).unwrap_or(PRIOR_MEAN);
            let square = mean + (1.0 + PRIOR_DISPERSION) * mean * mean;
            Class { mean, square, ..Class::default() }
        };
        let classes: [Class; OPS] = std::array::from_fn(class);
        Rate {
            minute: minute(time),
            windows: PRIOR_WINDOWS,
            opened: time,
            long: Class::long_of(&classes),
            classes,
            hour_means: [0.0; 24],
            hour_windows: [0; 24],
        }
    }

    /// Windows seen, empty ones too.
    pub(crate) fn windows_seen(&self) -> u32 {
        self.windows.saturating_sub(PRIOR_WINDOWS)
    }

    /// Calls of the class in the running window.
    pub(crate) fn count_of(&self, op: usize) -> u32 {
        self.classes[op].count
    }

    /// Mean calls of the class a minute, at all hours.
    pub(crate) fn mean_of(&self, op: usize) -> f32 {
        self.classes[op].mean
    }

    /// Expected calls of the class in the running window.
    pub(crate) fn expected_of(&self, op: usize) -> f64 {
        f64::from(self.classes[op].mean) * self.hour_factor()
    }

    /// True while the running window of the class is not known to be too fast.
    pub(crate) fn is_ordinary(&self, op: usize) -> bool {
        let class = &self.classes[op];
        class.threshold == 0 || class.count < class.threshold
    }

    /// Moves on to the window of `time`. A call up to `late_minutes` late counts in the running
    /// window; a later one means that the clock was set back, and nothing is judged by it.
    pub(crate) fn advance(
        &mut self,
        time: EventTime,
        late_minutes: u32,
        cohort: Option<&mut Cohort>,
    ) -> Advance {
        let now = minute(time);
        if now == self.minute {
            return Advance::Same;
        }
        if now < self.minute {
            if self.minute - now <= late_minutes {
                return Advance::Same;
            }
            self.open(time);
            self.long.clear();
            return Advance::Discarded;
        }
        let long = now / LONG_MINUTES - self.minute / LONG_MINUTES;
        if long > 0 {
            self.close_long(long);
        }
        self.close(cohort);
        self.pass_empty(now - self.minute - 1);
        self.open(time);
        Advance::Closed
    }

    /// Puts what was read back from a snapshot within its bounds, whatever wrote it.
    pub(crate) fn mend(&mut self) {
        for class in self.classes.iter_mut().chain([&mut self.long]) {
            for value in [&mut class.mean, &mut class.square] {
                saved::mend(value, 0.0..=1e12, PRIOR_MEAN);
            }
            saved::mend(&mut class.own_max, 0.0..=SURPRISE_MAX as f32, 0.0);
        }
        // One that was written before there was a long window.
        if self.long.square == 0.0 {
            self.long = Class::long_of(&self.classes);
        }
        for (mean, windows) in self.hour_means.iter_mut().zip(&mut self.hour_windows) {
            saved::mend(mean, 0.0..=1e12, 0.0);
            *windows = (*windows).min(HOUR_MEMORY_WINDOWS);
        }
        self.windows = self.windows.max(PRIOR_WINDOWS);
    }

    /// What is left of it in a summary.
    pub(crate) fn brief(&self) -> Rates {
        Rates {
            windows: self.windows,
            minute: self.minute,
            own_max: self.classes.iter().fold(0.0, |max, class| max.max(class.own_max)),
            means: self.classes.map(|class| class.mean),
            squares: self.classes.map(|class| class.square),
        }
    }

    /// Goes on from a summary: the largest surprise of any class counts for all.
    pub(crate) fn grow(&mut self, rates: &Rates) {
        (self.windows, self.minute) = (rates.windows, rates.minute);
        let known = rates.means.iter().zip(&rates.squares);
        for (class, (mean, square)) in self.classes.iter_mut().zip(known) {
            (class.mean, class.square, class.own_max) = (*mean, *square, rates.own_max);
        }
        self.long = Class { own_max: rates.own_max, ..Class::long_of(&self.classes) };
        self.mend();
    }

    /// Somebody who knows says that this many calls in a minute were in order.
    pub(crate) fn accept(&mut self, op: usize, count: u32) {
        let class = &mut self.classes[op];
        let mean = f64::from(class.mean).max(MEAN_MIN);
        let seen = surprise(count, mean, class.dispersion()).min(SURPRISE_MAX) as f32;
        class.own_max = class.own_max.max(seen);
        let mean = f64::from(self.long.mean).max(MEAN_MIN);
        let seen = surprise(count, mean, self.long.dispersion()).min(SURPRISE_MAX) as f32;
        self.long.own_max = self.long.own_max.max(seen);
    }

    /// Number of the running window: minutes since the epoch.
    pub(crate) fn minute(&self) -> u32 {
        self.minute
    }

    /// Counts one call; true when it is time to [`check`](Rate::check) or
    /// [`check_long`](Rate::check_long).
    pub(crate) fn count(&mut self, op: usize) -> bool {
        self.long.count = self.long.count.saturating_add(1);
        let is_long_due = self.long.count >= self.long.check_at;
        let class = &mut self.classes[op];
        class.count = class.count.saturating_add(1);
        class.count >= class.check_at || is_long_due
    }

    /// Whether the class is first seen to be busy in this window: twice its mean.
    pub(crate) fn begins_to_be_busy(&mut self, op: usize, settings: &RateSettings) -> bool {
        let busy = (2.0 * self.expected_of(op)).clamp(1.0, 1e9) as u32;
        let class = &mut self.classes[op];
        if class.check_at == 0 {
            class.check_at = busy.max(settings.calls_per_minute_min);
        }
        class.count >= class.check_at && class.threshold == 0
    }

    /// Judges a class whose count reached the point set for it. `fleet_factor`: how much busier
    /// than usual all other keys are.
    pub(crate) fn check(
        &mut self,
        op: usize,
        fleet_factor: f64,
        settings: &RateSettings,
    ) -> Option<Spike> {
        let mean = self.expected_of(op).max(MEAN_MIN) * fleet_factor;
        let least = settings.calls_per_minute_min;
        self.classes[op].check(mean, least, self.opened, settings)
    }

    /// Judges all classes together over the long window, when their count reached the point set for it.
    pub(crate) fn check_long(
        &mut self,
        fleet_factor: f64,
        settings: &RateSettings,
    ) -> Option<Spike> {
        if self.long.count < self.long.check_at {
            return None;
        }
        let mean = f64::from(self.long.mean).max(MEAN_MIN) * self.hour_factor();
        let least = settings.calls_per_minute_min.saturating_mul(LONG_LEAST);
        if self.long.check_at == 0 {
            self.long.check_at = (2.0 * mean).clamp(f64::from(least), 1e9) as u32;
            return None;
        }
        let opened = u64::from(self.minute / LONG_MINUTES * LONG_MINUTES) * 60_000_000_000;
        self.long.check(mean * fleet_factor, least, EventTime(opened), settings)
    }

    fn open(&mut self, time: EventTime) {
        self.minute = minute(time);
        self.opened = time;
        for class in &mut self.classes {
            class.clear();
        }
    }

    /// Merges the long window that ends, and those without any call after it: `passed` in all.
    fn close_long(&mut self, passed: u32) {
        let factor = self.hour_factor();
        let known = (self.windows / LONG_MINUTES).clamp(PRIOR_LONG, MEMORY_WINDOWS / LONG_MINUTES);
        self.long.merge(1.0 / (known as f32 + 1.0), factor, LONG_MINUTES);
        self.long.clear();
        let empty = (passed - 1) as f32;
        self.long.fade((-empty / known as f32).exp(), empty * LONG_MINUTES as f32);
    }

    /// Merges the window that ends. One that was too fast is merged only as far as its threshold,
    /// so that an attack does not become the custom.
    fn close(&mut self, cohort: Option<&mut Cohort>) {
        let factor = self.hour_factor();
        let step = 1.0 / (self.windows.min(MEMORY_WINDOWS) as f32 + 1.0);
        let mut total = 0.0;
        let mut merged = [0.0; OPS];
        for (class, merged) in self.classes.iter_mut().zip(&mut merged) {
            *merged = class.merge(step, factor, 1);
            total += *merged;
        }
        if let Some(cohort) = cohort {
            cohort.merge(&merged);
        }
        self.windows = self.windows.saturating_add(1);
        let hour = hour_of(self.minute);
        self.merge_hour(hour, 1);
        let weight = f32::from(self.hour_windows[hour]);
        self.hour_means[hour] += total / weight;
    }

    /// Merges windows without any call, in one step an hour at most.
    fn pass_empty(&mut self, windows: u32) {
        if windows == 0 {
            return;
        }
        let young = windows.min(MEMORY_WINDOWS.saturating_sub(self.windows));
        let known = self.windows as f32;
        let fade = known / (known + young as f32)
            * (-((windows - young) as f32) / MEMORY_WINDOWS as f32).exp();
        for class in &mut self.classes {
            class.fade(fade, windows as f32);
        }
        self.windows = self.windows.saturating_add(windows);
        if windows >= 1440 {
            let each = u16::try_from(windows / 24).unwrap_or(u16::MAX);
            (0..24).for_each(|hour| self.merge_hour(hour, each));
            return;
        }
        let (mut from, end) = (self.minute + 1, self.minute + 1 + windows);
        while from < end {
            let until = (from / 60 * 60 + 60).min(end);
            self.merge_hour(hour_of(from), (until - from) as u16);
            from = until;
        }
    }

    /// Makes room in an hour's mean for `windows` more, as yet empty.
    fn merge_hour(&mut self, hour: usize, windows: u16) {
        let known = self.hour_windows[hour];
        let grown = known.saturating_add(windows);
        let (known, more) = (f32::from(known), f32::from(windows));
        self.hour_means[hour] *= known / (known + more);
        self.hour_windows[hour] = grown.min(HOUR_MEMORY_WINDOWS);
    }

    /// How busy the running hour of the day is beside the average hour; 1 while little is known.
    fn hour_factor(&self) -> f64 {
        let hour = hour_of(self.minute);
        let known = f64::from(self.hour_windows[hour]);
        let (mut sum, mut weight) = (0.0, 0.0);
        for (mean, windows) in self.hour_means.iter().zip(&self.hour_windows) {
            sum += mean * f32::from(*windows);
            weight += f32::from(*windows);
        }
        let average = f64::from(sum / weight.max(1.0));
        if average <= 1e-6 {
            return 1.0;
        }
        let ratio = f64::from(self.hour_means[hour]) / average;
        let shrunk = (known * ratio + HOUR_PRIOR_WINDOWS) / (known + HOUR_PRIOR_WINDOWS);
        shrunk.clamp(1.0 / HOUR_FACTOR_MAX, HOUR_FACTOR_MAX)
    }
}

impl Default for Rate {
    fn default() -> Rate {
        Rate::new(EventTime(0), None)
    }
}

impl Class {
    /// What is expected of all classes together over a long window, from each over a minute.
    fn long_of(classes: &[Class; OPS]) -> Class {
        let mean = LONG_MINUTES as f32 * classes.iter().map(|class| class.mean).sum::<f32>();
        let square = mean + (1.0 + PRIOR_DISPERSION) * mean * mean;
        Class { mean, square, ..Class::default() }
    }

    fn clear(&mut self) {
        (self.count, self.check_at, self.threshold) = (0, 0, 0);
    }

    /// Judges the running window by a mean, whatever it is made of. Below `least` nothing is a spike.
    fn check(
        &mut self,
        mean: f64,
        least: u32,
        opened: EventTime,
        settings: &RateSettings,
    ) -> Option<Spike> {
        if self.count < self.check_at {
            return None;
        }
        let dispersion = self.dispersion();
        let bar = (-settings.tail_probability.log10())
            .max(settings.own_max_factor * f64::from(self.own_max))
            .clamp(1.0, SURPRISE_MAX);
        let ln_p = -bar * std::f64::consts::LN_10;
        let threshold = quantile_negative_binomial(u64::from(least), mean, dispersion, ln_p);
        self.threshold = u32::try_from(threshold).unwrap_or(u32::MAX);
        if self.count < self.threshold {
            self.check_at = self.threshold;
            return None;
        }
        self.check_at = self.count.saturating_add(self.count / 2).saturating_add(1);
        let surprise = surprise(self.count, mean, dispersion);
        Some(Spike {
            count: self.count,
            usual_max: self.threshold.saturating_sub(1),
            excess: (surprise - bar).max(0.0),
            since: opened,
        })
    }

    /// Merges the window of so many minutes that ends, as far as it was usual; gives that count.
    fn merge(&mut self, step: f32, factor: f64, minutes: u32) -> f32 {
        if self.threshold > 0 {
            self.remember_surprise(factor);
        }
        let most = if self.threshold > 0 { self.threshold } else { u32::MAX };
        let count = self.count.min(most) as f32;
        let level = count / factor as f32;
        self.mean += step * (level - self.mean);
        self.square += step * (level * level - self.square);
        self.own_max *= 1.0 - std::f32::consts::LN_2 * minutes as f32 / OWN_MAX_HALF_LIFE_WINDOWS;
        count
    }

    /// Merges minutes without calls; `kept` is the weight of what was before.
    fn fade(&mut self, kept: f32, minutes: f32) {
        self.mean *= kept;
        self.square *= kept;
        self.own_max *= (-minutes / OWN_MAX_HALF_LIFE_WINDOWS).exp2();
    }

    /// By moments: variance = mean + dispersion * mean².
    fn dispersion(&self) -> f64 {
        let (mean, square) = (f64::from(self.mean), f64::from(self.square));
        let dispersion = (square - mean * mean - mean) / (mean * mean);
        if dispersion.is_finite() {
            dispersion.max(DISPERSION_MIN)
        } else {
            f64::from(PRIOR_DISPERSION)
        }
    }

    /// Keeps the largest surprise. A window that was too fast raises it by a quarter at most.
    fn remember_surprise(&mut self, factor: f64) {
        let mean = (f64::from(self.mean) * factor).max(MEAN_MIN);
        let seen = surprise(self.count, mean, self.dispersion());
        let most = if self.count < self.threshold { seen } else { f64::from(self.own_max) * 1.25 };
        self.own_max = self.own_max.max(seen.min(most.max(6.0)) as f32);
    }
}

/// Mean rates over all keys: what is expected of a key that is not known yet.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Cohort {
    #[serde(with = "saved::array")]
    means: [f32; OPS],
    windows: u32,
}

impl Cohort {
    /// Windows of all keys that the mean remembers: a hundred keys for a hundred minutes.
    const MEMORY_WINDOWS: u32 = 10_000;

    fn merge(&mut self, counts: &[f32; OPS]) {
        self.windows = (self.windows + 1).min(Cohort::MEMORY_WINDOWS);
        for (mean, count) in self.means.iter_mut().zip(counts) {
            *mean += (count - *mean) / self.windows as f32;
        }
    }

    fn mean(&self, op: usize) -> Option<f32> {
        (self.windows >= 100).then_some(self.means[op].max(0.5))
    }
}

fn surprise(count: u32, mean: f64, dispersion: f64) -> f64 {
    -ln_tail_negative_binomial(u64::from(count), mean, dispersion) / std::f64::consts::LN_10
}

/// Minutes since the epoch; they fit until the year 10136.
pub(crate) fn minute(time: EventTime) -> u32 {
    u32::try_from(time.secs() / 60).unwrap_or(u32::MAX)
}

fn hour_of(minute: u32) -> usize {
    (minute / 60 % 24) as usize
}
