//! What both protocols do with bytes, below both: what waits to be written, what was read and isn't used
//! up yet, what a connection makes the process keep, and how its byte stream is ended.
//!
//! Knows neither frames nor requests, and no sockets.

mod backlog;
pub mod buffers;
pub mod carried;
pub mod input;
pub mod lingering;
pub mod pinned;
pub mod send_queue;
pub mod shared;
