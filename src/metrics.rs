//! What the server counts. Plain numbers of one thread; whoever shows them reads them here.

/// Counters since the start.
#[derive(Clone, Copy, Default, Debug)]
pub struct Metrics {
    /// TCP connections taken in.
    pub connections_accepted: u64,
    /// TCP connections dropped, for whatever reason.
    pub connections_dropped: u64,
    /// Handshakes that were completed.
    pub upgrades: u64,
    /// Upgrades that were refused because the server was full or stopping.
    pub upgrades_refused_full: u64,
    /// Requests that broke a rule of HTTP or of the opening handshake.
    pub requests_rejected: u64,
    /// Handshakes that were not finished in time.
    pub handshakes_expired: u64,
    /// Connections that were not open, and were dropped to make room for new ones.
    pub connections_displaced: u64,
    /// Connections that ended without a Close.
    pub closed_without_close: u64,
    /// Connections closed because the peer broke the protocol, a size limit or a time limit.
    pub protocol_errors: u64,
    /// Peers that gave no sign of life after a Ping.
    pub peers_dead: u64,
    /// Connections cut off because they did not take their notifications.
    pub slow_consumers: u64,
    /// Messages that came behind our Close.
    pub messages_discarded: u64,
    /// Frames queued to subscribers.
    pub deliveries: u64,
    /// Deliveries that a full queue did not take.
    pub deliveries_dropped: u64,
    /// Events for connections that were gone.
    pub events_stale: u64,
    /// Times that accepting had to pause for want of descriptors or memory.
    pub accept_pauses: u64,
    /// Bytes read from peers.
    pub bytes_read: u64,
    /// Times that a client over its rate was not read for a while.
    pub reads_throttled: u64,
}

/// What the hub has counted since the start.
#[derive(Clone, Copy, Default, Debug)]
pub struct HubMetrics {
    /// Upgrades that were refused for their origin.
    pub upgrades_refused_origin: u64,
    /// Upgrades that were refused because their address had its share.
    pub upgrades_refused_address: u64,
    /// Connections that were closed for want of a good token.
    pub tokens_refused: u64,
    /// Notifications that were refused for want of permission.
    pub publishes_forbidden: u64,
    /// Lists of subscriptions that were refused because the server had as many as it may.
    pub subscriptions_refused_full: u64,
}
