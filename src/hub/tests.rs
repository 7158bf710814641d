//! The hub alone, before an outbox that notes what goes out.

use std::time::Duration;

use super::*;
use crate::application::{
    Admission, Delivered, Deliveries, Lane, Peer, PeerAddress, Replies, Response,
};
use crate::config::{HistoryLimits, HubLimits};
use crate::http::head::Head;
use crate::hub::access::jwt::ClientKeys;
use crate::hub::access::token_file::PublishTokens;
use crate::hub::saved::tests::carry;
use crate::journal::id::Generation;
use crate::time::{Clock, Timestamp};
use crate::ws::error::ProtocolError;
use crate::ws::frame::EncodedFrame;

/// What went out, in order.
#[derive(Debug, PartialEq, Eq)]
enum Sent {
    Reply(String),
    Delivery(String, Vec<ConnectionId>),
    Close(u16, String),
    Pause(ConnectionId),
    Resume(ConnectionId),
}

/// An outbox that notes what goes out, and cuts off the slow ones.
#[derive(Default)]
struct Record {
    sent: Vec<Sent>,
    slow: Vec<ConnectionId>,
    awaited: Vec<ConnectionId>,
    closed: Vec<ConnectionId>,
    now: Timestamp,
}

impl Clock for Record {
    fn now(&self) -> Timestamp {
        self.now
    }

    fn unix_now(&self) -> Duration {
        Duration::ZERO
    }
}

impl Deliveries for Record {
    fn deliver(&mut self, frame: &EncodedFrame, recipients: &[ConnectionId]) -> Delivered {
        let text = String::from_utf8(frame.payload().to_vec()).expect("text");
        let mut sorted = recipients.to_vec();
        sorted.sort_unstable();
        self.sent.push(Sent::Delivery(text, sorted));
        let dropped = recipients
            .iter()
            .filter(|id| self.slow.contains(id))
            .count();
        Delivered {
            queued: recipients.len() - dropped,
            dropped,
        }
    }

    fn has_room(&mut self, id: ConnectionId, _: &EncodedFrame) -> bool {
        !self.slow.contains(&id)
    }

    fn close(&mut self, id: ConnectionId, code: CloseCode, reason: &str) {
        self.closed.push(id);
        self.sent
            .push(Sent::Close(code.as_u16(), reason.to_owned()));
    }

    fn retry_ms(&mut self) -> u64 {
        4200
    }
}

impl Replies for Record {
    fn reply(&mut self, _: ConnectionId, payload: &str) {
        self.sent.push(Sent::Reply(payload.to_owned()));
    }

    fn reply_binary(&mut self, _: ConnectionId, _: &[u8]) {
        unreachable!("the hub speaks text");
    }

    fn respond(&mut self, _: ConnectionId, _: &Response) {
        unreachable!("the hub answers at once");
    }

    fn readmit(&mut self, _: ConnectionId, _: &Admission) {}

    fn is_drained(&mut self, id: ConnectionId) -> bool {
        !self.slow.contains(&id)
    }

    fn await_drained(&mut self, id: ConnectionId) {
        self.awaited.push(id);
    }

    fn pause_input(&mut self, id: ConnectionId) {
        self.sent.push(Sent::Pause(id));
    }

    fn resume_input(&mut self, id: ConnectionId) {
        self.sent.push(Sent::Resume(id));
    }
}

const PING_INTERVAL: Duration = Duration::from_secs(25);

const fn id(index: u32) -> ConnectionId {
    ConnectionId { index, serial: 7 }
}

fn hub() -> Hub {
    hub_with(Policy {
        local_publish: true,
        ..Policy::default()
    })
}

fn hub_of(config: HubConfig, policy: Policy) -> Hub {
    let journal = Journal::new(HistoryLimits::default(), Generation(1));
    Hub::new(config, PING_INTERVAL, policy, journal)
}

fn hub_with(policy: Policy) -> Hub {
    hub_of(HubConfig::default(), policy)
}

fn request<'a>(address: &str, head: &'a Head<'a>) -> Request<'a> {
    Request {
        peer: Peer {
            address: PeerAddress::Ip(address.parse().expect("an address")),
            lane: Lane::Clients,
        },
        head,
        now: Timestamp::ZERO,
        unix_now: Duration::ZERO,
    }
}

fn connect(hub: &mut Hub, id: ConnectionId, address: &str, target: &str) -> Admission {
    let text = format!("GET {target} HTTP/1.1\r\nHost: localhost:8000\r\n\r\n");
    let (head, _) = Head::parse(text.as_bytes(), 0, 4096)
        .expect("valid")
        .expect("complete");
    hub.admit(id, &request(address, &head), head.path() == "/publish")
        .expect("everybody is admitted")
}

