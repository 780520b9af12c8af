//! A server as one is written with rustls: this program again, started with [`ARGUMENT`].

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{KeyLogFile, ServerConfig, ServerConnection, StreamOwned};

/// What asks for it; provider, port, certificate and key follow.
pub(crate) const ARGUMENT: &str = "rustls-server";

/// The provider that is rustls's own choice: AWS-LC.
pub(crate) const AWS_LC: &str = "aws-lc";

/// The other.
pub(crate) const RING: &str = "ring";

/// Serves until it is ended. For a call each it prints its client's port, the method and the target.
pub(crate) fn serve(args: &[String]) -> Result<()> {
    let [provider, port, certificate, key] = args else {
        anyhow::bail!("provider, port, certificate, key: {args:?}")
    };
    let certificates = CertificateDer::pem_file_iter(certificate)?.collect::<Result<_, _>>()?;
    let provider = Arc::new(match provider.as_str() {
        AWS_LC => rustls::crypto::aws_lc_rs::default_provider(),
        _ => rustls::crypto::ring::default_provider(),
    });
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates, PrivateKeyDer::from_pem_file(key)?)?;
    // It writes where SSLKEYLOGFILE says, or nothing.
    config.key_log = Arc::new(KeyLogFile::new());
    let config = Arc::new(config);
    let listener = TcpListener::bind(("127.0.0.1", port.parse()?))?;
    for stream in listener.incoming() {
        let (stream, config) = (stream?, config.clone());
        // A client that goes away ends its thread.
        std::thread::spawn(move || answer(stream, config));
    }
    Ok(())
}

fn answer(stream: TcpStream, config: Arc<ServerConfig>) -> Result<()> {
    let client = stream.peer_addr()?.port();
    let mut stream = BufReader::new(StreamOwned::new(ServerConnection::new(config)?, stream));
    loop {
        let mut first = String::new();
        if stream.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let mut words = first.split(' ');
        let (method, target) = words.next().zip(words.next()).context("no request")?;
        let mut body_bytes = 0;
        loop {
            let mut line = String::new();
            stream.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                body_bytes = value.trim().parse()?;
            }
        }
        std::io::copy(&mut stream.by_ref().take(body_bytes), &mut std::io::sink())?;
        // In one call: lines of other threads may come between.
        let line = format!("call {client} {method} {target}\n");
        std::io::stdout().lock().write_all(line.as_bytes())?;
        let body = vec![b'k'; if target == "/large" { 20_000_000 } else { 2 }];
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        let out = stream.get_mut();
        out.write_all(head.as_bytes())?;
        out.write_all(&body)?;
        out.flush()?;
    }
}
