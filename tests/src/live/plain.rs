//! Small calls in every arrangement of connections.

use anyhow::{Result, bail, ensure};
use monitor_core::call::{ApiCall, Outcome};
use xtask::http::{Connection, request};

use super::compare::{all_whole, same_calls};
use super::rig::Rig;

/// GET and POST, each on a connection of its own; the process is nginx; latency is seen.
pub(crate) fn plain_calls() -> Result<()> {
    let rig = Rig::start()?;
    for number in 0..50 {
        let mut connection = Connection::open(rig.server)?;
        let reply = connection.call("GET", &format!("/api/{number}"), "", b"")?;
        ensure!(reply.status == 200, "answered {}", reply.status);
        let body = vec![b'b'; number * 100];
        Connection::open(rig.server)?.call("POST", "/note", "", &body)?;
    }
    Connection::open(rig.server)?.call("GET", "/denied", "", b"")?;
    Connection::open(rig.server)?.call("HEAD", "/ok", "", b"")?;
    let (calls, logged) = rig.finish()?;
    ensure!(logged.len() == 102, "nginx logged {}", logged.len());
    same_calls(&calls, &logged)?;
    all_whole(&calls)?;
    ensure!(calls.iter().all(|call| call.latency_us.is_some()), "a call without latency");
    ensure!(
        calls.iter().filter(|call| call.outcome == Some(Outcome::Ok)).count() == 101,
        "outcomes"
    );
    owned_by(&calls, "nginx")
}

/// The socket's owner was found for every call.
pub(crate) fn owned_by(calls: &[ApiCall], process: &str) -> Result<()> {
    for call in calls {
        let (seen, pid) = (&call.flow.process, call.flow.pid);
        ensure!(seen.as_deref() == Some(process), "owner {seen:?}, pid {pid:?}: not {process}");
    }
    Ok(())
}

/// Many calls on few connections.
pub(crate) fn keep_alive() -> Result<()> {
    let rig = Rig::start()?;
    for _ in 0..4 {
        let mut connection = Connection::open(rig.server)?;
        for number in 0..250 {
            connection.call("GET", &format!("/api/{number}"), "", b"")?;
        }
    }
    let (calls, logged) = rig.finish()?;
    ensure!(logged.len() == 1000, "nginx logged {}", logged.len());
    same_calls(&calls, &logged)?;
    all_whole(&calls)
}

/// Fifty requests in one write, some with bodies.
pub(crate) fn pipelining() -> Result<()> {
    let rig = Rig::start()?;
    for _ in 0..10 {
        let mut connection = Connection::open(rig.server)?;
        let mut bytes = Vec::new();
        for number in 0..50_usize {
            let target = format!("/note/{number}");
            bytes.extend(match number % 3 {
                0 => request("POST", &target, "", &vec![b'p'; number * 7]),
                1 => request("GET", "/ok", "", b""),
                _ => request("GET", "/denied", "", b""),
            });
        }
        connection.send(&bytes)?;
        for number in 0..50 {
            let expected = [201, 200, 403][number % 3];
            let reply = connection.reply("GET")?;
            ensure!(reply.status == expected, "reply {number} is {}", reply.status);
        }
    }
    let (calls, logged) = rig.finish()?;
    ensure!(logged.len() == 500, "nginx logged {}", logged.len());
    same_calls(&calls, &logged)?;
    all_whole(&calls)
}

/// The same over IPv6.
pub(crate) fn ipv6() -> Result<()> {
    let rig = Rig::start()?;
    for number in 0..20 {
        let mut connection = Connection::open(rig.server_v6)?;
        for _ in 0..5 {
            connection.call("POST", &format!("/note/{number}"), "", b"six")?;
        }
    }
    let (calls, logged) = rig.finish()?;
    ensure!(logged.len() == 100, "nginx logged {}", logged.len());
    ensure!(calls.iter().all(|call| call.flow.client.ip().is_ipv6()), "not IPv6");
    same_calls(&calls, &logged)?;
    all_whole(&calls)
}

/// 32 clients at once, with short and long connections.
pub(crate) fn parallel_connections() -> Result<()> {
    let rig = Rig::start()?;
    let server = rig.server;
    std::thread::scope(|scope| {
        let client = |number: usize| -> Result<()> {
            for round in 0..20 {
                let mut connection = Connection::open(server)?;
                for call in 0..=number % 16 {
                    let target = format!("/api/{number}/{round}/{call}");
                    connection.call("GET", &target, "", b"")?;
                }
            }
            Ok(())
        };
        let threads: Vec<_> = (0..32).map(|number| scope.spawn(move || client(number))).collect();
        for thread in threads {
            match thread.join() {
                Ok(done) => done?,
                Err(_) => bail!("a client panicked"),
            }
        }
        Ok(())
    })?;
    let (calls, logged) = rig.finish()?;
    // 32 clients, 20 rounds, 1 to 16 calls a round: 8.5 on average.
    ensure!(logged.len() == 5440, "nginx logged {}", logged.len());
    same_calls(&calls, &logged)?;
    all_whole(&calls)
}

/// Both of two watched ports are seen; a third that is not watched is not.
pub(crate) fn two_ports() -> Result<()> {
    let mut rig = Rig::without_agent()?;
    rig.start_agent_on(&[rig.server.port()], &[])?;
    Connection::open(rig.server)?.call("GET", "/ok", "", b"")?;
    Connection::open(rig.other)?.call("GET", "/ok", "", b"")?;
    let one = rig.stop_agent()?;
    ensure!(one.len() == 1 && one[0].flow.server.port == rig.server.port(), "seen: {one:?}");
    rig.start_agent_on(&[rig.server.port(), rig.other.port()], &[])?;
    Connection::open(rig.server)?.call("GET", "/ok", "", b"")?;
    Connection::open(rig.other)?.call("GET", "/ok", "", b"")?;
    let both = rig.stop_agent()?;
    // The file goes on where it was.
    ensure!(both.len() == 2 || both.len() == 3, "seen: {}", both.len());
    let other = both.iter().filter(|call| call.flow.server.port == rig.other.port()).count();
    ensure!(other == 1, "{other} calls on the second port");
    Ok(())
}
