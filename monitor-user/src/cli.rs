//! The command line.

mod known;

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;

pub use known::{
    AlertCommand, BaselineCommand, BaselineFile, KeysCommand, PolicyCommand, ProfileCommand,
    SecretCommand, UsageArgs,
};

use crate::config::LogLevel;
use crate::simulate::SimulateArgs;
use crate::tail::args::TailArgs;

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 wrong use or config.";

/// Watches the traffic of an API server and reports stolen API keys.
///
/// Nothing is inserted between client and server: Keywatch only watches.
#[derive(Debug, Parser)]
#[command(name = "keywatch", version, after_help = EXIT_CODES, propagate_version = true)]
pub struct Cli {
    /// Config file [default: /etc/keywatch/keywatch.toml if it is there]
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,

    /// Say more on stderr (-v: debug, -vv: trace)
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,

    /// Say only what went wrong
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Form of the log lines on stderr [default: text, or what the config says]
    #[arg(long, global = true, value_name = "FORM")]
    pub log_format: Option<LogFormat>,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch the live traffic of this host
    ///
    /// Needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN; `keywatch doctor` says what is missing. Stops
    /// on SIGTERM or SIGINT after everything captured is decoded, written and flushed; a second
    /// signal stops it at once. Files are appended to. Without --calls, --alerts and files in the
    /// config, alerts go to stdout.
    #[command(after_help = "Examples:
  keywatch run --port 8080
  keywatch run --port 8080 --port 8443 --calls calls.jsonl --alerts -
  keywatch run --config keywatch.toml --history last-week.jsonl")]
    Run(Box<RunArgs>),

    /// Write the live traffic of this host to a file, for a later replay
    ///
    /// Captures as `keywatch run` does and needs the same rights. The file is pcapng, for Wireshark
    /// as well; a replay of it gives the calls and alerts that the live run would have given. It
    /// holds traffic as it is, with every credential in it, and is made readable for its owner alone
    /// (mode 0600). A file that is there already is never overwritten.
    ///
    /// With --rotate-size or --rotate-time, files are numbered: traffic.000001.pcapng and so on,
    /// after those which are there. Each can be replayed alone, and all of them in order as one.
    #[command(after_help = "Examples:
  keywatch record --port 8080 --out traffic.pcapng
  keywatch record --port 8080 --out traffic.pcapng.zst --rotate-size 100MB --keep 20
  keywatch record --port 8080 --out - | wireshark -k -i -
  keywatch replay traffic.*.pcapng.zst")]
    Record(RecordArgs),

    /// Read captured packets and report as if they came now
    ///
    /// Files are pcap or pcapng, also compressed with gzip, zstd, xz or bzip2, whatever their
    /// names say; all are read in the order given as one stream, `-` is stdin. Of a folder every
    /// capture in it is read, by name. Recordings are replayed as they were live, with processes and
    /// losses.
    ///
    /// Without --calls, --connections and --alerts, a table of calls and alerts goes to stdout; as
    /// JSON lines they come with --calls - and --alerts -. The summary goes to stderr. Output files
    /// are overwritten. Sinks in the config are left alone unless --publish is given; then all but
    /// [sinks.jsonl] are used.
    ///
    /// Options that select, such as --key and --host, say which calls, connections and alerts are
    /// shown, written and summed up. Of each kind any, of all kinds every must fit. Detection still
    /// sees every call; alerts are selected by key and time only.
    #[command(after_help = "Examples:
  keywatch replay capture.pcap
  keywatch replay --key k_1f2e3d4c --since +10m --until +20m capture.pcap
  keywatch replay --port 8080 --calls - monday.pcapng.gz tuesday.pcapng.gz | jq .request
  keywatch replay --alerts alerts.jsonl /var/captures
  find /var/captures -newer last-run -name '*.pcap*' | sort | keywatch replay --files-from -
  keywatch replay --keylog keys.log --calls - capture.pcap
  keywatch replay --extract f_0123456789abcdef --out flow.pcapng capture.pcap")]
    Replay(Box<ReplayArgs>),

    /// Run the Engine over the calls that all hosts send to Kafka
    ///
    /// Members share the partitions of the topic of calls: start as many as needed, on any hosts, with one
    /// config. Alerts go to the topic of alerts, each once, whichever member dies. Agents have to send
    /// calls in a form that can be read back: activity_format = "compact" under [sinks.kafka]. Stops on
    /// SIGTERM or SIGINT.
    #[command(after_help = "Examples:
  keywatch fleet --config fleet.toml
  keywatch fleet --config fleet.toml --member second --duration 1h")]
    Fleet(FleetArgs),

