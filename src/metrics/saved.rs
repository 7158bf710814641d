//! The counters as lists of numbers, as a state holds them, so that they go on in a successor.
//!
//! Knows no encoding. The order of a list is for ever: what is counted from now on goes to its end, and so does a bucket or
//! a code that is added, which a histogram or [`ClosedByCode`] then has to write apart. A list may be shorter or longer
//! than this program's. Main trait: [`Counters`].

use std::marker::PhantomData;

use super::{ClosedByCode, Histogram, HubMetrics, Metrics, Resumes};

/// No server counts so far. What is restored is at most this, so that what is added to it doesn't overflow.
const COUNT_MAX: u64 = 1 << 56;

/// What is counted since the start, and goes on in a successor.
pub trait Counters: Copy + Default {
    /// Shows `visit` each number, in the order of the list.
    fn each(&mut self, visit: &mut dyn FnMut(&mut u64));

    /// The numbers as a list.
    #[must_use]
    fn save(&self) -> Vec<u64> {
        let mut numbers = Vec::new();
        let mut counters = *self;
        counters.each(&mut |number| numbers.push(*number));
        numbers
    }

    /// The counters of a list. What it doesn't have begins at 0; what this program doesn't know is left out.
    #[must_use]
    fn restore(numbers: impl IntoIterator<Item = u64>) -> Self {
        let mut numbers = numbers.into_iter();
        let mut counters = Self::default();
        counters.each(&mut |number| *number = numbers.next().unwrap_or_default().min(COUNT_MAX));
        counters
    }
}

impl Counters for Metrics {
    fn each(&mut self, visit: &mut dyn FnMut(&mut u64)) {
        let Self {
            connections_accepted,
            connections_dropped,
            upgrades,
            upgrades_refused_full,
            upgrades_forbidden,
            upgrades_rate_limited,
            upgrades_invalid,
            closed,
            requests_rejected,
            handshakes_expired,
            connections_displaced,
            closed_without_close,
            protocol_errors,
            peers_dead,
            slow_consumers,
            messages_discarded,
            deliveries,
            deliveries_dropped,
            events_stale,
            accept_pauses,
            bytes_read,
            reads_throttled,
            ping_round_trip_micros,
            turn_micros,
            loop_lag_micros,
            handovers_completed,
            handovers_refused,
            handovers_failed,
            handover_micros,
        } = self;
        visit(connections_accepted);
        visit(connections_dropped);
        visit(upgrades);
        visit(upgrades_refused_full);
        visit(upgrades_forbidden);
        visit(upgrades_rate_limited);
        visit(upgrades_invalid);
        closed.each(visit);
        visit(requests_rejected);
        visit(handshakes_expired);
        visit(connections_displaced);
        visit(closed_without_close);
        visit(protocol_errors);
        visit(peers_dead);
        visit(slow_consumers);
        visit(messages_discarded);
        visit(deliveries);
        visit(deliveries_dropped);
        visit(events_stale);
        visit(accept_pauses);
        visit(bytes_read);
        visit(reads_throttled);
        ping_round_trip_micros.each(visit);
        turn_micros.each(visit);
        loop_lag_micros.each(visit);
        visit(handovers_completed);
        visit(handovers_refused);
        visit(handovers_failed);
        visit(handover_micros);
    }
}

impl Counters for HubMetrics {
    fn each(&mut self, visit: &mut dyn FnMut(&mut u64)) {
        let Self {
            tokens_refused,
            subscriptions_refused_full,
            subscriptions_refused_share,
            notifications_delivered,
            notifications_repeated,
            resumes,
            entries_replayed,
            history_write_errors,
            replays_lost,
            notifications_invalid,
            notifications_forbidden,
            notifications_rate_limited,
            requests_rate_limited,
            recipients,
            match_micros,
            fan_out_micros,
            entries_invalid,
            gaps,
            notifications_of_strangers,
        } = self;
        visit(tokens_refused);
        visit(subscriptions_refused_full);
        visit(subscriptions_refused_share);
        visit(notifications_delivered);
        visit(notifications_repeated);
        resumes.each(visit);
        visit(entries_replayed);
        visit(history_write_errors);
        visit(replays_lost);
        visit(notifications_invalid);
        visit(notifications_forbidden);
        visit(notifications_rate_limited);
        visit(requests_rate_limited);
        recipients.each(visit);
        match_micros.each(visit);
        fan_out_micros.each(visit);
        visit(entries_invalid);
        visit(gaps);
        visit(notifications_of_strangers);
    }
}

impl ClosedByCode {
    fn each(&mut self, visit: &mut dyn FnMut(&mut u64)) {
        let Self { counts, others } = self;
        counts.iter_mut().for_each(&mut *visit);
        visit(others);
    }
}

impl Resumes {
    fn each(&mut self, visit: &mut dyn FnMut(&mut u64)) {
        let Self {
            resumed,
            expired,
            unknown,
            forbidden,
        } = self;
        visit(resumed);
        visit(expired);
        visit(unknown);
        visit(forbidden);
    }
}

impl<B> Histogram<B> {
    /// Shows `visit` each number.
    pub fn each(&mut self, visit: &mut dyn FnMut(&mut u64)) {
        let Self {
            counts,
            sum,
            bounds: PhantomData,
        } = self;
        counts.iter_mut().for_each(&mut *visit);
        visit(sum);
    }
}

#[cfg(test)]
mod tests {
    use super::super::exposition::Snapshot;
    use super::super::{Bounds, CLOSE_CODES, Recipients, RoundTripMicros, WorkMicros};
    use super::*;

