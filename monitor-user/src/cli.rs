//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;

use crate::config::LogLevel;

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
    Run(RunArgs),

    /// Read captured packets and report as if they came now
    ///
    /// Files are pcap or pcapng, also compressed with gzip, zstd, xz or bzip2, whatever their
    /// names say; all are read in the order given as one stream, `-` is stdin. Of a folder every
    /// capture in it is read, by name. Output files are overwritten. Without --calls and --alerts,
    /// alerts go to stdout. Files and Kafka in the config are left alone unless --publish is given.
    #[command(after_help = "Examples:
  keywatch replay capture.pcap
  keywatch replay --port 8080 --calls - monday.pcapng.gz tuesday.pcapng.gz | jq .request
  keywatch replay --alerts alerts.jsonl /var/captures
  find /var/captures -newer last-run -name '*.pcap*' | sort | keywatch replay --files-from -")]
    Replay(ReplayArgs),

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

    /// Send calls and alerts to the config's Kafka too
    #[arg(long)]
    pub publish: bool,
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
}
