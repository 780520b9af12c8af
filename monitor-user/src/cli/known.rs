//! Commands about keys, alerts, policies and profiles: what is known, and what is said of it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueHint};

use super::duration;

/// What to do with the baseline.
#[derive(Debug, Subcommand)]
pub enum BaselineCommand {
    /// List the keys that are known
    #[command(after_help = "Example:
  keywatch baseline list")]
    List {
        /// Which baseline.
        #[command(flatten)]
        file: BaselineFile,
    },
    /// Show what is known of a key, as JSON
    #[command(after_help = "Example:
  keywatch baseline show k_1f2e3d4c")]
    Show {
        /// Its id or the first digits of it
        #[arg(value_name = "KEY")]
        key: String,
        /// Which baseline.
        #[command(flatten)]
        file: BaselineFile,
    },
    /// Write the state of every key as JSON lines, for another host
    ///
    /// Key ids are the same on another host only under the same secret.
    #[command(after_help = "Example:
  keywatch baseline export keys.jsonl")]
    Export {
        /// Where to (`-`: stdout)
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        to: PathBuf,
        /// Which baseline.
        #[command(flatten)]
        file: BaselineFile,
    },
    /// Read what `export` wrote; it replaces what is known of those keys
    ///
    /// Only while no agent writes the baseline.
    #[command(after_help = "Example:
  keywatch baseline import keys.jsonl")]
    Import {
        /// Where from (`-`: stdin)
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        from: PathBuf,
        /// Which baseline.
        #[command(flatten)]
        file: BaselineFile,
    },
}

/// What to do with alerts.
#[derive(Debug, Subcommand)]
pub enum AlertCommand {
    /// List alerts of the last three weeks, oldest first
    #[command(after_help = "Example:
  keywatch alert list")]
    List {
        /// Which baseline.
        #[command(flatten)]
        file: BaselineFile,
    },
    /// Say that an alert was of no interest
    ///
    /// What was found counts as in order for that key: its network is known, what it did is known, such a
    /// rate is usual. The same detectors are quiet about it for a day, and weigh less from then on.
    #[command(after_help = "Example:
  keywatch alert dismiss a_0123456789abcdef --reason 'the owner moved'")]
    Dismiss {
        /// Its id
        #[arg(value_name = "ALERT")]
        alert: String,
        /// Why, for those who ask later
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// Which baseline.
        #[command(flatten)]
        file: BaselineFile,
    },
    /// Hear nothing of a key for a while
    #[command(after_help = "Examples:
  keywatch alert mute k_1f2e3d4c --for 2h
  keywatch alert mute k_1f2e3d4c --detector D5")]
    Mute {
        /// Its id or the first digits of it
        #[arg(value_name = "KEY")]
        key: String,
        /// How long, such as 2h or 7d; 0 undoes it
        #[arg(long = "for", value_name = "TIME", value_parser = duration, default_value = "7d")]
        time: Duration,
        /// Of this detector alone, such as D5
        #[arg(long, value_name = "ID")]
        detector: Option<String>,
        /// Which baseline.
        #[command(flatten)]
        file: BaselineFile,
    },
}

/// Which baseline.
#[derive(Debug, Default, Args)]
pub struct BaselineFile {
    /// The baseline [default: as the config says]
    #[arg(long = "baseline", value_name = "BASELINE", value_hint = ValueHint::FilePath)]
    pub path: Option<PathBuf>,
}

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Print the id of a raw key that is read from stdin
    ///
    /// The key stands on the first line, so that it comes into no list of processes and no history of
    /// a shell. Its id is the one that calls and alerts carry under the same secret; of a JSON web token
    /// it is that of its subject.
    #[command(after_help = "Examples:
  keywatch keys hash < key-file
  systemd-ask-password 'Key:' | keywatch keys hash --secret-file identity.secret")]
    Hash {
        /// Secret under which keys are hashed [default: as the config says]
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        secret_file: Option<PathBuf>,
    },
    /// List keys: when they were last seen, what they do and from where
    ///
    /// Keys of the policy and the registry that were not seen are listed too.
    #[command(after_help = "Example:
  keywatch keys list --calls calls.jsonl")]
    List(UsageArgs),
    /// Show one key: what it did, and what it may do and never did
    #[command(after_help = "Example:
  keywatch keys show k_1f2e3d4c --calls calls.jsonl --policy policy.toml")]
    Show {
        /// Its id, or the beginning of it
        #[arg(value_name = "KEY")]
        key: String,
        /// Which calls.
        #[command(flatten)]
        usage: UsageArgs,
    },
    /// List what keys may do and never did: the least that they need
    ///
    /// By the operations that the policy or the registry gives them. A key of which nothing is said is not
    /// listed.
    #[command(after_help = "Example:
  keywatch keys unused --calls last-month.jsonl --registry keys.csv")]
    Unused(UsageArgs),
}

