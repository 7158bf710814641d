//! A simulated client: what it says, what it has to get for it, and the check of what it got.
//!
//! The world tells it what the server handled; from then on it knows, to the byte, which texts
//! must come, in which order. Whether it may be closed, and how, is decided here too.

mod due;
mod got;
mod replay;
mod speech;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;

use crieur::application::Lane;
use crieur::hub::filter::{Notification, Subscription, matches};
use crieur::id::ConnectionId;

use crate::dice::Dice;
use crate::trust::{Papers, Right, Trust};
use crate::wire::{End, Wire};

pub(crate) use due::{Cause, Counts, Expected, Receipt, id_told_by};
pub(crate) use replay::{Memory, Replay};
use speech::Mark;
pub(crate) use speech::Said;

/// How long the world's server waits for what, in microseconds.
const PONG_MICROS: u64 = 10_000_000;
const MESSAGE_MICROS: u64 = 60_000_000;
const REQUEST_MICROS: u64 = 10_000_000;
const PROOF_MICROS: u64 = 10_000_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    Connecting,
    Open,
    Gone,
}

/// What the world knows when it hands bytes over.
#[derive(Clone, Copy)]
pub(crate) struct Circumstances {
    /// The time, if the server has just looked at what is over time.
    pub(crate) deadlines_at: Option<u64>,
    pub(crate) may_refuse: bool,
    pub(crate) may_shed: bool,
}

/// A client, its model, and what it got.
pub(crate) struct Client {
    pub(crate) id: ConnectionId,
    pub(crate) wire: Rc<RefCell<Wire>>,
    pub(crate) papers: Papers,
    trust: Trust,
    /// Whether it may publish, by what the server has handled.
    pub(crate) right: Right,
    /// It has written a message that gives it the right to publish.
    has_said_token: bool,
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
    /// Where each message and each control frame ends of which not all has arrived.
    ends: VecDeque<u64>,
    /// When the first byte of one arrived of which not all has arrived.
    begun_at: Option<u64>,
    marks: VecDeque<Mark>,
    /// Pings that are yet to be answered, with where they end.
    pings: VecDeque<(u64, [u8; 8])>,
    /// It sends nothing any more, not even Pongs.
    pub(crate) is_silent: bool,
    /// It has begun a message that it doesn't finish.
    pub(crate) stuck_at: Option<u64>,
    connected_at: u64,
    /// Its time for the upgrade was over, and the server looked. If there was more to be read than there was
    /// time for, it may be given a little longer.
    is_request_late: bool,
    /// There was nothing more to be read then.
    is_request_missing: bool,
    /// It was closed when a message of it may have waited for its end for too long.
    is_late: bool,
    /// By when it has to have shown that it may publish, where only publishers may be.
    proves_by: Option<u64>,
    /// It was closed when that was over.
    is_unproven: bool,
    /// It says nothing new any more.
    pub(crate) is_done: bool,
    answers_close: bool,
    /// How it ends when all it has written has arrived.
    pub(crate) hang_up: Option<End>,
    pub(crate) is_end_told: bool,
    pub(crate) stage: Stage,
    pub(crate) subscriptions: Vec<Subscription<'static>>,
    /// It asks for ids, some time.
    pub(crate) numbers: bool,
    /// What it gets has ids, by what the server has handled.
    pub(crate) is_numbered: bool,
    /// It is being caught up.
    pub(crate) replay: Option<Replay>,
    /// All that was for it up to here it has read.
    pub(crate) last_id: Option<Rc<str>>,
    /// The furthest position in the log of which a text has told that it has read.
    told: u64,
    expected: VecDeque<Expected>,
    pub(crate) cause: Option<Cause>,
    /// A write was refused at some time: Pongs may have been left out since.
    was_refused: bool,
    got: Vec<u8>,
    has_head: bool,
    is_refused_http: bool,
    /// Its upgrade was refused because of its origin.
    is_forbidden: bool,
    close_got: bool,
    pub(crate) deliveries_got: u64,
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wire = self.wire.borrow();
        write!(
            f,
            "{:?}, {:?}, {:?}, {:?}, written {}, arrived {} until {}, room {}, refused {}, {:?}, silent {}, stuck {:?}",
            self.stage,
            self.trust,
            self.papers,
            self.right,
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
        trust: Trust,
        papers: Papers,
        now: u64,
        dice: &mut Dice,
    ) -> Self {
        let mut client = Self {
            id,
            wire,
            papers,
            trust,
            right: papers.right(trust),
            has_said_token: false,
            is_limited: false,
            is_audience: dice.chance(60),
            stays: dice.chance(60),
            out: VecDeque::new(),
            written: 0,
            arrived: 0,
            arrived_at: now,
            ends: VecDeque::new(),
            begun_at: None,
            marks: VecDeque::new(),
            pings: VecDeque::new(),
            is_silent: false,
            stuck_at: None,
            connected_at: now,
            is_request_late: false,
            is_request_missing: false,
            is_late: false,
            proves_by: None,
            is_unproven: false,
            is_done: false,
            answers_close: dice.chance(80),
            hang_up: None,
            is_end_told: false,
            stage: Stage::Connecting,
            subscriptions: Vec::new(),
            numbers: false,
            is_numbered: false,
            replay: None,
            last_id: None,
            told: 0,
            expected: VecDeque::new(),
            cause: None,
            was_refused: false,
            got: Vec::new(),
            has_head: false,
            is_refused_http: false,
            is_forbidden: false,
            close_got: false,
            deliveries_got: 0,
        };
        client.request(dice);
        client
    }

