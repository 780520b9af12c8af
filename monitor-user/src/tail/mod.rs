//! `keywatch tail`: alerts from Kafka or a file, for people.

mod alert;
pub mod args;
mod file;
mod kafka;

use std::collections::{HashSet, VecDeque};
use std::io::{IsTerminal, Write};
use std::ops::ControlFlow;

use anyhow::{Context, Result};
use monitor_core::alert::Severity;

use self::alert::Shown;
use self::args::{ColorChoice, TailArgs};
use crate::config::Config;
use crate::fault::{Misuse, tell};
use crate::shown::harmless;

/// Shows alerts until there are no more, or for ever.
pub(crate) fn tail(args: &TailArgs, config: &Config) -> Result<()> {
    let color = match args.color {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        // https://no-color.org
        ColorChoice::Auto => {
            std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
        }
    };
    let mut screen = Screen {
        args,
        color,
        out: std::io::stdout(),
        seen: HashSet::new(),
        order: VecDeque::new(),
        unreadable: 0,
    };
    match (&args.file, config.sinks.kafka.brokers.is_empty()) {
        (Some(path), _) => file::read(path, args.follow, &mut |line| screen.take(line))?,
        (None, false) => kafka::read(&config.sinks.kafka, args, &mut |line| screen.take(line))?,
        (None, true) => {
            return Err(Misuse(
                "nothing to read: name a file, or set brokers under [sinks.kafka] in the config"
                    .into(),
            )
            .into());
        }
    }
    if screen.unreadable > 0 {
        tell(&format!("{} records are no alerts in a form that is known", screen.unreadable));
    }
    Ok(())
}

/// Takes one record; breaks when nobody reads what is shown.
type Take<'a> = dyn FnMut(&[u8]) -> Result<ControlFlow<()>> + 'a;

/// Alerts that are remembered, to drop what was delivered twice: more than are on their way at once.
const SEEN_MAX: usize = 10_000;

struct Screen<'a, W> {
    args: &'a TailArgs,
    color: bool,
    out: W,
    seen: HashSet<String>,
    order: VecDeque<String>,
    unreadable: u64,
}

