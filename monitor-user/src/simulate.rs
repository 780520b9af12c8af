//! `keywatch simulate`: calls of an exchange that does not exist, and the truth about its attacks.

mod against;
mod http;
mod wire;

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, ValueHint};
use monitor_core::call::KeyId;
use monitor_core::identity::{Identifier, Secret};
use monitor_core::input::Input;
use monitor_sim::{Kind, Plan, Role, Truth, World};

use crate::fault::{Misuse, write_stderr};
use crate::record::{Recorder, Rotation};
use against::Aim;
use wire::{PORT, Wire};

/// What to simulate, and where to write it.
#[derive(Debug, Args)]
pub struct SimulateArgs {
    /// The same number gives the same calls
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,

    /// How many days
    #[arg(long, default_value_t = 15, value_name = "D", value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub days: u32,

    /// How many API keys
    #[arg(long, default_value_t = 200, value_name = "K", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub keys: u32,

    /// Days at the start without attacks [default: all but the last]
    #[arg(long, value_name = "D")]
    pub quiet_days: Option<u32>,

    /// Attacks, each once: their names, `all`, `public` or `none`
    #[arg(long, default_value = "all", value_name = "NAME", value_delimiter = ',')]
    pub attacks: Vec<String>,

    /// Write calls here as JSON lines; `-` is stdout
    #[arg(short, long, default_value = "-", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: PathBuf,

    /// Write a capture file instead: the calls as HTTP/1.1 over TCP, with credentials made up
    ///
    /// `keywatch replay` reads the same calls from it, on connections without TLS; public data that is
    /// asked for with a key is a read there.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "output")]
    pub pcap: Option<PathBuf>,

    /// Make the calls at a server instead, such as http://127.0.0.1:8080, as HTTP/1.1
    ///
    /// Each call is made when its time comes, counted from now, and states times that fit; --labels has
    /// the times at which attacks happen then. Host is that of the URL; X-Forwarded-For has the address of
    /// the client. The server answers what it will. Ctrl-C ends it in good order. Never at a server that
    /// others use.
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url, conflicts_with_all = ["output", "pcap"])]
    pub against: Option<String>,

    /// So many times as fast as in reality, for --against
    #[arg(long, value_name = "N", default_value_t = 1.0, requires = "against")]
    pub speed: f64,

    /// Connections at once at most, for --against
    #[arg(long, value_name = "N", default_value_t = 16, requires = "against", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub connections: u16,

    /// Write the truth about the attacks here as JSON lines
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub labels: Option<PathBuf>,

    /// Secret that keys in --labels are hashed with, for --pcap and --against: that of the replay or agent
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub secret_file: Option<PathBuf>,
}

impl SimulateArgs {
    /// Whether ids of keys must be those that a replay gives them.
    pub(crate) fn needs_secret(&self) -> bool {
        (self.pcap.is_some() || self.against.is_some()) && self.labels.is_some()
    }
}

/// Calls between two lines about how far it is.
const PROGRESS_CALLS: u64 = 1_000_000;

/// Writes calls and truth; with the secret where one is needed.
pub(crate) fn simulate(args: &SimulateArgs, secret: Option<Secret>, quiet: bool) -> Result<()> {
    let quiet_days = args.quiet_days.unwrap_or(args.days - 1);
    if quiet_days >= args.days {
        let days = args.days;
        return Err(Misuse(format!(
            "--quiet-days {quiet_days} leaves no day for attacks of --days {days}: give fewer"
        ))
        .into());
    }
    let attacks = attacks(&args.attacks)?;
    let plan = Plan { seed: args.seed, keys: args.keys, days: args.days, quiet_days, attacks };
    let aim = match &args.against {
        Some(url) => Some(Aim::new(url, args.speed, usize::from(args.connections))?),
        None => None,
    };
    let world = match (&args.pcap, &aim) {
        (None, None) => World::new(&plan),
        (Some(_), _) | (_, Some(_)) => numbered(&plan),
    };
    if let Some(path) = &args.labels {
        let mut file = open(path)?;
        for truth in truths(&world, secret) {
            let truth = match &aim {
                Some(aim) => aim.truth(truth),
                None => truth,
            };
            serde_json::to_writer(&mut file, &truth).context("writing labels")?;
            file.write_all(b"\n").context("writing labels")?;
        }
        file.flush().with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(aim) = &aim {
        return aim.run(world, quiet);
    }
    if let Some(path) = &args.pcap {
        return write_packets(world, path, args.seed);
    }
    match write_calls(world, &mut *open(&args.output)?, quiet) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result.with_context(|| format!("cannot write {}", args.output.display())),
    }
}

