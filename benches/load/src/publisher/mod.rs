//! Who publishes: a connection for each notification, or connections that stay.

mod ephemeral;
mod kept;
mod posts;

use std::io;
use std::os::fd::OwnedFd;

use crate::connections::Net;
use crate::dialect::Dialect;
use crate::id::Id;
use crate::message::{self, Recipients};
use crate::poller::{Interest, Readiness};
use crate::socket::Connector;

use ephemeral::Ephemeral;
use kept::Kept;
use posts::Posts;

/// Tokens of publishers; those of subscribers are below.
pub(crate) const FIRST_TOKEN: u64 = 1 << 32;

/// How notifications are published.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Each on a WebSocket connection of its own.
    Ephemeral,
    /// On WebSocket connections at `/publish`.
    Kept,
    /// By `POST`, with keep-alive and pipelining.
    Http,
    /// By `POST`, each on a connection of its own.
    Post,
}

/// A notification to be published.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Publication<'a> {
    /// The checker's slot, which names it.
    pub(crate) slot: usize,
    /// Whose order it belongs to.
    pub(crate) publisher: usize,
    /// What subscribers have subscribed to, for requests that say it beside the notification.
    pub(crate) value: u32,
    pub(crate) notification: &'a [u8],
    /// Its key; empty if it has none.
    pub(crate) key: &'a [u8],
    /// Whether clients that come later may have it too.
    pub(crate) is_kept: bool,
    pub(crate) recipients: Recipients,
}

impl<'a> Publication<'a> {
    /// The pieces of the payload that publishes it.
    const fn payload(&self) -> [&'a [u8]; 8] {
        message::publish(self.key, self.is_kept, self.notification)
    }
}

/// What a publisher was told, once it has been found right.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Receipt {
    pub(crate) slot: usize,
    /// The notification's id, where the server gives ids.
    pub(crate) id: Option<Id>,
}

impl Receipt {
    /// Reads and checks what the server says about the notification in a slot.
    fn read(json: &[u8], slot: usize, recipients: Recipients) -> Result<Self, String> {
        message::check_delivered(json, recipients)?;
        let id = message::id_of(json)?;
        Ok(Self { slot, id })
    }

    /// The same for an answer over HTTP, whoever gives it.
    fn of(
        dialect: Dialect,
        body: &[u8],
        slot: usize,
        recipients: Recipients,
    ) -> Result<Self, String> {
        if dialect == Dialect::Crieur {
            return Self::read(body, slot, recipients);
        }
        dialect.check_answer(body, recipients)?;
        Ok(Self { slot, id: None })
    }
}

/// Has the poller tell of a publication's own connection.
fn watch(net: &Net, socket: &OwnedFd, slot: usize, has_more: bool) -> io::Result<()> {
    let interest = if has_more {
        Interest::Both
    } else {
        Interest::Read
    };
    net.poller.add(socket, FIRST_TOKEN + slot as u64, interest)
}

/// Keeps what belongs to a publication under its slot.
fn put<T>(slots: &mut Vec<Option<T>>, slot: usize, entry: T) {
    if slots.len() <= slot {
        slots.resize_with(slot + 1, || None);
    }
    slots[slot] = Some(entry);
}

/// All publishers of a run.
pub(crate) enum Publishers {
    Ephemeral(Ephemeral),
    Kept(Kept),
    Posts(Posts),
}

impl Publishers {
    /// Publishers that open a connection each time; with `is_patient` they wait for the 101
    /// before they send the notification.
    pub(crate) fn ephemeral(net: &Net, is_patient: bool) -> Self {
        Self::Ephemeral(Ephemeral::new(net, is_patient))
    }

    /// Publishers on connections that are open, and upgraded unless they speak HTTP as `posts` has it.
    pub(crate) fn kept(
        net: &Net,
        posts: Option<Dialect>,
        connections: Vec<OwnedFd>,
    ) -> Result<Self, String> {
        Ok(Self::Kept(Kept::new(net, posts, connections)?))
    }

    /// Publishers that open a connection for each POST.
    pub(crate) const fn posts(dialect: Dialect, connector: Connector) -> Self {
        Self::Posts(Posts::new(dialect, connector))
    }

    /// Of how many publishers order is expected.
    pub(crate) const fn ordered(&self) -> usize {
        match self {
            Self::Ephemeral(_) | Self::Posts(_) => 0,
            Self::Kept(kept) => kept.len(),
        }
    }

    /// Publishes, at once or with the next [`Publishers::flush`].
    pub(crate) fn publish(
        &mut self,
        net: &mut Net,
        publication: Publication<'_>,
    ) -> Result<(), String> {
        match self {
            Self::Ephemeral(ephemeral) => ephemeral.publish(net, publication),
            Self::Posts(posts) => posts.publish(net, publication),
            Self::Kept(kept) => {
                kept.publish(publication);
                Ok(())
            }
        }
    }

    /// Writes what waits.
    pub(crate) fn flush(&mut self) -> Result<(), String> {
        match self {
            Self::Ephemeral(_) | Self::Posts(_) => Ok(()),
            Self::Kept(kept) => kept.flush(),
        }
    }

    /// Does what an event asks for; the receipts are appended to `answered`.
    pub(crate) fn handle(
        &mut self,
        net: &mut Net,
        event: Readiness,
        answered: &mut Vec<Receipt>,
    ) -> Result<(), String> {
        let index = (event.token - FIRST_TOKEN) as usize;
        match self {
            Self::Ephemeral(ephemeral) => ephemeral.handle(net, index, event, answered),
            Self::Posts(posts) => posts.handle(net, index, event, answered),
            Self::Kept(kept) => kept.handle(net, index, event, answered),
        }
    }
}
