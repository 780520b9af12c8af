//! `cargo xtask bench tls`: HTTPS on nginx, alone and with Keywatch, Keywatch at the calls of its library,
//! tcpdump or a script of bpftrace beside it, in turn.
//!
//! The loader has TLS libraries of its own, as it would have on another host: what probes cost the server
//! is to be seen, not what they would cost its clients.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::host::{Host, Serving, count, full_load, rate_of, steady_load};
use super::usage::Usage;
use super::{median, range, table};
use crate::agent::Agent;
use crate::openssl;
use crate::process::{self, Proc};

/// How long and how hard.
#[derive(clap::Args)]
pub struct Options {
    /// Pairs of runs at saturation for each watcher, without and with it.
    #[arg(long, default_value_t = 7)]
    pairs: u32,
    /// Seconds of each run at saturation.
    #[arg(long, default_value_t = 4)]
    saturation_seconds: u32,
    /// Calls a second of the paced runs.
    #[arg(long, default_value_t = 5_000)]
    rate: u32,
    /// Paced runs of each watcher, and of none.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Seconds of each paced run.
    #[arg(long, default_value_t = 20)]
    seconds: u32,
}

/// What may be beside nginx.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watcher {
    Nothing,
    Keywatch,
    /// Keywatch with `capture.tls = "calls"`.
    AtCalls,
    Tcpdump,
    Bpftrace,
}

impl Watcher {
    const COUNT: usize = 5;
    const ALL: [Watcher; Watcher::COUNT] = [
        Watcher::Nothing,
        Watcher::Keywatch,
        Watcher::AtCalls,
        Watcher::Tcpdump,
        Watcher::Bpftrace,
    ];

    fn name(self) -> &'static str {
        match self {
            Watcher::Nothing => "alone",
            Watcher::Keywatch => "keywatch",
            Watcher::AtCalls => "at-calls",
            Watcher::Tcpdump => "tcpdump",
            Watcher::Bpftrace => "bpftrace",
        }
    }
}

/// What bpftrace is to do: every buffer that OpenSSL reads or writes, its first 200 bytes (the most that
/// bpftrace carries), as sslsniff and its kin print it.
const SNIFF: &str = r#"
uprobe:LIBSSL:SSL_read { @read[tid] = arg1; }
uprobe:LIBSSL:SSL_write { @write[tid] = arg1; }
uretprobe:LIBSSL:SSL_read /@read[tid]/ {
  $bytes = (int32)retval;
  if ($bytes > 0) { printf("R %d %d %r\n", pid, $bytes, buf(@read[tid], $bytes)); }
  delete(@read[tid]);
}
uretprobe:LIBSSL:SSL_write /@write[tid]/ {
  $bytes = (int32)retval;
  if ($bytes > 0) { printf("W %d %d %r\n", pid, $bytes, buf(@write[tid], $bytes)); }
  delete(@write[tid]);
}
"#;

const START_WAIT: Duration = Duration::from_secs(60);

/// Measures and prints.
pub fn run(options: &Options) -> Result<()> {
    let host = Host::prepare()?;
    let bench = Bench { libraries: host.dir().join("libraries"), host };
    fs::create_dir_all(&bench.libraries)?;
    openssl::copy_libraries(&bench.libraries)?;
    let paced = bench.paced(options)?;
    let ratios = bench.saturated(options)?;
    print(options, &paced, &ratios);
    Ok(())
}

struct Bench {
    /// Those of the loader.
    libraries: PathBuf,
    host: Host,
}

/// A paced run.
#[derive(Clone, Copy, Debug, Default)]
struct Paced {
    /// In nginx's log.
    calls: u64,
    /// Latency as the loader sees it, microseconds.
    p50_us: f64,
    p99_us: f64,
    /// nginx's time in user mode and in the kernel, microseconds a call.
    server_user_us: f64,
    server_system_us: f64,
    /// The watcher's own.
    user_us: f64,
    system_us: f64,
    /// Calls that the watcher saw; tcpdump sees none.
    seen: u64,
    /// Bytes, events or packets that it says it lost, and calls that it saw in part.
    lost: u64,
}

