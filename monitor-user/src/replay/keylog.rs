//! Files of TLS secrets: read whole before the first packet.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result};
use monitor_core::decode::Decoder;
use monitor_core::input::Input;
use zeroize::Zeroizing;

use crate::fault::{Misuse, tell};

/// The longest line that is one: label, random and secret have less than 300 bytes.
const LINE_BYTES_MAX: u64 = 4096;

/// Hands every line of a key log to the Decoder. Lines that are none are counted and told of, without
/// what they hold: it may be secret all the same.
pub(super) fn read(path: &Path, decoder: &mut Decoder) -> Result<()> {
    let doing = || format!("cannot read the key log: {}", path.display());
    let file = File::open(path).with_context(doing)?;
    let mut reader = BufReader::new(file);
    let before = decoder.counters().clone();
    let mut line = Zeroizing::new(Vec::new());
    loop {
        line.clear();
        if reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line).with_context(doing)?
            == 0
        {
            break;
        }
        decoder.handle_input(Input::Secrets(&line));
    }
    let after = decoder.counters();
    let read = after.tls_secrets - before.tls_secrets;
    let unused = after.tls_secrets_unused - before.tls_secrets_unused;
    let bad = after.tls_secrets_bad - before.tls_secrets_bad;
    let path = path.display();
    if read + unused == 0 && bad > 0 {
        let why = "not a key log: {path}: want lines of the NSS form, such as SSLKEYLOGFILE gives";
        return Err(Misuse(why.replace("{path}", &path.to_string())).into());
    }
    if bad > 0 {
        let lines = if bad == 1 { "line is" } else { "lines are" };
        tell(&format!("{path}: {bad} {lines} not of a key log and left out"));
    }
    Ok(())
}
