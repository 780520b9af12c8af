//! Short texts of records (times, ids, addresses), written on the stack: most of them stand in every
//! line of output.

/// Whether a name is this one in any case. The usual way to write it costs no look at each letter.
#[inline]
pub(crate) fn is_name(name: &[u8], usual: &[u8]) -> bool {
    name == usual || name.eq_ignore_ascii_case(usual)
}

/// A table in which these bytes, all ASCII, are marked.
pub(crate) const fn marked(marks: &[u8]) -> [bool; 256] {
    let mut marked = [false; 256];
    let mut at = 0;
    while at < marks.len() {
        marked[marks[at] as usize] = true;
        at += 1;
    }
    marked
}

/// At most so many bytes; what is longer is left out.
pub(crate) struct Ascii<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Ascii<N> {
    pub(crate) fn new() -> Ascii<N> {
        Ascii { bytes: [0; N], len: 0 }
    }

    pub(crate) fn byte(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.len) {
            *place = byte;
            self.len += 1;
        }
    }

    pub(crate) fn text(&mut self, text: &str) {
        text.bytes().for_each(|byte| self.byte(byte));
    }

    /// Decimal, with zeros before it to fill `width`.
    pub(crate) fn padded(&mut self, mut number: u32, width: usize) {
        let mut digits = [b'0'; 10];
        let mut first = digits.len();
        while number > 0 {
            first -= 1;
            digits[first] = b'0' + (number % 10) as u8;
            number /= 10;
        }
        let first = first.min(digits.len().saturating_sub(width));
        digits[first..].iter().for_each(|digit| self.byte(*digit));
    }

    /// The lowest `digits` hexadecimal digits.
    pub(crate) fn hex(&mut self, number: u128, digits: u32) {
        for place in (0..digits).rev() {
            self.byte(b"0123456789abcdef"[(number >> (4 * place)) as usize & 15]);
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_the_standard_library_does() {
        for number in [0, 7, 10, 99, 100, 65_535, u32::MAX] {
            let mut ascii = Ascii::<64>::new();
            ascii.padded(number, 1);
            ascii.byte(b' ');
            ascii.padded(number, 9);
            ascii.byte(b' ');
            ascii.hex(u128::from(number), 8);
            assert_eq!(ascii.as_str(), format!("{number} {number:09} {number:08x}"));
        }
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let mut ascii = Ascii::<3>::new();
        ascii.text("abcdef");
        assert_eq!(ascii.as_str(), "abc");
    }
}
