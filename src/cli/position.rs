//! Where a subscriber stands in what the server has for it, and what it has had already (protocol 6.1).
//!
//! Owns the id that is shown when the connection is made again. Ids are opaque: they are compared with
//! each other, never ordered. Knows no connection and no output. Main type: [`Position`].
//!
//! Invariant: all that was for this subscriber up to the position has been printed, or the user was told that
//! something may be missing.

use std::collections::{HashSet, VecDeque};
use std::rc::Rc;

/// How many of the ids that were printed are remembered.
const PRINTED_MAX: usize = 10_000;

/// The position of a subscriber.
pub(super) struct Position {
    /// Empty as long as the server has told none.
    id: String,
    /// The ids that were printed at last, in that order, and the same again for looking them up.
    printed: VecDeque<Rc<str>>,
    printed_set: HashSet<Rc<str>>,
}

impl Position {
    /// A position that the user names; nothing has been printed yet.
    pub(super) fn new(id: String) -> Self {
        Self {
            id,
            printed: VecDeque::new(),
            printed_set: HashSet::new(),
        }
    }

    /// What to show to the server as `since`.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Takes the answer to a list that showed this position. Returns what the user must know, if something
    /// may have been missed: all is well only where the server says so.
    pub(super) fn handle_subscribed(
        &mut self,
        id: Option<String>,
        is_resumed: bool,
        reason: Option<&str>,
    ) -> Option<String> {
        match id {
            // What was missed follows, and moves the position.
            Some(_) if is_resumed && !self.id.is_empty() => None,
            // Without an id the server is an older one, and so has no positions.
            id => self.handle_gap(id.unwrap_or_default(), reason),
        }
    }

    /// Moves to `id`, though something between may be missing. Returns what the user must know.
    pub(super) fn handle_gap(&mut self, id: String, reason: Option<&str>) -> Option<String> {
        let since = std::mem::replace(&mut self.id, id);
        let reason = reason.unwrap_or("it does not say why");
        let line = format!("the server could not say what was missed since {since}: {reason}");
        (!since.is_empty()).then_some(line)
    }

    /// Moves to `id`: all that was for this subscriber up to there has come.
    pub(super) fn move_to(&mut self, id: String) {
        self.id = id;
    }

    /// Whether the delivery `id` has been printed already.
    pub(super) fn is_printed(&self, id: &str) -> bool {
        self.printed_set.contains(id)
    }

    /// Remembers that the delivery `id` has been printed.
    pub(super) fn remember(&mut self, id: &str) {
        debug_assert!(!self.is_printed(id), "{id} was printed twice");
        if self.printed.len() == PRINTED_MAX
            && let Some(oldest) = self.printed.pop_front()
        {
            self.printed_set.remove(&oldest);
        }
        let id = Rc::<str>::from(id);
        self.printed.push_back(Rc::clone(&id));
        self.printed_set.insert(id);
        debug_assert_eq!(self.printed.len(), self.printed_set.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(id: &str) -> Position {
        Position::new(id.to_owned())
    }

    #[test]
    fn a_first_list_takes_the_position_of_the_answer() {
        // Whatever it says of a resume that was not asked for.
        for is_resumed in [false, true] {
            let mut position = at("");
            let said = position.handle_subscribed(Some("a-1".to_owned()), is_resumed, None);
            assert_eq!((said, position.id()), (None, "a-1"));
        }
    }

    #[test]
    fn a_position_that_was_resumed_stays_until_something_comes() {
        let mut position = at("a-1");
        let said = position.handle_subscribed(Some("a-1".to_owned()), true, None);
        assert_eq!((said, position.id()), (None, "a-1"));
        position.move_to("a-2".to_owned());
        assert_eq!(position.id(), "a-2");
    }

    #[test]
    fn what_was_not_resumed_is_said() {
        const LINE: &str = "the server could not say what was missed since a-1: ";
        for (id, reason, behind) in [
            (Some("b-7"), Some("expired"), "expired"),
            (Some("b-7"), Some("of-a-newer-server"), "of-a-newer-server"),
            (Some("b-7"), None, "it does not say why"),
            (None, None, "it does not say why"),
        ] {
            let mut position = at("a-1");
            let said = position.handle_subscribed(id.map(str::to_owned), false, reason);
            assert_eq!(said, Some(format!("{LINE}{behind}")));
            assert_eq!(position.id(), id.unwrap_or_default());
        }
        // A server without positions can't have resumed anything.
        let said = at("a-1").handle_subscribed(None, true, None);
        assert!(said.is_some());
    }

    #[test]
    fn an_older_server_is_nothing_to_speak_of() {
        let mut position = at("");
        assert_eq!(position.handle_subscribed(None, false, None), None);
        assert_eq!(position.id(), "");
    }

    #[test]
    fn a_gap_moves_the_position_and_is_said() {
        let mut position = at("a-1");
        let said = position.handle_gap("a-9".to_owned(), Some("expired"));
        assert!(said.is_some_and(|line| line.ends_with("since a-1: expired")));
        assert_eq!(position.id(), "a-9");
    }

    #[test]
    fn the_last_ids_are_remembered_and_no_more() {
        let mut position = at("");
        for number in 0..=PRINTED_MAX {
            let id = format!("a-{number}");
            assert!(!position.is_printed(&id));
            position.remember(&id);
            assert!(position.is_printed(&id));
        }
        assert!(!position.is_printed("a-0"));
        assert!(position.is_printed("a-1"));
    }
}
