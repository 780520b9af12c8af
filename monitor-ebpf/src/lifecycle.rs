//! Who owns a watched socket, and when it is gone.

use aya_ebpf::EbpfContext;
use aya_ebpf::cty::c_void;
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use monitor_common::{CLOSED, Control, LISTENS, OWNED, Socket, Verdict};

use crate::rings::put_control;
use crate::sockets::{known, looks_inside_tls, sees_calls, watches_outbound};
use crate::{secrets, tls};

const TCP_ESTABLISHED: i32 = 1;
const TCP_CLOSE: i32 = 7;
const TCP_LISTEN: i32 = 10;

/// Kernel 5.15: `inet_sock_set_state(sk, oldstate, newstate)`.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn keywatch_state(ctx: BtfTracePointContext) -> i32 {
    match ctx.arg::<i32>(2) {
        TCP_CLOSE => {}
        TCP_ESTABLISHED => {
            // SAFETY: the first argument is the socket.
            unsafe { secrets::connected(ctx.arg::<*mut c_void>(0)) };
            return 0;
        }
        TCP_LISTEN if looks_inside_tls() => {
            // In the context of the process that listens.
            let mut event = event_of(&NO_SOCKET, LISTENS);
            event.pid = ctx.tgid();
            put_control(&event);
            return 0;
        }
        _ => return 0,
    }
    // SAFETY: the first argument is the socket.
    let Some(socket) = (unsafe { known(ctx.arg::<*mut c_void>(0)) }) else { return 0 };
    if socket.announced == 1 {
        let mut event = event_of(socket, CLOSED);
        event.lost_bytes = socket.lost_bytes;
        put_control(&event);
        // A closed socket may connect anew; what was learnt of it is over.
        socket.verdict = Verdict::Ignore as u8;
        socket.announced = 0;
    }
    0
}

/// Kernel 6.3: `sock_recv_length(sk, ret, flags)`, in the context of the receiving process. A server
/// receives before it answers.
#[btf_tracepoint(function = "sock_recv_length")]
pub fn keywatch_recv(ctx: BtfTracePointContext) -> i32 {
    let (sk, bytes) = (ctx.arg::<*mut c_void>(0), ctx.arg::<i32>(1));
    if bytes <= 0 {
        // Mostly nothing has come yet.
        return 0;
    }
    // SAFETY: the first argument is the socket.
    let mut socket = unsafe { known(sk) };
    if let Some(socket) = &mut socket {
        own(&ctx, socket);
        tls::meet(socket);
    }
    // SAFETY: as above.
    unsafe { secrets::received_on(sk, socket) };
    0
}

/// Tells of the process that uses a socket, once.
#[inline(always)]
fn own(ctx: &BtfTracePointContext, socket: &mut Socket) {
    if socket.announced == 1 && socket.owned == 0 {
        let mut event = event_of(socket, OWNED);
        event.pid = ctx.tgid();
        event.command = ctx.command().unwrap_or_default();
        socket.owned = u8::from(put_control(&event));
    }
}

/// Kernel 6.3: `sock_send_length(sk, ret, flags)`, in the context of the sending process. A client sends
/// before it is answered.
#[btf_tracepoint(function = "sock_send_length")]
pub fn keywatch_send(ctx: BtfTracePointContext) -> i32 {
    if (watches_outbound() || sees_calls())
        && ctx.arg::<i32>(1) > 0
        // SAFETY: the first argument is the socket.
        && let Some(socket) = unsafe { known(ctx.arg::<*mut c_void>(0)) }
    {
        if socket.outbound == 1 {
            own(&ctx, socket);
        }
        tls::meet(socket);
    }
    0
}

/// What stands in an event of no connection.
const NO_SOCKET: Socket = Socket {
    lost_bytes: [0; 2],
    scope: 0,
    cookie: 0,
    verdict: 0,
    announced: 0,
    owned: 0,
    midstream: 0,
    inside: 0,
    tied: 0,
    outbound: 0,
    received: 0,
    wire_bytes: 0,
    padding: 0,
};

#[inline(always)]
fn event_of(socket: &Socket, kind: u32) -> Control {
    Control {
        // SAFETY: helper without arguments.
        time_ns: unsafe { bpf_ktime_get_ns() },
        cookie: socket.cookie,
        scope: socket.scope,
        lost_bytes: [0; 2],
        client: [0; 16],
        server: [0; 16],
        client_port: 0,
        server_port: 0,
        kind,
        client_isn: 0,
        client_next: 0,
        server_next: 0,
        pid: 0,
        command: [0; 16],
        midstream: socket.midstream,
        verdict: socket.verdict,
        padding: [0; 6],
    }
}
