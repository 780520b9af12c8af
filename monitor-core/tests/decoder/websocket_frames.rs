//! A WebSocket endpoint that writes what it is told, right or wrong.

use flate2::{Compress, Compression, FlushCompress};
use monitor_core::input::Direction;

use crate::wire::Wire;

pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// A frame to be written.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    /// FIN, reserved bits and opcode.
    pub(crate) first: u8,
    pub(crate) mask: Option<[u8; 4]>,
    pub(crate) payload: Vec<u8>,
    /// Bytes of the length field: 0, 2 or 8; as few as will do when `None`.
    pub(crate) length_bytes: Option<u8>,
}

impl Frame {
    /// A whole message or control frame, masked as the direction wants it.
    pub(crate) fn new(direction: Direction, opcode: u8, payload: impl AsRef<[u8]>) -> Frame {
        let payload = payload.as_ref().to_vec();
        let mask = (direction == Direction::ToServer).then_some([0x37, 0xfa, 0x21, 0x3d]);
        Frame { first: 0x80 | opcode, mask, payload, length_bytes: None }
    }

    /// More of the message follows.
    pub(crate) fn unfinished(mut self) -> Frame {
        self.first &= 0x7f;
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let length = self.payload.len();
        let enough = match length {
            0..=125 => 0,
            126..=65_535 => 2,
            _ => 8,
        };
        let masked = if self.mask.is_some() { 0x80 } else { 0 };
        let mut bytes = vec![self.first];
        match self.length_bytes.unwrap_or(enough) {
            0 => bytes.push(masked | length as u8),
            2 => {
                bytes.push(masked | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            _ => {
                bytes.push(masked | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend(self.mask.iter().flatten());
        let key = self.mask.unwrap_or_default();
        bytes.extend(self.payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
        bytes
    }
}

/// A whole message or control frame as bytes.
pub(crate) fn frame(direction: Direction, opcode: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    Frame::new(direction, opcode, payload).bytes()
}

/// Text of the client.
pub(crate) fn ask(text: &str) -> Vec<u8> {
    frame(Direction::ToServer, TEXT, text)
}

/// Text of the server.
pub(crate) fn tell(text: &str) -> Vec<u8> {
    frame(Direction::ToClient, TEXT, text)
}

/// A connection whose handshake has been made, with these extensions.
pub(crate) fn upgraded(extensions: &str) -> Wire {
    let mut wire = Wire::open(1000, 2000);
    handshake(&mut wire, extensions);
    wire
}

pub(crate) fn handshake(wire: &mut Wire, extensions: &str) {
    wire.ask(
        "GET /ws?streams=a&listenKey=SECRETSECRET HTTP/1.1\r\nHost: stream.example.com\r\n\
         User-Agent: desk/1.0\r\nX-API-Key: live-one\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
    );
    let extensions = match extensions {
        "" => String::new(),
        value => format!("Sec-WebSocket-Extensions: {value}\r\n"),
    };
    wire.answer(format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         {extensions}\r\n"
    ));
    wire.wait(1000);
}

/// permessage-deflate as a sender does it.
pub(crate) struct Deflater {
    compress: Compress,
    takeover: bool,
}

impl Deflater {
    pub(crate) fn new(bits: u8, takeover: bool) -> Deflater {
        let compress = Compress::new_with_window_bits(Compression::default(), false, bits.max(9));
        Deflater { compress, takeover }
    }

    /// Payload of a message (RFC 7692, 7.2.1).
    pub(crate) fn message(&mut self, plain: &[u8]) -> Vec<u8> {
        if !self.takeover {
            self.compress.reset();
        }
        let mut packed = Vec::new();
        let mut rest = plain;
        loop {
            let before = self.compress.total_in();
            packed.reserve(plain.len() / 2 + 64);
            let flush = FlushCompress::Sync;
            self.compress.compress_vec(rest, &mut packed, flush).expect("memory is enough");
            rest = &rest[(self.compress.total_in() - before) as usize..];
            if rest.is_empty() && packed.len() < packed.capacity() {
                break;
            }
        }
        if packed.is_empty() {
            // Nothing since the last flush: an empty stored block says so (RFC 7692, 7.2.3.6).
            return vec![0];
        }
        packed.truncate(packed.len() - 4);
        packed
    }
}

/// A compressed message in one frame.
pub(crate) fn compressed(direction: Direction, opcode: u8, payload: Vec<u8>) -> Vec<u8> {
    let mut frame = Frame::new(direction, opcode, payload);
    frame.first |= 0x40;
    frame.bytes()
}

/// A source of noise that repeats itself.
pub(crate) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut dice = crate::model::Dice(seed);
    (0..bytes).map(|_| dice.roll(256) as u8).collect()
}
