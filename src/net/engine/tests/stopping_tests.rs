//! A stop of publishers whose answers come from elsewhere.

use super::*;

/// Closes everybody last, and has them await what never comes.
#[derive(Default)]
struct Unsettled {
    is_settled: bool,
    held: Vec<bool>,
}

impl Application for Unsettled {
    fn handle_upgrade(&mut self, _: ConnectionId, _: &Request<'_>) -> Result<Admission, Refused> {
        Ok(Admission {
            closes_last: true,
            ..ADMISSION
        })
    }

    fn handle_request(
        &mut self,
        _: ConnectionId,
        _: &Request<'_>,
        _: Framing,
        _: &dyn Figures,
    ) -> Decision {
        unreachable!("everybody asks for an upgrade")
    }

    fn handle_message(&mut self, _: ConnectionId, _: Message<'_>, _: &mut dyn Outbox) {}

    fn settle(&mut self, is_held: bool) -> bool {
        self.held.push(is_held);
        self.is_settled
    }

    fn handle_gone(&mut self, _: ConnectionId) {}

    fn close_reason(&self, _: CloseCause, _: u64) -> String {
        String::new()
    }
}

/// An engine that began to stop at the beginning and has ten seconds for it, with a publisher.
fn stopping() -> (Engine<WireEnd, Unsettled, Stopped>, Rc<Wire>) {
    let (limits, timeouts) = (ServerLimits::default(), Timeouts::default());
    let mut engine = Engine::new(Unsettled::default(), Stopped, limits, timeouts, 1);
    let (id, wire) = accept(&mut engine, Timestamp::ZERO);
    wire.sent.borrow_mut().extend_from_slice(UPGRADE.as_bytes());
    engine.handle_ready(id, READABLE, Timestamp::ZERO);
    engine.flush_replies(Timestamp::ZERO);
    assert!(wire.got.take().starts_with(b"HTTP/1.1 101 "));
    engine.shut_down(Duration::from_secs(10), Timestamp::ZERO);
    (engine, wire)
}

/// Whether the publisher is told at `now`.
fn is_told(engine: &mut Engine<WireEnd, Unsettled, Stopped>, wire: &Wire, now: Timestamp) -> bool {
    engine.continue_shutdown(now);
    engine.flush_deliveries(usize::MAX, now);
    wire.got.take().starts_with(&[0x88])
}

#[test]
fn publishers_are_told_when_they_have_their_answers() {
    let (mut engine, wire) = stopping();
    assert!(!is_told(&mut engine, &wire, Timestamp::ZERO));
    engine.application.is_settled = true;
    assert!(is_told(&mut engine, &wire, Timestamp::ZERO));
    assert_eq!(engine.application.held, [false; 2], "nothing is held back");
}

#[test]
fn publishers_that_get_no_answers_are_told_at_half_time() {
    let (mut engine, wire) = stopping();
    assert!(!is_told(&mut engine, &wire, seconds(4)));
    assert_eq!(engine.next_deadline(), Some(seconds(5)));
    assert!(is_told(&mut engine, &wire, seconds(5)));
}
