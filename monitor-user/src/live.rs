//! The live loop: capture in, whoever listens, and how it ends.

use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::{Context, Result};
use monitor_core::engine::Impairment;
use monitor_core::input::Input;
use monitor_core::time::EventTime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::capture::{Capture, Health, Options};
use crate::clock::now;
use crate::fault::tell;
use crate::notify::notify;

/// Takes what is captured.
pub(crate) trait Listener {
    /// Takes one input. Breaks when there is no use in going on.
    fn handle(&mut self, input: Input<'_>) -> ControlFlow<()>;

    /// The wall clock says `now`, a few times a second.
    fn tick(&mut self, now: EventTime) -> ControlFlow<()>;

    /// Capture is impaired.
    fn impairment(&mut self, now: EventTime, what: &Impairment);

    /// Files are to be read again (SIGHUP).
    fn reload(&mut self) {}

    /// What the kernel side has counted so far.
    fn health(&mut self, health: Health);
}

/// Inputs between two looks at signals and timers: a few milliseconds of work.
const BATCH_MAX: usize = 1024;
/// Buffers are flushed and loss is looked for this often; a fifth of the second in which an alert
/// is to arrive.
const TICK: Duration = Duration::from_millis(200);
/// When nothing was captured for so long, time itself is an input: a fifth of the shortest wait of
/// the Decoder. Under load the packets tell the time.
const SILENCE: Duration = Duration::from_secs(1);

/// Whether time itself is an input now, `last` being that of the last one. A clock that was set back
/// is followed too.
pub(crate) fn is_silent(last: EventTime, now: EventTime) -> bool {
    u128::from(now.0.abs_diff(last.0)) >= SILENCE.as_nanos()
}

/// Runs until a signal, the end of the time, or a failure; then takes what the rings still hold.
pub(crate) async fn watch(
    mut capture: Capture,
    mut stop: Stop,
    listener: &mut dyn Listener,
) -> Result<()> {
    let mut seen = Health::default();
    let mut hangup = signal(SignalKind::hangup()).context("cannot listen for signals")?;
    let mut timer = interval(TICK);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let result = loop {
        tokio::select! {
            // In this order: a full ring must not keep signals waiting.
            biased;
            () = stop.asked() => break Ok(()),
            _ = hangup.recv() => listener.reload(),
            _ = timer.tick() => {
                look_after(&mut capture, &mut seen, listener);
                if listener.tick(now()).is_break() {
                    break Ok(());
                }
            }
            ready = capture.ready() => {
                if let Err(error) = ready {
                    break Err(error);
                }
                let mut flow = ControlFlow::Continue(());
                capture.drain(BATCH_MAX, &mut |input| flow = listener.handle(input));
                if flow.is_break() {
                    break Ok(());
                }
                // Even when the ring never runs empty, others get their turn.
                tokio::task::yield_now().await;
            }
        }
    };
    end_at_second_signal();
    capture.detach();
    drain_rest(&mut capture, listener);
    look_after(&mut capture, &mut seen, listener);
    result
}

/// The line that scripts wait for.
pub(crate) fn announce(options: &Options, capture: &Capture) {
    let named = |ports: &[u16]| {
        let plural = if ports.len() == 1 { "port" } else { "ports" };
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        (!ports.is_empty()).then(|| format!("{plural} {}", ports.join(", ")))
    };
    let called = named(&options.ports.called).map(|ports| format!("{ports} of servers elsewhere"));
    let ports: Vec<_> = [named(&options.ports.own), called].into_iter().flatten().collect();
    let cgroup = capture.cgroup();
    tell(&format!("watching {} (cgroup {})", ports.join(" and "), cgroup.display()));
    notify("READY=1");
}

/// From here on a signal ends the program whatever it is doing. The spool is safe at any time.
fn end_at_second_signal() {
    let wait = || -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            Stop::new(None)?.asked().await;
            Ok(())
        })
    };
    std::thread::spawn(move || match wait() {
        Ok(()) => {
            tell("stopped at once: what was not written yet is lost");
            std::process::exit(1);
        }
        Err(error) => tracing::warn!("a second signal is not listened for: {error:#}"),
    });
}

/// What the rings still hold: no more than their size.
fn drain_rest(capture: &mut Capture, listener: &mut dyn Listener) {
    let mut got = BATCH_MAX;
    while got > 0 {
        got = capture.drain(BATCH_MAX, &mut |input| {
            // Nobody reads the output any more: what is left goes nowhere.
            let _ = listener.handle(input);
        });
    }
}

/// Loss and detached programs are news for the Engine.
fn look_after(capture: &mut Capture, seen: &mut Health, listener: &mut dyn Listener) {
    let health = capture.health();
    let bytes = health.lost_bytes.saturating_sub(seen.lost_bytes);
    let lost = |health: &Health| health.lost_events + health.lost_controls;
    let events = lost(&health).saturating_sub(lost(seen));
    if bytes > 0 || events > 0 {
        tracing::warn!(bytes, events, "capture lost data; a larger ring_bytes may help");
        listener.impairment(now(), &Impairment::Lost { bytes, events });
    }
    for program in &health.detached {
        if !seen.detached.contains(program) {
            tracing::error!(program, "a kernel program is no longer attached");
            listener.impairment(now(), &Impairment::Detached { program: program.clone() });
        }
    }
    for what in &health.tls_unseen {
        if !seen.tls_unseen.contains(what) {
            tracing::warn!(what, "calls inside TLS are not seen");
            listener.impairment(now(), &Impairment::Unseen { what: what.clone() });
        }
    }
    listener.health(health.clone());
    *seen = health;
}

/// Reasons to end.
pub(crate) struct Stop {
    terminate: Signal,
    interrupt: Signal,
    deadline: Option<Instant>,
}

impl Stop {
    pub(crate) fn new(duration: Option<Duration>) -> Result<Stop> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Stop {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            deadline: duration.and_then(|duration| Instant::now().checked_add(duration)),
        })
    }

    /// Comes back when one of them is there.
    pub(crate) async fn asked(&mut self) {
        let over = async {
            match self.deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            () = over => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_a_second_either_way() {
        let last = EventTime(5_000_000_000);
        for (now, silent) in [
            (5_000_000_000, false),
            (5_999_999_999, false),
            (6_000_000_000, true),
            (4_000_000_001, false),
            (4_000_000_000, true),
        ] {
            assert_eq!(is_silent(last, EventTime(now)), silent, "{now}");
        }
    }
}
