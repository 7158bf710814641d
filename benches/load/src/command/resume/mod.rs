//! `resume`: clients learn their position, leave by a reset, miss notifications, and come back:
//! all at once, or again and again on connections that are open.

mod rounds;
mod storm;

use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use rustix::net::sockopt;

use crate::connections::{self, Net};
use crate::figures::{self, Memory};
use crate::frame::TEXT;
use crate::id::Id;
use crate::message::{self, Layout, Recipients};
use crate::options::{Command, Options};
use crate::publisher::{Publication, Publishers, Receipt};
use crate::report::{Report, grouped};
use crate::resuming::Backlog;

use super::Bench;
use super::connect::wait_for_descriptors;
use super::fanout::check_subscribed;
use super::plan::Keys;

/// Handshakes and answers under way at once, while nothing is measured.
const PARALLEL: usize = 64;

/// Entries under way at once.
const IN_FLIGHT: usize = 256;

/// For the server to come to rest before its memory is looked at.
const REST: Duration = Duration::from_millis(300);

/// With more clients that have left than these, entries are put where those were, and what an
/// entry costs can't be seen.
const CLIENTS_FOR_MEMORY_MAX: usize = 100;

/// What the parts have in common.
struct Away {
    backlog: Backlog,
    /// What was each client's position when it left.
    sinces: Vec<Id>,
    /// The server's memory ahead of the entries and with them, if that says what these cost.
    memory: Option<[Memory; 2]>,
}

impl Away {
    fn channel_of(&self, client: usize) -> usize {
        client % self.backlog.channels()
    }
}

pub(super) fn run(bench: &mut Bench, options: &Options) -> Result<(), String> {
    if options.rounds > 0 && options.is_without_since {
        return Err("--without-since is for the storm, and not for --rounds".to_owned());
    }
    let layout = Layout::new(options.topic, options.bytes)?;
    let buffer_bytes = bench.net.buffer.len().max(2 * layout.frame_bytes());
    bench.net.buffer.resize(buffer_bytes, 0);
    let mut backlog = Backlog::new(layout, options.entries, options.hits)?;
    if backlog.channels() >= message::VALUES_MAX {
        return Err("--entries divided by --hits is too much".to_owned());
    }
    let sockets = connections::open(&mut bench.net, "/publish", 1, 1)?;
    let mut publishers = Publishers::kept(&bench.net, None, sockets)?;
    let sinces = learn(bench, options, &backlog)?;
    let is_telling = options.clients <= CLIENTS_FOR_MEMORY_MAX;
    let before = is_telling.then(|| memory_at_rest(bench)).transpose()?;
    publish(&mut bench.net, &mut publishers, &mut backlog, options)?;
    let after = is_telling.then(|| memory_at_rest(bench)).transpose()?;
    let away = Away {
        backlog,
        sinces,
        memory: before.zip(after).map(<[Memory; 2]>::from),
    };
    if options.rounds > 0 {
        rounds::run(bench, options, &away)
    } else {
        storm::run(bench, options, &away, publishers)
    }
}

fn memory_at_rest(bench: &Bench) -> Result<Memory, String> {
    thread::sleep(REST);
    figures::memory(&bench.server)
}

/// The clients come, are told where they are, and leave by a reset.
fn learn(bench: &mut Bench, options: &Options, backlog: &Backlog) -> Result<Vec<Id>, String> {
    let descriptors = bench.server.descriptors()?;
    let sockets = connections::open(&mut bench.net, "/", options.clients, PARALLEL)?;
    let mut sinces = vec![None; sockets.len()];
    let request = |client: usize| {
        let channel = client % backlog.channels();
        backlog.subscribe(channel, Some(b"")).into()
    };
    let check = |client: usize, answer: &[u8]| {
        sinces[client] = check_subscribed(answer, 1, true)?;
        Ok(())
    };
    connections::ask(&mut bench.net, &sockets, PARALLEL, request, check)?;
    reset(sockets)?;
    wait_for_descriptors(&bench.server, descriptors)?;
    let sinces = sinces.into_iter().collect::<Option<Vec<_>>>();
    sinces.ok_or_else(|| "a client was not told its position".to_owned())
}

/// Ends connections as a lost network does, and leaves nothing in TIME_WAIT.
fn reset(sockets: Vec<OwnedFd>) -> Result<(), String> {
    for socket in &sockets {
        sockopt::set_socket_linger(socket, Some(Duration::ZERO))
            .map_err(|error| format!("cannot reset a connection: {error}"))?;
    }
    drop(sockets);
    Ok(())
}

/// Publishes the backlog; nobody is there to get it.
fn publish(
    net: &mut Net,
    publishers: &mut Publishers,
    backlog: &mut Backlog,
    options: &Options,
) -> Result<(), String> {
    let mut keys = options.has_keys.then(Keys::new);
    let mut notification = Vec::new();
    let mut receipts = Vec::new();
    let (mut sent, mut finished) = (0, 0);
    while finished < backlog.entries() {
        while sent < backlog.entries() && sent - finished < IN_FLIGHT {
            notification.clear();
            backlog.push_notification(sent, &mut notification);
            let publication = Publication {
                value: 0,
                slot: sent,
                publisher: 0,
                notification: &notification,
                key: keys.as_mut().map_or(&[], |keys| keys.next(sent as u64)),
                is_kept: true,
                recipients: Recipients::Exactly(0),
            };
            publishers.publish(net, publication)?;
            sent += 1;
        }
        publishers.flush()?;
        for number in 0..net.wait("receipts")? {
            let event = net.poller.event(number);
            if event.token >= crate::publisher::FIRST_TOKEN {
                publishers.handle(net, event, &mut receipts)?;
            }
        }
        // One publisher is answered in its order, so the next receipt is the next entry's.
        for Receipt { id, .. } in receipts.drain(..) {
            backlog.published(id)?;
            finished += 1;
        }
    }
    Ok(())
}

/// The frame of a client's list.
fn list(away: &Away, client: usize, since: Option<&[u8]>) -> Vec<u8> {
    let text = away.backlog.subscribe(away.channel_of(client), since);
    let mut frame = Vec::new();
    crate::frame::push_client_frame(TEXT, &[&text], &mut frame);
    frame
}

/// What was run, and what the entries cost.
fn describe(bench: &Bench, options: &Options, away: &Away) -> Report {
    let mut report = bench.report(Command::Resume, options);
    report.count("clients", options.clients as u64);
    report.count("entries", options.entries as u64);
    report.count("hits", options.hits as u64);
    report.count("bytes", options.bytes as u64);
    report.flag("key", options.has_keys);
    report.flag("without_since", options.is_without_since);
    let what = format!(
        "{} clients, {} entries of {} bytes, {} for each",
        grouped(options.clients as f64),
        grouped(options.entries as f64),
        options.bytes,
        options.hits
    );
    report.line("what", &what);
    if let Some([before, after]) = &away.memory {
        let each = |before: u64, after: u64| {
            (after as f64 - before as f64) / away.backlog.entries() as f64
        };
        let anonymous = each(before.anonymous, after.anonymous);
        let resident = each(before.resident, after.resident);
        report.number("rss_anon_bytes_per_entry", anonymous);
        report.number("rss_bytes_per_entry", resident);
        let text = format!("{anonymous:.0} B anonymous, {resident:.0} B in all");
        report.line("server's memory an entry", &text);
    }
    report
}
