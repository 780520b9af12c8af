//! The form of the secret file: a line of 64 hexadecimal digits for the secret in use, and below it one for
//! each before, the latest first: digits, `until` and the moment up to which keys are known again by it.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use monitor_core::identity::{FORMER_SECRETS_MAX, Secret};
use monitor_core::policy::Moment;
use zeroize::Zeroizing;

/// A line of the longest form, with its line end.
const LINE_BYTES_MAX: usize = 64 + 7 + 21;
const FILE_BYTES_MAX: usize = (1 + FORMER_SECRETS_MAX) * LINE_BYTES_MAX;

/// A secret.
pub(super) struct Epoch(pub(super) Zeroizing<[u8; 32]>);

/// What the file holds.
pub(super) struct Epochs {
    pub(super) current: Epoch,
    /// The latest first.
    pub(super) former: Vec<(Epoch, Moment)>,
}

impl Epochs {
    pub(super) fn new(current: Epoch) -> Epochs {
        Epochs { current, former: Vec::new() }
    }

    /// Reads the file.
    ///
    /// # Errors
    ///
    /// When it is not there, not safe or not whole. No error shows what is in it.
    pub(super) fn read(path: &Path) -> Result<Epochs> {
        let shown = path.display();
        let cannot = || format!("cannot read the secret: {shown}");
        let file = File::open(path).with_context(cannot)?;
        let about = file.metadata().with_context(cannot)?;
        if about.mode() & 0o077 != 0 {
            bail!(
                "the secret can be read by others (mode {:04o}): {shown}: chmod 600 {shown}",
                about.mode() & 0o7777
            );
        }
        let mut text = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX + 2));
        file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut text).with_context(cannot)?;
        Epochs::parse(&text).map_err(|(line, what)| {
            let mend = "restore it, or delete it to have a new one made (key ids will change)";
            anyhow!("wrong secret: {shown}:{line}: {what}: {mend}")
        })
    }

    fn parse(text: &[u8]) -> Result<Epochs, (usize, &'static str)> {
        let lines = text.strip_suffix(b"\n").unwrap_or(text);
        let mut lines = lines.split(|byte| *byte == b'\n').zip(1..);
        let digits = "not 64 hexadecimal digits and a newline";
        let (first, number) = lines.next().unwrap_or_default();
        let current = decode(first).ok_or((number, digits))?;
        let mut epochs = Epochs::new(Epoch(current));
        for (line, number) in lines {
            if epochs.former.len() == FORMER_SECRETS_MAX {
                return Err((number, "more than three former secrets"));
            }
            let (secret, rest) = line.split_at_checked(64).ok_or((number, digits))?;
            let secret = decode(secret).ok_or((number, digits))?;
            let until = rest
                .strip_prefix(b" until ")
                .and_then(|text| std::str::from_utf8(text).ok())
                .and_then(|text| Moment::try_from(text.to_owned()).ok())
                .ok_or((number, "behind the digits does not stand `until` and a moment"))?;
            epochs.former.push((Epoch(secret), until));
        }
        Ok(epochs)
    }

    /// As it stands in the file.
    pub(super) fn text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(FILE_BYTES_MAX));
        encode(&self.current, &mut text);
        text.push('\n');
        for (epoch, until) in &self.former {
            encode(epoch, &mut text);
            // Writing to a string does not fail.
            let _ = writeln!(text, " until {until}");
        }
        text
    }

    /// The secret in use, and those former ones that count.
    pub(super) fn secret(&self, counts: impl Fn(Moment) -> bool) -> Secret {
        let former = self.former.iter().filter(|(_, until)| counts(*until));
        former.fold(Secret::new(*self.current.0), |secret, (epoch, _)| secret.after(*epoch.0))
    }

    /// With another secret in use. The one before counts until `until`, and those before it that still
    /// count stay, as far as there is room; how many had to go for want of it is given back. Without a
    /// time none of them stays: who knows the file knows all.
    pub(super) fn followed_by(
        self,
        secret: Epoch,
        until: Option<Moment>,
        counts: impl Fn(Moment) -> bool,
    ) -> (Epochs, usize) {
        let Some(until) = until else { return (Epochs::new(secret), 0) };
        let mut former = vec![(self.current, until)];
        former.extend(self.former.into_iter().filter(|(_, until)| counts(*until)));
        let dropped = former.len().saturating_sub(FORMER_SECRETS_MAX);
        former.truncate(FORMER_SECRETS_MAX);
        (Epochs { current: secret, former }, dropped)
    }
}

impl Epoch {
    /// What tells it from others, and nothing else of it.
    pub(super) fn check(&self) -> u32 {
        Secret::new(*self.0).check()
    }
}

fn encode(epoch: &Epoch, text: &mut String) {
    for byte in epoch.0.iter() {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(digit), 16).unwrap_or_default());
        }
    }
}

fn decode(digits: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    if digits.len() != 64 {
        return None;
    }
    let mut bytes = Zeroizing::new([0; 32]);
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = u8::try_from(high << 4 | low).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGITS: &str = "00ff10a5";

    #[test]
    fn hexadecimal_digits_become_bytes() {
        let text = DIGITS.repeat(8);
        let bytes = decode(text.as_bytes()).unwrap();
        assert_eq!(bytes[..4], [0x00, 0xff, 0x10, 0xa5]);
        assert!(decode(&text.as_bytes()[1..]).is_none());
        assert!(decode(&b"0g".repeat(32)).is_none());
    }

    #[test]
    fn what_is_written_is_read() {
        let digits = DIGITS.repeat(8);
        for text in [
            format!("{digits}\n"),
            format!("{digits}\n{digits} until 2027-02-28T12:00:00Z\n{digits} until 2027-01-01\n"),
        ] {
            let epochs = Epochs::parse(text.as_bytes()).ok().unwrap();
            assert_eq!(*epochs.text(), text);
        }
        assert!(Epochs::parse(digits.as_bytes()).is_ok(), "as it was written by hand");
    }

    #[test]
    fn what_is_wrong_is_named_by_its_line() {
        let digits = DIGITS.repeat(8);
        let fault = |text: &str| Epochs::parse(text.as_bytes()).err();
        let not_digits = "not 64 hexadecimal digits and a newline";
        let no_until = "behind the digits does not stand `until` and a moment";
        assert_eq!(fault(""), Some((1, not_digits)));
        assert_eq!(fault(&format!("{digits}\n\n")), Some((2, not_digits)));
        assert_eq!(fault(&format!("{digits}\n{digits}\n")), Some((2, no_until)));
        assert_eq!(fault(&format!("{digits}\n{digits} until soon\n")), Some((2, no_until)));
        let line = format!("{digits} until 2027-01-01\n");
        let five = format!("{digits}\n{}", line.repeat(4));
        assert_eq!(fault(&five), Some((5, "more than three former secrets")));
    }
}
