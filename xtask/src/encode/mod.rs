//! Small encoders of what clients and servers send, for benches and fuzz seeds.

pub mod fix;
pub mod http2;
pub mod websocket;
