//! A client that numbers what it gets: what it shows when it comes back, and how far it is caught up.

use std::rc::Rc;

use crieur::hub::filter::Subscription;

use crate::dice::Dice;
use crate::frames::{CLOSE, TEXT};
use crate::log::{Log, Moment};

use super::{Cause, Client, Expected, Stage};

/// How far a client is caught up.
#[derive(Debug)]
pub(crate) struct Replay {
    /// All that is for it up to here was queued.
    pub(crate) position: u64,
    pub(crate) missed: u64,
    /// A list that waits until it is caught up.
    pub(crate) held: Option<Vec<Subscription<'static>>>,
}

/// What is left of a client that lost its connection: it comes back with it.
#[derive(Debug)]
pub(crate) struct Memory {
    id: Rc<str>,
    subscriptions: Vec<Subscription<'static>>,
}

impl Client {
    /// What it would come back with.
    pub(crate) fn memory(&self) -> Option<Memory> {
        Some(Memory {
            id: self.last_id.clone()?,
            subscriptions: self.subscriptions.clone(),
        })
    }

    /// The furthest position in the log of which it has got a byte, of it or of what tells of it.
    pub(crate) fn leaked(&self) -> u64 {
        // What is begun of another frame, or of the answer to the upgrade, tells nothing.
        let opcode = self.got.first().filter(|_| self.has_head);
        let begun = opcode.map(|first| match (first & 0x0f, &self.cause) {
            (TEXT, _) => self.expected.front().map_or(0, Expected::position),
            (CLOSE, Some(Cause::Published(receipt))) => receipt.position(),
            _ => 0,
        });
        self.told.max(begun.unwrap_or_default())
    }

    /// Comes back.
    pub(crate) fn come_back(&mut self, memory: Memory, dice: &mut Dice) {
        self.numbers = true;
        if !self.is_done {
            self.subscribe(memory.subscriptions, Some(memory.id), dice);
        }
    }

    /// What it shows with a list.
    pub(super) fn since(&self, log: &Log, dice: &mut Dice) -> Option<Rc<str>> {
        match dice.below(10) {
            0..=2 => None,
            3 | 4 => Some("".into()),
            5 | 6 => Some(self.last_id.clone().unwrap_or_else(|| "".into())),
            7 | 8 => Some(log.any_id(dice)),
            _ => Some(log.invented_id(dice)),
        }
    }

    /// Whether a list of it waits, and all that it says behind it.
    pub(crate) fn is_held(&self) -> bool {
        let replay = self.replay.as_ref();
        replay.is_some_and(|replay| replay.held.is_some())
    }

    /// Begins to be caught up with what is behind a position.
    pub(crate) fn begin_replay(&mut self, position: u64) {
        self.replay = Some(Replay {
            position,
            missed: 0,
            held: None,
        });
    }

    /// One more of what it has missed is queued to it.
    pub(crate) fn advance(&mut self, log: &Log) {
        let replay = self.replay.as_mut();
        let replay = replay.unwrap_or_else(|| panic!("{}: is not being caught up", self.id));
        let next = log.next_match(replay.position, &self.subscriptions);
        let next = next.unwrap_or_else(|| panic!("{}: gets more than it missed", self.id));
        (replay.position, replay.missed) = (next, replay.missed + 1);
        let numbered = Rc::clone(&log.entry(next).numbered);
        self.expect(Expected::Kept(next, numbered));
    }

    /// The server says that it is caught up. Returns a list that has waited for it.
    pub(crate) fn finish_replay(&mut self, log: &Log) -> Option<Vec<Subscription<'static>>> {
        let replay = self.replay.take();
        let replay = replay.unwrap_or_else(|| panic!("{}: is not being caught up", self.id));
        let missing = log.next_match(replay.position, &self.subscriptions);
        assert_eq!(missing, None, "{}: caught up with a hole", self.id);
        let (id, missed) = (log.id(log.head()), replay.missed);
        let text = format!(r#"{{"type":"caught-up","id":"{id}","missed":{missed}}}"#);
        self.expect(Expected::Exactly(text.into()));
        replay.held
    }

    /// A Pong of the server's, while it is being caught up: all that is for it up to the id is queued ahead
    /// of this, and nothing behind it.
    pub(crate) fn take_position(&mut self, pong: &str, log: &Log) {
        let replay = self.replay.as_ref();
        let replay = replay.unwrap_or_else(|| panic!("{}: is not being caught up", self.id));
        let id = pong.strip_prefix(r#"{"type":"pong","id":""#);
        let id = id.and_then(|rest| rest.strip_suffix(r#""}"#));
        let position = id.and_then(|id| log.position(id));
        let next = log.next_match(replay.position, &self.subscriptions);
        let end = next.unwrap_or_else(|| log.head() + 1);
        let is_right = position.is_some_and(|at| (replay.position..end).contains(&at));
        assert!(is_right, "{}: {pong} for {replay:?}", self.id);
        self.expect(Expected::Exactly(pong.into()));
    }

    /// Whether something that it was promised may have left the history.
    pub(crate) fn may_be_broken(&self, log: &Log) -> bool {
        let replay = self.replay.as_ref();
        replay.is_some_and(|replay| {
            let next = replay.position + 1;
            next <= log.head() && !log.is_within_bytes(next)
        })
    }

    /// Whether its queue can be full, beside what the history holds for certain.
    pub(crate) fn may_be_full(&self, send_queue_bytes_max: usize, log: &Log, now: Moment) -> bool {
        let is_counted = |position| !log.is_there(position, now);
        let waiting = self.expected.iter();
        let bytes = waiting.map(|one| one.bytes_max(is_counted));
        bytes.sum::<usize>() + self.others_bytes_max() > send_queue_bytes_max
    }

    /// What it is sent beside texts: the answer to its upgrade, Pings, Pongs.
    fn others_bytes_max(&self) -> usize {
        300 + 20 * self.pings.len()
    }

    /// Whether what is published now is for it at once.
    pub(crate) fn is_live(&self) -> bool {
        self.stage == Stage::Open && self.replay.is_none()
    }
}
