//! What the hub and the shell have counted, as text.

use super::Hub;
use crate::application::{Figures, Request};
use crate::journal::write_ahead::WriteAhead;
use crate::metrics::exposition::{HistoryFigures, Snapshot};

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
            start_seconds: request.unix_now.as_secs_f64() - uptime,
        };
        let mut text = snapshot.to_text();
        // A response's text has its last line feed already.
        text.pop();
        text
    }
}
