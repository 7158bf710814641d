//! What must come of what the server did: each client's due, and nothing left behind.

use std::collections::HashMap;
use std::rc::Rc;

use crate::client::{Cause, Circumstances, Counts, Expected, Said, Stage};
use crate::texts::Publication;
use crate::witness::Note;

use super::{Phase, World, WorldEngine};

impl World {
    /// Follows what the application was asked for, then looks at what was written.
    pub(super) fn look(&mut self, engine: &WorldEngine) {
        let notes = self.notes.take();
        let clients = self.clients.iter().enumerate();
        let positions: HashMap<_, _> = clients.map(|(at, client)| (client.id, at)).collect();
        for (number, note) in notes.iter().enumerate() {
            match note {
                Note::Asked(id, is_let_in) => {
                    self.tally.forbidden += u64::from(!is_let_in);
                    self.clients[positions[id]].answered(*is_let_in, self.clock.get());
                }
                Note::Heard(id, payload, is_text) => {
                    let said = self.clients[positions[id]].heard(payload, *is_text);
                    let lost: Vec<_> = notes[number + 1..]
                        .iter()
                        .map_while(|note| match note {
                            Note::Gone(id) => Some(positions[id]),
                            _ => None,
                        })
                        .collect();
                    self.follow(positions[id], said, &lost);
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

    /// What follows from what a client said. `lost` have left the next moment.
    fn follow(&mut self, from: usize, said: Said, lost: &[usize]) {
        let client = &mut self.clients[from];
        let has_token = matches!(&said, Said::Publish(publication) if publication.has_token);
        match said {
            Said::Subscribe(_, subscriptions) => {
                let count = subscriptions.len();
                client.subscriptions = subscriptions;
                let reply =
                    format!(r#"{{"type":"subscribed","subscriptions":{count},"heartbeat":25}}"#);
                client.expect(Expected::Exactly(reply.into()));
            }
            Said::Ping(_) => client.expect(Expected::Exactly(r#"{"type":"pong"}"#.into())),
            Said::Bad(_, code) => client.expect(Expected::Error(code)),
            Said::Binary(_) => client.cause = Some(Cause::Binary),
            Said::Publish(_) | Said::BadPublish if !client.may_publish(has_token) => {
                client.expect(Expected::Error("forbidden"));
                client.cause = Some(Cause::Policy("forbidden"));
            }
            Said::BadPublish => {
                client.expect(Expected::Error("invalid-notification"));
                if !client.stays {
                    client.cause = Some(Cause::Policy("invalid-notification"));
                }
            }
            Said::Publish(publication) => self.deliver(from, &publication, lost),
            Said::Request | Said::Close(_) | Said::Violation(_) => unreachable!("no messages"),
        }
    }

    fn deliver(&mut self, from: usize, publication: &Publication, lost: &[usize]) {
        let delivered: Rc<str> = publication.delivered.as_str().into();
        let mut recipients = 0;
        let (mut cut_off, mut perhaps) = (0, 0);
        for (position, client) in self.clients.iter_mut().enumerate() {
            if !client.wants(&publication.notification) {
                continue;
            }
            recipients += 1;
            client.expect(Expected::Exactly(Rc::clone(&delivered)));
            // A write after a reset fails, which fills a queue too.
            let is_writable = !client.is_slow() && !client.has_hung_up();
            if lost.contains(&position) && !is_writable {
                let is_clear = position != from
                    && self.phase == Phase::Input
                    && !client.has_ended_itself()
                    && !client.has_hung_up();
                cut_off += usize::from(is_clear);
                perhaps += usize::from(!is_clear);
            }
        }
        let counts = Counts {
            recipients,
            dropped: cut_off..=cut_off + perhaps,
        };
        let client = &mut self.clients[from];
        if client.stays {
            client.expect(Expected::Published(counts));
        } else {
            client.cause = Some(Cause::Published(counts));
        }
    }

    /// A connection is no longer open: is there a reason?
    fn lose(&mut self, position: usize, engine: &WorldEngine) {
        let (now, is_tight) = (self.clock.get(), self.is_tight());
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
        let (past, tally) = (&mut self.past, &mut self.tally);
        self.clients.retain(|client| {
            let is_dropped = client.wire.borrow().is_dropped;
            if is_dropped {
                client.check_dropped();
                past.push(client.id);
                tally.deliveries += client.deliveries_got;
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
            client.check_bound(self.limits.send_queue_bytes_max);
        }
        if self.turns.is_multiple_of(16) {
            let routes = self.routes.borrow();
            let hub = routes.hub();
            hub.check_invariants();
            let open = self.clients.iter();
            let open = open.filter(|client| client.stage == Stage::Open);
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
