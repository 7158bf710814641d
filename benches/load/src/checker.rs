//! What must arrive, and what did: every notification exactly once at every member of its
//! group, whole, in the order in which each publisher sent it, and in one order for the group.
//!
//! The first member that a notification reaches settles its place in its group's order; for all
//! others one comparison with the bytes that are expected next says everything. Knows no sockets
//! and no clock.
//!
//! Invariants: a notification stands in its group's order once at most; it leaves it when the
//! last member has it, which is always the front; a slot is free again when that has happened
//! and its publisher was answered.

mod fault;

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::mem;

use crate::frame::{self, CLOSE, PING, PONG, TEXT};
use crate::histogram::Histogram;
use crate::id::Id;
use crate::message::{self, Layout, push_numbered_frame};

pub(crate) use fault::Fault;

/// A notification under way.
#[derive(Debug, Default)]
struct Slot {
    sequence: u64,
    group: usize,
    publisher: usize,
    notification: Vec<u8>,
    /// The frame that every member is to get that isn't numbered.
    frame: Vec<u8>,
    /// The frame that the others are to get; empty as long as none has it.
    numbered_frame: Vec<u8>,
    /// Its id, as soon as a delivery or the receipt has told it.
    id: Option<Id>,
    /// Members that don't have it yet.
    remaining: usize,
    is_ordered: bool,
    is_answered: bool,
    sent_at: u64,
}

/// Subscribers that all get the same.
#[derive(Debug, Default)]
struct Group {
    members: usize,
    /// Slots in the order of arrival, as far as a member is without them.
    order: VecDeque<u32>,
    /// How many have left the order at its front.
    base: u64,
    /// The highest sequence number of each publisher that has arrived, plus one.
    floor: Vec<u64>,
    /// Where the newest stands in the stream, of those whose ids were known when they arrived.
    place: Option<(u64, u64)>,
}

#[derive(Debug)]
struct Member {
    group: usize,
    is_numbered: bool,
    /// How many notifications have arrived.
    position: u64,
}

/// What a look at a member's input found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Progress {
    /// Bytes that are dealt with; the rest is an incomplete frame.
    pub(crate) consumed: usize,
    pub(crate) deliveries: u64,
    /// The server's Pings, each to be answered with an empty Pong.
    pub(crate) pings: u32,
}

/// The account of all notifications.
pub(crate) struct Checker {
    layout: Layout,
    groups: Vec<Group>,
    members: Vec<Member>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_sequence: HashMap<u64, u32>,
    next_sequence: u64,
    /// Hashes of all ids: of so many numbers of 64 bits no two are the same by chance.
    ids: HashSet<u64>,
    /// Whether all ids are those of a stream.
    is_of_stream: bool,
    hasher: RandomState,
    latencies: Histogram,
}

impl Checker {
    /// A checker for groups of `sizes` members; members are numbered group after group.
    pub(crate) fn new(layout: Layout, sizes: &[usize], publishers: usize) -> Self {
        let group = |&members: &usize| Group {
            members,
            floor: vec![0; publishers],
            ..Group::default()
        };
        let members = sizes.iter().enumerate().flat_map(|(group, &size)| {
            let member = move |_| Member {
                group,
                is_numbered: false,
                position: 0,
            };
            (0..size).map(member)
        });
        Self {
            layout,
            groups: sizes.iter().map(group).collect(),
            members: members.collect(),
            slots: Vec::new(),
            free: Vec::new(),
            by_sequence: HashMap::new(),
            next_sequence: 0,
            ids: HashSet::new(),
            is_of_stream: false,
            hasher: RandomState::new(),
            latencies: Histogram::default(),
        }
    }

    /// Has a member's deliveries expected with ids.
    pub(crate) fn number(&mut self, member: usize) {
        self.members[member].is_numbered = true;
    }

    /// Has ids of a stream expected (protocol, 8).
    pub(crate) const fn expect_stream(&mut self) {
        self.is_of_stream = true;
    }

