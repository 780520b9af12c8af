//! From text to [`Config`], naming every fault with its line and its mend.

use std::fmt;
use std::ops::Range;
use std::path::Path;

use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue, Deserializer};

use super::Config;

/// Everything that is wrong with a config file, a line each.
#[derive(Debug, PartialEq, Eq)]
pub struct Faults(pub Vec<String>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

/// Reads and checks a config file.
pub fn load(path: &Path) -> Result<Config, Faults> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Faults(vec![format!("cannot read the config: {}: {error}", path.display())])
    })?;
    parse(&text, &path.display().to_string())
}

/// Checks a config; `name` is what faults call it.
pub fn parse(text: &str, name: &str) -> Result<Config, Faults> {
    let (config, lines) = typed::<Config>(text, name)?;
    let faults = config.faults();
    if faults.is_empty() {
        return Ok(config);
    }
    let line = |(key, reason): (&str, String)| wrong(key, name, lines.of(key), &reason);
    Err(Faults(faults.into_iter().map(line).collect()))
}

/// A fault of a value.
pub(crate) fn wrong(key: &str, name: &str, line: usize, reason: &str) -> String {
    format!("wrong value of {key}: {name}:{line}: {reason}")
}

/// Where keys stand in a file.
pub(crate) struct Lines<'a> {
    text: &'a str,
    places: toml::Spanned<DeTable<'a>>,
}

impl Lines<'_> {
    /// The line of a key such as `capture.ports`; 1 when it is not there.
    pub(crate) fn of(&self, key: &str) -> usize {
        find(self.places.get_ref(), key).map_or(1, |at| line_at(self.text, at))
    }
}

/// Reads TOML into a type; `name` is what faults call it.
pub(crate) fn typed<'a, T: DeserializeOwned>(
    text: &'a str,
    name: &str,
) -> Result<(T, Lines<'a>), Faults> {
    let (mut document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let lines = errors.iter().map(|error| {
            let line = error.span().map_or(1, |span| line_at(text, span.start));
            format!("not TOML: {name}:{line}: {}", error.message().replace('\n', ", "))
        });
        return Err(Faults(lines.take(FAULTS_MAX).collect()));
    }
    let places = document.clone();
    let mut faults = Vec::new();
    loop {
        let error = match T::deserialize(Deserializer::from(document.clone())) {
            Ok(read) if faults.is_empty() => return Ok((read, Lines { text, places })),
            Ok(_) => return Err(Faults(faults)),
            Err(error) => error,
        };
        // The first fault hides the others: take it out and read again.
        let taken = error.span().and_then(|span| take_out(document.get_mut(), &span));
        let line = error.span().map_or(1, |span| line_at(text, span.start));
        let key = taken.as_deref().unwrap_or_default();
        faults.push(describe(name, line, key, error.message()));
        if taken.is_none() || faults.len() == FAULTS_MAX {
            return Err(Faults(faults));
        }
    }
}

/// More would scroll the first ones away.
const FAULTS_MAX: usize = 20;

fn describe(name: &str, line: usize, key: &str, message: &str) -> String {
    if message.starts_with("unknown field") {
        let mut quoted = message.split('`').skip(1).step_by(2);
        let unknown = quoted.next().unwrap_or_default();
        let valid: Vec<&str> = quoted.collect();
        let mend = match nearest(unknown, &valid) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("the keys here are {}", valid.join(", ")),
        };
        return format!("unknown key {key}: {name}:{line}: {mend}");
    }
    wrong(key, name, line, &message.replace('\n', " "))
}

fn nearest<'a>(unknown: &str, valid: &[&'a str]) -> Option<&'a str> {
    let scored = valid.iter().map(|key| (strsim::jaro_winkler(unknown, key), *key));
    // 0.8 is where clap draws the line for its own suggestions, about one wrong letter in five.
    scored.filter(|(score, _)| *score > 0.8).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, key)| key)
}