/// What runs beside nginx.
enum Running {
    Nothing,
    Agent(Agent),
    Other(Proc),
}

impl Running {
    fn pid(&self) -> Option<u32> {
        match self {
            Running::Nothing => None,
            Running::Agent(agent) => Some(agent.pid()),
            Running::Other(process) => Some(process.pid()),
        }
    }
}

impl Bench {
    /// A steady rate: latency, processor time, loss. Runs of each watcher, in the order of
    /// [`Watcher::ALL`].
    fn paced(&self, options: &Options) -> Result<[Vec<Paced>; Watcher::COUNT]> {
        let mut all = [const { Vec::new() }; Watcher::COUNT];
        for round in 0..options.rounds {
            for (watcher, runs) in Watcher::ALL.into_iter().zip(&mut all) {
                let name = format!("{}-paced-{round}", watcher.name());
                let run = self.paced_once(watcher, &name, options)?;
                println!("{name}: {} calls, p99 {:.0} us", run.calls, run.p99_us);
                runs.push(run);
            }
        }
        Ok(all)
    }

    fn paced_once(&self, watcher: Watcher, name: &str, options: &Options) -> Result<Paced> {
        let (server, nginx) = self.host.nginx(name, Serving { log: true, tls: true })?;
        let running = self.start(watcher, name, server)?;
        let (worker, watching) = (nginx.workers()?[0], running.pid());
        let usage = || -> Result<(Usage, Usage)> {
            let own = watching.map_or(Ok(Usage::default()), Usage::of)?;
            Ok((Usage::of(worker)?, own))
        };
        let latencies = self.host.dir().join("latencies");
        let at = format!("https://{server}");
        let mut load = steady_load(&at, options.rate, options.seconds, self.host.dir())?;
        load.arg("--log-file").arg(&latencies).env("LD_LIBRARY_PATH", &self.libraries);
        let before = usage()?;
        process::run(&mut load)?;
        let after = usage()?;
        let (seen, lost) = self.stop(watcher, name, running)?;
        let calls = nginx.stop()?.len() as u64;
        let each = |before: f64, after: f64| (after - before) * 1e6 / calls.max(1) as f64;
        let (p50_us, p99_us) = percentiles(&latencies)?;
        Ok(Paced {
            calls,
            p50_us,
            p99_us,
            server_user_us: each(before.0.user_secs, after.0.user_secs),
            server_system_us: each(before.0.system_secs, after.0.system_secs),
            user_us: each(before.1.user_secs, after.1.user_secs),
            system_us: each(before.1.system_secs, after.1.system_secs),
            seen,
            lost,
        })
    }

    /// As fast as it goes, without and with each watcher in turn: ratios of the second to the first.
    fn saturated(&self, options: &Options) -> Result<[Vec<f64>; Watcher::COUNT]> {
        let (server, _nginx) = self.host.nginx("saturated", Serving { log: false, tls: true })?;
        let mut load = full_load(&format!("https://{server}"), options.saturation_seconds);
        load.env("LD_LIBRARY_PATH", &self.libraries);
        let mut all = [const { Vec::new() }; Watcher::COUNT];
        for pair in 0..options.pairs {
            for (watcher, ratios) in Watcher::ALL.into_iter().zip(&mut all) {
                let name = format!("{}-saturated-{pair}", watcher.name());
                let alone = rate_of(&mut load)?;
                let running = self.start(watcher, &name, server)?;
                let watched = rate_of(&mut load)?;
                self.stop(watcher, &name, running)?;
                println!("{name}: {watched:.0} calls/s, {alone:.0} before");
                ratios.push(watched / alone);
            }
        }
        Ok(all)
    }

