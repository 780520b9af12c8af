//! Bodies of many megabytes, by system calls that never show them to user space.

use anyhow::{Result, ensure};
use xtask::http::Connection;

use super::compare::{all_whole, same_calls};
use super::rig::Rig;

const LARGE_BYTES: usize = 20 << 20;

/// nginx sends a file with sendfile(2).
pub(crate) fn large_download_by_sendfile() -> Result<()> {
    let rig = Rig::start()?;
    rig.file("large", LARGE_BYTES)?;
    rig.file("small", 10)?;
    let mut connection = Connection::open(rig.server)?;
    for target in ["/files/large", "/files/small", "/files/large", "/ok"] {
        let reply = connection.call("GET", target, "", b"")?;
        ensure!(reply.status == 200, "{target}: answered {}", reply.status);
    }
    let (calls, logged) = rig.finish()?;
    ensure!(logged.len() == 4, "nginx logged {}", logged.len());
    same_calls(&calls, &logged)?;
    all_whole(&calls)
}

/// The client sends a large body, and a call after it on the same connection.
pub(crate) fn large_upload() -> Result<()> {
    let rig = Rig::start()?;
    let body = vec![b'u'; LARGE_BYTES];
    let mut connection = Connection::open(rig.server)?;
    for _ in 0..2 {
        let reply = connection.call("POST", "/note/large", "", &body)?;
        ensure!(reply.status == 201 && !reply.closes, "answered {}", reply.status);
        connection.call("GET", "/ok", "", b"")?;
    }
    let (calls, logged) = rig.finish()?;
    ensure!(logged.len() == 4, "nginx logged {}", logged.len());
    same_calls(&calls, &logged)?;
    all_whole(&calls)
}
