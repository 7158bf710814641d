//! What is where: method and path of a request lead to the hub, to the metrics, or to a file.
//!
//! All paths are here. Owns to whom the console is shown. What connections say is handed to the hub
//! unseen: an upgrade is taken on any path, also where there is a file. Main type: [`Routes`].

use std::io;

use crate::application::{
    Action, Admission, Answer, Application, BodyUse, CloseCause, Decision, Figures, Framing, Lane,
    Message, Outbox, Peer, Refused, Request, Response, State, Status, Uplinks, WriteBarrier,
};
use crate::config::Console;
use crate::handover::{Fields, Malformed, Members};
use crate::http::head::Head;
use crate::hub::access::policy;
use crate::hub::{Hub, access, word_for};
use crate::id::ConnectionId;
use crate::metrics::text::CONTENT_TYPE;
use crate::redis::Redis;
use crate::time::Timestamp;
use crate::web::{self, File};
use crate::wire::carried::{FrameNumbers, Frames};

/// The path that notifications are posted to, and whose connections stay when they have published.
const PUBLISH_PATH: &str = "/publish";

/// The path that tells publishers how far the log is.
const POSITION_PATH: &str = "/position";

/// The path that tells them who gets a notification, and why not.
const EXPLAIN_PATH: &str = "/explain";

/// Whether a request is one to publish, or pretends to be.
fn publishes(head: &Head<'_>) -> bool {
    head.path() == PUBLISH_PATH && !is_stripped_upgrade(head)
}

/// Whether a request is what is left of an upgrade whose `Upgrade` a proxy has removed, as it
/// removes every field that is meant for one hop (RFC 9110 §7.6.1): its key is still there.
fn is_stripped_upgrade(head: &Head<'_>) -> bool {
    head.fields.has("Sec-WebSocket-Key")
}

/// The hub with the files beside it.
pub struct Routes {
    hub: Hub,
    console: Console,
}

impl Routes {
    /// Routes to `hub`, and to the console as `console` says.
    #[must_use]
    pub const fn new(hub: Hub, console: Console) -> Self {
        Self { hub, console }
    }

    /// The hub.
    #[must_use]
    pub const fn hub(&self) -> &Hub {
        &self.hub
    }

    /// What comes next for a request that asks for no upgrade.
    fn route(
        &mut self,
        request: &Request<'_>,
        framing: Framing,
        trust: &policy::Decision,
        figures: &dyn Figures,
    ) -> Result<Action, Response> {
        let head = request.head;
        if publishes(head) {
            let permit = self.hub.permit_post(request, framing, trust);
            return permit.map(Action::ReadBody);
        }
        self.hub.charge_request(request, trust)?;
        if head.path() == EXPLAIN_PATH {
            let permit = self.hub.permit_explain(request, framing, trust);
            return permit.map(Action::ReadBody);
        }
        let response = match head.path() {
            "/livez" => Response::new(Status::OK, "ok"),
            "/healthz" => match self.why_unhealthy(figures) {
                None => Response::new(Status::OK, "ok"),
                Some(why) => Response::new(Status::SERVICE_UNAVAILABLE, why),
            },
            "/metrics" => self.metrics(request, figures),
            POSITION_PATH => self.hub.answer_position(request, trust),
            "/connections" => self.hub.answer_connections(request, trust, figures),
            "/notifications" => self.hub.answer_notifications(request, trust),
            "/refusals" => self.hub.answer_refusals(request, trust),
            path => match web::find(path) {
                Some(file) if self.shows(file, request) => response(file),
                _ => return Err(nothing_at(head)),
            },
        };
        if matches!(head.method, "GET" | "HEAD") {
            return Ok(Action::Respond(response));
        }
        let refused = Response::new(Status::METHOD_NOT_ALLOWED, "this can only be read");
        Err(refused.with_field("Allow", "GET, HEAD"))
    }