    fn start(&self, watcher: Watcher, name: &str, server: SocketAddr) -> Result<Running> {
        let log = self.log(name);
        let mut command = match watcher {
            Watcher::Nothing => return Ok(Running::Nothing),
            Watcher::Keywatch => return Ok(Running::Agent(self.host.agent(name, server, "")?)),
            Watcher::AtCalls => {
                let set = "[capture]\ntls = \"calls\"\n";
                return Ok(Running::Agent(self.host.agent(name, server, set)?));
            }
            Watcher::Tcpdump => {
                let mut tcpdump = Command::new("tcpdump");
                tcpdump.args(["-i", "lo", "-s", "0", "-B", "65536", "-n", "-Z", "root", "-w"]);
                tcpdump.arg(self.host.dir().join("capture.pcap"));
                tcpdump.args(["tcp", "port", &server.port().to_string()]);
                tcpdump
            }
            Watcher::Bpftrace => {
                let script = self.host.dir().join("sniff.bt");
                fs::write(&script, SNIFF.replace("LIBSSL", &openssl::library("libssl.so.3")?))?;
                let mut bpftrace = Command::new("bpftrace");
                bpftrace.env("BPFTRACE_STRLEN", "200").args(["-B", "full"]).arg(script);
                bpftrace
            }
        };
        command.current_dir(self.host.dir());
        let mut process = Proc::spawn(watcher.name(), &command, &log)?;
        match watcher {
            Watcher::Tcpdump => drop(process.wait_for_line("tcpdump: listening on", START_WAIT)?),
            Watcher::Nothing | Watcher::Keywatch | Watcher::AtCalls => {}
            Watcher::Bpftrace => process::wait_until("bpftrace attaches", START_WAIT, || {
                // It does not say when it has attached.
                self.call(server)?;
                Ok(process.output().contains("\nR "))
            })?,
        }
        Ok(Running::Other(process))
    }

    /// A single call.
    fn call(&self, server: SocketAddr) -> Result<()> {
        let mut curl = Command::new("curl");
        curl.env("LD_LIBRARY_PATH", &self.libraries).args(["-s", "-k", "-o", "/dev/null"]);
        process::run(curl.arg(format!("https://{server}/"))).map(drop)
    }

    /// Ends it; calls that it saw, and what it lost.
    fn stop(&self, watcher: Watcher, name: &str, running: Running) -> Result<(u64, u64)> {
        match running {
            Running::Nothing => Ok((0, 0)),
            Running::Agent(agent) => {
                let status = agent.stop()?;
                ensure!(status.success(), "keywatch ended with {status}");
                let summary = self.host.summary(name)?;
                let lost = ["/lost/bytes", "/lost/events", "/incomplete"];
                let lost = lost.iter().map(|it| count(&summary, it)).sum::<Result<u64>>()?;
                Ok((count(&summary, "/calls")?, lost))
            }
            Running::Other(mut process) => {
                process.signal(rustix::process::Signal::INT)?;
                process.wait(START_WAIT)?;
                let seen = match watcher {
                    Watcher::Bpftrace => lines_of(&self.log(name), "R ")?,
                    Watcher::Nothing | Watcher::Keywatch | Watcher::AtCalls | Watcher::Tcpdump => 0,
                };
                Ok((seen, said_to_be_lost(&process.output())))
            }
        }
    }

    fn log(&self, name: &str) -> PathBuf {
        self.host.dir().join(format!("{name}.log"))
    }
}

fn lines_of(file: &Path, prefix: &str) -> Result<u64> {
    let bytes = fs::read(file)?;
    let lines = bytes.split(|byte| *byte == b'\n');
    Ok(lines.filter(|line| line.starts_with(prefix.as_bytes())).count() as u64)
}

/// `12 packets dropped by kernel` of tcpdump, `Lost 12 events` of bpftrace.
fn said_to_be_lost(output: &str) -> u64 {
    let number = |line: &str| -> Option<u64> {
        let words = line.strip_suffix(" packets dropped by kernel");
        words.or_else(|| line.strip_prefix("Lost ")?.strip_suffix(" events"))?.parse().ok()
    };
    output.lines().filter_map(number).sum()
}

