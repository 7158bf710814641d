//! What `/metrics` shows: each metric with its name, its help and where its samples come from, in
//! one table. A test compares it with `docs/operations.md`.
//!
//! Knows the counters and the format, no requests. Main entry: [`Snapshot::to_text`].

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::text::{Metric, MetricsText};
use super::{
    ClosedByCode, Histogram, HubMetrics, LOG_LINES_DROPPED, Metrics, Recipients, RedisFigures,
    RoundTripMicros, WorkMicros, process,
};

/// All that is shown, at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot<'a> {
    /// What the shell has counted.
    pub shell: &'a Metrics,
    /// What the hub has counted.
    pub hub: &'a HubMetrics,
    /// Open sessions, without those of publishers that stay.
    pub clients: u64,
    /// Publishers that stay.
    pub publishers: u64,
    /// Connections that have published over HTTP.
    pub http: u64,
    /// Connections whose handshake isn't complete.
    pub handshakes: u64,
    /// Connections that are being closed.
    pub closing: u64,
    /// Bytes that wait to be written; a frame counts for each of its recipients.
    pub send_queue_bytes: u64,
    /// Bytes that are kept for peers; a shared frame counts once.
    pub buffer_bytes: u64,
    /// Subscriptions of all connections.
    pub subscriptions: u64,
    /// Values in them.
    pub subscription_values: u64,
    /// The history.
    pub history: HistoryFigures,
    /// Clients that are being sent what they have missed.
    pub catching_up: u64,
    /// Whether a Redis is shared with other servers; without one nothing is shown of it.
    pub has_redis: bool,
    /// What was counted of it.
    pub redis: RedisFigures,
    /// How old the newest entry is that was read of its stream, while there is more to be read.
    pub redis_lag: Duration,
    /// When the process started, since the Unix epoch.
    pub start_seconds: f64,
}

/// How much history there is.
#[derive(Clone, Copy, Default, Debug)]
pub struct HistoryFigures {
    /// Notifications.
    pub entries: u64,
    /// Memory that they take.
    pub bytes: u64,
    /// Age of the oldest.
    pub age: Duration,
    /// Writes to its directory that have failed.
    pub write_errors: u64,
}

/// One metric, and where its samples come from.
struct Row {
    name: &'static str,
    help: &'static str,
    samples: Samples,
}

/// A number in a snapshot.
type Number = fn(&Snapshot<'_>) -> u64;

/// Numbers in a snapshot, each with the value of the label that they are told apart by.
type Labelled = &'static [(&'static str, Number)];

