//! The whole of it, as an iterator.

use std::collections::VecDeque;

use monitor_core::call::{ApiCall, KeyId};

use crate::attack::{Kind, Planner};
use crate::client::Client;
use crate::fleet::Fleet;
use crate::phases::Phase;
use crate::random::{Random, mixed};
use crate::truth::Truth;
use crate::{DAY, HOUR, MINUTE, START};

/// What to simulate.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The same seed gives the same world.
    pub seed: u64,
    /// Customers' keys.
    pub keys: u32,
    /// How long.
    pub days: u32,
    /// Attacks begin after so many days.
    pub quiet_days: u32,
    /// What attackers do; each once, at times spread over the days after the quiet ones.
    pub attacks: Vec<Kind>,
}

/// Calls in order of time. Holds the customers and one minute of calls.
pub struct World {
    random: Random,
    fleet: Fleet,
    clients: Vec<Client>,
    phases: Vec<Phase>,
    truths: Vec<Truth>,
    growing: Vec<usize>,
    now: u64,
    end: u64,
    minute: VecDeque<ApiCall>,
    scratch: Vec<ApiCall>,
}

impl World {
    /// With key ids that are a hash of the number of the key.
    pub fn new(plan: &Plan) -> World {
        World::named(plan, &|n| {
            KeyId(u128::from(mixed(n)) << 64 | u128::from(mixed(n ^ 0xa5a5_5a5a)))
        })
    }

    /// With key ids that `name` gives to each number: those of credentials made from it.
    pub fn named(plan: &Plan, name: &dyn Fn(u64) -> KeyId) -> World {
        let mut random = Random::new(plan.seed);
        let fleet = Fleet::new(&mut random, plan.days);
        let clients: Vec<Client> = (0..plan.keys)
            .map(|n| Client::new(n, name(u64::from(n)), plan.days, &mut random))
            .collect();
        let end = START + u64::from(plan.days) * DAY;
        let mut planner = Planner {
            taken: vec![false; clients.len()],
            clients: &clients,
            random: &mut random,
            name,
            next_other: u64::from(u32::MAX),
            phases: Vec::new(),
            truths: Vec::new(),
            growing: Vec::new(),
            until: end,
        };
        let from = START + u64::from(plan.quiet_days) * DAY;
        // What goes on for days begins in the first half.
        let room = (end - 2 * HOUR).saturating_sub(from).max(HOUR);
        for kind in &plan.attacks {
            let is_long = matches!(kind, Kind::PhishedThenPumped | Kind::MassLeak);
            let room = if is_long { room * 3 / 7 } else { room };
            let at = from + planner.random.below(room);
            planner.add(*kind, at);
        }
        let (phases, truths, growing) = (planner.phases, planner.truths, planner.growing);
        World {
            random,
            fleet,
            clients,
            phases,
            truths,
            growing,
            now: START,
            end,
            minute: VecDeque::new(),
            scratch: Vec::new(),
        }
    }

    /// What really happens, in the order of the plan.
    pub fn truths(&self) -> &[Truth] {
        &self.truths
    }

    /// Customers' keys, with their role.
    pub fn roles(&self) -> impl Iterator<Item = (KeyId, crate::Role)> + '_ {
        self.clients.iter().map(|client| (client.id, client.role))
    }

    fn next_minute(&mut self) {
        let now = self.now;
        let load = self.fleet.load(now);
        for (n, client) in self.clients.iter_mut().enumerate() {
            // A patient attacker: 2 % more each day.
            let boost = if self.growing.contains(&n) {
                1.02f64.powf((now - START) as f64 / DAY as f64)
            } else {
                1.0
            };
            client.minute(now, load, boost, &self.fleet, &mut self.random, &mut self.scratch);
        }
        for phase in &mut self.phases {
            phase.minute(now, &mut self.clients, &self.fleet, &mut self.random, &mut self.scratch);
        }
        self.scratch.sort_by_key(|call| call.time);
        self.minute.extend(self.scratch.drain(..));
        self.now += MINUTE;
    }
}

impl Iterator for World {
    type Item = ApiCall;

    fn next(&mut self) -> Option<ApiCall> {
        while self.minute.is_empty() {
            if self.now >= self.end {
                return None;
            }
            self.next_minute();
        }
        self.minute.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(seed: u64) -> Plan {
        Plan { seed, keys: 120, days: 3, quiet_days: 1, attacks: Kind::ALL.to_vec() }
    }

    #[test]
    fn the_same_seed_gives_the_same_calls_in_order_of_time() {
        let calls: Vec<ApiCall> = World::new(&plan(7)).collect();
        assert!(calls.len() > 50_000, "{}", calls.len());
        assert!(calls.is_sorted_by_key(|call| call.time));
        assert!(calls == World::new(&plan(7)).collect::<Vec<_>>());
        let other: Vec<ApiCall> = World::new(&plan(8)).take(1000).collect();
        assert!(calls[..1000] != other[..]);
    }

    #[test]
    fn every_attack_has_calls_within_its_spans_by_its_keys_or_from_its_clients() {
        let mut world = World::new(&plan(3));
        let truths = world.truths().to_vec();
        // So small a world may have no customer for some attack.
        assert!(truths.len() + 2 >= Kind::ALL.len(), "{}", truths.len());
        let mut seen = vec![0u64; truths.len()];
        let calls: Vec<ApiCall> = world.by_ref().collect();
        for (truth, seen) in truths.iter().zip(&mut seen) {
            let is_part = |call: &&ApiCall| {
                truth.span_at(call.time, 0).is_some()
                    && (call.key.as_ref().is_some_and(|key| truth.keys.contains(&key.id))
                        || truth.clients.contains(&call.client()))
            };
            *seen = calls.iter().filter(is_part).count() as u64;
            let begins = truth.spans[0].start.0;
            assert!(begins >= START + DAY, "{:?} begins before the quiet days end", truth.kind);
        }
        let silent: Vec<Kind> = truths
            .iter()
            .zip(&seen)
            // What comes days later may come after the end of so short a world.
            .filter(|(truth, seen)| **seen == 0 && truth.spans[0].start < truth.spans[0].end)
            .map(|(truth, _)| truth.kind)
            .collect();
        assert_eq!(silent, []);
    }

    #[test]
    fn nobody_outside_of_attacks_uses_an_attackers_address() {
        let mut world = World::new(&plan(5));
        let truths = world.truths().to_vec();
        for call in world.by_ref() {
            let is_whole = |truth: &&Truth| truth.keys.len() < 1000;
            let theirs = |truth: &&Truth| truth.clients.contains(&call.client());
            for truth in truths.iter().filter(is_whole).filter(theirs) {
                let own = call.key.as_ref().is_none_or(|key| truth.keys.contains(&key.id));
                assert!(own, "{:?} shares its address with a customer", truth.kind);
            }
        }
    }
}
