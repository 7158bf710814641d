//! The shell: the only part that knows sockets.
//!
//! | a connection ends | by | what its peer sees |
//! | --- | --- | --- |
//! | `close` | the application, or a stop | all that is queued, then a Close; its own Close is awaited |
//! | `fail` | a broken rule, a late message | all that is queued, then a Close; nothing is read any more |
//! | `cut_off` | a full queue, memory | the frame that is half written, then a Close |
//! | `respond` | the last answer to a request | the answer, then the end of file |
//! | `leave` | silence between two requests | the end of file |
//! | `end` | the peer's end of file, an error | what is queued, if it still reads |
//! | `drop_at_once` | places that others need | what is queued, as far as it can be written at once |

pub mod connection;
pub mod connections;
mod context;
pub mod engine;
mod eviction;
#[doc(hidden)]
pub mod fuzzing;
pub mod listener;
mod places;
pub mod probe;
pub mod protocol;
mod requests;
mod schedule;
pub mod server;
mod shell;
mod shutdown;
pub mod socket;
mod socket_file;
pub mod throttle;
pub mod timers;
pub mod transport;
mod turn;
mod writer;
