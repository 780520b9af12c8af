//! The real kernel side against real servers: what Keywatch saw is what the server logged, exactly.

mod baseline;
mod bodies;
mod canaries;
mod compare;
mod exchanges;
mod fleet;
mod grpc;
mod http2;
mod kafka;
mod kafka_secured;
mod lifecycle;
mod namespace;
mod patient;
mod plain;
mod proxied;
mod recording;
mod rig;
pub(crate) mod rustls_server;
mod servers;
mod simulated;
mod sinks;
mod tcpdump;
mod tls;
mod tls_apart;
mod tls_keylog;
mod tls_others;
mod tls_outbound;
mod tls_servers;
mod tls_soak;
mod websocket;

use libtest_mimic::Trial;
use xtask::{openssl, setup};

use crate::trial;

const KAFKA: &[&str] = &["java", "mvn", "kcat"];
const SECURED: &[&str] = &["java", "mvn", "kcat", "openssl"];

type Test = fn() -> anyhow::Result<()>;

/// Every live test, or none with the reason.
pub(crate) fn trials() -> Vec<Trial> {
    let tests: [(&str, Test, &[&str]); 94] = [
        ("plain_calls", plain::plain_calls, &["nginx"]),
        ("keep_alive", plain::keep_alive, &["nginx"]),
        ("pipelining", plain::pipelining, &["nginx"]),
        ("ipv6", plain::ipv6, &["nginx"]),
        ("parallel_connections", plain::parallel_connections, &["nginx"]),
        ("two_ports", plain::two_ports, &["nginx"]),
        ("simulated_calls", simulated::simulated_calls, &["nginx"]),
        (
            "simulation_refused_and_interrupted",
            simulated::simulation_refused_and_interrupted,
            &["nginx"],
        ),
        ("http2_calls", http2::http2_calls, &["nginx", "h2load"]),
        ("http2_two_keys", http2::two_keys_on_one_connection, &["nginx", "curl"]),
        ("http1_on_an_http2_port", http2::http1_on_an_http2_port, &["nginx"]),
        ("grpc_calls", grpc::calls, &["python3"]),
        ("grpc_servers_speak_first", grpc::servers_that_speak_first, &["python3"]),
        ("tls::grpc_is_named", grpc::sealed_is_named, &["python3", "openssl"]),
        ("grpc_opened_before", grpc::opened_before_the_start, &["python3"]),
        ("large_download_by_sendfile", bodies::large_download_by_sendfile, &["nginx"]),
        ("large_upload", bodies::large_upload, &["nginx"]),
        ("writev_server", servers::writev_server, &[]),
        ("io_uring_server", servers::io_uring_server, &[]),
        ("opened_before_the_start", lifecycle::opened_before_the_start, &["nginx"]),
        ("shutdown_under_load", lifecycle::shutdown_under_load, &["nginx"]),
        ("profiles_are_read_again", lifecycle::profiles_are_read_again, &["nginx"]),
        ("secret_is_read_again", lifecycle::secret_is_read_again, &["nginx"]),
        ("no_rights", lifecycle::no_rights, &["setpriv"]),
        ("two_agents_at_once", lifecycle::two_agents_at_once, &["nginx"]),
        ("replay_of_tcpdump", tcpdump::replay_of_tcpdump, &["nginx", "tcpdump"]),
        ("websocket_calls_and_counts", websocket::calls_and_counts, &["python3"]),
        ("websocket_opened_before", websocket::opened_before_the_start, &["python3"]),
        ("tls::https_calls", tls::https_calls, &["nginx", "python3"]),
        ("tls::http2_calls", tls::http2_calls, &["nginx", "h2load"]),
        ("tls::bodies", tls::bodies, &["nginx", "curl"]),
        ("tls::server_comes_later", tls::server_comes_later, &["nginx", "curl"]),
        ("tls::client_certificate", tls::client_certificate, &["nginx", "curl"]),
        ("tls::recording", tls::replay_gives_the_same_bytes, &["nginx", "python3"]),
        ("tls::key_log", tls::key_log_gives_the_same_calls, &["nginx", "curl", "tcpdump"]),
        ("tls::opened_before", tls::opened_before_the_start, &["nginx", "python3"]),
        ("tls::python", tls_servers::python, &["python3", "curl"]),
        ("tls::haproxy", tls_servers::haproxy, &["python3", "curl", "haproxy"]),
        ("tls::apache", tls_servers::apache, &["python3", "curl", "apache2"]),
        ("tls::lighttpd", tls_servers::lighttpd, &["python3", "curl", "lighttpd"]),
        ("tls::gnutls", tls_servers::gnutls, &["python3", "gnutls-serv"]),
        ("tls::websocket", websocket::over_tls, &["python3"]),
        ("tls::websocket_nginx", websocket::behind_nginx, &["python3", "nginx"]),
        ("tls::keylog", tls_keylog::keylog, &["python3"]),
        ("tls::secrets_of_others", tls_keylog::secrets_of_others_stay, &["python3", "curl"]),
        ("tls::short_lived", tls_soak::short_lived, &["python3", "curl"]),
        ("tls::call_bound", tls_keylog::bound_of_a_call, &["python3", "curl"]),
        ("tls::netty", tls_others::netty, &["python3", "curl", "java", "mvn"]),
        ("tls::set_fd", tls_others::set_fd, &["python3", "curl"]),
        ("tls::boringssl", tls_others::boringssl, &["python3", "curl"]),
        ("tls::handshake_in_a_read", tls_others::handshake_in_a_read, &["python3", "curl"]),
        ("tls::openssl_1_1", tls_others::openssl_1_1, &["python3", "curl"]),
        ("tls::rustls_keylog", tls_others::rustls_keylog, &["python3", "curl"]),
        ("tls::rustls_aws_lc", tls_others::rustls_aws_lc, &["python3", "curl"]),
        ("tls::rustls_is_named", tls_others::rustls_is_named, &["python3", "strip"]),
        ("tls::outbound_curl", tls_outbound::curl_calls, &["nginx", "curl"]),
        ("tls::outbound_others", tls_outbound::other_clients, &["nginx", "python3", "openssl"]),
        ("tls::outbound_own", tls_outbound::own_library, &["nginx", "python3"]),
        ("tls::served_and_called", tls_outbound::served_and_called, &["python3"]),
        ("outbound_plain", tls_outbound::plain_calls, &["nginx", "curl"]),
        ("tls::full_ring", tls_keylog::full_ring, &["python3", "curl"]),
        ("tls::node", tls_apart::node, &["python3", "curl", "node"]),
        ("tls::node_at_calls", tls_apart::node_at_calls, &["python3", "curl", "node"]),
        ("tls::go_at_calls", tls_apart::go_at_calls, &["python3", "curl", "go"]),
        ("tls::calls_left_alone", tls_servers::calls_are_left_alone, &["python3"]),
        ("tls::node_http2", tls_apart::node_http2, &["h2load", "node"]),
        ("tls::asyncio", tls_apart::asyncio, &["python3", "curl"]),
        ("tls::aiohttp", tls_apart::aiohttp, &["python3", "curl"]),
        ("tls::go_stripped", tls_apart::go_stripped, &["python3", "curl", "go"]),
        ("tls::go", tls_apart::go, &["python3", "curl", "go", "h2load"]),
        ("tls::nothing_is_left", tls_servers::nothing_is_left, &["python3"]),
        ("proxied_by_haproxy", proxied::by_haproxy, &["nginx", "haproxy", "curl"]),
        ("canaries", canaries::are_nowhere, &["nginx", "curl", "python3", "openssl"]),
        ("canaries_in_kafka", canaries::are_not_in_kafka, &["nginx", "java", "mvn", "kcat"]),
        ("exchanges_by_ccxt", exchanges::as_ccxt_signs, &["python3", "openssl"]),
        ("recording::same_bytes", recording::replay_gives_the_same_bytes, &["nginx"]),
        ("recording::losses", recording::losses_are_replayed, &["nginx"]),
        ("recording::midstream", recording::midstream_and_silence_are_replayed, &["nginx"]),
        ("recording::rotation", recording::rotated_files_are_one_recording, &["nginx"]),
        ("recording::record", recording::record_without_decoding, &["nginx"]),
        ("recording::full_disk", recording::a_full_disk_ends_the_recording_alone, &["nginx"]),
        ("baseline_outlives_a_kill", baseline::outlives_a_kill, &["nginx"]),
        ("alerts_reach_kafka", kafka::alerts_reach_kafka, &["nginx", "java", "mvn"]),
        ("kafka_goes_and_comes_back", kafka::goes_and_comes_back, &["nginx", "java", "mvn"]),
        ("kafka_is_not_there", kafka::is_not_there, &["nginx"]),
        ("kafka_killed", kafka::killed_before_the_broker_came, &["nginx", "java", "mvn", "kcat"]),
        ("kafka_scram_and_certificates", kafka_secured::scram_and_certificates, SECURED),
        ("kafka_ocsf_by_default", kafka_secured::ocsf_by_default, SECURED),
        ("kafka_what_is_wrong", kafka_secured::what_is_wrong_is_said, SECURED),
        ("syslog_and_webhook", sinks::syslog_and_webhook, &["python3", "openssl"]),
        ("fleet_members_come_and_go", fleet::members_come_and_go, KAFKA),
        ("fleet_keeps_what_it_learnt", fleet::what_was_learnt_outlives_a_member, KAFKA),
        ("kafka_agents_die", fleet::agents_die, KAFKA),
        ("kafka_too_large", kafka_secured::larger_than_the_broker_takes, SECURED),
    ];
    let required = std::env::var_os("KEYWATCH_REQUIRE_LIVE").is_some_and(|value| value == "1");
    tests
        .into_iter()
        .filter_map(|(name, run, programs)| {
            let name = format!("live::{name}");
            match missing(&name, programs) {
                None => Some(trial(name, run)),
                Some(missing) if required => Some(trial(name, move || anyhow::bail!("{missing}"))),
                Some(missing) => {
                    println!("left out: {name}: {missing}");
                    None
                }
            }
        })
        .collect()
}

