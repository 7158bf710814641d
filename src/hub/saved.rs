//! What a successor must know of a hub: its history and its counters, and of each connection its rights, what it has shown,
//! what it has subscribed to, and how far it is caught up.
//!
//! Each part writes and reads itself, in the file of its type; here is what holds them together, and in which order they
//! enter the tables.
//!
//! | member | of a connection's record | file |
//! | --- | --- | --- |
//! | 1, 2 | whether it may publish, and stays | `connections.rs` |
//! | 3 - 7, 18 | what it has shown | `clearances.rs` |
//! | 8 | its list | here |
//! | 9 - 11 | what its list amounts to | `holdings.rs` |
//! | 12 - 15, 19, 22 | where it is while it is being caught up | `replays.rs` |
//! | 16 | what is owed to it | `owed/saved.rs` |
//! | 17, 20 | whether its deliveries are numbered; the rate of its address | here |
//! | 21, 23 | how long its list waits for an id; whether it isn't read | here |
//! | 24 | whose token it has shown | `clearances.rs` |
//! | 25 | from which position on its list counts | here |
//! | 26 | whether it is the operator's own | `connections.rs` |

use std::io;
use std::net::IpAddr;

use super::Hub;
use super::access::addresses::IdleAddress;
use super::ahead::Waiting;
use super::clearances::Clearance;
use super::command;
use super::connections::Rights;
use super::filter::Subscription;
use super::gap::Gap;
use super::holdings::Holdings;
use super::owed::Line;
use super::owed::saved::POST_RECORD;
use super::replays::Cursor;
use crate::application::{Peer, State};
use crate::handover::{Fields, Malformed, Members};
use crate::id::ConnectionId;
use crate::journal::entry::Entry;
use crate::journal::id::Position;
use crate::journal::saved::{ENTRY_RECORD, JOURNAL_RECORD};
use crate::metrics::HubMetrics;
use crate::metrics::saved::Counters;
use crate::redis::Redis;
use crate::time::Timestamp;
use crate::wire::carried::{FrameNumbers, Frames};

// Kinds of records, beside those of the history, which come first.
const HUB: u8 = 10;
const ADDRESS: u8 = 11;

// Members of HUB.
const METRICS: u8 = 1;
const EXPIRY_DUE: u8 = 2;
const GAP: u8 = 3;

/// As JSON. Of a connection that is live, it is what the index makes of its list.
const LIST: u8 = 8;
const OWED: u8 = 16;
const IS_NUMBERED: u8 = 17;
/// When the bucket of its address is full again: told with each of the connections of the address.
const ADDRESS_FULL_AT: u8 = 20;
/// Until when the list at the front of what is owed to it waits for its id.
const WAITS_UNTIL: u8 = 21;
/// Of one that isn't read since much is owed to it, and goes on when half of that is left.
const IS_PAUSED: u8 = 23;

/// One more than the position from which on its list counts.
const COVERS_FROM: u8 = 25;

/// What a connection has subscribed to.
enum Restored<'a> {
    /// It is in the index.
    Live(Vec<Subscription<'a>>, Holdings),
    /// It is being caught up.
    Behind(Box<Cursor>),
}

impl Hub {
    /// Writes what is of no connection in particular. The frames of the history get the first numbers.
    ///
    /// # Errors
    /// As those of `state`.
    pub fn save(&self, state: &mut State<'_>, frames: &mut FrameNumbers) -> io::Result<()> {
        let Self {
            // From arguments and files.
            config: _,
            ping_interval: _,
            policy: _,
            reload: _,
            slice: _,
            addresses,
            // With each connection.
            connections: _,
            clearances: _,
            index: _,
            numbered: _,
            replays: _,
            journal,
            // Of a process: its key is a secret that nobody else has to know.
            fingerprinter: _,
            // Empty between two notifications.
            fingerprints: _,
            recipients: _,
            expiry_due,
            metrics,
            // Begin anew.
            list_log: _,
            forbidden_log: _,
            stranger_log: _,
            recent: _,
            resume_log: _,
            entry_log: _,
            // With each connection.
            paused: _,
            ahead: _,
            // From arguments.
            ahead_wait: _,
            redis,
            owed,
            gap,
        } = self;
        if let Some(redis) = redis {
            redis.save(state)?;
        }
        journal.save(state, frames)?;
        state.record(HUB, |members| {
            members.numbers(METRICS, &metrics.save());
            members.time(EXPIRY_DUE, *expiry_due);
            if let Some(gap) = gap {
                members.nested(GAP, |members| gap.save(members));
            }
        })?;
        owed.save(state)?;
        for address in addresses.save() {
            state.record(ADDRESS, |members| address.save(members))?;
        }
        Ok(())
    }

