//! The secret under which API keys are hashed: a file that only its owner can read.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use monitor_core::identity::Secret;
use rustix::rand::{GetRandomFlags, getrandom};
use zeroize::Zeroizing;

/// Where Keywatch keeps what must outlive it: the service manager's directory, else the system's
/// (as root), else the user's (XDG Base Directory Specification).
pub fn state_dir() -> PathBuf {
    let var = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(list) = var("STATE_DIRECTORY") {
        // systemd.exec(5): several directories are separated by colons.
        return std::env::split_paths(&list).next().unwrap_or(list);
    }
    if rustix::process::geteuid().is_root() {
        return "/var/lib/keywatch".into();
    }
    let base = var("XDG_STATE_HOME").filter(|path| path.is_absolute());
    let base = base.or_else(|| var("HOME").map(|home| home.join(".local/state")));
    base.unwrap_or_else(|| ".".into()).join("keywatch")
}

/// Where the secret is when nothing says otherwise.
pub fn default_path() -> PathBuf {
    state_dir().join("identity.secret")
}

/// Reads the secret, and makes it first when it is not there.
pub fn load_or_make(path: &Path) -> Result<Secret> {
    match read(path) {
        Err(error) if is_missing(&error) => {}
        result => return result,
    }
    match make(path) {
        // Another Keywatch was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        result => {
            result.with_context(|| format!("cannot make the secret: {}", path.display()))?;
        }
    }
    read(path)
}

/// Reads the secret; an error when it is not there, not safe or not whole.
pub fn read(path: &Path) -> Result<Secret> {
    let shown = path.display();
    let file = File::open(path).with_context(|| format!("cannot read the secret: {shown}"))?;
    let about = file.metadata().with_context(|| format!("cannot read the secret: {shown}"))?;
    if about.mode() & 0o077 != 0 {
        bail!(
            "the secret can be read by others (mode {:04o}): {shown}: chmod 600 {shown}",
            about.mode() & 0o7777
        );
    }
    let mut text = Zeroizing::new(Vec::with_capacity(FILE_BYTES + 2));
    file.take(FILE_BYTES as u64 + 2)
        .read_to_end(&mut text)
        .with_context(|| format!("cannot read the secret: {shown}"))?;
    let Some(bytes) = decode(&text) else {
        bail!(
            "the secret is not 64 hexadecimal digits and a newline: {shown}: restore it, or delete \
             it to have a new one made (key ids will change)"
        );
    };
    Ok(Secret::new(*bytes))
}

/// Randomness of the operating system, for what clients must not foresee.
pub fn random_seed() -> Result<u64> {
    let mut bytes = [0; 8];
    fill(&mut bytes).context("the operating system gives no randomness")?;
    Ok(u64::from_ne_bytes(bytes))
}

/// 32 bytes in hexadecimal, and a newline.
const FILE_BYTES: usize = 65;

fn is_missing(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
}

fn decode(text: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    let digits = text.strip_suffix(b"\n").unwrap_or(text);
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

fn make(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    }
    let mut random = Zeroizing::new([0; 32]);
    fill(random.as_mut())?;
    let mut text = Zeroizing::new(String::with_capacity(FILE_BYTES));
    for byte in random.iter() {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(digit), 16).unwrap_or_default());
        }
    }
    text.push('\n');
    // Linked into place whole, so that nobody reads half of it.
    let draft = path.with_extension(format!("new-{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::hard_link(&draft, path));
    fs::remove_file(&draft)?;
    written
}

fn fill(bytes: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            Ok(got) => filled += got,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn refusal(content: &[u8], mode: u32) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.secret");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = load_or_make(&path).err().map(|error| format!("{error:#}"));
        error.unwrap_or_default().replace(&path.display().to_string(), "FILE")
    }

    #[test]
    fn made_once_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/er/identity.secret");
        load_or_make(&path).unwrap();
        let first = fs::read(&path).unwrap();
        assert_eq!(first.len(), FILE_BYTES);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o7777, 0o700);
        load_or_make(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), first, "kept");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no draft is left");
        let other = dir.path().join("other.secret");
        load_or_make(&other).unwrap();
        assert_ne!(fs::read(&other).unwrap(), first, "random");
    }

    #[test]
    fn hexadecimal_digits_become_bytes() {
        let text = b"00ff10a5".repeat(8);
        let bytes = decode(&text).unwrap();
        assert_eq!(bytes[..4], [0x00, 0xff, 0x10, 0xa5]);
        assert!(decode(&text[1..]).is_none());
        assert!(decode(&b"0g".repeat(32)).is_none());
        assert!(decode(&[text.as_slice(), b"\n\n"].concat()).is_none());
    }

    #[test]
    fn an_unsafe_or_broken_file_is_refused_with_the_mend() {
        let good = b"0123456789abcdef".repeat(4);
        assert_eq!(refusal(&good, 0o600), "");
        assert_eq!(
            refusal(&good, 0o640),
            "the secret can be read by others (mode 0640): FILE: chmod 600 FILE"
        );
        for content in [&b""[..], &good[1..], &[&good[..], b"00"].concat(), &[0xff; 65]] {
            assert!(refusal(content, 0o600).starts_with("the secret is not 64 hex"), "{content:?}");
        }
    }
}
