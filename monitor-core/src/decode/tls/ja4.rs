//! Fingerprints of a client's hello: JA4 (<https://github.com/FoxIO-LLC/ja4>, technical details) and
//! JA3 (<https://github.com/salesforce/ja3>). JA4S and its kin are not free to implement.

use std::fmt::{self, Write};

use compact_str::{CompactString, format_compact};
use md5::Md5;
use sha2::{Digest, Sha256};

use super::hello::{ClientHello, extension};
use super::version::{Version, is_grease};

/// Hexadecimal digits that are kept of a hash.
const HASH_BYTES: usize = 6;

/// JA4 of a hello that came over TCP.
pub(super) fn ja4(hello: &ClientHello) -> CompactString {
    let suites = without_grease(&hello.suites);
    let extensions = without_grease(&hello.extensions);
    let name = if hello.extensions.contains(&extension::SERVER_NAME) { 'd' } else { 'i' };
    let start = format_compact!(
        "t{}{name}{:02}{:02}{}",
        version(hello),
        suites.len().min(99),
        extensions.len().min(99),
        alpn(hello.alpn.as_deref()),
    );
    let sorted = |mut numbers: Vec<u16>| {
        numbers.sort_unstable();
        numbers
    };
    let suites = Text::of(|text| text.hex_list(&sorted(suites)));
    let named = [extension::SERVER_NAME, extension::ALPN];
    let rest = extensions.into_iter().filter(|number| !named.contains(number)).collect();
    let extensions = Text::of(|text| {
        text.hex_list(&sorted(rest))?;
        let signatures = without_grease(&hello.signatures);
        if signatures.is_empty() {
            return Ok(());
        }
        text.write_char('_')?;
        text.hex_list(&signatures)
    });
    format_compact!("{start}_{}_{}", suites.short_hash(), extensions.short_hash())
}

/// JA3 of a hello, hashed.
pub(super) fn ja3(hello: &ClientHello) -> CompactString {
    let text = Text::of(|text| {
        write!(text, "{}", hello.version.0)?;
        for list in [&hello.suites, &hello.extensions, &hello.groups] {
            text.write_char(',')?;
            text.list(without_grease(list))?;
        }
        text.write_char(',')?;
        text.list(&hello.point_formats)
    });
    hex(&Md5::digest(&text.0))
}

/// Bytes as lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> CompactString {
    let mut text = CompactString::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn without_grease(numbers: &[u16]) -> Vec<u16> {
    numbers.iter().copied().filter(|number| !is_grease(*number)).collect()
}

/// The highest that is offered.
fn version(hello: &ClientHello) -> &'static str {
    let offered = hello.versions.iter().copied().filter(|number| !is_grease(*number)).max();
    match offered.map_or(hello.version, Version) {
        Version::TLS13 => "13",
        Version::TLS12 => "12",
        Version::TLS11 => "11",
        Version::TLS10 => "10",
        Version::SSL3 => "s3",
        Version::SSL2 => "s2",
        _ => "00",
    }
}

/// First and last character of the first protocol, or of its hexadecimal form.
fn alpn(name: Option<&[u8]>) -> CompactString {
    let Some((first, last)) = name.and_then(|name| Some((*name.first()?, *name.last()?))) else {
        return "00".into();
    };
    if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
        format_compact!("{}{}", char::from(first), char::from(last))
    } else {
        format_compact!("{:x}{:x}", first >> 4, last & 0x0f)
    }
}

/// What is hashed.
#[derive(Default)]
struct Text(String);

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.push_str(text);
        Ok(())
    }
}

impl Text {
    fn of(write: impl FnOnce(&mut Text) -> fmt::Result) -> Text {
        let mut text = Text::default();
        // Writing to a string does not fail.
        let _ = write(&mut text);
        text
    }

    fn hex_list(&mut self, numbers: &[u16]) -> fmt::Result {
        for (index, number) in numbers.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(self, "{comma}{number:04x}")?;
        }
        Ok(())
    }

    fn list(&mut self, numbers: impl IntoIterator<Item = impl fmt::Display>) -> fmt::Result {
        for (index, number) in numbers.into_iter().enumerate() {
            let dash = if index > 0 { "-" } else { "" };
            write!(self, "{dash}{number}")?;
        }
        Ok(())
    }

    /// The beginning of its SHA-256; zeros when it is empty.
    fn short_hash(&self) -> CompactString {
        if self.0.is_empty() {
            return "000000000000".into();
        }
        hex(&Sha256::digest(&self.0)[..HASH_BYTES])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hello of the published description.
    fn described() -> ClientHello {
        ClientHello {
            version: Version::TLS12,
            random: [0; 32],
            suites: vec![
                0x2a2a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8,
                0xc013, 0xc014, 0x009c, 0x009d, 0x002f, 0x0035,
            ],
            extensions: vec![
                0x3a3a, 0x001b, 0x0000, 0x0033, 0x0010, 0x4469, 0x0017, 0x002d, 0x000d, 0x0005,
                0x0023, 0x0012, 0x002b, 0xff01, 0x000b, 0x000a, 0x0015,
            ],
            server_name: Some("example.com".into()),
            alpn: Some(b"h2"[..].into()),
            versions: vec![0x7a7a, 0x0304, 0x0303],
            signatures: vec![0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601],
            groups: vec![0x1a1a, 29, 23, 24],
            point_formats: vec![0],
            encrypted: false,
        }
    }

    #[test]
    fn ja4_as_published() {
        assert_eq!(ja4(&described()), "t13d1516h2_8daaf6152771_e5627efa2ab1");
        let mut bare = described();
        bare.extensions.clear();
        bare.suites.clear();
        bare.signatures.clear();
        bare.versions.clear();
        bare.alpn = None;
        assert_eq!(ja4(&bare), "t12i000000_000000000000_000000000000");
        let mut unsigned = described();
        unsigned.signatures.clear();
        unsigned.version = Version::SSL3;
        unsigned.versions.clear();
        // SHA-256 of the list of extensions alone, from Python's hashlib.
        assert_eq!(ja4(&unsigned), "ts3d1516h2_8daaf6152771_6d807ffa2a79");
    }

    #[test]
    fn protocols_by_first_and_last_character() {
        for (name, expected) in [
            (&b"h2"[..], "h2"),
            (b"http/1.1", "h1"),
            (b"h", "hh"),
            (b"\xab", "ab"),
            (b"\xab\xcd", "ad"),
            (b"0\xab", "3b"),
            (b"01\xab\xcd", "3d"),
            (b"0\xab\xcd1", "01"),
        ] {
            assert_eq!(alpn(Some(name)), expected, "{name:?}");
        }
        assert_eq!(alpn(None), "00");
    }

    #[test]
    fn ja3_has_the_published_form() {
        let hello = ClientHello {
            suites: vec![4865, 0x0a0a, 4866],
            extensions: vec![0, 11, 10],
            groups: vec![29, 23],
            point_formats: vec![0, 1],
            ..described()
        };
        // MD5 of `771,4865-4866,0-11-10,29-23,0-1`, from Python's hashlib.
        assert_eq!(ja3(&hello), "1de310c3648b02d646444e46f8a3ba68");
    }
}
