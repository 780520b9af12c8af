//! The Decoder from the outside: conversations as segments in, calls out.

mod canaries;
mod faults;
mod frames;
mod grpc_web;
mod hostile;
mod http2;
mod http2_random;
mod login;
mod loss;
mod messages;
mod model;
mod order;
mod parameters;
mod plain;
mod random;
mod redirects;
mod switch;
mod tcp;
mod tls;
mod websocket;
mod websocket_frames;
mod websocket_random;
mod wire;
