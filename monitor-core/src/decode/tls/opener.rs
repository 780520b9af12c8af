//! Opens protected records: AEAD ciphers, and CBC with an HMAC. What does not authenticate is not given
//! out.

use aes::{Aes128, Aes256};
use cbc::cipher::block_padding::NoPadding;
use cbc::cipher::{BlockCipherDecrypt, BlockModeDecrypt, InnerIvInit};
use ccm::Ccm;
use ccm::aead::{AeadInOut, KeyInit as _, Nonce, Tag};
use ccm::consts::{U8, U12, U16};
use hmac::{Hmac, Mac};
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305};
use ring::aead::{LessSafeKey, UnboundKey};
use sha1::Sha1;
use sha2::{Sha256, Sha384};
use zeroize::Zeroizing;

use super::record::HEADER_BYTES;
use super::schedule::{expand_label, key_block};
use super::secrets::{Random, Secret};
use super::suite::{Cipher, Hash, Suite};
use super::version::Version;
use crate::input::Direction;

/// Keys of one direction.
pub(super) enum Opener {
    /// TLS 1.3 (RFC 8446, 5.2). Drafts up to 24 authenticate no header.
    Aead13 { aead: Box<dyn Aead>, iv: [u8; NONCE_BYTES], header: bool },
    /// TLS 1.2 (RFC 5246, 6.2.3.3): part of the nonce may stand before the record.
    Aead12 { aead: Box<dyn Aead>, iv: [u8; NONCE_BYTES], explicit_bytes: usize },
    /// CBC mode.
    Cbc(Cbc),
}

/// CBC mode and HMAC (RFC 5246, 6.2.3.2).
pub(super) struct Cbc {
    cipher: Box<dyn Blocks>,
    mac: Hash,
    mac_key: Zeroizing<Vec<u8>>,
    /// The MAC is over the ciphertext (RFC 7366).
    encrypt_then_mac: bool,
    /// Each record begins with its own (since TLS 1.1).
    explicit_iv: bool,
    /// Otherwise the last block of the record before; `None` when that was missed.
    chain: Option<[u8; BLOCK_BYTES]>,
    /// End of a record whose ciphertext is authentic, and that was not opened.
    proved: Option<[u8; BLOCK_BYTES]>,
}

/// What TLS 1.2 and before derive keys from.
pub(super) struct Master<'a> {
    pub(super) secret: &'a Secret,
    pub(super) client: &'a Random,
    pub(super) server: &'a Random,
}

/// Nonce of every AEAD here.
const NONCE_BYTES: usize = 12;
/// Block of AES.
const BLOCK_BYTES: usize = 16;
/// Sequence number that an explicit nonce replaces.
const EXPLICIT_BYTES: usize = 8;

impl Opener {
    /// TLS 1.3, from a traffic secret.
    pub(super) fn tls13(suite: Suite, version: Version, secret: &[u8]) -> Option<Opener> {
        let old_prefix = version.is_before_draft(20);
        let mut key = Zeroizing::new(vec![0; suite.cipher.key_bytes()]);
        let mut iv = [0; NONCE_BYTES];
        expand_label(suite.hash, secret, old_prefix, "key", &mut key)?;
        expand_label(suite.hash, secret, old_prefix, "iv", &mut iv)?;
        let header = !version.is_before_draft(25);
        Some(Opener::Aead13 { aead: aead(suite.cipher, &key)?, iv, header })
    }

