//! How many connections there are, by lane and by what they are, and whether more may be let in.
//!
//! A lane lets in so many connections and takes a few more, so that those can be told that it is full.
//! Main type: [`Places`].

use crate::application::Lane;
use crate::config::ServerLimits;

/// Connections beyond the limit that are let in to be told so, and handshakes under way.
pub const SPARE_CONNECTIONS: usize = 64;

/// What a connection is counted as.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) enum Kind {
    /// It has not been let in yet.
    #[default]
    Handshake,
    /// It has published over HTTP.
    Http,
    /// Its session is open.
    Open,
    /// It is about to end.
    Closing,
}

impl Kind {
    const COUNT: usize = 4;
}

/// Why a connection can't be let in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NoPlace {
    /// The server is about to end.
    Stopping,
    /// Its lane has as many as it may.
    Full,
}

impl NoPlace {
    /// The word that tells the client.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Stopping => "stopping",
            Self::Full => "full",
        }
    }
}

/// Connections by lane and kind.
#[derive(Debug)]
pub(super) struct Places {
    /// By [`Lane`].
    lanes: [LanePlaces; 2],
    /// By [`Kind`].
    kinds: [u64; Kind::COUNT],
    is_stopping: bool,
}

#[derive(Clone, Copy, Debug)]
struct LanePlaces {
    /// Connections in whatever state.
    connections: usize,
    /// Those that were let in.
    admitted: usize,
    admitted_max: usize,
}

impl Places {
    pub(super) fn new(limits: &ServerLimits) -> Self {
        let of = |admitted_max| LanePlaces {
            connections: 0,
            admitted: 0,
            admitted_max,
        };
        let mut lanes = [of(0); 2];
        lanes[Lane::Clients as usize] = of(limits.connections_max);
        lanes[Lane::Publishers as usize] = of(limits.publishers_max);
        Self {
            lanes,
            kinds: [0; Kind::COUNT],
            is_stopping: false,
        }
    }

    /// Whether another connection of a lane may be accepted.
    pub(super) const fn has_room(&self, lane: Lane) -> bool {
        let places = &self.lanes[lane as usize];
        places.connections < places.admitted_max + SPARE_CONNECTIONS
    }

    /// A connection was accepted.
    pub(super) const fn enter(&mut self, lane: Lane) {
        self.lanes[lane as usize].connections += 1;
        self.kinds[Kind::Handshake as usize] += 1;
    }

    /// A connection that was counted as `kind` was dropped.
    pub(super) const fn leave(&mut self, lane: Lane, kind: Kind) {
        self.lanes[lane as usize].connections -= 1;
        self.kinds[kind as usize] -= 1;
    }

    /// A connection that was counted as `before` is `kind` now.
    pub(super) const fn recount(&mut self, before: Kind, kind: Kind) {
        self.kinds[before as usize] -= 1;
        self.kinds[kind as usize] += 1;
    }

    /// Whether another connection of a lane may be let in.
    pub(super) const fn check(&self, lane: Lane) -> Result<(), NoPlace> {
        let places = &self.lanes[lane as usize];
        if self.is_stopping {
            return Err(NoPlace::Stopping);
        }
        if places.admitted >= places.admitted_max {
            return Err(NoPlace::Full);
        }
        Ok(())
    }

    /// A connection was let in.
    pub(super) const fn admit(&mut self, lane: Lane) {
        self.lanes[lane as usize].admitted += 1;
    }

    /// A connection that was let in gives its place up.
    pub(super) const fn give_up(&mut self, lane: Lane) {
        self.lanes[lane as usize].admitted -= 1;
    }

    /// From now on nobody is let in.
    pub(super) const fn stop(&mut self) {
        self.is_stopping = true;
    }

    pub(super) const fn is_stopping(&self) -> bool {
        self.is_stopping
    }

    /// How many connections are of a kind.
    pub(super) const fn count(&self, kind: Kind) -> u64 {
        self.kinds[kind as usize]
    }

    /// Asserts that the counts are those of `connections`: lane, kind, and whether it was let in.
    pub(super) fn check_invariants(&self, connections: impl Iterator<Item = (Lane, Kind, bool)>) {
        let (mut kinds, mut lanes) = ([0; Kind::COUNT], [(0, 0); 2]);
        for (lane, kind, is_admitted) in connections {
            kinds[kind as usize] += 1;
            lanes[lane as usize].0 += 1;
            lanes[lane as usize].1 += usize::from(is_admitted);
        }
        assert_eq!(self.kinds, kinds, "kinds");
        let counted = self.lanes.map(|lane| (lane.connections, lane.admitted));
        assert_eq!(counted, lanes, "lanes");
    }
}