const LOCAL: &str = "127.0.0.1:50000";
const REMOTE: &str = "192.0.2.1:50000";

/// Has a hub that another one has become take a message.
fn send(hub: &mut Hub, id: ConnectionId, text: &str) -> Vec<Sent> {
    let mut outbox = Record::default();
    carry(hub, outbox.now);
    hub.handle_message(id, Message::Text(text), &mut outbox);
    hub.check_invariants();
    outbox.sent
}

fn subscribe(hub: &mut Hub, id: ConnectionId) {
    connect(hub, id, REMOTE, "/");
    let sent = send(hub, id, r#"{"sender":"client","subscriptions":["a"]}"#);
    let reply = r#"{"type":"subscribed","subscriptions":1,"heartbeat":25}"#;
    assert_eq!(sent, [Sent::Reply(reply.to_owned())]);
}

const PUBLISH: &str = r#"{"sender":"server","notification":{"channel":"a"}}"#;
const BAD_PUBLISH: &str = r#"{"sender":"server","notification":{}}"#;

fn delivery(recipients: &[ConnectionId]) -> Sent {
    let text = r#"{"type":"notification","notification":{"channel":"a"}}"#;
    Sent::Delivery(text.to_owned(), recipients.to_vec())
}

fn is_error(sent: &Sent, code: &str) -> bool {
    let start = format!(r#"{{"type":"error","error":{{"code":"{code}","#);
    matches!(sent, Sent::Reply(text) if text.starts_with(&start))
}

fn close(code: u16, reason: &str) -> Sent {
    Sent::Close(code, reason.to_owned())
}

#[test]
fn a_notification_reaches_its_subscribers_and_closes_its_publisher() {
    let mut hub = hub();
    subscribe(&mut hub, id(3));
    subscribe(&mut hub, id(0));
    connect(&mut hub, id(1), LOCAL, "/");
    let sent = send(&mut hub, id(1), PUBLISH);
    assert_eq!(
        sent,
        [
            delivery(&[id(0), id(3)]),
            close(1000, r#"{"delivered":2,"id":"0000000000000001-1"}"#)
        ]
    );
    let mut outbox = Record {
        slow: vec![id(0)],
        ..Record::default()
    };
    hub.handle_message(id(1), Message::Text(PUBLISH), &mut outbox);
    assert_eq!(
        outbox.sent.last(),
        Some(&close(
            1000,
            r#"{"delivered":1,"dropped":1,"id":"0000000000000001-2"}"#
        ))
    );
    hub.handle_gone(id(3));
    hub.handle_gone(id(0));
    let sent = send(&mut hub, id(1), PUBLISH);
    assert_eq!(
        sent,
        [close(1000, r#"{"delivered":0,"id":"0000000000000001-3"}"#)]
    );
}

#[test]
fn a_publisher_that_subscribed_gets_its_own() {
    let mut hub = hub();
    connect(&mut hub, id(1), LOCAL, "/");
    send(
        &mut hub,
        id(1),
        r#"{"sender":"client","subscriptions":["a","a"]}"#,
    );
    let sent = send(&mut hub, id(1), PUBLISH);
    assert_eq!(
        sent,
        [
            delivery(&[id(1)]),
            close(1000, r#"{"delivered":1,"id":"0000000000000001-1"}"#)
        ]
    );
}

#[test]
fn publish_without_permission_is_refused_before_its_content_is_read() {
    for (address, local_publish) in [(REMOTE, true), (LOCAL, false)] {
        for target in ["/", "/publish"] {
            let mut hub = hub_with(Policy {
                local_publish,
                ..Policy::default()
            });
            connect(&mut hub, id(1), address, target);
            for text in [PUBLISH, BAD_PUBLISH, r#"{"sender":"server","type":"pong"}"#] {
                let sent = send(&mut hub, id(1), text);
                assert!(is_error(&sent[0], "forbidden"), "{sent:?}");
                let reason = r#"{"reason":"forbidden","retry":4200}"#;
                assert_eq!(sent[1..], [close(1008, reason)]);
            }
            // One of this host is the operator's own.
            let metrics = hub.metrics();
            let counts = (
                metrics.notifications_forbidden,
                metrics.notifications_of_strangers,
            );
            assert_eq!(counts, if address == LOCAL { (3, 0) } else { (0, 3) });
            let sent = send(&mut hub, id(1), r#"{"sender":"server","#);
            assert!(is_error(&sent[0], "invalid-json") && sent.len() == 1);
        }
    }
}

#[test]
fn a_bad_notification_closes_its_publisher_unless_it_stays() {
    let mut hub = hub();
    connect(&mut hub, id(1), LOCAL, "/publish/");
    let sent = send(&mut hub, id(1), BAD_PUBLISH);
    assert!(is_error(&sent[0], "invalid-notification"), "{sent:?}");
    let reason = r#"{"reason":"invalid-notification","retry":4200}"#;
    assert_eq!(sent[1..], [close(1008, reason)]);

    for (target, position) in [("/publish", 1), ("/publish?token=x", 2)] {
        connect(&mut hub, id(2), LOCAL, target);
        let sent = send(&mut hub, id(2), BAD_PUBLISH);
        assert!(is_error(&sent[0], "invalid-notification") && sent.len() == 1);
        let sent = send(&mut hub, id(2), PUBLISH);
        let reply =
            format!(r#"{{"type":"published","delivered":0,"id":"0000000000000001-{position}"}}"#);
        assert_eq!(sent, [Sent::Reply(reply)]);
        hub.handle_gone(id(2));
    }
}

#[test]
fn an_error_leaves_the_earlier_subscriptions_in_force() {
    let mut hub = hub();
    subscribe(&mut hub, id(0));
    for text in [
        r#"{"sender":"client","subscriptions":["b",7]}"#,
        r#"{"sender":"client","cmd":[{}]}"#,
        "[",
        r#"{"type":"pong"}"#,
    ] {
        let sent = send(&mut hub, id(0), text);
        assert!(matches!(&sent[..], [Sent::Reply(_)]), "{sent:?}");
        assert_eq!(hub.index().subscriptions_of(id(0)), 1);
    }
    let sent = send(&mut hub, id(0), r#"{"type":"ping"}"#);
    assert_eq!(sent, [Sent::Reply(r#"{"type":"pong"}"#.to_owned())]);
    send(&mut hub, id(0), r#"{"sender":"client","subscriptions":[]}"#);
    assert_eq!(hub.index().subscriptions_of(id(0)), 0);
}

fn hub_of_totals(subscriptions: usize, share_percent: usize, policy: Policy) -> Hub {
    let limits = HubLimits {
        subscriptions_total_max: subscriptions,
        share_percent,
        ..HubLimits::default()
    };
    let config = HubConfig {
        limits,
        ..HubConfig::default()
    };
    hub_of(config, policy)
}

#[test]
fn an_address_has_a_share_that_is_given_back() {
    let tokens = PublishTokens::parse("0123456789abcdef").expect("a token");
    let policy = Policy {
        publish_tokens: Some(tokens),
        ..Policy::default()
    };
    let mut hub = hub_of_totals(8, 25, policy);
    let one = r#"{"sender":"client","subscriptions":["a"]}"#;
    let two = r#"{"sender":"client","subscriptions":["b","c"]}"#;
    let is_refused = |hub: &mut Hub, id, text| {
        let sent = send(hub, id, text);
        assert_eq!(sent.len(), 1);
        is_error(&sent[0], "too-many-subscriptions")
    };
    for (index, address) in [REMOTE, "192.0.2.1:7", "192.0.2.2:7", LOCAL]
        .iter()
        .enumerate()
    {
        connect(&mut hub, id(index as u32), address, "/publish");
    }
    assert!(!is_refused(&mut hub, id(0), one));
    assert!(is_refused(&mut hub, id(1), two));
    assert_eq!(hub.index().subscriptions_of(id(1)), 0);
    assert!(!is_refused(&mut hub, id(1), one) && !is_refused(&mut hub, id(0), one));
    assert!(is_refused(&mut hub, id(0), two));
    assert!(!is_refused(&mut hub, id(2), two));
    // This host has no share.
    let three = r#"{"sender":"client","subscriptions":["b","c","d"]}"#;
    assert!(!is_refused(&mut hub, id(3), three));
    assert_eq!(hub.metrics().subscriptions_refused_share, 2);
    assert_eq!(hub.metrics().subscriptions_refused_full, 0);
    // Neither has a publisher: what it holds counts no more against its address.
    send(
        &mut hub,
        id(1),
        &PUBLISH.replacen('{', r#"{"token":"0123456789abcdef","#, 1),
    );
    assert!(!is_refused(&mut hub, id(0), two));
    assert!(!is_refused(&mut hub, id(1), one));
    hub.handle_gone(id(1));
    hub.handle_gone(id(0));
    connect(&mut hub, id(0), REMOTE, "/");
    assert!(!is_refused(&mut hub, id(0), two));
}

#[test]
fn a_list_that_the_server_has_no_room_for_is_refused_and_counted() {
    let mut hub = hub_of_totals(2, 100, Policy::default());
    subscribe(&mut hub, id(0));
    subscribe(&mut hub, id(1));
    let two = r#"{"sender":"client","subscriptions":["b","c"]}"#;
    let sent = send(&mut hub, id(1), two);
    assert!(is_error(&sent[0], "too-many-subscriptions") && sent.len() == 1);
    assert_eq!(hub.index().subscriptions_of(id(1)), 1);
    assert_eq!(hub.metrics().subscriptions_refused_full, 1);
    hub.handle_gone(id(0));
    assert!(!is_error(
        &send(&mut hub, id(1), two)[0],
        "too-many-subscriptions"
    ));
    assert_eq!(hub.metrics().subscriptions_refused_full, 1);
}

#[test]
fn lists_in_a_row_queue_no_more_than_one_replay() {
    let mut hub = hub();
    connect(&mut hub, id(1), LOCAL, "/publish");
    send(&mut hub, id(1), PUBLISH);
    connect(&mut hub, id(2), REMOTE, "/");
    let list = r#"{"sender":"client","subscriptions":["a"],"since":"0000000000000001-0"}"#;
    let told = |sent: &[Sent]| {
        let kinds = sent.iter().map(|sent| match sent {
            Sent::Reply(text) if text.contains("caught-up") => "caught up",
            Sent::Reply(_) => "subscribed",
            Sent::Delivery(..) => "delivery",
            _ => "other",
        });
        kinds.collect::<Vec<_>>()
    };
    let sent = send(&mut hub, id(2), list);
    assert_eq!(told(&sent), ["subscribed", "delivery", "caught up"]);
    let mut outbox = Record {
        slow: vec![id(2)],
        ..Record::default()
    };
    for _ in 0..3 {
        hub.handle_message(id(2), Message::Text(list), &mut outbox);
        hub.check_invariants();
    }
    assert_eq!(told(&outbox.sent), ["subscribed"; 3]);
    assert_ne!(hub.next_work(), Some(Timestamp::ZERO));
    hub.handle_drained(id(2));
    let mut outbox = Record::default();
    hub.handle_work(&mut outbox);
    assert_eq!(told(&outbox.sent), ["delivery", "caught up"]);
}

#[test]
fn the_longest_list_that_is_held_goes_when_too_much_is() {
    const MIB: usize = 1024 * 1024;
    let mut hub = hub();
    connect(&mut hub, id(0), LOCAL, "/publish");
    send(&mut hub, id(0), PUBLISH);
    let mut outbox = Record::default();
    for (client, len) in [(1, 6 * MIB), (2, 7 * MIB), (3, 100), (4, 4 * MIB), (5, 100)] {
        connect(&mut hub, id(client), REMOTE, "/");
        outbox.slow.push(id(client));
        let since = r#"{"sender":"client","subscriptions":["a"],"since":"0000000000000001-0"}"#;
        hub.handle_message(id(client), Message::Text(since), &mut outbox);
        let list = r#"{"sender":"client","subscriptions":[]}"#;
        let list = format!("{list}{}", " ".repeat(len - list.len()));
        outbox.sent.clear();
        hub.handle_message(id(client), Message::Text(&list), &mut outbox);
        hub.check_invariants();
        let expected = match client {
            4 => vec![Sent::Pause(id(4)), close(1013, OVERLOAD)],
            _ => vec![Sent::Pause(id(client))],
        };
        assert_eq!(outbox.sent, expected);
    }
    // The second one's.
    assert_eq!(outbox.closed, [id(2)]);
}

const OVERLOAD: &str = r#"{"reason":"overload","retry":4200}"#;

#[test]
fn what_is_too_old_is_dropped_a_thousand_at_a_time() {
    let mut hub = hub();
    connect(&mut hub, id(0), LOCAL, "/publish");
    for _ in 0..2500 {
        hub.handle_message(id(0), Message::Text(PUBLISH), &mut Record::default());
    }
    let mut outbox = Record {
        now: Timestamp::from_micros(301_000_000),
        ..Record::default()
    };
    let mut left = Vec::new();
    while hub.next_work().is_some_and(|due| due <= outbox.now) {
        hub.handle_work(&mut outbox);
        left.push(hub.journal().history().len());
    }
    assert_eq!(left, [1476, 452, 0]);
    hub.check_invariants();
}

#[test]
fn binary_messages_are_closed_with_1003() {
    let mut hub = hub();
    subscribe(&mut hub, id(0));
    let mut outbox = Record::default();
    hub.handle_message(id(0), Message::Binary(b"{}"), &mut outbox);
    let reason = r#"{"reason":"binary-message","retry":4200}"#;
    assert_eq!(outbox.sent, [close(1003, reason)]);
}

#[test]
fn a_publisher_may_send_more() {
    let mut hub = hub();
    let limits = HubConfig::default().limits;
    let local = connect(&mut hub, id(0), LOCAL, "/");
    assert_eq!(local.message_bytes_max, limits.publish_bytes_max);
    let remote = connect(&mut hub, id(1), REMOTE, "/publish");
    assert_eq!(remote.message_bytes_max, limits.message_bytes_max);
    assert!(remote.is_limited && !local.is_limited);
}

#[test]
fn a_proxy_that_names_nobody_does_not_speak_for_itself() {
    let mut policy = Policy::default();
    let proxy = "127.0.0.1".parse().expect("an address");
    policy.proxies.0.push(proxy);
    let mut hub = hub_with(policy);
    let mut ask = |number, field: &str| {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n");
        let (head, _) = Head::parse(text.as_bytes(), 0, 4096)
            .expect("valid")
            .expect("complete");
        let admission = hub.admit(id(number), &request(LOCAL, &head), false);
        let admission = admission.expect("everybody is let in");
        (admission.is_limited, admission.on_behalf_of)
    };
    assert_eq!(ask(0, ""), (false, None));
    let unknown = Some(PeerAddress::Unknown);
    assert_eq!(ask(1, "X-Forwarded-For: unknown\r\n"), (true, unknown));
    assert_eq!(ask(2, "X-Forwarded-For:\r\n"), (true, unknown));
}

#[test]
fn close_reasons_are_json_and_short() {
    let hub = hub();
    let too_big = ProtocolError::TooBig {
        bytes: u64::MAX,
        bytes_max: 0,
    };
    for (cause, word) in [
        (CloseCause::SlowConsumer, "slow-consumer"),
        (CloseCause::Overload, "overload"),
        (CloseCause::Shutdown, "shutdown"),
        (CloseCause::UnfinishedMessage, "unfinished-message"),
        (CloseCause::Protocol(too_big), "message-too-big"),
        (
            CloseCause::Protocol(ProtocolError::InvalidUtf8),
            "invalid-utf8",
        ),
        (
            CloseCause::Protocol(ProtocolError::Unmasked),
            "protocol-error",
        ),
    ] {
        let reason = hub.close_reason(cause, u64::MAX);
        assert_eq!(
            reason,
            format!(r#"{{"reason":"{word}","retry":{}}}"#, u64::MAX)
        );
        assert!(reason.len() <= crate::ws::close::CLOSE_REASON_BYTES_MAX);
    }
}

#[test]
fn what_clients_have_shown_leaves_nothing() {
    let keys = ClientKeys::parse("0123456789abcdef0123456789abcdef").expect("a key");
    let mut hub = hub_with(Policy {
        client_keys: Some(keys),
        ..Policy::default()
    });
    for index in 0..1000 {
        connect(&mut hub, id(index), REMOTE, "/");
    }
    assert!(hub.clearances.has(id(999)) && hub.clearances.heap_bytes() > 0);
    for index in 0..1000 {
        hub.handle_gone(id(index));
    }
    assert_eq!(hub.clearances.heap_bytes(), 0);
}

#[test]
fn ten_thousand_connections_on_one_channel_are_cheap_and_leave_nothing() {
    const COUNT: u32 = 10_000;
    let mut hub = hub();
    for index in 0..COUNT {
        connect(&mut hub, id(index), REMOTE, "/");
        let text = r#"{"sender":"client","subscriptions":[{"package":"p","page":"q","filters":{"values":{"channel":["2"]}}}]}"#;
        hub.handle_message(id(index), Message::Text(text), &mut Record::default());
    }
    let each = hub.heap_bytes() / COUNT as usize;
    assert!(each < 100, "{each} bytes a connection");
    for index in 1..COUNT {
        hub.handle_gone(id(index));
    }
    // The tables are looked at now and then.
    for _ in 0..100 {
        let text = r#"{"sender":"client","subscriptions":["c"]}"#;
        hub.handle_message(id(0), Message::Text(text), &mut Record::default());
        let text = r#"{"sender":"client","subscriptions":[]}"#;
        hub.handle_message(id(0), Message::Text(text), &mut Record::default());
    }
    assert!(hub.heap_bytes() < 1024, "{} bytes", hub.heap_bytes());
    hub.handle_gone(id(0));
    assert_eq!(hub.heap_bytes(), 0);
}

mod explain_tests;
