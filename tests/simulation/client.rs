//! A simulated client: what it says, what it has to get for it, and the check of what it got.
//!
//! The world tells it what the server handled; from then on it knows, to the byte, which texts
//! must come, in which order. Whether it may be closed, and how, is decided here too.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::ops::RangeInclusive;
use std::rc::Rc;

use crieur::hub::filter::{Notification, Subscription, matches};
use crieur::id::ConnectionId;

use crate::dice::Dice;
use crate::frames::{BINARY, CLOSE, Frame, PING, PONG, TEXT, push_frame, take_frame};
use crate::texts::{self, Publication};
use crate::wire::{End, Wire};

/// How long the world's server waits for what, in microseconds.
const PONG_MICROS: u64 = 10_000_000;
const MESSAGE_MICROS: u64 = 60_000_000;

/// Texts that can't be followed, with the code of the answer.
const BAD_TEXTS: [(&str, &str); 6] = [
    ("{", "invalid-json"),
    ("", "invalid-json"),
    ("{}", "unknown-message"),
    ("{\"sender\":\"client\",\"cmd\":[1]}", "unknown-message"),
    (
        "{\"sender\":\"client\",\"subscriptions\":[\"a\",{\"package\":\"p\"}]}",
        "invalid-subscription",
    ),
    (
        "{\"sender\":\"client\",\"subscriptions\":{}}",
        "invalid-subscription",
    ),
];

const BAD_PUBLICATION: &str = "{\"sender\":\"server\",\"notification\":{\"package\":\"p\"}}";

/// Something that a client says, as the server has to take it.
#[derive(Debug)]
pub(crate) enum Said {
    /// The upgrade.
    Request,
    Subscribe(String, Vec<Subscription<'static>>),
    Ping(String),
    Publish(Box<Publication>),
    BadPublish,
    Bad(&'static str, &'static str),
    Binary(Vec<u8>),
    /// Its Close, with this code.
    Close(Option<u16>),
    /// What has to be closed with this code; nothing is heard behind it.
    Violation(u16),
}

impl Said {
    /// Whether it is what the server's application has to be handed.
    fn is_message(&self) -> bool {
        !matches!(self, Self::Request | Self::Close(_) | Self::Violation(_))
    }

