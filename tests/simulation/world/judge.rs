//! What must come of what the server did: each client's due, and nothing left behind.

use std::collections::HashMap;
use std::rc::Rc;

use crieur::hub::filter::Subscription;

use crate::client::{Cause, Circumstances, Counts, Expected, Receipt, Said};
use crate::log::{Answer, First, Moment};
use crate::texts::Publication;
use crate::witness::Note;

use super::{Phase, World, WorldEngine};

const CAUGHT_UP: &str = r#"{"type":"caught-up""#;

/// What is known of how the server has handled a message.
#[derive(Default)]
struct Aftermath<'a> {
    /// Who has left the next moment.
    lost: &'a [usize],
    /// What its sender was told about being caught up.
    told: Option<&'a str>,
    /// It was taken for a repetition.
    is_repeated: bool,
}

impl World {
    /// Follows what the application was asked for, then looks at what was written.
    pub(super) fn look(&mut self, engine: &WorldEngine) {
        let notes = self.notes.take();
        let clients = self.clients.iter().enumerate();
        let positions: HashMap<_, _> = clients.map(|(at, client)| (client.id, at)).collect();
        let lost = |behind: &[Note]| {
            let gone = behind.iter().map_while(|note| match note {
                Note::Gone(id) => Some(positions[id]),
                _ => None,
            });
            gone.collect::<Vec<_>>()
        };
        for (number, note) in notes.iter().enumerate() {
            match note {
                Note::Asked(id, is_let_in) => {
                    self.tally.forbidden += u64::from(!is_let_in);
                    self.clients[positions[id]].answered(*is_let_in, self.clock.get());
                }
                Note::Heard(id, payload, is_text) => {
                    let said = self.clients[positions[id]].heard(payload, *is_text);
                    let behind = &notes[number + 1..];
                    let aftermath = Aftermath {
                        lost: &lost(behind),
                        told: behind.first().and_then(|note| note.told_to(*id)),
                        is_repeated: matches!(behind.first(), Some(Note::Repeated)),
                    };
                    self.follow(positions[id], said, &aftermath);
                }
                Note::Posted => self.follow_post(&lost(&notes[number + 1..])),
                Note::Told(id, text) if text.starts_with(CAUGHT_UP) => {
                    self.finish_replay(positions[id]);
                }
                // It was looked at with what it answers.
                Note::Told(..) | Note::Repeated => {}
                Note::Replayed(id) => self.clients[positions[id]].advance(&self.log),
                Note::Broken(id) => {
                    let client = &mut self.clients[positions[id]];
                    assert!(client.may_be_broken(&self.log), "{id}: given up; {client}");
                    client.cause = Some(Cause::Broken);
                    self.tally.broken += 1;
                }
                Note::Gone(id) => self.lose(positions[id], engine),
            }
        }
        self.slow_consumers = engine.metrics().slow_consumers;
        let circumstances = Circumstances {
            deadlines_at: (self.phase == Phase::Timers).then(|| self.clock.get()),
            may_refuse: self.is_stopping
                || self.is_tight()
                || self.limits.connections_max.min(self.limits.publishers_max) < 30
                || self.crowd.0 > 30,
            may_shed: self.is_tight(),
        };
        for client in &mut self.clients {
            client.take(circumstances, &mut self.dice);
        }
    }

    fn is_tight(&self) -> bool {
        self.limits.buffer_bytes_max < 1_000_000
    }

    /// Some moment in what is being looked at.
    fn moment(&self) -> Moment {
        let now = self.clock.get() as i64;
        (now, now + self.spent_micros.get() as i64)
    }

