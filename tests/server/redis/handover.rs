//! SIGUSR2 while Redis owes answers: what was sent is answered first, what came meanwhile goes over.

use std::thread;
use std::time::Duration;

use crate::helpers::installed::Installed;
use crate::helpers::numbered::wait_until;
use crate::helpers::redis::Redis;
use crate::helpers::{Client, Server, message, subscriber};

use super::{expect_deliveries, on_channel, publisher, wait_for_pending};

/// What publishers are told where one client has it.
const TAKEN: &str = r#"{"type":"published","delivered":1}"#;

/// A server that is asked to become another program while Redis is halted, with one publication on its way there and
/// another that came when the program had been tried out.
struct Scene {
    redis: Redis,
    installed: Installed,
    node: Server,
    client: Client,
    lane: Client,
}

impl Scene {
    fn new() -> Option<Self> {
        let redis = Redis::start()?;
        let installed = Installed::new();
        let flags = ["--redis-timeout", "20", "--drain-timeout", "60"];
        let node = installed.server(&[&["--redis", &redis.url()][..], &flags].concat());
        let client = subscriber(&node, r#"["c"]"#);
        let mut lane = publisher(&node);
        redis.halt(true);
        lane.send(&message(&on_channel("c", 0)));
        wait_for_pending(&node, 1);
        let tried = installed.file("tried");
        let script = format!(r#""$real" "$@"; touch '{}'; exit"#, tried.display());
        installed.install_behind(&script);
        node.ask_to_hand_over();
        wait_until("it was tried", || tried.exists());
        // That it has ended is looked at every 10 ms.
        thread::sleep(Duration::from_millis(100));
        lane.send(&message(&on_channel("c", 1)));
        wait_for_pending(&node, 2);
        assert!(!node.log().contains("becoming "), "answers are owed");
        Some(Self {
            redis,
            installed,
            node,
            client,
            lane,
        })
    }

    /// Redis goes on, and both are published, once, in their order.
    fn expect_both(&mut self) {
        self.redis.halt(false);
        self.lane.expect_texts(&[TAKEN; 2]);
        let both = [0, 1].map(|n| on_channel("c", n));
        expect_deliveries(&mut self.client, &both);
        assert_eq!(self.redis.notifications().len(), 2);
    }
}

#[test]
fn what_was_sent_is_answered_before_and_what_waits_goes_over() {
    let Some(mut scene) = Scene::new() else {
        return;
    };
    scene.expect_both();
    let log = scene.node.wait_for_line("took over from crieur ");
    assert!(log.contains(" 2 connections, 0 lost"), "{log}");
    scene.lane.send(&message(&on_channel("c", 2)));
    assert_eq!(scene.lane.text(), TAKEN);
    expect_deliveries(&mut scene.client, &[on_channel("c", 2)]);
}

#[test]
fn what_waits_is_sent_if_nothing_comes_of_it() {
    let Some(mut scene) = Scene::new() else {
        return;
    };
    // It isn't the one that was tried out any more.
    scene.installed.install_script("exit 1");
    scene.expect_both();
    scene.node.wait_for_line("the handover is refused");
    assert!(!scene.node.log().contains("becoming "));
}

#[test]
fn a_stop_comes_first() {
    let Some(mut scene) = Scene::new() else {
        return;
    };
    scene.node.terminate();
    scene.node.wait_for_line("stopping");
    scene.expect_both();
    for client in [&mut scene.client, &mut scene.lane] {
        client.expect_close(1001);
        client.answer_close(1001);
    }
    assert_eq!(scene.node.wait().status, Some(0));
    assert!(!scene.node.log().contains("becoming "));
}