/// Keys are called by their numbers, of which their credentials are made.
fn numbered(plan: &Plan) -> World {
    World::named(plan, &|number| KeyId(u128::from(number)))
}

/// The truth; with the secret, keys are called as a replay calls them.
fn truths(world: &World, secret: Option<Secret>) -> Vec<Truth> {
    let mut truths = world.truths().to_vec();
    let Some(secret) = secret else { return truths };
    let identifier = Identifier::new(secret);
    let is_login = |(id, role)| (role == Role::Mobile).then_some(id);
    let logins: HashSet<KeyId> = world.roles().filter_map(is_login).collect();
    for key in truths.iter_mut().flat_map(|truth| &mut truth.keys) {
        let credential = match logins.contains(key) {
            true => http::web_token(*key, None),
            false => http::credential(*key),
        };
        *key = identifier.key_id(credential.as_bytes()).unwrap_or(*key);
    }
    truths
}

fn write_packets(world: World, path: &Path, seed: u64) -> Result<()> {
    let mut recorder = Recorder::create(path, Rotation::default(), false, seed, &[PORT])?;
    let mut wire = Wire::default();
    let mut out =
        |segment: &monitor_core::input::Segment<'_>| recorder.input(&Input::Segment(*segment));
    for call in world {
        wire.call(&call, &mut out)?;
    }
    wire.finish(&mut out)?;
    recorder.finish()
}

fn write_calls(world: World, out: &mut dyn Write, quiet: bool) -> io::Result<()> {
    let mut count = 0u64;
    for call in world {
        serde_json::to_writer(&mut *out, &call)?;
        out.write_all(b"\n")?;
        count += 1;
        if count.is_multiple_of(PROGRESS_CALLS) && !quiet {
            write_stderr(&format!(
                "keywatch: {} million calls, until {}\n",
                count / PROGRESS_CALLS,
                call.time
            ));
        }
    }
    out.flush()
}

fn open(path: &Path) -> Result<Box<dyn Write>> {
    if path == Path::new("-") {
        return Ok(Box::new(BufWriter::new(io::stdout())));
    }
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Box::new(BufWriter::new(file)))
}

