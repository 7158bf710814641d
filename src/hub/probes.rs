//! What is asked about the server itself: whether it lives, and whether it takes clients.

use std::sync::atomic::Ordering;

use super::Hub;
use crate::application::{Figures, Request, Response, Status};
use crate::metrics::text::{CONTENT_TYPE, MetricsText};
use crate::metrics::{LOG_LINES_DROPPED, Metrics, process};

impl Hub {
    /// The answer to a request about the server; `None` if it is about something else.
    pub(super) fn answer_probe(
        &self,
        request: &Request<'_>,
        figures: &dyn Figures,
    ) -> Option<Response> {
        let head = request.head;
        let response = match head.path() {
            "/healthz" if figures.is_accepting() => Response::new(Status::OK, "ok"),
            "/healthz" => Response::new(Status::SERVICE_UNAVAILABLE, "stopping"),
            "/metrics" if self.policy.shows_metrics(request) => {
                let mut response = Response::new(Status::OK, self.metrics_text(request, figures));
                response.content_type = CONTENT_TYPE;
                response
            }
            "/metrics" => Response::new(Status::FORBIDDEN, "figures are for this host"),
            "/livez" => Response::new(Status::OK, "ok"),
            _ => return None,
        };
        Some(match head.method {
            "GET" | "HEAD" => response,
            _ => Response::new(Status::METHOD_NOT_ALLOWED, "this is there to be read")
                .with_field("Allow", "GET, HEAD"),
        })
    }

    fn metrics_text(&self, request: &Request<'_>, figures: &dyn Figures) -> String {
        let mut text = MetricsText::default();
        self.write_connections(&mut text, figures);
        self.write_notifications(&mut text, figures);
        write_process(&mut text, request);
        let mut text = text.finish();
        // A response's text has its last line feed already.
        text.pop();
        text
    }

    fn write_connections(&self, text: &mut MetricsText, figures: &dyn Figures) {
        let (shell, census) = (figures.metrics(), figures.census());
        let publishers = self.connections.publishers_len() as u64;
        text.gauges(
            "crieur_connections",
            "Connections by what they are.",
            "role",
            [
                ("client", census.open.saturating_sub(publishers)),
                ("publisher", publishers),
                ("http", census.http),
                ("handshake", census.handshakes),
                ("closing", census.closing),
            ],
        );
        write_comings(text, shell);
        text.counter(
            "crieur_requests_rate_limited",
            "Requests beyond the share of their address, but for upgrades and notifications.",
            self.metrics.requests_rate_limited,
        );
        text.counter(
            "crieur_tokens_refused",
            "Clients closed for want of a good token.",
            self.metrics.tokens_refused,
        );
        write_ends(text, shell);
        write_loop(text, shell);
        text.gauge(
            "crieur_send_queue_bytes",
            "Bytes that wait to be written.",
            census.send_queue_bytes,
        );
        text.gauge(
            "crieur_buffer_bytes",
            "Bytes kept for peers, shared frames once.",
            census.buffer_bytes,
        );
    }

    fn write_notifications(&self, text: &mut MetricsText, figures: &dyn Figures) {
        let (shell, hub) = (figures.metrics(), &self.metrics);
        text.counters(
            "crieur_notifications",
            "Attempts to publish.",
            "result",
            [
                ("delivered", hub.notifications_delivered),
                ("invalid", hub.notifications_invalid),
                ("forbidden", hub.notifications_forbidden),
                ("rate_limited", hub.notifications_rate_limited),
            ],
        );
        text.counter(
            "crieur_deliveries",
            "Notifications queued to subscribers.",
            shell.deliveries,
        );
        text.counter(
            "crieur_deliveries_dropped",
            "Deliveries that a full queue did not take.",
            shell.deliveries_dropped,
        );
        text.counters(
            "crieur_subscriptions_refused",
            "Lists that the server had no room for.",
            "reason",
            [
                ("full", hub.subscriptions_refused_full),
                ("share", hub.subscriptions_refused_share),
            ],
        );
        text.histogram(
            "crieur_notification_recipients",
            "Connections that a notification was for.",
            1.0,
            &hub.recipients,
        );
        text.histogram(
            "crieur_match_seconds",
            "Time to find them.",
            1e6,
            &hub.match_micros,
        );
        text.histogram(
            "crieur_fan_out_seconds",
            "Time to queue a notification to them.",
            1e6,
            &hub.fan_out_micros,
        );
        text.gauge(
            "crieur_subscriptions",
            "Subscriptions.",
            self.index.subscription_count(),
        );
        text.gauge(
            "crieur_subscription_values",
            "Values in them.",
            self.index.value_count(),
        );
    }
}