    /// Takes a record that [`Hub::save`] has written; all of them come ahead of the connections. Others are skipped.
    ///
    /// # Errors
    /// It can't go on from there.
    pub fn restore(
        &mut self,
        kind: u8,
        fields: &Fields<'_>,
        frames: &mut Frames,
        now: Timestamp,
    ) -> Result<(), Malformed> {
        match kind {
            kind if Redis::is_record(kind) => {
                let redis = self.redis.as_mut();
                let redis = redis.ok_or(Malformed("the server before it had --redis"))?;
                redis.restore(kind, fields, now)?;
            }
            JOURNAL_RECORD => self.journal.go_on(fields)?,
            ENTRY_RECORD => {
                let notification = Entry::saved_notification(fields)?;
                let fingerprints = &mut self.fingerprints;
                fingerprints.clear();
                if let Some(notification) = command::parse_notification(notification) {
                    self.fingerprinter.write(&notification, fingerprints);
                }
                self.journal.carry(fields, fingerprints, frames)?;
            }
            HUB => {
                self.journal.check_carried()?;
                self.metrics = HubMetrics::restore(fields.numbers(METRICS));
                self.recent.since = now;
                self.expiry_due = fields.time(EXPIRY_DUE);
                self.schedule_expiry(now);
                let gap = fields.nested(GAP)?;
                let gap = gap.map(|fields| Gap::restore(&fields, self.journal.head()));
                self.gap = gap.transpose()?;
            }
            POST_RECORD => {
                let redis = self.redis.as_ref();
                let awaits = |nonce| redis.is_some_and(|redis| redis.awaits(nonce));
                self.owed.restore_post(fields, awaits)?;
            }
            ADDRESS => self.restore_address(fields, now)?,
            _ => {}
        }
        Ok(())
    }

    /// Writes what is known of an admitted connection.
    pub fn save_connection(&self, id: ConnectionId, members: &mut Members<'_>) {
        let Some((rights, peer)) = self.connections.find(id) else {
            debug_assert!(false, "{id} was admitted");
            return;
        };
        rights.save(members);
        if self.holdings_of(id).subscriptions > 0 {
            let Position(position) = self.connections.covers_from(id);
            members.number(COVERS_FROM, position.saturating_add(1));
        }
        self.clearances.save(id, members);
        members.number(IS_NUMBERED, u64::from(self.numbered.contains(id)));
        let counted = self.policy.counted_address(rights.publish, peer.into());
        let full_at = counted.and_then(|address| self.addresses.full_at(address));
        members.time(ADDRESS_FULL_AT, full_at);
        if let Some(line) = self.owed.line(id) {
            members.nested(OWED, |members| line.save(members));
            let until = line.awaits().and_then(|since| self.ahead.until(id, since));
            members.time(WAITS_UNTIL, until);
            members.number(IS_PAUSED, u64::from(self.paused.contains(id)));
        }
        if let Some(cursor) = self.replays.get(id) {
            write_list(cursor.subscriptions(), members);
            return cursor.save(members);
        }
        let holdings = self.index.holdings_of(id);
        if holdings.subscriptions > 0 {
            write_list(&self.index.list_of(id), members);
            holdings.save(members);
        }
    }