    /// Show alerts as they arrive in Kafka, or those of a file
    ///
    /// Reads Keywatch's own JSON, OCSF and ECS. Without FILE, the alerts of the config's Kafka. An alert
    /// that was delivered twice is shown once.
    #[command(after_help = "Examples:
  keywatch tail --config keywatch.toml
  keywatch tail --all --once --severity high
  keywatch tail --follow --key k_1f2e3d4c alerts.jsonl")]
    Tail(TailArgs),

    /// Write calls of a simulated exchange, and the truth about the attacks in them
    ///
    /// Calls are JSON lines as those of `keywatch replay --calls`, in order of time, from 2026-11-02 on;
    /// `keywatch run --history` learns from them. What customers and attackers do, and where the figures
    /// come from, is in docs/accuracy.md. With --pcap they are a capture file that `keywatch replay` reads.
    #[command(after_help = "Examples:
  keywatch simulate --days 2 --keys 50 --labels truth.jsonl -o calls.jsonl
  keywatch simulate --attacks theft_spike,path_scan | jq .op
  keywatch simulate --days 1 --keys 50 --pcap exchange.pcapng --labels truth.jsonl
  keywatch simulate --days 1 --keys 50 --against http://127.0.0.1:8080 --speed 60")]
    Simulate(SimulateArgs),

    /// Check whether this host is ready for `keywatch run`
    ///
    /// One line for each check: ok, warn or fail, what was found, and what to do about it.
    #[command(after_help = "Examples:
  keywatch doctor
  keywatch doctor --port 8443 --json")]
    Doctor(DoctorArgs),

    /// Check a config file; with -v, print what is in effect
    #[command(after_help = "Examples:
  keywatch check-config /etc/keywatch/keywatch.toml
  keywatch check-config -v keywatch.toml")]
    CheckConfig {
        /// The file
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },

    /// List, show or check profiles: how API styles are read
    ///
    /// A profile is a TOML file: where an API has its keys and secrets, what its paths and messages
    /// do, and how its replies say what came of them. Those that come with Keywatch are listed here;
    /// `profiles` in the config names a folder of others.
    #[command(
        subcommand,
        after_help = "Examples:
  keywatch profile list
  keywatch profile show binance > ours.toml
  keywatch profile check ours.toml --against capture.pcap"
    )]
    Profile(ProfileCommand),

    /// What was learnt of every API key: show, list, export or import it
    ///
    /// `keywatch run` keeps it in a file: baseline.redb in the state directory, or as `[baseline]` in the
    /// config says. It is read between the writes of an agent that runs; what is shown is at most a minute
    /// old.
    #[command(
        subcommand,
        after_help = "Examples:
  keywatch baseline list
  keywatch baseline show k_1f2e3d4c
  keywatch baseline export - | zstd > baseline.jsonl.zst"
    )]
    Baseline(BaselineCommand),

    /// Alerts that were raised: list them, dismiss one, or mute a key
    ///
    /// An agent that runs takes what is said here within a minute, or at SIGHUP; one that starts later takes
    /// it then.
    #[command(
        subcommand,
        after_help = "Examples:
  keywatch alert list
  keywatch alert dismiss a_0123456789abcdef --reason 'the owner moved to another provider'
  keywatch alert mute k_1f2e3d4c --for 7d --detector D5"
    )]
    Alert(AlertCommand),

    /// Check a policy: what keys and hosts may do
    #[command(
        subcommand,
        after_help = "Example:
  keywatch policy check policy.toml --against capture.pcap"
    )]
    Policy(PolicyCommand),

    /// Ids of API keys, and what keys do
    #[command(subcommand)]
    Keys(KeysCommand),

    /// The secret under which keys are hashed: what there is, or a new one
    #[command(subcommand)]
    Secret(SecretCommand),

    /// Print a completion script for a shell
    #[command(after_help = "Example:
  keywatch completions bash > /usr/share/bash-completion/completions/keywatch")]
    Completions {
        /// The shell
        shell: Shell,
    },

    /// Print the manual page
    #[command(after_help = "Example:
  keywatch man | man -l -")]
    Man,
}

/// What `run` and `replay` have in common.
#[derive(Debug, Default, Args)]
pub struct CommonArgs {
    /// Server port to watch; repeatable; replaces the config's ports
    #[arg(long = "port", value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub ports: Vec<u16>,

    /// Write every API call as a JSON line to FILE (`-`: stdout)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub calls: Option<PathBuf>,

