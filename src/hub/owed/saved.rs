//! Answers that are owed, in a state: the line of a connection in its record, and what a request over HTTP awaits in one of
//! its own. Whom a nonce's answer is for follows from these.

use std::io;

use super::{Line, Outcome, Owed, OwedAnswers, Owner, Post};
use crate::application::{Delivered, State};
use crate::handover::{Fields, Malformed, Members};
use crate::hub::command::{BATCH_MAX, CommandError, ErrorCode, Receipt};
use crate::id::ConnectionId;
use crate::journal::id::StreamId;
use crate::redis::{Nonce, Refusal};

/// The kind of a request's record.
pub(crate) const POST_RECORD: u8 = 15;

// Members of what is known of a line.
const OWED: u8 = 1;
const IS_LAST: u8 = 2;

// Members of a request's record.
const INDEX: u8 = 1;
const SERIAL: u8 = 2;
const FIRST_NONCE: u8 = 3;
const IS_ARRAY: u8 = 4;
const RECEIPTS: u8 = 5;

// Members of something in a line, and of a receipt of a request.
const KIND: u8 = 1;
const NONCE: u8 = 2;
/// Of a message, or the detail of an error.
const TEXT: u8 = 3;
const CODE: u8 = 4;
const OUTCOME: u8 = 5;
const DELIVERED: u8 = 6;
const DROPPED: u8 = 7;
const ID: u8 = 8;
const IS_REPEATED: u8 = 9;
const REFUSAL: u8 = 10;
const WORD: u8 = 11;
const SINCE: u8 = 12;

// Values of KIND.
const RECEIPT: u64 = 1;
const ERROR: u64 = 2;
const MESSAGE: u64 = 3;
const AHEAD: u64 = 4;
const DUE: u64 = 5;

// Values of OUTCOME, if it is known.
const PUBLISHED: u64 = 1;
const REFUSED: u64 = 2;

const MALFORMED: Malformed = Malformed("what is owed to a client makes no sense");

impl Line {
    /// Writes what is owed.
    pub(crate) fn save(&self, members: &mut Members<'_>) {
        let Self {
            owed,
            // Of the texts.
            text_bytes: _,
            is_last,
            // If it can go on.
            is_listed: _,
        } = self;
        members.list(OWED, owed, Owed::save);
        members.number(IS_LAST, u64::from(*is_last));
    }

    /// Reads what was written.
    ///
    /// # Errors
    /// Nobody can have owed that.
    pub(crate) fn restore(fields: &Fields<'_>) -> Result<Self, Malformed> {
        let mut line = Self {
            is_last: fields.number(IS_LAST) != 0,
            ..Self::default()
        };
        let mut before = None;
        for fields in fields.list(OWED) {
            let owed = Owed::restore(&fields?)?;
            let is_first = line.owed.is_empty();
            let is_fit = match owed {
                Owed::Receipt(Nonce(nonce), _) => before.replace(nonce) < Some(nonce),
                Owed::Ahead(..) | Owed::Due(_) => is_first,
                Owed::Error(_) | Owed::Message(_) => true,
            };
            if !is_fit {
                return Err(MALFORMED);
            }
            line.text_bytes += owed.text_bytes();
            line.owed.push_back(owed);
        }
        if line.owed.is_empty() {
            return Err(MALFORMED);
        }
        Ok(line)
    }

    /// Whether what stands at the front is told, unless something else holds it.
    pub(crate) fn is_known(&self) -> bool {
        let front = self.owed.front();
        matches!(front, Some(Owed::Receipt(_, Some(_)) | Owed::Error(_)))
    }

    /// Those of entries that nobody knows anything of yet.
    pub(crate) fn open(&self) -> impl Iterator<Item = Nonce> {
        self.owed.iter().filter_map(|owed| match owed {
            Owed::Receipt(nonce, None) => Some(*nonce),
            _ => None,
        })
    }
}

