//! The project itself: what its sources may name, what its documents say of them, and its version.

mod circles;
mod handover;
mod layering;
mod references;
mod sources;
mod versions;
