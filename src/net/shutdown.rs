//! How a server stops: clients are told first, then publishers, then the time is over.
//!
//! Until publishers are told, what they send is answered. Each client gets a time of its own to come
//! back, spread evenly, so that they don't all come at once. Main type: [`Shutdown`].

use std::time::Duration;

use crate::application::{Application, CloseCause};
use crate::time::{Clock, Timestamp};
use crate::ws::close::CloseFrame;

use super::connection::Connection;
use super::shell::Shell;
use super::transport::Transport;

/// How many clients a second come back after a shutdown.
const RETURNS_A_SECOND: u64 = 500;

/// The shortest and the longest time over which they are spread, in milliseconds.
const RETRY_SPREAD_MS: (u64, u64) = (1_000, 60_000);

/// A server that stops.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shutdown {
    /// When the last connection must be gone.
    drained_by: Timestamp,
    /// When publishers are told, if not all clients have taken their Close by then; `None` once they are.
    publishers_told_by: Option<Timestamp>,
}

impl Shutdown {
    /// One that begins at `now` and takes `drain` at most.
    pub(super) fn new(now: Timestamp, drain: Duration) -> Self {
        Self {
            drained_by: now + drain,
            publishers_told_by: Some(now + drain / 2),
        }
    }

    /// Whether its time is over.
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        self.drained_by <= now
    }

    /// Whether publishers are to be told now; `has_told_clients` is asked only while they aren't. Says so
    /// once. One client that takes nothing doesn't keep them for ever.
    pub(super) fn takes_publishers(
        &mut self,
        now: Timestamp,
        has_told_clients: impl FnOnce() -> bool,
    ) -> bool {
        let is_due = self
            .publishers_told_by
            .is_some_and(|by| by <= now || has_told_clients());
        if is_due {
            self.publishers_told_by = None;
        }
        is_due
    }

    /// When it has something to do.
    pub(super) fn next_deadline(&self) -> Timestamp {
        let told_by = self.publishers_told_by.unwrap_or(self.drained_by);
        told_by.min(self.drained_by)
    }
}

/// Milliseconds after which each of `clients` should come back.
pub(super) fn spread_ms(clients: u64) -> impl Iterator<Item = u64> {
    let clients = clients.max(1);
    let spread_ms = (clients * 1000 / RETURNS_A_SECOND).clamp(RETRY_SPREAD_MS.0, RETRY_SPREAD_MS.1);
    (1..).map(move |number| spread_ms * number / clients)
}

/// Starts to close the connections that are meant.
pub(super) fn dismiss<T: Transport, A: Application, C: Clock>(
    shell: &mut Shell<T, C>,
    application: &mut A,
    is_meant: impl Fn(&Connection<T>) -> bool,
    now: Timestamp,
) {
    let connections = shell.connections.iter();
    let meant = connections.filter(|connection| is_meant(connection));
    let ids: Vec<_> = meant
        .map(|connection| (connection.id, connection.protocol.is_open()))
        .collect();
    let clients = ids.iter().filter(|(_, is_open)| *is_open).count() as u64;
    let mut retries_ms = spread_ms(clients);
    for (id, _) in ids {
        let Some((connection, context)) = shell.entry(id) else {
            continue;
        };
        if let Some(session) = connection.protocol.open_session_mut() {
            let code = CloseCause::Shutdown.close_code();
            context.metrics.closed.count(code.as_u16());
            let retry_ms = retries_ms.next().unwrap_or_default();
            let reason = application.close_reason(CloseCause::Shutdown, retry_ms);
            session.close(&CloseFrame::new(code, reason), now);
        } else if connection.protocol.is_serving_http() {
            shell.turn_away(id, "stopping", now);
        }
        if let Some((connection, context)) = shell.entry(id) {
            connection.mark_delivery(context);
            connection.settle(context);
        }
    }
    shell.conclude(application, now);
}

/// Whether a connection that is told first that the server stops has yet to take what tells it.
pub(super) fn is_client_untold<T>(connection: &Connection<T>) -> bool {
    let protocol = &connection.protocol;
    !connection.closes_last() && !protocol.is_closed() && protocol.queue().unsent_bytes() > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishers_are_told_when_clients_are_or_at_half_time() {
        let start = Timestamp::ZERO;
        let drain = Duration::from_secs(10);
        let mut shutdown = Shutdown::new(start, drain);
        assert!(!shutdown.takes_publishers(start, || false));
        assert_eq!(shutdown.next_deadline(), start + drain / 2);
        assert!(shutdown.takes_publishers(start + drain / 2, || false));
        assert!(!shutdown.takes_publishers(start + drain, || true), "once");
        assert_eq!(shutdown.next_deadline(), start + drain);
        assert!(shutdown.is_over(start + drain) && !shutdown.is_over(start));
        let mut early = Shutdown::new(start, drain);
        assert!(early.takes_publishers(start, || true));
    }

    #[test]
    fn clients_come_back_one_after_the_other() {
        let times: Vec<_> = spread_ms(1_000_000).take(1_000_000).collect();
        assert!(times.is_sorted());
        assert_eq!(times.last(), Some(&RETRY_SPREAD_MS.1));
        assert_eq!(spread_ms(2).take(2).collect::<Vec<_>>(), [500, 1000]);
    }
}
