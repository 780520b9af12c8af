//! What clients of OAuth 2.0 ask for: where their answers go, and which codes are tried (RFC 6749, RFC
//! 8628).

use std::hash::BuildHasher;

use foldhash::quality::FixedState;
use smallvec::SmallVec;

use super::Slots;
use crate::call::SignatureId;

/// Clients with a redirect at once, 60 B each: an exchange has some thousand applications.
const CLIENTS_MAX: usize = 8_192;
/// Addresses that type codes, and devices that wait, at once; 200 and 40 B each.
const TYPISTS_MAX: usize = 8_192;
const DEVICES_MAX: usize = 16_384;

/// Redirects of one client; with more it makes them up, and one more says nothing.
const REDIRECTS: usize = 8;
/// Times that a redirect was taken before it is the client's.
const SHOWN_TIMES: u32 = 5;

/// How long codes of one address are counted together, seconds: a code counts for 15 to 30 minutes (RFC
/// 8628, 3.2).
const WINDOW_S: u64 = 900;
/// Different codes that are told apart.
const CODES_MAX: usize = 32;

/// Devices that were let in before it is clear where that is done; of so many one may be let in from
/// elsewhere.
const LET_IN_MIN: u32 = 20;
const ELSEWHERE_PART: u32 = 20;

/// How a redirect stands to those of its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is one of them.
    Known,
    /// It was never met, and which ones are the client's is not clear.
    New,
    /// It is none of them.
    Odd,
}

/// State of all of them.
pub(crate) struct Grants {
    clients: Slots<u64, Redirects>,
    typists: Slots<[u8; 16], Codes>,
    devices: Slots<u64, Device>,
    /// Devices by the codes that they show to a person.
    shown: Slots<u64, u64>,
    /// Devices that were let in, and those of them from another network than theirs.
    let_in: u32,
    let_in_elsewhere: u32,
}

#[derive(Clone, Copy, Default)]
struct Redirects {
    known: [u32; REDIRECTS],
    times: u32,
}

/// Codes that one address tried.
#[derive(Default)]
struct Codes {
    since_s: u64,
    tried: SmallVec<[u32; 4]>,
    refused: u16,
    is_told: bool,
}

/// One that asks whether it was let in.
#[derive(Clone, Copy, Default)]
struct Device {
    minute: u64,
    asked: u16,
    is_told: bool,
    /// The network in which its code was typed.
    typed_in: Option<u64>,
}

impl Grants {
    pub(crate) fn new() -> Grants {
        Grants {
            clients: Slots::new(CLIENTS_MAX, |it| it.times >= SHOWN_TIMES),
            typists: Slots::new(TYPISTS_MAX, |it| it.tried.len() > 1),
            devices: Slots::new(DEVICES_MAX, |device| device.typed_in.is_some()),
            shown: Slots::new(DEVICES_MAX, |_| false),
            let_in: 0,
            let_in_elsewhere: 0,
        }
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.clients.bytes() + self.typists.bytes() + self.devices.bytes() + self.shown.bytes()
    }

    pub(crate) fn evicted(&self) -> u64 {
        self.clients.evicted + self.typists.evicted + self.devices.evicted + self.shown.evicted
    }

    /// A client wants its answer there, or it was sent there. One that was taken is learnt.
    pub(crate) fn redirect(&mut self, client: SignatureId, to: &str, is_taken: bool) -> Standing {
        let client = self.clients.find_or_insert(client.0, Redirects::default);
        let mark = (FixedState::with_seed(0).hash_one(to) as u32).max(1);
        if client.known.contains(&mark) {
            client.times = client.times.saturating_add(u32::from(is_taken));
            return Standing::Known;
        }
        let is_shown = client.times >= SHOWN_TIMES && client.known[REDIRECTS - 1] == 0;
        if is_taken && let Some(free) = client.known.iter_mut().find(|held| **held == 0) {
            *free = mark;
            client.times = client.times.saturating_add(1);
        }
        if is_shown { Standing::Odd } else { Standing::New }
    }

