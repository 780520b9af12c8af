//! What a call is sent with, read without taking the rest of it apart.

use monitor_core::call::{FlowId, KeyId};
use monitor_core::time::EventTime;

use super::{Has, Malformed, Reader, VERSION, decode, summary};

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Glance {
    pub(crate) time: EventTime,
    pub(crate) flow: FlowId,
    /// The id that stays longest.
    pub(crate) key: Option<KeyId>,
}

/// Reads it, of a summary as of a call. What stands behind the key is not looked at.
///
/// # Errors
///
/// When the bytes up to there are no call.
pub(crate) fn glance(bytes: &[u8]) -> Result<Glance, Malformed> {
    let mut from = Reader(bytes);
    summary::head(&mut from)?;
    let call = from.0;
    match from.byte()? {
        VERSION => {}
        other => return Err(Malformed::Version(other)),
    }
    let has = Has::from_bits_retain(from.number()?);
    let time = EventTime(u64::from_le_bytes(from.array()?));
    let flow = FlowId(u64::from_le_bytes(from.array()?));
    if !has.contains(Has::KEY) {
        return Ok(Glance { time, flow, key: None });
    }
    if has.contains(Has::FORMER_IDS) {
        // They stand at the end, and only for a time after the secret has changed.
        let key = decode(call)?.key.map(|key| key.lasting());
        return Ok(Glance { time, flow, key });
    }
    for is_four in [Has::CLIENT_V4, Has::SERVER_V4] {
        from.endpoint(has.contains(is_four))?;
    }
    // Protocol and operation.
    from.array::<2>()?;
    for text in [Has::SERVER_NAME, Has::JA4, Has::PROCESS, Has::CONTAINER] {
        from.pass_text(has.contains(text))?;
    }
    from.pass_number(has.contains(Has::PID))?;
    if has.contains(Has::REQUEST) {
        // Method and target; the path has a place of its own where it is no part of the target.
        from.pass_text(true)?;
        from.pass_text(true)?;
        let is_apart = from.number()? == 0;
        from.pass_text(is_apart)?;
        from.pass_text(has.contains(Has::HOST))?;
        from.pass_text(has.contains(Has::USER_AGENT))?;
        from.number()?;
    }
    if has.contains(Has::RESPONSE) {
        from.pass_number(has.contains(Has::STATUS))?;
        from.number()?;
    }
    from.pass_number(has.contains(Has::LATENCY))?;
    let key = Some(KeyId(u128::from_le_bytes(from.array()?)));
    Ok(Glance { time, flow, key })
}

impl Reader<'_> {
    fn pass_text(&mut self, is_there: bool) -> Result<(), Malformed> {
        if is_there {
            let length = usize::try_from(self.number()?).map_err(|_| Malformed::Short)?;
            self.bytes(length)?;
        }
        Ok(())
    }

    fn pass_number(&mut self, is_there: bool) -> Result<(), Malformed> {
        if is_there {
            self.number()?;
        }
        Ok(())
    }
}
