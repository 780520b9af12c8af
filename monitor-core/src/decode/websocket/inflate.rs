//! permessage-deflate (RFC 7692): one direction's messages, inflated in order.
//!
//! Between two messages all that matters of a direction is its window, the last bytes that came out.
//! So only the window is kept, and it grows with what was sent; the much larger state of the inflater
//! is lent for as long as a message lasts.

use flate2::{Decompress, FlushDecompress, Status};

/// What an inflater takes, bytes: its 32 KiB window and its tables.
const INFLATER_BYTES: usize = 48 << 10;

/// Inflaters kept for the next message.
const IDLE_MAX: usize = 8;

/// Bytes that come out at once.
const OUTPUT_BYTES: usize = 16 << 10;

/// Final blocks within a message. One is allowed (RFC 7692, 7.2.3.4), more are odd, and each costs a
/// new start.
const RESTARTS_MAX: u8 = 4;

/// What every sender leaves off (RFC 7692, 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// Why a message cannot be read on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Broken {
    /// It is no DEFLATE data, or refers to what never was.
    Data,
    /// The reader has had enough.
    Enough,
}

/// One direction.
pub(super) struct Inflate {
    takeover: bool,
    window: Window,
    /// The window is not known.
    lost: bool,
    current: Option<Decompress>,
    restarts: u8,
}

impl Inflate {
    pub(super) fn new(takeover: bool, window_bytes: usize) -> Inflate {
        let window = Window { bytes: Vec::new(), start: 0, bytes_max: window_bytes };
        Inflate { takeover, window, lost: false, current: None, restarts: 0 }
    }

    /// A message begins; false when it cannot be read.
    pub(super) fn begin(&mut self, idle: &mut Vec<Decompress>) -> bool {
        if self.lost && self.takeover {
            return false;
        }
        self.lost = false;
        self.restarts = 0;
        let mut inflater = idle.pop().unwrap_or_else(|| Decompress::new(false));
        let ready = self.window.load(&mut inflater);
        self.current = Some(inflater);
        if !ready {
            self.lose();
        }
        ready
    }

    /// More of a message; what comes out goes to `take`, which says whether it wants more.
    pub(super) fn read(
        &mut self,
        mut input: &[u8],
        output: &mut Vec<u8>,
        mut take: impl FnMut(&[u8]) -> bool,
    ) -> Result<(), Broken> {
        output.resize(OUTPUT_BYTES, 0);
        loop {
            let Some(inflater) = &mut self.current else { return Err(Broken::Data) };
            let (read, written) = (inflater.total_in(), inflater.total_out());
            let status = inflater.decompress(input, output, FlushDecompress::Sync);
            let read = (inflater.total_in() - read) as usize;
            let written = (inflater.total_out() - written) as usize;
            input = input.get(read..).unwrap_or_default();
            let plain = output.get(..written).unwrap_or_default();
            self.window.push(plain);
            if !take(plain) {
                self.lose();
                return Err(Broken::Enough);
            }
            // What came out before the fault counts: it may have been enough already.
            let Ok(status) = status else {
                self.lose();
                return Err(Broken::Data);
            };
            match status {
                Status::StreamEnd => {
                    self.restarts += 1;
                    if self.restarts > RESTARTS_MAX || !self.window.load(inflater) {
                        self.lose();
                        return Err(Broken::Data);
                    }
                }
                Status::Ok | Status::BufError => {}
            }
            if input.is_empty() && written < OUTPUT_BYTES {
                return Ok(());
            }
            if read == 0 && written == 0 {
                self.lose();
                return Err(Broken::Data);
            }
        }
    }

    /// The message is over.
    pub(super) fn end(
        &mut self,
        idle: &mut Vec<Decompress>,
        output: &mut Vec<u8>,
        take: impl FnMut(&[u8]) -> bool,
    ) -> Result<(), Broken> {
        self.read(&TAIL, output, take)?;
        if let Some(inflater) = self.current.take()
            && idle.len() < IDLE_MAX
        {
            idle.push(inflater);
        }
        if !self.takeover {
            self.window.clear();
        }
        Ok(())
    }

    /// Bytes are missing, or there is no room for the window: what refers to it cannot be read.
    pub(super) fn lose(&mut self) {
        self.lost = true;
        self.current = None;
        self.window.clear();
    }

    /// Memory held, bytes.
    pub(super) fn held_bytes(&self) -> usize {
        self.window.bytes.capacity() + self.current.as_ref().map_or(0, |_| INFLATER_BYTES)
    }
}

/// The last bytes that came out, in a ring that grows to its size.
struct Window {
    bytes: Vec<u8>,
    /// Where the oldest byte is, once it is full.
    start: usize,
    bytes_max: usize,
}

impl Window {
    fn push(&mut self, plain: &[u8]) {
        let plain = &plain[plain.len().saturating_sub(self.bytes_max)..];
        let room = self.bytes_max - self.bytes.len();
        let (growing, turning) = plain.split_at(room.min(plain.len()));
        if self.bytes.len() + growing.len() > self.bytes.capacity() {
            let wanted = (self.bytes.len() + growing.len()).next_power_of_two();
            self.bytes.reserve_exact(wanted.min(self.bytes_max) - self.bytes.len());
        }
        self.bytes.extend_from_slice(growing);
        let (late, early) = turning.split_at(turning.len().min(self.bytes.len() - self.start));
        self.bytes[self.start..self.start + late.len()].copy_from_slice(late);
        self.bytes[..early.len()].copy_from_slice(early);
        self.start += turning.len();
        if self.start >= self.bytes_max {
            self.start -= self.bytes_max;
        }
    }