    /// An address tried a code; how many different ones it tried, and how many of them were refused, when
    /// that is news.
    pub(crate) fn code(
        &mut self,
        address: [u8; 16],
        code: SignatureId,
        is_refused: bool,
        now_s: u64,
        is_many: fn(usize, u16) -> bool,
    ) -> Option<usize> {
        let codes = self.typists.find_or_insert(address, Codes::default);
        if now_s.abs_diff(codes.since_s) >= WINDOW_S {
            *codes = Codes { since_s: now_s, ..Codes::default() };
        }
        let mark = code.0 as u32;
        if !codes.tried.contains(&mark) && codes.tried.len() < CODES_MAX {
            codes.tried.push(mark);
            codes.refused += u16::from(is_refused);
        }
        let news = !codes.is_told && is_many(codes.tried.len(), codes.refused);
        codes.is_told |= news;
        news.then_some(codes.tried.len())
    }

    /// A device was given a code, and one to show to a person.
    pub(crate) fn shows(&mut self, device: SignatureId, code: SignatureId) {
        *self.shown.find_or_insert(code.0, || device.0) = device.0;
    }

    /// Somebody typed that code and was heard.
    pub(crate) fn typed(&mut self, code: SignatureId, network: Option<u64>) {
        let (Some(device), Some(network)) = (self.shown.find(&code.0).copied(), network) else {
            return;
        };
        let device = self.devices.find_or_insert(device, Device::default);
        device.typed_in.get_or_insert(network);
    }

    /// A device got its tokens. Tells when its code was typed in another network, and whether that is
    /// unheard of.
    pub(crate) fn let_in(&mut self, device: SignatureId, network: Option<u64>) -> Option<bool> {
        let device = self.devices.find(&device.0)?;
        let (typed_in, network) = (device.typed_in.take()?, network?);
        let is_elsewhere = typed_in != network;
        let is_rare =
            self.let_in >= LET_IN_MIN && self.let_in_elsewhere <= self.let_in / ELSEWHERE_PART;
        self.let_in = self.let_in.saturating_add(1);
        self.let_in_elsewhere = self.let_in_elsewhere.saturating_add(u32::from(is_elsewhere));
        is_elsewhere.then_some(is_rare)
    }

    /// A device asks whether it was let in; how often it did in this minute, when that becomes too often.
    pub(crate) fn poll(&mut self, code: SignatureId, now_s: u64, max: u16) -> Option<u16> {
        let device = self.devices.find_or_insert(code.0, Device::default);
        let minute = now_s / 60;
        if device.minute != minute {
            *device = Device { minute, asked: 0, ..*device };
        }
        device.asked = device.asked.saturating_add(1);
        let news = !device.is_told && device.asked > max;
        device.is_told |= news;
        news.then_some(device.asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_the_redirects_that_were_taken() {
        let mut grants = Grants::new();
        let desk = SignatureId(7);
        let mut ask = |client, to: &str, is_taken| grants.redirect(client, to, is_taken);
        assert_eq!(ask(desk, "https://desk.example/cb", true), Standing::New);
        (0..4).for_each(|_| {
            assert_eq!(ask(desk, "https://desk.example/cb", true), Standing::Known);
        });
        assert_eq!(ask(desk, "https://evil.example/cb", false), Standing::Odd);
        assert_eq!(ask(desk, "https://evil.example/cb", true), Standing::Odd, "not taken before");
        assert_eq!(ask(desk, "https://evil.example/cb", true), Standing::Known, "said once");
        assert_eq!(ask(SignatureId(8), "https://evil.example/cb", true), Standing::New);
        for n in 0..20 {
            grants.redirect(desk, &format!("https://{n}.example"), true);
        }
        let more = grants.redirect(desk, "https://more.example", true);
        assert_eq!(more, Standing::New, "it makes them up");
    }

    #[test]
    fn what_is_held_is_bounded() {
        let mut grants = Grants::new();
        for n in 0..100_000_u64 {
            let mut address = [0; 16];
            address[..8].copy_from_slice(&n.to_le_bytes());
            grants.redirect(SignatureId(n), "https://x", true);
            grants.code(address, SignatureId(n), true, n, |_, _| false);
            grants.code([9; 16], SignatureId(n), true, 0, |_, _| false);
            grants.poll(SignatureId(n), n, 9);
            grants.shows(SignatureId(n), SignatureId(n));
            grants.typed(SignatureId(n), Some(n));
        }
        assert!(grants.bytes() < 4 << 20, "{}", grants.bytes());
    }
}
