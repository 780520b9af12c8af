//! The secret under which API keys are hashed: a file that only its owner can read. Its first line is the
//! secret in use; below it stand those before, for as long as keys are known again by them.

pub(crate) mod command;
mod file;

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use monitor_core::identity::Secret;
use monitor_core::policy::Moment;
use monitor_core::time::EventTime;
use rustix::rand::{GetRandomFlags, getrandom};
use zeroize::Zeroizing;

use crate::clock;
use crate::config::Config;
use file::{Epoch, Epochs};

/// Which secrets of the file count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    /// All: what comes out depends on the file and the capture alone.
    All,
    /// Those whose time is not over by the clock.
    Now,
}

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
pub(crate) fn load_or_make(path: &Path, count: Count) -> Result<Secret> {
    match load(path, count) {
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
    load(path, count)
}

/// Where the secret is: where an argument says, else the config, else where Keywatch keeps its state.
pub(crate) fn path(named: Option<&Path>, config: &Config) -> PathBuf {
    let named = named.or(config.identity.secret_file.as_deref());
    named.map_or_else(default_path, Path::to_owned)
}

/// Reads the secret; an error when it is not there, not safe or not whole.
pub fn read(path: &Path) -> Result<Secret> {
    load(path, Count::All)
}

pub(crate) fn load(path: &Path, count: Count) -> Result<Secret> {
    let epochs = Epochs::read(path)?;
    let now = clock::now();
    Ok(epochs.secret(|until| count == Count::All || is_after(until, now)))
}

fn is_after(moment: Moment, now: EventTime) -> bool {
    moment.time() > now
}

/// Randomness of the operating system, for what clients must not foresee.
pub fn random_seed() -> Result<u64> {
    let mut bytes = [0; 8];
    fill(&mut bytes).context("the operating system gives no randomness")?;
    Ok(u64::from_ne_bytes(bytes))
}

fn is_missing(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// A new secret alone, in a file that is not there yet.
fn make(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    }
    let draft = path.with_extension(format!("new-{}", std::process::id()));
    let text = Epochs::new(fresh()?).text();
    // Linked into place whole, so that nobody reads half of it.
    let written = write(&draft, &text).and_then(|()| fs::hard_link(&draft, path));
    fs::remove_file(&draft)?;
    written
}

/// A new secret in the place of the one that is there, which counts until `until`, if it is to; gives what
/// stands in the file now, and how many still counted and had to go to make room.
fn rotate(path: &Path, until: Option<Moment>) -> Result<(Epochs, usize)> {
    let shown = path.display();
    // While it is there no other rotation can begin.
    let draft = path.with_extension("rotating");
    let before = Epochs::read(path)?;
    let about = fs::metadata(path).with_context(|| format!("cannot read the secret: {shown}"))?;
    let secret = fresh().context("the operating system gives no randomness")?;
    let now = clock::now();
    let (after, dropped) = before.followed_by(secret, until, |until| is_after(until, now));
    let written = write(&draft, &after.text());
    if let Err(error) = &written
        && error.kind() == io::ErrorKind::AlreadyExists
    {
        let draft = draft.display();
        bail!("another rotation is under way: remove {draft} if none is, and try again");
    }
    let placed = written.and_then(|()| {
        std::os::unix::fs::chown(&draft, Some(about.uid()), Some(about.gid()))?;
        fs::rename(&draft, path)?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        fs::File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
    });
    if let Err(error) = placed {
        // What is in use stays.
        let _ = fs::remove_file(&draft);
        return Err(error).with_context(|| format!("cannot write the secret: {shown}"));
    }
    Ok((after, dropped))
}

/// Writes a new file for its owner alone, down to the disk.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all())
}

fn fresh() -> io::Result<Epoch> {
    let mut random = Zeroizing::new([0; 32]);
    fill(random.as_mut())?;
    Ok(Epoch(random))
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

    use monitor_core::identity::Identifier;

    use super::*;

    fn refusal(content: &[u8], mode: u32) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.secret");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = load_or_make(&path, Count::All).err().map(|error| format!("{error:#}"));
        error.unwrap_or_default().replace(&path.display().to_string(), "FILE")
    }

    fn moment(text: &str) -> Moment {
        Moment::try_from(text.to_owned()).unwrap()
    }

    #[test]
    fn made_once_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/er/identity.secret");
        load_or_make(&path, Count::All).unwrap();
        let first = fs::read(&path).unwrap();
        assert_eq!(first.len(), 65);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o7777, 0o700);
        load_or_make(&path, Count::All).unwrap();
        assert_eq!(fs::read(&path).unwrap(), first, "kept");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no draft is left");
        let other = dir.path().join("other.secret");
        load_or_make(&other, Count::All).unwrap();
        assert_ne!(fs::read(&other).unwrap(), first, "random");
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
            let refusal = refusal(content, 0o600);
            assert!(refusal.starts_with("wrong secret: FILE:1: not 64 hex"), "{refusal}");
        }
    }

    #[test]
    fn a_key_is_known_again_after_a_rotation_as_long_as_its_secret_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.secret");
        let id = |count| {
            let secret = load(&path, count).unwrap();
            let identifier = Identifier::new(secret);
            let head = monitor_core::identity::RequestHead {
                method: "GET",
                target: "/?api_key=made-up-key",
                headers: &[],
            };
            let key = identifier.identify(&head).key.unwrap();
            (key.id, key.former().to_vec())
        };
        load_or_make(&path, Count::All).unwrap();
        let (first, none) = id(Count::Now);
        assert!(none.is_empty());
        let (_, dropped) = rotate(&path, Some(moment("2099-01-01"))).unwrap();
        let (second, former) = id(Count::Now);
        assert_eq!((former.as_slice(), dropped), (&[first][..], 0));
        assert_ne!(first, second);
        rotate(&path, Some(moment("2020-01-01"))).unwrap();
        let (third, former) = id(Count::Now);
        assert_eq!(former, [first], "the time of the second is over");
        assert_eq!(id(Count::All), (third, vec![second, first]), "a replay takes what is there");
        rotate(&path, Some(moment("2099-01-01"))).unwrap();
        assert_eq!(id(Count::All).1, [third, first], "what is over goes with the next rotation");
        rotate(&path, None).unwrap();
        assert!(id(Count::All).1.is_empty(), "none is kept");
        rotate(&path, Some(moment("2099-01-01"))).unwrap();
        let (_, dropped) = (0..3).fold((0, 0), |_, _| {
            let (_, dropped) = rotate(&path, Some(moment("2099-01-01"))).unwrap();
            (0, dropped)
        });
        assert_eq!((id(Count::All).1.len(), dropped), (3, 1), "three former ones and no more");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn one_rotation_at_a_time_and_a_broken_file_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.secret");
        load_or_make(&path, Count::All).unwrap();
        let before = fs::read(&path).unwrap();
        let draft = dir.path().join("identity.rotating");
        fs::write(&draft, b"").unwrap();
        let error = rotate(&path, None).err().map(|error| error.to_string()).unwrap();
        assert!(error.starts_with("another rotation is under way: remove "), "{error}");
        assert_eq!(fs::read(&path).unwrap(), before);
        assert!(draft.exists(), "it is the other's");
        fs::remove_file(&draft).unwrap();
        fs::write(&path, b"half").unwrap();
        assert!(rotate(&path, None).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"half");
    }
}