    /// Why publishing is impossible, or nobody is let in.
    fn why_unhealthy(&self, figures: &dyn Figures) -> Option<&'static str> {
        if !figures.is_accepting() {
            return Some("stopping");
        }
        let is_reachable = self.hub.redis().is_none_or(Redis::is_reachable);
        (!is_reachable).then_some("redis is out of reach")
    }

    fn metrics(&self, request: &Request<'_>, figures: &dyn Figures) -> Response {
        if !self.hub.shows_metrics(request) {
            let why = "metrics are not shown to this address";
            return Response::new(Status::FORBIDDEN, why);
        }
        let text = self.hub.metrics_text(request, figures);
        let mut response = Response::new(Status::OK, text);
        response.content_type = CONTENT_TYPE;
        response
    }

    /// Whether the sender of a request is shown `file`.
    ///
    /// A browser on this host counts as local here, though it may not publish: the files are the
    /// same for everybody and asking for them changes nothing, so a page that makes a browser ask
    /// gains nothing, and can't read the answer. So `Cookie`, which any other server on localhost
    /// may have set, and the `Sec-Fetch-*` fields say nothing. What must not happen is that a proxy
    /// shows the console to the world, or a name that was made to point here does: hence the
    /// address, `Host`, and no field of a proxy.
    fn shows(&self, file: &File, request: &Request<'_>) -> bool {
        // Nobody looks at pages on the publishers' lane.
        if is_stripped_upgrade(request.head) || request.peer.lane == Lane::Publishers {
            return false;
        }
        !file.is_console
            || match self.console {
                Console::Local => access::is_on_this_host(request),
                Console::Public => true,
                Console::Off => false,
            }
    }
}

/// The answer where there is nothing; one that tells what is missing to an upgrade that is none.
fn nothing_at(head: &Head<'_>) -> Response {
    if head.path() == "/" || is_stripped_upgrade(head) {
        let why = "this is a WebSocket server: upgrade, in HTTP/1.1";
        return Response::new(Status::UPGRADE_REQUIRED, why)
            .with_field("Upgrade", "websocket")
            .with_field("Sec-WebSocket-Version", "13");
    }
    Response::new(Status::NOT_FOUND, "there is nothing here")
}

fn response(file: &File) -> Response {
    let response = Response::file(file.content_type, file.text);
    file.fields
        .iter()
        .fold(response, |response, &(name, value)| {
            response.with_field(name, value)
        })
}

impl Application for Routes {
    fn handle_upgrade(
        &mut self,
        id: ConnectionId,
        request: &Request<'_>,
    ) -> Result<Admission, Refused> {
        let stays = request.head.path() == PUBLISH_PATH;
        self.hub.admit(id, request, stays)
    }

    fn is_urgent(&self, request: &Request<'_>) -> bool {
        publishes(request.head)
    }

    fn handle_request(
        &mut self,
        _: ConnectionId,
        request: &Request<'_>,
        framing: Framing,
        figures: &dyn Figures,
    ) -> Decision {
        let trust = self.hub.evaluate(request);
        let routed = self.route(request, framing, &trust, figures);
        Decision {
            action: routed.unwrap_or_else(Action::Respond),
            is_limited: trust.is_limited,
        }
    }

    fn handle_body(
        &mut self,
        id: ConnectionId,
        body: &[u8],
        body_use: BodyUse,
        outbox: &mut dyn Outbox,
    ) -> Answer {
        match body_use {
            BodyUse::Explain => Answer::Now(self.hub.explain(body, outbox)),
            BodyUse::Publish | BodyUse::PublishByToken { .. } => {
                self.hub.handle_post(id, body, body_use, outbox)
            }
        }
    }

    fn handle_message(&mut self, id: ConnectionId, message: Message<'_>, outbox: &mut dyn Outbox) {
        self.hub.handle_message(id, message, outbox);
    }

    fn handle_deadline(&mut self, id: ConnectionId, outbox: &mut dyn Outbox) {
        self.hub.handle_deadline(id, outbox);
    }

    fn handle_drained(&mut self, id: ConnectionId, _: &mut dyn Outbox) {
        self.hub.handle_drained(id);
    }

    fn write_barrier(&self) -> Option<Box<dyn WriteBarrier>> {
        self.hub.write_barrier()
    }

    fn next_work(&self) -> Option<Timestamp> {
        self.hub.next_work()
    }

    fn handle_work(&mut self, outbox: &mut dyn Outbox) {
        self.hub.handle_work(outbox);
    }

    fn handle_reload(&mut self) {
        self.hub.reload();
    }

    fn uplinks(&mut self) -> Option<&mut dyn Uplinks> {
        let redis = self.hub.redis_mut()?;
        Some(redis)
    }

    fn is_ready(&self) -> bool {
        self.hub.redis().is_none_or(Redis::is_ready)
    }

    fn settle(&mut self, is_held: bool) -> bool {
        let Some(redis) = self.hub.redis_mut() else {
            return true;
        };
        redis.hold(is_held);
        if is_held {
            redis.is_settled()
        } else {
            redis.is_idle()
        }
    }

