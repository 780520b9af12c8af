//! The fields of a message: tag, equals sign, value, separator (FIX tag=value encoding).

use compact_str::CompactString;
use memchr::memchr;

use super::frame::SOH;
use crate::call::PARAMETERS_MAX;
use crate::plain::plain;

/// Fields of a message that are looked at: an order has 20 to 40, a batch of them some hundred.
const FIELDS_MAX: usize = 512;

/// What a message says, as it stands there. It holds credentials, so it is never printed.
#[derive(Clone, Copy, Default)]
pub(super) struct Fields<'m> {
    /// 35: MsgType.
    pub(super) kind: &'m [u8],
    /// 8: BeginString.
    pub(super) version: &'m [u8],
    /// 34: MsgSeqNum.
    pub(super) sequence: Option<u64>,
    /// 36: NewSeqNo.
    pub(super) next_sequence: Option<u64>,
    /// 43: PossDupFlag.
    pub(super) again: bool,
    /// 141: ResetSeqNumFlag.
    pub(super) resets: bool,
    /// 45: RefSeqNum.
    pub(super) of_sequence: Option<u64>,
    /// 49 and 56: SenderCompID, TargetCompID.
    pub(super) sender: &'m [u8],
    pub(super) target: &'m [u8],
    /// 553: Username.
    pub(super) user: &'m [u8],
    /// 11: ClOrdID.
    pub(super) client_order: &'m [u8],
    /// 41: OrigClOrdID.
    pub(super) first_order: &'m [u8],
    /// 37: OrderID.
    pub(super) order: &'m [u8],
    /// 112, 262, 263 and so on: the id of a request that is no order's.
    pub(super) request: &'m [u8],
    /// 379: BusinessRejectRefID.
    pub(super) rejected: &'m [u8],
    /// 55: Symbol.
    pub(super) symbol: &'m [u8],
    /// 1: Account.
    pub(super) account: &'m [u8],
    /// 38: OrderQty, or 152: CashOrderQty.
    pub(super) quantity: &'m [u8],
    /// 39: OrdStatus.
    pub(super) status: &'m [u8],
    /// 58: Text.
    pub(super) text: &'m [u8],
    /// 103, 102, 373, 380 or 1409: why not.
    pub(super) reason: Option<u32>,
    /// 73: NoOrders.
    pub(super) orders: Option<u32>,
    /// A signature, as RawData.
    pub(super) signed: bool,
    /// Tags of its body, each once, in order of appearance.
    tags: [u16; PARAMETERS_MAX],
    tag_count: usize,
}

impl<'m> Fields<'m> {
    /// Of a message without its trailer. The first of a tag counts. `lists_tags`: they are wanted.
    pub(super) fn read(mut text: &'m [u8], lists_tags: bool) -> Fields<'m> {
        let mut fields = Fields::default();
        // The next field is so long, whatever stands in it.
        let mut data_bytes = None;
        for _ in 0..FIELDS_MAX {
            let Some(equals) = memchr(b'=', &text[..text.len().min(8)]) else { break };
            let tag = number(&text[..equals]).and_then(|tag| u16::try_from(tag).ok());
            let rest = &text[equals + 1..];
            let counted = data_bytes.take().filter(|count| rest.get(*count) == Some(&SOH));
            let end = counted.or_else(|| memchr(SOH, rest));
            let value = &rest[..end.unwrap_or(rest.len())];
            text = end.map_or(&[][..], |end| &rest[end + 1..]);
            let Some(tag) = tag else { continue };
            if matches!(
                tag,
                90 | 93
                    | 95
                    | 212
                    | 348
                    | 350
                    | 352
                    | 354
                    | 356
                    | 358
                    | 360
                    | 362
                    | 364
                    | 1401
                    | 1403
            ) {
                // Lengths of encrypted, signed, raw, XML and encoded data.
                data_bytes = number(value).and_then(|count| usize::try_from(count).ok());
            }
            if lists_tags {
                fields.list(tag);
            }
            fields.take(tag, value);
        }
        fields
    }

    /// Tags of its body: 32 at most.
    pub(super) fn tags(&self) -> &[u16] {
        &self.tags[..self.tag_count]
    }

    fn list(&mut self, tag: u16) {
        let is_room = self.tag_count < PARAMETERS_MAX;
        if is_room && !is_of_header(tag) && !self.tags().contains(&tag) {
            self.tags[self.tag_count] = tag;
            self.tag_count += 1;
        }
    }

    fn take(&mut self, tag: u16, value: &'m [u8]) {
        let place = match tag {
            1 => &mut self.account,
            8 => &mut self.version,
            11 => &mut self.client_order,
            35 => &mut self.kind,
            37 => &mut self.order,
            38 | 152 => &mut self.quantity,
            39 => &mut self.status,
            41 => &mut self.first_order,
            49 => &mut self.sender,
            55 => &mut self.symbol,
            56 => &mut self.target,
            58 => &mut self.text,
            112 | 262 | 320 | 390 | 568 | 584 | 710 | 923 | 1346 => &mut self.request,
            379 => &mut self.rejected,
            553 => &mut self.user,
            34 => return keep(&mut self.sequence, number(value)),
            36 => return keep(&mut self.next_sequence, number(value)),
            45 => return keep(&mut self.of_sequence, number(value)),
            73 => return keep(&mut self.orders, small(value)),
            102 | 103 | 373 | 380 | 1409 => return keep(&mut self.reason, small(value)),
            43 => {
                self.again = value == b"Y";
                return;
            }
            141 => {
                self.resets = value == b"Y";
                return;
            }
            96 => {
                self.signed = !value.is_empty();
                return;
            }
            _ => return,
        };
        if place.is_empty() {
            *place = value;
        }
    }

    /// The value of a tag that may name a key.
    pub(super) fn named_by(&self, tag: u16) -> &'m [u8] {
        match tag {
            553 => self.user,
            49 => self.sender,
            _ => b"",
        }
    }

