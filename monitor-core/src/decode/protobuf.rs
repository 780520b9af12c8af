//! Field numbers at the top of a protobuf message, as its bytes come: without its schema nothing else is
//! known (<https://protobuf.dev/programming-guides/encoding/>).

use crate::call::PARAMETERS_MAX;

/// The largest field number.
const NUMBER_MAX: u64 = (1 << 29) - 1;
/// Bits of a varint: ten bytes of seven.
const VARINT_BITS_MAX: u32 = 70;

/// Reads one message.
pub(super) struct Numbers {
    state: State,
    /// The varint under way.
    value: u64,
    bits: u32,
    /// Each once, in order of appearance.
    numbers: [u32; PARAMETERS_MAX],
    count: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Number and wire type of a field.
    Tag,
    /// A varint that is the field's value.
    Varint,
    /// Length of a field's value.
    Length,
    /// Bytes of a value.
    Value(u64),
    /// This is no such message.
    Other,
}

impl Numbers {
    pub(super) fn new() -> Numbers {
        Numbers { state: State::Tag, value: 0, bits: 0, numbers: [0; PARAMETERS_MAX], count: 0 }
    }

    /// The next bytes of the message.
    pub(super) fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.state {
                State::Other => return,
                State::Value(left) => {
                    let taken = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    bytes = &bytes[taken..];
                    self.pass(left - taken as u64);
                }
                State::Tag | State::Varint | State::Length => {
                    let byte = bytes[0];
                    bytes = &bytes[1..];
                    // What is beyond 64 bits is left out, as parsers do.
                    self.value |= u64::from(byte & 0x7f).checked_shl(self.bits).unwrap_or(0);
                    self.bits += 7;
                    if byte < 0x80 {
                        self.end_varint();
                    } else if self.bits >= VARINT_BITS_MAX {
                        self.state = State::Other;
                    }
                }
            }
        }
    }

    /// The numbers, once the message has ended; none where it is no such message.
    pub(super) fn numbers(&self) -> &[u32] {
        let is_whole = self.state == State::Tag && self.bits == 0;
        if is_whole { &self.numbers[..self.count] } else { &[] }
    }

    fn end_varint(&mut self) {
        let value = std::mem::take(&mut self.value);
        self.bits = 0;
        match self.state {
            State::Varint => self.state = State::Tag,
            State::Length => self.pass(value),
            State::Tag => self.begin(value >> 3, value & 7),
            State::Value(_) | State::Other => {}
        }
    }

    fn begin(&mut self, number: u64, wire_type: u64) {
        if !(1..=NUMBER_MAX).contains(&number) {
            self.state = State::Other;
            return;
        }
        let number = number as u32;
        if self.count < PARAMETERS_MAX && !self.numbers[..self.count].contains(&number) {
            self.numbers[self.count] = number;
            self.count += 1;
        }
        match wire_type {
            0 => self.state = State::Varint,
            1 => self.state = State::Value(8),
            2 => self.state = State::Length,
            5 => self.state = State::Value(4),
            // Groups are of another time, and 6 and 7 are nothing.
            _ => self.state = State::Other,
        }
    }

    fn pass(&mut self, left: u64) {
        self.state = if left == 0 { State::Tag } else { State::Value(left) };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(message: &[u8], piece: usize) -> Vec<u32> {
        let mut numbers = Numbers::new();
        message.chunks(piece).for_each(|piece| numbers.take(piece));
        numbers.numbers().to_vec()
    }

    #[test]
    fn fields_of_every_kind_are_named_once() {
        // 1: "BTCUSDT", 2: 150 (varint), 3: fixed64, 4: fixed32, 1 again, 16: empty, 2047: 1
        let mut message = b"\x0a\x07BTCUSDT\x10\x96\x01\x19".to_vec();
        message.extend([1; 8]);
        message.extend(b"\x25\x01\x02\x03\x04\x0a\x01x\x82\x01\x00\xf8\x7f\x01");
        for piece in [1, 2, 3, 100] {
            assert_eq!(read(&message, piece), [1, 2, 3, 4, 16, 2047], "{piece}");
        }
        assert!(read(&message[..message.len() - 1], 100).is_empty(), "cut");
    }

    #[test]
    fn what_is_no_message_has_none() {
        for other in [&b"{\"symbol\":1}"[..], b"\x0b\x0c", b"\x00\x01", b"\x0f\x01", &[0xff; 40]] {
            assert!(read(other, 100).is_empty(), "{other:?}");
        }
        // A varint as long as there are.
        assert_eq!(read(b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 100), [1]);
        assert!(read(b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 100).is_empty());
    }

    #[test]
    fn a_flood_of_fields_is_cut() {
        let message: Vec<u8> = (16..2000_u32)
            .flat_map(|number| {
                let tag = number << 3;
                [tag as u8 & 0x7f | 0x80, (tag >> 7) as u8, 1]
            })
            .collect();
        assert_eq!(read(&message, 7).len(), PARAMETERS_MAX);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_alike_in_any_pieces(
            message in prop::collection::vec(any::<u8>(), 0..200), piece in 1_usize..50,
        ) {
            prop_assert_eq!(read(&message, piece), read(&message, 1000));
        }
    }
}