    /// TLS 1.2 and before, from the master secret.
    pub(super) fn tls12(
        suite: Suite,
        version: Version,
        encrypt_then_mac: bool,
        master: &Master<'_>,
        sender: Direction,
    ) -> Option<Opener> {
        let hash = if version < Version::TLS12 { Hash::Md5Sha1 } else { suite.hash };
        let key_bytes = suite.cipher.key_bytes();
        let (mac, iv_bytes) = match suite.cipher {
            Cipher::Aes128Cbc(mac) | Cipher::Aes256Cbc(mac) => (Some(mac), BLOCK_BYTES),
            Cipher::ChaCha20Poly1305 => (None, NONCE_BYTES),
            Cipher::Aes128Gcm | Cipher::Aes256Gcm => (None, NONCE_BYTES - EXPLICIT_BYTES),
            Cipher::Aes128Ccm | Cipher::Aes128Ccm8 | Cipher::Aes256Ccm | Cipher::Aes256Ccm8 => {
                (None, NONCE_BYTES - EXPLICIT_BYTES)
            }
        };
        let mac_bytes = mac.map_or(0, Hash::output_bytes);
        // MAC keys, keys, IVs: of each the client's, then the server's.
        let mut block = Zeroizing::new(vec![0; 2 * (mac_bytes + key_bytes + iv_bytes)]);
        key_block(hash, master.secret, master.client, master.server, &mut block);
        let mut rest = &block[..];
        let mut part = |bytes: usize| {
            let (both, after) = rest.split_at(2 * bytes);
            rest = after;
            match sender {
                Direction::ToServer => &both[..bytes],
                Direction::ToClient => &both[bytes..],
            }
        };
        let (mac_key, key, iv) = (part(mac_bytes), part(key_bytes), part(iv_bytes));
        if let Some(mac) = mac {
            let explicit_iv = version >= Version::TLS11;
            return Some(Opener::Cbc(Cbc {
                cipher: blocks(key)?,
                mac,
                mac_key: Zeroizing::new(mac_key.to_vec()),
                encrypt_then_mac,
                explicit_iv,
                chain: iv.try_into().ok().filter(|_| !explicit_iv),
                proved: None,
            }));
        }
        let mut start = [0; NONCE_BYTES];
        start[..iv_bytes].copy_from_slice(iv);
        let explicit_bytes = NONCE_BYTES - iv_bytes;
        Some(Opener::Aead12 { aead: aead(suite.cipher, key)?, iv: start, explicit_bytes })
    }

    /// Opens a record that is number `seq` into `out`. False when it does not authenticate; then `out`
    /// holds nothing.
    pub(super) fn open(&mut self, seq: u64, record: &[u8], out: &mut Vec<u8>) -> bool {
        let opened = self.try_open(seq, record, out).is_some();
        if !opened {
            out.clear();
        }
        opened
    }

    fn try_open(&mut self, seq: u64, record: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let (header, body) = record.split_first_chunk::<HEADER_BYTES>()?;
        out.clear();
        match self {
            Opener::Aead13 { aead, iv, header: authenticated } => {
                let text_bytes = body.len().checked_sub(aead.tag_bytes())?;
                let (text, tag) = body.split_at(text_bytes);
                out.extend_from_slice(text);
                let mut nonce = *iv;
                add_number(&mut nonce, seq);
                let header = if *authenticated { &header[..] } else { &[] };
                aead.open(&nonce, header, out, tag)
            }
            Opener::Aead12 { aead, iv, explicit_bytes } => {
                let (explicit, body) = body.split_at_checked(*explicit_bytes)?;
                let text_bytes = body.len().checked_sub(aead.tag_bytes())?;
                let (text, tag) = body.split_at(text_bytes);
                out.extend_from_slice(text);
                let mut nonce = *iv;
                if explicit.is_empty() {
                    add_number(&mut nonce, seq);
                } else {
                    nonce[NONCE_BYTES - explicit.len()..].copy_from_slice(explicit);
                }
                aead.open(&nonce, &additional_data(seq, header, text_bytes)?, out, tag)
            }
            Opener::Cbc(cbc) => cbc.open(seq, header, body, out),
        }
    }

    /// A record was not opened: the next is chained to what it ends in, if that is there.
    pub(super) fn miss(&mut self, record: Option<&[u8]>) {
        match self {
            Opener::Cbc(cbc) => {
                // Where the MAC is over the ciphertext, it says nothing of what that is chained to.
                let proved = cbc.proved.take();
                let text = record.and_then(|record| record.get(HEADER_BYTES..));
                let end = text.and_then(|text| text.last_chunk::<BLOCK_BYTES>()).copied();
                cbc.chain = if cbc.encrypt_then_mac { proved } else { end };
            }
            Opener::Aead13 { .. } | Opener::Aead12 { .. } => {}
        }
    }

