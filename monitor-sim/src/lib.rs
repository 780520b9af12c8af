//! A simulated exchange: calls of thousands of keys in order of time, and attacks of which the truth is
//! known. No IO, no clock: the same seed gives the same calls.
//!
//! What the figures behind it are, and where they come from, stands beside each: [`Role`] for clients,
//! [`fleet`] for what moves everybody, [`Kind`] for attacks. Detectors are no part of their choice.
#![forbid(unsafe_code)]

mod attack;
mod client;
mod draft;
pub mod fleet;
mod ledger;
mod names;
mod phases;
mod random;
mod truth;
mod world;

pub use attack::Kind;
pub use client::Role;
pub use truth::{Span, Truth};
pub use world::{Plan, World};

/// Nanoseconds.
pub(crate) const SECOND: u64 = 1_000_000_000;
pub(crate) const MINUTE: u64 = 60 * SECOND;
pub(crate) const HOUR: u64 = 60 * MINUTE;
/// Nanoseconds of a day.
pub const DAY: u64 = 24 * HOUR;
/// 2026-11-02T00:00:00Z, a Monday.
pub const START: u64 = 1_793_577_600 * SECOND;