/// Which calls `keys` looks at.
#[derive(Debug, Args)]
pub struct UsageArgs {
    /// Calls that --calls wrote earlier; repeatable
    #[arg(long, value_name = "FILE", required = true, value_hint = ValueHint::FilePath)]
    pub calls: Vec<PathBuf>,

    /// Policy [default: as the config says]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub policy: Option<PathBuf>,

    /// Registry of keys: a file or an address [default: as the config says]
    #[arg(long, value_name = "PLACE")]
    pub registry: Option<String>,

    /// JSON lines
    #[arg(long)]
    pub json: bool,
}

/// What to do with the secret.
#[derive(Debug, Subcommand)]
pub enum SecretCommand {
    /// List the secret in use and those before it, by a check value that hosts can be compared by
    ///
    /// No secret is shown, nor anything that it could be found by.
    #[command(after_help = "Example:
  keywatch secret show")]
    Show {
        /// The file [default: as the config says]
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        secret_file: Option<PathBuf>,
    },
    /// Make a new secret: every key has another id from then on
    ///
    /// The one in use is kept for a time, so that keys are known again: what was learnt of them, what the
    /// policy and the registry say of them, and what people said of their alerts follows them to their new
    /// ids. Agents take the new secret at SIGHUP; hosts that share one need the same file.
    #[command(after_help = "Examples:
  keywatch secret rotate && systemctl kill -s HUP keywatch
  keywatch secret rotate --keep 0s   # it is known to others: keys begin anew")]
    Rotate {
        /// The file [default: as the config says]
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        secret_file: Option<PathBuf>,
        /// How long the one in use is kept, such as 90d; 0s: not at all, nor those before it [default: as the config says]
        #[arg(long, value_name = "TIME", value_parser = duration)]
        keep: Option<Duration>,
    },
}

/// What to do with policies.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Check a policy; with --against, say what captured traffic breaks
    ///
    /// Only calls that went well break a policy. Keys that neither the policy nor the registry names are
    /// listed too.
    #[command(after_help = "Examples:
  keywatch policy check policy.toml
  keywatch policy check policy.toml --registry keys.csv --port 8080 --against capture.pcap")]
    Check {
        /// The policy
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// Capture or folder of captures; repeatable
        #[arg(long, value_name = "CAPTURE", value_hint = ValueHint::AnyPath)]
        against: Vec<PathBuf>,
        /// Registry of keys: a file or an address [default: as the config says]
        #[arg(long, value_name = "PLACE")]
        registry: Option<String>,
        /// Server port; repeatable; replaces the config's ports
        #[arg(long = "port", value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
        ports: Vec<u16>,
        /// Secret under which keys are hashed [default: as the config says]
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        secret_file: Option<PathBuf>,
    },
}

/// What to do with profiles.
#[derive(Debug, Subcommand)]
pub enum ProfileCommand {
    /// List the profiles in order of precedence
    #[command(after_help = "Example:
  keywatch profile list")]
    List,
    /// Print a profile as it stands in its file
    #[command(after_help = "Example:
  keywatch profile show binance > ours.toml")]
    Show {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Check a profile; with --against, say what it makes of captured traffic
    ///
    /// What matched, what did not, requests that fall to no profile, and fields that look like secrets
    /// and are not declared. No value of any field is shown.
    #[command(after_help = "Examples:
  keywatch profile check ours.toml
  keywatch profile check ours.toml --port 8080 --against capture.pcap")]
    Check {
        /// The profile
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// Capture or folder of captures; repeatable
        #[arg(long, value_name = "CAPTURE", value_hint = ValueHint::AnyPath)]
        against: Vec<PathBuf>,
        /// Server port; repeatable; replaces the config's ports
        #[arg(long = "port", value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
        ports: Vec<u16>,
    },
}
