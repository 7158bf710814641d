//! epoll, edge-triggered, and an account of the time in which there was nothing to do.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

use crate::system::{now_ns, thread_cpu_ns};

/// Few enough that what is due is never far away.
const EVENTS_MAX: usize = 128;

/// How the generator passes the time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Waiting {
    /// It asks again at once: a server never pays for waking it up.
    Spin,
    /// It sleeps in the kernel.
    Sleep,
}

/// An epoll.
pub(crate) struct Poller {
    epoll: OwnedFd,
    events: Vec<Event>,
    waiting: Waiting,
    idle_ns: u64,
}

/// What happened to a descriptor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Readiness {
    pub(crate) token: u64,
    pub(crate) is_readable: bool,
    pub(crate) is_writable: bool,
    /// The peer sends no more, or the connection failed.
    pub(crate) is_ending: bool,
}

/// Whether write readiness is of interest from the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Interest {
    Read,
    Both,
}

impl Poller {
    /// An epoll that brings [`EVENTS_MAX`] events at once.
    pub(crate) fn new(waiting: Waiting) -> io::Result<Self> {
        Self::with_events(waiting, EVENTS_MAX)
    }

    /// An epoll that brings `events_max` events at once.
    pub(crate) fn with_events(waiting: Waiting, events_max: usize) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Self::restore(epoll, waiting, events_max))
    }

    /// One that a predecessor had, with all that is registered there.
    pub(crate) fn restore(epoll: OwnedFd, waiting: Waiting, events_max: usize) -> Self {
        let none = Event {
            flags: EventFlags::empty(),
            data: EventData::new_u64(0),
        };
        Self {
            epoll,
            events: vec![none; events_max],
            waiting,
            idle_ns: 0,
        }
    }

    /// The epoll itself.
    pub(crate) fn epoll(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Registers a descriptor once and for all; closing it takes it away again.
    pub(crate) fn add(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        let mut flags = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
        if interest == Interest::Both {
            flags |= EventFlags::OUT;
        }
        Ok(epoll::add(
            &self.epoll,
            fd,
            EventData::new_u64(token),
            flags,
        )?)
    }

    /// Registers a listening socket by level: each wait tells of connections that were left.
    pub(crate) fn add_listener(&self, listener: impl AsFd, token: u64) -> io::Result<()> {
        let data = EventData::new_u64(token);
        Ok(epoll::add(&self.epoll, listener, data, EventFlags::IN)?)
    }

    /// Gives a descriptor another token and interest.
    pub(crate) fn change(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        let mut flags = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
        if interest == Interest::Both {
            flags |= EventFlags::OUT;
        }
        let data = EventData::new_u64(token);
        Ok(epoll::modify(&self.epoll, fd, data, flags)?)
    }

    /// Waits for events, until the time `until` at most; says how many there are.
    pub(crate) fn wait(&mut self, until: u64) -> io::Result<usize> {
        match self.waiting {
            Waiting::Spin => self.spin(until),
            Waiting::Sleep => {
                let left = until.saturating_sub(now_ns());
                self.poll(&timespec(left))
            }
        }
    }

    /// Waits for events however long it takes.
    pub(crate) fn wait_for_ever(&mut self) -> io::Result<usize> {
        match epoll::wait(&self.epoll, &mut self.events[..], None) {
            Ok(count) => Ok(count),
            Err(Errno::INTR) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// Looks for events, and waits for them so long at most.
    pub(crate) fn look(&mut self, wait_ns: u64) -> io::Result<usize> {
        self.poll(&timespec(wait_ns))
    }

    fn spin(&mut self, until: u64) -> io::Result<usize> {
        let mut count = self.poll(&timespec(0))?;
        if count > 0 {
            return Ok(count);
        }
        let idle_since = now_ns();
        let mut now = idle_since;
        while count == 0 && now < until {
            count = self.poll(&timespec(0))?;
            now = now_ns();
        }
        self.idle_ns += now - idle_since;
        Ok(count)
    }

    fn poll(&mut self, timeout: &Timespec) -> io::Result<usize> {
        match epoll::wait(&self.epoll, &mut self.events[..], Some(timeout)) {
            Ok(count) => Ok(count),
            Err(Errno::INTR) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// One of the events of the last wait.
    pub(crate) fn event(&self, index: usize) -> Readiness {
        let Event { flags, data, .. } = self.events[index];
        Readiness {
            token: data.u64(),
            is_readable: flags.contains(EventFlags::IN),
            is_writable: flags.contains(EventFlags::OUT),
            is_ending: flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR),
        }
    }

    /// Nanoseconds up to now in which this thread did something; differences count.
    pub(crate) fn busy_ns(&self) -> u64 {
        match self.waiting {
            Waiting::Spin => now_ns() - self.idle_ns,
            Waiting::Sleep => thread_cpu_ns(),
        }
    }
}

const fn timespec(nanos: u64) -> Timespec {
    Timespec {
        tv_sec: (nanos / 1_000_000_000) as i64,
        tv_nsec: (nanos % 1_000_000_000) as i64,
    }
}