impl<W: Write> Screen<'_, W> {
    fn take(&mut self, record: &[u8]) -> Result<ControlFlow<()>> {
        let Some(shown) = Shown::read(record) else {
            self.unreadable += u64::from(!record.trim_ascii().is_empty());
            return Ok(ControlFlow::Continue(()));
        };
        if !self.wants(&shown) || !self.is_new(&shown) {
            return Ok(ControlFlow::Continue(()));
        }
        let text = self.text(&shown);
        match self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()) {
            Ok(()) => Ok(ControlFlow::Continue(())),
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                Ok(ControlFlow::Break(()))
            }
            Err(error) => Err(error).context("cannot write to stdout"),
        }
    }

    fn wants(&self, shown: &Shown) -> bool {
        let any = |wanted: &[String], fits: &dyn Fn(&String) -> bool| {
            wanted.is_empty() || wanted.iter().any(fits)
        };
        shown.severity >= self.args.severity.map_or(Severity::Low, Severity::from)
            && any(&self.args.keys, &|key| shown.entity.starts_with(key.as_str()))
            && any(&self.args.hosts, &|host| shown.host == *host)
            && any(&self.args.detectors, &|detector| {
                shown.detectors.iter().any(|known| known.eq_ignore_ascii_case(detector))
            })
    }

    fn is_new(&mut self, shown: &Shown) -> bool {
        if !self.seen.insert(shown.id.clone()) {
            return false;
        }
        self.order.push_back(shown.id.clone());
        if self.order.len() > SEEN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        true
    }

    fn text(&self, shown: &Shown) -> String {
        let (name, code) = match shown.severity {
            Severity::Low => ("LOW", "36"),
            Severity::Medium => ("MEDIUM", "33"),
            Severity::High => ("HIGH", "31"),
            Severity::Critical => ("CRITICAL", "1;37;41"),
        };
        let paint = |text: &str, code: &str| match self.color {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        };
        let changed = if shown.is_update { " (changed)" } else { "" };
        let detectors = shown.detectors.join(" ");
        let mut text = format!(
            "{} {} {}{changed}: {} [{}] {}\n",
            paint(&harmless(&shown.time), "2"),
            paint(name, code),
            paint(&harmless(&shown.title), "1"),
            paint(&harmless(&shown.entity), "35"),
            harmless(&detectors),
            paint(&format!("on {}", harmless(&shown.host)), "2"),
        );
        for line in [&shown.explanation, &shown.first_step] {
            if !line.is_empty() {
                text.push_str(&format!("    {}\n", harmless(line)));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::examples;

    fn screen(args: &TailArgs, color: bool) -> Screen<'_, Vec<u8>> {
        Screen {
            args,
            color,
            out: Vec::new(),
            seen: HashSet::new(),
            order: VecDeque::new(),
            unreadable: 0,
        }
    }

    fn shown(args: &TailArgs, records: &[Vec<u8>]) -> String {
        let mut screen = screen(args, false);
        for record in records {
            assert!(screen.take(record).unwrap().is_continue());
        }
        String::from_utf8(screen.out).unwrap()
    }

    #[test]
    fn every_form_reads_the_same_and_repeats_are_dropped() {
        let forms = examples::alert_in_every_form(7);
        let args = TailArgs::default();
        let first = shown(&args, &forms[..1]);
        assert_eq!(
            first,
            "2026-11-23T20:00:00.000000000Z HIGH Key used from a new network (changed): \
             k_00000000000000000000000000000007 [D5] on edge 1\n    This key did what it never \
             did.\n    Lock the key.\n"
        );
        for form in &forms {
            assert_eq!(shown(&args, std::slice::from_ref(form)), first);
        }
        assert_eq!(shown(&args, &forms), first);
    }

    #[test]
    fn what_does_not_fit_is_not_shown() {
        let alert = examples::alert_in_every_form(7);
        let count = |change: fn(&mut TailArgs)| {
            let mut args = TailArgs::default();
            change(&mut args);
            shown(&args, &alert).lines().count()
        };
        assert_eq!(count(|args| args.keys = vec!["k_0000".into()]), 3);
        assert_eq!(count(|args| args.keys = vec!["k_1".into()]), 0);
        assert_eq!(count(|args| args.detectors = vec!["d5".into()]), 3);
        assert_eq!(count(|args| args.detectors = vec!["D1".into()]), 0);
        assert_eq!(count(|args| args.hosts = vec!["edge".into()]), 0);
        assert_eq!(count(|args| args.severity = Some(args::Least::High)), 3);
        assert_eq!(count(|args| args.severity = Some(args::Least::Critical)), 0);
    }

    #[test]
    fn hostile_text_does_not_reach_the_terminal() {
        let record = br#"{"id":"a_0000000000000001","revision":0,"time":"2026-11-23T20:00:00Z",
            "severity":"low","confidence":0.5,"entity":{"kind":"host"},"title":"\u001b[2J",
            "explanation":"a\nb","first_step":"","findings":[],
            "first_seen":"2026-11-23T20:00:00Z","last_seen":"2026-11-23T20:00:00Z","flows":[],
            "calls":1,"complete":true,"host":"\u0007"}"#;
        let text = shown(&TailArgs::default(), &[record.to_vec()]);
        assert!(!text.contains('\x1b') && !text.contains('\x07'), "{text:?}");
        assert_eq!(text.lines().count(), 2);
    }

    #[test]
    fn what_is_no_alert_is_counted() {
        let args = TailArgs::default();
        let mut screen = screen(&args, true);
        for record in [&b"{}"[..], b"garbage", b"\xff\x00", b"\n", b"[1]"] {
            assert!(screen.take(record).unwrap().is_continue());
        }
        assert_eq!((screen.unreadable, screen.out.len()), (4, 0));
    }
}
