//! Webhook: each record is a POST, signed with a shared secret.
//!
//! Headers are those of CloudEvents 1.0 (HTTP protocol binding, binary content mode, 3.1) and
//! `keywatch-signature: t=SECONDS,v1=HEX`: HMAC-SHA-256 over the seconds, a dot and the body. A receiver
//! that checks it, and that the seconds are recent, knows that the record is from us and not sent again
//! by somebody else.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use ureq::Agent;
use ureq::tls::{Certificate, PemItem, RootCerts};
use zeroize::Zeroizing;

use super::Sink;
use super::courier::{Connect, Fate, Report, Sent, Transport};
use super::event::Event;
use super::network::{Network, Parts};
use super::spool::WhenFull;
use super::tls;
use crate::fault::Misuse;
use crate::{clock, config, http};

/// Starts sending what an earlier run left in the spool.
pub(crate) fn open(
    sinks: &config::Sinks,
    spool_dir: &Path,
    host: &str,
    when_full: WhenFull,
) -> Result<Box<dyn Sink>> {
    let set = &sinks.webhook;
    let secret = match &set.secret_file {
        Some(path) => Some(read_secret(path)?),
        None => None,
    };
    let agent = agent(set.ca_file.as_deref())?;
    let parts = Parts {
        sink: "webhook",
        // Without its path, which often holds a token.
        place: format!("the webhook at {}", origin(&set.url)),
        spool_dir,
        bounds: sinks.spool.bounds(),
        when_full,
        host: host.into(),
        format: set.format,
        activity_format: set.format,
        summary: None,
        route: set.route(),
        flush_max: set.flush_max,
    };
    let (url, source) = (set.url.clone(), super::event::source(host));
    let connect = move |_| -> Connect {
        let (url, source) = (url.clone(), source.clone());
        let (agent, secret) = (agent.clone(), secret.clone());
        Box::new(move || {
            Ok(Box::new(Webhook {
                agent: agent.clone(),
                url: url.clone(),
                source: source.clone(),
                secret: secret.clone(),
                reports: Vec::new(),
            }))
        })
    };
    Ok(Box::new(Network::start(parts, connect)?))
}

/// A receiver has so long to answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// RFC 2104, 3: shorter keys than the hash are discouraged.
const SECRET_BYTES_MIN: usize = 32;
const SECRET_BYTES_MAX: usize = 4096;

struct Webhook {
    agent: Agent,
    url: String,
    source: String,
    secret: Option<Zeroizing<Vec<u8>>>,
    reports: Vec<Report>,
}

impl Webhook {
    fn post(&self, event: &Event) -> Result<u16, ureq::Error> {
        let time = event.time.to_string();
        let mut request = self
            .agent
            .post(&self.url)
            .header("content-type", event.content_type)
            .header("ce-specversion", "1.0")
            .header("ce-id", &event.id)
            .header("ce-source", &self.source)
            .header("ce-type", event.kind_name)
            .header("ce-time", &time);
        if let Some(secret) = &self.secret {
            let now = clock::now().secs();
            request = request.header("keywatch-signature", signature(secret, now, &event.body));
        }
        request.send(&event.body[..]).map(|response| response.status().as_u16())
    }
}

impl Transport for Webhook {
    fn send(&mut self, number: u64, event: &Event) -> Sent {
        let fate = match self.post(event) {
            Ok(200..=299) => Fate::Arrived,
            // The record itself is the matter (RFC 9110, 15.5; 422 in 15.5.21).
            Ok(status @ (400 | 413 | 415 | 422)) => {
                Fate::Refused { reason: format!("it answered {status}"), body: event.body.clone() }
            }
            Ok(status) => Fate::Failed(format!("it answered {status}")),
            Err(error) => Fate::Failed(error.to_string()),
        };
        self.reports.push(Report { number, fate });
        Sent::Taken
    }

    fn poll(&mut self, _wait: Duration, reports: &mut Vec<Report>) {
        reports.append(&mut self.reports);
    }

    fn in_flight_max(&self) -> usize {
        // One after the other, so that order is kept whatever the receiver does.
        1
    }
}

/// `t=SECONDS,v1=HEX`
fn signature(secret: &[u8], seconds: u64, body: &[u8]) -> String {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { return String::new() };
    mac.update(seconds.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    let sum = mac.finalize().into_bytes();
    let hex: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={seconds},v1={hex}")
}

fn agent(ca_file: Option<&Path>) -> Result<Agent> {
    let certificates = match ca_file {
        None => RootCerts::PlatformVerifier,
        Some(path) => {
            RootCerts::from(tls::certificates(path, "sinks.webhook.ca_file", certificates)?)
        }
    };
    Ok(http::agent(certificates, ANSWER_MAX))
}

fn certificates(pem: &[u8]) -> Option<Vec<Certificate<'static>>> {
    let mut certificates = Vec::new();
    for item in ureq::tls::parse_pem(pem) {
        if let PemItem::Certificate(certificate) = item.ok()? {
            certificates.push(certificate);
        }
    }
    Some(certificates)
}

