//! A clock that is moved by hand. Main type: [`VirtualClock`].

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use crieur::time::{Clock, Timestamp};

/// Within a turn of the loop each look at it costs some time, so that turns come to the end of theirs; what is done
/// is still done at the turn's time.
pub(crate) struct VirtualClock {
    pub(crate) micros: Rc<Cell<u64>>,
    /// When the process began.
    pub(crate) began: Rc<Cell<u64>>,
    /// What the looks of this turn have cost.
    pub(crate) spent_micros: Rc<Cell<u64>>,
    pub(crate) look_micros: Rc<Cell<u64>>,
    /// By how many microseconds the wall clock is ahead, or behind.
    pub(crate) wall_ahead: Rc<Cell<i64>>,
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        let spent_micros = self.spent_micros.get() + self.look_micros.get();
        self.spent_micros.set(spent_micros);
        Timestamp::from_micros(self.micros.get() - self.began.get() + spent_micros)
    }

    fn unix_now(&self) -> Duration {
        let micros = self.micros.get().checked_add_signed(self.wall_ahead.get());
        Duration::from_micros(micros.expect("it is behind 1970"))
    }
}
