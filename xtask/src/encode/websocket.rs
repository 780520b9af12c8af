//! WebSocket frames (RFC 6455, 5.2) and the handshake before them.

/// Opcode of a text message.
pub const TEXT: u8 = 1;
/// Opcode of a ping.
pub const PING: u8 = 9;
/// Opcode of a close.
pub const CLOSE: u8 = 8;

/// What a client asks with; `key` is a header line of its own or nothing.
pub fn request(target: &str, key: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: stream.example.com\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Version: 13\r\n{key}\r\n"
    )
}

/// What a server agrees with.
pub const RESPONSE: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// A whole message in one frame; a client's is masked.
pub fn message(opcode: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    let mask_bit = if mask.is_some() { 0x80 } else { 0 };
    match payload.len() {
        short @ 0..126 => frame.push(mask_bit | short as u8),
        middle @ 126..65_536 => {
            frame.push(mask_bit | 126);
            frame.extend((middle as u16).to_be_bytes());
        }
        long => {
            frame.push(mask_bit | 127);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    match mask {
        Some(mask) => {
            frame.extend(mask);
            frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        }
        None => frame.extend(payload),
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6455, 5.7.
    #[test]
    fn messages_are_those_of_the_standard() {
        assert_eq!(message(TEXT, None, b"Hello"), b"\x81\x05Hello");
        let masked = message(TEXT, Some([0x37, 0xfa, 0x21, 0x3d]), b"Hello");
        assert_eq!(masked, b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58");
        assert_eq!(message(2, None, &[0; 256])[..4], [0x82, 0x7e, 1, 0]);
        assert_eq!(message(2, None, &[0; 65_536])[..10], [0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]);
    }
}
