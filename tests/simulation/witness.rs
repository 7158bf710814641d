//! The hub, and a record of the order in which it is asked for what.
//!
//! When a client that is being caught up gets how much of it is the server's own business; so that is noted
//! too, at the hub's way out: how often something was queued to such a client, and when it was told that it is
//! caught up. What that has to be is not looked at here. A cluster's model wants everything, on a [`Tape`].
//!
//! Of some publishes an explanation is asked first, and held against what is delivered then.

use std::cell::RefCell;
use std::collections::HashSet;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use crieur::application::{
    Admission, Answer, Application, BodyUse, CloseCause, Decision, Delivered, Deliveries, Figures,
    Framing, Message, Outbox, Peer, Refused, Replies, Request, Response, State, Uplinks,
    WriteBarrier,
};
use crieur::handover::{Fields, Malformed, Members};
use crieur::id::ConnectionId;
use crieur::routes::Routes;
use crieur::time::{Clock, Timestamp};
use crieur::wire::carried::{FrameNumbers, Frames};
use crieur::ws::close::CloseCode;
use crieur::ws::frame::EncodedFrame;

use crate::tape::{Act, Tape};

/// What the hub was asked for, and some of what it did.
#[derive(Debug)]
pub(crate) enum Note {
    /// To let somebody in, and whether it did.
    Asked(ConnectionId, bool),
    Heard(ConnectionId, Vec<u8>, bool),
    /// To take what a request brings.
    Posted,
    /// A client that is being caught up, or isn't because of this, was told something about it.
    Told(ConnectionId, String),
    /// One more notification was queued to a client that is being caught up.
    Replayed(ConnectionId),
    /// What was heard just before was taken for a repetition.
    Repeated,
    /// What a client was promised is not there any more.
    Broken(ConnectionId),
    Gone(ConnectionId),
}

impl Note {
    /// What a client was told.
    pub(crate) fn told_to(&self, client: ConnectionId) -> Option<&str> {
        match self {
            Self::Told(id, text) if *id == client => Some(text),
            _ => None,
        }
    }
}

/// What the engine drives in place of the routes to the hub.
pub(crate) struct Witness {
    pub(crate) routes: Rc<RefCell<Routes>>,
    pub(crate) notes: Rc<RefCell<Vec<Note>>>,
    /// Clients that are being caught up, by what they were told.
    pub(crate) replaying: HashSet<ConnectionId>,
    pub(crate) tape: Option<Tape>,
    /// Messages that may have been publishes.
    pub(crate) publishes: usize,
}

/// Of so many publishes one is explained.
const EXPLAINED: usize = 4;

/// What was said about a notification before it was published.
struct Explanation {
    /// Of each connection that is live: whether it gets it.
    gets: Vec<(ConnectionId, bool)>,
    would_get: usize,
    /// How many had been delivered.
    before: u64,
}

impl Witness {
    /// What becomes of a message, if it is published.
    fn explain(&mut self, message: &[u8], outbox: &mut dyn Outbox) -> Option<Explanation> {
        let text = std::str::from_utf8(message).ok()?;
        // With Redis it is delivered later.
        if !text.contains("notification") || self.routes.borrow().hub().redis().is_some() {
            return None;
        }
        self.publishes += 1;
        if !self.publishes.is_multiple_of(EXPLAINED) {
            return None;
        }
        let mut routes = self.routes.borrow_mut();
        let before = routes.hub().metrics().notifications_delivered;
        let nobody = ConnectionId {
            index: u32::MAX,
            serial: 0,
        };
        let answer = routes.handle_body(nobody, message, BodyUse::Explain, outbox);
        let Answer::Now(response) = answer else {
            panic!("{answer:?}");
        };
        if response.status.code != 200 {
            return None;
        }
        let answer: serde_json::Value = serde_json::from_str(&response.body).expect("JSON");
        let connections = answer["connections"].as_array().expect("a list").iter();
        let live = connections.filter(|one| one["state"] == "live");
        let gets = live.map(|one| {
            let id = one["connection"].as_str().and_then(ConnectionId::of_text);
            (
                id.expect("an id"),
                one["gets"].as_bool().expect("it is live"),
            )
        });
        Some(Explanation {
            gets: gets.collect(),
            would_get: answer["would_get"].as_u64().expect("a number") as usize,
            before,
        })
    }

    /// Holds what was said against what was delivered.
    fn check(&self, explanation: &Explanation, delivered: &[ConnectionId]) {
        let after = self.routes.borrow().hub().metrics().notifications_delivered;
        if after != explanation.before + 1 {
            return;
        }
        assert_eq!(explanation.would_get, delivered.len());
        for (id, gets) in &explanation.gets {
            assert_eq!(delivered.contains(id), *gets, "{id}");
        }
        assert!(
            delivered
                .iter()
                .all(|id| explanation.gets.contains(&(*id, true)))
        );
    }

