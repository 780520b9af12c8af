//! Calls that were alike, as one record: version 2 of the compact form.
//!
//! The version byte, how many calls (varint), nanoseconds from the first to the last (varint), then one of
//! them as a record of version 1: with the time of the first, and the mean of sizes and latencies. Programs
//! that know version 1 alone would take it for one call; they refuse it.

use monitor_core::call::ApiCall;
use monitor_core::time::EventTime;

use super::{Malformed, NEWEST, Reader, VERSION, decode, encode, number};

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Summary {
    /// As the first of them; sizes and latency are the mean of all.
    pub(crate) call: ApiCall,
    /// How many there were, at most [`COUNT_MAX`].
    pub(crate) count: u32,
    /// From the first to the last, nanoseconds.
    pub(crate) span_ns: u64,
}

/// More make another summary: what one record may cost its reader, a tenth of a second.
pub(crate) const COUNT_MAX: u32 = 65_536;

/// What a record says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Packed {
    /// One call.
    Call(ApiCall),
    /// Many.
    Summary(Summary),
}

/// Adds a summary to `out`.
pub(crate) fn encode_summary(summary: &Summary, out: &mut Vec<u8>) {
    let Summary { call, count, span_ns } = summary;
    out.push(NEWEST);
    number(out, u64::from(*count));
    number(out, *span_ns);
    encode(call, out);
}

/// What stands before the record of a call, if that is the first byte of a summary.
pub(super) fn head(from: &mut Reader<'_>) -> Result<Option<(u32, u64)>, Malformed> {
    if from.0.first() != Some(&NEWEST) {
        return Ok(None);
    }
    from.byte()?;
    let count = from.narrow("number of calls")?;
    if count > COUNT_MAX {
        return Err(Malformed::Code("number of calls"));
    }
    Ok(Some((count, from.number()?)))
}

/// Reads a record of either kind.
///
/// # Errors
///
/// As [`decode`].
pub(crate) fn decode_packed(bytes: &[u8]) -> Result<Packed, Malformed> {
    let mut from = Reader(bytes);
    match head(&mut from)? {
        None => decode(bytes).map(Packed::Call),
        Some((count, span_ns)) => match decode(from.0) {
            Ok(call) => Ok(Packed::Summary(Summary { call, count, span_ns })),
            // Within a summary nothing but a call has a place.
            Err(Malformed::Version(version)) if version > VERSION => {
                Err(Malformed::Code("content"))
            }
            Err(error) => Err(error),
        },
    }
}

impl Summary {
    /// The calls, evenly over the time that they took.
    pub(crate) fn calls(&self) -> impl Iterator<Item = ApiCall> {
        let steps = u64::from(self.count.saturating_sub(1)).max(1);
        (0..u64::from(self.count)).map(move |number| {
            let since = u128::from(self.span_ns) * u128::from(number) / u128::from(steps);
            let mut call = self.call.clone();
            call.time = EventTime(call.time.0.saturating_add(since as u64));
            call
        })
    }
}
