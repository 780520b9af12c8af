//! Everything about Keywatch that a person would otherwise type: set-up, demo, tests, CI, benches.
//!
//! It is a library as well as a command, so that the tests start the same broker, the same nginx and
//! the same agent as the demo does.
#![expect(clippy::print_stdout, reason = "its commands talk to the person who runs them")]

pub mod agent;
pub mod bench;
pub mod build;
pub mod cases;
pub mod chaos;
pub mod ci;
pub mod cluster;
pub mod conformance;
pub mod demo;
pub mod disk;
pub mod ebpf;
pub mod encode;
pub mod eval;
pub mod exchange;
pub mod fuzz;
pub mod http;
pub mod kafka;
pub mod maven;
pub mod network;
pub mod nginx;
pub mod openssl;
pub mod passive;
pub mod process;
pub mod setup;
pub mod suite;