fn read_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    use std::os::unix::fs::MetadataExt;
    let shown = path.display();
    let fault =
        |what: &str| Misuse(format!("wrong value of sinks.webhook.secret_file: {shown}: {what}"));
    let about = path.metadata().map_err(|error| fault(&error.to_string()))?;
    if about.mode() & 0o077 != 0 {
        bail!(fault(&format!("others can read it: chmod 600 {shown}")));
    }
    let fits = (SECRET_BYTES_MIN as u64..=SECRET_BYTES_MAX as u64).contains(&about.len());
    if !fits {
        bail!(fault("it must hold 32 to 4096 bytes"));
    }
    let mut secret =
        Zeroizing::new(std::fs::read(path).map_err(|error| fault(&error.to_string()))?);
    // An editor leaves a newline that is no part of it.
    while secret.last() == Some(&b'\n') {
        secret.pop();
    }
    Ok(secret)
}

/// Scheme, host and port of an address.
fn origin(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}")
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::sinks::event::tests::alert;

    #[test]
    fn signatures_are_those_of_hmac_sha256() {
        // openssl dgst -sha256 -hmac ... over "1700000000.{}"
        assert_eq!(signature(b"made-up-secret-of-thirty-two-byte", 1_700_000_000, b"{}"), GOLDEN);
    }

    const GOLDEN: &str =
        "t=1700000000,v1=e8acb74dd7fa764f165f7f6cb543e3c4ff1139196cdef6c4b96e5f4ea3e53bde";

    #[test]
    fn messages_do_not_show_what_is_secret_in_the_address() {
        assert_eq!(
            origin("https://user:pw@example.com:8443/hook/token?x=1"),
            "https://example.com:8443"
        );
    }

    /// A request's head and body.
    fn request(stream: &TcpStream) -> (String, Vec<u8>) {
        let mut reader = BufReader::new(stream);
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line.trim().is_empty() {
                break;
            }
            head.push_str(&line);
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        (head, body)
    }

    #[test]
    fn what_fails_is_sent_again_and_what_is_refused_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("secret");
        let key = b"0123456789abcdef0123456789abcdef";
        std::fs::write(&secret, [&key[..], b"\n"].concat()).unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let sinks = config::Sinks {
            webhook: config::Webhook {
                url: format!("http://{}/hook/token", listener.local_addr().unwrap()),
                secret_file: Some(secret),
                flush_max: Duration::from_secs(60),
                ..config::Webhook::default()
            },
            spool: config::Spool { alerts_reserve_bytes: 1 << 20, ..config::Spool::default() },
            ..config::Sinks::default()
        };
        // The first is not taken at once, the second never.
        let answers = ["503 Busy", "200 OK", "422 No", "204 Fine"];
        let server = std::thread::spawn(move || {
            answers.map(|answer| {
                let (mut stream, _) = listener.accept().unwrap();
                let request = request(&stream);
                let close = "content-length: 0\r\nconnection: close\r\n\r\n";
                write!(stream, "HTTP/1.1 {answer}\r\n{close}").unwrap();
                request
            })
        });
        let mut sink = open(&sinks, dir.path(), "edge", WhenFull::Drop).unwrap();
        for number in 0..3 {
            sink.alert(&alert(number)).unwrap();
        }
        sink.finish().unwrap();
        let mut ids = Vec::new();
        for (head, body) in server.join().unwrap() {
            let head = head.to_lowercase();
            let field = |name: &str| {
                let line = head.lines().find_map(|line| line.strip_prefix(name));
                line.unwrap_or_default().trim_start_matches(':').trim().to_owned()
            };
            assert!(head.starts_with("post /hook/token http/1.1"), "{head}");
            assert_eq!(field("ce-type"), "keywatch.alert.ocsf.v1");
            let signed = field("keywatch-signature");
            let seconds = signed.split(['=', ',']).nth(1).unwrap().parse().unwrap();
            assert_eq!(signed, signature(key, seconds, &body));
            ids.push(field("ce-id"));
        }
        let id = |number| format!("a_{number:016x}.2");
        assert_eq!(ids, [id(0), id(0), id(1), id(2)]);
        let refused = std::fs::read_to_string(dir.path().join("webhook/refused")).unwrap();
        assert!(refused.contains(&id(1)), "{refused}");
    }
}