    fn handle_end(&mut self, id: ConnectionId, cause: Option<CloseCause>, now: Timestamp) {
        self.hub.note_end(id, cause.map(word_for), now);
    }

    fn handle_gone(&mut self, id: ConnectionId) {
        self.hub.handle_gone(id);
    }

    fn close_reason(&self, cause: CloseCause, retry_ms: u64) -> String {
        self.hub.close_reason(cause, retry_ms)
    }

    fn save(&self, state: &mut State<'_>, frames: &mut FrameNumbers) -> io::Result<()> {
        self.hub.save(state, frames)
    }

    fn save_connection(&self, id: ConnectionId, members: &mut Members<'_>) {
        self.hub.save_connection(id, members);
    }

    fn restore(
        &mut self,
        kind: u8,
        fields: &Fields<'_>,
        frames: &mut Frames,
        now: Timestamp,
    ) -> Result<(), Malformed> {
        self.hub.restore(kind, fields, frames, now)
    }

    fn restore_connection(
        &mut self,
        id: ConnectionId,
        peer: Peer,
        fields: &Fields<'_>,
        now: Timestamp,
    ) -> Result<(), Malformed> {
        self.hub.restore_connection(id, peer, fields, now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::application::{Endpoint, Gauges, Peer, PeerAddress};
    use crate::config::{HistoryLimits, HubConfig};
    use crate::hub::access::policy::Policy;
    use crate::hub::command;
    use crate::journal::Journal;
    use crate::journal::id::Generation;
    use crate::metrics::Metrics;
    use crate::redis::{Append, Settings, address};

    const LOCAL: &str = "127.0.0.1:50000";
    const REMOTE: &str = "192.0.2.1:50000";
    const HOST: &str = "Host: localhost:8000";

    /// A shell that serves, and has counted nothing.
    struct Serving;

    impl Figures for Serving {
        fn is_accepting(&self) -> bool {
            true
        }

        fn metrics(&self) -> &Metrics {
            unreachable!("nobody asks for metrics")
        }

        fn gauges(&self) -> Gauges {
            unreachable!("nobody asks for metrics")
        }
    }

    fn ask(console: Console, address: &str, request_line: &str, fields: &[&str]) -> Response {
        ask_on(Lane::Clients, console, address, request_line, fields)
    }

    fn ask_on(
        lane: Lane,
        console: Console,
        address: &str,
        request_line: &str,
        fields: &[&str],
    ) -> Response {
        let journal = Journal::new(HistoryLimits::default(), Generation(1));
        ask_hub(hub(journal), lane, console, address, request_line, fields)
    }

    fn hub(journal: Journal) -> Hub {
        Hub::new(
            HubConfig::default(),
            Duration::ZERO,
            Policy::default(),
            journal,
        )
    }

    fn ask_hub(
        hub: Hub,
        lane: Lane,
        console: Console,
        address: &str,
        request_line: &str,
        fields: &[&str],
    ) -> Response {
        let lines: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        let text = format!("{request_line} HTTP/1.1\r\n{lines}\r\n");
        let (head, _) = Head::parse(text.as_bytes(), 0, 4096)
            .expect("valid")
            .expect("complete");
        let peer = Peer {
            address: PeerAddress::Ip(address.parse().expect("an address")),
            lane,
        };
        let request = Request {
            peer,
            head: &head,
            now: Timestamp::ZERO,
            unix_now: Duration::ZERO,
        };
        let id = ConnectionId {
            index: 0,
            serial: 0,
        };
        let mut routes = Routes::new(hub, console);
        match routes
            .handle_request(id, &request, Framing::None, &Serving)
            .action
        {
            Action::Respond(response) => response,
            other => panic!("{other:?}"),
        }
    }

    fn status(console: Console, address: &str, request_line: &str, fields: &[&str]) -> u16 {
        ask(console, address, request_line, fields).status.code
    }

    #[test]
    fn the_console_is_for_browsers_on_this_host() {
        for path in ["/", "/?", "/console.js", "/console.css"] {
            let line = format!("GET {path}");
            let nothing = if path.len() < 3 { 426 } else { 404 };
            for (console, address, fields, expected) in [
                (Console::Local, LOCAL, &[HOST][..], 200),
                (Console::Local, REMOTE, &[HOST], nothing),
                (Console::Public, REMOTE, &[], 200),
                (Console::Off, LOCAL, &[HOST], nothing),
            ] {
                let status = status(console, address, &line, fields);
                assert_eq!(status, expected, "{path} {console:?} {address}");
            }
        }
    }

    #[test]
    fn what_a_browser_sends_with_a_navigation_is_no_reason_to_refuse() {
        let fields = [
            HOST,
            "Cookie: of=another-server-on-localhost",
            "Sec-Fetch-Site: none",
            "Sec-Fetch-Mode: navigate",
        ];
        assert_eq!(status(Console::Local, LOCAL, "GET /", &fields), 200);
    }

    #[test]
    fn proxies_and_names_that_point_here_are_not_shown_the_console() {
        for fields in [
            &["Host: example.org"][..],
            &[],
            &[HOST, "X-Forwarded-For: 192.0.2.1"],
            &[HOST, "Forwarded: for=192.0.2.1"],
            &[HOST, "Via: 1.1 proxy"],
            &[HOST, "X-Real-IP: 192.0.2.1"],
        ] {
            let status = status(Console::Local, LOCAL, "GET /", fields);
            assert_eq!(status, 426, "{fields:?}");
        }
    }

    #[test]
    fn the_client_is_for_everybody() {
        for console in [Console::Local, Console::Public, Console::Off] {
            let response = ask(console, REMOTE, "GET /crieur.js", &["Host: example.org"]);
            assert_eq!(response.status, Status::OK);
            assert_eq!(response.content_type, "text/javascript; charset=utf-8");
        }
    }

    #[test]
    fn publishers_are_shown_no_files() {
        for (line, status) in [
            ("GET /", Status::UPGRADE_REQUIRED),
            ("GET /crieur.js", Status::NOT_FOUND),
        ] {
            let response = ask_on(Lane::Publishers, Console::Public, LOCAL, line, &[HOST]);
            assert_eq!(response.status, status, "{line}");
        }
    }

    /// One that isn't connected yet.
    fn redis() -> Redis {
        let settings = Settings {
            stream: "crieur".into(),
            maxlen: 1000,
            timeout: Duration::from_secs(1),
            history: Duration::from_secs(300),
            takes_position: command::takes_position,
        };
        let server = address::Server {
            endpoint: Endpoint::Unix("/redis".into()),
            login: address::Login::default(),
        };
        Redis::new(settings, vec![server], 1)
    }

    #[test]
    fn a_server_whose_redis_is_out_of_reach_says_so() {
        let ask = |hub, path| {
            let console = Console::Off;
            ask_hub(hub, Lane::Clients, console, LOCAL, path, &[HOST])
        };
        for (seconds, code, body) in [(0, 200, "ok\n"), (1, 503, "redis is out of reach\n")] {
            let mut redis = redis();
            redis.handle_timeout(Timestamp::from_micros(seconds * 1_000_000));
            let journal = Journal::of_stream(HistoryLimits::default());
            let response = ask(hub(journal).with_redis(redis), "GET /healthz");
            assert_eq!((response.status.code, &*response.body), (code, body));
        }
        let journal = Journal::new(HistoryLimits::default(), Generation(1));
        assert_eq!(ask(hub(journal), "GET /healthz").status.code, 200);
    }

    #[test]
    fn what_waits_is_under_way_unless_it_is_held() {
        let journal = Journal::of_stream(HistoryLimits::default());
        let hub = hub(journal).with_redis(redis());
        let mut routes = Routes::new(hub, Console::Off);
        assert!(routes.settle(true) && routes.settle(false));
        let entry = Append {
            kind: "\"kind\"",
            notification: "{}",
            is_kept: true,
            key: None,
        };
        let redis = routes.hub.redis_mut().expect("it has one");
        redis.append(&[entry], Timestamp::ZERO).expect("it waits");
        assert!(routes.settle(true) && !routes.settle(false));
    }

    #[test]
    fn files_are_only_read() {
        let response = ask(Console::Local, LOCAL, "POST /", &[HOST]);
        assert_eq!(response.status, Status::METHOD_NOT_ALLOWED);
        assert!(response.fields.contains(&("Allow", "GET, HEAD".to_owned())));
    }

    #[test]
    fn the_remains_of_an_upgrade_are_told_that_one_is_required() {
        let fields = [
            HOST,
            "Connection: close",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ];
        assert_eq!(status(Console::Local, LOCAL, "GET /", &fields), 426);
    }
}
