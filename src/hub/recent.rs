//! What has happened lately, for operators who ask: the newest notifications, publishes that were refused, connections that
//! have ended. Numbers and ids, never a payload.
//!
//! Knows no connections and writes nothing. Of everything the newest [`RING_MAX`] are kept. A successor begins anew, since
//! nobody is promised what stands here. Main type: [`Recent`].

use std::borrow::Cow;
use std::collections::VecDeque;

use super::command::clipped;
use super::connections::CompactAddress;
use crate::id::ConnectionId;
use crate::journal::id::EntryId;
use crate::time::Timestamp;

/// So many of each kind are kept.
pub(super) const RING_MAX: usize = 100;

/// Of a notification, so many are named that were cut off by it.
pub(super) const CUT_OFF_MAX: usize = 8;

/// Bytes of the detail of a refusal.
const DETAIL_BYTES_MAX: usize = 256;

/// The newest of one kind, the newest last.
#[derive(Debug)]
pub(super) struct Ring<T>(VecDeque<T>);

impl<T> Default for Ring<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> Ring<T> {
    pub(super) fn push(&mut self, entry: T) {
        if self.0.len() == RING_MAX {
            self.0.pop_front();
        }
        self.0.push_back(entry);
    }

    /// The newest first.
    pub(super) fn newest(&self) -> impl Iterator<Item = &T> {
        self.0.iter().rev()
    }

    fn heap_bytes(&self) -> usize {
        self.0.capacity() * size_of::<T>()
    }
}

/// Whom a connection is of, as far as that is known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Tenant {
    pub(super) id: ConnectionId,
    pub(super) address: CompactAddress,
    /// Of a client's token.
    pub(super) user: Option<Box<str>>,
}

/// A notification that was published.
#[derive(Debug)]
pub(super) struct Notified {
    pub(super) at: Timestamp,
    /// If it is kept.
    pub(super) id: Option<EntryId>,
    /// Who has published it here.
    pub(super) from: Option<ConnectionId>,
    pub(super) delivered: usize,
    pub(super) dropped: usize,
    pub(super) bytes: usize,
    pub(super) micros: u64,
    /// Whether it was published before, by its key.
    pub(super) is_repeated: bool,
    /// Some of those that didn't take it.
    pub(super) cut_off: Box<[Tenant]>,
}

/// A publish that was refused.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) at: Timestamp,
    /// One fixed word.
    pub(super) code: &'static str,
    pub(super) detail: Cow<'static, str>,
    pub(super) address: Option<CompactAddress>,
    pub(super) id: Option<ConnectionId>,
}

impl Refused {
    fn bounded(self) -> Self {
        if self.detail.len() <= DETAIL_BYTES_MAX {
            return self;
        }
        let detail = clipped(&self.detail, DETAIL_BYTES_MAX).to_owned();
        Self {
            detail: Cow::Owned(detail),
            ..self
        }
    }
}

/// A connection that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) at: Timestamp,
    pub(super) tenant: Tenant,
    /// The word of the server's Close; `None` if it went by itself.
    pub(super) reason: Option<&'static str>,
    pub(super) subscriptions: usize,
}

/// What has happened lately.
#[derive(Default, Debug)]
pub(super) struct Recent {
    /// What was before isn't known.
    pub(super) since: Timestamp,
    pub(super) published: Ring<Notified>,
    /// Of publishers.
    refusals: Ring<Refused>,
    /// Of anybody else: apart, so that they don't push the others out.
    strangers: Ring<Refused>,
    /// Those that the server has closed.
    cut_off: Ring<Ended>,
    left: Ring<Ended>,
}

impl Recent {
    /// Notes a publish that was refused.
    pub(super) fn note_refusal(&mut self, is_own: bool, refused: Refused) {
        let ring = match is_own {
            true => &mut self.refusals,
            false => &mut self.strangers,
        };
        ring.push(refused.bounded());
    }

    /// Publishes that were refused, of publishers or of strangers; the newest first.
    pub(super) fn refusals(&self, is_own: bool) -> impl Iterator<Item = &Refused> {
        match is_own {
            true => self.refusals.newest(),
            false => self.strangers.newest(),
        }
    }

    /// Notes the end of a connection.
    pub(super) fn note_end(&mut self, ended: Ended) {
        match ended.reason {
            Some(_) => self.cut_off.push(ended),
            None => self.left.push(ended),
        }
    }

    /// The connections that have ended, the newest first.
    pub(super) fn ended(&self) -> impl Iterator<Item = &Ended> {
        let mut cut_off = self.cut_off.newest().peekable();
        let mut left = self.left.newest().peekable();
        std::iter::from_fn(move || match (cut_off.peek(), left.peek()) {
            (Some(one), Some(other)) if one.at < other.at => left.next(),
            (Some(_), _) => cut_off.next(),
            (None, _) => left.next(),
        })
    }

    /// Bytes on the heap, about: without texts.
    pub(super) fn heap_bytes(&self) -> usize {
        self.published.heap_bytes()
            + self.refusals.heap_bytes()
            + self.strangers.heap_bytes()
            + self.cut_off.heap_bytes()
            + self.left.heap_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::application::PeerAddress;

    fn ended(at: u64, reason: Option<&'static str>) -> Ended {
        Ended {
            at: Timestamp::from_micros(at),
            tenant: Tenant {
                id: ConnectionId {
                    index: 0,
                    serial: 0,
                },
                address: PeerAddress::Unix.into(),
                user: None,
            },
            reason,
            subscriptions: 0,
        }
    }

    #[test]
    fn each_kind_has_its_newest_and_no_more() {
        let mut recent = Recent::default();
        for at in 0..300 {
            let reason = (at % 3 == 0).then_some("overload");
            recent.note_end(ended(at, reason));
        }
        let times: Vec<_> = recent.ended().map(|ended| ended.at.as_micros()).collect();
        assert_eq!(times.len(), 2 * RING_MAX);
        assert!(times.is_sorted_by(|one, next| one > next));
        let closed = recent.ended().filter(|ended| ended.reason.is_some());
        assert_eq!(closed.count(), 100);
        assert_eq!(times[199], 0, "of those that were closed all are there");
    }

    #[test]
    fn strangers_push_nobody_out_and_details_are_bounded() {
        let refused = |at: u64, detail: &str| Refused {
            at: Timestamp::from_micros(at),
            code: "forbidden",
            detail: detail.to_owned().into(),
            address: None,
            id: None,
        };
        let mut recent = Recent::default();
        recent.note_refusal(true, refused(1, &"é".repeat(200)));
        for at in 0..1000 {
            recent.note_refusal(false, refused(at, "x"));
        }
        let own: Vec<_> = recent.refusals(true).collect();
        assert_eq!((own.len(), own[0].detail.len()), (1, DETAIL_BYTES_MAX));
        assert_eq!(recent.refusals(false).count(), RING_MAX);
        assert!(
            recent
                .refusals(false)
                .all(|refused| refused.at.as_micros() >= 900)
        );
    }
}