impl Owed {
    fn save(&self, members: &mut Members<'_>) {
        let (kind, text) = match self {
            Self::Receipt(Nonce(nonce), outcome) => {
                members.number(NONCE, *nonce);
                if let Some(outcome) = outcome {
                    save_outcome(outcome, members);
                }
                (RECEIPT, "")
            }
            Self::Error(CommandError { code, detail }) => {
                members.bytes(CODE, code.as_str().as_bytes());
                (ERROR, detail.as_str())
            }
            Self::Message(text) => (MESSAGE, &**text),
            Self::Ahead(text, since) => {
                since.save(SINCE, members);
                (AHEAD, &**text)
            }
            Self::Due(text) => (DUE, &**text),
        };
        members.number(KIND, kind);
        members.bytes(TEXT, text.as_bytes());
    }

    fn restore(fields: &Fields<'_>) -> Result<Self, Malformed> {
        let text = fields.text(TEXT)?;
        Ok(match fields.number(KIND) {
            RECEIPT => Self::Receipt(Nonce(fields.number(NONCE)), restore_outcome(fields)?),
            ERROR => {
                let code = ErrorCode::of_word(fields.text(CODE)?).ok_or(MALFORMED)?;
                Self::Error(CommandError::new(code, text))
            }
            MESSAGE => Self::Message(text.into()),
            AHEAD => {
                let since = StreamId::saved(SINCE, fields)?;
                Self::Ahead(text.into(), since.ok_or(MALFORMED)?)
            }
            DUE => Self::Due(text.into()),
            _ => return Err(MALFORMED),
        })
    }
}

fn save_outcome(outcome: &Outcome, members: &mut Members<'_>) {
    match outcome {
        Ok(receipt) => save_receipt(receipt, members),
        Err(refusal) => {
            let (number, word) = refusal.parts();
            members.number(OUTCOME, REFUSED);
            members.number(REFUSAL, number);
            members.bytes(WORD, word.as_bytes());
        }
    }
}

fn save_receipt(receipt: &Receipt, members: &mut Members<'_>) {
    let Receipt {
        delivered: Delivered { queued, dropped },
        id,
        is_repeated,
    } = receipt;
    members.number(OUTCOME, PUBLISHED);
    members.size(DELIVERED, *queued);
    members.size(DROPPED, *dropped);
    if let Some(id) = id {
        members.bytes(ID, id.text().as_str().as_bytes());
    }
    members.number(IS_REPEATED, u64::from(*is_repeated));
}

fn restore_outcome(fields: &Fields<'_>) -> Result<Option<Outcome>, Malformed> {
    Ok(match fields.number(OUTCOME) {
        0 => None,
        PUBLISHED => {
            let id = match fields.text(ID)? {
                "" => None,
                text => Some(text.parse().map_err(|_| MALFORMED)?),
            };
            Some(Ok(Receipt {
                delivered: Delivered {
                    queued: fields.narrow(DELIVERED)?,
                    dropped: fields.narrow(DROPPED)?,
                },
                id,
                is_repeated: fields.number(IS_REPEATED) != 0,
            }))
        }
        REFUSED => {
            let refusal = Refusal::of_parts(fields.number(REFUSAL), fields.bytes(WORD));
            Some(Err(refusal.ok_or(MALFORMED)?))
        }
        _ => return Err(MALFORMED),
    })
}

impl OwedAnswers {
    /// Writes what requests over HTTP await; lines are written with their connections.
    ///
    /// # Errors
    /// As those of `state`.
    pub(crate) fn save(&self, state: &mut State<'_>) -> io::Result<()> {
        let Self {
            lines: _,
            posts,
            // They follow from the lines and the requests.
            owners: _,
            first: _,
            runnable: _,
            text_bytes: _,
        } = self;
        for (id, post) in posts {
            state.record(POST_RECORD, |members| post.save(*id, members))?;
        }
        Ok(())
    }

