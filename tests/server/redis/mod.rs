//! Several servers on one Redis: what protocol section 8 promises, with a real `redis-server`.

use crate::helpers::http::figures;
use crate::helpers::numbered::wait_for_figure;
use crate::helpers::{Client, Server, delivery};

mod handover;
mod health;
mod losing;
mod order;
mod out_of_reach;
mod publishing;
mod resuming;
mod reuse_port;
mod starting;
mod stopping;

const C: &str = r#"{"channel":"c"}"#;
const D: &str = r#"{"channel":"d"}"#;

/// Publishers are told this of what never got to Redis.
const NOT_PUBLISHED: &str = "Redis is out of reach: it was not published";

/// And this of what was sent and not answered.
const PERHAPS: &str = "Redis has not answered in time: it may have been published; with a key it is safe to try again";

fn on_channel(channel: &str, n: usize) -> String {
    format!(r#"{{"channel":"{channel}","n":{n}}}"#)
}

fn keyed(key: &str, notification: &str) -> String {
    format!(r#"{{"sender":"server","key":"{key}","notification":{notification}}}"#)
}

/// The error that says that nothing can be published now.
fn unavailable(detail: &str) -> String {
    format!(r#"{{"type":"error","error":{{"code":"unavailable","detail":"{detail}"}}}}"#)
}

/// A publisher that keeps its connection.
fn publisher(server: &Server) -> Client {
    Client::connect_with(server, "/publish", &[])
}

/// The value of a figure, which has to be there.
fn figure(server: &Server, name: &str) -> f64 {
    let text = figures(server);
    let rest = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
    let value = text.lines().find_map(rest);
    value.unwrap_or_else(|| panic!("no {name}: {text}"))
}

/// Waits until so many publications are on their way to Redis, or wait for it.
fn wait_for_pending(server: &Server, count: usize) {
    wait_for_figure(server, &format!("crieur_redis_pending {count}"));
}

/// Reads deliveries of these, in this order.
fn expect_deliveries<T: AsRef<str>>(client: &mut Client, notifications: &[T]) {
    for notification in notifications {
        assert_eq!(client.text(), delivery(notification.as_ref()));
    }
}
