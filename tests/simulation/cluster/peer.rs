//! A peer of a node, a client or a publisher: what it says, and what of the node's words comes over its wire.
//!
//! What it has to be told is the model's (`judge`). Here is looked at one thing only: that its wire brings what the
//! application has said, in that order, and nothing else. Main type: [`Peer`].

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use crieur::application::Response;
use crieur::hub::filter::{Subscription, matches};
use crieur::id::ConnectionId;

use crate::client::{Said, id_told_by};
use crate::dice::Dice;
use crate::frames::{CLOSE, PING, PONG, TEXT, push_frame, take_frame};
use crate::texts::{self, Publication};
use crate::wire::{End, Wire};

use super::truth::{Promise, Truth};

/// What sort of peer it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// One that listens, and whose publishing ends its connection.
    Ephemeral,
    /// At /publish.
    Kept,
    /// It asks over HTTP.
    Http,
}

/// Something that it has said and that is to be answered.
#[derive(Debug)]
pub(super) enum Question {
    Said(Said),
    /// The body of a request: some notifications, in an array or not.
    Post {
        publications: Vec<Publication>,
        body: String,
    },
}

/// What has to come over its wire.
#[derive(Debug)]
enum Due {
    Text(Rc<str>),
    Close(u16, String),
    Response(Response),
}

/// What is left of one that lost its connection: it comes back with it.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    pub(super) id: Rc<str>,
    pub(super) subscriptions: Vec<Subscription<'static>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    Connecting,
    Open,
    Gone,
}

pub(super) struct Peer {
    pub(super) id: ConnectionId,
    pub(super) kind: Kind,
    pub(super) wire: Rc<RefCell<Wire>>,
    out: VecDeque<u8>,
    got: Vec<u8>,
    has_head: bool,
    pub(super) is_end_told: bool,
    /// It says nothing more.
    pub(super) is_done: bool,
    hang_up: Option<End>,
    /// It has not taken everything at once some time: too much may have waited for it.
    pub(super) was_slow: bool,
    /// A close of the shell's own has come.
    is_closed: bool,
    /// What the node hasn't heard.
    said: VecDeque<Question>,
    due: VecDeque<Due>,
    pub(super) last_id: Option<Rc<str>>,
    // What the model knows.
    pub(super) stage: Stage,
    /// What the node has heard and not answered, with the time.
    pub(super) questions: VecDeque<(Question, u64)>,
    /// With which code it is closed next, behind an error.
    pub(super) closes_with: Option<u16>,
    pub(super) subscriptions: Vec<Subscription<'static>>,
    pub(super) is_numbered: bool,
    /// Of what its node has read, it has all that is for it up to here.
    pub(super) at: usize,
    /// It is being caught up, and has got so many.
    pub(super) replay: Option<usize>,
    /// A doubt came up when its node had read so many, and it hasn't been told.
    pub(super) owed_gap: Option<usize>,
    /// What it was promised.
    pub(super) promise: Option<Promise>,
}

