//! Blocks of a pcapng file (draft-ietf-opsawg-pcapng), little-endian.

use monitor_core::time::EventTime;

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;
const SECRETS: u32 = 10;
/// NSS key log in a decryption secrets block.
const TLS_KEY_LOG: u32 = 0x544c_534b;
/// Packets begin with their IP header.
const LINKTYPE_RAW: u16 = 101;

const OPTION_END: u16 = 0;
const OPTION_COMMENT: u16 = 1;
const SECTION_OS: u16 = 3;
const SECTION_APPLICATION: u16 = 4;
const INTERFACE_NAME: u16 = 2;
const INTERFACE_RESOLUTION: u16 = 9;
/// Ten to the minus ninth of a second.
const NANOSECONDS: [u8; 1] = [9];

/// What `shb_userappl` begins with.
pub(crate) const APPLICATION: &str = "keywatch";

/// Begins a section.
pub(super) fn section(out: &mut Vec<u8>) {
    block(out, SECTION, |out| {
        out.extend(0x1a2b_3c4d_u32.to_le_bytes());
        out.extend([1, 0, 0, 0]);
        // The length of the section is not known while it is written.
        out.extend(u64::MAX.to_le_bytes());
        option(out, SECTION_OS, std::env::consts::OS.as_bytes());
        let application = concat!("keywatch ", env!("CARGO_PKG_VERSION"));
        option(out, SECTION_APPLICATION, application.as_bytes());
        option(out, OPTION_END, &[]);
    });
}

/// Declares the next interface: that of a scope.
pub(super) fn interface(out: &mut Vec<u8>, scope: u64) {
    block(out, INTERFACE, |out| {
        out.extend(LINKTYPE_RAW.to_le_bytes());
        out.extend([0, 0]);
        // No snap length.
        out.extend(0_u32.to_le_bytes());
        let name = if scope == 0 { "keywatch".to_owned() } else { format!("netns-{scope}") };
        option(out, INTERFACE_NAME, name.as_bytes());
        option(out, INTERFACE_RESOLUTION, &NANOSECONDS);
        option(out, OPTION_END, &[]);
    });
}

/// A packet in two parts, of which `missing` more bytes were on the wire.
pub(super) fn packet(
    out: &mut Vec<u8>,
    interface: u32,
    time: EventTime,
    parts: [&[u8]; 2],
    missing: u32,
    comment: Option<&str>,
) {
    block(out, PACKET, |out| {
        let captured = u32::try_from(parts[0].len() + parts[1].len()).unwrap_or(u32::MAX);
        out.extend(interface.to_le_bytes());
        out.extend(((time.0 >> 32) as u32).to_le_bytes());
        out.extend((time.0 as u32).to_le_bytes());
        out.extend(captured.to_le_bytes());
        out.extend(captured.saturating_add(missing).to_le_bytes());
        out.extend_from_slice(parts[0]);
        out.extend_from_slice(parts[1]);
        pad(out, captured as usize);
        if let Some(comment) = comment {
            option(out, OPTION_COMMENT, comment.as_bytes());
            option(out, OPTION_END, &[]);
        }
    });
}

/// Lines of an NSS key log.
pub(super) fn secrets(out: &mut Vec<u8>, lines: &[u8]) {
    block(out, SECRETS, |out| {
        out.extend(TLS_KEY_LOG.to_le_bytes());
        out.extend(u32::try_from(lines.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(lines);
        pad(out, lines.len());
    });
}

/// Type and length around a body; the length stands at both ends.
fn block(out: &mut Vec<u8>, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let begin = out.len();
    out.extend(kind.to_le_bytes());
    out.extend([0; 4]);
    body(out);
    // A packet is at most some 64 KiB, secrets a file of lines: far below 4 GiB.
    let length = u32::try_from(out.len() - begin + 4).unwrap_or(u32::MAX).to_le_bytes();
    out[begin + 4..begin + 8].copy_from_slice(&length);
    out.extend(length);
}

/// An option; one that is too long for its 16-bit length is cut.
fn option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    out.extend(code.to_le_bytes());
    out.extend(length.to_le_bytes());
    out.extend_from_slice(&value[..usize::from(length)]);
    pad(out, usize::from(length));
}

/// Up to the next multiple of four after `length` bytes.
fn pad(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(&[0; 3][..length.wrapping_neg() % 4]);
}
