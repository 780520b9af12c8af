//! Simulated calls made against a real server, in the pace of their times.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use monitor_core::call::ApiCall;
use monitor_sim::{START, Truth, World};
use tokio::sync::mpsc;
use tokio::time::sleep_until;
use ureq::Agent;
use ureq::http::Uri;
use ureq::tls::RootCerts;

use super::http;
use crate::clock::now;
use crate::fault::{Misuse, write_stderr};
use crate::live::Stop;

/// A server that does not answer for so long will not.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Calls that wait for one connection: beyond it the pace slows down, and nothing is left out.
const WAITING_MAX: usize = 64;
/// So many calls in a row without an answer, over all connections, and the server is gone.
const UNANSWERED_MAX: u64 = 50;
/// Between two lines about how far it is.
const PROGRESS: Duration = Duration::from_secs(10);
/// More of an answer is not read; its connection is given up.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// Whom to call, and how fast.
#[derive(Clone, Debug)]
pub(super) struct Aim {
    base: String,
    speed: f64,
    connections: usize,
    /// When the first call is due, nanoseconds since 1970.
    begin: u64,
}

/// What came of it so far.
#[derive(Default)]
struct Tally {
    answers: BTreeMap<u16, u64>,
    failed: u64,
    in_a_row: u64,
    last_error: String,
    /// What ends it.
    fault: Option<String>,
}

type Shared = Arc<Mutex<Tally>>;

impl Aim {
    /// At the server of a URL: `http://127.0.0.1:8080`, with a path in front of all others if it has one.
    pub(super) fn new(url: &str, speed: f64, connections: usize) -> Result<Aim> {
        let wrong =
            |why: &str| Misuse(format!("--against {url}: {why}; it is as http://127.0.0.1:8080"));
        let parsed: Uri = url.parse().map_err(|_| wrong("it is no URL"))?;
        if !matches!(parsed.scheme_str(), Some("http" | "https")) || parsed.host().is_none() {
            return Err(wrong("it has no http:// or https:// and host").into());
        }
        if parsed.query().is_some() {
            return Err(wrong("a query has no place in it").into());
        }
        if !speed.is_finite() || speed <= 0.0 {
            return Err(Misuse(format!("--speed {speed}: give a number above 0")).into());
        }
        let base = url.trim_end_matches('/').to_owned();
        Ok(Aim { base, speed, connections, begin: now().0 })
    }

    /// When a simulated moment comes, nanoseconds since 1970.
    fn due(&self, time: u64) -> u64 {
        let after = time.saturating_sub(START) as f64 / self.speed;
        self.begin.saturating_add(after as u64)
    }

    /// The truth, at the times at which it happens.
    pub(super) fn truth(&self, mut truth: Truth) -> Truth {
        for span in &mut truth.spans {
            (span.start.0, span.end.0) = (self.due(span.start.0), self.due(span.end.0));
        }
        truth
    }

    /// The call as it is made now: times that it states are those of the server's clock.
    fn dated(&self, mut call: ApiCall) -> ApiCall {
        let by_ms = (i128::from(self.due(call.time.0)) - i128::from(call.time.0)) / 1_000_000;
        let stated = call.detail.as_ref().and_then(|it| it.signed.as_ref()?.stated_ms);
        if let (Some(stated), Some(request)) = (stated, &mut call.request) {
            let moved = u64::try_from(i128::from(stated) + by_ms).unwrap_or(stated);
            let (was, is) = (format!("timestamp={stated}"), format!("timestamp={moved}"));
            request.target = request.target.replace(&was, &is).into();
        }
        if let Some(token) = &mut call.token {
            let by_s = i64::try_from(by_ms / 1_000).unwrap_or(0);
            let token = Arc::make_mut(token);
            for at in [&mut token.expires, &mut token.not_before, &mut token.issued] {
                *at = at.map(|at| at.saturating_add(by_s));
            }
        }
        call
    }

    /// Makes all calls; ends early, and well, when it is asked to.
    pub(super) fn run(&self, world: World, quiet: bool) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("cannot start a runtime")?;
        let tally = Shared::default();
        let agent = crate::http::agent(RootCerts::PlatformVerifier, ANSWER_MAX);
        let (mut lanes, mut workers) = (Vec::new(), Vec::new());
        for _ in 0..self.connections {
            let (lane, mut calls) = mpsc::channel::<ApiCall>(WAITING_MAX);
            let (agent, base, tally) = (agent.clone(), self.base.clone(), tally.clone());
            lanes.push(lane);
            workers.push(thread::spawn(move || {
                while let Some(call) = calls.blocking_recv() {
                    if !make(&agent, &base, &call, &tally) {
                        break;
                    }
                }
            }));
        }
        let sent = runtime.block_on(self.send(world, lanes, &tally, quiet))?;
        for worker in workers {
            // One that panicked has said so.
            let _ = worker.join();
        }
        let tally = locked(&tally);
        if let Some(fault) = &tally.fault {
            bail!("{}: {fault}", self.base);
        }
        if !quiet {
            write_stderr(&format!("keywatch: {sent} calls made: {}\n", tally.summary()));
        }
        Ok(())
    }

    /// Gives each call to the connection of its client when it is due; how many.
    async fn send(
        &self,
        world: World,
        lanes: Vec<mpsc::Sender<ApiCall>>,
        tally: &Shared,
        quiet: bool,
    ) -> Result<u64> {
        let mut stop = Stop::new(None)?;
        let start = Instant::now();
        let (mut sent, mut told) = (0u64, start);
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        for call in world {
            let after = Duration::from_nanos(self.due(call.time.0).saturating_sub(self.begin));
            let due = start + after;
            let lane = &lanes[(hasher.hash_one(call.flow.id) % lanes.len() as u64) as usize];
            let time = call.time;
            let is_asked = tokio::select! {
                biased;
                () = stop.asked() => true,
                room = async {
                    sleep_until(due.into()).await;
                    lane.send(self.dated(call)).await
                } => room.is_err(),
            };
            if is_asked || locked(tally).fault.is_some() {
                break;
            }
            sent += 1;
            if told.elapsed() >= PROGRESS && !quiet {
                told = Instant::now();
                let behind = due.elapsed().as_secs();
                let late = if behind > 0 { format!(", {behind} s behind") } else { String::new() };
                write_stderr(&format!("keywatch: {sent} calls made, until {time}{late}\n"));
            }
        }
        Ok(sent)
    }
}