    /// Numbers what is sent from `sequence` on: what is below has been sent by others.
    pub(crate) const fn begin_at(&mut self, sequence: u64) {
        self.next_sequence = sequence;
    }

    /// Notes that a notification is sent now. Returns its slot. `publisher` is one of which
    /// order is expected, or `None`.
    pub(crate) fn send(
        &mut self,
        group: usize,
        value: u32,
        publisher: Option<usize>,
        now: u64,
    ) -> usize {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        let [mut notification, mut frame, mut numbered_frame] = [
            mem::take(&mut slot.notification),
            mem::take(&mut slot.frame),
            mem::take(&mut slot.numbered_frame),
        ];
        [&mut notification, &mut frame, &mut numbered_frame]
            .into_iter()
            .for_each(Vec::clear);
        self.layout
            .push_notification(sequence, value, &mut notification);
        self.layout.push_frame(value, &notification, &mut frame);
        *slot = Slot {
            sequence,
            group,
            publisher: publisher.unwrap_or(usize::MAX),
            notification,
            frame,
            numbered_frame,
            id: None,
            remaining: self.groups[group].members,
            is_ordered: false,
            is_answered: false,
            sent_at: now,
        };
        self.by_sequence.insert(sequence, index);
        index as usize
    }

    /// The notification in a slot.
    pub(crate) fn notification(&self, slot: usize) -> &[u8] {
        &self.slots[slot].notification
    }

    /// How many members are to get the notification in a slot.
    pub(crate) fn recipients(&self, slot: usize) -> u32 {
        self.groups[self.slots[slot].group].members as u32
    }

    /// Notes that the publisher of a notification was answered, and which id it was told.
    ///
    /// # Errors
    /// An id that is another's, or not the one of the deliveries.
    pub(crate) fn answered(&mut self, slot: usize, id: Option<Id>) -> Result<(), Fault> {
        let Slot {
            sequence,
            id: settled,
            ..
        } = self.slots[slot];
        match (settled, id) {
            (Some(settled), told) if told != Some(settled) => {
                return Err(Fault::DifferentId {
                    sequence,
                    settled,
                    told,
                });
            }
            (None, Some(id)) => self.settle_id(slot, id)?,
            _ => {}
        }
        self.slots[slot].is_answered = true;
        self.free_if_finished(slot);
        Ok(())
    }

    /// Gives a notification its id.
    fn settle_id(&mut self, slot: usize, id: Id) -> Result<(), Fault> {
        let Slot { sequence, .. } = self.slots[slot];
        if self.is_of_stream && id.place().is_none() {
            return Err(Fault::OwnId { sequence, id });
        }
        if !self.ids.insert(self.hasher.hash_one(id)) {
            return Err(Fault::RepeatedId { sequence, id });
        }
        self.slots[slot].id = Some(id);
        Ok(())
    }

    /// Notifications that aren't finished.
    pub(crate) fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Notifications that were sent.
    pub(crate) const fn sent(&self) -> u64 {
        self.next_sequence
    }

    /// The latencies of deliveries, from the time that [`Checker::send`] was given.
    pub(crate) const fn latencies(&mut self) -> &mut Histogram {
        &mut self.latencies
    }

