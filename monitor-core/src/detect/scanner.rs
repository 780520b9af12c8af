//! D25: somebody looks for holes: asks for paths that are not there, comes with a scanner, or sends text
//! that attacks what stands behind the API (the Decoder tells it; see `identity::payload`).

use std::sync::LazyLock;

use aho_corasick::AhoCorasick;

use super::{Detector, Found, Layer, Report, Rule, Scene, ip, span};
use crate::alert::{Entity, Severity};
use crate::baseline::{Probed, Sign};
use crate::call::{Outcome, Payload, Request};

pub(super) struct Scanner;

static RULE: Rule = Rule {
    id: "D25",
    name: "scan or injection",
    layer: Layer::Behaviour,
    attack: &["T1595.002", "T1190"],
    owasp: &["API8", "OAT-014"],
};

/// The whole internet is scanned all day.
const EVIDENCE_LOOKS: f32 = 5.0;
const EVIDENCE_ATTACKS: f32 = 5.5;
const EVIDENCE_TAKEN: f32 = 7.0;
/// One text of a key: a person's name may look like it.
const EVIDENCE_ONE: f32 = 2.5;

/// Bytes of a path or user agent that are looked at.
const BYTES_MAX: usize = 256;

/// Parts of paths that no API here has, and scanners ask for first.
static PATHS: LazyLock<Option<AhoCorasick>> = LazyLock::new(|| {
    finder(&[
        "/.env",
        "/.git",
        "/.svn",
        "/.hg/",
        "/.aws",
        "/.ssh",
        "/.ds_store",
        "/.htaccess",
        "/.htpasswd",
        "/.vscode",
        "/id_rsa",
        "/wp-login",
        "/wp-admin",
        "/wp-content",
        "/wp-config",
        "/xmlrpc.php",
        "/phpmyadmin",
        "/phpinfo",
        "/adminer",
        "/cgi-bin",
        "/server-status",
        "/server-info",
        "/actuator",
        "/jolokia",
        "/manager/html",
        "/solr/",
        "/jenkins",
        "/hudson",
        "/owa/",
        "/ecp/",
        "/autodiscover",
        "/boaform",
        "/hnap1",
        "/_ignition",
        "/telescope/",
        "/vendor/phpunit",
        "/eval-stdin",
        "/wls-wsat",
        "/struts",
        "/web-inf",
        "/web.config",
        "/config.php",
        "/backup.",
        "/dump.sql",
        "/database.sql",
        "/.dockerenv",
        "/etc/passwd",
        "/console/login",
        "/geoserver",
        "/graphiql",
        "/swagger-ui",
        "/api-docs",
        "/debug/pprof",
        "/_cat/indices",
        "/.kube",
    ])
});

/// What scanners call themselves.
static AGENTS: LazyLock<Option<AhoCorasick>> = LazyLock::new(|| {
    finder(&[
        "sqlmap",
        "nikto",
        "nmap",
        "masscan",
        "zgrab",
        "nuclei",
        "gobuster",
        "dirbuster",
        "feroxbuster",
        "ffuf",
        "fuzz faster",
        "wfuzz",
        "wpscan",
        "acunetix",
        "nessus",
        "openvas",
        "w3af",
        "arachni",
        "burpsuite",
        "burp suite",
        "owasp zap",
        "zaproxy",
        "hydra",
        "commix",
        "dirsearch",
        "whatweb",
        "skipfish",
        "havij",
        "gotestwaf",
        "netsparker",
        "invicti",
        "qualys",
        "jaeles",
        "l9explore",
        "l9tcpid",
        "censysinspect",
        "internetmeasurement",
        "kiterunner",
        "restler",
        "schemathesis",
        "metasploit",
    ])
});

fn finder(words: &[&str]) -> Option<AhoCorasick> {
    AhoCorasick::builder().ascii_case_insensitive(true).build(words).ok()
}

