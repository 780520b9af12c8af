//! From the parsed command line to the work: config found, log set up, parts joined.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::CommandFactory;
use monitor_core::decode::Decoder;
use monitor_core::engine::Engine;
use monitor_core::identity::{Identifier, Proxies, Secret};
use tracing_subscriber::EnvFilter;

use crate::baseline::{self, Baseline};
use crate::capture::Ports;
use crate::cli::{Cli, Command, CommonArgs, LogFormat, SummaryForm};
use crate::config::{self, Config, LogLevel, Port, TrustedProxy};
use crate::driver::Driver;
use crate::fault::{Misuse, tell, write_stderr};
use crate::sinks::{OnFailure, Sinks, WhenFull, file, jsonl, kafka, syslog, webhook};
use crate::{
    doctor, fleet, history, keys, policy, profiles, record, replay, run, secret, simulate, tail,
};

/// Does what the command line says.
pub(crate) fn dispatch(cli: Cli) -> Result<()> {
    match &cli.command {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "keywatch", &mut script);
            print(&script)
        }
        Command::Simulate(args) => {
            let secret = if args.needs_secret() {
                let path = secret::path(args.secret_file.as_deref(), &load_config(&cli)?);
                Some(secret::load_or_make(&path, secret::Count::All)?)
            } else {
                None
            };
            simulate::simulate(args, secret, cli.quiet)
        }
        Command::Man => print(&manual()?),
        Command::CheckConfig { file } => check_config(file, cli.verbose > 0),
        Command::Profile(what) => {
            let config = load_config(&cli)?;
            start_log(&cli, &config);
            profiles::command::profile(what, &config)
        }
        Command::Baseline(what) => {
            let config = load_config(&cli)?;
            start_log(&cli, &config);
            baseline::command::baseline(what, &config)
        }
        Command::Alert(what) => baseline::command::alert(what, &load_config(&cli)?),
        Command::Policy(what) => {
            let config = load_config(&cli)?;
            start_log(&cli, &config);
            policy::command::policy(what, &config)
        }
        Command::Secret(what) => secret::command::secret(what, &load_config(&cli)?),
        Command::Keys(what) => keys::keys(what, &load_config(&cli)?),
        Command::Run(args) => {
            let config = load_config(&cli)?;
            start_log(&cli, &config);
            run::run(args, &config, cli.quiet)
        }
        Command::Record(args) => {
            let config = load_config(&cli)?;
            start_log(&cli, &config);
            record::command::record(args, &config, cli.quiet)
        }
        Command::Replay(args) => {
            let config = load_config(&cli)?;
            start_log(&cli, &config);
            replay::command::replay(args, &config, cli.quiet)
        }
        Command::Fleet(args) => {
            let config = load_config(&cli)?;
            start_log(&cli, &config);
            fleet::fleet(args, &config, cli.quiet)
        }
        Command::Tail(args) => {
            let config = load_config(&cli)?;
            start_log(&cli, &config);
            tail::tail(args, &config)
        }
        Command::Doctor(args) => {
            let config = load_config(&cli)?;
            start_log(&cli, &config);
            doctor::doctor(args, &config)
        }
    }
}

/// Writes to stdout; a reader that has gone is fine.
pub(crate) fn print(text: &[u8]) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write to stdout"),
    }
}

/// Where records of a run go.
pub(crate) struct Outputs {
    pub(crate) calls: Option<PathBuf>,
    pub(crate) alerts: Option<PathBuf>,
    pub(crate) connections: Option<PathBuf>,
    pub(crate) baseline: Baseline,
    pub(crate) opening: jsonl::Opening,
    pub(crate) on_failure: OnFailure,
    pub(crate) secrets: secret::Count,
}

/// With the profiles and proxies of the config.
pub(crate) fn identifier(secret: Secret, config: &Config) -> Result<Identifier> {
    let mut identifier = Identifier::new(secret);
    if let Some(dir) = &config.identity.profiles {
        identifier.set_profiles(profiles::load(dir)?);
    }
    let networks = config.identity.trusted_proxies.iter().map(TrustedProxy::network);
    identifier.set_proxies(Proxies::new(networks.collect()));
    Ok(identifier)
}

/// With the limits of the config.
pub(crate) fn decoder(identifier: Identifier, ports: &[u16], config: &Config) -> Result<Decoder> {
    let decoder = Decoder::new((&config.limits).into(), identifier, ports);
    Ok(decoder.with_hash_seed(secret::random_seed()?))
}

/// Joins Decoder, Engine and file sinks. Reads the secret and the history.
pub(crate) fn driver(
    args: &CommonArgs,
    config: &Config,
    ports: &[u16],
    outputs: &Outputs,
) -> Result<Driver> {
    let secret_file = secret::path(args.secret_file.as_deref(), config);
    let secret = secret::load_or_make(&secret_file, outputs.secrets)?;
    let settings = config.engine_settings();
    let mut engine = Engine::new(settings.clone());
    let keeper = match &outputs.baseline {
        Baseline::None => None,
        Baseline::Read(path) => {
            baseline::read(path, &mut engine)?;
            None
        }
        Baseline::Keep(path) => baseline::open(path, &mut engine, || Engine::new(settings))?,
    };
    for path in &args.history {
        let calls = history::learn(&mut engine, path)?;
        tracing::info!(calls, file = %path.display(), "learnt from history");
    }
    let sinks = jsonl::open(
        [outputs.calls.as_deref(), outputs.alerts.as_deref(), outputs.connections.as_deref()],
        outputs.opening,
    )?;
    let decoder = decoder(identifier(secret, config)?, ports, config)?;
    let mut driver = Driver::new(decoder, engine, Sinks::new(sinks, outputs.on_failure));
    driver.read_again(config.identity.profiles.clone(), secret_file);
    if let Some(keeper) = keeper {
        driver.keep(keeper);
    }
    if let Some(source) = policy::Source::open(&config.policy)? {
        driver.set_policy(source);
    }
    Ok(driver)
}