    /// What is shown of the counters.
    fn shown(shell: &Metrics, hub: &HubMetrics) -> String {
        let snapshot = Snapshot {
            has_redis: true,
            ..Snapshot::of(shell, hub)
        };
        let text = snapshot.to_text();
        let is_ours =
            |line: &&str| !line.contains("crieur_log_lines") && !line.contains("process_");
        text.lines().filter(is_ours).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn every_number_is_carried_in_its_place() {
        let shell = Metrics::restore(1..);
        let hub = HubMetrics::restore(1001..);
        let numbers = (shell.save(), hub.save());
        assert_eq!(numbers.0, (1..=81).collect::<Vec<_>>());
        assert_eq!(numbers.1, (1001..=1061).collect::<Vec<_>>());
        let restored = (Metrics::restore(numbers.0), HubMetrics::restore(numbers.1));
        assert_eq!(shown(&restored.0, &restored.1), shown(&shell, &hub));
        assert_ne!(shown(&Metrics::default(), &hub), shown(&shell, &hub));
    }

    #[test]
    fn the_order_is_for_ever() {
        let shell = Metrics::restore(0..);
        let hub = HubMetrics::restore(0..);
        let counted = [
            (shell.connections_accepted, 0),
            (shell.connections_dropped, 1),
            (shell.upgrades, 2),
            (shell.upgrades_refused_full, 3),
            (shell.upgrades_forbidden, 4),
            (shell.upgrades_rate_limited, 5),
            (shell.upgrades_invalid, 6),
            (shell.closed.counts[0], 7),
            (shell.closed.counts[12], 19),
            (shell.closed.others, 20),
            (shell.requests_rejected, 21),
            (shell.handshakes_expired, 22),
            (shell.connections_displaced, 23),
            (shell.closed_without_close, 24),
            (shell.protocol_errors, 25),
            (shell.peers_dead, 26),
            (shell.slow_consumers, 27),
            (shell.messages_discarded, 28),
            (shell.deliveries, 29),
            (shell.deliveries_dropped, 30),
            (shell.events_stale, 31),
            (shell.accept_pauses, 32),
            (shell.bytes_read, 33),
            (shell.reads_throttled, 34),
            (shell.ping_round_trip_micros.counts[0], 35),
            (shell.ping_round_trip_micros.counts[12], 47),
            (shell.ping_round_trip_micros.sum, 48),
            (shell.turn_micros.counts[0], 49),
            (shell.turn_micros.sum, 62),
            (shell.loop_lag_micros.counts[0], 63),
            (shell.loop_lag_micros.sum, 76),
            (shell.handovers_completed, 77),
            (shell.handovers_refused, 78),
            (shell.handovers_failed, 79),
            (shell.handover_micros, 80),
            (hub.tokens_refused, 0),
            (hub.subscriptions_refused_full, 1),
            (hub.subscriptions_refused_share, 2),
            (hub.notifications_delivered, 3),
            (hub.notifications_repeated, 4),
            (hub.resumes.resumed, 5),
            (hub.resumes.expired, 6),
            (hub.resumes.unknown, 7),
            (hub.resumes.forbidden, 8),
            (hub.entries_replayed, 9),
            (hub.history_write_errors, 10),
            (hub.replays_lost, 11),
            (hub.notifications_invalid, 12),
            (hub.notifications_forbidden, 13),
            (hub.notifications_rate_limited, 14),
            (hub.requests_rate_limited, 15),
            (hub.recipients.counts[0], 16),
            (hub.recipients.sum, 29),
            (hub.match_micros.counts[0], 30),
            (hub.match_micros.sum, 43),
            (hub.fan_out_micros.counts[0], 44),
            (hub.fan_out_micros.sum, 57),
            (hub.entries_invalid, 58),
            (hub.gaps, 59),
            (hub.notifications_of_strangers, 60),
        ];
        for (number, place) in counted {
            assert_eq!(number, place);
        }
        // What the places of codes and buckets mean is a part of it.
        let codes = [
            1000, 1001, 1002, 1003, 1006, 1007, 1008, 1009, 1011, 1013, 1005, 3000, 3003,
        ];
        assert_eq!(CLOSE_CODES, codes);
        let bounds = [WorkMicros::ALL, RoundTripMicros::ALL, Recipients::ALL];
        let sums = bounds.map(|bounds| bounds.iter().sum::<u64>());
        assert_eq!(sums, [1_319_410, 6_941_600, 63_893]);
    }

    #[test]
    fn a_list_may_be_shorter_or_longer() {
        let none = Metrics::restore([]);
        assert_eq!(none.save(), [0; 81]);
        let some = Metrics::restore([7, 8]);
        assert_eq!(
            (some.connections_accepted, some.connections_dropped),
            (7, 8)
        );
        assert_eq!((some.upgrades, some.loop_lag_micros.sum()), (0, 0));
        let more = HubMetrics::restore([3; 100]);
        assert_eq!(more.save(), [3; 61]);
    }

    #[test]
    fn limits_at_max_and_one_more() {
        for (number, expected) in [
            (COUNT_MAX, COUNT_MAX),
            (COUNT_MAX + 1, COUNT_MAX),
            (u64::MAX, COUNT_MAX),
        ] {
            let mut shell = Metrics::restore([number; 81]);
            assert_eq!(shell.save(), [expected; 81]);
            // Nothing that is added or summed up overflows.
            shell.bytes_read += 1;
            shell.closed.count(1000);
            shell.turn_micros.observe(u64::MAX);
            let hub = HubMetrics::restore([number; 61]);
            assert!(shown(&shell, &hub).contains("crieur_"));
        }
    }
}
