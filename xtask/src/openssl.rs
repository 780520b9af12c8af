//! The system's OpenSSL: certificates by its command, and copies of its libraries; and the one before it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::{process, setup};

/// Where Debian has libraries, by machine.
const FOLDERS: [&str; 2] = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"];

/// BoringSSL of the package `android-libboringssl`, below the same folders.
pub const BORINGSSL: &str = "android/libssl.so.0";

/// Makes a certificate for `exchange.test` in `dir`, good for nothing else (`tls.pem`, `tls.key`); gives
/// the lines that name it in a server block of nginx.
pub fn certificate(dir: &Path) -> Result<String> {
    let (key, certificate) = (dir.join("tls.key"), dir.join("tls.pem"));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    openssl.args(["-nodes", "-days", "2", "-subj", "/CN=exchange.test"]);
    openssl.args(["-addext", "subjectAltName=DNS:exchange.test", "-keyout"]).arg(&key);
    process::run(openssl.arg("-out").arg(&certificate)).context("making a certificate")?;
    Ok(format!(
        "    ssl_certificate {};\n    ssl_certificate_key {};\n",
        certificate.display(),
        key.display()
    ))
}

/// Copies the libraries into `dir`. A process with `LD_LIBRARY_PATH` set to it has them to itself: a probe
/// in those of the system is none in its own.
pub fn copy_libraries(dir: &Path) -> Result<()> {
    for name in ["libssl.so.3", "libcrypto.so.3"] {
        fs::copy(library(name)?, dir.join(name)).with_context(|| format!("copying {name}"))?;
    }
    Ok(())
}

/// A package that brings OpenSSL 1.1 (1.1.1k) as most servers had it for years, which Debian has no more:
/// <https://pypi.org/project/psycopg2-binary>. Its two libraries alone are used.
const WITH_OPENSSL_1_1: &str = "psycopg2-binary==2.9.3";

/// Copies libssl and libcrypto of OpenSSL 1.1 into `dir`, fetched the first time; gives where libssl is.
///
/// # Errors
///
/// When they cannot be fetched or copied.
pub fn copy_openssl_1_1(dir: &Path) -> Result<PathBuf> {
    let kept = setup::cache()?.join("openssl-1.1");
    if !kept.is_dir() {
        let work = tempfile::Builder::new().prefix("openssl.").tempdir_in(setup::cache()?)?;
        let python = setup::python_with("pip").context("no Python with pip")?;
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]);
        pip.args(["--python-version", "310", "--platform", "manylinux_2_17_x86_64", "--dest"]);
        process::run(pip.arg(work.path()).arg(WITH_OPENSSL_1_1)).context("fetching OpenSSL 1.1")?;
        let wheels = files(work.path(), |name| name.ends_with(".whl"))?;
        let [wheel] = &wheels[..] else { bail!("not one wheel of {WITH_OPENSSL_1_1}") };
        let unpacked = work.path().join("unpacked");
        let mut unzip = Command::new(&python);
        process::run(unzip.args(["-m", "zipfile", "-e"]).arg(wheel).arg(&unpacked))?;
        // The rename makes the folder appear whole or not at all; someone else may have been quicker.
        let renamed = fs::rename(unpacked.join("psycopg2_binary.libs"), &kept);
        ensure!(renamed.is_ok() || kept.is_dir(), "keeping OpenSSL 1.1: {renamed:?}");
    }
    let mut library = None;
    let is_of_openssl = |name: &str| name.starts_with("libssl-") || name.starts_with("libcrypto-");
    for path in files(&kept, is_of_openssl)? {
        let name = path.file_name().context("a file without a name")?;
        let copy = dir.join(name);
        fs::copy(&path, &copy).with_context(|| format!("copying {}", path.display()))?;
        if name.to_string_lossy().starts_with("libssl-") {
            library = Some(copy);
        }
    }
    library.context("no libssl of OpenSSL 1.1")
}

fn files(dir: &Path, is_wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let entries: Vec<_> = fs::read_dir(dir)?.collect::<Result<_, _>>()?;
    let wanted = entries.iter().filter(|it| is_wanted(&it.file_name().to_string_lossy()));
    Ok(wanted.map(fs::DirEntry::path).collect())
}

/// Where a library of the system is.
pub fn library(name: &str) -> Result<String> {
    let mut paths = FOLDERS.iter().map(|folder| format!("{folder}/{name}"));
    paths.find(|path| Path::new(path).exists()).with_context(|| format!("no {name}"))
}
