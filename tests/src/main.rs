//! Every test that runs the `keywatch` command itself: case folders, live capture, bad input.
//!
//! Live tests need root, network namespaces and nginx. Where those are missing they are left out and
//! named; with `KEYWATCH_REQUIRE_LIVE=1` they fail instead.
#![expect(clippy::print_stdout, reason = "names what is left out beside the results")]

mod cases;
mod cli;
mod fuzz;
mod keys;
mod live;
mod payloads;
mod profiles;
mod replay;
mod seeds;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> ExitCode {
    // As a server for some of the tests.
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some(live::rustls_server::ARGUMENT) {
        let served = live::rustls_server::serve(&args.collect::<Vec<_>>());
        return ExitCode::from(u8::from(served.is_err()));
    }
    let mut arguments = Arguments::from_args();
    // A live test keeps a server, a client and Keywatch busy: one test a core is enough.
    arguments.test_threads.get_or_insert(2);
    let mut trials = cases::trials();
    trials.extend(cli::trials());
    trials.extend(fuzz::trials());
    trials.extend(keys::trials());
    trials.extend(live::trials());
    trials.extend(payloads::trials());
    trials.extend(profiles::trials());
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// A test whose failure is an error with its causes.
fn trial(
    name: impl Into<String>,
    run: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
) -> Trial {
    Trial::test(name, move || run().map_err(|error| Failed::from(format!("{error:#}"))))
}
