//! What connections share: the clock, limits, lists, deadlines, places, budgets and counters.
//!
//! Apart from the table of connections, so that a connection can be changed while this is at hand.
//! Main type: [`Context`].

use std::time::Duration;

use crate::application::{Gauges, Response, Status, WriteBarrier};
use crate::config::{ServerLimits, Timeouts};
use crate::log_limit::LogLimit;
use crate::metrics::Metrics;
use crate::time::{Clock, Timestamp};
use crate::wire::carried::FrameNumbers;
use crate::wire::pinned::PinnedBytes;
use fastrand::Rng;

use super::places::{Kind, NoPlace, Places};
use super::schedule::Schedule;
use super::timers::Timers;
use super::writer::Writer;

/// How long a client that is closed for its own sake stays away, in milliseconds.
const RETRY_MS: (u64, u64) = (1_000, 10_000);

/// Everything but the connections themselves.
pub(super) struct Context<C> {
    pub(super) clock: C,
    pub(super) limits: ServerLimits,
    pub(super) timeouts: Timeouts,
    pub(super) schedule: Schedule,
    pub(super) timers: Timers,
    pub(super) places: Places,
    pub(super) writer: Writer,
    pub(super) pinned: PinnedBytes,
    pub(super) metrics: Metrics,
    /// Of frames in a state.
    pub(super) frame_numbers: FrameNumbers,
    /// The lines about connections that are closed for what they did.
    pub(super) fault_log: LogLimit,
    random: Rng,
}

impl<C> Context<C> {
    /// What goes into a state: the counters, and what numbers its frames.
    pub(super) const fn saved_parts(&mut self) -> (&Metrics, &mut FrameNumbers) {
        let Self {
            // It goes on.
            clock: _,
            // From arguments.
            limits: _,
            timeouts: _,
            // From the connections, when they take part.
            schedule: _,
            timers: _,
            places: _,
            pinned: _,
            // From the application.
            writer: _,
            metrics,
            frame_numbers,
            // Begin anew.
            fault_log: _,
            random: _,
        } = self;
        (metrics, frame_numbers)
    }

    /// Nothing yet; `seed` is the jitter's.
    pub(super) fn new(
        clock: C,
        limits: ServerLimits,
        timeouts: Timeouts,
        barrier: Option<Box<dyn WriteBarrier>>,
        seed: u64,
    ) -> Self {
        Self {
            clock,
            limits,
            timeouts,
            schedule: Schedule::default(),
            timers: Timers::default(),
            places: Places::new(&limits),
            writer: Writer::new(barrier),
            pinned: PinnedBytes::new(limits.buffer_bytes_max),
            metrics: Metrics::default(),
            frame_numbers: FrameNumbers::default(),
            fault_log: LogLimit::default(),
            random: Rng::with_seed(seed),
        }
    }

    /// Milliseconds after which a client that is closed now should come back.
    pub(super) fn retry_ms(&mut self) -> u64 {
        self.random.u64(RETRY_MS.0..=RETRY_MS.1)
    }

    /// The answer to a request that can't be served now.
    pub(super) fn unavailable(&mut self, why: &str) -> Response {
        let seconds = self.retry_ms().div_ceil(1000);
        Response::new(Status::SERVICE_UNAVAILABLE, why)
            .with_field("Retry-After", seconds.to_string())
    }

    /// The answer to a client that can't be let in.
    pub(super) fn refused(&mut self, reason: NoPlace) -> Response {
        self.unavailable(reason.as_str())
    }
}

impl<C: Clock> Context<C> {
    /// The current time.
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The current time by the wall clock, since the Unix epoch.
    pub(super) fn unix_now(&self) -> Duration {
        self.clock.unix_now()
    }
}

impl<C> Context<C> {
    /// How much there is of everything now.
    pub(super) fn gauges(&self) -> Gauges {
        Gauges {
            open: self.places.count(Kind::Open),
            http: self.places.count(Kind::Http),
            handshakes: self.places.count(Kind::Handshake),
            closing: self.places.count(Kind::Closing),
            send_queue_bytes: self.pinned.unsent_bytes() as u64,
            buffer_bytes: self.pinned.bytes() as u64,
        }
    }
}
