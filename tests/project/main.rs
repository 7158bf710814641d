//! The project itself: what its sources may name, and what its documents say of them.

mod circles;
mod handover;
mod layering;
mod references;
mod sources;
