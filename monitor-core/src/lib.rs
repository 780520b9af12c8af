//! The sans-IO core of Keywatch.
//!
//! Two state machines carry the product. The [`Decoder`](decode::Decoder) turns [`Input`](input::Input)
//! (captured bytes with a time, a flow and a direction) into [`ApiCall`](call::ApiCall) records; the
//! [`Engine`](engine::Engine) turns those into [`Alert`](alert::Alert)s. Neither reads a clock, the
//! network, a disk or randomness: time and choice are arguments, so that the same input gives the
//! same output, live or replayed.
#![forbid(unsafe_code)]

pub mod alert;
mod ascii;
mod baseline;
pub mod call;
pub mod connection;
pub mod decode;
mod detect;
pub mod engine;
mod flows;
pub mod identity;
mod incident;
pub mod input;
mod json;
pub mod limits;
mod plain;
pub mod policy;
pub mod time;
