//! Which connections go when there is not memory, or not room, for all of them. Chooses only.

use std::cmp::Reverse;

use crate::application::Lane;
use crate::id::ConnectionId;

use super::connection::Connection;
use super::places::SPARE_CONNECTIONS;

/// Those for whom the most is kept, the worst last resort last: connections that end anyway go first. A
/// connection with less than half of an even share of `buffer_bytes_max` stays: all of those together are
/// below the limit.
pub(super) fn heaviest<'a, T: 'a>(
    connections: impl Iterator<Item = &'a Connection<T>>,
    len: usize,
    buffer_bytes_max: usize,
) -> Vec<ConnectionId> {
    let half_share = buffer_bytes_max / (2 * len.max(1));
    let mut heaviest: Vec<_> = connections
        .filter(|connection| !connection.protocol.is_closed())
        .map(|connection| (connection.protocol.pinned_bytes(), connection))
        .filter(|&(bytes, _)| bytes > half_share)
        .map(|(bytes, connection)| (connection.protocol.is_open(), Reverse(bytes), connection.id))
        .collect();
    heaviest.sort_unstable();
    heaviest.into_iter().map(|(_, _, id)| id).collect()
}

/// Those of a lane that have been about to begin or to end for the longest, so that silent connections keep
/// nobody else out. Half of the spare room is freed: a new connection stays at least until it has been
/// read once.
pub(super) fn oldest_unopened<'a, T: 'a>(
    connections: impl Iterator<Item = &'a Connection<T>>,
    lane: Lane,
) -> Vec<ConnectionId> {
    let mut waiting: Vec<_> = connections
        .filter(|connection| connection.peer.lane == lane && !connection.grants.is_publisher)
        .filter_map(|connection| {
            let since = connection.protocol.unopened_since()?;
            Some((since, connection.id.serial, connection.id))
        })
        .collect();
    let count = waiting.len().min(SPARE_CONNECTIONS / 2);
    if count < waiting.len() {
        waiting.select_nth_unstable_by_key(count, |&(since, serial, _)| (since, serial));
    }
    waiting.truncate(count);
    waiting.into_iter().map(|(_, _, id)| id).collect()
}
