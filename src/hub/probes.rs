//! Requests about the server itself: whether it lives, whether it takes clients, and its metrics.

use super::Hub;
use crate::application::{Figures, Request, Response, Status};
use crate::metrics::exposition::Snapshot;
use crate::metrics::text::CONTENT_TYPE;

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
            "/metrics" => Response::new(Status::FORBIDDEN, "metrics are not shown to this address"),
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
        let census = figures.census();
        let publishers = self.connections.publishers_len() as u64;
        // The clock begins with the server.
        let uptime = request.now.as_micros() as f64 / 1e6;
        let snapshot = Snapshot {
            shell: figures.metrics(),
            hub: &self.metrics,
            clients: census.open.saturating_sub(publishers),
            publishers,
            http: census.http,
            handshakes: census.handshakes,
            closing: census.closing,
            send_queue_bytes: census.send_queue_bytes,
            buffer_bytes: census.buffer_bytes,
            subscriptions: self.index.subscription_count() as u64,
            subscription_values: self.index.value_count() as u64,
            start_seconds: request.unix_now.as_secs_f64() - uptime,
        };
        let mut text = snapshot.to_text();
        // A response's text has its last line feed already.
        text.pop();
        text
    }
}