/// Of the latencies in a log of h2load: start, status, microseconds, parted by tabs.
fn percentiles(log: &Path) -> Result<(f64, f64)> {
    let text = fs::read_to_string(log)?;
    let latency = |line: &str| line.rsplit('\t').next()?.parse::<u64>().ok();
    let mut latencies: Vec<u64> =
        text.lines().map(latency).collect::<Option<_>>().context("reading h2load's log")?;
    ensure!(!latencies.is_empty(), "h2load made no call");
    latencies.sort_unstable();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize] as f64;
    Ok((at(0.5), at(0.99)))
}

fn print(
    options: &Options,
    paced: &[Vec<Paced>; Watcher::COUNT],
    ratios: &[Vec<f64>; Watcher::COUNT],
) {
    let of = |figure: fn(&Paced) -> f64| {
        paced.each_ref().map(|runs| median(&runs.iter().map(figure).collect::<Vec<_>>()))
    };
    let lost = ratios.each_ref().map(|ratios| (1.0 - median(ratios)) * 100.0);
    let ranges = ratios.each_ref().map(|ratios| {
        let (least, most) = range(ratios);
        format!("{least:.3}-{most:.3}")
    });
    let p99 = of(|run| run.p99_us);
    let shown = |figures: [f64; Watcher::COUNT]| figures.map(|figure| format!("{figure:.1}"));
    let sum = |figure: fn(&Paced) -> u64| {
        paced.each_ref().map(|runs| runs.iter().map(figure).sum::<u64>().to_string())
    };
    println!("\n{:<42}{}", "what", Watcher::ALL.map(|it| format!("{:>14}", it.name())).concat());
    let rows = [
        ("throughput lost, %", shown(lost)),
        ("  ratios, least to most", ranges),
        ("p50 at the steady rate, us", shown(of(|run| run.p50_us))),
        ("p99 at the steady rate, us", shown(p99)),
        ("nginx user time, us a call", shown(of(|run| run.server_user_us))),
        ("nginx kernel time, us a call", shown(of(|run| run.server_system_us))),
        ("its own user time, us a call", shown(of(|run| run.user_us))),
        ("its own kernel time, us a call", shown(of(|run| run.system_us))),
        ("calls in nginx's log", sum(|run| run.calls)),
        ("calls seen", sum(|run| run.seen)),
        ("said to be lost", sum(|run| run.lost)),
    ];
    for (what, figures) in rows {
        println!("{what:<42}{}", figures.map(|figure| format!("{figure:>14}")).concat());
    }
    let keywatch = &paced[1];
    let unseen: i64 = keywatch.iter().map(|run| run.calls as i64 - run.seen as i64).sum();
    let dropped: u64 = keywatch.iter().map(|run| run.lost).sum();
    table(&[
        ("throughput lost, %".into(), format!("{:.1}", lost[1]), "at most 8"),
        ("p99 added, us".into(), format!("{:.0}", p99[1] - p99[0]), ""),
        (
            format!("calls not seen, lost at {}/s", options.rate),
            format!("{unseen}, {dropped}"),
            "0, 0",
        ),
    ]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_read() {
        let tcpdump =
            "10 packets captured\n22 packets received by filter\n3 packets dropped by kernel\n";
        assert_eq!(said_to_be_lost(tcpdump), 3);
        assert_eq!(said_to_be_lost("Lost 41 events\nR 1 2 x\nLost 1 events\n"), 42);
        assert_eq!(said_to_be_lost("R 7 Lost 41 events\n"), 0);
    }

    #[test]
    fn percentiles_are_of_all_calls() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let lines: String = (1..=1000).map(|us| format!("1796041103333638\t200\t{us}\n")).collect();
        fs::write(&log, lines).unwrap();
        assert_eq!(percentiles(&log).unwrap(), (500.0, 990.0));
        fs::write(&log, "what is this").unwrap();
        assert!(percentiles(&log).is_err());
    }
}
