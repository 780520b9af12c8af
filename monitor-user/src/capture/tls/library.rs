//! The functions of a TLS library in an ELF file, by their symbols.

use anyhow::{Context as _, ensure};
use monitor_common::TlsCall;
use object::read::elf::{ElfFile64, ProgramHeader as _};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, elf};

use super::go::Go;
use super::prologue;

/// Where a library's functions are in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Functions {
    /// Those that pass plaintext on, and those that tell of a connection.
    pub calls: Vec<Function>,
    /// Those that let go of a connection.
    pub free: Vec<u64>,
    /// Those that make randoms, of hellos among others. They may be in a file of their own.
    pub randoms: Vec<Random>,
    /// Those of Go, which stand for themselves.
    pub go: Option<Go>,
}

impl Functions {
    /// Whether they pass plaintext on.
    pub fn is_library(&self) -> bool {
        !self.calls.is_empty() || self.go.is_some()
    }
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    /// What it does.
    pub call: TlsCall,
    /// Offset in the file, bytes.
    pub offset: u64,
}

/// What makes randoms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Random {
    /// Whether its first argument is the library's context.
    pub with_context: bool,
    /// Offset in the file, bytes.
    pub offset: u64,
}

/// A library by the names of its functions.
struct Known {
    /// What they all begin with.
    prefix: &'static str,
    calls: &'static [(&'static str, TlsCall)],
    free: &'static str,
}

/// OpenSSL 1.1 and 3 with libraries that offer the same functions, and GnuTLS.
const KNOWN: [Known; 2] = [
    Known {
        prefix: "SSL_",
        calls: &[
            ("SSL_read", TlsCall::Read),
            ("SSL_read_ex", TlsCall::ReadEx),
            ("SSL_write", TlsCall::Write),
            ("SSL_write_ex", TlsCall::WriteEx),
            ("SSL_do_handshake", TlsCall::Handshake),
            ("SSL_sendfile", TlsCall::SendFile),
            ("SSL_shutdown", TlsCall::Shutdown),
        ],
        free: "SSL_free",
    },
    // Its functions take and give the same as SSL_read and SSL_write do.
    Known {
        prefix: "gnutls_",
        calls: &[
            ("gnutls_record_recv", TlsCall::Read),
            ("gnutls_record_send", TlsCall::Write),
            ("gnutls_handshake", TlsCall::Handshake),
            ("gnutls_bye", TlsCall::Shutdown),
        ],
        free: "gnutls_deinit",
    },
];

/// OpenSSL's; the second calls the first where both are there.
const RANDOMS: [(&str, bool); 2] = [("RAND_bytes_ex", true), ("RAND_bytes", false)];

/// Without these nothing is seen of a connection, or wrong things.
const NEEDED: [TlsCall; 3] = [TlsCall::Read, TlsCall::Write, TlsCall::Handshake];

/// Finds them in the bytes of a file; `None` when it holds no TLS library by its symbols, and nothing
/// that one may need.
///
/// # Errors
///
/// When it is no ELF file for this machine, or a damaged one.
pub fn functions(file: &[u8]) -> anyhow::Result<Option<Functions>> {
    let bytes = file;
    // Big endian machines are not supported by the kernel side.
    let file = ElfFile64::<object::LittleEndian>::parse(file).context("no 64-bit ELF file")?;
    let endian = file.endian();
    let loads: Vec<_> = file
        .elf_program_headers()
        .iter()
        .filter(|header| header.p_type(endian) == elf::PT_LOAD)
        .map(|header| (header.p_vaddr(endian), header.p_filesz(endian), header.p_offset(endian)))
        .collect();
    let offset_of = |address: u64| {
        loads.iter().find_map(|&(start, bytes, offset)| {
            let within = address.checked_sub(start).filter(|within| *within < bytes)?;
            offset.checked_add(within)
        })
    };
    let mut found =
        Functions { calls: Vec::new(), free: Vec::new(), randoms: Vec::new(), go: None };
    let mut calls: Vec<(Function, u64)> = Vec::new();
    // Programs that export nothing have their functions in the other table.
    for symbol in file.dynamic_symbols().chain(file.symbols()) {
        if symbol.is_undefined() || symbol.kind() != object::SymbolKind::Text {
            continue;
        }
        let Ok(name) = symbol.name_bytes() else { continue };
        let offset = || offset_of(symbol.address()).context("a function outside of the file");
        if let Some(&(_, with_context)) = RANDOMS.iter().find(|(it, _)| it.as_bytes() == name) {
            let random = Random { with_context, offset: offset()? };
            if !found.randoms.contains(&random) {
                found.randoms.push(random);
            }
            continue;
        }
        let Some(known) = KNOWN.iter().find(|known| name.starts_with(known.prefix.as_bytes()))
        else {
            continue;
        };
        if name == known.free.as_bytes() {
            let offset = offset()?;
            if !found.free.contains(&offset) {
                found.free.push(offset);
            }
        } else if let Some((_, call)) = known.calls.iter().find(|(it, _)| it.as_bytes() == name) {
            let function = (Function { call: *call, offset: offset()? }, symbol.address());
            if !calls.contains(&function) {
                calls.push(function);
            }
        }
    }
    if found.randoms.iter().any(|random| random.with_context) {
        found.randoms.retain(|random| random.with_context);
    }
    let probes = calls.len() + found.free.len() + found.randoms.len();
    ensure!(probes <= PROBES_MAX, "it has functions many times");
    if calls.is_empty() {
        // What begins like a program's own functions need not be a library.
        found.free.clear();
        found.go = go(&file, offset_of)?;
        if found.go.is_some() {
            return Ok(Some(found));
        }
        return Ok((!found.randoms.is_empty()).then_some(found));
    }
    let has = |call: &TlsCall| calls.iter().any(|(function, _)| function.call == *call);
    ensure!(NEEDED.iter().all(has), "it lacks the function that reads, writes or shakes hands");
    ensure!(!found.free.is_empty(), "it lacks the function that ends a connection");
    if file.architecture() == object::Architecture::X86_64 {
        let code = |address| {
            let start = usize::try_from(offset_of(address)?).ok()?;
            let rest = bytes.get(start..)?;
            Some(&rest[..rest.len().min(prologue::PROLOGUE_BYTES)])
        };
        prologue::improve(&mut calls, code, offset_of);
    }
    found.calls = calls.into_iter().map(|(function, _)| function).collect();
    Ok(Some(found))
}

