//! A message while it is being read: its beginning, and how much there is of it.

use super::Bench;
use super::frame::unmask;
use super::inflate::{Broken, Inflate};
use crate::call::Anomalies;
use crate::connection::Traffic;
use crate::limits::Limits;
use crate::time::EventTime;

/// Compressed bytes that lose their mask at once.
const STEP_BYTES: usize = 4 << 10;

/// A data message.
pub(super) struct Message {
    /// First byte of its first frame.
    pub(super) time: EventTime,
    /// Capture of its last byte so far.
    pub(super) last: EventTime,
    /// Text, else binary.
    pub(super) text: bool,
    pub(super) compressed: bool,
    /// Payload bytes on the wire.
    pub(super) wire_bytes: u64,
    /// Payload bytes after inflating, as far as that was done.
    pub(super) plain_bytes: u64,
    /// The first of them.
    pub(super) prefix: Vec<u8>,
    /// What it says can be read.
    pub(super) readable: bool,
    /// The prefix may grow: nothing is missing behind it.
    grows: bool,
    /// Every byte was seen.
    pub(super) complete: bool,
    pub(super) anomalies: Anomalies,
}

impl Message {
    /// Its first frame begins. `spare` is a buffer to use.
    pub(super) fn new(
        text: bool,
        time: EventTime,
        anomalies: Anomalies,
        spare: &mut Vec<u8>,
    ) -> Message {
        Message {
            time,
            last: time,
            text,
            compressed: false,
            wire_bytes: 0,
            plain_bytes: 0,
            prefix: std::mem::take(spare),
            readable: true,
            grows: true,
            complete: true,
            anomalies,
        }
    }

    /// Memory held, bytes.
    pub(super) fn held_bytes(&self) -> usize {
        self.prefix.capacity()
    }

    /// Payload bytes: what the application got, or what was on the wire where that is not known.
    pub(super) fn payload_bytes(&self) -> u64 {
        if self.readable { self.plain_bytes } else { self.wire_bytes }
    }

    /// Every byte of it is in the prefix.
    pub(super) fn is_whole(&self) -> bool {
        self.readable && self.grows && self.prefix.len() as u64 == self.plain_bytes
    }

    /// What may say something of the message. A word of bytes is no word: bytes speak JSON or nothing.
    pub(super) fn words(&self) -> &[u8] {
        let speaks = self.text
            || matches!(self.prefix.trim_ascii_start().first(), Some(b'{' | b'['))
                && self.is_utf8();
        if speaks { &self.prefix } else { &[] }
    }

    /// More payload; `frame` is the mask and which byte of the frame comes first.
    pub(super) fn take(
        &mut self,
        bytes: &[u8],
        frame: (Option<[u8; 4]>, u64),
        inflate: Option<&mut Inflate>,
        bench: &mut Bench,
        limits: &Limits,
    ) {
        self.wire_bytes += bytes.len() as u64;
        if !self.readable {
            return;
        }
        let (mask, at) = frame;
        if !self.compressed {
            self.plain_bytes += bytes.len() as u64;
            let room = limits.message_prefix_bytes.saturating_sub(self.prefix.len());
            if self.grows && room > 0 {
                unmask(mask, at, &bytes[..bytes.len().min(room)], &mut self.prefix);
            }
            return;
        }
        let Some(inflate) = inflate else { return };
        if mask.is_none() {
            let read = inflate.read(bytes, &mut bench.output, |plain| self.grow(plain, limits));
            return self.judge(read);
        }
        for (number, step) in bytes.chunks(STEP_BYTES).enumerate() {
            bench.input.clear();
            unmask(mask, at + (number * STEP_BYTES) as u64, step, &mut bench.input);
            let read =
                inflate.read(&bench.input, &mut bench.output, |plain| self.grow(plain, limits));
            self.judge(read);
            if read.is_err() {
                return;
            }
        }
    }

    /// Payload that is not there.
    pub(super) fn skip(&mut self, bytes: u64, inflate: Option<&mut Inflate>) {
        self.wire_bytes += bytes;
        self.complete = false;
        self.anomalies |= Anomalies::GAP;
        self.grows = false;
        if !self.compressed {
            self.plain_bytes += bytes;
        } else if let Some(inflate) = inflate {
            inflate.lose();
            self.lose_content();
        }
    }

    /// It is over.
    pub(super) fn end(
        &mut self,
        inflate: Option<&mut Inflate>,
        bench: &mut Bench,
        limits: &Limits,
    ) {
        if self.compressed
            && self.readable
            && let Some(inflate) = inflate
        {
            let Bench { idle, output, .. } = bench;
            let read = inflate.end(idle, output, |plain| self.grow(plain, limits));
            self.judge(read);
        }
        if self.text && self.readable && !self.is_utf8() {
            self.anomalies |= Anomalies::NOT_UTF8;
        }
    }

    /// Its content will not be known.
    pub(super) fn lose_content(&mut self) {
        self.readable = false;
        self.prefix.clear();
        self.anomalies |= Anomalies::CONTENT_UNKNOWN;
    }

    /// Takes what was inflated; false when it is too much.
    fn grow(&mut self, plain: &[u8], limits: &Limits) -> bool {
        self.plain_bytes += plain.len() as u64;
        let room = limits.message_prefix_bytes.saturating_sub(self.prefix.len());
        self.prefix.extend_from_slice(&plain[..plain.len().min(room)]);
        self.plain_bytes <= limits.message_inflated_bytes_max
    }

    fn judge(&mut self, read: Result<(), Broken>) {
        let Err(broken) = read else { return };
        self.anomalies |= match broken {
            Broken::Data => Anomalies::BAD_DEFLATE,
            Broken::Enough => Anomalies::DEFLATE_BOMB,
        };
        self.lose_content();
    }

    /// As far as it was kept; a character cut off at the end of that is none of its faults.
    fn is_utf8(&self) -> bool {
        match std::str::from_utf8(&self.prefix) {
            Ok(_) => true,
            Err(error) => error.error_len().is_none() && !self.is_whole(),
        }
    }
}

impl Traffic {
    /// Counts a message.
    pub(super) fn count(&mut self, message: &Message) {
        let of_kind =
            if message.text { &mut self.text_messages } else { &mut self.binary_messages };
        *of_kind += 1;
        self.payload_bytes += message.payload_bytes();
        self.unreadable_messages += u64::from(!message.readable);
        if message.compressed {
            self.compressed_messages += 1;
            self.compressed_bytes += message.wire_bytes;
            if message.readable {
                self.inflated_bytes += message.plain_bytes;
            }
        }
    }
}
