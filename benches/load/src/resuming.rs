//! What a client that comes back with an id must get (protocol, 6.1): the answer that it is resumed
//! from there, all that it missed, each once, in order, byte for byte, and `caught-up` with the
//! right count. Behind that it is a subscriber like all others, and the checker's.
//!
//! Entry number N of the backlog is for the clients of channel N modulo the number of channels, and
//! its sequence number is N. Knows no sockets and no clock.

use std::collections::HashSet;

use crate::checker::{Fault, Progress, describe, first_difference};
use crate::frame::{self, PING, PONG, TEXT};
use crate::id::Id;
use crate::message::{self, Layout, push_numbered_frame};

const SUBSCRIBED_START: &[u8] = b"{\"type\":\"subscribed\",";
const CAUGHT_UP_START: &[u8] = b"{\"type\":\"caught-up\",";

/// All that is published while the clients are away.
#[derive(Debug)]
pub(crate) struct Backlog {
    layout: Layout,
    channels: usize,
    hits: usize,
    /// The frame of each entry, as far as entries have their ids.
    frames: Vec<Vec<u8>>,
    ids: HashSet<Id>,
}

impl Backlog {
    /// A backlog of `entries`, of which each client gets `hits`.
    pub(crate) fn new(layout: Layout, entries: usize, hits: usize) -> Result<Self, String> {
        if !entries.is_multiple_of(hits) {
            return Err(format!(
                "{entries} entries can't be {hits} for each client: --hits divides --entries"
            ));
        }
        Ok(Self {
            layout,
            channels: entries / hits,
            hits,
            frames: Vec::with_capacity(entries),
            ids: HashSet::with_capacity(entries),
        })
    }

    pub(crate) const fn channels(&self) -> usize {
        self.channels
    }

    /// All entries, published or not.
    pub(crate) const fn entries(&self) -> usize {
        self.channels * self.hits
    }

    /// The value that a channel's notifications have; 0 is left for others.
    pub(crate) const fn value_of(channel: usize) -> u32 {
        channel as u32 + 1
    }

    /// Appends the notification of an entry.
    pub(crate) fn push_notification(&self, number: usize, out: &mut Vec<u8>) {
        let value = Self::value_of(number % self.channels);
        self.layout.push_notification(number as u64, value, out);
    }

    /// Notes which id the next entry was given.
    ///
    /// # Errors
    /// No id, or an earlier entry's.
    pub(crate) fn published(&mut self, id: Option<Id>) -> Result<(), String> {
        let sequence = self.frames.len() as u64;
        let id = id.ok_or("a receipt without an id: is the server's history off?")?;
        if !self.ids.insert(id) {
            return Err(Fault::RepeatedId { sequence, id }.to_string());
        }
        let [mut notification, mut frame] = [Vec::new(), Vec::new()];
        self.push_notification(self.frames.len(), &mut notification);
        push_numbered_frame(&id, &notification, &mut frame);
        self.frames.push(frame);
        Ok(())
    }

    /// The list of a client of a channel.
    pub(crate) fn subscribe(&self, channel: usize, since: Option<&[u8]>) -> Vec<u8> {
        let value = Self::value_of(channel);
        self.layout.subscribe(std::iter::once(value), since)
    }

    /// The number of the `hit`th entry of a channel.
    const fn number_of(&self, channel: usize, hit: usize) -> usize {
        hit * self.channels + channel
    }
}

/// How far a client is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// The answer to its list is awaited.
    Asking,
    /// It is being sent what it missed.
    Replay,
    CaughtUp,
}

/// A client that comes back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resume {
    channel: usize,
    since: Id,
    stage: Stage,
    /// How many of its hits have arrived.
    got: usize,
}

impl Resume {
    /// A client of a channel that has shown an id.
    pub(crate) const fn new(channel: usize, since: Id) -> Self {
        Self {
            channel,
            since,
            stage: Stage::Asking,
            got: 0,
        }
    }

    pub(crate) fn is_caught_up(&self) -> bool {
        self.stage == Stage::CaughtUp
    }

