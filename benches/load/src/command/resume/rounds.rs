//! A client that resumes again and again on its open connection: what a resume costs, and a list
//! without an id beside it.

use std::os::fd::OwnedFd;

use crate::connections::{self, Net, write_all};
use crate::figures::Span;
use crate::frame::{self, PONG};
use crate::options::Options;
use crate::resuming::Resume;
use crate::socket::{self, Received};

use super::{Away, Bench, PARALLEL, describe, list};
use crate::command::fanout::check_subscribed;

/// One of this many rounds warms up.
const WARMUP_SHARE: usize = 10;

pub(super) fn run(bench: &mut Bench, options: &Options, away: &Away) -> Result<(), String> {
    let sockets = connections::open(&mut bench.net, "/", options.clients, PARALLEL)?;
    let warmup = options.rounds.div_ceil(WARMUP_SHARE);

    ask_plainly(&mut bench.net, &sockets, away, warmup)?;
    let start = bench.snapshot()?;
    ask_plainly(&mut bench.net, &sockets, away, options.rounds)?;
    let lists = Span::between(&start, &bench.snapshot()?);

    resume(&mut bench.net, &sockets, away, warmup)?;
    let start = bench.snapshot()?;
    resume(&mut bench.net, &sockets, away, options.rounds)?;
    let resumes = Span::between(&start, &bench.snapshot()?);

    let count = (options.rounds * options.clients) as f64;
    let each = |span: &Span| span.server_cpu_us / count;
    let mut report = describe(bench, options, away);
    report.count("rounds", options.rounds as u64);
    report.number("server_cpu_us_per_resume", each(&resumes));
    report.number("server_cpu_us_per_list", each(&lists));
    let text = format!(
        "{:.2} us (a list without an id: {:.2} us)",
        each(&resumes),
        each(&lists)
    );
    report.line("server's CPU a resume", &text);
    let hits = count * options.hits as f64;
    let text = format!("{count} resumes with {hits} hits: each once, in order, intact");
    report.line("checked", &text);
    report.span(&resumes, "window");
    let title = format!("resume: {}", bench.server_name);
    report.publish(&title, options.json.as_deref())
}

/// Lists that ask for numbers and for nothing that was missed.
fn ask_plainly(
    net: &mut Net,
    sockets: &[OwnedFd],
    away: &Away,
    rounds: usize,
) -> Result<(), String> {
    let lists: Vec<_> = (0..sockets.len())
        .map(|client| away.backlog.subscribe(away.channel_of(client), Some(b"")))
        .collect();
    let check = |_: usize, answer: &[u8]| check_subscribed(answer, 1, true).map(drop);
    for _ in 0..rounds {
        let request = |client: usize| (&lists[client]).into();
        connections::ask(net, sockets, PARALLEL, request, check)?;
    }
    Ok(())
}

/// Lists with the position at which the clients left, each followed by all that was missed.
fn resume(net: &mut Net, sockets: &[OwnedFd], away: &Away, rounds: usize) -> Result<(), String> {
    let lists: Vec<_> = (0..sockets.len())
        .map(|client| list(away, client, Some(away.sinces[client].as_bytes())))
        .collect();
    let mut tails = vec![Vec::new(); sockets.len()];
    for _ in 0..rounds {
        let resume = |client| Resume::new(away.channel_of(client), away.sinces[client]);
        let mut resumes: Vec<_> = (0..sockets.len()).map(resume).collect();
        for (socket, list) in sockets.iter().zip(&lists) {
            write_all(socket, list)?;
        }
        let mut awaited = sockets.len();
        while awaited > 0 {
            for number in 0..net.wait("resumes")? {
                let client = net.poller.event(number).token as usize;
                let (Some(socket), Some(resume)) = (sockets.get(client), resumes.get_mut(client))
                else {
                    continue;
                };
                let was_caught_up = resume.is_caught_up();
                read(net, socket, client, away, resume, &mut tails[client])?;
                awaited -= usize::from(!was_caught_up && resume.is_caught_up());
            }
        }
    }
    Ok(())
}

/// Reads all there is, and has it checked.
fn read(
    net: &mut Net,
    socket: &OwnedFd,
    client: usize,
    away: &Away,
    resume: &mut Resume,
    tail: &mut Vec<u8>,
) -> Result<(), String> {
    loop {
        match socket::read(socket, &mut net.buffer).map_err(|error| error.to_string())? {
            Received::Nothing => return Ok(()),
            Received::End => return Err(format!("client {client} was hung up on")),
            Received::Bytes(count) => tail.extend_from_slice(&net.buffer[..count]),
        }
        let progress = resume
            .receive(&away.backlog, client, tail)
            .map_err(|fault| fault.to_string())?;
        tail.drain(..progress.consumed);
        for _ in 0..progress.pings {
            let mut pong = Vec::new();
            frame::push_client_frame(PONG, &[], &mut pong);
            write_all(socket, &pong)?;
        }
        if resume.is_caught_up() && !tail.is_empty() {
            return Err(format!("client {client} got more than it missed"));
        }
    }
}