/// Makes one call; false when there is no sense in another.
fn make(agent: &Agent, base: &str, call: &ApiCall, tally: &Shared) -> bool {
    if locked(tally).fault.is_some() {
        return false;
    }
    let result = ask(agent, base, call);
    let mut tally = locked(tally);
    match result {
        Ok(status) => {
            *tally.answers.entry(status).or_default() += 1;
            tally.in_a_row = 0;
        }
        Err(error) => {
            tally.failed += 1;
            tally.in_a_row += 1;
            tally.last_error = error;
            let never = tally.answers.is_empty();
            if never || tally.in_a_row >= UNANSWERED_MAX {
                let error = &tally.last_error;
                let fault = if never {
                    format!("no call is answered: {error}: does a server listen there?")
                } else {
                    format!("{UNANSWERED_MAX} calls in a row were not answered: {error}")
                };
                tally.fault.get_or_insert(fault);
            }
        }
    }
    tally.fault.is_none()
}

/// The status of the answer, which is read to its end so that the connection can be used again.
fn ask(agent: &Agent, base: &str, call: &ApiCall) -> Result<u16, String> {
    let asked = http::asked(call).ok_or("the call has no request")?;
    let mut request = ureq::http::Request::builder()
        .method(asked.method.as_str())
        .uri(format!("{base}{}", asked.target))
        // Behind a proxy that is trusted each client has its own address.
        .header("X-Forwarded-For", call.flow.client.ip().to_string());
    for (name, value) in asked.headers {
        request = request.header(name, value);
    }
    let answer = match asked.method.as_str() {
        "POST" | "PUT" | "PATCH" => {
            request.body("").map_err(|e| e.to_string()).map(|request| agent.run(request))?
        }
        _ => request.body(()).map_err(|e| e.to_string()).map(|request| agent.run(request))?,
    };
    let mut answer = answer.map_err(|error| error.to_string())?;
    let mut body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).reader();
    // What cannot be read to the end is answered all the same.
    let _ = io::copy(&mut body, &mut io::sink());
    Ok(answer.status().as_u16())
}

impl Tally {
    /// `200: 51, 404: 3, not answered: 1 (why)`.
    fn summary(&self) -> String {
        let mut parts: Vec<String> =
            self.answers.iter().map(|(status, count)| format!("{status}: {count}")).collect();
        if self.failed > 0 {
            parts.push(format!("not answered: {} ({})", self.failed, self.last_error));
        }
        if parts.is_empty() { "none was due".into() } else { parts.join(", ") }
    }
}

fn locked(tally: &Shared) -> std::sync::MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use monitor_core::call::Token;
    use monitor_core::time::EventTime;
    use monitor_sim::Plan;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn aim(speed: f64) -> Aim {
        Aim { begin: START + 1_000 * SECOND, ..Aim::new("http://[::1]:8080/", speed, 1).unwrap() }
    }

    #[test]
    fn times_are_those_of_the_server() {
        let aim = aim(2.0);
        assert_eq!(aim.base, "http://[::1]:8080");
        assert_eq!(aim.due(START + 20 * SECOND), START + 1_010 * SECOND);
        let plan = Plan { seed: 1, keys: 9, days: 1, quiet_days: 0, attacks: Vec::new() };
        let stated = |call: &ApiCall| call.detail.as_ref()?.signed.as_ref()?.stated_ms;
        let mut call = World::new(&plan).find(|call| stated(call).is_some()).unwrap();
        let by_ms = (aim.due(call.time.0) as i64 - call.time.0 as i64) / 1_000_000;
        let moved = stated(&call).unwrap().saturating_add_signed(by_ms);
        call.token = Some(Arc::new(Token { expires: Some(5_000), ..Token::default() }));
        let call = aim.dated(call);
        let target = &call.request.as_ref().unwrap().target;
        assert!(target.contains(&format!("timestamp={moved}&")), "{target}");
        assert_eq!(call.token.unwrap().expires, Some(5_000 + by_ms / 1_000));
        let span = monitor_sim::Span { start: EventTime(START), end: EventTime(START + SECOND) };
        let mut truth = World::new(&Plan { attacks: vec![monitor_sim::Kind::PathScan], ..plan });
        let mut truth = truth.by_ref().next().and(truth.truths().first().cloned()).unwrap();
        truth.spans = vec![span];
        let end = aim.truth(truth).spans[0].end.0;
        assert_eq!(end, START + 1_000 * SECOND + SECOND / 2);
    }

    #[test]
    fn what_is_no_server_is_misuse() {
        for url in ["example.com", "ftp://example.com", "http://", "http://a b", "http://a/?b=c"] {
            let error = Aim::new(url, 1.0, 1).unwrap_err();
            assert!(error.is::<Misuse>() && error.to_string().contains(url), "{error}");
        }
        for speed in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Aim::new("http://localhost", speed, 1).unwrap_err().is::<Misuse>());
        }
    }
}