    /// Write every connection that is over as a JSON line to FILE (`-`: stdout)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub connections: Option<PathBuf>,

    /// Write every alert as a JSON line to FILE (`-`: stdout)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub alerts: Option<PathBuf>,

    /// Learn from calls that --calls wrote earlier, before starting; repeatable
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub history: Vec<PathBuf>,

    /// Secret under which API keys are hashed; made when it is not there
    ///
    /// 64 hexadecimal digits, mode 0600. The same secret gives the same key ids.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub secret_file: Option<PathBuf>,

    /// Form of the summary on stderr at the end
    #[arg(long, value_name = "FORM", default_value = "text")]
    pub summary: SummaryForm,
}

/// Arguments of `run`.
#[derive(Debug, Default, Args)]
pub struct RunArgs {
    /// Shared with `replay`.
    #[command(flatten)]
    pub common: CommonArgs,

    /// Shared with `record`.
    #[command(flatten)]
    pub live: LiveArgs,

    /// Record the traffic, too: pcapng with every credential in it, mode 0600
    ///
    /// As `keywatch record` does. A replay of it with the same config and secret gives the same
    /// calls, connections and alerts, byte by byte.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub record: Option<PathBuf>,

    /// How to record.
    #[command(flatten)]
    pub recording: RecordingArgs,

    /// Where what is learnt is kept [default: as the config says]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub baseline: Option<PathBuf>,
}

/// What `run` and `record` have in common.
#[derive(Debug, Default, Args)]
pub struct LiveArgs {
    /// cgroup v2 directory to watch [default: the root of the hierarchy]
    #[arg(long, value_name = "PATH", value_hint = ValueHint::DirPath)]
    pub cgroup: Option<PathBuf>,

    /// Log of the kernel programs: off, error, warn, info, debug or trace [default: off]
    #[arg(long, value_name = "LEVEL")]
    pub kernel_log: Option<LogLevel>,

    /// Stop after this long, such as 90, 90s or 15m
    #[arg(long, value_name = "SECONDS", value_parser = duration)]
    pub duration: Option<Duration>,
}

/// How a recording is written.
#[derive(Debug, Default, Args)]
#[group(id = "recording_args", multiple = true)]
pub struct RecordingArgs {
    /// Begin another file of the recording after so many bytes, such as 100MB or 1GiB
    ///
    /// Counted before compression.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub rotate_size: Option<u64>,

    /// Begin another file of the recording after so long, such as 10m or 1h
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub rotate_time: Option<Duration>,

    /// Keep the newest N files of the recording and delete older ones
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub keep: Option<u64>,

    /// Compress the recording; also when its name ends in .zst
    #[arg(long)]
    pub zstd: bool,
}

/// Arguments of `fleet`.
#[derive(Debug, Default, Args)]
pub struct FleetArgs {
    /// What tells this member from others [default: as the config says, else the name of this host]
    #[arg(long, value_name = "NAME")]
    pub member: Option<String>,

    /// Stop after this long, such as 90, 90s or 15m
    #[arg(long, value_name = "SECONDS", value_parser = duration)]
    pub duration: Option<Duration>,
}

/// Arguments of `record`.
#[derive(Debug, Default, Args)]
pub struct RecordArgs {
    /// Where to (`-`: stdout)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub out: PathBuf,

    /// Server port to watch; repeatable; replaces the config's ports
    #[arg(long = "port", value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub ports: Vec<u16>,

    /// How to record.
    #[command(flatten)]
    pub recording: RecordingArgs,

    /// Shared with `run`.
    #[command(flatten)]
    pub live: LiveArgs,
}

