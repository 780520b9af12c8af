//! The Huffman code of RFC 7541, 5.2 and appendix B.
//!
//! The code is canonical: codes of one length follow each other in the order of their symbols, so
//! that the lengths alone say everything. Codes of up to eleven bits, which is all of printable text
//! but a few signs, are found with one look-up.

/// Bits that one look-up decides.
const FAST_BITS: usize = 11;
const LENGTH_MAX: usize = 30;
const SYMBOLS: usize = 257;
/// Ends no string: as part of one it is an error.
const END_OF_STRING: u16 = 256;

/// Length of each symbol's code, bits.
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5,
    5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6,
    6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22,
    23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22,
    21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20,
    22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19,
    21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22,
    22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

/// The code, ready for use.
struct Code {
    /// By the next bits: symbol and length, 0 when the code is longer.
    fast: [u16; 1 << FAST_BITS],
    /// Symbols by length, then value.
    sorted: [u16; SYMBOLS],
    /// For each length its first code, and where that stands in `sorted`.
    first: [(u32, u16); LENGTH_MAX + 2],
}

static CODE: Code = Code::new();

impl Code {
    const fn new() -> Code {
        let mut code = Code {
            fast: [0; 1 << FAST_BITS],
            sorted: [0; SYMBOLS],
            first: [(0, 0); LENGTH_MAX + 2],
        };
        let (mut length, mut next, mut at) = (1, 0_u32, 0);
        while length <= LENGTH_MAX + 1 {
            code.first[length] = (next, at as u16);
            let mut symbol = 0;
            while symbol < SYMBOLS {
                if LENGTHS[symbol] as usize == length {
                    code.sorted[at] = symbol as u16;
                    code.fill(next, symbol as u16, length);
                    at += 1;
                    next += 1;
                }
                symbol += 1;
            }
            next <<= 1;
            length += 1;
        }
        code
    }

    /// Every continuation of a short code leads to its symbol.
    const fn fill(&mut self, code: u32, symbol: u16, length: usize) {
        if length > FAST_BITS {
            return;
        }
        let spare = FAST_BITS - length;
        let mut at = (code as usize) << spare;
        let end = (code as usize + 1) << spare;
        while at < end {
            self.fast[at] = symbol << 4 | length as u16;
            at += 1;
        }
    }

    /// The symbol whose code stands at the top of `bits`, and its length.
    fn symbol(&self, bits: u64) -> (u16, u32) {
        let fast = self.fast[(bits >> (64 - FAST_BITS)) as usize];
        if fast != 0 {
            return (fast >> 4, u32::from(fast & 15));
        }
        for length in FAST_BITS + 1..=LENGTH_MAX {
            let code = (bits >> (64 - length)) as u32;
            let (first, at) = self.first[length];
            let count = self.first[length + 1].1 - at;
            if code.wrapping_sub(first) < u32::from(count) {
                return (self.sorted[at as usize + (code - first) as usize], length as u32);
            }
        }
        (END_OF_STRING, LENGTH_MAX as u32)
    }
}

/// A string that no encoder makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a Huffman string with a wrong end")]
pub struct BadHuffman;

/// Appends the decoded string to `out`; at most 8 bytes for 5.
pub fn decode(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), BadHuffman> {
    out.reserve(bytes.len() + bytes.len() / 2);
    let mut rest = bytes;
    // The next bits, at the top, and how many there are.
    let (mut bits, mut count) = (0_u64, 0_u32);
    loop {
        if let Some((word, after)) = rest.split_first_chunk::<4>().filter(|_| count <= 32) {
            bits |= u64::from(u32::from_be_bytes(*word)) << (32 - count);
            count += 32;
            rest = after;
        } else {
            while let Some((byte, after)) = rest.split_first().filter(|_| count <= 56) {
                bits |= u64::from(*byte) << (56 - count);
                count += 8;
                rest = after;
            }
        }
        let (symbol, length) = CODE.symbol(bits);
        if length > count {
            // What is left is the beginning of the end-of-string code, less than a byte of it.
            let padding = count < 8 && bits.leading_ones() >= count;
            return if padding { Ok(()) } else { Err(BadHuffman) };
        }
        if symbol == END_OF_STRING {
            return Err(BadHuffman);
        }
        out.push(symbol as u8);
        bits <<= length;
        count -= length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(bytes: &[u8]) -> Result<Vec<u8>, BadHuffman> {
        let mut out = Vec::new();
        decode(bytes, &mut out).map(|()| out)
    }

    /// The code of a symbol, by the book.
    fn encode(text: &[u8]) -> Vec<u8> {
        let mut sorted: Vec<usize> = (0..SYMBOLS).collect();
        sorted.sort_by_key(|symbol| (LENGTHS[*symbol], *symbol));
        let mut codes = [(0_u32, 0_u8); SYMBOLS];
        let (mut code, mut length) = (0, 0);
        for symbol in sorted {
            code <<= LENGTHS[symbol] - length;
            length = LENGTHS[symbol];
            codes[symbol] = (code, length);
            code += 1;
        }
        let mut bits = String::new();
        for byte in text {
            let (code, length) = codes[usize::from(*byte)];
            bits += &format!("{code:0width$b}", width = usize::from(length));
        }
        while !bits.len().is_multiple_of(8) {
            bits.push('1');
        }
        let byte = |at: usize| u8::from_str_radix(&bits[at..at + 8], 2).unwrap();
        (0..bits.len()).step_by(8).map(byte).collect()
    }

    #[test]
    fn examples_of_the_rfc() {
        let host = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(decoded(&host).unwrap(), b"www.example.com");
        assert_eq!(decoded(&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]).unwrap(), b"no-cache");
        assert_eq!(decoded(&[0x64, 0x02]).unwrap(), b"302");
        assert_eq!(decoded(b"").unwrap(), b"");
    }

    #[test]
    fn every_byte_in_every_neighbourhood() {
        for byte in 0..=255 {
            for neighbour in [b'0', b'!', 0, 0xf9, 10] {
                for text in [vec![byte], vec![neighbour, byte, byte], vec![byte, neighbour]] {
                    assert_eq!(decoded(&encode(&text)).unwrap(), text, "{text:?}");
                }
            }
        }
        let all: Vec<u8> = (0..=255).cycle().take(5000).collect();
        assert_eq!(decoded(&encode(&all)).unwrap(), all);
    }

    #[test]
    fn wrong_ends() {
        // End of string as a symbol; a whole byte of padding; padding that is not ones.
        for bytes in [&[0xff; 4][..], &[0xff], &[0x1f, 0xff], &[0x00], &[0x07, 0xfe], &[0xff; 9]] {
            assert_eq!(decoded(bytes), Err(BadHuffman), "{bytes:?}");
        }
        assert_eq!(decoded(&[0x07]).unwrap(), b"0");
    }
}
