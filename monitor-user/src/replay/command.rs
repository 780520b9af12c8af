//! `keywatch replay`: captures in, the same records out as when they were live.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use monitor_core::input::Input;

use super::{Fault, Tally, keylog, read};
use crate::cli::ReplayArgs;
use crate::commands::{self, Outputs};
use crate::config::Config;
use crate::driver::Driver;
use crate::fault::{AlreadyTold, Misuse, tell, write_stderr};
use crate::sinks::kafka::{self, WhenFull};
use crate::sinks::{OnFailure, jsonl};

/// Replays all files as one stream. A file that cannot be read does not stop the others.
pub(crate) fn replay(args: &ReplayArgs, config: &Config, quiet: bool) -> Result<()> {
    let ports = commands::ports(&args.common.ports, config);
    if args.publish {
        if config.sinks.kafka.brokers.is_empty() {
            return Err(Misuse(
                "nowhere to publish: --publish: set brokers under [sinks.kafka] in the config"
                    .into(),
            )
            .into());
        }
        kafka::reach(&config.sinks.kafka, KAFKA_WAIT_MAX)?;
    }
    let mut alerts = args.common.alerts.clone();
    if args.common.calls.is_none() && args.common.connections.is_none() && alerts.is_none() {
        alerts = Some(PathBuf::from("-"));
    }
    let outputs = Outputs {
        calls: args.common.calls.clone(),
        connections: args.common.connections.clone(),
        alerts,
        opening: jsonl::Opening::Truncate,
        on_failure: OnFailure::Stop,
    };
    let inputs: Vec<PathBuf> = args.files.iter().chain(&args.keylog).cloned().collect();
    refuse_overwriting(&inputs, &outputs)?;
    let mut driver = commands::driver(&args.common, config, &ports, &outputs)?;
    if args.publish {
        commands::add_kafka(&mut driver, config, WhenFull::Wait)?;
    }
    for path in &args.keylog {
        keylog::read(path, &mut driver)?;
    }
    let mut tally = Tally::default();
    let mut all_read = true;
    for path in &args.files {
        match replay_file(path, &ports, &mut driver, &mut tally, quiet) {
            Ok(ControlFlow::Continue(())) => {}
            Ok(ControlFlow::Break(())) => break,
            Err(fault) => {
                tell(&format!("cannot replay: {}: {fault}", path.display()));
                all_read = false;
            }
        }
    }
    let all_written = driver.finish();
    driver.summary().replayed = Some(tally);
    commands::summarise(&mut driver, args.common.summary, quiet);
    // Each fault has had its line.
    if all_read && all_written { Ok(()) } else { Err(AlreadyTold.into()) }
}

/// A metadata request to a broker in reach takes milliseconds.
const KAFKA_WAIT_MAX: Duration = Duration::from_secs(5);

fn replay_file(
    path: &Path,
    ports: &[u16],
    driver: &mut Driver,
    tally: &mut Tally,
    quiet: bool,
) -> Result<ControlFlow<()>, Fault> {
    let cannot_read = |error| Fault::Read { offset: 0, error };
    let (reader, length): (Box<dyn Read>, _) = if path == Path::new("-") {
        (Box::new(io::stdin()), None)
    } else {
        let file = File::open(path).map_err(cannot_read)?;
        let about = file.metadata().map_err(cannot_read)?;
        (Box::new(file), about.is_file().then_some(about.len()))
    };
    let mut progress = Progress::new(path, length, quiet);
    let mut last = ControlFlow::Continue(());
    let mut other_ports = 0;
    let result = read(progress.watch(reader), tally, &mut |input| {
        if is_of(&input, ports) {
            last = driver.handle(input);
        } else {
            other_ports += 1;
        }
        last
    });
    progress.clear();
    driver.summary().other_ports += other_ports;
    result.map(|()| last)
}

/// Whether one of the two ends is watched; with no ports all are.
fn is_of(input: &Input<'_>, ports: &[u16]) -> bool {
    match input {
        Input::Segment(segment) => {
            ports.is_empty()
                || ports.contains(&segment.target.port)
                || ports.contains(&segment.source.port)
        }
        Input::Open(_) | Input::Owner { .. } | Input::Lost { .. } => true,
        Input::Close { .. } | Input::Secrets(_) | Input::Tick(_) => true,
    }
}

/// A replay would cut its own input to nothing.
fn refuse_overwriting(files: &[PathBuf], outputs: &Outputs) -> Result<()> {
    for output in [&outputs.calls, &outputs.alerts, &outputs.connections].into_iter().flatten() {
        let same = |file: &PathBuf| match (file.canonicalize(), output.canonicalize()) {
            (Ok(file), Ok(output)) => file == output,
            (Ok(_), Err(_)) | (Err(_), _) => false,
        };
        if files.iter().any(same) {
            let output = output.display();
            bail!(Misuse(format!("the output is also an input: {output}: write to another file")));
        }
    }
    Ok(())
}

/// How far we are, on a terminal, for files that take their time.
struct Progress {
    name: String,
    /// Length of the file, bytes; `None`: nothing is shown.
    length: Option<u64>,
    shown: std::rc::Rc<std::cell::Cell<bool>>,
}

const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

impl Progress {
    fn new(path: &Path, length: Option<u64>, quiet: bool) -> Progress {
        let visible = !quiet && io::stderr().is_terminal();
        Progress {
            name: path.display().to_string(),
            length: length.filter(|length| visible && *length > 0),
            shown: std::rc::Rc::default(),
        }
    }

    fn watch<R: Read>(&self, reader: R) -> Watched<R> {
        Watched {
            reader,
            name: self.name.clone(),
            length: self.length,
            read_bytes: 0,
            next: Instant::now() + PROGRESS_INTERVAL,
            shown: std::rc::Rc::clone(&self.shown),
        }
    }

    fn clear(&mut self) {
        if self.shown.get() {
            write_stderr("\r\x1b[K");
        }
    }
}

struct Watched<R> {
    reader: R,
    name: String,
    length: Option<u64>,
    read_bytes: u64,
    next: Instant,
    shown: std::rc::Rc<std::cell::Cell<bool>>,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.reader.read(buffer)?;
        self.read_bytes += got as u64;
        if let Some(length) = self.length
            && Instant::now() >= self.next
        {
            self.next = Instant::now() + PROGRESS_INTERVAL;
            self.shown.set(true);
            let percent = self.read_bytes.min(length) * 100 / length;
            write_stderr(&format!("\rkeywatch: {}: {percent} %", self.name));
        }
        Ok(got)
    }
}
