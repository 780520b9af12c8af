//! Reads numbers and vectors out of a message (RFC 8446, 3).

/// What is left of a message.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a>(pub(super) &'a [u8]);

impl<'a> Cursor<'a> {
    /// The next `count` bytes.
    pub(super) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }

    /// The next bytes, as many as the array has.
    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*bytes)
    }

    /// A number of one byte.
    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// A number of two bytes.
    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    /// A number of three bytes.
    pub(super) fn u24(&mut self) -> Option<u32> {
        self.array().map(|[a, b, c]| u32::from_be_bytes([0, a, b, c]))
    }

    /// A vector whose length stands before it in one byte.
    pub(super) fn vector8(&mut self) -> Option<Cursor<'a>> {
        let count = self.u8()?;
        self.bytes(count.into()).map(Cursor)
    }

    /// A vector whose length stands before it in two bytes.
    pub(super) fn vector16(&mut self) -> Option<Cursor<'a>> {
        let count = self.u16()?;
        self.bytes(count.into()).map(Cursor)
    }

    /// A vector whose length stands before it in three bytes.
    pub(super) fn vector24(&mut self) -> Option<Cursor<'a>> {
        let count = usize::try_from(self.u24()?).ok()?;
        self.bytes(count).map(Cursor)
    }

    /// Numbers of two bytes to the end; a byte that is left over is none.
    pub(super) fn u16s(mut self) -> impl Iterator<Item = u16> {
        std::iter::from_fn(move || self.u16())
    }
}