    /// Ids of objects, plain ones.
    pub(super) fn object_ids(&self) -> Vec<CompactString> {
        let ids = [self.client_order, self.first_order, self.order];
        ids.into_iter().filter(|id| !id.is_empty()).filter_map(object_id).collect()
    }
}

/// Standard header and trailer (FIX 5.0 SP2 and FIXT 1.1): they are of the session.
fn is_of_header(tag: u16) -> bool {
    matches!(
        tag,
        8 | 9 | 10 | 34 | 35 | 43 | 49 | 50 | 52 | 56 | 57 | 89 | 90 | 91 | 93 | 97 | 115 | 116
            | 122 | 128 | 129 | 142..=145 | 212 | 213 | 347 | 369 | 370 | 627..=630
            | 1128 | 1129 | 1156
    )
}

/// An id is what a client or exchange made up: letters, digits and a few marks.
fn object_id(raw: &[u8]) -> Option<CompactString> {
    let mark = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_/:.".contains(byte);
    let shows = (1..=64).contains(&raw.len()) && raw.iter().all(mark);
    if shows { CompactString::from_utf8(raw).ok() } else { None }
}

/// Text that may be shown.
pub(super) fn shown(raw: &[u8]) -> Option<CompactString> {
    if raw.is_empty() { None } else { plain(raw) }
}

fn keep<T>(place: &mut Option<T>, value: Option<T>) {
    if place.is_none() {
        *place = value;
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    let plain = (1..=19).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    plain.then(|| digits.iter().fold(0, |value, digit| value * 10 + u64::from(digit - b'0')))
}

fn small(digits: &[u8]) -> Option<u32> {
    number(digits).and_then(|value| u32::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_logon_and_an_order() {
        let text = "8=FIXT.1.1|9=99|35=A|34=1|49=DESK|56=SPOT|95=5|96=a|b=c|553=key|141=Y|";
        let text = text.replace('|', "\u{1}");
        let fields = Fields::read(text.as_bytes(), true);
        assert_eq!(
            (fields.kind, fields.user, fields.target),
            (&b"A"[..], &b"key"[..], &b"SPOT"[..])
        );
        assert!(fields.signed && fields.resets);
        let text =
            "8=FIX.4.4|9=1|35=D|34=7|11=c-1|55=BTCUSDT|38=0.5|1=ACC|43=Y|".replace('|', "\u{1}");
        let fields = Fields::read(text.as_bytes(), true);
        assert_eq!((fields.sequence, fields.again), (Some(7), true));
        assert_eq!(fields.object_ids(), ["c-1"]);
        assert_eq!((fields.symbol, fields.quantity), (&b"BTCUSDT"[..], &b"0.5"[..]));
    }

    #[test]
    fn hostile_fields_end() {
        let long = b"1=\x01".repeat(100_000);
        Fields::read(&long, true);
        assert_eq!(Fields::read(b"34=99999999999999999999\x0134=5\x01", true).sequence, Some(5));
        assert_eq!(Fields::read(b"95=9999\x0196=x\x0135=0\x01", true).kind, b"0");
        assert_eq!(Fields::read(b"=\x01==\x0135=0\x01", true).kind, b"0");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(
            prop::sample::select(&b"0123459=\x01a"[..]), 0..200)) {
            Fields::read(&bytes, true).object_ids();
        }
    }
}