    /// Goes on with a connection that an earlier process had admitted, whose peer is the one that it was admitted for. The
    /// history is there already. `id` is of a slot that nobody is in, among as many as the shell has.
    ///
    /// # Errors
    /// What was written can't be what a hub writes; then nothing is changed.
    pub fn restore_connection(
        &mut self,
        id: ConnectionId,
        peer: Peer,
        fields: &Fields<'_>,
        now: Timestamp,
    ) -> Result<(), Malformed> {
        // First all that can fail.
        let rights = Rights::restore(fields)?;
        let clearance = Clearance::restore(fields)?;
        let is_numbered = fields.number(IS_NUMBERED) != 0;
        let restored = self.read_subscriptions(is_numbered, fields)?;
        let holds_list = matches!(&restored, Restored::Behind(cursor) if cursor.held.is_some());
        let owed = self.read_owed(id, holds_list, fields, now)?;
        // An older program hasn't said it: what is known begins now.
        let head = self.journal.head();
        let covers_from = fields.number(COVERS_FROM).checked_sub(1);
        let covers_from = covers_from.map_or(head, Position);

        self.connections.insert(id, peer, rights);
        self.connections.note_list(id, covers_from);
        if let Some(address) = self.policy.counted_address(rights.publish, peer.address) {
            self.carry_address(address, &restored, fields, now);
        }
        if let Some(clearance) = clearance {
            self.clearances.carry(id, clearance);
        }
        if is_numbered {
            self.numbered.insert(id);
        }
        match restored {
            Restored::Live(list, holdings) => self.index.restore(id, &list, holdings),
            Restored::Behind(cursor) => self.replays.carry(id, *cursor),
        }
        if let Some((line, waiting)) = owed {
            self.owed.carry(id, line);
            waiting
                .into_iter()
                .for_each(|waiting| self.ahead.insert(waiting));
            self.ahead.look_again();
        }
        if holds_list || fields.number(IS_PAUSED) != 0 {
            self.paused.insert(id);
        }
        Ok(())
    }

    /// What is owed to a connection, and for what its list waits.
    fn read_owed(
        &self,
        id: ConnectionId,
        holds_list: bool,
        fields: &Fields<'_>,
        now: Timestamp,
    ) -> Result<Option<(Line, Option<Waiting>)>, Malformed> {
        let Some(line) = fields.nested(OWED)? else {
            return Ok(None);
        };
        let line = Line::restore(&line)?;
        let redis = self.redis.as_ref();
        let is_awaited = |nonce| redis.is_some_and(|redis| redis.awaits(nonce));
        let is_stuck = line.is_known() && !holds_list || !line.open().all(is_awaited);
        if is_stuck || !self.owed.fit(line.open()) {
            return Err(Malformed("what is owed to a client will never be told"));
        }
        let until = fields.time(WAITS_UNTIL);
        let waiting = line.awaits().map(|since| {
            let until = until.ok_or(Malformed("a list waits for ever"))?;
            let until = until.min(now + self.ahead_wait);
            Ok(Waiting { id, since, until })
        });
        let waiting = waiting.transpose()?;
        Ok(Some((line, waiting)))
    }

    /// Remembers an address that has no connections, in the order in which they were written.
    fn restore_address(&mut self, fields: &Fields<'_>, now: Timestamp) -> Result<(), Malformed> {
        self.addresses.remember(IdleAddress::restore(fields)?, now);
        Ok(())
    }

    fn read_subscriptions<'a>(
        &self,
        is_numbered: bool,
        fields: &Fields<'a>,
    ) -> Result<Restored<'a>, Malformed> {
        let list = match fields.text(LIST)? {
            "" => Vec::new(),
            json => command::parse_list(json)?,
        };
        if !Cursor::is_saved(fields) {
            let holdings = Holdings::restore(fields)?;
            let amounts_to_something = !list.is_empty() || holdings != Holdings::default();
            if amounts_to_something && holdings.subscriptions == 0 {
                return Err(Malformed("a list amounts to no subscriptions"));
            }
            return Ok(Restored::Live(list, holdings));
        }
        if !is_numbered {
            return Err(Malformed("a client is caught up without ids"));
        }
        let needles = self.fingerprinter.needles(&list);
        let list = list.into_iter().map(Subscription::into_owned).collect();
        // Not the journal's: without a history nobody can be anywhere in it.
        let head = self.journal.history().head();
        let cursor = Cursor::restore(fields, list, needles, head)?;
        Ok(Restored::Behind(Box::new(cursor)))
    }

    fn carry_address(
        &mut self,
        address: IpAddr,
        restored: &Restored<'_>,
        fields: &Fields<'_>,
        now: Timestamp,
    ) {
        let holdings = match restored {
            Restored::Live(_, holdings) => *holdings,
            Restored::Behind(cursor) => Holdings::of(cursor.subscriptions()),
        };
        let full_at = fields.time(ADDRESS_FULL_AT);
        self.addresses.carry(address, holdings, full_at, now);
    }
}

fn write_list(list: &[Subscription<'_>], members: &mut Members<'_>) {
    let mut json = Vec::new();
    command::write_subscriptions(list, &mut json);
    members.bytes(LIST, &json);
}

#[cfg(test)]
pub(super) mod tests;