    fn payload(&self) -> &[u8] {
        match self {
            Self::Subscribe(text, _) | Self::Ping(text) => text.as_bytes(),
            Self::Publish(publication) => publication.text.as_bytes(),
            Self::BadPublish => BAD_PUBLICATION.as_bytes(),
            Self::Bad(text, _) => text.as_bytes(),
            Self::Binary(payload) => payload,
            Self::Request | Self::Close(_) | Self::Violation(_) => &[],
        }
    }
}

/// Where in its stream a client has said something.
#[derive(Debug)]
struct Mark {
    start: u64,
    end: u64,
    said: Said,
}

/// How many connections a notification was for, and how many of them were cut off over it.
#[derive(Clone, Debug)]
pub(crate) struct Counts {
    pub(crate) recipients: usize,
    pub(crate) dropped: RangeInclusive<usize>,
}

impl Counts {
    /// Whether `text` tells these, between `before` and `after`.
    fn are_told_by(&self, text: &str, before: &str) -> bool {
        self.dropped.clone().any(|dropped| {
            let delivered = self.recipients - dropped;
            let more = match dropped {
                0 => String::new(),
                _ => format!(",\"dropped\":{dropped}"),
            };
            text == format!("{before}\"delivered\":{delivered}{more}}}")
        })
    }
}

/// A text that a client has to get.
#[derive(Debug)]
pub(crate) enum Expected {
    Exactly(Rc<str>),
    Error(&'static str),
    Published(Counts),
}

impl Expected {
    /// How long it is at least.
    fn bytes_min(&self) -> usize {
        match self {
            Self::Exactly(text) => text.len(),
            Self::Error(_) | Self::Published(_) => 0,
        }
    }
}

/// Why the server closes a connection after a message, or by itself.
#[derive(Debug)]
pub(crate) enum Cause {
    Published(Counts),
    Policy(&'static str),
    Binary,
    Shutdown,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    Connecting,
    Open,
    Gone,
}

/// What the world knows when it hands bytes over.
#[derive(Clone, Copy)]
pub(crate) struct Circumstances {
    pub(crate) may_refuse: bool,
    pub(crate) may_shed: bool,
}

/// A client, its model, and what it got.
pub(crate) struct Client {
    pub(crate) id: ConnectionId,
    pub(crate) wire: Rc<RefCell<Wire>>,
    pub(crate) may_publish: bool,
    /// It is not read for a while when it says too much at once.
    pub(crate) is_limited: bool,
    /// It listens, and publishes nothing.
    pub(crate) is_audience: bool,
    /// Its path is `/publish`.
    pub(crate) stays: bool,
    /// What it has written and what has not arrived yet.
    out: VecDeque<u8>,
    written: u64,
    arrived: u64,
    pub(crate) arrived_at: u64,
    marks: VecDeque<Mark>,
    /// Pings that are yet to be answered, with where they end.
    pings: VecDeque<(u64, [u8; 8])>,
    /// It sends nothing any more, not even Pongs.
    pub(crate) is_silent: bool,
    /// It has begun a message that it doesn't finish.
    pub(crate) stuck_at: Option<u64>,
    /// It was closed when a message of it may have waited for its end for too long.
    is_late: bool,
    /// It says nothing new any more.
    pub(crate) is_done: bool,
    answers_close: bool,
    /// How it ends when all it has written has arrived.
    pub(crate) hang_up: Option<End>,
    pub(crate) is_end_told: bool,
    pub(crate) stage: Stage,
    pub(crate) subscriptions: Vec<Subscription<'static>>,
    expected: VecDeque<Expected>,
    pub(crate) cause: Option<Cause>,
    /// A write was refused at some time: Pongs may have been left out since.
    was_refused: bool,
    got: Vec<u8>,
    has_head: bool,
    is_refused_http: bool,
    close_got: bool,
    pub(crate) deliveries_got: u64,
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wire = self.wire.borrow();
        write!(
            f,
            "{:?}, written {}, arrived {} until {}, room {}, refused {}, {:?}, silent {}, stuck {:?}",
            self.stage,
            self.written,
            self.arrived,
            self.arrived_at,
            wire.room,
            wire.is_refused,
            wire.end,
            self.is_silent,
            self.stuck_at
        )
    }
}

impl Client {
    pub(crate) fn new(
        id: ConnectionId,
        wire: Rc<RefCell<Wire>>,
        may_publish: bool,
        now: u64,
        dice: &mut Dice,
    ) -> Self {
        let mut client = Self {
            id,
            wire,
            may_publish,
            is_limited: false,
            is_audience: dice.chance(60),
            stays: dice.chance(60),
            out: VecDeque::new(),
            written: 0,
            arrived: 0,
            arrived_at: now,
            marks: VecDeque::new(),
            pings: VecDeque::new(),
            is_silent: false,
            stuck_at: None,
            is_late: false,
            is_done: false,
            answers_close: dice.chance(80),
            hang_up: None,
            is_end_told: false,
            stage: Stage::Connecting,
            subscriptions: Vec::new(),
            expected: VecDeque::new(),
            cause: None,
            was_refused: false,
            got: Vec::new(),
            has_head: false,
            is_refused_http: false,
            close_got: false,
            deliveries_got: 0,
        };
        client.request(dice);
        client
    }

    // What it says.

    fn request(&mut self, dice: &mut Dice) {
        let path = if self.stays { "/publish?a" } else { "/" };
        let mut key = "dGhlIHNhbXBsZSBub25jZQ==";
        let is_good = !dice.chance(4);
        if !is_good {
            (key, self.is_done) = ("no key", true);
        }
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        let said = is_good.then_some(Said::Request);
        self.write(head.as_bytes(), said);
    }

    fn write(&mut self, bytes: &[u8], said: Option<Said>) {
        let start = self.written;
        self.out.extend(bytes);
        self.written += bytes.len() as u64;
        let end = self.written;
        self.marks
            .extend(said.map(|said| Mark { start, end, said }));
    }

    /// Says something, in as many fragments as it likes, with control frames in between.
    fn say(&mut self, said: Said, dice: &mut Dice) {
        let opcode = match said {
            Said::Binary(_) => BINARY,
            _ => TEXT,
        };
        let mut bytes = Vec::new();
        let mut rest = said.payload();
        let mut first = opcode;
        let mut pings = Vec::new();
        while dice.chance(25) {
            let (part, others) = rest.split_at(dice.between(0, rest.len()));
            push_frame(&mut bytes, first, part, dice);
            (first, rest) = (0, others);
            if dice.chance(40) {
                let payload = dice.next_u64().to_be_bytes();
                push_frame(&mut bytes, 0x80 | PING, &payload, dice);
                pings.push((self.written + bytes.len() as u64, payload));
            }
        }
        push_frame(&mut bytes, 0x80 | first, rest, dice);
        self.pings.extend(pings);
        self.write(&bytes, Some(said));
    }

