//! Heads of frames (RFC 6455, 5.2).

/// The longest: two bytes, a 64-bit length, a masking key.
pub(super) const HEAD_BYTES_MAX: usize = 14;

/// Payload of a control frame (RFC 6455, 5.5).
pub(super) const CONTROL_BYTES_MAX: u64 = 125;

/// What a frame is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
    /// 3 to 7 and 11 to 15.
    Reserved,
}

impl Opcode {
    fn of(byte: u8) -> Opcode {
        match byte & 0x0f {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            _ => Opcode::Reserved,
        }
    }

    pub(super) fn is_control(self) -> bool {
        matches!(self, Opcode::Close | Opcode::Ping | Opcode::Pong)
    }
}

/// Everything before the payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Head {
    pub(super) fin: bool,
    /// RSV1: a compressed message, where that was agreed (RFC 7692, 6).
    pub(super) rsv1: bool,
    /// RSV2 or RSV3.
    pub(super) rsv23: bool,
    pub(super) opcode: Opcode,
    pub(super) mask: Option<[u8; 4]>,
    /// Payload bytes.
    pub(super) length: u64,
    /// The length stands in as few bytes as it can.
    pub(super) minimal: bool,
    /// Bytes of the head itself.
    pub(super) bytes: usize,
}

impl Head {
    /// From its bytes and perhaps some behind them; `None` as long as some are wanting.
    pub(super) fn parse(bytes: &[u8]) -> Option<Head> {
        let [first, second, rest @ ..] = bytes else { return None };
        let (length, minimal, rest) = match second & 0x7f {
            126 => {
                let (field, rest) = rest.split_first_chunk()?;
                let length = u64::from(u16::from_be_bytes(*field));
                (length, length > CONTROL_BYTES_MAX, rest)
            }
            127 => {
                let (field, rest) = rest.split_first_chunk()?;
                let length = u64::from_be_bytes(*field);
                (length, length > u64::from(u16::MAX), rest)
            }
            length => (u64::from(length), true, rest),
        };
        let (mask, rest) = if second & 0x80 == 0 {
            (None, rest)
        } else {
            let (key, rest) = rest.split_first_chunk()?;
            (Some(*key), rest)
        };
        Some(Head {
            fin: first & 0x80 != 0,
            rsv1: first & 0x40 != 0,
            rsv23: first & 0x30 != 0,
            opcode: Opcode::of(*first),
            mask,
            length,
            minimal,
            bytes: bytes.len() - rest.len(),
        })
    }
}

/// Appends payload without its mask. `at`: which byte of the frame's payload is the first.
pub(super) fn unmask(mask: Option<[u8; 4]>, at: u64, payload: &[u8], into: &mut Vec<u8>) {
    let start = into.len();
    into.extend_from_slice(payload);
    let Some(mut key) = mask else { return };
    key.rotate_left((at % 4) as usize);
    let [a, b, c, d] = key;
    let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut words = into[start..].chunks_exact_mut(8);
    for bytes in &mut words {
        let mut whole = [0; 8];
        whole.copy_from_slice(bytes);
        bytes.copy_from_slice(&(u64::from_ne_bytes(whole) ^ word).to_ne_bytes());
    }
    let rest = words.into_remainder();
    rest.iter_mut().zip(word.to_ne_bytes()).for_each(|(byte, key)| *byte ^= key);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_of_every_length() {
        let check = |bytes: &[u8], length, minimal| {
            for cut in 0..bytes.len() {
                assert_eq!(Head::parse(&bytes[..cut]), None, "{bytes:x?} cut at {cut}");
            }
            let head = Head::parse(&[bytes, b"payload"].concat()).unwrap();
            assert_eq!((head.length, head.minimal, head.bytes), (length, minimal, bytes.len()));
        };
        check(&[0x81, 0], 0, true);
        check(&[0x81, 125], 125, true);
        check(&[0x81, 126, 0, 126], 126, true);
        check(&[0x81, 126, 0, 125], 125, false);
        check(&[0x81, 0x80 | 126, 1, 0, 1, 2, 3, 4], 256, true);
        check(&[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0], 65_536, true);
        check(&[0x82, 127, 0, 0, 0, 0, 0, 0, 255, 255], 65_535, false);
        check(&[0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4], 65_536, true);
        check(&[0x82, 127, 255, 255, 255, 255, 255, 255, 255, 255], u64::MAX, true);
    }

    #[test]
    fn first_bytes_tell_what_a_frame_is() {
        let head = Head::parse(&[0xc1, 0]).unwrap();
        assert!(head.fin && head.rsv1 && !head.rsv23 && head.opcode == Opcode::Text);
        let head = Head::parse(&[0x33, 0]).unwrap();
        assert!(!head.fin && !head.rsv1 && head.rsv23 && head.opcode == Opcode::Reserved);
    }

    #[test]
    fn masks_come_off_wherever_the_payload_is_cut() {
        let key = [0x37, 0xfa, 0x21, 0x3d];
        let plain: Vec<u8> = (0..100).collect();
        let masked: Vec<u8> = plain.iter().zip(key.iter().cycle()).map(|(b, k)| b ^ k).collect();
        for cut in 0..masked.len() {
            let mut out = Vec::new();
            unmask(Some(key), 0, &masked[..cut], &mut out);
            unmask(Some(key), cut as u64, &masked[cut..], &mut out);
            assert_eq!(out, plain, "cut at {cut}");
        }
    }
}
