//! A client with a connection that was open before Keywatch started.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};

/// A client that goes on when it is told to. It says `open` once its connection has been used, and then
/// waits for a line.
pub(super) struct Patient {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Patient {
    /// With its connection in use.
    pub(super) fn start(command: &mut Command) -> Result<Patient> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut output = BufReader::new(child.stdout.take().context("no output")?);
        let mut said = String::new();
        output.read_line(&mut said)?;
        ensure!(said == "open\n", "the client said {said:?}");
        Ok(Patient { child, output })
    }

    /// Lets it do the rest, and gives what it says of it.
    pub(super) fn go_on(mut self) -> Result<String> {
        self.child.stdin.take().context("no input")?.write_all(b"\n")?;
        let mut said = String::new();
        self.output.read_to_string(&mut said)?;
        ensure!(self.child.wait()?.success(), "the client failed");
        Ok(said)
    }
}