fn write_comings(text: &mut MetricsText, shell: &Metrics) {
    text.counter(
        "crieur_connections_opened",
        "TCP connections taken in.",
        shell.connections_accepted,
    );
    text.counter(
        "crieur_accept_pauses",
        "Times that accepting had to pause.",
        shell.accept_pauses,
    );
    text.counter(
        "crieur_upgrades",
        "Handshakes that were completed.",
        shell.upgrades,
    );
    text.counters(
        "crieur_upgrades_rejected",
        "Upgrades that were refused.",
        "reason",
        [
            ("full", shell.upgrades_refused_full),
            ("forbidden", shell.upgrades_forbidden),
            ("rate_limited", shell.upgrades_rate_limited),
            ("invalid", shell.upgrades_invalid),
        ],
    );
    text.counter(
        "crieur_requests_rejected",
        "Requests that broke a rule of HTTP or of the handshake.",
        shell.requests_rejected,
    );
    text.counter(
        "crieur_requests_expired",
        "Requests that did not come in time.",
        shell.handshakes_expired,
    );
}

fn write_ends(text: &mut MetricsText, shell: &Metrics) {
    text.counter(
        "crieur_connections_dropped",
        "TCP connections that ended.",
        shell.connections_dropped,
    );
    text.counter(
        "crieur_connections_displaced",
        "Connections that were not open and made room.",
        shell.connections_displaced,
    );
    text.counters(
        "crieur_sessions_closed",
        "Open sessions that ended, by close code.",
        "code",
        shell.closed.all(),
    );
    text.counter(
        "crieur_protocol_errors",
        "Sessions closed for breaking the protocol, or a limit of size or time.",
        shell.protocol_errors,
    );
    text.counter(
        "crieur_slow_consumers",
        "Connections cut off because they did not read.",
        shell.slow_consumers,
    );
    text.counter(
        "crieur_peers_dead",
        "Sessions dropped because no life followed a Ping.",
        shell.peers_dead,
    );
    text.counter(
        "crieur_messages_discarded",
        "Messages that came behind the server's Close.",
        shell.messages_discarded,
    );
}

fn write_loop(text: &mut MetricsText, shell: &Metrics) {
    text.counter(
        "crieur_received_bytes",
        "Bytes read from peers.",
        shell.bytes_read,
    );
    text.counter(
        "crieur_reads_throttled",
        "Times that a client over its rate was not read.",
        shell.reads_throttled,
    );
    text.histogram(
        "crieur_ping_round_trip_seconds",
        "Time from a Ping's leaving to its Pong.",
        1e6,
        &shell.ping_round_trip_micros,
    );
    text.histogram(
        "crieur_loop_turn_seconds",
        "Time from one poll to the next, that whatever comes may have to wait.",
        1e6,
        &shell.turn_micros,
    );
    text.histogram(
        "crieur_loop_lag_seconds",
        "Time by which timers were late.",
        1e6,
        &shell.loop_lag_micros,
    );
}

fn write_process(text: &mut MetricsText, request: &Request<'_>) {
    let dropped = LOG_LINES_DROPPED.load(Ordering::Relaxed);
    text.counter(
        "crieur_log_lines_dropped",
        "Lines of the log that nobody took.",
        dropped,
    );
    let version = [(env!("CARGO_PKG_VERSION"), 1)];
    text.gauges("crieur_build_info", "Always 1.", "version", version);
    // The clock begins with the server.
    let uptime = request.now.as_micros() as f64 / 1e6;
    let start = request.unix_now.as_secs_f64() - uptime;
    text.gauge(
        "process_start_time_seconds",
        "When it began, since the Unix epoch.",
        start,
    );
    if let Some(bytes) = process::resident_bytes() {
        text.gauge(
            "process_resident_memory_bytes",
            "Memory that is resident.",
            bytes,
        );
    }
    if let Some(descriptors) = process::open_descriptors() {
        text.gauge(
            "process_open_fds",
            "Descriptors that are open.",
            descriptors,
        );
    }
}
