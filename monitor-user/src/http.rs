//! One kind of HTTP client for all that is asked or told over HTTP.

use std::time::Duration;

use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};

/// A client that goes where the config says and nowhere else, and waits `answer_max` for an answer. A
/// bad status is an answer.
pub(crate) fn agent(certificates: RootCerts, answer_max: Duration) -> Agent {
    let tls = TlsConfig::builder().provider(TlsProvider::NativeTls).root_certs(certificates);
    let agent = Agent::config_builder()
        .timeout_global(Some(answer_max))
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .user_agent(concat!("keywatch/", env!("CARGO_PKG_VERSION")))
        .tls_config(tls.build());
    agent.build().into()
}
