//! RFC 6455 and HTTP: what the bytes of a connection must be, and when it ends.

mod closing;
mod frames;
mod handshake;
mod heartbeat;
mod requests;
mod short_reads;
