//! The kernel side of Keywatch: watches, never touches.
//!
//! One file per hook family: [`packets`] sees TCP payload at the sockets of watched ports,
//! [`lifecycle`] who owns them and when they close, [`tls`] what TLS libraries pass on and [`go`] what
//! Go's does, [`hello`] which socket that belongs to, [`secrets`] with what their connections can be
//! opened. What they find goes into two rings ([`rings`]).
//! No protocol is parsed here beyond "is this socket of interest" ([`first_bytes`]).
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod first_bytes;
mod go;
mod headers;
mod hello;
mod lifecycle;
mod memory;
mod packets;
mod rings;
mod secrets;
mod sockets;
mod tls;

/// Lets the kernel offer the helpers that it keeps for GPL-compatible programs.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Never reached: the verifier refuses a program that could loop here.
    loop {}
}