fn attacks(names: &[String]) -> Result<Vec<Kind>> {
    let mut kinds = Vec::new();
    for name in names {
        match name.as_str() {
            "all" => kinds.extend(Kind::ALL),
            "public" => kinds.extend(Kind::ALL.iter().filter(|kind| kind.is_public())),
            "none" => {}
            name => {
                let kind =
                    Kind::ALL.iter().find(|kind| kind.as_str() == name).ok_or_else(|| {
                        let known: Vec<&str> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
                        let known = known.join(", ");
                        Misuse(format!(
                            "no attack is called {name:?}; there are: all, public, none, {known}"
                        ))
                    })?;
                kinds.push(*kind);
            }
        }
    }
    Ok(kinds)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::convert::Infallible;

    use monitor_core::call::{ApiCall, Operation};
    use monitor_core::decode::Decoder;
    use monitor_core::limits::Limits;

    use super::*;

    /// What is to be the same: all but connection, id of the key and signature.
    fn essence(call: &ApiCall) -> String {
        let request = call.request.as_ref().map(|it| (&it.method, &it.path, &it.user_agent));
        let response = call.response.as_ref().map(|it| (it.status, it.body_bytes));
        let source = call.key.as_ref().map(|key| (&key.source, &key.profile));
        let account = call.detail.as_ref().and_then(|detail| detail.account.as_ref());
        let stated = call.detail.as_ref().and_then(|it| it.signed.as_ref()?.stated_ms);
        let (token, latency) = (&call.token, call.latency_us);
        let (op, symbol, outcome) = (call.op, &call.symbol, call.outcome);
        let ids = &call.object_ids;
        format!(
            "{} {:?} {request:?} {response:?} {source:?} {account:?} {stated:?} {token:?} {latency:?} \
             {op} {symbol:?} {outcome:?} {ids:?} {:?}",
            call.time,
            call.flow.client.ip(),
            call.anomalies
        )
    }

    #[test]
    fn packets_give_the_calls_of_which_they_were_made() {
        let kinds = attacks(&["all".into()]).unwrap();
        let plan = Plan { seed: 5, keys: 40, days: 1, quiet_days: 0, attacks: kinds };
        let secret = || Secret::new([7; 32]);
        let mut decoder = Decoder::new(Limits::default(), Identifier::new(secret()), &[PORT]);
        let (mut wire, mut read, mut last) = (Wire::default(), Vec::new(), 0);
        let mut made: Vec<ApiCall> = numbered(&plan).take(20_000).collect();
        let mut out = |segment: &monitor_core::input::Segment<'_>| -> Result<(), Infallible> {
            assert!(segment.time.0 >= last, "in order of time");
            last = segment.time.0;
            decoder.handle_input(Input::Segment(*segment));
            read.extend(std::iter::from_fn(|| decoder.poll_call()));
            Ok(())
        };
        for call in &made {
            wire.call(call, &mut out).unwrap();
        }
        wire.finish(&mut out).unwrap();
        assert_eq!(read.len(), made.len());
        let identifier = Identifier::new(secret());
        let key = |call: &ApiCall| call.key.as_ref().map(|key| key.id);
        let by_time = |call: &ApiCall| (call.time, call.flow.client.ip(), call.latency_us);
        read.sort_by_key(by_time);
        made.sort_by_key(by_time);
        for (read, made) in read.iter().zip(&made) {
            let mut made = made.clone();
            // Public data that is asked for with a key.
            if made.op == Operation::Public && made.key.is_some() {
                made.op = Operation::Read;
            }
            // A body has braces at least.
            if let Some(response) = &mut made.response {
                response.body_bytes = read.response.as_ref().map_or(0, |it| it.body_bytes);
            }
            assert_eq!(essence(read), essence(&made));
            let number = key(&made);
            let credential = number.map(|number| match &made.token {
                Some(token) => http::web_token(number, Some(token)),
                None => http::credential(number),
            });
            let expected = credential.and_then(|it| identifier.key_id(it.as_bytes()));
            assert_eq!(key(read), expected);
        }
        let ids: HashMap<_, _> = made.iter().map(key).zip(read.iter().map(key)).collect();
        let world = numbered(&plan);
        let keys = |secret| truths(&world, secret).into_iter().flat_map(|truth| truth.keys);
        let named = keys(None).zip(keys(Some(secret())));
        let known: Vec<_> = named.filter(|(number, _)| ids.contains_key(&Some(*number))).collect();
        assert!(known.len() > 10, "labels and calls name the same keys");
        assert!(known.iter().all(|(number, id)| ids[&Some(*number)] == Some(*id)));
    }

    #[test]
    fn calls_and_labels_read_back_as_they_were_simulated() {
        let dir = tempfile::tempdir().unwrap();
        let (output, labels) = (dir.path().join("calls"), dir.path().join("labels"));
        let args = SimulateArgs {
            seed: 4,
            days: 1,
            keys: 30,
            quiet_days: Some(0),
            attacks: vec!["public".into(), "path_scan".into()],
            output: output.clone(),
            pcap: None,
            against: None,
            speed: 1.0,
            connections: 16,
            labels: Some(labels.clone()),
            secret_file: None,
        };
        simulate(&args, None, true).unwrap();
        let attacks = attacks(&args.attacks).unwrap();
        let plan = Plan { seed: 4, keys: 30, days: 1, quiet_days: 0, attacks };
        let mut world = World::new(&plan);
        let text = std::fs::read_to_string(labels).unwrap();
        let read: Vec<Truth> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(read, world.truths());
        let text = std::fs::read_to_string(output).unwrap();
        let mut lines = text.lines();
        for call in world.by_ref() {
            assert_eq!(serde_json::from_str::<ApiCall>(lines.next().unwrap()).unwrap(), call);
        }
        assert_eq!(lines.next(), None);
    }

    #[test]
    fn what_is_no_attack_is_misuse() {
        let error = attacks(&["theft".into()]).unwrap_err();
        assert!(error.is::<Misuse>() && error.to_string().contains("theft_spike"), "{error}");
        assert_eq!(attacks(&["none".into()]).unwrap(), []);
        assert_eq!(attacks(&["all".into()]).unwrap().len(), Kind::ALL.len());
    }
}
