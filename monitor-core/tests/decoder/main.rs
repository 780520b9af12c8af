//! The Decoder from the outside: conversations as segments in, calls out.

mod frames;
mod hostile;
mod http2;
mod http2_random;
mod loss;
mod messages;
mod model;
mod random;
mod switch;
mod tcp;
mod wire;