impl Peer {
    pub(super) fn new(id: ConnectionId, wire: Rc<RefCell<Wire>>, kind: Kind) -> Self {
        let mut peer = Self {
            id,
            kind,
            wire,
            out: VecDeque::new(),
            got: Vec::new(),
            has_head: false,
            is_end_told: false,
            is_done: false,
            hang_up: None,
            was_slow: false,
            is_closed: false,
            said: VecDeque::new(),
            due: VecDeque::new(),
            last_id: None,
            stage: Stage::Connecting,
            questions: VecDeque::new(),
            closes_with: None,
            subscriptions: Vec::new(),
            is_numbered: false,
            at: 0,
            replay: None,
            owed_gap: None,
            promise: None,
        };
        if kind != Kind::Http {
            let path = if kind == Kind::Kept { "/publish" } else { "/" };
            let head = format!(
                "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            );
            peer.out.extend(head.bytes());
        }
        peer
    }

    // What it says.

    /// Does something.
    pub(super) fn act(&mut self, truth: &mut Truth, dice: &mut Dice) {
        if self.is_done || self.hang_up.is_some() {
            return;
        }
        let publishes = match self.kind {
            Kind::Ephemeral => 12,
            Kind::Kept => 65,
            Kind::Http => return self.post(truth, dice),
        };
        match dice.below(100) {
            percent if percent < publishes => self.publish(truth, dice),
            96.. => self.lose_connection(dice),
            93..96 => {
                self.wire.borrow_mut().room = dice.pick(&[0, 50, 2000]);
                self.was_slow = true;
            }
            91..93 => self.say(Said::bad(dice), dice),
            percent if percent % 3 == 0 => {
                self.say(Said::Ping(r#"{"type":"ping"}"#.to_owned()), dice)
            }
            _ => {
                let count = dice.pick(&[0, 1, 2, 4, 8]);
                let list = (0..count).map(|_| texts::subscription(dice)).collect();
                let since = self.since(truth, dice);
                self.subscribe(list, since, dice);
            }
        }
    }

    fn since(&self, truth: &Truth, dice: &mut Dice) -> Option<Rc<str>> {
        match dice.below(12) {
            0..=1 => None,
            2..=4 => Some("".into()),
            5..=7 => Some(self.last_id.clone().unwrap_or_else(|| "".into())),
            8..=10 => Some(truth.any_id(dice)),
            _ => Some(truth.invented_id(dice)),
        }
    }

    /// Comes back, as it was.
    pub(super) fn come_back(&mut self, memory: Memory, dice: &mut Dice) {
        self.last_id = Some(Rc::clone(&memory.id));
        self.subscribe(memory.subscriptions, Some(memory.id), dice);
    }

    fn subscribe(
        &mut self,
        list: Vec<Subscription<'static>>,
        since: Option<Rc<str>>,
        dice: &mut Dice,
    ) {
        let text = texts::subscribe_text(&list, since.as_deref(), dice);
        self.say(Said::Subscribe(text, list, since), dice);
    }

    fn publish(&mut self, truth: &mut Truth, dice: &mut Dice) {
        for _ in 0..dice.pick(&[1, 1, 1, 5]) {
            if dice.chance(4) {
                self.say(Said::BadPublish, dice);
            } else {
                let publication = texts::publication(dice, truth.number(), false, super::STYLE);
                truth.announce(&publication);
                self.say(Said::Publish(Box::new(publication)), dice);
            }
            if self.kind == Kind::Ephemeral {
                self.is_done = true;
                if dice.chance(30) {
                    self.lose_connection(dice);
                }
                return;
            }
        }
    }

    fn say(&mut self, said: Said, dice: &mut Dice) {
        let mut bytes = Vec::new();
        push_frame(&mut bytes, 0x80 | TEXT, said.payload(), dice);
        self.out.extend(bytes);
        self.said.push_back(Question::Said(said));
    }

    /// Posts one, some or none, perhaps before the last one was answered.
    fn post(&mut self, truth: &mut Truth, dice: &mut Dice) {
        if dice.chance(5) {
            return self.lose_connection(dice);
        }
        let is_array = dice.chance(60);
        let count = if is_array { dice.below(5) } else { 1 };
        let publication = |_| texts::publication(dice, truth.number(), false, super::STYLE);
        let publications: Vec<_> = (0..count).map(publication).collect();
        truth.announce_batch(&publications);
        let list: Vec<_> = publications.iter().map(|one| one.text.as_str()).collect();
        let mut body = list.join(",");
        if is_array {
            body = format!("[{body}]");
        }
        let head = format!(
            "POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.out.extend(head.bytes().chain(body.bytes()));
        self.said.push_back(Question::Post { publications, body });
    }

    fn lose_connection(&mut self, dice: &mut Dice) {
        self.is_done = true;
        self.hang_up = Some(dice.pick(&[End::Eof, End::Reset]));
    }

    /// Some of what it has written arrives, and its end behind that.
    pub(super) fn arrive(&mut self, bytes: usize) {
        let wire = &mut *self.wire.borrow_mut();
        if wire.end != End::None {
            return;
        }
        let count = bytes.min(self.out.len());
        wire.to_server.extend(self.out.drain(..count));
        wire.has_arrived |= count > 0;
        if let Some(end) = self.hang_up.filter(|_| self.out.is_empty()) {
            wire.end = end;
            wire.has_arrived = true;
        }
    }

    /// Its process is at rest: it takes everything that it is sent.
    pub(super) fn relax(&self) {
        self.wire.borrow_mut().room = usize::MAX;
    }

    pub(super) fn has_hung_up(&self) -> bool {
        self.wire.borrow().end != End::None
    }

    /// The next thing that it has said, which the node has heard now.
    pub(super) fn next_said(&mut self) -> Question {
        self.said.pop_front().expect("it was said")
    }

    // What the node said.

    pub(super) fn tell(&mut self, text: &Rc<str>) {
        self.due.push_back(Due::Text(Rc::clone(text)));
    }

    pub(super) fn close(&mut self, code: u16, reason: &str) {
        self.due.push_back(Due::Close(code, reason.to_owned()));
    }

    pub(super) fn respond(&mut self, response: Response) {
        self.due.push_back(Due::Response(response));
    }

    // What comes.

    /// Looks at what has come.
    pub(super) fn take(&mut self, dice: &mut Dice) {
        let bytes = std::mem::take(&mut self.wire.borrow_mut().from_server);
        self.got.extend(bytes);
        if self.kind == Kind::Http {
            while self.take_response() {}
            return;
        }
        if !self.has_head {
            let Some(end) = self.got.windows(4).position(|four| four == b"\r\n\r\n") else {
                return;
            };
            assert!(self.got.starts_with(b"HTTP/1.1 101 "));
            self.got.drain(..end + 4);
            self.has_head = true;
        }
        while let Some(frame) = take_frame(&mut self.got) {
            match frame.opcode {
                TEXT => self.take_text(&String::from_utf8(frame.payload).expect("text")),
                PING => self.answer(PONG, b"", dice),
                CLOSE => self.take_close(&frame.payload, dice),
                _ => panic!("{}: an odd frame", self.id),
            }
        }
    }

    fn answer(&mut self, opcode: u8, payload: &[u8], dice: &mut Dice) {
        if !self.has_hung_up() && self.hang_up.is_none() {
            let mut bytes = Vec::new();
            push_frame(&mut bytes, 0x80 | opcode, payload, dice);
            self.out.extend(bytes);
        }
    }

    fn take_text(&mut self, text: &str) {
        match self.due.pop_front() {
            Some(Due::Text(due)) => assert_eq!(text, &*due, "{}", self.id),
            due => panic!("{}: {text} comes for {due:?}", self.id),
        }
        if let Some(id) = id_told_by(text) {
            self.last_id = Some(id.into());
        }
    }

    fn take_close(&mut self, payload: &[u8], dice: &mut Dice) {
        let code = u16::from_be_bytes([payload[0], payload[1]]);
        let reason = std::str::from_utf8(&payload[2..]).expect("text");
        match self.due.pop_front() {
            Some(Due::Close(due, words)) => {
                assert_eq!((code, reason), (due, &*words), "{}", self.id);
            }
            // The shell's own: it takes too little.
            _ if self.was_slow && code == 1013 => self.due.clear(),
            due => panic!("{}: closed with {code} {reason} for {due:?}", self.id),
        }
        self.is_done = true;
        self.is_closed = true;
        self.answer(CLOSE, &payload[..2], dice);
        self.hang_up.get_or_insert(End::Eof);
    }

    fn take_response(&mut self) -> bool {
        let Some(end) = self.got.windows(4).position(|four| four == b"\r\n\r\n") else {
            return false;
        };
        let head = std::str::from_utf8(&self.got[..end]).expect("ASCII");
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "));
        let length: usize = length.expect("a length").parse().expect("a number");
        if self.got.len() < end + 4 + length {
            return false;
        }
        let Some(Due::Response(due)) = self.due.pop_front() else {
            panic!("{}: nobody has answered {head}", self.id);
        };
        assert!(
            head.starts_with(&format!("HTTP/1.1 {} ", due.status.code)),
            "{head}"
        );
        let may_retry = head.contains("\r\nRetry-After: ");
        assert_eq!(may_retry, due.status.code == 503, "{head}");
        let body = self.got[end + 4..end + 4 + length].to_vec();
        assert_eq!(body, due.body.as_bytes());
        self.got.drain(..end + 4 + length);
        true
    }

    // What the model asks.

    pub(super) fn wants(&self, publication: &Publication) -> bool {
        let mut subscriptions = self.subscriptions.iter();
        subscriptions.any(|one| matches(one, &publication.notification))
    }

    /// Whether what is read now is for it.
    pub(super) fn is_live(&self) -> bool {
        self.stage == Stage::Open && self.replay.is_none()
    }

    /// Whether it has a reason to be gone.
    pub(super) fn may_go(&self) -> bool {
        self.has_hung_up() || self.hang_up.is_some() || self.was_slow || self.is_closing()
    }

    /// Whether the application has closed it.
    pub(super) fn is_closing(&self) -> bool {
        let is_close = |due: &Due| matches!(due, Due::Close(..));
        self.is_closed || self.due.iter().any(is_close)
    }

    pub(super) fn memory(&self) -> Option<Memory> {
        Some(Memory {
            id: self.last_id.clone()?,
            subscriptions: self.subscriptions.clone(),
        })
    }

    /// Whether nothing is under way between it and its node.
    pub(super) fn unrest(&self) -> Option<&'static str> {
        let wire = self.wire.borrow();
        let is_over = wire.end != End::None || self.stage == Stage::Gone;
        if is_over {
            return (!wire.is_dropped).then_some("its end isn't seen");
        }
        let reasons = [
            (
                !self.out.is_empty() || !wire.to_server.is_empty(),
                "it isn't heard",
            ),
            (!self.said.is_empty(), "the application hasn't heard it"),
            (!self.questions.is_empty(), "it awaits an answer"),
            (!self.due.is_empty(), "something hasn't come"),
            (self.replay.is_some(), "it isn't caught up"),
            (self.owed_gap.is_some(), "it wasn't told of a doubt"),
        ];
        let reason = reasons.into_iter().find(|(is_so, _)| *is_so);
        reason.map(|(_, text)| text)
    }
}
