//! The `cargo xtask` command.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::setup::Purpose;
use xtask::{
    bench, cases, chaos, ci, conformance, demo, ebpf, eval, exchange, fuzz, kafka, passive, setup,
    suite,
};

/// What `setup` brings when it is not told.
const USUAL: [Purpose; 4] = [Purpose::Build, Purpose::Ebpf, Purpose::Live, Purpose::Kafka];

/// Everything about Keywatch that a person would otherwise type.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Bring whatever this machine lacks; names it first.
    Setup {
        /// What for; everything but the benches when not given.
        purposes: Vec<Purpose>,
    },
    /// Build the kernel object from source.
    Ebpf {
        /// Check the build in even when its sources have not changed.
        #[arg(long)]
        always: bool,
    },
    /// Prove that the checked-in kernel object, or another, only watches.
    Passive {
        /// The object file.
        object: Option<PathBuf>,
    },
    /// Show the main job on this machine, in about a minute.
    Demo(demo::Options),
    /// Set up, build and run every test.
    Test(suite::Options),
    /// Format, lints, docs, kernel build, checks, then every test.
    Ci,
    /// Score Keywatch on captures and cases that other projects published.
    Conformance(conformance::Options),
    /// Measure how well attacks are caught in simulated traffic.
    Eval(eval::Options),
    /// Measure speed, loss and memory.
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Kill, pause and restart brokers and members of the fleet at random, and count what arrives.
    Chaos(chaos::Options),
    /// Feed hostile bytes to every reader of bytes.
    #[command(subcommand)]
    Fuzz(fuzz::Fuzz),
    /// A real single-node Apache Kafka on loopback.
    #[command(subcommand)]
    Kafka(Kafka),
    /// The sample exchange API.
    Exchange {
        /// Address to listen on.
        #[arg(long)]
        listen: SocketAddr,
        /// JSON file with keys and their permissions.
        #[arg(long)]
        keys: PathBuf,
    },
    /// Write the captures of the case folders anew.
    MakeCases,
}

#[derive(Subcommand)]
enum Kafka {
    /// Start one that stays.
    Start {
        /// Port to listen on; a free one when not given.
        #[arg(long)]
        port: Option<u16>,
    },
    /// End it and remove its data.
    Stop,
    /// Say whether it runs, and where.
    Status,
    /// Start one that ends with Ctrl-C.
    Run {
        /// Port to listen on; a free one when not given.
        #[arg(long)]
        port: Option<u16>,
    },
}

fn main() -> ExitCode {
    run(Cli::parse().task).unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(task: Task) -> anyhow::Result<ExitCode> {
    match task {
        Task::Setup { purposes } if purposes.is_empty() => setup::ensure_for(&USUAL)?,
        Task::Setup { purposes } => setup::ensure_for(&purposes)?,
        Task::Ebpf { always } => drop(ebpf::run(always)?),
        Task::Passive { object } => passive::run(&object.unwrap_or_else(ebpf::prebuilt))?,
        Task::Demo(options) => demo::run(&options)?,
        Task::Test(options) => return suite::run(&options),
        Task::Ci => return ci::run(),
        Task::Conformance(options) => return conformance::run(&options),
        Task::Fuzz(what) => return fuzz::run(&what),
        Task::Chaos(options) => chaos::run(&options)?,
        Task::Eval(options) => eval::run(&options)?,
        Task::Bench(bench) => bench::run(&bench)?,
        Task::Kafka(Kafka::Start { port }) => kafka::start(port)?,
        Task::Kafka(Kafka::Stop) => kafka::stop()?,
        Task::Kafka(Kafka::Status) => kafka::status()?,
        Task::Kafka(Kafka::Run { port }) => kafka::run(port)?,
        Task::Exchange { listen, keys } => exchange::serve(listen, &keys)?,
        Task::MakeCases => cases::write_all()?,
    }
    Ok(ExitCode::SUCCESS)
}
