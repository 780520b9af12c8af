//! Keys out of secrets: the PRF of TLS 1.2 and before, HKDF in TLS 1.3.

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use sha1::Sha1;
use sha2::{Sha256, Sha384};
use zeroize::Zeroizing;

use super::secrets::{Random, Secret};
use super::suite::Hash;

/// The PRF (RFC 5246, 5; RFC 2246, 5).
pub(super) fn prf(hash: Hash, secret: &[u8], label: &[u8], seed: &[u8], out: &mut [u8]) {
    out.fill(0);
    match hash {
        // Two halves of the secret, which share a byte when its length is odd.
        Hash::Md5Sha1 => {
            let half = secret.len().div_ceil(2);
            p_hash::<Hmac<Md5>>(&secret[..half], label, seed, out);
            p_hash::<Hmac<Sha1>>(&secret[secret.len() - half..], label, seed, out);
        }
        Hash::Sha1 => p_hash::<Hmac<Sha1>>(secret, label, seed, out),
        Hash::Sha256 => p_hash::<Hmac<Sha256>>(secret, label, seed, out),
        Hash::Sha384 => p_hash::<Hmac<Sha384>>(secret, label, seed, out),
    }
}

/// P_hash, added to `out` by exclusive or.
fn p_hash<M: Mac + KeyInit>(secret: &[u8], label: &[u8], seed: &[u8], out: &mut [u8]) {
    let mac = |parts: &[&[u8]]| {
        // HMAC takes a key of any length.
        let mut mac = <M as KeyInit>::new_from_slice(secret).ok()?;
        parts.iter().for_each(|part| mac.update(part));
        Some(mac.finalize().into_bytes())
    };
    let Some(mut a) = mac(&[label, seed]) else { return };
    for chunk in out.chunks_mut(M::output_size()) {
        let Some(block) = mac(&[&a, label, seed]) else { return };
        chunk.iter_mut().zip(block).for_each(|(byte, mask)| *byte ^= mask);
        let Some(next) = mac(&[&a]) else { return };
        a = next;
    }
}

/// The key block of TLS 1.2 and before (RFC 5246, 6.3).
pub(super) fn key_block(
    hash: Hash,
    master: &Secret,
    client: &Random,
    server: &Random,
    out: &mut [u8],
) {
    prf(hash, master, b"key expansion", &[*server, *client].concat(), out);
}

/// HKDF-Expand-Label with an empty context (RFC 8446, 7.1). Drafts up to 19 have another prefix.
pub(super) fn expand_label(
    hash: Hash,
    secret: &[u8],
    old_prefix: bool,
    label: &str,
    out: &mut [u8],
) -> Option<()> {
    let prefix = if old_prefix { "TLS 1.3, " } else { "tls13 " };
    let mut info = Vec::with_capacity(32);
    info.extend(u16::try_from(out.len()).ok()?.to_be_bytes());
    info.push(u8::try_from(prefix.len() + label.len()).ok()?);
    info.extend(prefix.bytes());
    info.extend(label.bytes());
    info.push(0);
    match hash {
        Hash::Sha256 => Hkdf::<Sha256>::from_prk(secret).ok()?.expand(&info, out).ok(),
        Hash::Sha384 => Hkdf::<Sha384>::from_prk(secret).ok()?.expand(&info, out).ok(),
        // No suite of TLS 1.3 has one of these.
        Hash::Md5Sha1 | Hash::Sha1 => None,
    }
}

/// The secret after a key update (RFC 8446, 7.2).
pub(super) fn next_secret(hash: Hash, secret: &[u8], old_prefix: bool) -> Option<Secret> {
    let label = if old_prefix { "application traffic secret" } else { "traffic upd" };
    let mut next = Zeroizing::new(vec![0; hash.output_bytes()].into_boxed_slice());
    expand_label(hash, secret, old_prefix, label, &mut next)?;
    Some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn unhex(text: &str) -> Vec<u8> {
        (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
            .collect()
    }

    /// Each computed with Python's hmac from the definition of P_hash.
    #[test]
    fn prf_of_every_hash() {
        for (hash, expected) in [
            (
                Hash::Md5Sha1,
                "dfb6a2300bb0a39d73af323759b04ffe79eb2a5a029c63cd613c6b357329\
             168a89e12fcab7e90058b6c3ba4234698e30abd546d4c24aa80651f867ab",
            ),
            (
                Hash::Sha256,
                "385738b746ab2a1f679b9f6c2a030c9c196920036f490b8e210e2f9f9a52\
             db567c37a8667ff6568bfa73fea7d6e86ad21f098755a1e438ac5e993f3e",
            ),
            (
                Hash::Sha384,
                "fcd0575858fc34021b34f7755f4b8da0b2b421131a5e97377769565571e3\
             a3d7fb67a85076b2fd814d585f3a2521a57e862447f8a6f813b6ca75f20d",
            ),
        ] {
            let mut out = [0xee; 60];
            prf(hash, b"an odd secret", b"test label", b"a seed of its own", &mut out);
            assert_eq!(hex(&out), expected, "{hash:?}");
        }
    }

    /// The trace of RFC 8448, 3: client's handshake traffic secret to key and IV.
    #[test]
    fn labels_of_tls13() {
        let secret = unhex("b3eddb126e067f35a780b3abf45e2d8f3b1a950738f52e9600746a0e27a55a21");
        let mut key = [0; 16];
        let mut iv = [0; 12];
        expand_label(Hash::Sha256, &secret, false, "key", &mut key).unwrap();
        expand_label(Hash::Sha256, &secret, false, "iv", &mut iv).unwrap();
        assert_eq!(hex(&key), "dbfaa693d1762c5b666af5d950258d01");
        assert_eq!(hex(&iv), "5bd3c71b836e0b76bb73265f");
        assert!(expand_label(Hash::Sha384, &secret, false, "key", &mut key).is_none(), "too short");
        let next = next_secret(Hash::Sha256, &secret, false).unwrap();
        assert_eq!(hex(&next), "7c1b48380af13a741e2e8b2f6ab3defd71d3b82a83107f8e21289cc8384dfbe7");
        assert_ne!(next, next_secret(Hash::Sha256, &secret, true).unwrap());
    }
}
