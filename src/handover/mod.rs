//! What a successor must know: the state of a running server as bytes, which one program writes and the next one
//! reads.
//!
//! Knows bytes only. Each type writes and restores itself, in its own module; `save` takes its type apart without
//! `..`, so that a field which is added doesn't compile before somebody has said what becomes of it.
//!
//! A state is a sequence of records, each of numbered members:
//!
//! ```text
//! record:   kind u8 | length u32, little endian | members
//! member:   number << 1 | is_bytes, a varint | a varint, or a length as varint and bytes
//! ```
//!
//! A number that is 0, a time that is `None` and bytes that are empty are left out, and what isn't there reads as these.
//! So a member may be added at any time; none ever changes its number or its meaning. Records and members that aren't
//! known are skipped. Varints are LEB128.
//!
//! Main types: [`Outgoing`] and [`Incoming`] for whole states, [`Members`] and [`Fields`] for what is in a record.

pub mod descriptors;
pub mod file;
pub mod program;
mod record;
pub mod signals;
mod state;

pub use record::{Fields, Malformed, Members, push_varint, take_bytes, take_varint};
pub use state::{Incoming, Outgoing, Record, StateError};
