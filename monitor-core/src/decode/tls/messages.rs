//! Handshake messages out of the records that carry them (RFC 8446, 4).

use crate::decode::Counters;

/// One direction.
#[derive(Default)]
pub(super) struct Messages {
    /// Of the message under way: header and body.
    buffer: Vec<u8>,
    /// Bytes of a message that is too large.
    skip: usize,
}

/// Kinds of messages that mean something here (RFC 8446, B.3; RFC 5246, 7.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Message {
    ClientHello,
    ServerHello,
    EndOfEarlyData,
    /// Until draft 21; since then it is a kind of ServerHello.
    HelloRetryRequest,
    EncryptedExtensions,
    Certificate,
    Finished,
    KeyUpdate,
    Other,
}

impl Message {
    fn of(byte: u8) -> Message {
        match byte {
            1 => Message::ClientHello,
            2 => Message::ServerHello,
            5 => Message::EndOfEarlyData,
            6 => Message::HelloRetryRequest,
            8 => Message::EncryptedExtensions,
            11 => Message::Certificate,
            20 => Message::Finished,
            24 => Message::KeyUpdate,
            _ => Message::Other,
        }
    }
}

/// Type and length.
const HEADER_BYTES: usize = 4;

impl Messages {
    /// Memory held, bytes.
    pub(super) fn held_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    /// Bytes are missing: the next record is taken to begin with a message.
    pub(super) fn clear(&mut self) {
        *self = Messages::default();
    }

    /// Takes from the content of a record up to the end of a message; gives its kind and body.
    pub(super) fn read(
        &mut self,
        content: &mut &[u8],
        bytes_max: usize,
        counters: &mut Counters,
    ) -> Option<(Message, Vec<u8>)> {
        loop {
            let skipped = self.skip.min(content.len());
            self.skip -= skipped;
            *content = &content[skipped..];
            if !self.has(HEADER_BYTES, content) {
                return None;
            }
            let [kind, a, b, c, ..] = *self.buffer.as_slice() else { return None };
            let body = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(usize::MAX);
            if body > bytes_max {
                counters.tls_messages_too_large += 1;
                self.buffer = Vec::new();
                self.skip = body;
                continue;
            }
            if !self.has(HEADER_BYTES + body, content) {
                return None;
            }
            let mut message = std::mem::take(&mut self.buffer);
            message.drain(..HEADER_BYTES);
            return Some((Message::of(kind), message));
        }
    }

    /// Whether so many bytes wait, once what is missing of them was taken from `content`.
    fn has(&mut self, bytes: usize, content: &mut &[u8]) -> bool {
        let missing = bytes.saturating_sub(self.buffer.len()).min(content.len());
        self.buffer.extend_from_slice(&content[..missing]);
        *content = &content[missing..];
        self.buffer.len() >= bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_go_over_records_and_records_hold_several() {
        let bytes =
            [&[1, 0, 0, 2, 7, 7, 20, 0, 0, 0][..], &[99, 0, 1, 0], &[5; 256], &[24, 0, 0, 1, 1]]
                .concat();
        for step in 1..40 {
            let mut messages = Messages::default();
            let mut counters = Counters::default();
            let mut seen = Vec::new();
            for mut content in bytes.chunks(step) {
                while let Some(message) = messages.read(&mut content, 255, &mut counters) {
                    seen.push(message);
                }
                assert!(content.is_empty());
            }
            let expected = [
                (Message::ClientHello, vec![7, 7]),
                (Message::Finished, vec![]),
                (Message::KeyUpdate, vec![1]),
            ];
            assert_eq!(seen, expected, "by {step}");
            assert_eq!(counters.tls_messages_too_large, 1);
            assert_eq!(messages.held_bytes(), 0);
        }
    }
}
