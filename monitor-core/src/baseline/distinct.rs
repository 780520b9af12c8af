//! How many different things: exactly while they are few, estimated when they are many.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smallvec::SmallVec;

/// Things counted one by one: beyond this the estimate takes no more room (32 * 8 bytes).
const EXACT_MAX: usize = 32;

/// 2^8 registers of one byte: an error of 1.04 / sqrt(256) = 6.5 % (Flajolet et al., 2007).
const REGISTER_BITS: u32 = 8;
const REGISTERS: usize = 1 << REGISTER_BITS;

/// A set that can be counted. Hashes are 64 bits and well mixed.
#[derive(Debug)]
pub(crate) enum Distinct {
    Few(SmallVec<[u64; 4]>),
    Many(Box<[u8; REGISTERS]>),
}

impl Default for Distinct {
    fn default() -> Distinct {
        Distinct::Few(SmallVec::new())
    }
}

/// As it lies in a snapshot: hashes, and registers where there are any.
impl Serialize for Distinct {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (few, many): (&[u64], &[u8]) = match self {
            Distinct::Few(few) => (few, &[]),
            Distinct::Many(registers) => (&[], &registers[..]),
        };
        (few, many).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Distinct {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Distinct, D::Error> {
        let (mut few, many) = <(Vec<u64>, Vec<u8>)>::deserialize(from)?;
        few.truncate(EXACT_MAX);
        let registers = many.into_boxed_slice().try_into();
        Ok(registers.map_or_else(|_| Distinct::Few(few.into()), Distinct::Many))
    }
}

impl Distinct {
    pub(crate) fn insert(&mut self, hash: u64) {
        match self {
            Distinct::Few(few) if few.contains(&hash) => {}
            Distinct::Few(few) if few.len() < EXACT_MAX => few.push(hash),
            Distinct::Few(few) => {
                let mut registers = Box::new([0; REGISTERS]);
                few.iter().for_each(|old| note(&mut registers, *old));
                note(&mut registers, hash);
                *self = Distinct::Many(registers);
            }
            Distinct::Many(registers) => note(registers, hash),
        }
    }

    /// True when surely in the set; an estimated set never says so.
    pub(crate) fn contains(&self, hash: u64) -> bool {
        match self {
            Distinct::Few(few) => few.contains(&hash),
            Distinct::Many(_) => false,
        }
    }

    pub(crate) fn count(&self) -> u64 {
        match self {
            Distinct::Few(few) => few.len() as u64,
            Distinct::Many(registers) => estimate(registers),
        }
    }

    /// Bytes on the heap.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Distinct::Few(few) if few.spilled() => few.capacity() * 8,
            Distinct::Few(_) => 0,
            Distinct::Many(_) => REGISTERS,
        }
    }
}

fn note(registers: &mut [u8; REGISTERS], hash: u64) {
    let register = &mut registers[(hash >> (64 - REGISTER_BITS)) as usize];
    let rank = (hash << REGISTER_BITS | 1 << (REGISTER_BITS - 1)).leading_zeros() as u8 + 1;
    *register = (*register).max(rank);
}

/// HyperLogLog with linear counting for small sets (Flajolet et al., 2007, figure 3).
fn estimate(registers: &[u8; REGISTERS]) -> u64 {
    let m = REGISTERS as f64;
    let sum: f64 = registers.iter().map(|rank| (-f64::from(*rank)).exp2()).sum();
    let raw = 0.7213 / (1.0 + 1.079 / m) * m * m / sum;
    let empty = registers.iter().filter(|rank| **rank == 0).count();
    if raw <= 2.5 * m && empty > 0 { (m * (m / empty as f64).ln()) as u64 } else { raw as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_then_close() {
        for n in [1u64, 20, 32, 33, 300, 5_000, 100_000] {
            let mut set = Distinct::default();
            for i in 0..n {
                // Weyl sequence through a mixer: well spread and repeatable.
                let mixed = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let hash = (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                set.insert(hash ^ hash >> 32);
                set.insert(hash ^ hash >> 32);
            }
            let error = (set.count() as f64 / n as f64 - 1.0).abs();
            assert!(error < if n <= 32 { 1e-9 } else { 0.2 }, "{n}: {}", set.count());
            assert!(set.bytes() <= 256);
        }
    }
}
