//! What can be wrong with what arrives, and the words for it.

use std::fmt;

use crate::id::Id;

/// What is wrong with what arrived.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// It had arrived before.
    Doubled { member: usize, sequence: u64 },
    /// Others got `expected` at this point: it is lost here, or comes too late.
    OutOfOrder {
        member: usize,
        sequence: u64,
        expected: u64,
    },
    /// A publisher's later notification came before.
    Overtaken { member: usize, sequence: u64 },
    /// The bytes differ, from `offset` in the frame on.
    Damaged {
        member: usize,
        sequence: u64,
        offset: usize,
    },
    /// It is not for this member.
    Misdirected { member: usize, sequence: u64 },
    /// It never came.
    Lost {
        member: usize,
        sequence: u64,
        missing: usize,
    },
    /// A client that came back was told that it is caught up, and isn't.
    Skipped {
        member: usize,
        sequence: u64,
        missing: usize,
    },
    /// Its id is another's too.
    RepeatedId { sequence: u64, id: Id },
    /// Deliveries and receipt don't have the same id.
    DifferentId {
        sequence: u64,
        settled: Id,
        told: Option<Id>,
    },
    /// Its id is none of a stream.
    OwnId { sequence: u64, id: Id },
    /// Something that stands behind it in the stream came before.
    Descending {
        member: usize,
        sequence: u64,
        id: Id,
    },
    /// Something else came.
    Unexpected { member: usize, what: String },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Doubled { member, sequence } => {
                write!(f, "subscriber {member} got notification {sequence} twice")
            }
            Self::OutOfOrder {
                member,
                sequence,
                expected,
            } => write!(
                f,
                "subscriber {member} got notification {sequence} where others got {expected}: \
                 {expected} is lost or late"
            ),
            Self::Overtaken { member, sequence } => write!(
                f,
                "subscriber {member} got notification {sequence} after a later one of its publisher"
            ),
            Self::Damaged {
                member,
                sequence,
                offset,
            } => write!(
                f,
                "subscriber {member} got notification {sequence} damaged: byte {offset} of the frame differs"
            ),
            Self::Misdirected { member, sequence } => write!(
                f,
                "subscriber {member} got notification {sequence}, which is not for it"
            ),
            Self::Lost {
                member,
                sequence,
                missing,
            } => write!(
                f,
                "notification {sequence} never reached {missing} subscribers, among them subscriber {member}"
            ),
            Self::Skipped {
                member,
                sequence,
                missing,
            } => write!(
                f,
                "subscriber {member} is told that it is caught up, and {missing} are lost: notification {sequence} is the first"
            ),
            Self::RepeatedId { sequence, id } => write!(
                f,
                "notification {sequence} has the id {id}, which an earlier one had"
            ),
            Self::DifferentId {
                sequence,
                settled,
                told,
            } => {
                write!(f, "notification {sequence} has the id {settled} and ")?;
                match told {
                    Some(told) => write!(f, "the id {told}"),
                    None => f.write_str("a receipt without one"),
                }
            }
            Self::OwnId { sequence, id } => write!(
                f,
                "notification {sequence} has the id {id}, which is none of a stream: does the server use {{redis}}?"
            ),
            Self::Descending {
                member,
                sequence,
                id,
            } => write!(
                f,
                "subscriber {member} got notification {sequence}, the id {id}, after one that is behind it in the stream"
            ),
            Self::Unexpected { member, what } => write!(f, "subscriber {member} got {what}"),
        }
    }
}