/// Why a test cannot run here.
fn missing(name: &str, programs: &[&str]) -> Option<String> {
    if !setup::is_root() {
        return Some("not root".to_owned());
    }
    if name.ends_with("io_uring_server") {
        let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
        if disabled.is_ok_and(|value| value.trim() != "0") {
            return Some("io_uring is disabled (kernel.io_uring_disabled)".to_owned());
        }
    }
    if name.contains("websocket") && setup::python_with("websockets").is_none() {
        return Some("no Python module websockets (mend: cargo xtask setup)".to_owned());
    }
    if (name.ends_with("exchanges_by_ccxt") || name.ends_with("aiohttp"))
        && setup::python_with_ccxt().is_none()
    {
        return Some("no Python module ccxt (mend: cargo xtask setup)".to_owned());
    }
    if (name.ends_with("boringssl") || name.ends_with("handshake_in_a_read"))
        && openssl::library(openssl::BORINGSSL).is_err()
    {
        return Some("no BoringSSL (mend: cargo xtask setup)".to_owned());
    }
    if name.ends_with("ocsf_by_default") && setup::python_with_kafka().is_none() {
        return Some("no Python module kafka (mend: cargo xtask setup)".to_owned());
    }
    let absent =
        ["ip", "openssl"].iter().chain(programs).find(|program| setup::find(program).is_none());
    absent.map(|program| format!("no {program} (mend: cargo xtask setup)"))
}
