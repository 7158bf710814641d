//! The hub, and a record of the order in which it is asked for what.

use std::cell::RefCell;
use std::rc::Rc;

use crieur::application::{
    Admission, Application, CloseCause, Decision, Figures, Framing, Message, Outbox, Refused,
    Request,
};
use crieur::id::ConnectionId;
use crieur::routes::Routes;

/// What the hub was asked for.
#[derive(Debug)]
pub(crate) enum Note {
    /// To let somebody in, and whether it did.
    Asked(ConnectionId, bool),
    Heard(ConnectionId, Vec<u8>, bool),
    Gone(ConnectionId),
}

/// What the engine drives in place of the routes to the hub.
pub(crate) struct Witness {
    pub(crate) routes: Rc<RefCell<Routes>>,
    pub(crate) notes: Rc<RefCell<Vec<Note>>>,
}

impl Application for Witness {
    fn handle_upgrade(
        &mut self,
        id: ConnectionId,
        request: &Request<'_>,
    ) -> Result<Admission, Refused> {
        let answer = self.routes.borrow_mut().handle_upgrade(id, request);
        self.notes
            .borrow_mut()
            .push(Note::Asked(id, answer.is_ok()));
        answer
    }

    fn handle_request(
        &mut self,
        id: ConnectionId,
        request: &Request<'_>,
        framing: Framing,
        figures: &dyn Figures,
    ) -> Decision {
        let mut routes = self.routes.borrow_mut();
        routes.handle_request(id, request, framing, figures)
    }

    fn handle_message(&mut self, id: ConnectionId, message: Message<'_>, outbox: &mut dyn Outbox) {
        let (payload, is_text) = match message {
            Message::Text(text) => (text.as_bytes(), true),
            Message::Binary(payload) => (payload, false),
        };
        let note = Note::Heard(id, payload.to_vec(), is_text);
        self.notes.borrow_mut().push(note);
        self.routes.borrow_mut().handle_message(id, message, outbox);
    }

    fn handle_deadline(&mut self, id: ConnectionId, outbox: &mut dyn Outbox) {
        self.routes.borrow_mut().handle_deadline(id, outbox);
    }

    fn handle_gone(&mut self, id: ConnectionId) {
        self.notes.borrow_mut().push(Note::Gone(id));
        self.routes.borrow_mut().handle_gone(id);
    }

    fn close_reason(&self, cause: CloseCause, retry_ms: u64) -> String {
        self.routes.borrow().close_reason(cause, retry_ms)
    }
}