    /// Lets `bytes` of what it has written arrive, and its end if that is all.
    pub(crate) fn arrive(&mut self, bytes: usize, now: u64) {
        let wire = Rc::clone(&self.wire);
        let wire = &mut *wire.borrow_mut();
        if self.is_silent || wire.end != End::None {
            return;
        }
        let count = bytes.min(self.out.len());
        wire.to_server.extend(self.out.drain(..count));
        self.arrived += count as u64;
        if count > 0 {
            wire.has_arrived = true;
            self.arrived_at = now;
            self.note_beginning(now);
        }
        if self.out.is_empty()
            && let Some(end) = self.hang_up
        {
            wire.end = end;
            wire.has_arrived = true;
        }
    }

    fn note_beginning(&mut self, now: u64) {
        let mut last_end = None;
        while self.ends.front().is_some_and(|&end| end <= self.arrived) {
            last_end = self.ends.pop_front();
        }
        if last_end.is_some() {
            self.begun_at = None;
        }
        let is_between = last_end == Some(self.arrived);
        if !is_between && !self.ends.is_empty() {
            self.begun_at.get_or_insert(now);
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

    /// The server has handled its upgrade, and lets it in or not.
    pub(crate) fn answered(&mut self, is_let_in: bool, now: u64) {
        assert!(matches!(self.next_said(), Said::Request), "{}", self.id);
        assert_eq!(self.stage, Stage::Connecting);
        assert!(!self.is_request_missing, "{self}");
        assert_eq!(is_let_in, self.papers.is_let_in(self.trust), "{self}");
        if !is_let_in {
            self.is_forbidden = true;
            return;
        }
        self.stage = Stage::Open;
        if self.papers.lane == Lane::Publishers && self.right != Right::Granted {
            self.proves_by = Some(now + PROOF_MICROS);
        }
    }

    /// The server has heard a notification of it, perhaps with a token: may it publish?
    pub(crate) fn may_publish(&mut self, has_token: bool) -> bool {
        if self.right == Right::WithToken && has_token {
            (self.right, self.is_limited, self.proves_by) = (Right::Granted, false, None);
        }
        self.right == Right::Granted
    }

    /// Whether it is told last that the server stops.
    pub(crate) fn closes_last(&self) -> bool {
        let is_publisher = self.stays && self.right == Right::Granted;
        self.papers.lane == Lane::Publishers || is_publisher
    }

    /// Whether all that it has sent is still handled when it has hung up.
    pub(crate) fn is_drained_after_hang_up(&self) -> bool {
        !self.is_limited || self.right != Right::Never
    }

    /// The server has handled a message: which was it?
    pub(crate) fn heard(&mut self, payload: &[u8], is_text: bool) -> Said {
        assert_eq!(self.stage, Stage::Open, "{}", self.id);
        assert!(self.cause.is_none(), "{}: heard behind its end", self.id);
        // What comes behind a list that waits does too, unless nothing more can come.
        let may_hear = !self.is_held() || self.has_hung_up();
        assert!(may_hear, "{}: heard while a list waits", self.id);
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
        let since = self.stuck_at.or(self.begun_at);
        self.is_late = since.is_some_and(|at| now >= at + MESSAGE_MICROS);
        self.is_unproven = self.proves_by.is_some_and(|by| now >= by);
    }

    /// Whether time has reason to close it.
    pub(crate) fn is_overdue(&self, now: u64) -> bool {
        let is_dead = self.is_silent && now >= self.arrived_at + PONG_MICROS;
        is_dead || self.is_late || self.is_unproven
    }

    pub(crate) fn wants(&self, notification: &Notification<'_>) -> bool {
        let mut subscriptions = self.subscriptions.iter();
        self.stage == Stage::Open && subscriptions.any(|one| matches(one, notification))
    }

    pub(crate) fn expect(&mut self, expected: Expected) {
        assert_eq!(self.stage, Stage::Open, "{}", self.id);
        self.expected.push_back(expected);
    }

    /// A notification of it can't be taken.
    pub(crate) fn refuse_notification(&mut self) {
        self.expect(Expected::Error("invalid-notification"));
        if !self.stays {
            self.cause = Some(Cause::Policy("invalid-notification"));
        }
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

    // What must hold.

    /// What waits for it is bounded: behind the text that is being written, which may be large,
    /// there is no more than a queue takes, beside what the history holds. Entries up to `gone` have left it.
    pub(crate) fn check_bound(&self, send_queue_bytes_max: usize, gone: u64) {
        let waiting = self.expected.iter().skip(1);
        let bytes = waiting.map(|one| one.bytes_min(|position| position <= gone));
        let bytes: usize = bytes.sum();
        let is_bounded = self.stage != Stage::Open || bytes <= send_queue_bytes_max;
        assert!(is_bounded, "{}: {bytes} bytes wait; {self}", self.id);
    }

    /// Nothing is under way inside of the server: all is handled and written that can be.
    pub(crate) fn check_at_rest(&self) {
        let wire = self.wire.borrow();
        let id = self.id;
        let is_told_of_room = wire.is_dropped || !wire.is_refused || !wire.has_room();
        assert!(is_told_of_room, "{id}: it isn't watched for room");
        // A client that can't be answered may have been refused already.
        let is_refused = self.is_refused_http || self.stage == Stage::Connecting && wire.is_refused;
        if self.stage != Stage::Gone && !is_refused && !self.is_limited && !self.is_held() {
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
                assert!(self.replay.is_none(), "{id}: is never caught up");
                let ping = self.pings.front();
                assert!(
                    self.is_limited || ping.is_none_or(|ping| ping.0 > self.arrived),
                    "{id}: no Pong"
                );
            }
            // A client that hung up is not sent a Close.
            Stage::Gone => assert!(
                self.close_got || wire.end != End::None,
                "{id}: no Close; {self}"
            ),
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
