//! The system's OpenSSL: certificates by its command, and copies of its libraries.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process;

/// Where Debian has libraries, by machine.
const FOLDERS: [&str; 2] = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"];

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

/// Where a library of the system is.
pub fn library(name: &str) -> Result<String> {
    let mut paths = FOLDERS.iter().map(|folder| format!("{folder}/{name}"));
    paths.find(|path| Path::new(path).exists()).with_context(|| format!("no {name}"))
}