    /// Looks at what the client got, up to `caught-up` and no further. `member` is what it is
    /// called in faults.
    ///
    /// # Errors
    /// Anything but what it must get next.
    pub(crate) fn receive(
        &mut self,
        backlog: &Backlog,
        member: usize,
        bytes: &[u8],
    ) -> Result<Progress, Fault> {
        let mut progress = Progress::default();
        while !self.is_caught_up() {
            let rest = &bytes[progress.consumed..];
            if let Some(frame) = self.expected(backlog)
                && rest.starts_with(frame)
            {
                progress.consumed += frame.len();
                progress.deliveries += 1;
                self.got += 1;
                continue;
            }
            let unexpected = |what| Fault::Unexpected { member, what };
            let Some(header) = frame::scan(rest).map_err(unexpected)? else {
                break;
            };
            let Some(payload) = rest.get(header.header_len..header.frame_len()) else {
                break;
            };
            match (header.opcode, self.stage) {
                (PING, _) => progress.pings += 1,
                (PONG, _) => {}
                (TEXT, Stage::Asking) => self.understand_answer(member, payload)?,
                (TEXT, _) if payload.starts_with(CAUGHT_UP_START) => {
                    self.understand_caught_up(backlog, member, payload)?;
                }
                (TEXT, _) => {
                    let frame = &rest[..header.frame_len()];
                    return Err(self.fault(backlog, member, frame, payload));
                }
                (opcode, _) => return Err(unexpected(describe(opcode, payload))),
            }
            progress.consumed += header.frame_len();
        }
        Ok(progress)
    }

    /// The next hit.
    fn expected<'a>(&self, backlog: &'a Backlog) -> Option<&'a [u8]> {
        if self.stage != Stage::Replay || self.got == backlog.hits {
            return None;
        }
        let number = backlog.number_of(self.channel, self.got);
        backlog.frames.get(number).map(|frame| &frame[..])
    }

    fn understand_answer(&mut self, member: usize, payload: &[u8]) -> Result<(), Fault> {
        let unexpected = |what| Fault::Unexpected { member, what };
        let id = message::id_of(payload).map_err(unexpected)?;
        let shown = String::from_utf8_lossy(payload);
        let is_right = payload.starts_with(SUBSCRIBED_START)
            && message::number_of(payload, "subscriptions") == Some(1)
            && shown.contains("\"resumed\":true");
        if !is_right || id != Some(self.since) {
            return Err(unexpected(format!(
                "an answer that doesn't resume it from {}: {shown} (\"expired\": see the server's \
                 --history-bytes and --history-seconds)",
                self.since
            )));
        }
        self.stage = Stage::Replay;
        Ok(())
    }

    fn understand_caught_up(
        &mut self,
        backlog: &Backlog,
        member: usize,
        payload: &[u8],
    ) -> Result<(), Fault> {
        if self.got < backlog.hits {
            return Err(Fault::Skipped {
                member,
                sequence: backlog.number_of(self.channel, self.got) as u64,
                missing: backlog.hits - self.got,
            });
        }
        let unexpected = |what| Fault::Unexpected { member, what };
        let id = message::id_of(payload).map_err(unexpected)?;
        let missed = message::number_of(payload, "missed");
        if id.is_none() || missed != Some(backlog.hits as u64) {
            let what = describe(TEXT, payload);
            return Err(unexpected(format!("after {} hits: {what}", self.got)));
        }
        self.stage = Stage::CaughtUp;
        Ok(())
    }

    /// What is wrong with a text that isn't the next.
    fn fault(&self, backlog: &Backlog, member: usize, frame: &[u8], payload: &[u8]) -> Fault {
        let what = || format!("before caught-up: {}", describe(TEXT, payload));
        let Some(sequence) = backlog.layout.sequence_of(payload) else {
            return Fault::Unexpected {
                member,
                what: what(),
            };
        };
        let number = usize::try_from(sequence).unwrap_or(usize::MAX);
        if number >= backlog.entries() {
            return Fault::Unexpected {
                member,
                what: what(),
            };
        }
        if number % backlog.channels != self.channel {
            return Fault::Misdirected { member, sequence };
        }
        let hit = number / backlog.channels;
        if hit < self.got {
            return Fault::Doubled { member, sequence };
        }
        let expected = self.expected(backlog).unwrap_or_default();
        if hit == self.got {
            return Fault::Damaged {
                member,
                sequence,
                offset: first_difference(expected, frame),
            };
        }
        Fault::OutOfOrder {
            member,
            sequence,
            expected: backlog.number_of(self.channel, self.got) as u64,
        }
    }
}

#[cfg(test)]
#[path = "resuming_tests.rs"]
mod tests;