enum Samples {
    Counter(Number),
    Counters {
        label: &'static str,
        of: Labelled,
    },
    CountersByCode(for<'s> fn(&'s Snapshot<'_>) -> &'s ClosedByCode),
    /// Left out where the system doesn't tell it.
    Gauge(fn(&Snapshot<'_>) -> Option<u64>),
    Gauges {
        label: &'static str,
        of: Labelled,
    },
    Seconds(fn(&Snapshot<'_>) -> f64),
    Times(for<'s> fn(&'s Snapshot<'_>) -> &'s Histogram<WorkMicros>),
    RoundTrips(for<'s> fn(&'s Snapshot<'_>) -> &'s Histogram<RoundTripMicros>),
    Sizes(for<'s> fn(&'s Snapshot<'_>) -> &'s Histogram<Recipients>),
}

/// How many microseconds are one of the metric's seconds.
const MICROS: f64 = 1e6;

impl Samples {
    const fn kind(&self) -> &'static str {
        match self {
            Self::Counter(_) | Self::Counters { .. } | Self::CountersByCode(_) => "counter",
            Self::Gauge(_) | Self::Gauges { .. } | Self::Seconds(_) => "gauge",
            Self::Times(_) | Self::RoundTrips(_) | Self::Sizes(_) => "histogram",
        }
    }
}

impl<'a> Snapshot<'a> {
    /// What was counted, and nothing else.
    #[must_use]
    pub fn of(shell: &'a Metrics, hub: &'a HubMetrics) -> Self {
        Self {
            shell,
            hub,
            clients: 0,
            publishers: 0,
            http: 0,
            handshakes: 0,
            closing: 0,
            send_queue_bytes: 0,
            buffer_bytes: 0,
            subscriptions: 0,
            subscription_values: 0,
            history: HistoryFigures::default(),
            catching_up: 0,
            has_redis: false,
            redis: RedisFigures::default(),
            redis_lag: Duration::ZERO,
            start_seconds: 0.0,
        }
    }

    /// The text that shows it.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = MetricsText::default();
        let redis = if self.has_redis { REDIS } else { &[] };
        for row in TABLE.iter().chain(redis) {
            self.write(row, &mut text);
        }
        text.finish()
    }

    fn write(&self, row: &Row, text: &mut MetricsText) {
        let metric = Metric {
            name: row.name,
            help: row.help,
            kind: row.samples.kind(),
        };
        match row.samples {
            Samples::Counter(number) => text.sample(metric, number(self)),
            Samples::Counters { label, of } | Samples::Gauges { label, of } => {
                let values = of.iter().map(|(value, number)| (value, number(self)));
                text.samples(metric, label, values);
            }
            Samples::CountersByCode(closed) => text.samples(metric, "code", closed(self).all()),
            Samples::Gauge(number) => {
                if let Some(number) = number(self) {
                    text.sample(metric, number);
                }
            }
            Samples::Seconds(seconds) => text.sample(metric, seconds(self)),
            Samples::Times(times) => text.histogram(metric, MICROS, times(self)),
            Samples::RoundTrips(times) => text.histogram(metric, MICROS, times(self)),
            Samples::Sizes(sizes) => text.histogram(metric, 1.0, sizes(self)),
        }
    }
}

static TABLE: &[Row] = &[
    Row {
        name: "crieur_connections",
        help: "Connections by role.",
        samples: Samples::Gauges {
            label: "role",
            of: &[
                ("client", |s| s.clients),
                ("publisher", |s| s.publishers),
                ("http", |s| s.http),
                ("handshake", |s| s.handshakes),
                ("closing", |s| s.closing),
            ],
        },
    },
    Row {
        name: "crieur_connections_opened_total",
        help: "TCP connections accepted.",
        samples: Samples::Counter(|s| s.shell.connections_accepted),
    },
    Row {
        name: "crieur_accept_pauses_total",
        help: "Times that accepting had to pause.",
        samples: Samples::Counter(|s| s.shell.accept_pauses),
    },
    Row {
        name: "crieur_handovers_total",
        help: "Programs that were to take over from the one before.",
        samples: Samples::Counters {
            label: "result",
            of: &[
                ("completed", |s| s.shell.handovers_completed),
                ("refused", |s| s.shell.handovers_refused),
                ("failed", |s| s.shell.handovers_failed),
            ],
        },
    },
    Row {
        name: "crieur_handover_seconds",
        help: "How long nothing was done while a program took over, the last time.",
        samples: Samples::Seconds(|s| s.shell.handover_micros as f64 / MICROS),
    },
    Row {
        name: "crieur_upgrades_total",
        help: "Handshakes that were completed.",
        samples: Samples::Counter(|s| s.shell.upgrades),
    },
    Row {
        name: "crieur_upgrades_rejected_total",
        help: "Upgrades that were refused.",
        samples: Samples::Counters {
            label: "reason",
            of: &[
                ("full", |s| s.shell.upgrades_refused_full),
                ("forbidden", |s| s.shell.upgrades_forbidden),
                ("rate_limited", |s| s.shell.upgrades_rate_limited),
                ("invalid", |s| s.shell.upgrades_invalid),
            ],
        },
    },
    Row {
        name: "crieur_requests_rejected_total",
        help: "Requests that broke a rule of HTTP or of the handshake.",
        samples: Samples::Counter(|s| s.shell.requests_rejected),
    },
    Row {
        name: "crieur_requests_expired_total",
        help: "Requests that were not complete in time.",
        samples: Samples::Counter(|s| s.shell.handshakes_expired),
    },
    Row {
        name: "crieur_requests_rate_limited_total",
        help: "Requests over the rate of their address, except upgrades and notifications.",
        samples: Samples::Counter(|s| s.hub.requests_rate_limited),
    },
    Row {
        name: "crieur_tokens_refused_total",
        help: "Clients closed for lack of a valid token.",
        samples: Samples::Counter(|s| s.hub.tokens_refused),
    },
    Row {
        name: "crieur_connections_dropped_total",
        help: "TCP connections that ended.",
        samples: Samples::Counter(|s| s.shell.connections_dropped),
    },
    Row {
        name: "crieur_connections_displaced_total",
        help: "Connections that were not open and made room.",
        samples: Samples::Counter(|s| s.shell.connections_displaced),
    },
    Row {
        name: "crieur_sessions_closed_total",
        help: "Open sessions that ended, by close code.",
        samples: Samples::CountersByCode(|s| &s.shell.closed),
    },
    Row {
        name: "crieur_protocol_errors_total",
        help: "Sessions closed for breaking the protocol, or a limit of size or time.",
        samples: Samples::Counter(|s| s.shell.protocol_errors),
    },
    Row {
        name: "crieur_slow_consumers_total",
        help: "Connections cut off because they did not read.",
        samples: Samples::Counter(|s| s.shell.slow_consumers),
    },
    Row {
        name: "crieur_peers_dead_total",
        help: "Sessions dropped because nothing followed a Ping.",
        samples: Samples::Counter(|s| s.shell.peers_dead),
    },
    Row {
        name: "crieur_messages_discarded_total",
        help: "Messages that came after the server's Close.",
        samples: Samples::Counter(|s| s.shell.messages_discarded),
    },
    Row {
        name: "crieur_received_bytes_total",
        help: "Bytes read from peers.",
        samples: Samples::Counter(|s| s.shell.bytes_read),
    },
    Row {
        name: "crieur_reads_throttled_total",
        help: "Times that a client over its rate was not read.",
        samples: Samples::Counter(|s| s.shell.reads_throttled),
    },
    Row {
        name: "crieur_ping_round_trip_seconds",
        help: "Time from sending a Ping to its Pong.",
        samples: Samples::RoundTrips(|s| &s.shell.ping_round_trip_micros),
    },
    Row {
        name: "crieur_loop_turn_seconds",
        help: "Time from one poll to the next, for which input may have to wait.",
        samples: Samples::Times(|s| &s.shell.turn_micros),
    },
    Row {
        name: "crieur_loop_lag_seconds",
        help: "Time by which timers were late.",
        samples: Samples::Times(|s| &s.shell.loop_lag_micros),
    },
    Row {
        name: "crieur_send_queue_bytes",
        help: "Bytes that wait to be written.",
        samples: Samples::Gauge(|s| Some(s.send_queue_bytes)),
    },
    Row {
        name: "crieur_buffer_bytes",
        help: "Bytes kept for peers, each shared frame counted once.",
        samples: Samples::Gauge(|s| Some(s.buffer_bytes)),
    },
    Row {
        name: "crieur_notifications_total",
        help: "Attempts to publish.",
        samples: Samples::Counters {
            label: "result",
            of: &[
                ("delivered", |s| s.hub.notifications_delivered),
                ("repeated", |s| s.hub.notifications_repeated),
                ("invalid", |s| s.hub.notifications_invalid),
                ("forbidden", |s| s.hub.notifications_forbidden),
                ("stranger", |s| s.hub.notifications_of_strangers),
                ("rate_limited", |s| s.hub.notifications_rate_limited),
            ],
        },
    },
    Row {
        name: "crieur_deliveries_total",
        help: "Notifications queued to subscribers.",
        samples: Samples::Counter(|s| s.shell.deliveries),
    },
    Row {
        name: "crieur_deliveries_dropped_total",
        help: "Deliveries that a full queue did not take.",
        samples: Samples::Counter(|s| s.shell.deliveries_dropped),
    },
    Row {
        name: "crieur_subscriptions_refused_total",
        help: "Lists of subscriptions that the server had no room for.",
        samples: Samples::Counters {
            label: "reason",
            of: &[
                ("full", |s| s.hub.subscriptions_refused_full),
                ("share", |s| s.hub.subscriptions_refused_share),
            ],
        },
    },
    Row {
        name: "crieur_notification_recipients",
        help: "Recipients of a notification.",
        samples: Samples::Sizes(|s| &s.hub.recipients),
    },
    Row {
        name: "crieur_match_seconds",
        help: "Time to find the recipients of a notification.",
        samples: Samples::Times(|s| &s.hub.match_micros),
    },
    Row {
        name: "crieur_fan_out_seconds",
        help: "Time to queue a notification to its recipients.",
        samples: Samples::Times(|s| &s.hub.fan_out_micros),
    },
    Row {
        name: "crieur_subscriptions",
        help: "Subscriptions.",
        samples: Samples::Gauge(|s| Some(s.subscriptions)),
    },
    Row {
        name: "crieur_subscription_values",
        help: "Values in all subscriptions.",
        samples: Samples::Gauge(|s| Some(s.subscription_values)),
    },
    Row {
        name: "crieur_history_entries",
        help: "Notifications in the history.",
        samples: Samples::Gauge(|s| Some(s.history.entries)),
    },
    Row {
        name: "crieur_history_bytes",
        help: "Memory that they take.",
        samples: Samples::Gauge(|s| Some(s.history.bytes)),
    },
    Row {
        name: "crieur_history_oldest_seconds",
        help: "Age of the oldest of them.",
        samples: Samples::Seconds(|s| s.history.age.as_secs_f64()),
    },
    Row {
        name: "crieur_history_write_errors_total",
        help: "Failed writes to the history directory, which is not used after the first.",
        samples: Samples::Counter(|s| s.history.write_errors),
    },
    Row {
        name: "crieur_resumes_total",
        help: "Clients that have shown an id.",
        samples: Samples::Counters {
            label: "result",
            of: &[
                ("resumed", |s| s.hub.resumes.resumed),
                ("expired", |s| s.hub.resumes.expired),
                ("unknown", |s| s.hub.resumes.unknown),
                ("forbidden", |s| s.hub.resumes.forbidden),
            ],
        },
    },
    Row {
        name: "crieur_replayed_total",
        help: "Notifications queued to clients that had missed them.",
        samples: Samples::Counter(|s| s.hub.entries_replayed),
    },
    Row {
        name: "crieur_replays_lost_total",
        help: "Clients closed because what they were promised had left the history.",
        samples: Samples::Counter(|s| s.hub.replays_lost),
    },
    Row {
        name: "crieur_catching_up",
        help: "Clients that are being sent what they have missed.",
        samples: Samples::Gauge(|s| Some(s.catching_up)),
    },
    Row {
        name: "crieur_log_lines_dropped_total",
        help: "Log lines that were dropped because their reader was too slow.",
        samples: Samples::Counter(|_| LOG_LINES_DROPPED.load(Ordering::Relaxed)),
    },
    Row {
        name: "crieur_build_info",
        help: "Always 1.",
        samples: Samples::Gauges {
            label: "version",
            of: &[(env!("CARGO_PKG_VERSION"), |_| 1)],
        },
    },
    Row {
        name: "process_start_time_seconds",
        help: "Start of the process, in seconds since the Unix epoch.",
        samples: Samples::Seconds(|s| s.start_seconds),
    },
    Row {
        name: "process_resident_memory_bytes",
        help: "Resident memory.",
        samples: Samples::Gauge(|_| process::resident_bytes()),
    },
    Row {
        name: "process_open_fds",
        help: "Open file descriptors.",
        samples: Samples::Gauge(|_| process::open_descriptors()),
    },
];

/// What is shown of a Redis beside that.
static REDIS: &[Row] = &[
    Row {
        name: "crieur_redis_up",
        help: "Whether notifications can be published by Redis.",
        samples: Samples::Gauge(|s| Some(s.redis.is_up.into())),
    },
    Row {
        name: "crieur_redis_connects_total",
        help: "Times that Redis was connected.",
        samples: Samples::Counter(|s| s.redis.connects),
    },
    Row {
        name: "crieur_redis_round_trip_seconds",
        help: "Time from sending notifications to Redis to its answer.",
        samples: Samples::RoundTrips(|s| &s.redis.round_trip_micros),
    },
    Row {
        name: "crieur_redis_entries_total",
        help: "Entries of the stream.",
        samples: Samples::Counters {
            label: "direction",
            of: &[("written", |s| s.redis.written), ("read", |s| s.redis.read)],
        },
    },
    Row {
        name: "crieur_redis_entries_invalid_total",
        help: "Entries of the stream that are no notifications.",
        samples: Samples::Counter(|s| s.hub.entries_invalid),
    },
    Row {
        name: "crieur_redis_lag_seconds",
        help: "Age of the newest entry that was read, while there are more.",
        samples: Samples::Seconds(|s| s.redis_lag.as_secs_f64()),
    },
    Row {
        name: "crieur_redis_pending",
        help: "Notifications on their way to Redis and back.",
        samples: Samples::Gauge(|s| Some(s.redis.pending)),
    },
    Row {
        name: "crieur_redis_refused_total",
        help: "Notifications that were answered with unavailable.",
        samples: Samples::Counters {
            label: "reason",
            of: &[
                ("unreachable", |s| s.redis.refused_unreachable),
                ("full", |s| s.redis.refused_full),
                ("unanswered", |s| s.redis.refused_unanswered),
                ("redis", |s| s.redis.refused_by_redis),
            ],
        },
    },
    Row {
        name: "crieur_redis_doubts_total",
        help: "Times that entries of the stream may have gone.",
        samples: Samples::Counters {
            label: "reason",
            of: &[
                ("lost", |s| s.redis.doubts_lost),
                ("trimmed", |s| s.redis.doubts_trimmed),
            ],
        },
    },
    Row {
        name: "crieur_gaps_total",
        help: "Clients told that they may have missed something.",
        samples: Samples::Counter(|s| s.hub.gaps),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_its_type_and_its_unit() {
        for row in TABLE.iter().chain(REDIS) {
            let is_total = row.name.ends_with("_total");
            assert_eq!(is_total, row.samples.kind() == "counter", "{}", row.name);
            let is_time = matches!(row.samples, Samples::Times(_) | Samples::RoundTrips(_));
            assert!(!is_time || row.name.ends_with("_seconds"), "{}", row.name);
            assert!(row.help.ends_with('.'), "{}", row.name);
        }
    }
}
