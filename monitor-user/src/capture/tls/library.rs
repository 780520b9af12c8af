//! The functions of a TLS library in an ELF file, by their symbols.

use anyhow::{Context as _, ensure};
use monitor_common::TlsCall;
use object::read::elf::{ElfFile64, ProgramHeader as _};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, elf};

use super::go::Go;
use super::prologue;

/// Where a library's functions are in its file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Functions {
    /// Those that pass plaintext on, and those that tell of a connection.
    pub calls: Vec<Function>,
    /// Those that let go of a connection.
    pub free: Vec<u64>,
    /// Those that make randoms, of hellos among others. They may be in a file of their own.
    pub randoms: Vec<Random>,
    /// Those that derive secrets. OpenSSL 3 has them in its other file.
    pub derivations: Vec<Derivation>,
    /// Whether the secrets of its connections come out of what [`derivations`](Functions::derivations) has,
    /// here or in another file.
    pub is_derived: bool,
    /// Those of Go, which stand for themselves.
    pub go: Option<Go>,
}

impl Functions {
    /// Whether they pass plaintext on.
    pub fn is_library(&self) -> bool {
        !self.calls.is_empty() || self.go.is_some()
    }

    /// Whether connections can be opened with the secrets that they derive, while no plaintext is passed on
    /// by a function that is known: rustls over AWS-LC.
    pub fn tells_secrets_alone(&self) -> bool {
        !self.is_library() && self.derivations.iter().any(|it| it.by == Deriving::Hkdf)
    }
}

/// What derives secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Derivation {
    /// How.
    pub by: Deriving,
    /// Offset in the file, bytes.
    pub offset: u64,
}

/// Functions that derive secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deriving {
    /// `EVP_KDF_derive` of OpenSSL 3, of any version of TLS.
    Kdf,
    /// `HKDF_expand` of AWS-LC, of TLS 1.3.
    Hkdf,
    /// `CRYPTO_tls1_prf` of AWS-LC, of TLS 1.2.
    Prf,
}

impl Deriving {
    /// By a function's name. AWS-LC's have their version in front, as it is built for Rust.
    fn of(name: &[u8]) -> Option<Deriving> {
        if name == KDF.as_bytes() {
            return Some(Deriving::Kdf);
        }
        // As in `aws_lc_0_39_1_` or `aws_lc_fips_0_13_9_`.
        let name = std::str::from_utf8(name).ok()?.strip_prefix("aws_lc_")?;
        let is_of_version = |it: char| it.is_ascii_digit() || it == '_';
        match name.strip_prefix("fips_").unwrap_or(name).trim_start_matches(is_of_version) {
            "HKDF_expand" => Some(Deriving::Hkdf),
            "CRYPTO_tls1_prf" => Some(Deriving::Prf),
            _ => None,
        }
    }
}