    fn tape(&self, act: impl FnOnce() -> Act) {
        if let Some(tape) = &self.tape {
            tape.push(act());
        }
    }

    /// Has the hub do something, and watches its way out.
    fn watch(
        &mut self,
        outbox: &mut dyn Outbox,
        act: impl FnOnce(&mut Routes, &mut dyn Outbox),
    ) -> Vec<ConnectionId> {
        let mut watched = Watched {
            delivered: Vec::new(),
            outbox,
            notes: &self.notes,
            replaying: &mut self.replaying,
            tape: self.tape.as_ref(),
        };
        act(&mut self.routes.borrow_mut(), &mut watched);
        watched.delivered
    }

    /// Hands the body of a request to the hub that shows that its sender may publish.
    pub(crate) fn post(&mut self, body: &str, outbox: &mut dyn Outbox) -> Answer {
        self.notes.borrow_mut().push(Note::Posted);
        let nobody = ConnectionId {
            index: u32::MAX,
            serial: 0,
        };
        let mut routes = self.routes.borrow_mut();
        routes.handle_body(nobody, body.as_bytes(), BodyUse::Publish, outbox)
    }
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
        if answer.is_ok() {
            self.tape(|| Act::LetIn(id));
        }
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

    fn handle_body(
        &mut self,
        id: ConnectionId,
        body: &[u8],
        body_use: BodyUse,
        outbox: &mut dyn Outbox,
    ) -> Answer {
        self.tape(|| Act::Posted(id, body.to_vec()));
        let mut answer = Answer::Later;
        let explanation = self.explain(body, outbox);
        let delivered = self.watch(outbox, |routes, outbox| {
            answer = routes.handle_body(id, body, body_use, outbox);
        });
        if let Some(explanation) = explanation {
            self.check(&explanation, &delivered);
        }
        if let Answer::Now(response) = &answer {
            self.tape(|| Act::Responded(id, response.clone()));
        }
        answer
    }

    fn handle_message(&mut self, id: ConnectionId, message: Message<'_>, outbox: &mut dyn Outbox) {
        let (payload, is_text) = match message {
            Message::Text(text) => (text.as_bytes(), true),
            Message::Binary(payload) => (payload, false),
        };
        let note = Note::Heard(id, payload.to_vec(), is_text);
        self.notes.borrow_mut().push(note);
        self.tape(|| Act::Heard(id, payload.to_vec()));
        let explanation = self.explain(payload, outbox);
        let delivered = self.watch(outbox, |routes, outbox| {
            routes.handle_message(id, message, outbox);
        });
        if let Some(explanation) = explanation {
            self.check(&explanation, &delivered);
        }
    }

    fn handle_deadline(&mut self, id: ConnectionId, outbox: &mut dyn Outbox) {
        self.routes.borrow_mut().handle_deadline(id, outbox);
    }

    fn handle_drained(&mut self, id: ConnectionId, outbox: &mut dyn Outbox) {
        self.tape(|| Act::Drained);
        self.watch(outbox, |routes, outbox| routes.handle_drained(id, outbox));
    }

    fn write_barrier(&self) -> Option<Box<dyn WriteBarrier>> {
        self.routes.borrow().write_barrier()
    }

    fn next_work(&self) -> Option<Timestamp> {
        self.routes.borrow().next_work()
    }

    fn handle_work(&mut self, outbox: &mut dyn Outbox) {
        let tape = self.tape.clone();
        let mark = tape.map(|tape| (tape.begin_work(&self.routes.borrow()), tape));
        let now = outbox.now();
        self.watch(outbox, |routes, outbox| routes.handle_work(outbox));
        if let Some((mark, tape)) = mark {
            tape.end_work(&mark, &self.routes.borrow(), now);
        }
    }

    fn is_ready(&self) -> bool {
        self.routes.borrow().is_ready()
    }

    fn settle(&mut self, is_held: bool) -> bool {
        self.routes.borrow_mut().settle(is_held)
    }

    /// What it lends is behind a cell here: whoever moves bytes asks the routes themselves.
    fn uplinks(&mut self) -> Option<&mut dyn Uplinks> {
        None
    }

    fn handle_end(&mut self, id: ConnectionId, cause: Option<CloseCause>, now: Timestamp) {
        self.routes.borrow_mut().handle_end(id, cause, now);
    }

    fn handle_gone(&mut self, id: ConnectionId) {
        self.replaying.remove(&id);
        self.notes.borrow_mut().push(Note::Gone(id));
        self.tape(|| Act::Gone(id));
        self.routes.borrow_mut().handle_gone(id);
    }

    fn close_reason(&self, cause: CloseCause, retry_ms: u64) -> String {
        self.routes.borrow().close_reason(cause, retry_ms)
    }

    fn save(&self, state: &mut State<'_>, frames: &mut FrameNumbers) -> io::Result<()> {
        self.routes.borrow().save(state, frames)
    }

    fn save_connection(&self, id: ConnectionId, members: &mut Members<'_>) {
        self.routes.borrow().save_connection(id, members);
    }

