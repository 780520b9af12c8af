//! A piece of a stream that is looked at before it is consumed, in bounded memory.

use std::io::{self, Read};

/// What is read at once: large enough that system calls cost nothing, small enough for the cache.
const USUAL_BYTES: usize = 256 << 10;

/// The stream from some place on.
pub(super) struct Window<R> {
    reader: R,
    /// What was read lies at `start..end`.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// How many bytes of the stream lie before `start`.
    offset: u64,
}

impl<R: Read> Window<R> {
    pub(super) fn new(reader: R) -> Window<R> {
        Window { reader, buffer: vec![0; USUAL_BYTES], start: 0, end: 0, offset: 0 }
    }

    /// What is there already.
    pub(super) fn data(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Where [`Window::data`] begins in the stream.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Reads until `data` has at least so many bytes. False when the stream ends before that.
    pub(super) fn fill(&mut self, bytes: usize) -> io::Result<bool> {
        if self.end - self.start >= bytes { Ok(true) } else { self.refill(bytes) }
    }

    /// Goes on after bytes that are there.
    pub(super) fn consume(&mut self, bytes: usize) {
        let bytes = bytes.min(self.end - self.start);
        self.start += bytes;
        self.offset += bytes as u64;
    }

    /// Goes on after bytes that need not be there yet; nothing is kept of them. False when the
    /// stream ends before that.
    pub(super) fn skip(&mut self, bytes: u64) -> io::Result<bool> {
        let end = self.offset.saturating_add(bytes);
        while self.offset < end {
            let there = (self.end - self.start) as u64;
            self.consume(usize::try_from(there.min(end - self.offset)).unwrap_or(usize::MAX));
            if self.offset < end && !self.fill(1)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    #[cold]
    fn refill(&mut self, bytes: usize) -> io::Result<bool> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.buffer.len() < bytes {
            self.buffer.resize(bytes.next_power_of_two(), 0);
        }
        while self.end < bytes {
            match self.reader.read(&mut self.buffer[self.end..]) {
                Ok(0) => return Ok(false),
                Ok(got) => self.end += got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a few bytes at a time, with a signal before each time.
    struct Slow<'a>(&'a [u8], bool);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                Err(io::ErrorKind::Interrupted.into())
            } else {
                self.0.read(&mut buffer[..3])
            }
        }
    }

    #[test]
    fn bytes_come_in_order_whatever_is_asked() {
        let stream: Vec<u8> = (0..=255).collect();
        let mut window = Window::new(Slow(&stream, false));
        assert!(window.fill(10).unwrap());
        assert_eq!(window.data()[..10], stream[..10]);
        window.consume(7);
        assert!(window.skip(100).unwrap());
        assert_eq!(window.offset(), 107);
        assert!(window.fill(4).unwrap());
        assert_eq!(window.data()[..4], stream[107..111]);
        assert!(!window.fill(150).unwrap());
        assert_eq!(window.data(), &stream[107..]);
        assert!(!window.skip(150).unwrap());
        assert_eq!((window.offset(), window.data()), (256, &[][..]));
    }

    #[test]
    fn it_grows_for_what_is_larger_than_usual() {
        let stream = vec![7; 3 * USUAL_BYTES];
        let mut window = Window::new(&stream[..]);
        window.skip(5).unwrap();
        assert!(window.fill(2 * USUAL_BYTES).unwrap());
        assert_eq!(window.data()[..2 * USUAL_BYTES], stream[..2 * USUAL_BYTES]);
    }
}
