//! Cipher suites: their names, and how those that can be opened protect records.

use compact_str::{CompactString, format_compact};
use tls_parser::{
    TlsCipherEnc, TlsCipherEncMode, TlsCipherKx, TlsCipherMac, TlsCipherSuite, TlsPRF,
};

/// Hash of a PRF, a MAC or HKDF.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Hash {
    /// MD5 and SHA-1 together: the PRF of TLS 1.0 and 1.1 (RFC 2246, 5).
    Md5Sha1,
    Sha1,
    Sha256,
    Sha384,
}

impl Hash {
    /// Length of its output, bytes; of the MAC, where it is one.
    pub(super) fn output_bytes(self) -> usize {
        match self {
            Hash::Md5Sha1 => 36,
            Hash::Sha1 => 20,
            Hash::Sha256 => 32,
            Hash::Sha384 => 48,
        }
    }
}

/// How a record is encrypted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cipher {
    Aes128Gcm,
    Aes256Gcm,
    Aes128Ccm,
    Aes128Ccm8,
    Aes256Ccm,
    Aes256Ccm8,
    ChaCha20Poly1305,
    /// AES in CBC mode with an HMAC beside (RFC 5246, 6.2.3.2).
    Aes128Cbc(Hash),
    Aes256Cbc(Hash),
}

impl Cipher {
    /// Length of its key, bytes.
    pub(super) fn key_bytes(self) -> usize {
        match self {
            Cipher::Aes128Gcm | Cipher::Aes128Ccm | Cipher::Aes128Ccm8 | Cipher::Aes128Cbc(_) => 16,
            Cipher::Aes256Gcm
            | Cipher::Aes256Ccm
            | Cipher::Aes256Ccm8
            | Cipher::ChaCha20Poly1305
            | Cipher::Aes256Cbc(_) => 32,
        }
    }
}

/// A suite that can be opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Suite {
    pub(super) cipher: Cipher,
    /// Of the PRF, or of HKDF.
    pub(super) hash: Hash,
    /// Whether it is one of TLS 1.3.
    pub(super) tls13: bool,
}

/// Name in the IANA registry; the number where it has none.
pub(super) fn name(id: u16) -> CompactString {
    match TlsCipherSuite::from_id(id) {
        Some(suite) => suite.name.into(),
        None => format_compact!("0x{id:04x}"),
    }
}

/// ChaCha20-Poly1305 as it was before RFC 7905: other nonces.
const CHACHA20_DRAFTS: std::ops::RangeInclusive<u16> = 0xcc13..=0xcc15;

/// What it takes to open records of a suite; `None` for one that is not read.
pub(super) fn find(id: u16) -> Option<Suite> {
    let suite = TlsCipherSuite::from_id(id).filter(|_| !CHACHA20_DRAFTS.contains(&id))?;
    let tls13 = suite.kx == TlsCipherKx::Tls13;
    // The registry gives AEAD suites of TLS 1.3 only a hash, others a PRF where it is not the default.
    let hash = match (suite.prf, suite.name.ends_with("SHA384")) {
        (TlsPRF::Sha384, _) | (_, true) => Hash::Sha384,
        _ => Hash::Sha256,
    };
    let cipher = match (&suite.enc, &suite.enc_mode, suite.enc_size) {
        (TlsCipherEnc::Chacha20_Poly1305, _, _) => Cipher::ChaCha20Poly1305,
        (TlsCipherEnc::Aes, TlsCipherEncMode::Gcm, 128) => Cipher::Aes128Gcm,
        (TlsCipherEnc::Aes, TlsCipherEncMode::Gcm, 256) => Cipher::Aes256Gcm,
        (TlsCipherEnc::Aes, TlsCipherEncMode::Ccm, size) => {
            // TLS_RSA_WITH_AES_128_CCM_8, TLS_AES_128_CCM_8_SHA256.
            match (size, suite.name.contains("CCM_8")) {
                (128, false) => Cipher::Aes128Ccm,
                (128, true) => Cipher::Aes128Ccm8,
                (256, false) => Cipher::Aes256Ccm,
                (256, true) => Cipher::Aes256Ccm8,
                _ => return None,
            }
        }
        (TlsCipherEnc::Aes, TlsCipherEncMode::Cbc, size) => {
            let mac = match suite.mac {
                TlsCipherMac::HmacSha1 => Hash::Sha1,
                TlsCipherMac::HmacSha256 => Hash::Sha256,
                TlsCipherMac::HmacSha384 => Hash::Sha384,
                TlsCipherMac::Null
                | TlsCipherMac::HmacMd5
                | TlsCipherMac::HmacSha512
                | TlsCipherMac::Aead => return None,
            };
            match size {
                128 => Cipher::Aes128Cbc(mac),
                256 => Cipher::Aes256Cbc(mac),
                _ => return None,
            }
        }
        _ => return None,
    };
    Some(Suite { cipher, hash, tls13 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_are_what_their_names_say() {
        let suite = |cipher, hash, tls13| Some(Suite { cipher, hash, tls13 });
        let (sha1, sha256, sha384) = (Hash::Sha1, Hash::Sha256, Hash::Sha384);
        for (id, expected) in [
            (0x1301, suite(Cipher::Aes128Gcm, sha256, true)),
            (0x1302, suite(Cipher::Aes256Gcm, sha384, true)),
            (0x1303, suite(Cipher::ChaCha20Poly1305, sha256, true)),
            (0x1304, suite(Cipher::Aes128Ccm, sha256, true)),
            (0x1305, suite(Cipher::Aes128Ccm8, sha256, true)),
            (0x002f, suite(Cipher::Aes128Cbc(sha1), sha256, false)),
            (0x0035, suite(Cipher::Aes256Cbc(sha1), sha256, false)),
            (0x003c, suite(Cipher::Aes128Cbc(sha256), sha256, false)),
            (0x009c, suite(Cipher::Aes128Gcm, sha256, false)),
            (0x009d, suite(Cipher::Aes256Gcm, sha384, false)),
            (0xc09c, suite(Cipher::Aes128Ccm, sha256, false)),
            (0xc0a0, suite(Cipher::Aes128Ccm8, sha256, false)),
            (0xc0a1, suite(Cipher::Aes256Ccm8, sha256, false)),
            (0xc0ad, suite(Cipher::Aes256Ccm, sha256, false)),
            (0xc014, suite(Cipher::Aes256Cbc(sha1), sha256, false)),
            (0xc027, suite(Cipher::Aes128Cbc(sha256), sha256, false)),
            (0xc028, suite(Cipher::Aes256Cbc(sha384), sha384, false)),
            (0xc030, suite(Cipher::Aes256Gcm, sha384, false)),
            (0xcca8, suite(Cipher::ChaCha20Poly1305, sha256, false)),
            (0x0005, None),
            (0x000a, None),
            (0x0a0a, None),
        ] {
            assert_eq!(find(id), expected, "{id:04x} {}", name(id));
        }
        assert_eq!(name(0x1301), "TLS_AES_128_GCM_SHA256");
        assert_eq!(name(0x0a0a), "0x0a0a");
    }
}