    /// Says something that isn't a notification.
    pub(crate) fn chat(&mut self, dice: &mut Dice) {
        match dice.below(10) {
            0..=3 => {
                let count = dice.pick(&[0, 1, 2, 4, 8]);
                let list: Vec<_> = (0..count).map(|_| texts::subscription(dice)).collect();
                self.say(
                    Said::Subscribe(texts::subscribe_text(&list, dice), list),
                    dice,
                );
            }
            4 | 5 => {
                let text = dice.pick(&[
                    "{\"type\":\"ping\"}",
                    "{ \"a\":[{}], \"type\":\"p\\u0069ng\"}",
                ]);
                self.say(Said::Ping(text.to_owned()), dice);
            }
            6 | 7 => self.ping(dice),
            8 => {
                let mut bytes = Vec::new();
                push_frame(&mut bytes, 0x80 | PONG, b"unasked", dice);
                self.write(&bytes, None);
            }
            _ => {
                let (text, code) = dice.pick(&BAD_TEXTS);
                self.say(Said::Bad(text, code), dice);
            }
        }
    }

    fn ping(&mut self, dice: &mut Dice) {
        let payload = dice.next_u64().to_be_bytes();
        let mut bytes = Vec::new();
        push_frame(&mut bytes, 0x80 | PING, &payload, dice);
        self.write(&bytes, None);
        self.pings.push_back((self.written, payload));
    }

    pub(crate) fn publish(&mut self, number: u64, dice: &mut Dice) {
        if dice.chance(3) {
            self.say(Said::BadPublish, dice);
        } else {
            let mut publication = texts::publication(dice, number);
            // Who may not publish has a limit that would come first.
            while !self.may_publish && publication.text.len() > 10_000 {
                publication = texts::publication(dice, number);
            }
            self.say(Said::Publish(Box::new(publication)), dice);
        }
        if !self.stays {
            self.is_done = dice.chance(90);
            if dice.chance(30) {
                self.hang_up = Some(dice.pick(&[End::Eof, End::Reset]));
            }
        }
    }

    /// Does something after which it has nothing more to say.
    pub(crate) fn finish(&mut self, now: u64, dice: &mut Dice) {
        self.is_done = true;
        let mut bytes = Vec::new();
        match dice.below(8) {
            0 => {
                let code = dice.pick(&[None, Some(1000), Some(1001), Some(4000)]);
                let mut payload = Vec::new();
                if let Some(code) = code {
                    payload.extend(u16::to_be_bytes(code));
                    payload.extend(b"bye");
                }
                push_frame(&mut bytes, 0x80 | CLOSE, &payload, dice);
                self.write(&bytes, Some(Said::Close(code)));
                if dice.chance(30) {
                    self.hang_up = Some(End::Eof);
                }
            }
            1 => self.hang_up = Some(End::Eof),
            2 => self.hang_up = Some(End::Reset),
            3 => self.is_silent = true,
            4 => {
                push_frame(&mut bytes, TEXT, b"{", dice);
                self.write(&bytes, None);
                self.stuck_at = Some(now);
            }
            5 => {
                let payload = vec![0xff; dice.below(300)];
                self.say(Said::Binary(payload), dice);
                self.answers_close &= dice.chance(50);
            }
            _ => self.violate(dice),
        }
    }

    fn violate(&mut self, dice: &mut Dice) {
        let mut bytes = Vec::new();
        let code = match dice.below(10) {
            0 => {
                bytes.extend([0x81, 0x01, b'a']);
                1002
            }
            1 => {
                push_frame(&mut bytes, 0xc1, b"{}", dice);
                1002
            }
            2 => {
                push_frame(&mut bytes, 0x83, b"", dice);
                1002
            }
            3 => {
                push_frame(&mut bytes, PING, b"", dice);
                1002
            }
            4 => {
                push_frame(&mut bytes, 0x80 | PING, &[0; 126], dice);
                1002
            }
            5 => {
                bytes.extend([0x81, 0xfe, 0, 1, 0, 0, 0, 0, b'a']);
                1002
            }
            6 => {
                push_frame(&mut bytes, 0x80, b"nothing to continue", dice);
                1002
            }
            7 => {
                push_frame(&mut bytes, 0x81, b"\"\xff\"", dice);
                1007
            }
            8 => {
                // Only its length is sent.
                bytes.extend([0x82, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 1, 0, 0, 0, 0]);
                1009
            }
            _ => {
                push_frame(&mut bytes, 0x80 | CLOSE, &[0x03, 0xed], dice);
                1002
            }
        };
        self.write(&bytes, Some(Said::Violation(code)));
        // What follows must not be looked at.
        let more: Vec<_> = (0..dice.below(40)).map(|_| dice.next_u64() as u8).collect();
        self.write(&more, None);
        self.ping(dice);
        self.pings.pop_back();
    }