impl Detector for Scanner {
    fn on_call(&self, scene: &mut Scene<'_>, report: &mut Report) {
        let call = scene.call;
        let payload = call.detail.as_ref().and_then(|detail| detail.payload);
        let is_good = matches!(call.outcome, Some(Outcome::Ok) | None);
        // Nearly all calls end here.
        if payload.is_none() && is_good {
            return;
        }
        let sign = sign(scene, payload, is_good);
        if sign.missing.is_none() && !sign.is_known && !sign.is_scanner && payload.is_none() {
            return;
        }
        let settings = &scene.settings.scan;
        let probed = scene.across.probes.note(scene.address, &sign, scene.time, settings);
        let client = ip(&scene.address);
        if let Some(probed) = probed {
            let entity = match &scene.key {
                Some((id, _)) if probed.level > 1 => Entity::Key(*id),
                Some(_) | None => Entity::Client(client),
            };
            report.add(|| found(entity, &probed, scene));
        } else if let (Some((id, _)), Some(kind)) = (&scene.key, payload) {
            report.add(|| one(Entity::Key(*id), kind, scene));
        }
    }
}

fn sign(scene: &Scene<'_>, payload: Option<Payload>, is_good: bool) -> Sign {
    let call = scene.call;
    let status = call.response.as_ref().and_then(|response| response.status);
    let is_missing = matches!(status, Some(400 | 403 | 404 | 405 | 410));
    let request = call.request.as_ref().filter(|_| is_missing && scene.key.is_none());
    let agent = call.request.as_ref().and_then(|request| request.user_agent.as_deref());
    Sign {
        missing: request.map(|_| scene.named.route),
        is_known: request.is_some_and(|Request { path, .. }| has(&PATHS, path)),
        is_scanner: agent.is_some_and(|agent| has(&AGENTS, agent)),
        payload,
        taken: is_good || matches!(status, Some(500..)),
    }
}

fn has(finder: &LazyLock<Option<AhoCorasick>>, text: &str) -> bool {
    let bytes = &text.as_bytes()[..text.len().min(BYTES_MAX)];
    finder.as_ref().is_some_and(|finder| finder.is_match(bytes))
}

fn found(entity: Entity, probed: &Probed, scene: &Scene<'_>) -> Found {
    let Probed { level, missing, known, is_scanner, payloads, kinds, calls, since } = probed;
    let took = span(scene.time.since(*since));
    let mut did = Vec::new();
    if *missing > 0 {
        did.push(format!("asked for {missing} different paths that are not there"));
    }
    if *known > 0 {
        did.push(format!("asked {known} times for what scanners ask for"));
    }
    if *is_scanner {
        did.push("called itself a scanner".into());
    }
    if *payloads > 0 {
        let kinds: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
        did.push(format!("sent {payloads} attacks ({})", kinds.join(", ")));
    }
    let did = format!("{} within {took}", did.join(", "));
    let (evidence, severity, title, first_step) = match level {
        3 => (
            EVIDENCE_TAKEN,
            Severity::High,
            "Attacks are sent, and the server answers them",
            "Look at what the server answered to these calls, and block the client at the edge",
        ),
        2 => (
            EVIDENCE_ATTACKS,
            Severity::Medium,
            "Attacks are sent to the API",
            "Block the client at the edge unless it is a test of your own",
        ),
        _ => (
            EVIDENCE_LOOKS,
            Severity::Low,
            "The API is being scanned",
            "Block the client at the edge unless it is a test of your own",
        ),
    };
    Found {
        entity,
        rule: &RULE,
        evidence: evidence * scene.weight,
        severity,
        alone: true,
        grown: *level > 1,
        complete: scene.call.complete,
        calls: *calls,
        expected: "paths that are there, and text without code in it".into(),
        seen: did.clone(),
        clause: did,
        title,
        first_step,
    }
}

/// One attack in a key's text.
fn one(entity: Entity, kind: Payload, scene: &Scene<'_>) -> Found {
    Found {
        entity,
        rule: &RULE,
        evidence: EVIDENCE_ONE * scene.weight,
        severity: Severity::Low,
        alone: false,
        grown: false,
        complete: scene.call.complete,
        calls: 1,
        expected: "text without code in it".into(),
        seen: format!("text that looks like an attack ({kind})"),
        clause: format!("sent text that looks like an attack ({kind})"),
        title: "API key sends attacks",
        first_step: "Look at the calls of the key; ask its owner whether this is a test",
    }
}
