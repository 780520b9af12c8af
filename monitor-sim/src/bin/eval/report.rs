//! The figures in words and tables.

use std::collections::BTreeMap;
use std::fmt::Write;

use monitor_core::alert::Entity;
use monitor_sim::{Truth, World};

use crate::score::{Line, Raised, Score, Tally};

/// Markdown of one set of seeds.
pub(crate) fn table(name: &str, seeds: u64, keys: u32, test_days: u32, tally: &Tally) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "### {name} seeds\n");
    let _ = writeln!(
        text,
        "{seeds} worlds of {keys} keys, {test_days} days of test each; {:.2} million calls, {:.2} microseconds \
         of CPU a call, {} bytes a known key.\n",
        tally.calls as f64 / 1e6,
        tally.spent.as_secs_f64() * 1e6 / tally.calls.max(1) as f64,
        tally.state_bytes / tally.keys.max(1),
    );
    let _ = writeln!(
        text,
        "| | attacks | caught | public caught | median, p90 to alert | true, false alerts | precision | \
         false alarms a key-day (95 %) |\n|---|---|---|---|---|---|---|---|"
    );
    let mut names: Vec<&String> = tally.lines.keys().collect();
    names.sort_by_key(|name| (name.as_str() != "Keywatch", (*name).clone()));
    for name in names {
        let line = &tally.lines[name];
        let (low, high) = garwood(line.false_key_alerts);
        let days = tally.key_days.max(1.0);
        let _ = writeln!(
            text,
            "| {name} | {} | {} ({:.2}) | {} of {} ({:.2}) | {}, {} | {}, {} | {:.2} | {:.4} ({:.4} to {:.4}) |",
            line.attacks,
            line.caught,
            line.recall(),
            line.public_caught,
            line.public,
            line.public_recall(),
            span(line.quantile(0.5)),
            span(line.quantile(0.9)),
            line.true_alerts,
            line.false_alerts,
            line.precision(),
            f64::from(line.false_key_alerts) / days,
            low / days,
            high / days,
        );
    }
    if let Some(line) = tally.lines.get("Keywatch") {
        let _ = writeln!(text, "\n| attack | caught |\n|---|---|");
        for (kind, (attacks, caught)) in &line.by_kind {
            let public = if kind.is_public() { " (public)" } else { "" };
            let _ = writeln!(text, "| {}{public} | {caught} of {attacks} |", kind.as_str());
        }
    }
    let _ = writeln!(
        text,
        "\n| detector | attacks that it spoke of | in true alerts | in false alerts |\n|---|---|---|---|"
    );
    let mut detectors: Vec<_> = tally.detectors.iter().collect();
    detectors.sort_by_key(|(id, _)| id.trim_start_matches('D').parse::<u32>().unwrap_or(99));
    for (id, (attacks, right, wrong)) in detectors {
        let _ = writeln!(text, "| {id} | {attacks} | {right} | {wrong} |");
    }
    text
}

/// One line for the check of floors.
pub(crate) fn json(name: &str, tally: &Tally) -> String {
    let none = Line::default();
    let line = tally.lines.get("Keywatch").unwrap_or(&none);
    format!(
        "{{\"set\":\"{name}\",\"recall\":{:.4},\"public_recall\":{:.4},\"precision\":{:.4},\"false_alarms_a_key_day\":{:.5}}}",
        line.recall(),
        line.public_recall(),
        line.precision(),
        f64::from(line.false_key_alerts) / tally.key_days.max(1.0),
    )
}