    fn restore(
        &mut self,
        kind: u8,
        fields: &Fields<'_>,
        frames: &mut Frames,
        now: Timestamp,
    ) -> Result<(), Malformed> {
        self.routes.borrow_mut().restore(kind, fields, frames, now)
    }

    fn restore_connection(
        &mut self,
        id: ConnectionId,
        peer: Peer,
        fields: &Fields<'_>,
        now: Timestamp,
    ) -> Result<(), Malformed> {
        let mut routes = self.routes.borrow_mut();
        routes.restore_connection(id, peer, fields, now)
    }
}

/// A way out that is watched.
struct Watched<'a> {
    outbox: &'a mut dyn Outbox,
    notes: &'a RefCell<Vec<Note>>,
    replaying: &'a mut HashSet<ConnectionId>,
    tape: Option<&'a Tape>,
    /// To whom anything was delivered.
    delivered: Vec<ConnectionId>,
}

impl Watched<'_> {
    fn tape(&self, act: impl FnOnce() -> Act) {
        if let Some(tape) = self.tape {
            tape.push(act());
        }
    }

    fn note(&self, note: Note) {
        self.notes.borrow_mut().push(note);
    }

    fn note_receipt(&self, text: &str) {
        if text.ends_with(r#""repeated":true}"#) {
            self.note(Note::Repeated);
        }
    }
}

impl Clock for Watched<'_> {
    fn now(&self) -> Timestamp {
        self.outbox.now()
    }

    fn unix_now(&self) -> Duration {
        self.outbox.unix_now()
    }
}

impl Deliveries for Watched<'_> {
    fn deliver(&mut self, frame: &EncodedFrame, recipients: &[ConnectionId]) -> Delivered {
        if let [id] = recipients
            && self.replaying.contains(id)
        {
            self.note(Note::Replayed(*id));
        }
        let delivered = self.outbox.deliver(frame, recipients);
        self.delivered.extend_from_slice(recipients);
        self.tape(|| {
            let text = String::from_utf8(frame.payload().to_vec()).expect("a text");
            Act::Delivered(text.into(), recipients.to_vec(), delivered.queued)
        });
        delivered
    }

    fn is_cut_off(&mut self, id: ConnectionId) -> bool {
        self.outbox.is_cut_off(id)
    }

    fn has_room(&mut self, id: ConnectionId, frame: &EncodedFrame) -> bool {
        self.outbox.has_room(id, frame)
    }

    fn close(&mut self, id: ConnectionId, code: CloseCode, reason: &str) {
        self.note_receipt(reason);
        self.tape(|| Act::Closed(id, code.as_u16(), reason.to_owned()));
        if code == CloseCode::TRY_AGAIN_LATER {
            self.note(Note::Broken(id));
        }
        self.outbox.close(id, code, reason);
    }

    fn retry_ms(&mut self) -> u64 {
        self.outbox.retry_ms()
    }
}

impl Replies for Watched<'_> {
    fn reply(&mut self, to: ConnectionId, payload: &str) {
        let is = |kind: &str| payload.starts_with(&format!(r#"{{"type":"{kind}""#));
        if is("published") {
            self.note_receipt(payload);
        }
        let was_replaying = self.replaying.contains(&to);
        let is_answer = is("subscribed") && payload.contains(r#""resumed":"#);
        if is_answer || (was_replaying && (is("pong") || is("caught-up"))) {
            self.note(Note::Told(to, payload.to_owned()));
        }
        if is("subscribed") && payload.ends_with(r#""resumed":true}"#) {
            self.replaying.insert(to);
        } else if was_replaying && (is("subscribed") || is("caught-up")) {
            self.replaying.remove(&to);
        }
        self.tape(|| Act::Replied(to, payload.into()));
        self.outbox.reply(to, payload);
    }

    fn reply_binary(&mut self, to: ConnectionId, payload: &[u8]) {
        self.outbox.reply_binary(to, payload);
    }

    fn respond(&mut self, to: ConnectionId, response: &Response) {
        self.tape(|| Act::Responded(to, response.clone()));
        self.outbox.respond(to, response);
    }

    fn readmit(&mut self, id: ConnectionId, admission: &Admission) {
        self.outbox.readmit(id, admission);
    }

    fn is_drained(&mut self, id: ConnectionId) -> bool {
        self.outbox.is_drained(id)
    }

    fn unsent_bytes(&mut self, id: ConnectionId) -> usize {
        self.outbox.unsent_bytes(id)
    }

    fn peer(&mut self, id: ConnectionId) -> Option<Peer> {
        self.outbox.peer(id)
    }

    fn await_drained(&mut self, id: ConnectionId) {
        self.outbox.await_drained(id);
    }

    fn pause_input(&mut self, id: ConnectionId) {
        self.outbox.pause_input(id);
    }

    fn resume_input(&mut self, id: ConnectionId) {
        self.outbox.resume_input(id);
    }
}