/// Arguments of `replay`.
#[derive(Debug, Default, Args)]
pub struct ReplayArgs {
    /// Captures or folders of them, in order (`-`: stdin)
    #[arg(
        value_name = "FILE",
        required_unless_present = "files_from",
        value_hint = ValueHint::AnyPath
    )]
    pub files: Vec<PathBuf>,

    /// After these, read those named in LIST (`-`: stdin), one path a line
    #[arg(long, value_name = "LIST", value_hint = ValueHint::FilePath)]
    pub files_from: Option<PathBuf>,

    /// Shared with `run`.
    #[command(flatten)]
    pub common: CommonArgs,

    /// Decrypt TLS with the secrets in FILE, an NSS key log (SSLKEYLOGFILE); repeatable
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub keylog: Vec<PathBuf>,

    /// Begin with what a live run has learnt; the file is not changed
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub baseline: Option<PathBuf>,

    /// Send calls and alerts to the config's sinks too, such as Kafka
    #[arg(long)]
    pub publish: bool,

    /// Print the table on stdout, also when records are written elsewhere
    #[arg(long, overrides_with = "no_table")]
    pub table: bool,

    /// Print no table
    #[arg(long, overrides_with = "table")]
    pub no_table: bool,

    /// What is shown, written and summed up.
    #[command(flatten)]
    pub select: SelectArgs,

    /// Write one connection's traffic to --out and nothing else
    ///
    /// As pcapng when --out ends in .pcapng: its packets; else as a folder with its bytes in order,
    /// client.bin and server.bin; with the secrets of --keylog also what TLS held, client.plain.bin and
    /// server.plain.bin. Either holds traffic as it is, with every credential in it, and is
    /// made readable for its owner alone (mode 0600).
    #[arg(long, value_name = "FLOW", requires = "out", conflicts_with_all = ["publish", "table"])]
    pub extract: Option<String>,

    /// Where --extract writes to: FILE.pcapng or a folder
    #[arg(long, value_name = "PATH", requires = "extract", value_hint = ValueHint::AnyPath)]
    pub out: Option<PathBuf>,
}

/// Which records are shown, written and summed up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Select")]
pub struct SelectArgs {
    /// Calls with this key: its id or the first digits of it; repeatable
    #[arg(long = "key", value_name = "KEY")]
    pub keys: Vec<String>,

    /// Calls to this host, or to those below a domain (.example.com); repeatable
    #[arg(long = "host", value_name = "HOST")]
    pub hosts: Vec<String>,

    /// From this time on: 2026-11-23T20:00:00Z, or +10m from the capture's start
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,

    /// Before this time
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,

    /// Calls of this protocol, such as http/1.1 or websocket; repeatable
    #[arg(long = "protocol", value_name = "NAME")]
    pub protocols: Vec<String>,

    /// Calls on this connection, by its id (f_...); repeatable
    #[arg(long = "flow", value_name = "FLOW")]
    pub flows: Vec<String>,

    /// Calls with this status: 404, 5xx or 400-499; repeatable
    #[arg(long = "status", value_name = "STATUS")]
    pub statuses: Vec<String>,

    /// Calls of this operation, such as withdraw; repeatable
    #[arg(long = "op", value_name = "NAME")]
    pub ops: Vec<String>,

    /// Calls with this outcome, such as bad_key; repeatable
    #[arg(long = "outcome", value_name = "NAME")]
    pub outcomes: Vec<String>,

    /// Calls whose path begins so; repeatable
    #[arg(long = "path", value_name = "PREFIX")]
    pub paths: Vec<String>,

    /// Calls with this anomaly, such as gap; repeatable
    #[arg(long = "anomaly", value_name = "NAME")]
    pub anomalies: Vec<String>,
}

/// Arguments of `doctor`.
#[derive(Debug, Default, Args)]
pub struct DoctorArgs {
    /// Server port to check; repeatable; replaces the config's ports
    #[arg(long = "port", value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub ports: Vec<u16>,

    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// Form of the log.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines: one object a line.
    Json,
}

/// Form of the summary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SummaryForm {
    /// For people; not with --quiet.
    #[default]
    Text,
    /// One JSON object on one line.
    Json,
    /// None.
    Off,
}

fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(secs) = text.parse() {
        return Ok(Duration::from_secs(secs));
    }
    humantime::parse_duration(text).map_err(|error| error.to_string())
}

/// Bytes: a whole number and a unit, of a thousand or of 1024.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = match unit.trim_start() {
        "" | "B" => Some(1),
        "kB" | "KB" => Some(1_000),
        "MB" => Some(1_000_000),
        "GB" => Some(1_000_000_000),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        _ => None,
    };
    let number: Option<u64> = number.parse().ok();
    number
        .zip(unit)
        .and_then(|(number, unit)| number.checked_mul(unit))
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| "write a whole number and B, kB, MB, GB, KiB, MiB or GiB".into())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_are_seconds_or_have_a_unit() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("15m"), Ok(Duration::from_secs(900)));
        assert!(duration("soon").is_err());
    }

    #[test]
    fn sizes_have_units_of_both_kinds() {
        for (text, bytes) in [("7", 7), ("100MB", 100_000_000), ("1GiB", 1 << 30), ("2 KiB", 2048)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "MB", "0", "0MB", "1.5MB", "-1", "1TB", "99999999999GiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
