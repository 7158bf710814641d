//! What a client says: messages whole and in fragments, control frames in between, and what must
//! not be said.

use std::rc::Rc;

use crieur::hub::filter::Subscription;

use crate::dice::Dice;
use crate::frames::{BINARY, CLOSE, PING, PONG, TEXT, push_frame};
use crate::log::Log;
use crate::texts::{self, Publication, Style};
use crate::trust::Right;
use crate::wire::End;

use super::Client;

/// Texts that can't be followed, with the code of the answer.
const BAD_TEXTS: [(&str, &str); 7] = [
    ("{", "invalid-json"),
    ("", "invalid-json"),
    ("{}", "unknown-message"),
    (r#"{"sender":"client","cmd":[1]}"#, "unknown-message"),
    (
        r#"{"sender":"client","subscriptions":["a",{"package":"p"}]}"#,
        "invalid-subscription",
    ),
    (
        r#"{"sender":"client","subscriptions":{}}"#,
        "invalid-subscription",
    ),
    (
        r#"{"sender":"client","subscriptions":[],"since":5}"#,
        "invalid-subscription",
    ),
];

const BAD_PUBLICATION: &str = r#"{"sender":"server","notification":{"package":"p"}}"#;

/// Something that a client says, as the server has to take it.
#[derive(Debug)]
pub(crate) enum Said {
    /// The upgrade.
    Request,
    /// A list, and the id that it shows, or `""`.
    Subscribe(String, Vec<Subscription<'static>>, Option<Rc<str>>),
    Ping(String),
    Publish(Box<Publication>),
    BadPublish,
    Bad(&'static str, &'static str),
    Binary(Vec<u8>),
    /// Its Close, with this code.
    Close(Option<u16>),
    /// What has to be closed with this code; nothing is heard behind it.
    Violation(u16),
}

impl Said {
    /// A text that can't be followed.
    pub(crate) fn bad(dice: &mut Dice) -> Self {
        let (text, code) = dice.pick(&BAD_TEXTS);
        Self::Bad(text, code)
    }

    /// Whether it is what the server's application has to be handed.
    pub(super) fn is_message(&self) -> bool {
        !matches!(self, Self::Request | Self::Close(_) | Self::Violation(_))
    }

    /// What it is in bytes, if it is a message.
    pub(crate) fn payload(&self) -> &[u8] {
        match self {
            Self::Subscribe(text, ..) | Self::Ping(text) => text.as_bytes(),
            Self::Publish(publication) => publication.text.as_bytes(),
            Self::BadPublish => BAD_PUBLICATION.as_bytes(),
            Self::Bad(text, _) => text.as_bytes(),
            Self::Binary(payload) => payload,
            Self::Request | Self::Close(_) | Self::Violation(_) => &[],
        }
    }
}

/// Where in its stream a client has said something.
#[derive(Debug)]
pub(super) struct Mark {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) said: Said,
}

impl Client {
    pub(super) fn request(&mut self, dice: &mut Dice) {
        let path = if self.stays { "/publish?a" } else { "/" };
        let mut key = "dGhlIHNhbXBsZSBub25jZQ==";
        let is_good = !dice.chance(4);
        if !is_good {
            (key, self.is_done) = ("no key", true);
        }
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{}\r\n",
            self.papers.fields()
        );
        let said = is_good.then_some(Said::Request);
        self.write(head.as_bytes(), said);
    }

    pub(super) fn write(&mut self, bytes: &[u8], said: Option<Said>) {
        let start = self.written;
        self.out.extend(bytes);
        self.written += bytes.len() as u64;
        let end = self.written;
        self.ends.push_back(end);
        self.marks
            .extend(said.map(|said| Mark { start, end, said }));
    }

    /// Says something, in as many fragments as it likes, with control frames in between.
    fn say(&mut self, said: Said, dice: &mut Dice) {
        let opcode = match said {
            Said::Binary(_) => BINARY,
            _ => TEXT,
        };
        let mut bytes = Vec::new();
        let mut rest = said.payload();
        let mut first = opcode;
        let mut pings = Vec::new();
        while dice.chance(25) {
            let (part, others) = rest.split_at(dice.between(0, rest.len()));
            push_frame(&mut bytes, first, part, dice);
            (first, rest) = (0, others);
            if dice.chance(40) {
                let payload = dice.next_u64().to_be_bytes();
                push_frame(&mut bytes, 0x80 | PING, &payload, dice);
                pings.push((self.written + bytes.len() as u64, payload));
            }
        }
        push_frame(&mut bytes, 0x80 | first, rest, dice);
        self.pings.extend(pings);
        self.write(&bytes, Some(said));
    }

    /// Says something that isn't a notification.
    pub(crate) fn chat(&mut self, log: &Log, dice: &mut Dice) {
        match dice.below(10) {
            0..=3 => {
                let count = dice.pick(&[0, 1, 2, 4, 8]);
                let list = (0..count).map(|_| texts::subscription(dice)).collect();
                let since = self.numbers.then(|| self.since(log, dice)).flatten();
                self.subscribe(list, since, dice);
            }
            4 | 5 => {
                let text = dice.pick(&[r#"{"type":"ping"}"#, r#"{ "a":[{}], "type":"p\u0069ng"}"#]);
                self.say(Said::Ping(text.to_owned()), dice);
            }
            6 | 7 => self.ping(dice),
            8 => {
                let mut bytes = Vec::new();
                push_frame(&mut bytes, 0x80 | PONG, b"unasked", dice);
                self.write(&bytes, None);
            }
            _ => {
                let said = Said::bad(dice);
                self.say(said, dice);
            }
        }
    }

    pub(super) fn subscribe(
        &mut self,
        list: Vec<Subscription<'static>>,
        since: Option<Rc<str>>,
        dice: &mut Dice,
    ) {
        let text = texts::subscribe_text(&list, since.as_deref(), dice);
        self.say(Said::Subscribe(text, list, since), dice);
    }

    fn ping(&mut self, dice: &mut Dice) {
        let payload = dice.next_u64().to_be_bytes();
        let mut bytes = Vec::new();
        push_frame(&mut bytes, 0x80 | PING, &payload, dice);
        self.write(&bytes, None);
        self.pings.push_back((self.written, payload));
    }

    /// More at once than the server reads in a turn, and a question behind it.
    pub(crate) fn burst(&mut self, dice: &mut Dice) {
        let mut bytes = Vec::new();
        for _ in 0..dice.between(501, 700) {
            push_frame(&mut bytes, 0x80 | PONG, &[b'p'; 125], dice);
        }
        self.write(&bytes, None);
        self.ping(dice);
    }

    pub(crate) fn publish(&mut self, number: u64, style: Style, dice: &mut Dice) {
        if dice.chance(3) {
            self.say(Said::BadPublish, dice);
        } else {
            let has_token = self.right != Right::Granted && dice.chance(70);
            let will_be_granted = self.right == Right::Granted || self.has_said_token;
            let mut publication = texts::publication(dice, number, has_token, style);
            // Before permission, a limit on size would come first.
            while !will_be_granted && publication.text.len() > 10_000 {
                publication = texts::publication(dice, number, has_token, style);
            }
            self.has_said_token |= has_token && self.right == Right::WithToken;
            self.say(Said::Publish(Box::new(publication)), dice);
        }
        if !self.stays {
            self.is_done = dice.chance(90);
            if dice.chance(30) {
                self.hang_up = Some(dice.pick(&[End::Eof, End::Reset]));
            }
        }
    }

    /// Does something after which it has nothing more to say.
    pub(crate) fn finish(&mut self, now: u64, dice: &mut Dice) {
        self.is_done = true;
        let mut bytes = Vec::new();
        match dice.below(8) {
            0 => {
                let code = dice.pick(&[None, Some(1000), Some(1001), Some(4000)]);
                let mut payload = Vec::new();
                if let Some(code) = code {
                    payload.extend(u16::to_be_bytes(code));
                    payload.extend(b"bye");
                }
                push_frame(&mut bytes, 0x80 | CLOSE, &payload, dice);
                self.write(&bytes, Some(Said::Close(code)));
                if dice.chance(30) {
                    self.hang_up = Some(End::Eof);
                }
            }
            1 => self.hang_up = Some(End::Eof),
            2 => self.hang_up = Some(End::Reset),
            3 => self.is_silent = true,
            4 => {
                push_frame(&mut bytes, TEXT, b"{", dice);
                self.write(&bytes, None);
                self.stuck_at = Some(now);
            }
            5 => {
                let payload = vec![0xff; dice.below(300)];
                self.say(Said::Binary(payload), dice);
                self.answers_close &= dice.chance(50);
            }
            _ => self.violate(dice),
        }
    }

    /// Its network goes, behind some of what it has said.
    pub(crate) fn lose_connection(&mut self, dice: &mut Dice) {
        self.is_done = true;
        self.hang_up = Some(dice.pick(&[End::Eof, End::Reset]));
    }

    fn violate(&mut self, dice: &mut Dice) {
        let mut bytes = Vec::new();
        let code = match dice.below(10) {
            0 => {
                bytes.extend([0x81, 0x01, b'a']);
                1002
            }
            1 => {
                push_frame(&mut bytes, 0xc1, b"{}", dice);
                1002
            }
            2 => {
                push_frame(&mut bytes, 0x83, b"", dice);
                1002
            }
            3 => {
                push_frame(&mut bytes, PING, b"", dice);
                1002
            }
            4 => {
                push_frame(&mut bytes, 0x80 | PING, &[0; 126], dice);
                1002
            }
            5 => {
                bytes.extend([0x81, 0xfe, 0, 1, 0, 0, 0, 0, b'a']);
                1002
            }
            6 => {
                push_frame(&mut bytes, 0x80, b"nothing to continue", dice);
                1002
            }
            7 => {
                push_frame(&mut bytes, 0x81, b"\"\xff\"", dice);
                1007
            }
            8 => {
                // Only its length is sent.
                bytes.extend([0x82, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 1, 0, 0, 0, 0]);
                1009
            }
            _ => {
                push_frame(&mut bytes, 0x80 | CLOSE, &[0x03, 0xed], dice);
                1002
            }
        };
        self.write(&bytes, Some(Said::Violation(code)));
        // What follows must not be looked at.
        let more: Vec<_> = (0..dice.below(40)).map(|_| dice.next_u64() as u8).collect();
        self.write(&more, None);
        self.ping(dice);
        self.pings.pop_back();
    }
}
