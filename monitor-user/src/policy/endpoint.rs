//! A registry of keys at an address, asked again from time to time; with an entity tag, so that what
//! has not changed is not sent again (RFC 9110, 13.1.2).

use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use monitor_core::policy::Registered;
use ureq::Agent;
use ureq::tls::RootCerts;

use super::registry;
use crate::http;

/// The whole answer has so long: 256 MiB at 100 Mbit/s.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// An entity tag is this long at most; RFC 9110 sets no bound.
const TAG_BYTES_MAX: usize = 1024;

/// Whether a place is an address.
pub(super) fn is_address(place: &str) -> bool {
    place.starts_with("http://") || place.starts_with("https://")
}

/// The address of a registry.
pub(super) struct Endpoint {
    asker: Option<Asker>,
    news: Option<Receiver<Vec<Registered>>>,
}

struct Asker {
    agent: Agent,
    url: String,
    /// Without path and query, which may hold a token.
    name: String,
    tag: Option<String>,
}

impl Endpoint {
    pub(super) fn new(url: &str) -> Endpoint {
        Endpoint { asker: Some(Asker::new(url)), news: None }
    }

    /// What it says now; `None` when it has not changed.
    pub(super) fn ask(&mut self) -> Result<Option<Vec<Registered>>> {
        self.asker.as_mut().map_or(Ok(None), Asker::ask)
    }

    /// Asks from now on in a thread of its own. What was not taken yet holds it up.
    pub(super) fn watch(&mut self, every: Duration) {
        let Some(mut asker) = self.asker.take() else { return };
        let (sender, receiver) = sync_channel(1);
        self.news = Some(receiver);
        let work = move || {
            let mut has_failed = false;
            loop {
                std::thread::sleep(every);
                match asker.ask() {
                    Ok(Some(registered)) => {
                        has_failed = false;
                        if sender.send(registered).is_err() {
                            return;
                        }
                    }
                    Ok(None) => has_failed = false,
                    Err(error) if has_failed => tracing::debug!("{error:#}"),
                    Err(error) => {
                        has_failed = true;
                        tracing::warn!("{error:#}: the registry in use stays");
                    }
                }
            }
        };
        let started = std::thread::Builder::new().name("registry".into()).spawn(work);
        if let Err(error) = started {
            tracing::warn!("the key registry is not asked again: {error}");
        }
    }

    /// What it said, when that has changed.
    pub(super) fn news(&mut self) -> Option<Vec<Registered>> {
        self.news.as_ref()?.try_recv().ok()
    }
}

impl Asker {
    fn new(url: &str) -> Asker {
        let agent = http::agent(RootCerts::PlatformVerifier, ANSWER_MAX);
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = authority.rsplit('@').next().unwrap_or_default();
        let name = format!("{scheme}://{host}");
        Asker { agent, url: url.into(), name, tag: None }
    }

    fn ask(&mut self) -> Result<Option<Vec<Registered>>> {
        let name = &self.name;
        let mut request = self.agent.get(&self.url);
        if let Some(tag) = &self.tag {
            request = request.header("if-none-match", tag);
        }
        let asked = request.call();
        let mut answer = asked.with_context(|| format!("cannot ask the key registry: {name}"))?;
        match answer.status().as_u16() {
            200 => {}
            304 => return Ok(None),
            status => bail!("the key registry answered {status}: {name}"),
        }
        let tag = answer.headers().get("etag").and_then(|tag| tag.to_str().ok());
        let tag = tag.filter(|tag| tag.len() <= TAG_BYTES_MAX).map(str::to_owned);
        let body = answer.body_mut().with_config().limit(registry::BYTES_MAX);
        let text = body
            .read_to_string()
            .with_context(|| format!("cannot read the key registry: {name}"))?;
        let registered = registry::parse(&text, name)?;
        self.tag = tag;
        Ok(Some(registered))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;

    use super::*;

    const KEY: &str = "k_00000000000000000000000000000001";

    #[test]
    fn what_has_not_changed_is_not_sent_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let mut tags = Vec::new();
            for number in 0..3 {
                let (mut stream, _) = listener.accept().unwrap();
                let reader = BufReader::new(stream.try_clone().unwrap());
                let head: Vec<String> =
                    reader.lines().map_while(Result::ok).take_while(|it| !it.is_empty()).collect();
                let tag = head.iter().find_map(|line| line.strip_prefix("if-none-match: "));
                tags.push(tag.map(str::to_owned));
                let body = format!("key,owner\n{KEY},desk\n");
                let answer = match number {
                    0 => format!(
                        "HTTP/1.1 200 OK\r\netag: \"one\"\r\nconnection: close\r\n\
                         content-length: {}\r\n\r\n{body}",
                        body.len()
                    ),
                    1 => "HTTP/1.1 304 Not Modified\r\nconnection: close\r\n\r\n".into(),
                    _ => {
                        "HTTP/1.1 503 Busy\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".into()
                    }
                };
                stream.write_all(answer.as_bytes()).unwrap();
            }
            tags
        });
        let mut endpoint = Endpoint::new(&format!("http://{address}/keys?token=made-up-token"));
        assert_eq!(endpoint.ask().unwrap().unwrap()[0].owner.as_deref(), Some("desk"));
        assert!(endpoint.ask().unwrap().is_none());
        let error = format!("{:#}", endpoint.ask().unwrap_err());
        assert_eq!(error, format!("the key registry answered 503: http://{address}"));
        let tag = Some("\"one\"".to_owned());
        assert_eq!(server.join().unwrap(), [None, tag.clone(), tag]);
        let error = format!("{:#}", endpoint.ask().unwrap_err());
        assert!(
            error.starts_with("cannot ask the key registry") && !error.contains("made-up"),
            "{error}"
        );
    }
}
