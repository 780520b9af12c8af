//! What a TLS library leaves in a program that it was linked into, where its functions cannot be found.

use memchr::memmem;

/// A library that is there and is not looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Which, and how it is there.
    pub library: &'static str,
    /// How its connections are seen all the same.
    pub mend: &'static str,
}

/// How a library that is not looked into is seen into all the same.
pub(super) const BY_KEY_LOG: &str =
    "let it write a key log (SSLKEYLOGFILE or its like) and set capture.tls = \"keylog\"";

/// By what stands in a program, stripped or not: the names of sources in what is said of failures.
const TRACES: [(&[u8], Trace); 4] = [
    // Its functions follow Rust's own calling convention, which no document fixes, and most become part
    // of those that call them.
    (
        b"/rustls-0.",
        Trace {
            library: "rustls, built in",
            mend: "let it write a key log (its config's `key_log` a `rustls::KeyLogFile`, SSLKEYLOGFILE \
                   set) and set capture.tls = \"keylog\"",
        },
    ),
    (b"crypto/tls.(*Conn)", Trace { library: "Go crypto/tls, built in", mend: BY_KEY_LOG }),
    (b"/ssl_lib.cc\0", Trace { library: "BoringSSL, built in without symbols", mend: BY_KEY_LOG }),
    (b"ssl/ssl_lib.c\0", Trace { library: "OpenSSL, built in without symbols", mend: BY_KEY_LOG }),
];

/// Shared libraries whose functions are not known, by how their names begin.
const OTHERS: [(&str, Trace); 4] = [
    ("libnss3.so", Trace { library: "NSS", mend: BY_KEY_LOG }),
    ("libmbedtls.so", Trace { library: "Mbed TLS", mend: BY_KEY_LOG }),
    ("libwolfssl.so", Trace { library: "wolfSSL", mend: BY_KEY_LOG }),
    ("libs2n.so", Trace { library: "s2n-tls", mend: BY_KEY_LOG }),
];

/// Of a file's bytes.
pub(super) fn in_program(bytes: &[u8]) -> Option<Trace> {
    let found = TRACES.iter().find(|(needle, _)| memmem::find(bytes, needle).is_some());
    found.map(|(_, trace)| *trace)
}

/// Of a file's name.
pub(super) fn by_name(name: &str) -> Option<Trace> {
    OTHERS.iter().find(|(prefix, _)| name.starts_with(prefix)).map(|(_, trace)| *trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_known_by_what_they_leave() {
        let library = |bytes: &[u8]| in_program(bytes).map(|trace| trace.library);
        let rustls = b"\0/registry/src/index/rustls-0.23.5/src/conn.rs\0";
        assert_eq!(library(rustls), Some("rustls, built in"));
        assert_eq!(library(b"..ssl/ssl_lib.c\0"), Some("OpenSSL, built in without symbols"));
        let boring = b"boringssl/ssl/ssl_lib.cc\0";
        assert_eq!(library(boring), Some("BoringSSL, built in without symbols"));
        for other in [&b"rustls is a library"[..], b"ssl_lib.c", b""] {
            assert_eq!(library(other), None);
        }
        assert_eq!(by_name("libnss3.so").map(|trace| trace.library), Some("NSS"));
        assert_eq!(by_name("libc.so.6"), None);
    }
}
