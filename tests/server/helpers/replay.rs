//! A client that is being caught up and doesn't read yet, so that its replay can't end.

use super::numbered::{
    caught_up, list_since, narrow_client, numbered, position, publish_all, resumed, wait_for_figure,
};
use super::{Client, Received, Server};

/// How many notifications there are to be caught up with: some 4 MB, more than sockets take.
pub(crate) const MISSED: usize = 250;

/// One of some 16 KB.
pub(crate) fn notification(n: usize) -> String {
    let text = char::from(b'a' + (n % 26) as u8).to_string();
    format!(
        r#"{{"channel":"c","n":{n},"text":"{}"}}"#,
        text.repeat(16_000)
    )
}

/// A server with a history, and a client that is being caught up with it and hasn't read anything.
pub(crate) struct Replay {
    pub(crate) server: Server,
    /// The position ahead of the first.
    pub(crate) start: String,
    pub(crate) all: Vec<String>,
    /// Of each.
    pub(crate) ids: Vec<String>,
    pub(crate) client: Client,
}

impl Replay {
    /// One on a server with `flags`.
    pub(crate) fn begin(flags: &[&str]) -> Self {
        let server = Server::with(flags);
        let start = position(&server);
        let all: Vec<_> = (0..MISSED).map(notification).collect();
        let ids = publish_all(&server, &all);
        let mut client = narrow_client(&server);
        client.send(&list_since(r#"["c"]"#, &start));
        wait_for_figure(&server, "crieur_catching_up 1");
        Self {
            server,
            start,
            all,
            ids,
            client,
        }
    }

    /// Publishes more that it has missed.
    pub(crate) fn publish(&mut self, notifications: &[String]) {
        self.ids.extend(publish_all(&self.server, notifications));
        self.all.extend_from_slice(notifications);
    }

    /// Reads the answer, and the whole replay.
    pub(crate) fn expect_all(&mut self) {
        assert_eq!(self.client.whole_text(), resumed(1, &self.start));
        for (id, notification) in self.ids.iter().zip(&self.all) {
            assert!(
                self.client.whole_text() == numbered(id, notification),
                "{id}"
            );
        }
        let last = self.ids.last().expect("there are some");
        assert_eq!(self.client.whole_text(), caught_up(last, self.ids.len()));
    }

    /// Reads the answer and the replay up to something else, which it returns, with how many came before it.
    pub(crate) fn read_until_other(&mut self) -> (Received, usize) {
        assert_eq!(self.client.whole_text(), resumed(1, &self.start));
        for (count, (id, notification)) in self.ids.iter().zip(&self.all).enumerate() {
            match self.client.receive() {
                Received::Text(text) if text == numbered(id, notification) => {}
                other => return (other, count),
            }
        }
        panic!("nothing but what it has missed");
    }
}