    /// Makes an inflater begin where this window is.
    fn load(&self, inflater: &mut Decompress) -> bool {
        inflater.reset(false);
        let (newer, older) = self.bytes.split_at(self.start);
        [older, newer]
            .into_iter()
            .all(|part| part.is_empty() || inflater.set_dictionary(part).is_ok())
    }

    fn clear(&mut self) {
        (self.bytes, self.start) = (Vec::new(), 0);
    }
}

#[cfg(test)]
mod tests {
    use flate2::{Compress, Compression, FlushCompress};

    use super::*;

    /// Inflates one message fed in pieces.
    fn message(inflate: &mut Inflate, bytes: &[u8], step: usize) -> Result<Vec<u8>, Broken> {
        let (mut idle, mut output, mut plain) = (Vec::new(), Vec::new(), Vec::new());
        assert!(inflate.begin(&mut idle));
        let mut take = |out: &[u8]| {
            plain.extend_from_slice(out);
            true
        };
        for piece in bytes.chunks(step) {
            inflate.read(piece, &mut output, &mut take)?;
        }
        inflate.end(&mut idle, &mut output, &mut take)?;
        Ok(plain)
    }

    /// RFC 7692, 7.2.3.1 to 7.2.3.5.
    #[test]
    fn examples_of_the_rfc() {
        let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        let again = [0xf2, 0x00, 0x11, 0x00, 0x00];
        let stored = [0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00];
        let final_block = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
        let two_blocks =
            [0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00];
        for step in [1, 2, 100] {
            let mut inflate = Inflate::new(true, 1 << 15);
            for bytes in [&hello[..], &again, &stored, &again, &final_block, &again, &two_blocks] {
                assert_eq!(message(&mut inflate, bytes, step).unwrap(), b"Hello", "{bytes:x?}");
            }
        }
        let mut alone = Inflate::new(false, 1 << 15);
        assert_eq!(message(&mut alone, &hello, 7).unwrap(), b"Hello");
        assert_eq!(message(&mut alone, &again, 7), Err(Broken::Data));
        assert_eq!(message(&mut alone, &hello, 7).unwrap(), b"Hello");
    }

    /// What came out before a fault is judged first, in however many pieces it came.
    #[test]
    fn enough_before_a_fault_is_enough() {
        let mut packed = Vec::with_capacity(1000);
        let mut deflate = Compress::new(Compression::best(), false);
        deflate.compress_vec(&[b'a'; 5000], &mut packed, FlushCompress::Sync).unwrap();
        // A block of the reserved kind.
        packed.extend([0x07; 4]);
        for (enough, expected) in [(4999, Broken::Enough), (5000, Broken::Data)] {
            for step in [1, 1000] {
                let (mut inflate, mut output, mut came) =
                    (Inflate::new(true, 1 << 15), Vec::new(), 0);
                assert!(inflate.begin(&mut Vec::new()));
                let read = packed.chunks(step).try_for_each(|piece| {
                    inflate.read(piece, &mut output, |plain| {
                        came += plain.len();
                        came <= enough
                    })
                });
                assert_eq!(read, Err(expected), "in pieces of {step}");
            }
        }
    }

    /// Messages whose window turns many times, at every size that zlib makes.
    #[test]
    fn windows_of_every_size() {
        for bits in 9..=15 {
            let mut deflate = Compress::new_with_window_bits(Compression::best(), false, bits);
            let mut inflate = Inflate::new(true, 1 << bits);
            for number in 0_usize..150 {
                let text: String = (0..number * 7 % 500)
                    .map(|at| format!("{{\"p\":{},\"q\":{number}}}", at * number % 97))
                    .collect();
                let mut packed = Vec::with_capacity(text.len() + 1000);
                deflate.compress_vec(text.as_bytes(), &mut packed, FlushCompress::Sync).unwrap();
                packed.truncate(packed.len() - TAIL.len());
                let plain = message(&mut inflate, &packed, 1000).unwrap();
                assert_eq!(plain, text.as_bytes(), "message {number}, {bits} bits");
                assert!(inflate.held_bytes() <= 1 << bits);
            }
        }
    }

    #[test]
    fn a_small_direction_holds_little() {
        let mut inflate = Inflate::new(true, 1 << 15);
        message(&mut inflate, &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], 7).unwrap();
        assert_eq!(inflate.held_bytes(), 8);
    }

    #[test]
    fn final_blocks_without_end_are_refused() {
        let mut inflate = Inflate::new(true, 1 << 15);
        let blocks = [0x03, 0x00].repeat(100);
        assert_eq!(message(&mut inflate, &blocks, 7), Err(Broken::Data));
        assert!(!inflate.begin(&mut Vec::new()));
        assert_eq!(inflate.held_bytes(), 0);
    }
}
