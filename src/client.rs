//! A small blocking WebSocket client on `ws`, for the command line; and one that makes requests.
//!
//! Speaks RFC 6455 from the client's side: masks what it sends, answers Pings and the Close.
//! Knows nothing of what the messages mean.

use std::io;
use std::mem;
use std::time::{Duration, Instant};

use crate::ws::close::{CloseCode, CloseFrame};
use crate::ws::error::ProtocolError;
use crate::ws::frame::{Opcode, Role, decode_header, encode_masked_frame};
use crate::ws::handshake::ClientHandshake;
use crate::ws::mask::MaskingKey;
use crate::ws::message::{Message, MessageAssembler, Progress};

mod answer;
mod error;
mod http;
mod stream;
mod url;

pub use answer::Answer;
pub use error::ClientError;
pub use http::Request;
pub use url::Url;

use http::{parse_head, read_answer, read_head};
use stream::{CONNECT_TIMEOUT, Stream};

/// The largest message that is taken from a server.
const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What the server sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Received {
    /// A text message.
    Text(String),
    /// Its Close, which has been answered; there is nothing after it.
    Close(CloseFrame),
}

/// An open connection to a server.
#[derive(Debug)]
pub struct Client {
    stream: Stream,
    /// Bytes that were read and not used yet.
    unused: Vec<u8>,
    assembler: MessageAssembler,
}

impl Client {
    /// Connects and shakes hands.
    ///
    /// # Errors
    /// Why there is no connection.
    pub fn connect(url: &Url) -> Result<Self, ClientError> {
        let mut client = Self {
            stream: Stream::connect(url)?,
            unused: Vec::new(),
            assembler: MessageAssembler::default(),
        };
        client.shake_hands(url)?;
        Ok(client)
    }

    fn shake_hands(&mut self, url: &Url) -> Result<(), ClientError> {
        let mut nonce = [0; 16];
        fill_random(&mut nonce)?;
        let handshake = ClientHandshake::new(nonce);
        let request = handshake.request(&url.host_field(), url.target(), url.token());
        self.stream.write_all(&request)?;
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let length = read_head(&mut self.stream, &mut self.unused, deadline)?;
        let Some((head, _)) = parse_head(&self.unused)? else {
            return Err(ClientError::NotHttp);
        };
        if head.status_code != 101 {
            let answer = read_answer(&mut self.stream, mem::take(&mut self.unused), deadline)?;
            return Err(ClientError::Refused(answer));
        }
        handshake
            .check_response(&head)
            .map_err(ClientError::Handshake)?;
        self.unused.drain(..length);
        self.stream.set_read_timeout(Some(CONNECT_TIMEOUT))
    }

    /// How long [`Client::receive`] waits for a byte; `None` is for ever.
    ///
    /// # Errors
    /// As the operating system's.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> Result<(), ClientError> {
        self.stream.set_read_timeout(timeout)
    }

    /// Sends a text message.
    ///
    /// # Errors
    /// As the operating system's.
    pub fn send_text(&mut self, text: &str) -> Result<(), ClientError> {
        self.send(Opcode::Text, text.as_bytes())
    }

    /// Starts the closing handshake.
    ///
    /// # Errors
    /// As the operating system's.
    pub fn close(&mut self) -> Result<(), ClientError> {
        self.send(
            Opcode::Close,
            &CloseFrame::new(CloseCode::NORMAL, "").encode(),
        )
    }

    fn send(&mut self, opcode: Opcode, payload: &[u8]) -> Result<(), ClientError> {
        // §5.3: a fresh key for each frame, from a strong source.
        let mut key = [0; 4];
        fill_random(&mut key)?;
        let mut frame = Vec::new();
        encode_masked_frame(&mut frame, opcode, payload, MaskingKey(key));
        self.stream.write_all(&frame)
    }

    /// Waits for the next text message, or for the Close. Binary messages are skipped.
    ///
    /// # Errors
    /// Why there is none; [`ClientError::TimedOut`] leaves the connection as it was.
    pub fn receive(&mut self) -> Result<Received, ClientError> {
        loop {
            let remaining = MESSAGE_BYTES_MAX - self.assembler.buffered_len();
            let header = decode_header(&self.unused, Role::Client, remaining)?;
            let Some(header) = header.filter(|header| self.unused.len() >= header.frame_len())
            else {
                self.stream.read_more(&mut self.unused)?;
                continue;
            };
            let payload = self.unused[header.header_len..header.frame_len()].to_vec();
            self.unused.drain(..header.frame_len());
            match header.opcode {
                Opcode::Ping => self.send(Opcode::Pong, &payload)?,
                Opcode::Pong => {}
                Opcode::Close => {
                    let frame =
                        CloseFrame::decode(&payload).map_err(ProtocolError::ClosePayload)?;
                    // The server may be gone already, and what it said still counts.
                    let answer = CloseFrame {
                        code: frame.code,
                        reason: String::new(),
                    };
                    let _ = self.send(Opcode::Close, &answer.encode());
                    return Ok(Received::Close(frame));
                }
                Opcode::Text | Opcode::Binary | Opcode::Continuation => {
                    self.assembler.check_order(header.opcode)?;
                    let message = match self.assembler.accept(&header, &payload)? {
                        Progress::Unfinished => continue,
                        Progress::Whole => MessageAssembler::whole(&header, &payload)?,
                        Progress::Assembled => self.assembler.assembled()?,
                    };
                    let text = match message {
                        Message::Text(text) => Some(text.to_owned()),
                        Message::Binary(_) => None,
                    };
                    self.assembler.reset();
                    if let Some(text) = text {
                        return Ok(Received::Text(text));
                    }
                }
            }
        }
    }
}

fn fill_random(bytes: &mut [u8]) -> io::Result<()> {
    getrandom::fill(bytes).map_err(io::Error::other)
}
