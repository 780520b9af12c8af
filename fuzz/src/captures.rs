//! Capture files and packets: what they hold goes on to a Decoder.

use std::ops::ControlFlow;

use monitor_core::limits::Limits;
use monitor_user::replay::{Tally, read};

use crate::wire::Watched;

/// A capture file of any format, compressed or not.
pub fn capture_file(data: &[u8]) {
    replay(data);
}

/// Packets of any link type in a file that is well formed: the first byte chooses the link type; each
/// packet is two bytes of length, one that says how much of it was not captured, and itself.
pub fn packet(data: &[u8]) {
    let Some((link, mut rest)) = data.split_first() else { return };
    let link = LINK_TYPES[usize::from(*link) % LINK_TYPES.len()];
    let mut file =
        [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 262_144, link].map(u32::to_le_bytes).concat();
    let mut packets = 0_u32;
    while let [high, low, missing, after @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(after.len());
        let (packet, next) = after.split_at(length);
        rest = next;
        let numbers = [packets, 0, length as u32, length as u32 + u32::from(*missing)];
        file.extend(numbers.map(u32::to_le_bytes).concat());
        file.extend(packet);
        packets += 1;
    }
    let tally = replay(&file);
    // Unless the link type is one that is not read.
    assert!(tally.packets == 0 || tally.packets == u64::from(packets), "{tally:?}");
}

/// Those of www.tcpdump.org/linktypes.html that may carry IP.
const LINK_TYPES: [u32; 16] = [0, 1, 6, 8, 9, 10, 12, 14, 50, 101, 104, 108, 113, 228, 229, 276];

fn replay(data: &[u8]) -> Tally {
    let mut tally = Tally::default();
    let mut watched = Watched::new(Limits { held_bytes_max: 1 << 20, ..Limits::default() });
    // A fault is an answer like any other.
    let _ = read(data, &mut tally, &mut |input| {
        watched.feed(input);
        ControlFlow::Continue(())
    });
    watched.finish();
    tally
}
