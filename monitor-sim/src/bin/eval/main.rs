//! How well the Engine does on simulated traffic, beside simple rivals. Run by `cargo xtask eval`.
#![expect(clippy::print_stdout, reason = "it talks to the person who runs it")]

mod ears;
mod report;
mod rivals;
mod score;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use monitor_core::engine::{Engine, Settings};
use monitor_core::time::EventTime;
use monitor_sim::{DAY, Kind, Plan, START, World};

use ears::Ears;
use rivals::Rival;
use score::{Raised, Score, Tally};

/// How large the worlds are.
#[derive(Clone, Copy)]
struct Size {
    keys: u32,
    warm_days: u32,
    test_days: u32,
}

/// Seeds that thresholds may be looked at with, and those that they may not.
const TUNED: std::ops::Range<u64> = 1..5;
const HELD_OUT: std::ops::Range<u64> = 131..135;

fn main() -> ExitCode {
    match run(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("eval: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<(), String> {
    let mut size = Size { keys: 400, warm_days: 14, test_days: 7 };
    let (mut sets, mut explain, mut json) =
        (vec![("tuned-on", TUNED), ("held-out", HELD_OUT)], false, false);
    let mut settings = Settings::default();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} takes a value"));
        match argument.as_str() {
            "--quick" => {
                size = Size { keys: 150, warm_days: 7, test_days: 4 };
                // Neither looked at for thresholds nor held out.
                sets = vec![("quick", 201..203)];
            }
            "--keys" => size.keys = number(value()?)?,
            "--seeds" => {
                let text = value()?;
                let (from, to) = text.split_once("..").ok_or("--seeds takes A..B, such as 1..5")?;
                sets = vec![("chosen", number(from)?..number(to)?)];
            }
            "--settings" => {
                let path = value()?;
                let text = std::fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
                settings = toml::from_str(&text).map_err(|e| format!("{path}: {e}"))?;
            }
            "--explain" => explain = true,
            "--json" => json = true,
            other => return Err(format!("no such option: {other}")),
        }
    }
    for (name, seeds) in sets {
        let mut tally = Tally::default();
        let count = seeds.end - seeds.start;
        for seed in seeds {
            let started = Instant::now();
            measure(seed, size, &settings, &mut tally, explain);
            eprintln!("eval: {name} seed {seed} in {:.0} s", started.elapsed().as_secs_f64());
        }
        if json {
            println!("{}", report::json(name, &tally));
        } else {
            println!("{}", report::table(name, count, size.keys, size.test_days, &tally));
        }
    }
    Ok(())
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("not a number: {text}"))
}

/// Calls that are given to the Engine between two looks at the clock.
const BATCH: usize = 8192;

fn measure(seed: u64, size: Size, settings: &Settings, tally: &mut Tally, explain: bool) {
    let plan = Plan {
        seed,
        keys: size.keys,
        days: size.warm_days + size.test_days,
        quiet_days: size.warm_days,
        attacks: Kind::ALL.to_vec(),
    };
    let mut world = World::new(&plan);
    let mut engine = Engine::new(Settings { host: "sim".into(), ..settings.clone() });
    let mut ears = explain.then(|| Ears::new(settings));
    let mut rivals: Vec<Rival> = Rival::all();
    let test = EventTime(START + u64::from(size.warm_days) * DAY);
    let mut raised: Vec<Raised> = Vec::new();
    let mut batch = Vec::with_capacity(BATCH);
    let mut spent = Duration::ZERO;
    let mut calls = 0u64;
    loop {
        batch.clear();
        batch.extend(world.by_ref().take(BATCH));
        if batch.is_empty() {
            break;
        }
        let start = Instant::now();
        for call in &batch {
            engine.handle_call(call);
        }
        spent += start.elapsed();
        calls += batch.len() as u64;
        while let Some(alert) = engine.poll_alert() {
            if alert.time >= test {
                score::note(&mut raised, &alert);
            }
        }
        if let Some(ears) = &mut ears {
            batch.iter().for_each(|call| ears.handle_call(call, test));
        }
        for rival in &mut rivals {
            batch.iter().for_each(|call| rival.handle_call(call, test));
        }
    }
    tally.calls += calls;
    tally.spent += spent;
    tally.state_bytes += engine.state_bytes();
    tally.keys += engine.keys();
    tally.key_days += f64::from(size.keys) * f64::from(size.test_days);
    let truths = world.truths();
    let score = Score::of(&raised, truths);
    if explain {
        report::explain(seed, &score, &raised, truths, &world);
    }
    if let Some(ears) = &ears {
        ears.explain(seed, &score, truths, &world);
    }
    tally.add("Keywatch", &raised, &score, truths);
    for rival in &rivals {
        tally.add(rival.name, &rival.raised, &Score::of(&rival.raised, truths), truths);
    }
}