/// Whether the config names any sink that `run` and `--publish` use.
pub(crate) fn has_sinks(sinks: &config::Sinks) -> bool {
    !sinks.kafka.brokers.is_empty()
        || sinks.file.path.is_some()
        || !sinks.stdout.kinds.is_empty()
        || !sinks.syslog.address.is_empty()
        || !sinks.webhook.url.is_empty()
}

/// Adds the sinks that the config names. Starts threads, which keep the rights that this thread has
/// now.
pub(crate) fn add_sinks(driver: &mut Driver, config: &Config, when_full: WhenFull) -> Result<()> {
    let sinks = &config.sinks;
    let host = config.engine_settings().host;
    let spools = sinks.spool.dir.clone().unwrap_or_else(|| secret::state_dir().join("spool"));
    if let Some(path) = &sinks.file.path {
        driver.add_sink(Box::new(file::Lines::file(&sinks.file, path, &host)?));
    }
    if !sinks.stdout.kinds.is_empty() {
        driver.add_sink(Box::new(file::Lines::stdout(&sinks.stdout, &host)));
    }
    if !sinks.kafka.brokers.is_empty() {
        driver.add_sink_first(kafka::open(sinks, &spools, &host, when_full)?);
    }
    if !sinks.syslog.address.is_empty() {
        driver.add_sink_first(syslog::open(sinks, &spools, &host, when_full)?);
    }
    if !sinks.webhook.url.is_empty() {
        driver.add_sink_first(webhook::open(sinks, &spools, &host, when_full)?);
    }
    Ok(())
}

/// Every server's port, here or elsewhere: see [`watched`].
pub(crate) fn ports(args: &[u16], config: &Config) -> Vec<u16> {
    watched(args, config).all()
}

/// The ports of the command line, else those of the config; and those that are called elsewhere.
pub(crate) fn watched(args: &[u16], config: &Config) -> Ports {
    let numbers = |ports: &[Port]| ports.iter().map(|port| (*port).into()).collect();
    let mut own: Vec<u16> = match args {
        [] => numbers(&config.capture.ports),
        args => args.to_vec(),
    };
    own.sort_unstable();
    own.dedup();
    Ports { own, called: numbers(&config.capture.outbound_ports) }
}

/// Ends a run: the summary on stderr in the form that was asked for.
pub(crate) fn summarise(driver: &mut Driver, form: SummaryForm, quiet: bool) {
    let counters = driver.counters().clone();
    let summary = driver.summary();
    match form {
        SummaryForm::Text if quiet => {}
        SummaryForm::Text => write_stderr(&summary.text(&counters)),
        SummaryForm::Json => write_stderr(&format!("{}\n", summary.json(&counters))),
        SummaryForm::Off => {}
    }
}

fn load_config(cli: &Cli) -> Result<Config> {
    let path = match &cli.config {
        Some(path) => path,
        None if Path::new(config::DEFAULT_PATH).exists() => Path::new(config::DEFAULT_PATH),
        None => return Ok(Config::default()),
    };
    config::load(path).map_err(|config::Faults(faults)| {
        let (last, others) = match faults.split_last() {
            Some((last, others)) => (last.clone(), others),
            None => (String::new(), &[][..]),
        };
        for fault in others {
            tell(fault);
        }
        Misuse(last).into()
    })
}

fn check_config(file: &Path, show: bool) -> Result<()> {
    let cli = Cli {
        config: Some(file.into()),
        verbose: 0,
        quiet: false,
        log_format: None,
        command: Command::Man,
    };
    let config = load_config(&cli)?;
    let mut text = format!("{}: ok\n", file.display());
    if show {
        text.push_str(&config.show());
    }
    print(text.as_bytes())
}

fn start_log(cli: &Cli, config: &Config) {
    let level = match (cli.quiet, cli.verbose) {
        (true, _) => LogLevel::Error,
        (false, 0) => config.log.level,
        (false, 1) => LogLevel::Debug,
        (false, _) => LogLevel::Trace,
    };
    let builder = tracing_subscriber::fmt()
        // What the kernel side logs is asked for by --kernel-log alone; its loader says a line for
        // each relocation.
        .with_env_filter(EnvFilter::new(format!(
            "{},keywatch_bpf=trace,aya=info,aya_obj=info",
            level.as_str()
        )))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let result = match cli.log_format.unwrap_or(config.log.format) {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    if let Err(error) = result {
        tell(&format!("no log: {error}"));
    }
}

fn manual() -> Result<Vec<u8>> {
    let mut page = Vec::new();
    let mut command = Cli::command();
    command.build();
    clap_mangen::Man::new(command.clone()).render(&mut page).context("cannot write the manual")?;
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        let man = clap_mangen::Man::new(sub.clone());
        let name = sub.get_name().to_uppercase();
        writeln!(page, ".SH \"KEYWATCH {name}\"")?;
        man.render_synopsis_section(&mut page)?;
        man.render_description_section(&mut page)?;
        man.render_options_section(&mut page)?;
        man.render_extra_section(&mut page)?;
    }
    Ok(page)
}
