//! The Decoder from the outside: conversations as segments in, calls out.

mod frames;
mod hostile;
mod loss;
mod messages;
mod model;
mod random;
mod switch;
mod tcp;
mod websocket;
mod websocket_random;
mod wire;