/// Removes the entry that stands at `span` and returns its full key.
fn take_out(table: &mut DeTable<'_>, span: &Range<usize>) -> Option<String> {
    for (key, value) in table.iter_mut() {
        if let DeValue::Table(inner) = value.get_mut()
            && let Some(path) = take_out(inner, span)
        {
            return Some(format!("{}.{path}", key.get_ref()));
        }
    }
    let here = table.iter().find(|(key, value)| {
        key.span() == *span || value.span().contains(&span.start) || value.span() == *span
    });
    let name = here?.0.get_ref().to_string();
    table.remove(name.as_str());
    Some(name)
}

/// Where a key such as `capture.ports` stands.
fn find(table: &DeTable<'_>, key: &str) -> Option<usize> {
    let (first, rest) = key.split_once('.').map_or((key, None), |(a, b)| (a, Some(b)));
    let (name, value) = table.iter().find(|(name, _)| name.get_ref() == first)?;
    match (rest, value.get_ref().as_table()) {
        (Some(rest), Some(inner)) => find(inner, rest),
        (Some(_), None) | (None, _) => Some(name.span().start),
    }
}

fn line_at(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> String {
        parse(text, "k.toml").expect_err(text).to_string()
    }

    #[test]
    fn the_example_file_holds_the_defaults() {
        let example = include_str!("../../../config/keywatch.toml");
        assert_eq!(parse(example, "k.toml"), Ok(Config::default()), "as it is shipped");
        let mut keys = 0;
        let set: String = example
            .lines()
            .map(|line| match line.strip_prefix("#") {
                Some(setting) if !setting.starts_with(' ') && !setting.is_empty() => {
                    keys += usize::from(setting.contains('='));
                    format!("{setting}\n")
                }
                Some(_) => "\n".into(),
                None => format!("{line}\n"),
            })
            .collect();
        assert_eq!(parse(&set, "k.toml"), Ok(Config::default()), "with every key set");
        let all: toml::Table = toml::from_str(&Config::default().show()).unwrap();
        assert_eq!(keys, leaves(&all), "every key stands in the example");
    }

    fn leaves(table: &toml::Table) -> usize {
        let leaf = |value: &toml::Value| match value.as_table() {
            Some(inner) if !inner.is_empty() => leaves(inner),
            Some(_) | None => 1,
        };
        table.values().map(leaf).sum()
    }

    #[test]
    fn what_is_shown_reads_back() {
        let text = "capture.ports = [1, 65535]\nlimits.idle_max = \"90s\"\n\
                    sinks.kafka.options.\"linger.ms\" = 7";
        let config = parse(text, "k.toml").unwrap();
        assert_eq!(parse(&config.show(), "shown"), Ok(config));
    }

    #[test]
    fn passwords_are_not_shown() {
        let text = "[sinks.kafka.options]\n\"sasl.password\" = \"hunter2\"";
        assert!(!parse_unchecked(text).show().contains("hunter2"));
    }

    fn parse_unchecked(text: &str) -> Config {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn each_fault_is_one_line_with_its_mend() {
        for (text, line) in [
            (
                "[capture]\nprots = [80]",
                "unknown key capture.prots: k.toml:2: did you mean `ports`?",
            ),
            (
                "[sinks.kafka]\nbroker = []",
                "unknown key sinks.kafka.broker: k.toml:2: did you mean `brokers`?",
            ),
            ("[captrue]", "unknown key captrue: k.toml:1: did you mean `capture`?"),
            (
                "[log]\ncolour = true",
                "unknown key log.colour: k.toml:2: the keys here are level, format",
            ),
            (
                "[capture]\nports = [0]",
                "wrong value of capture.ports: k.toml:2: 0 is not a port; write 1 to 65535",
            ),
            (
                "[capture]\nports = [\n 80,\n 70000]",
                "wrong value of capture.ports: k.toml:2: 70000 is not a port; write 1 to 65535",
            ),
            (
                "capture.ports = \"80\"",
                "wrong value of capture.ports: k.toml:1: invalid type: string \"80\", expected a \
                 sequence",
            ),
            (
                "[capture]\nring_bytes = \"16MB\"",
                "wrong value of capture.ring_bytes: k.toml:2: `16MB` is not a size; write a whole \
                 number and B, KiB, MiB or GiB, such as \"16MiB\"",
            ),
            (
                "[capture]\n\nring_bytes = \"3MiB\"",
                "wrong value of capture.ring_bytes: k.toml:3: must be a power of two from 64KiB \
                 to 1GiB",
            ),
            (
                "[capture]\ntls_call_bytes_max = \"63KiB\"\n",
                "wrong value of capture.tls_call_bytes_max: k.toml:2: must be from 64KiB to 16MiB",
            ),
            (
                "[capture]\ntls_call_bytes_max = \"17MiB\"\n",
                "wrong value of capture.tls_call_bytes_max: k.toml:2: must be from 64KiB to 16MiB",
            ),
            (
                "[capture]\ntls = \"keylog\"\n",
                "wrong value of capture.tls_keylogs: k.toml:1: goes with `tls = \"keylog\"`, which \
                 needs files here",
            ),
            (
                "[capture]\ntls_keylogs = [\"/a\"]\n",
                "wrong value of capture.tls_keylogs: k.toml:2: goes with `tls = \"keylog\"`, which \
                 needs files here",
            ),
            (
                "[limits]\nidle_max = \"soon\"",
                "wrong value of limits.idle_max: k.toml:2: `soon` is not a duration; write a \
                 number and ms, s, m, h or d, such as \"15m\"",
            ),
            (
                "[limits]\nflows_max = 0",
                "wrong value of limits.flows_max: k.toml:2: must be more than 0",
            ),
            (
                "[log]\nlevel = \"loud\"",
                "wrong value of log.level: k.toml:2: unknown variant `loud`, expected one of \
                 `off`, `error`, `warn`, `info`, `debug`, `trace`",
            ),
            (
                "[sinks.kafka]\nbrokers = [\"kafka\"]",
                "wrong value of sinks.kafka.brokers: k.toml:2: must be a list of \"host:port\"",
            ),
            (
                "[sinks.kafka]\nalerts_topic = \"a b\"",
                "wrong value of sinks.kafka.alerts_topic: k.toml:2: must be 1 to 249 letters, \
                 digits, `.`, `_` or `-`",
            ),
            (
                "[sinks.kafka.options]\n\"linger.msec\" = 5",
                "wrong value of sinks.kafka.options: k.toml:1: librdkafka has no option \
                 `linger.msec`",
            ),
            (
                "[sinks.kafka]\noptions = { acks = 1 }",
                "wrong value of sinks.kafka.options: k.toml:2: `acks` cannot be changed: alerts \
                 would no longer be safe",
            ),
        ] {
            assert_eq!(fault(text), line, "{text}");
        }
    }

    #[test]
    fn what_is_not_toml_is_one_line() {
        let line = fault("[capture]\nports = [80\n");
        assert!(line.starts_with("not TOML: k.toml:2: "), "{line}");
        assert_eq!(line.lines().count(), 1);
    }

    #[test]
    fn all_faults_are_named_at_once() {
        let text = "[capture]\nprots = [80]\nports = [0]\n[limits]\nflows_max = \"many\"\n\
                    [log]\nlevel = \"info\"\n[nonsense]\nx = 1";
        let faults = parse(text, "k.toml").unwrap_err().0;
        let keys: Vec<_> = faults.iter().map(|fault| fault.split(':').next().unwrap()).collect();
        assert_eq!(faults.len(), 4, "{faults:?}");
        for key in ["capture.prots", "capture.ports", "limits.flows_max", "nonsense"] {
            assert!(keys.iter().any(|fault| fault.ends_with(key)), "{key} in {keys:?}");
        }
    }
}