/// Those of a Go program.
fn go<'a>(
    file: &ElfFile64<'a, object::LittleEndian>,
    offset_of: impl Fn(u64) -> Option<u64>,
) -> anyhow::Result<Option<Go>> {
    // The second name is that of programs which may be loaded anywhere.
    let table = [".gopclntab", ".data.rel.ro.gopclntab"];
    let table = table.iter().find_map(|name| file.section_by_name(name));
    let (Some(table), Some(text)) = (table, file.section_by_name(".text")) else {
        return Ok(None);
    };
    if file.architecture() != object::Architecture::X86_64 {
        return Ok(None);
    }
    let code = (text.address(), text.data().context("code outside of the file")?);
    let table = table.data().context("Go's table of functions is outside of the file")?;
    super::go::functions(table, code, offset_of)
}

/// A hostile file may name any number: each function once, and room for versions of it.
const PROBES_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    fn read(name: &str) -> Option<Vec<u8>> {
        let folders = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64"];
        folders.iter().find_map(|folder| std::fs::read(Path::new(folder).join(name)).ok())
    }

    fn libssl() -> Option<Vec<u8>> {
        read("libssl.so.3")
    }

    #[test]
    fn libraries_have_them_all() {
        for (file, known) in ["libssl.so.3", "libgnutls.so.30"].into_iter().zip(KNOWN) {
            let Some(file) = read(file) else { continue };
            let found = functions(&file).unwrap().unwrap();
            let calls: Vec<_> = found.calls.iter().map(|function| function.call).collect();
            for (_, call) in known.calls {
                // What both forms of a function call may stand for both.
                let is = |plain, ex| *call == plain && calls.contains(&ex);
                let replaced =
                    is(TlsCall::Read, TlsCall::ReadEx) || is(TlsCall::Write, TlsCall::WriteEx);
                assert!(calls.contains(call) || replaced, "{call:?}: {calls:?}");
            }
            assert_eq!(found.free.len(), 1);
            assert!(
                (known.calls.len() - 2..=known.calls.len()).contains(&calls.len()),
                "{calls:?}"
            );
        }
    }

    #[test]
    fn randoms_are_found_where_they_are_made() {
        let Some(file) = read("libcrypto.so.3") else { return };
        let found = functions(&file).unwrap().unwrap();
        assert_eq!((found.calls, found.free), (vec![], vec![]));
        // OpenSSL 3 has both, and the other one calls it.
        let with_context: Vec<_> = found.randoms.iter().map(|it| it.with_context).collect();
        assert_eq!(with_context, [true]);
    }

    #[test]
    fn a_program_without_one_has_none() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        // rdkafka may bring one into the tests' own program; then it is whole.
        if let Some(found) = functions(&own).unwrap() {
            assert!(found.calls.len() >= NEEDED.len());
        }
        let shell = std::fs::read("/bin/sh").unwrap();
        assert_eq!(functions(&shell).unwrap(), None);
        assert!(functions(b"#!/bin/sh\n").is_err());
        assert!(functions(b"").is_err());
    }

    #[test]
    fn truncated_and_damaged_files_are_refused_or_found_in_part() {
        let Some(file) = libssl() else { return };
        for end in (0..file.len()).step_by(file.len() / 200) {
            let _ = functions(&file[..end]);
        }
        let mut dice = 1_u64;
        let mut damaged = file.clone();
        for _ in 0..500 {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // Mostly in the headers, where it matters.
            let at = (dice >> 33) as usize % if dice & 1 == 0 { 1024 } else { file.len() };
            damaged[at] = (dice >> 20) as u8;
            let _ = functions(&damaged);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_behind_a_header_are_no_panic(rest in prop::collection::vec(any::<u8>(), 0..400)) {
            let header = [0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0];
            let _ = functions(&[&header[..], &rest].concat());
        }
    }
}
