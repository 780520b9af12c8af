//! The command line of `keywatch tail`.

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};
use monitor_core::alert::Severity;

/// Arguments of `tail`.
#[derive(Debug, Default, Args)]
pub struct TailArgs {
    /// File of alerts, one a line (`-`: stdin)
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,

    /// Go on when the end of the file is reached, also when it is rotated
    #[arg(short, long, requires = "file")]
    pub follow: bool,

    /// From Kafka: all that it has, not only what comes from now on
    #[arg(long, conflicts_with = "file")]
    pub all: bool,

    /// From Kafka: end when everything that is there was shown
    #[arg(long, conflicts_with = "file")]
    pub once: bool,

    /// The least severe that are shown
    #[arg(long, value_name = "LEVEL")]
    pub severity: Option<Least>,

    /// Alerts about this key or address: its id or the first digits of it; repeatable
    #[arg(long = "key", value_name = "KEY")]
    pub keys: Vec<String>,

    /// Alerts with a finding of this detector, such as D3; repeatable
    #[arg(long = "detector", value_name = "ID")]
    pub detectors: Vec<String>,

    /// Alerts of this host; repeatable
    #[arg(long = "host", value_name = "HOST")]
    pub hosts: Vec<String>,

    /// When to use colours [default: on a terminal]
    #[arg(long, value_name = "WHEN", default_value = "auto", hide_default_value = true)]
    pub color: ColorChoice,
}

/// A severity on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Least {
    /// Worth knowing.
    Low,
    /// Look today.
    Medium,
    /// Look now.
    High,
    /// Act now.
    Critical,
}

impl From<Least> for Severity {
    fn from(least: Least) -> Severity {
        match least {
            Least::Low => Severity::Low,
            Least::Medium => Severity::Medium,
            Least::High => Severity::High,
            Least::Critical => Severity::Critical,
        }
    }
}

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}