    /// What follows from what a client said.
    fn follow(&mut self, from: usize, said: Said, aftermath: &Aftermath<'_>) {
        let has_history = self.log.is_on();
        let client = &mut self.clients[from];
        let has_token = matches!(&said, Said::Publish(publication) if publication.has_token);
        match said {
            Said::Subscribe(_, subscriptions, since) => {
                self.follow_list(from, subscriptions, since.as_deref(), aftermath);
            }
            Said::Ping(_) if client.replay.is_some() => {
                let pong = aftermath.told.expect("an answer");
                client.take_position(pong, &self.log);
            }
            Said::Ping(_) if client.is_numbered => {
                let id = self.log.id(self.log.head());
                let pong = format!(r#"{{"type":"pong","id":"{id}"}}"#);
                client.expect(Expected::Exactly(pong.into()));
            }
            Said::Ping(_) => client.expect(Expected::Exactly(r#"{"type":"pong"}"#.into())),
            Said::Bad(_, code) => client.expect(Expected::Error(code)),
            Said::Binary(_) => client.cause = Some(Cause::Binary),
            Said::Publish(_) | Said::BadPublish if !client.may_publish(has_token) => {
                client.expect(Expected::Error("forbidden"));
                client.cause = Some(Cause::Policy("forbidden"));
            }
            Said::BadPublish => client.refuse_notification(),
            Said::Publish(publication) if publication.is_bad(has_history) => {
                client.refuse_notification();
            }
            Said::Publish(publication) => self.publish(from, &publication, aftermath),
            Said::Request | Said::Close(_) | Said::Violation(_) => unreachable!("no messages"),
        }
    }

    fn follow_list(
        &mut self,
        from: usize,
        subscriptions: Vec<Subscription<'static>>,
        since: Option<&str>,
        aftermath: &Aftermath<'_>,
    ) {
        let now = self.moment();
        let (client, log) = (&mut self.clients[from], &self.log);
        if since.is_none()
            && let Some(replay) = &mut client.replay
        {
            // A further one comes only when it has hung up: there is no use for it.
            replay.held.get_or_insert(subscriptions);
            return;
        }
        client.replay = None;
        client.is_numbered |= since.is_some();
        let count = subscriptions.len();
        client.subscriptions = subscriptions;
        let head = log.id(log.head());
        let start = format!(r#"{{"type":"subscribed","subscriptions":{count},"heartbeat":25"#);
        let Some(since) = since.filter(|since| !since.is_empty()) else {
            let id = client.is_numbered.then(|| format!(r#","id":"{head}""#));
            let reply = format!("{start}{}}}", id.unwrap_or_default());
            return client.expect(Expected::Exactly(reply.into()));
        };
        let answer = log.judge(since, now);
        let resumed = format!(r#"{start},"id":"{since}","resumed":true}}"#);
        let not =
            |reason| format!(r#"{start},"id":"{head}","resumed":false,"reason":"{reason}"}}"#);
        let told = aftermath.told.expect("an answer");
        let is_right = match answer {
            Answer::Resumed(_) => told == resumed,
            Answer::Either(_) => told == resumed || told == not("expired"),
            Answer::Expired => told == not("expired"),
            Answer::Unknown => told == not("unknown"),
        };
        assert!(is_right, "{}: {told} to {since}: {answer:?}", client.id);
        client.expect(Expected::Exactly(told.into()));
        match answer {
            Answer::Resumed(position) | Answer::Either(position) if told == resumed => {
                self.tally.resumed += 1;
                client.begin_replay(position);
            }
            _ => self.tally.not_resumed += 1,
        }
    }

    /// The server says that a client is caught up: then comes what has waited for that.
    fn finish_replay(&mut self, which: usize) {
        let client = &mut self.clients[which];
        self.tally.replayed += client.replay.as_ref().map_or(0, |replay| replay.missed);
        if let Some(held) = client.finish_replay(&self.log) {
            let nothing = Aftermath::default();
            self.tally.held += 1;
            self.follow_list(which, held, None, &nothing);
        }
    }

    fn publish(&mut self, from: usize, publication: &Publication, aftermath: &Aftermath<'_>) {
        let counts = self.recipients(Some(from), publication, aftermath.lost);
        let (position, receipt) = self.enter(publication, counts, aftermath.is_repeated);
        self.log.seal();
        if !receipt.is_repeated {
            self.deliver(publication, position);
        }
        let client = &mut self.clients[from];
        if client.stays {
            client.expect(Expected::Published(receipt));
        } else {
            client.cause = Some(Cause::Published(receipt));
        }
    }

    /// Puts a notification into the log, unless it is a repetition. Returns its position, and what its publisher is
    /// told.
    pub(super) fn enter(
        &mut self,
        publication: &Publication,
        counts: Counts,
        is_repeated: bool,
    ) -> (Option<u64>, Receipt) {
        let now = self.moment();
        let key = publication.key;
        let first = key.map_or(First::None, |key| self.log.find_key(key, now));
        let (may_repeat, first) = match first {
            First::None => (false..=false, 0),
            First::Perhaps(position) => (false..=true, position),
            First::At(position) => (true..=true, position),
        };
        assert!(may_repeat.contains(&is_repeated), "{key:?}: {is_repeated}");
        let log = &mut self.log;
        if is_repeated {
            self.tally.repeated += 1;
            let receipt = Receipt {
                counts: log.entry(first).counts.clone(),
                id: Some(Rc::clone(log.id(first))),
                is_repeated,
            };
            return (None, receipt);
        }
        let position = publication
            .is_kept
            .then(|| log.push(publication, counts.clone(), now));
        let receipt = Receipt {
            counts,
            id: position.map(|position| Rc::clone(log.id(position))),
            is_repeated,
        };
        (position, receipt)
    }

    /// How many connections a notification is for now; `lost` are gone the next moment.
    pub(super) fn recipients(
        &self,
        from: Option<usize>,
        publication: &Publication,
        lost: &[usize],
    ) -> Counts {
        let mut recipients = 0;
        let (mut cut_off, mut perhaps) = (0, 0);
        for (position, client) in self.clients.iter().enumerate() {
            if !client.is_live() || !client.wants(&publication.notification) {
                continue;
            }
            recipients += 1;
            // A write after a reset fails, which fills a queue too.
            let is_writable = !client.is_slow() && !client.has_hung_up();
            if lost.contains(&position) && !is_writable {
                let is_clear = from.is_some_and(|from| position != from)
                    && self.phase == Phase::Input
                    && !client.has_ended_itself()
                    && !client.has_hung_up();
                cut_off += usize::from(is_clear);
                perhaps += usize::from(!is_clear);
            }
        }
        Counts {
            recipients,
            dropped: cut_off..=cut_off + perhaps,
        }
    }

    pub(super) fn deliver(&mut self, publication: &Publication, position: Option<u64>) {
        let entry = position.map(|position| self.log.entry(position));
        for client in &mut self.clients {
            if !client.is_live() || !client.wants(&publication.notification) {
                continue;
            }
            client.expect(match (position, entry) {
                (Some(position), Some(entry)) if client.is_numbered => {
                    Expected::Kept(position, Rc::clone(&entry.numbered))
                }
                (Some(position), Some(entry)) => Expected::Kept(position, Rc::clone(&entry.plain)),
                _ => Expected::Exactly(Rc::clone(&publication.delivered)),
            });
        }
    }

    /// A connection is no longer open: is there a reason?
    fn lose(&mut self, position: usize, engine: &WorldEngine) {
        let (now, is_tight, moment) = (self.clock.get(), self.is_tight(), self.moment());
        let client = &mut self.clients[position];
        client.gone(now);
        if matches!(self.phase, Phase::Shutdown | Phase::LastShutdown) {
            let is_last = self.phase == Phase::LastShutdown;
            assert_eq!(client.closes_last(), is_last, "{}: {client}", client.id);
            client.cause = Some(Cause::Shutdown);
            return;
        }
        if client.has_ended_itself() {
            return;
        }
        if client.is_slow() {
            let bytes_max = self.limits.send_queue_bytes_max;
            let is_excused = self.phase != Phase::Input
                || client.has_hung_up()
                || client.may_be_full(bytes_max, &self.log, moment);
            assert!(
                is_excused,
                "{}: cut off while the history holds what it lacks; {client}",
                client.id
            );
            self.tally.cut_off += 1;
            return;
        }
        if self.phase == Phase::Timers && client.is_overdue(now) {
            return;
        }
        if client.has_hung_up() {
            // A write that failed may have left its queue full before it was drained.
            let is_cut_off = engine.metrics().slow_consumers > self.slow_consumers;
            let is_excused =
                !client.is_drained_after_hang_up() || (client.has_reset() && is_cut_off);
            let is_heard = !client.has_unheard();
            assert!(is_heard || is_excused, "{}: unheard; {client}", client.id);
            return;
        }
        assert!(
            self.phase == Phase::Shed && is_tight,
            "{}: gone in {:?} at {now} for nothing; {client}",
            client.id,
            self.phase
        );
    }

    pub(super) fn drop_the_dropped(&mut self) {
        let (past, tally, memories) = (&mut self.past, &mut self.tally, &mut self.memories);
        let leaked = &mut self.leaked;
        self.clients.retain(|client| {
            let is_dropped = client.wire.borrow().is_dropped;
            if is_dropped {
                client.check_dropped();
                past.push(client.id);
                tally.deliveries += client.deliveries_got;
                memories.extend(client.memory());
                *leaked = client.leaked().max(*leaked);
            }
            !is_dropped
        });
    }

    pub(super) fn check_turn(&mut self, engine: &WorldEngine) {
        self.turns += 1;
        assert_eq!(engine.connections_len(), self.clients.len());
        assert!(
            engine.pinned_bytes() <= 2 * self.limits.buffer_bytes_max,
            "{} bytes are kept",
            engine.pinned_bytes()
        );
        for client in &self.clients {
            client.check_bound(self.limits.send_queue_bytes_max, self.gone);
        }
        // From the next turn on, its clients are held to what it has let go of.
        self.gone = self.log.gone();
        if self.turns.is_multiple_of(16) {
            let routes = self.routes.borrow();
            let hub = routes.hub();
            hub.check_invariants();
            let open = self.clients.iter();
            let open = open.filter(|client| client.is_live());
            let subscriptions: usize = open.map(|client| client.subscriptions.len()).sum();
            assert_eq!(hub.index().subscription_count(), subscriptions);
        }
    }

    /// Everybody has gone: nothing may be left.
    pub(super) fn check_end(&mut self, engine: &WorldEngine) {
        let left: Vec<_> = self.clients.iter().map(|client| client.id).collect();
        assert!(left.is_empty(), "{left:?} are still there");
        assert_eq!(engine.pinned_bytes(), 0);
        assert_eq!(engine.next_timer(), None);
        assert!(!engine.has_ready() && !engine.has_deliveries());
        let metrics = engine.metrics();
        assert_eq!(metrics.connections_accepted, metrics.connections_dropped);
        let routes = self.routes.borrow();
        let hub = routes.hub();
        hub.check_invariants();
        assert_eq!(hub.index().heap_bytes(), 0);
    }
}