    /// Looks at what a member got.
    ///
    /// # Errors
    /// A delivery that is doubled, out of order, damaged or not meant for the member, or
    /// anything else that a subscriber should not see.
    pub(crate) fn receive(
        &mut self,
        member: usize,
        bytes: &[u8],
        now: u64,
    ) -> Result<Progress, Fault> {
        let mut progress = Progress::default();
        loop {
            let rest = &bytes[progress.consumed..];
            if rest.is_empty() {
                return Ok(progress);
            }
            if let Some(slot) = self.expected(member)
                && let Some(frame) = self.frame_for(member, slot)
                && rest.starts_with(frame)
            {
                progress.consumed += frame.len();
                progress.deliveries += 1;
                self.deliver(member, slot, now);
                continue;
            }
            let unexpected = |what| Fault::Unexpected { member, what };
            let Some(header) = frame::scan(rest).map_err(unexpected)? else {
                return Ok(progress);
            };
            let Some(payload) = rest.get(header.header_len..header.frame_len()) else {
                return Ok(progress);
            };
            match header.opcode {
                TEXT => {
                    let slot = self.settle(member, &rest[..header.frame_len()], payload)?;
                    self.deliver(member, slot, now);
                    progress.deliveries += 1;
                }
                PING => progress.pings += 1,
                PONG => {}
                opcode => return Err(unexpected(describe(opcode, payload))),
            }
            progress.consumed += header.frame_len();
        }
    }

    /// The slot that the group's order has next for a member.
    fn expected(&self, member: usize) -> Option<usize> {
        let Member {
            group, position, ..
        } = self.members[member];
        let group = &self.groups[group];
        let index = (position - group.base) as usize;
        group.order.get(index).map(|&slot| slot as usize)
    }

    /// What a member is to get for the notification in a slot, as far as that is known.
    fn frame_for(&self, member: usize, slot: usize) -> Option<&[u8]> {
        let slot = &self.slots[slot];
        let frame = if self.members[member].is_numbered {
            &slot.numbered_frame
        } else {
            &slot.frame
        };
        (!frame.is_empty()).then_some(frame)
    }

    fn deliver(&mut self, member: usize, slot_index: usize, now: u64) {
        let slot = &mut self.slots[slot_index];
        self.members[member].position += 1;
        self.latencies.record(now.saturating_sub(slot.sent_at));
        slot.remaining -= 1;
        if slot.remaining == 0 {
            let group = &mut self.groups[slot.group];
            let front = group.order.pop_front();
            debug_assert_eq!(front, Some(slot_index as u32));
            group.base += 1;
            self.free_if_finished(slot_index);
        }
    }

    /// The first numbered delivery of a notification, which tells its id unless the receipt has.
    fn settle_numbered(
        &mut self,
        member: usize,
        index: usize,
        payload: &[u8],
    ) -> Result<(), Fault> {
        let Some(id) = message::id_of_delivery(payload) else {
            let what = format!("no id: {}", describe(TEXT, payload));
            return Err(Fault::Unexpected { member, what });
        };
        match self.slots[index].id {
            None => self.settle_id(index, id)?,
            Some(settled) if settled != id => {
                return Err(Fault::DifferentId {
                    sequence: self.slots[index].sequence,
                    settled,
                    told: Some(id),
                });
            }
            Some(_) => {}
        }
        let slot = &mut self.slots[index];
        push_numbered_frame(&id, &slot.notification, &mut slot.numbered_frame);
        Ok(())
    }

