//! TLS to sinks, by the system's library.

use std::path::Path;

use anyhow::{Context, Result};
use native_tls::{Certificate, Protocol, TlsConnector};

use crate::fault::Misuse;

/// Trusts what the system trusts, or else only the certificates in `ca_file`. `key` is what the config
/// calls that file.
pub(super) fn connector(ca_file: Option<&Path>, key: &str) -> Result<TlsConnector> {
    let mut builder = TlsConnector::builder();
    builder.min_protocol_version(Some(Protocol::Tlsv12));
    if let Some(path) = ca_file {
        builder.disable_built_in_roots(true);
        for certificate in certificates(path, key, |pem| Certificate::stack_from_pem(pem).ok())? {
            builder.add_root_certificate(certificate);
        }
    }
    builder.build().context("TLS cannot be used")
}

/// Every certificate of a PEM file, as one or another library has them.
pub(super) fn certificates<C>(
    path: &Path,
    key: &str,
    parse: impl FnOnce(&[u8]) -> Option<Vec<C>>,
) -> Result<Vec<C>> {
    let fault = |what: &str| Misuse(format!("wrong value of {key}: {}: {what}", path.display()));
    let pem = std::fs::read(path).map_err(|error| fault(&error.to_string()))?;
    let certificates = parse(&pem).ok_or_else(|| fault("it is no file of PEM certificates"))?;
    match certificates.is_empty() {
        true => Err(fault("there is no certificate in it").into()),
        false => Ok(certificates),
    }
}