/// Each miss and each false alarm.
pub(crate) fn explain(
    seed: u64,
    score: &Score,
    raised: &[Raised],
    truths: &[Truth],
    world: &World,
) {
    for (truth, caught) in truths.iter().zip(&score.caught) {
        match caught {
            Some(took) => eprintln!(
                "seed {seed}: caught {} in {}",
                truth.kind.as_str(),
                span(took.as_secs_f64())
            ),
            None => eprintln!(
                "seed {seed}: MISSED {} of strength {:.2}, {} keys, {} to {}",
                truth.kind.as_str(),
                truth.strength,
                truth.keys.len(),
                truth.spans.first().map_or_else(String::new, |span| span.start.to_string()),
                truth.spans.last().map_or_else(String::new, |span| span.end.to_string()),
            ),
        }
    }
    // What each day's alerts were spent on.
    let mut days: BTreeMap<u64, BTreeMap<&str, u32>> = BTreeMap::new();
    for (alert, about) in raised.iter().zip(&score.about) {
        let what = about.map_or("nothing", |at| truths[at].kind.as_str());
        *days.entry(alert.time.secs() / 86_400).or_default().entry(what).or_default() += 1;
    }
    for (day, spent) in days {
        eprintln!("seed {seed}: day {day}: {} alerts: {spent:?}", spent.values().sum::<u32>());
    }
    for (alert, about) in raised.iter().zip(&score.about) {
        if let Some(at) = about
            && alert.detectors.len() == 1
        {
            let (kind, detector) = (truths[*at].kind.as_str(), &alert.detectors[0].0);
            eprintln!("seed {seed}: {kind} was told by {detector} alone: {}", alert.text);
        }
        if about.is_none() {
            let role = world
                .roles()
                .find(|(id, _)| alert.entity == Entity::Key(*id))
                .map(|(_, role)| role);
            let detectors: Vec<&str> = alert.detectors.iter().map(|(id, _)| id.as_str()).collect();
            eprintln!("seed {seed}: FALSE {} {role:?} {detectors:?} {}", alert.time, alert.text);
        }
    }
}

impl Line {
    pub(crate) fn recall(&self) -> f64 {
        f64::from(self.caught) / f64::from(self.attacks.max(1))
    }

    pub(crate) fn public_recall(&self) -> f64 {
        f64::from(self.public_caught) / f64::from(self.public.max(1))
    }

    pub(crate) fn precision(&self) -> f64 {
        f64::from(self.true_alerts) / f64::from((self.true_alerts + self.false_alerts).max(1))
    }

    fn quantile(&self, q: f64) -> f64 {
        let mut sorted = self.seconds.clone();
        sorted.sort_by(f64::total_cmp);
        let at = (q * sorted.len() as f64) as usize;
        sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
    }
}

fn span(seconds: f64) -> String {
    match seconds {
        s if s.is_nan() => "-".into(),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.0} h", s / 3600.0),
    }
}

/// Exact 95 % interval of the mean of a Poisson count (Garwood, Biometrika 1936).
fn garwood(count: u32) -> (f64, f64) {
    let low =
        if count == 0 { 0.0 } else { root(|mean| 1.0 - at_most(count - 1, mean), 0.025, false) };
    (low, root(|mean| at_most(count, mean), 0.025, true))
}

/// P(X <= count) for a mean.
fn at_most(count: u32, mean: f64) -> f64 {
    let ln_term =
        |k: u32| f64::from(k) * mean.ln() - mean - (1..=k).map(|i| f64::from(i).ln()).sum::<f64>();
    if mean <= 0.0 {
        return 1.0;
    }
    (0..=count).map(|k| ln_term(k).exp()).sum()
}

/// Where a monotone function of the mean has this value, by halving.
fn root(f: impl Fn(f64) -> f64, value: f64, falls: bool) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    while (f(high) > value) == falls && high < 1e7 {
        high *= 2.0;
    }
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if (f(middle) > value) == falls { low = middle } else { high = middle }
    }
    (low + high) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_those_of_the_tables() {
        for (count, low, high) in [(0, 0.0, 3.689), (1, 0.0253, 5.572), (10, 4.795, 18.390)] {
            let (a, b) = garwood(count);
            assert!((a - low).abs() < 1e-3 && (b - high).abs() < 1e-3, "{count}: {a} {b}");
        }
    }
}