    /// Bytes of plaintext in a body of so many, padding aside.
    pub(super) fn plaintext_bytes(&self, body: usize) -> usize {
        body.saturating_sub(self.overhead_bytes())
    }

    /// What protection adds to a record, header aside, bytes: the least.
    pub(super) fn overhead_bytes(&self) -> usize {
        match self {
            // One for the kind of the content.
            Opener::Aead13 { aead, .. } => aead.tag_bytes() + 1,
            Opener::Aead12 { aead, explicit_bytes, .. } => aead.tag_bytes() + explicit_bytes,
            Opener::Cbc(cbc) => {
                cbc.mac.output_bytes() + 1 + if cbc.explicit_iv { BLOCK_BYTES } else { 0 }
            }
        }
    }
}

impl Cbc {
    fn open(
        &mut self,
        seq: u64,
        header: &[u8; HEADER_BYTES],
        body: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<()> {
        let mac_bytes = self.mac.output_bytes();
        let mut text = body;
        if self.encrypt_then_mac {
            let (sent, mac) = body.split_at(body.len().checked_sub(mac_bytes)?);
            let about = additional_data(seq, header, sent.len())?;
            self.authenticate(&[&about, sent], mac)?;
            text = sent;
            self.proved = text.last_chunk().copied();
        }
        let last = text.last_chunk::<BLOCK_BYTES>().copied();
        let iv = if self.explicit_iv {
            let (iv, rest) = text.split_first_chunk::<BLOCK_BYTES>()?;
            text = rest;
            Some(*iv)
        } else {
            self.chain
        };
        out.extend_from_slice(text);
        self.cipher.decrypt(&iv?, out)?;
        let padding = usize::from(*out.last()?) + 1;
        let unpadded = out.len().checked_sub(padding)?;
        if out[unpadded..].iter().any(|byte| usize::from(*byte) + 1 != padding) {
            return None;
        }
        out.truncate(unpadded);
        if !self.encrypt_then_mac {
            let text_bytes = out.len().checked_sub(mac_bytes)?;
            let about = additional_data(seq, header, text_bytes)?;
            self.authenticate(&[&about, &out[..text_bytes]], &out[text_bytes..])?;
            out.truncate(text_bytes);
        }
        if !self.explicit_iv {
            self.chain = last;
        }
        self.proved = None;
        Some(())
    }

    fn authenticate(&self, parts: &[&[u8]], mac: &[u8]) -> Option<()> {
        match self.mac {
            Hash::Sha1 => verify::<Hmac<Sha1>>(&self.mac_key, parts, mac),
            Hash::Sha256 => verify::<Hmac<Sha256>>(&self.mac_key, parts, mac),
            Hash::Sha384 => verify::<Hmac<Sha384>>(&self.mac_key, parts, mac),
            // No suite has it.
            Hash::Md5Sha1 => None,
        }
    }
}

fn verify<M: Mac + hmac::KeyInit>(key: &[u8], parts: &[&[u8]], mac: &[u8]) -> Option<()> {
    let mut expected = <M as hmac::KeyInit>::new_from_slice(key).ok()?;
    parts.iter().for_each(|part| expected.update(part));
    expected.verify_slice(mac).ok()
}

/// Adds a sequence number to the end of an IV by exclusive or (RFC 8446, 5.3).
fn add_number(nonce: &mut [u8; NONCE_BYTES], seq: u64) {
    let end = &mut nonce[NONCE_BYTES - EXPLICIT_BYTES..];
    end.iter_mut().zip(seq.to_be_bytes()).for_each(|(byte, mask)| *byte ^= mask);
}

/// Sequence number, kind, version and length (RFC 5246, 6.2.3.3).
fn additional_data(seq: u64, header: &[u8; HEADER_BYTES], text_bytes: usize) -> Option<[u8; 13]> {
    let mut data = [0; 13];
    data[..8].copy_from_slice(&seq.to_be_bytes());
    data[8..11].copy_from_slice(&header[..3]);
    data[11..].copy_from_slice(&u16::try_from(text_bytes).ok()?.to_be_bytes());
    Some(data)
}

/// An AEAD cipher with its key.
pub(super) trait Aead: Send {
    /// Decrypts in place what authenticates.
    fn open(
        &self,
        nonce: &[u8; NONCE_BYTES],
        about: &[u8],
        text: &mut [u8],
        tag: &[u8],
    ) -> Option<()>;
    /// Length of the tag.
    fn tag_bytes(&self) -> usize;
}

impl<A: AeadInOut<NonceSize = U12> + Send> Aead for A {
    fn open(
        &self,
        nonce: &[u8; NONCE_BYTES],
        about: &[u8],
        text: &mut [u8],
        tag: &[u8],
    ) -> Option<()> {
        let tag = <&Tag<A>>::try_from(tag).ok()?;
        self.decrypt_inout_detached(&Nonce::<A>::from(*nonce), about, text.into(), tag).ok()
    }