const KDF: &str = "EVP_KDF_derive";

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
    let code = |address| {
        let start = usize::try_from(offset_of(address)?).ok()?;
        let rest = bytes.get(start..)?;
        Some(&rest[..rest.len().min(prologue::PROLOGUE_BYTES)])
    };
    let is_x86_64 = file.architecture() == object::Architecture::X86_64;
    let mut found = Functions::default();
    let mut calls: Vec<(Function, u64)> = Vec::new();
    // Programs that export nothing have their functions in the other table.
    for symbol in file.dynamic_symbols().chain(file.symbols()) {
        let Ok(name) = symbol.name_bytes() else { continue };
        if symbol.is_undefined() {
            found.is_derived |= name == KDF.as_bytes();
            continue;
        }
        if symbol.kind() != object::SymbolKind::Text {
            continue;
        }
        let offset = || offset_of(symbol.address()).context("a function outside of the file");
        if let Some(&(_, with_context)) = RANDOMS.iter().find(|(it, _)| it.as_bytes() == name) {
            let random = Random { with_context, offset: offset()? };
            if !found.randoms.contains(&random) {
                found.randoms.push(random);
            }
            continue;
        }
        // The registers that its arguments are in are those of this machine.
        if let Some(by) = Deriving::of(name).filter(|_| is_x86_64) {
            let begin = code(symbol.address()).context("a function outside of the file")?;
            let derivation = Derivation { by, offset: offset()? + prologue::cheap(begin) };
            if !found.derivations.contains(&derivation) {
                found.derivations.push(derivation);
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
    let derives = |by| found.derivations.iter().any(|it| it.by == by);
    found.is_derived |= derives(Deriving::Kdf);
    found.is_derived &= is_x86_64;
    let probes = calls.len() + found.free.len() + found.randoms.len() + found.derivations.len();
    ensure!(probes <= PROBES_MAX, "it has functions many times");
    if calls.is_empty() {
        // What begins like a program's own functions need not be a library.
        found.free.clear();
        found.go = go(&file, offset_of)?;
        if found.go.is_some() {
            return Ok(Some(found));
        }
        let is_part = !found.randoms.is_empty() || !found.derivations.is_empty();
        return Ok(is_part.then_some(found));
    }
    let has = |call: &TlsCall| calls.iter().any(|(function, _)| function.call == *call);
    ensure!(NEEDED.iter().all(has), "it lacks the function that reads, writes or shakes hands");
    ensure!(!found.free.is_empty(), "it lacks the function that ends a connection");
    if is_x86_64 {
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
        // It has no plaintext, and the secrets of both its files.
        let derivations: Vec<_> = found.derivations.iter().map(|it| it.by).collect();
        assert_eq!((derivations, found.is_derived), (vec![Deriving::Kdf], true));
        let Some(file) = read("libssl.so.3") else { return };
        let found = functions(&file).unwrap().unwrap();
        assert_eq!((found.derivations, found.is_derived), (vec![], true));
        let Some(file) = read("libgnutls.so.30") else { return };
        assert!(!functions(&file).unwrap().unwrap().is_derived);
    }

    #[test]
    fn what_derives_is_known_by_name() {
        for (name, by) in [
            ("EVP_KDF_derive", Some(Deriving::Kdf)),
            ("aws_lc_0_39_1_HKDF_expand", Some(Deriving::Hkdf)),
            ("aws_lc_fips_0_13_9_HKDF_expand", Some(Deriving::Hkdf)),
            ("aws_lc_0_39_1_CRYPTO_tls1_prf", Some(Deriving::Prf)),
            ("aws_lc_0_39_1_HKDF", None),
            ("HKDF_expand", None),
            ("EVP_KDF_derive_", None),
            ("", None),
        ] {
            assert_eq!(Deriving::of(name.as_bytes()), by, "{name}");
        }
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

    /// The file whole, cut in a hundred places and damaged in some of its bytes: mostly in its headers
    /// and around what is looked for, where it matters.
    fn is_borne(file: &[u8], damages: usize) {
        for cut in 0..100 {
            let _ = functions(&file[..file.len() / 100 * cut]);
        }
        let words: [&[u8]; 4] =
            [b"SSL_read", b".symtab", b".gopclntab", b"crypto/tls.(*Conn).writeRecordLocked"];
        let mut places = vec![0];
        places.extend(words.iter().filter_map(|word| memchr::memmem::rfind(file, word)));
        if let Ok(elf) = ElfFile64::<object::LittleEndian>::parse(file) {
            let ranges = elf.sections().filter_map(|section| section.file_range());
            places.extend(ranges.filter_map(|(start, _)| usize::try_from(start).ok()));
            places.extend(usize::try_from(elf.elf_header().e_shoff.get(elf.endian())).ok());
        }
        let mut dice = fastrand::Rng::with_seed(7);
        for _ in 0..damages {
            let mut damaged = file.to_vec();
            for _ in 0..dice.usize(1..16) {
                let place = dice.choice(&places).copied().unwrap_or(0);
                let at = (place + dice.usize(..512)) % damaged.len();
                let any = dice.u8(..);
                damaged[at] = dice.choice([0, 1, 0x7f, 0xff, any]).unwrap_or(any);
            }
            let Ok(Some(found)) = functions(&damaged) else { continue };
            let returns = found.go.map_or(0, |go| go.decrypted.len());
            let probes = found.calls.len() + found.free.len() + found.randoms.len() + returns;
            assert!(probes <= 2 * PROBES_MAX, "{probes} probes");
        }
    }

    #[test]
    fn truncated_and_damaged_libraries_are_refused_or_found_in_part() {
        for name in ["libssl.so.3", "libgnutls.so.30"] {
            let Some(file) = read(name) else { continue };
            is_borne(&file, 1000);
        }
    }

    #[test]
    fn truncated_and_damaged_go_programs_are_refused_or_found_in_part() {
        // Go's own command fetches over TLS.
        let found = ["/usr/local/go/bin/go", "/usr/lib/go/bin/go"];
        let Some(file) = found.iter().find_map(|path| std::fs::read(path).ok()) else { return };
        assert!(functions(&file).unwrap().is_some_and(|found| found.go.is_some()));
        is_borne(&file, 200);
    }

    proptest! {
        #[test]
        fn any_bytes_behind_a_header_are_no_panic(rest in prop::collection::vec(any::<u8>(), 0..400)) {
            let header = [0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0];
            let _ = functions(&[&header[..], &rest].concat());
        }
    }
}
