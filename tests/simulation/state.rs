//! What a process leaves to another program that takes its place.

use std::cell::RefCell;
use std::io::Write;
use std::rc::Rc;

use crieur::handover::Outgoing;
use crieur::net::engine::Engine;

use crate::clock::VirtualClock;
use crate::wire::{Socket, Wire};
use crate::witness::Witness;

/// What a successor must know, and its connections, in order.
pub(crate) fn write(
    engine: &mut Engine<Socket, Witness, VirtualClock>,
) -> (Vec<u8>, Vec<Rc<RefCell<Wire>>>) {
    let mut bytes = Vec::new();
    let mut state = Outgoing::begin(&mut bytes as &mut dyn Write).expect("memory");
    engine.save(&mut state).expect("memory");
    state.finish().expect("memory");
    (bytes, engine.transports().map(Socket::wire).collect())
}
