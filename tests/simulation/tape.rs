//! Everything that an application is asked for and says, call by call, in order: what a cluster's model follows.
//!
//! Main type: [`Tape`], of which clones are the same one. Knows nothing of what is right.

use std::cell::RefCell;
use std::rc::Rc;

use crieur::application::{Application, Response};
use crieur::id::ConnectionId;
use crieur::redis::WholeId;
use crieur::routes::Routes;
use crieur::time::Timestamp;

/// A call, or something that the application did in the last one.
#[derive(Debug)]
pub(crate) enum Act {
    /// Somebody was let in.
    LetIn(ConnectionId),
    Heard(ConnectionId, Vec<u8>),
    /// The body of a request came.
    Posted(ConnectionId, Vec<u8>),
    Worked(Work),
    Drained,
    Gone(ConnectionId),
    // What it did.
    Replied(ConnectionId, Rc<str>),
    /// A frame for some, and how many queues took it.
    Delivered(Rc<str>, Vec<ConnectionId>, usize),
    Closed(ConnectionId, u16, String),
    Responded(ConnectionId, Response),
}

/// What has come of Redis in a call.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Work {
    /// The entry that it was handed.
    pub(crate) read: Option<WholeId>,
    pub(crate) has_doubt: bool,
    /// Whether nothing can be resumed from now.
    pub(crate) is_cut: bool,
    /// Whether it could serve before.
    pub(crate) was_ready: bool,
}

/// The acts of an application.
#[derive(Clone, Default)]
pub(crate) struct Tape(Rc<RefCell<Vec<Act>>>);

/// How much has come of Redis before a call.
pub(crate) struct Mark {
    act: usize,
    read: u64,
    doubts: u64,
    was_ready: bool,
}

impl Tape {
    pub(crate) fn push(&self, act: Act) {
        self.0.borrow_mut().push(act);
    }

    /// What there is, which is taken off.
    pub(crate) fn take(&self) -> Vec<Act> {
        self.0.take()
    }

    pub(crate) fn begin_work(&self, routes: &Routes) -> Mark {
        let act = self.0.borrow().len();
        self.push(Act::Worked(Work::default()));
        let (read, doubts) = progress(routes);
        Mark {
            act,
            read,
            doubts,
            was_ready: routes.is_ready(),
        }
    }

    pub(crate) fn end_work(&self, mark: &Mark, routes: &Routes, now: Timestamp) {
        let redis = routes.hub().redis().expect("there is one");
        let (read, doubts) = progress(routes);
        assert!(read <= mark.read + 1, "one entry at a time");
        let journal = routes.hub().journal();
        let newest = journal.id(journal.head()).text();
        self.0.borrow_mut()[mark.act] = Act::Worked(Work {
            read: (read > mark.read).then(|| redis.passed()),
            has_doubt: doubts > mark.doubts,
            was_ready: mark.was_ready,
            is_cut: journal.locate(newest.as_str(), now).is_err(),
        });
    }
}

fn progress(routes: &Routes) -> (u64, u64) {
    let redis = routes.hub().redis().expect("there is one");
    let figures = redis.figures();
    (figures.read, figures.doubts_lost + figures.doubts_trimmed)
}