    /// A text that isn't what the order says: a notification's first arrival, or a fault.
    fn settle(&mut self, member: usize, frame: &[u8], payload: &[u8]) -> Result<usize, Fault> {
        let expected = self.expected(member);
        let Some(sequence) = self.layout.sequence_of(payload) else {
            let wanted = expected.and_then(|slot| Some((slot, self.frame_for(member, slot)?)));
            return Err(match wanted {
                Some((slot, wanted)) if wanted.len() == frame.len() => {
                    damaged(member, &self.slots[slot], wanted, frame)
                }
                _ => Fault::Unexpected {
                    member,
                    what: describe(TEXT, payload),
                },
            });
        };
        let Some(&index) = self.by_sequence.get(&sequence) else {
            return Err(if sequence < self.next_sequence {
                Fault::Doubled { member, sequence }
            } else {
                Fault::Unexpected {
                    member,
                    what: format!("notification {sequence}, which was never sent"),
                }
            });
        };
        let index = index as usize;
        if self.members[member].group != self.slots[index].group {
            return Err(Fault::Misdirected { member, sequence });
        }
        if self.members[member].is_numbered && self.slots[index].numbered_frame.is_empty() {
            self.settle_numbered(member, index, payload)?;
        }
        let wanted = self.frame_for(member, index).unwrap_or_default();
        if wanted != frame {
            return Err(damaged(member, &self.slots[index], wanted, frame));
        }
        if expected == Some(index) {
            return Ok(index);
        }
        let slot = &mut self.slots[index];
        let group = &mut self.groups[slot.group];
        if let Some(expected) = expected {
            let place = group
                .order
                .iter()
                .position(|&other| other as usize == index);
            let own = self.members[member].position - group.base;
            let is_past = slot.is_ordered && place.is_none_or(|place| (place as u64) < own);
            return Err(if is_past {
                Fault::Doubled { member, sequence }
            } else {
                Fault::OutOfOrder {
                    member,
                    sequence,
                    expected: self.slots[expected].sequence,
                }
            });
        }
        if slot.is_ordered {
            return Err(Fault::Doubled { member, sequence });
        }
        if let Some(floor) = group.floor.get_mut(slot.publisher) {
            if sequence < *floor {
                return Err(Fault::Overtaken { member, sequence });
            }
            *floor = sequence + 1;
        }
        if let Some((id, place)) = slot.id.and_then(|id| Some((id, id.place()?))) {
            if group.place.is_some_and(|last| last >= place) {
                return Err(Fault::Descending {
                    member,
                    sequence,
                    id,
                });
            }
            group.place = Some(place);
        }
        slot.is_ordered = true;
        group.order.push_back(index as u32);
        Ok(index)
    }

    fn free_if_finished(&mut self, index: usize) {
        let slot = &self.slots[index];
        if slot.is_answered && slot.remaining == 0 {
            self.by_sequence.remove(&slot.sequence);
            self.free.push(index as u32);
        }
    }

    /// The first notification that has not reached everybody, once no more can come.
    pub(crate) fn lost(&self) -> Option<Fault> {
        let is_lost =
            |slot: &&Slot| slot.remaining > 0 && self.by_sequence.contains_key(&slot.sequence);
        let slot = self
            .slots
            .iter()
            .filter(is_lost)
            .min_by_key(|slot| slot.sequence)?;
        let group = &self.groups[slot.group];
        let place = group
            .order
            .iter()
            .position(|&other| self.slots[other as usize].sequence == slot.sequence);
        let place = group.base + place.unwrap_or(group.order.len()) as u64;
        let is_without = |member: &Member| member.group == slot.group && member.position <= place;
        Some(Fault::Lost {
            member: self.members.iter().position(is_without).unwrap_or(0),
            sequence: slot.sequence,
            missing: slot.remaining,
        })
    }
}

fn damaged(member: usize, slot: &Slot, wanted: &[u8], frame: &[u8]) -> Fault {
    Fault::Damaged {
        member,
        sequence: slot.sequence,
        offset: first_difference(wanted, frame),
    }
}

/// Where two frames begin to differ.
pub(crate) fn first_difference(wanted: &[u8], got: &[u8]) -> usize {
    let differs = wanted.iter().zip(got).position(|(a, b)| a != b);
    differs.unwrap_or_else(|| wanted.len().min(got.len()))
}

/// Words for a frame that has no place among deliveries.
pub(crate) fn describe(opcode: u8, payload: &[u8]) -> String {
    if opcode == CLOSE {
        let (code, reason) = payload.split_at_checked(2).unwrap_or((&[], &[]));
        let code = code.iter().fold(0, |sum, &byte| sum << 8 | u32::from(byte));
        return format!("a Close {code} {}", String::from_utf8_lossy(reason));
    }
    let shown = &payload[..payload.len().min(200)];
    format!(
        "a frame of opcode {opcode:#x}: {}",
        String::from_utf8_lossy(shown)
    )
}

#[cfg(test)]
#[path = "checker_tests.rs"]
mod tests;