    /// Takes what a request awaits, of whose record `fields` are; `awaits` knows of which entries something will be heard.
    ///
    /// # Errors
    /// None can await that.
    pub(crate) fn restore_post(
        &mut self,
        fields: &Fields<'_>,
        awaits: impl Fn(Nonce) -> bool,
    ) -> Result<(), Malformed> {
        let (id, post) = Post::restore(fields)?;
        if self.posts.iter().any(|(other, _)| *other == id)
            || !post.open().all(awaits)
            || !self.fit(post.open())
        {
            return Err(MALFORMED);
        }
        post.open()
            .for_each(|nonce| self.own(nonce, Owner::Post(id)));
        let start = post.nonces.start;
        let is_before = |(_, post): &(ConnectionId, Post)| post.nonces.start < start;
        let at = self.posts.partition_point(is_before);
        self.posts.insert(at, (id, post));
        Ok(())
    }

    /// Whether the answers to entries with these nonces can be for somebody who isn't known yet.
    pub(crate) fn fit(&self, mut nonces: impl Iterator<Item = Nonce>) -> bool {
        nonces.all(|Nonce(nonce)| {
            let at = usize::try_from(nonce.wrapping_sub(self.first)).unwrap_or(usize::MAX);
            !matches!(self.owners.get(at), Some(Some(_)))
        })
    }

    /// The answer to the entry with this nonce, which fits and is awaited, is for `owner`. So it isn't far from the others.
    fn own(&mut self, Nonce(nonce): Nonce, owner: Owner) {
        if self.owners.is_empty() {
            self.first = nonce;
        }
        while nonce < self.first {
            self.owners.push_front(None);
            self.first -= 1;
        }
        let at = (nonce - self.first) as usize;
        if at >= self.owners.len() {
            self.owners.resize(at + 1, None);
        }
        self.owners[at] = Some(owner);
    }

    /// Takes the line of a connection, whose open nonces fit.
    pub(crate) fn carry(&mut self, id: ConnectionId, line: Line) {
        line.open()
            .for_each(|nonce| self.own(nonce, Owner::Connection(id)));
        self.text_bytes += line.text_bytes;
        *self.lines.get_or_insert(id) = line;
        self.list(id);
    }
}

#[cfg(test)]
impl OwedAnswers {
    /// Has lines go on in the order of their connections, as in a successor.
    pub(crate) fn sort(&mut self) {
        self.runnable.clear();
        let mut ids: Vec<_> = self.lines.iter().map(|(id, _)| *id).collect();
        ids.sort_unstable();
        for id in ids {
            let line = self.lines.get_mut(id);
            line.into_iter().for_each(|line| line.is_listed = false);
            self.list(id);
        }
    }
}

impl Post {
    fn save(&self, id: ConnectionId, members: &mut Members<'_>) {
        let Self {
            nonces,
            receipts,
            is_array,
        } = self;
        members.number(INDEX, id.index.into());
        members.number(SERIAL, id.serial.into());
        members.number(FIRST_NONCE, nonces.start);
        members.number(IS_ARRAY, u64::from(*is_array));
        members.list(RECEIPTS, receipts, |receipt, members| {
            if let Some(receipt) = receipt {
                save_receipt(receipt, members);
            }
        });
    }

    fn restore(fields: &Fields<'_>) -> Result<(ConnectionId, Self), Malformed> {
        let id = ConnectionId {
            index: fields.narrow(INDEX)?,
            serial: fields.narrow(SERIAL)?,
        };
        let receipts = fields.list(RECEIPTS).map(|fields| {
            let outcome = restore_outcome(&fields?)?;
            outcome.transpose().map_err(|_| MALFORMED)
        });
        let receipts: Vec<_> = receipts.collect::<Result<_, _>>()?;
        let start = fields.number(FIRST_NONCE);
        let end = start.checked_add(receipts.len() as u64).ok_or(MALFORMED)?;
        let is_array = fields.number(IS_ARRAY) != 0;
        let post = Self {
            nonces: start..end,
            receipts,
            is_array,
        };
        let is_awaiting = post.open().next().is_some();
        if !is_awaiting || post.receipts.len() > BATCH_MAX {
            return Err(MALFORMED);
        }
        Ok((id, post))
    }

    /// Those of entries that nobody knows anything of yet.
    fn open(&self) -> impl Iterator<Item = Nonce> {
        let receipts = self.nonces.clone().zip(&self.receipts);
        receipts.filter_map(|(nonce, receipt)| receipt.is_none().then_some(Nonce(nonce)))
    }
}
