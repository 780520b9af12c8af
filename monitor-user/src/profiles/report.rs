//! What a profile makes of captured traffic, as a text for whoever writes it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use compact_str::CompactString;
use monitor_core::call::{ApiCall, Operation, Outcome};
use monitor_core::identity::Survey;

/// Lines of a list that are shown, most frequent first.
const LINES_MAX: usize = 20;

/// Counts of the calls that are of the profile.
pub(super) struct Report {
    profile: String,
    /// Where it says that keys are, and none was seen.
    places: Vec<CompactString>,
    calls: u64,
    ops: BTreeMap<Operation, u64>,
    outcomes: BTreeMap<Outcome, u64>,
}

impl Report {
    pub(super) fn new(profile: &str, places: Vec<CompactString>) -> Report {
        let (ops, outcomes) = (BTreeMap::new(), BTreeMap::new());
        Report { profile: profile.to_owned(), places, calls: 0, ops, outcomes }
    }

    pub(super) fn call(&mut self, call: &ApiCall) {
        let Some(key) = call.key.as_ref().filter(|key| key.profile == self.profile) else { return };
        self.places.retain(|place| *place != key.source);
        self.calls += 1;
        *self.ops.entry(call.op).or_default() += 1;
        if let Some(outcome) = call.outcome {
            *self.outcomes.entry(outcome).or_default() += 1;
        }
    }

    /// All of it.
    pub(super) fn text(&self, survey: &Survey) -> String {
        let own = |(name, _): &&(_, _)| *name == *self.profile;
        let known: u64 =
            survey.known.iter().filter(|(line, _)| own(line)).map(|(_, count)| count).sum();
        let mut text = format!(
            "{}: {known} of {} requests are of this profile\n",
            self.profile, survey.requests
        );
        list(
            &mut text,
            "keys found",
            survey.known.iter().map(|((name, source), count)| {
                let source = if source.is_empty() { "no key" } else { source };
                (format!("{name}  {source}"), *count)
            }),
        );
        let unseen = self.places.iter().map(|place| (place.to_string(), 0));
        list(&mut text, "places without a key in any call", unseen);
        let calls = self.calls;
        list(
            &mut text,
            &format!("operations of its {calls} calls with a key"),
            self.ops.iter().map(|(op, count)| (op.to_string(), *count)),
        );
        list(
            &mut text,
            "outcomes of these",
            self.outcomes.iter().map(|(outcome, count)| (outcome.to_string(), *count)),
        );
        let path = |((method, path), count): (&(_, _), &u64)| (format!("{method} {path}"), *count);
        list(&mut text, "no rule says what these do", survey.unruled.iter().map(path));
        list(&mut text, "of no profile of an exchange", survey.unknown.iter().map(path));
        list(
            &mut text,
            "look like secrets and are not declared",
            survey
                .suspects
                .iter()
                .map(|((place, name), count)| (format!("{place} {name}"), *count)),
        );
        if survey.beyond > 0 {
            // Writing to a string does not fail.
            let _ = writeln!(text, "and {} more for which there was no room", survey.beyond);
        }
        text
    }
}

fn list(text: &mut String, title: &str, lines: impl Iterator<Item = (String, u64)>) {
    let mut lines: Vec<(String, u64)> = lines.collect();
    lines.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(text, "{title}:");
    for (line, count) in lines.iter().take(LINES_MAX) {
        // What came from the wire may hold anything.
        let line: String = line.chars().map(|it| if it.is_control() { ' ' } else { it }).collect();
        let _ = writeln!(text, "  {count:>9}  {line}");
    }
    if lines.len() > LINES_MAX {
        let _ = writeln!(text, "             and {} more", lines.len() - LINES_MAX);
    }
}
