//! What the hub and the shell have counted, as text.

use std::time::Duration;

use super::Hub;
use crate::application::{Figures, Request};
use crate::journal::write_ahead::WriteAhead;
use crate::metrics::exposition::{HistoryFigures, Snapshot};
use crate::redis::Redis;

impl Hub {
    /// Whether the sender of a request may see the metrics.
    #[must_use]
    pub fn shows_metrics(&self, request: &Request<'_>) -> bool {
        self.policy.shows_metrics(request)
    }

    /// The metrics, in the text format of Prometheus.
    #[must_use]
    pub fn metrics_text(&self, request: &Request<'_>, figures: &dyn Figures) -> String {
        let gauges = figures.gauges();
        let publishers = self.connections.publishers_len() as u64;
        // The clock begins with the server.
        let uptime = request.now.as_micros() as f64 / 1e6;
        let write_ahead = self.journal.write_ahead();
        let redis = self.redis().map(Redis::figures);
        let read_at = redis.and_then(|redis| redis.lagging_at_millis);
        let read_at = read_at.map(Duration::from_millis);
        let snapshot = Snapshot {
            shell: figures.metrics(),
            hub: &self.metrics,
            clients: gauges.open.saturating_sub(publishers),
            publishers,
            http: gauges.http,
            handshakes: gauges.handshakes,
            closing: gauges.closing,
            send_queue_bytes: gauges.send_queue_bytes,
            buffer_bytes: gauges.buffer_bytes,
            subscriptions: self.index.subscription_count() as u64,
            subscription_values: self.index.value_count() as u64,
            history: HistoryFigures {
                entries: self.journal.history().len() as u64,
                bytes: self.journal.history().bytes() as u64,
                age: self.journal.age(request.now),
                write_errors: self.metrics.history_write_errors
                    + write_ahead.map_or(0, WriteAhead::write_errors),
            },
            catching_up: self.replays.len() as u64,
            has_redis: redis.is_some(),
            redis: redis.unwrap_or_default(),
            redis_lag: read_at.map_or(Duration::ZERO, |at| request.unix_now.saturating_sub(at)),
            start_seconds: request.unix_now.as_secs_f64() - uptime,
        };
        let mut text = snapshot.to_text();
        // A response's text has its last line feed already.
        text.pop();
        text
    }
}
