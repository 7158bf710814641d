//! An echo server on the engine that ships, for the conformance suite: what comes is sent
//! back, text as text and binary as binary, up to 16 MiB and a bit.
//!
//! `cargo run --release --example autobahn_echo -- --listen 127.0.0.1:0` prints
//! `listening on ADDRESS` and serves until it is told to stop. On SIGUSR2 it becomes the program that stands at its path,
//! in the middle of whatever it is about, and says so on standard error.

use std::error::Error;
use std::io::Write;

use crieur::application::{
    Action, Admission, Application, CloseCause, Decision, Figures, Framing, Message, Outbox,
    Refused, Request, Response, Status,
};
use crieur::config::{ServerConfig, ServerLimits};
use crieur::handover::program::{self, Program};
use crieur::id::ConnectionId;
use crieur::net::engine::Carried;
use crieur::net::server::{Host, Inherited, Server, answer};
use log::LevelFilter;

/// The suite sends messages of 16 MiB, and the queue must take the answer.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024 + 1024;

struct Echo;

impl Application for Echo {
    fn handle_upgrade(&mut self, _: ConnectionId, _: &Request<'_>) -> Result<Admission, Refused> {
        Ok(Admission {
            message_bytes_max: MESSAGE_BYTES_MAX,
            on_behalf_of: None,
            deadline: None,
            is_limited: false,
            drains_after_hang_up: false,
            closes_last: false,
        })
    }

    fn handle_request(
        &mut self,
        _: ConnectionId,
        _: &Request<'_>,
        _: Framing,
        _: &dyn Figures,
    ) -> Decision {
        let response = Response::new(Status::UPGRADE_REQUIRED, "an echo over WebSocket")
            .with_field("Upgrade", "websocket");
        Decision {
            action: Action::Respond(response),
            is_limited: false,
        }
    }

    fn handle_message(&mut self, id: ConnectionId, message: Message<'_>, outbox: &mut dyn Outbox) {
        match message {
            Message::Text(text) => outbox.reply(id, text),
            Message::Binary(bytes) => outbox.reply_binary(id, bytes),
        }
    }

    fn handle_gone(&mut self, _: ConnectionId) {}

    fn close_reason(&self, _: CloseCause, _: u64) -> String {
        String::new()
    }
}

/// Nothing of the process goes over.
struct Process;

impl Host for Process {}

fn main() -> Result<(), Box<dyn Error>> {
    let mut config = ServerConfig {
        limits: ServerLimits {
            send_queue_bytes_max: 4 * MESSAGE_BYTES_MAX,
            ..ServerLimits::default()
        },
        ..ServerConfig::default()
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match (argument.as_str(), arguments.next()) {
            ("--listen", Some(address)) => config.listen = vec![address.parse()?],
            _ => return Err("usage: autobahn_echo [--listen ADDRESS]".into()),
        }
    }
    let program = Program::of_this_process()?;
    let mut server = match program::predecessor()?.map(Inherited::read).transpose()? {
        None => {
            let server = Server::bind(&config, Echo, 1)?;
            for (address, _) in server.local_addrs()? {
                println!("listening on {address}");
            }
            server
        }
        Some(inherited) if inherited.is_trial() => {
            let Carried { connections, lost } = inherited.rehearse(&config, Echo)?;
            print!("{}", answer("echo", connections, connections + lost));
            // Nothing else may be said in a trial, so there is no log.
            return Ok(());
        }
        Some(inherited) => {
            // Their sockets are there already.
            config.listen.clear();
            Server::inherit(inherited, &config, Echo, 1)?
        }
    };
    std::io::stdout().flush()?;
    env_logger::Builder::new()
        .filter_module("crieur::net::server", LevelFilter::Info)
        .init();
    server = server.with_program(program)?;
    server.run(&mut Process)?;
    Ok(())
}