    fn tag_bytes(&self) -> usize {
        Tag::<A>::default().len()
    }
}

/// Those in common use, as fast as the machine has them.
struct Fast(LessSafeKey);

impl Fast {
    fn boxed(algorithm: &'static Algorithm, key: &[u8]) -> Option<Box<dyn Aead>> {
        Some(Box::new(Fast(LessSafeKey::new(UnboundKey::new(algorithm, key).ok()?))))
    }
}

impl Aead for Fast {
    fn open(
        &self,
        nonce: &[u8; NONCE_BYTES],
        about: &[u8],
        text: &mut [u8],
        tag: &[u8],
    ) -> Option<()> {
        let nonce = ring::aead::Nonce::assume_unique_for_key(*nonce);
        let tag = ring::aead::Tag::try_from(tag).ok()?;
        self.0.open_in_place_separate_tag(nonce, Aad::from(about), tag, text, 0..).ok().map(drop)
    }

    fn tag_bytes(&self) -> usize {
        self.0.algorithm().tag_len()
    }
}

fn aead(cipher: Cipher, key: &[u8]) -> Option<Box<dyn Aead>> {
    Some(match cipher {
        Cipher::Aes128Gcm => return Fast::boxed(&AES_128_GCM, key),
        Cipher::Aes256Gcm => return Fast::boxed(&AES_256_GCM, key),
        Cipher::ChaCha20Poly1305 => return Fast::boxed(&CHACHA20_POLY1305, key),
        Cipher::Aes128Ccm => Box::new(Ccm::<Aes128, U16, U12>::new_from_slice(key).ok()?),
        Cipher::Aes128Ccm8 => Box::new(Ccm::<Aes128, U8, U12>::new_from_slice(key).ok()?),
        Cipher::Aes256Ccm => Box::new(Ccm::<Aes256, U16, U12>::new_from_slice(key).ok()?),
        Cipher::Aes256Ccm8 => Box::new(Ccm::<Aes256, U8, U12>::new_from_slice(key).ok()?),
        Cipher::Aes128Cbc(_) | Cipher::Aes256Cbc(_) => return None,
    })
}

/// A block cipher with its key.
pub(super) trait Blocks: Send {
    /// Decrypts whole blocks in place.
    fn decrypt(&self, iv: &[u8; BLOCK_BYTES], text: &mut [u8]) -> Option<()>;
}

impl<C: BlockCipherDecrypt<BlockSize = U16> + Send> Blocks for C {
    fn decrypt(&self, iv: &[u8; BLOCK_BYTES], text: &mut [u8]) -> Option<()> {
        let mode = cbc::Decryptor::<&C>::inner_iv_init(self, iv.into());
        let bytes = text.len();
        let plain = mode.decrypt_padded::<NoPadding>(text).ok()?;
        (plain.len() == bytes).then_some(())
    }
}

fn blocks(key: &[u8]) -> Option<Box<dyn Blocks>> {
    match key.len() {
        16 => Some(Box::new(Aes128::new_from_slice(key).ok()?)),
        32 => Some(Box::new(Aes256::new_from_slice(key).ok()?)),
        _ => None,
    }
}