    /// Lets `bytes` of what it has written arrive, and its end if that is all.
    pub(crate) fn arrive(&mut self, bytes: usize, now: u64) {
        let wire = &mut *self.wire.borrow_mut();
        if self.is_silent || wire.end != End::None {
            return;
        }
        let count = bytes.min(self.out.len());
        wire.to_server.extend(self.out.drain(..count));
        self.arrived += count as u64;
        if count > 0 {
            wire.has_arrived = true;
            self.arrived_at = now;
        }
        if self.out.is_empty()
            && let Some(end) = self.hang_up
        {
            wire.end = end;
            wire.has_arrived = true;
        }
    }

    /// Whether it has written something that can arrive.
    pub(crate) fn has_more(&self) -> bool {
        let is_ending = self.hang_up.is_some() && !self.has_hung_up();
        !self.is_silent && !self.has_hung_up() && (!self.out.is_empty() || is_ending)
    }

    // What the server did.

    fn front_is_whole(&self) -> bool {
        let front = self.marks.front();
        front.is_some_and(|mark| mark.end <= self.arrived)
    }

    fn next_said(&mut self) -> Said {
        assert!(
            self.front_is_whole(),
            "{}: heard before it was said",
            self.id
        );
        let mark = self.marks.pop_front();
        mark.expect("there is a front").said
    }

    /// The server has let it in.
    pub(crate) fn admitted(&mut self) {
        assert!(matches!(self.next_said(), Said::Request), "{}", self.id);
        assert_eq!(self.stage, Stage::Connecting);
        self.stage = Stage::Open;
    }

    /// The server has handled a message: which was it?
    pub(crate) fn heard(&mut self, payload: &[u8], is_text: bool) -> Said {
        assert_eq!(self.stage, Stage::Open, "{}", self.id);
        assert!(self.cause.is_none(), "{}: heard behind its end", self.id);
        let said = self.next_said();
        assert_eq!(is_text, !matches!(said, Said::Binary(_)));
        assert!(said.is_message() && said.payload() == payload, "{said:?}");
        said
    }

    /// The server has closed it. What counts is what it had sent by now: when it sees its Close,
    /// the rest may have come.
    pub(crate) fn gone(&mut self, now: u64) {
        assert_eq!(self.stage, Stage::Open, "{}: gone twice", self.id);
        self.stage = Stage::Gone;
        // Who has fallen silent may have done so in the middle of a message.
        let silent_since = self.is_silent.then_some(self.arrived_at);
        let since = self.stuck_at.or(silent_since);
        self.is_late = since.is_some_and(|at| now >= at + MESSAGE_MICROS);
    }

    /// Whether time has reason to close it.
    pub(crate) fn is_overdue(&self, now: u64) -> bool {
        let is_dead = self.is_silent && now >= self.arrived_at + PONG_MICROS;
        is_dead || self.is_late
    }

    pub(crate) fn wants(&self, notification: &Notification<'_>) -> bool {
        let mut subscriptions = self.subscriptions.iter();
        self.stage == Stage::Open && subscriptions.any(|one| matches(one, notification))
    }

    pub(crate) fn expect(&mut self, expected: Expected) {
        assert_eq!(self.stage, Stage::Open, "{}", self.id);
        self.expected.push_back(expected);
    }

    /// Whether its socket doesn't take all that is sent.
    pub(crate) fn is_slow(&self) -> bool {
        let wire = self.wire.borrow();
        wire.is_refused || wire.room != usize::MAX
    }

    /// Whether it has given cause to be closed or dropped, by what has arrived of it.
    pub(crate) fn has_ended_itself(&self) -> bool {
        let is_terminal = |mark: &Mark| !mark.said.is_message() && mark.start < self.arrived;
        self.cause.is_some() || self.marks.front().is_some_and(is_terminal)
    }

    pub(crate) fn has_hung_up(&self) -> bool {
        self.wire.borrow().end != End::None
    }

