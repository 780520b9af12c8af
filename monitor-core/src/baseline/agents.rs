//! With what a key is used: families of user agents and of TLS clients, and orders of header fields.

use serde::{Deserialize, Serialize};

use super::marks::{Mark, Marks};
use crate::call::ApiCall;

/// What a key is known to be used with.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Agents {
    /// The mark of agent and TLS client last learnt, which are not looked at again.
    last: u16,
    known: Marks<6>,
    /// Families that came later than the first.
    later: u8,
    later_orders: u8,
    /// A program has some of these, for different kinds of calls.
    orders: Marks<4>,
}

/// What is new of one call; `None` when it is known, or not seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unknown {
    pub(crate) agent: Option<Mark>,
    pub(crate) tls: Option<Mark>,
    /// The order of its header fields.
    pub(crate) order: Option<Mark>,
}

impl Unknown {
    pub(crate) fn is_empty(&self) -> bool {
        !self.is_program() && self.order.is_none()
    }

    /// Agent or TLS client is new: programs have one each.
    pub(crate) fn is_program(&self) -> bool {
        self.agent.is_some() || self.tls.is_some()
    }

    pub(crate) fn marks(&self) -> impl Iterator<Item = Mark> {
        self.agent.into_iter().chain(self.tls).chain(self.order)
    }
}

impl Agents {
    /// What of a call's agent, TLS client and order of fields the key was never used with; remembered when
    /// `learn`.
    pub(crate) fn look(&mut self, call: &ApiCall, learn: bool) -> Unknown {
        let order = self.look_at_order(call, learn);
        Unknown { order, ..self.look_at_program(call, learn) }
    }

    fn look_at_order(&mut self, call: &ApiCall, learn: bool) -> Option<Mark> {
        let order = call.request.as_ref()?.header_order?;
        let mark = Mark::of(("order", order.0));
        let unknown = Some(mark).filter(|mark| !self.orders.has(*mark));
        if learn {
            let is_later = unknown.is_some() && !self.orders.is_empty();
            self.orders.add(mark);
            self.later_orders = self.later_orders.saturating_add(u8::from(is_later));
        }
        unknown
    }

    fn look_at_program(&mut self, call: &ApiCall, learn: bool) -> Unknown {
        let print = Mark::of(print(call)).number();
        if print == self.last {
            return Unknown::default();
        }
        let (agent, tls) = (user_agent(call), call.flow.ja4.as_deref());
        let unknown = Unknown {
            agent: agent.map(agent_family).filter(|mark| !self.known.has(*mark)),
            tls: tls.map(tls_family).filter(|mark| !self.known.has(*mark)),
            order: None,
        };
        let first = self.known.is_empty();
        if learn {
            self.last = print;
            agent.map(agent_family).map(|mark| self.known.add(mark));
            tls.map(tls_family).map(|mark| self.known.add(mark));
            if !first && !unknown.is_empty() {
                self.later = self.later.saturating_add(1);
            }
        }
        unknown
    }

    /// True before the first call that went well.
    pub(crate) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// True before the first of them whose order of fields was seen; of a key that was known before orders
    /// were told, long after its first call.
    pub(crate) fn has_no_order(&self) -> bool {
        self.orders.is_empty()
    }

    /// The chances that an hour of use brings a new family, and a new order, by Laplace's rule of
    /// succession.
    pub(crate) fn chances_of_new(&self, hours: u16) -> (f64, f64) {
        let chance = |later: u8| (f64::from(later) + 1.0) / (f64::from(hours) + 2.0);
        (chance(self.later), chance(self.later_orders))
    }

    /// Families and orders that it is known with.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.known.len(), self.orders.len())
    }
}

/// A hash of user agent and JA4 together.
pub(crate) fn print(call: &ApiCall) -> u32 {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = foldhash::fast::FixedState::with_seed(0).build_hasher();
    for part in [user_agent(call), call.flow.ja4.as_deref()] {
        // With its length, so that none is another's beginning.
        let part = part.unwrap_or_default();
        hasher.write(part.as_bytes());
        hasher.write_usize(part.len());
    }
    hasher.finish() as u32
}

/// The family of a call's agent and TLS client together, as a number.
pub(crate) fn family(call: &ApiCall) -> u16 {
    let agent = user_agent(call).map(agent_family).map(Mark::number);
    Mark::of((agent, call.flow.ja4.as_deref().map(tls_family).map(Mark::number))).number()
}

fn user_agent(call: &ApiCall) -> Option<&str> {
    let agent = call.request.as_ref()?.user_agent.as_deref()?;
    (!agent.is_empty()).then_some(agent)
}

/// An agent without its versions: a library that is updated stays what it is.
fn agent_family(agent: &str) -> Mark {
    let mut letters = [0u8; 64];
    let mut len = 0;
    for byte in agent.bytes().filter(|byte| byte.is_ascii_alphabetic()) {
        if len == letters.len() {
            break;
        }
        letters[len] = byte.to_ascii_lowercase();
        len += 1;
    }
    Mark::of(("agent", &letters[..len]))
}

/// Protocol, versions and ciphers, the first two parts of a JA4 (FoxIO's technical details); the
/// number of extensions and their hash change with session tickets and padding.
fn tls_family(ja4: &str) -> Mark {
    let bytes = ja4.as_bytes();
    let (versions, rest) = bytes.split_at(bytes.len().min(6));
    let ciphers = rest.split(|byte| *byte == b'_').nth(1).unwrap_or(rest);
    Mark::of(("tls", versions, ciphers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_make_no_family() {
        assert_eq!(agent_family("ccxt/4.2.1 (node 20)"), agent_family("ccxt/4.3.0 (node 22)"));
        assert_ne!(agent_family("ccxt/4.2.1"), agent_family("python-requests/2.31"));
        let ja4 = |text: &str| tls_family(text);
        assert_eq!(
            ja4("t13d1516h2_8daaf6152771_02713d6af862"),
            ja4("t13d1517h2_8daaf6152771_b1ff8ab2d16f")
        );
        assert_ne!(
            ja4("t13d1516h2_8daaf6152771_02713d6af862"),
            ja4("t13d1516h2_174735a34e8d_02713d6af862")
        );
        ja4("");
        ja4("t13");
        ja4("täglich_ä");
    }
}
