//! RFC 6455 without sockets: bytes and the time go in, events and bytes come out.
//!
//! Knows no sockets, no clock, no JSON and no subscriptions.

pub mod close;
pub mod close_code;
pub mod error;
pub mod event;
pub mod frame;
#[doc(hidden)]
pub mod fuzzing;
pub mod handshake;
mod heartbeat;
pub mod mask;
pub mod message;
pub mod session;