    pub(crate) fn has_reset(&self) -> bool {
        self.wire.borrow().end == End::Reset
    }

    /// Whether a message that arrived whole was not handled.
    pub(crate) fn has_unheard(&self) -> bool {
        self.front_is_whole()
    }

    // What it got.

    /// Looks at what has come.
    pub(crate) fn take(&mut self, circumstances: Circumstances, dice: &mut Dice) {
        let bytes = {
            let mut wire = self.wire.borrow_mut();
            self.was_refused |= wire.is_refused;
            std::mem::take(&mut wire.from_server)
        };
        self.got.extend(bytes);
        if !self.has_head {
            self.take_head(circumstances);
        }
        while self.has_head
            && !self.is_refused_http
            && let Some(frame) = take_frame(&mut self.got)
        {
            assert!(!self.close_got, "{}: {frame:?} behind the Close", self.id);
            self.take_one(frame, circumstances, dice);
        }
        assert!(!self.close_got || self.got.is_empty(), "{}", self.id);
        let is_shut = self.wire.borrow().is_shut;
        if is_shut && self.answers_close && self.hang_up.is_none() {
            self.hang_up = Some(End::Eof);
        }
    }

    fn take_head(&mut self, circumstances: Circumstances) {
        let Some(end) = self.got.windows(4).position(|four| four == b"\r\n\r\n") else {
            return;
        };
        let head: Vec<_> = self.got.drain(..end + 4).collect();
        let head = String::from_utf8(head).expect("ASCII");
        self.has_head = true;
        if head.starts_with("HTTP/1.1 101 ") {
            assert!(
                self.stage != Stage::Connecting && head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
            );
            return;
        }
        self.is_refused_http = true;
        self.is_done = true;
        let status = &head[..12];
        let is_bad = self.marks.is_empty() || self.marks.front().is_some_and(|mark| mark.start > 0);
        match status {
            "HTTP/1.1 400" => assert!(is_bad, "{head}"),
            "HTTP/1.1 408" => assert!(!self.front_is_whole() || self.was_refused, "{head}; {self}"),
            "HTTP/1.1 503" => assert!(circumstances.may_refuse, "{head}; {self}"),
            _ => panic!("{head}"),
        }
    }

    fn take_one(&mut self, frame: Frame, circumstances: Circumstances, dice: &mut Dice) {
        match frame.opcode {
            TEXT => {
                let text = String::from_utf8(frame.payload).expect("text");
                self.take_text(&text);
            }
            PING => {
                assert!(frame.payload.is_empty());
                if self.wire.borrow().end == End::None {
                    let mut bytes = Vec::new();
                    push_frame(&mut bytes, 0x80 | PONG, b"", dice);
                    self.write(&bytes, None);
                }
            }
            PONG => self.take_pong(&frame.payload),
            _ => self.take_close(&frame.payload, circumstances, dice),
        }
    }

    fn take_text(&mut self, text: &str) {
        let Some(expected) = self.expected.pop_front() else {
            panic!("{}: got {text} and should get nothing", self.id);
        };
        let is_right = match &expected {
            Expected::Exactly(expected) => text == &**expected,
            Expected::Error(code) => {
                let start = format!("{{\"type\":\"error\",\"error\":{{\"code\":\"{code}\",");
                text.starts_with(&start)
            }
            Expected::Published(counts) => counts.are_told_by(text, "{\"type\":\"published\","),
        };
        assert!(is_right, "{}: got {text} for {expected:?}", self.id);
        self.deliveries_got += u64::from(text.contains("\"notification\":"));
    }

    fn take_pong(&mut self, payload: &[u8]) {
        let position = self.pings.iter().position(|(_, ping)| ping == payload);
        let position = position.expect("a Pong for a Ping that it has sent");
        assert!(
            position == 0 || self.was_refused,
            "{}: a Ping was skipped",
            self.id
        );
        assert!(self.pings[position].0 <= self.arrived);
        self.pings.drain(..=position);
    }

    fn take_close(&mut self, payload: &[u8], circumstances: Circumstances, dice: &mut Dice) {
        self.close_got = true;
        assert_eq!(self.stage, Stage::Gone, "{}: closed and not told", self.id);
        let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
        let reason = std::str::from_utf8(payload.get(2..).unwrap_or_default()).expect("text");
        self.check_close(code, reason, circumstances);
        self.is_done = true;
        if self.answers_close && self.wire.borrow().end == End::None {
            let mut bytes = Vec::new();
            push_frame(
                &mut bytes,
                0x80 | CLOSE,
                &payload[..payload.len().min(2)],
                dice,
            );
            self.write(&bytes, None);
        }
    }

