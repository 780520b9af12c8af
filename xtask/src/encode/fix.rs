//! FIX messages with their length and checksum (FIX Session Layer, 4.2).

/// A message of its fields after BodyLength, with `|` for the separator.
pub fn message(version: &str, fields: &str) -> Vec<u8> {
    let body = fields.replace('|', "\u{1}");
    let mut bytes = format!("8={version}\u{1}9={}\u{1}{body}", body.len()).into_bytes();
    let sum = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    bytes.extend_from_slice(format!("10={sum:03}\u{1}").as_bytes());
    bytes
}
