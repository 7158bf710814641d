//! What is asked about the server itself: whether it lives, and whether it takes clients.

use super::Hub;
use crate::application::{Figures, Request, Response, Status};

impl Hub {
    /// The answer to a request about the server; `None` if it is about something else.
    pub(super) fn answer_probe(
        &self,
        request: &Request<'_>,
        figures: &dyn Figures,
    ) -> Option<Response> {
        let head = request.head;
        let mut response = match head.path() {
            "/healthz" if figures.is_accepting() => Response::new(Status::OK, "ok"),
            "/healthz" => Response::new(Status::SERVICE_UNAVAILABLE, "stopping"),
            "/livez" => Response::new(Status::OK, "ok"),
            _ => return None,
        };
        if !matches!(head.method, "GET" | "HEAD") {
            response = Response::new(Status::METHOD_NOT_ALLOWED, "this is there to be read")
                .with_field("Allow", "GET, HEAD");
        }
        response.is_head = head.method == "HEAD";
        Some(response)
    }
}