    fn check_close(&mut self, code: Option<u16>, reason: &str, circumstances: Circumstances) {
        let says = |word: &str| reason.starts_with(&format!("{{\"reason\":\"{word}\",\"retry\":"));
        let front = self.marks.front().map(|mark| &mark.said);
        let is_right = match (&self.cause, code, front) {
            (Some(Cause::Published(counts)), Some(1000), _) => {
                // Its own queue may be among those that did not take it: it is told so.
                if self.was_refused && reason.contains("dropped") && self.expected.len() == 1 {
                    self.expected.clear();
                }
                counts.are_told_by(reason, "{")
            }
            (Some(Cause::Policy(word)), Some(1008), _) => says(word),
            (Some(Cause::Binary), Some(1003), _) => says("binary-message"),
            (Some(Cause::Shutdown), Some(1001), _) => says("shutdown"),
            (Some(_), ..) => false,
            (None, Some(1013), _) if says("slow-consumer") => {
                self.expected.clear();
                self.was_refused
            }
            (None, Some(1013), _) => {
                self.expected.clear();
                says("overload") && circumstances.may_shed
            }
            (None, Some(1008), _) => says("unfinished-message") && self.is_late,
            (None, code, Some(Said::Close(said))) => code == *said && reason.is_empty(),
            (None, Some(code), Some(Said::Violation(expected))) => {
                let word = match code {
                    1009 => "message-too-big",
                    1007 => "invalid-utf8",
                    _ => "protocol-error",
                };
                code == *expected && says(word)
            }
            (None, ..) => false,
        };
        assert!(
            is_right && self.expected.is_empty(),
            "{}: closed with {code:?} {reason} for {:?}, {front:?}, before {:?}; {self}",
            self.id,
            self.cause,
            self.expected
        );
    }

    // What must hold.

    /// What waits for it is bounded: behind the text that is being written, which may be large,
    /// there is no more than a queue takes.
    pub(crate) fn check_bound(&self, send_queue_bytes_max: usize) {
        let waiting = self.expected.iter().skip(1);
        let bytes: usize = waiting.map(Expected::bytes_min).sum();
        let is_bounded = self.stage != Stage::Open || bytes <= send_queue_bytes_max;
        assert!(is_bounded, "{}: {bytes} bytes wait; {self}", self.id);
    }

    /// Nothing is under way inside of the server: all is handled and written that can be.
    pub(crate) fn check_at_rest(&self) {
        let wire = self.wire.borrow();
        let id = self.id;
        // Who can't be answered may have been refused already.
        let is_refused = self.is_refused_http || self.stage == Stage::Connecting && wire.is_refused;
        if self.stage != Stage::Gone && !is_refused && !self.is_limited {
            assert!(wire.to_server.is_empty(), "{id}: not read");
            let front = self.marks.front();
            assert!(
                !self.front_is_whole(),
                "{id}: not handled: {front:?}; {self}"
            );
            assert_eq!(wire.end, End::None, "{id}: its end was not seen");
        }
        if wire.is_refused || wire.room == 0 || wire.end == End::Reset {
            return;
        }
        match self.stage {
            Stage::Connecting => {}
            Stage::Open => {
                assert!(self.has_head && self.got.is_empty(), "{id}: half a frame");
                assert!(self.expected.is_empty(), "{id}: lost {:?}", self.expected);
                let ping = self.pings.front();
                assert!(
                    self.is_limited || ping.is_none_or(|ping| ping.0 > self.arrived),
                    "{id}: no Pong"
                );
            }
            // Who hung up is not sent a Close.
            Stage::Gone => assert!(self.close_got || wire.end != End::None, "{id}: no Close"),
        }
    }

    /// The server has dropped it.
    pub(crate) fn check_dropped(&self) {
        let id = self.id;
        if self.stage == Stage::Connecting {
            let is_excused = self.is_refused_http || self.has_hung_up() || self.is_slow();
            assert!(is_excused, "{id}: dropped without an answer");
            return;
        }
        assert_eq!(
            self.stage,
            Stage::Gone,
            "{id}: dropped, and nobody was told"
        );
        let is_excused = self.is_silent || self.has_hung_up() || self.is_slow();
        assert!(
            self.close_got || is_excused,
            "{id}: dropped without a Close"
        );
        assert!(!self.close_got || self.got.is_empty(), "{id}: half a frame");
    }
}
