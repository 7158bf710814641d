//! A server on fastwebsockets, upgraded by hyper.
//!
//! The library has no shared payloads and no write buffer, but it lends its encoder: a notification
//! is encoded once, and all queues carry the same frame. A connection's task runs its reader and its
//! writer side by side (a read that is dropped halfway loses bytes); the writer hands all that
//! waits to one vectored write.

use std::convert::Infallible;
use std::error::Error;
use std::future::ready;
use std::io::IoSlice;
use std::sync::{Mutex, PoisonError};

use bytes::{Buf, Bytes};
use fastwebsockets::upgrade::{UpgradeFut, upgrade};
use fastwebsockets::{FragmentCollectorRead, Frame, OpCode, Payload, Role, after_handshake_split};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use peers::hub::{Membership, SharedHub};
use peers::protocol::{self, Command};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::mpsc::Receiver;

type AnyError = Box<dyn Error + Send + Sync>;

/// Frames taken from the queue for one write; as many as the runtime puts into one.
const BATCH_MAX: usize = 64;

fn main() -> std::io::Result<()> {
    let hub = SharedHub::default();
    peers::runtime::run(|stream| {
        let hub = hub.clone();
        async move {
            // However a connection ends, there is nobody left to tell.
            let _ = serve(stream, &hub).await;
        }
    })
}

async fn serve(stream: TcpStream, hub: &SharedHub<Bytes>) -> Result<(), AnyError> {
    let Some((stream, early, kept)) = accept(stream).await? else {
        return Ok(());
    };
    let (reading, writing) = stream.into_split();
    // The library writes one frame at a time and copies the small ones; we write without it.
    let (socket, _) = after_handshake_split(early.chain(reading), tokio::io::sink(), Role::Server);
    let (membership, queue) = hub.join();
    let reader = read(FragmentCollectorRead::new(socket), membership, kept);
    let writer = write(writing, queue);
    tokio::pin!(reader, writer);
    tokio::select! {
        biased;
        // It has left the hub, so the queue ends: what stands in it is written.
        _ = &mut reader => writer.await?,
        done = &mut writer => done?,
    }
    Ok(())
}

/// Upgrades; the socket itself rather than a box of it, what came behind the request, and whether
/// the path is that of publishers that stay.
async fn accept(stream: TcpStream) -> Result<Option<(TcpStream, Early, bool)>, AnyError> {
    let upgrading: Mutex<Option<(UpgradeFut, bool)>> = Mutex::new(None);
    let service = service_fn(|mut request: hyper::Request<Incoming>| {
        let kept = request.uri().path() == protocol::KEPT_PATH;
        ready(upgrade(&mut request).map(|(response, future)| {
            *upgrading.lock().unwrap_or_else(PoisonError::into_inner) = Some((future, kept));
            response
        }))
    });
    // On the heap, so that the task of an upgraded connection is not as big as hyper's.
    let serving = http1::Builder::new()
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    Box::pin(serving).await?;
    let upgrading = upgrading
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    let Some((future, kept)) = upgrading else {
        return Ok(None);
    };
    let upgraded = future.await?.into_inner().into_inner();
    let parts = upgraded
        .downcast::<TokioIo<TcpStream>>()
        .map_err(|_| "the upgraded stream is another one")?;
    Ok(Some((parts.io.into_inner(), Early(parts.read_buf), kept)))
}

/// What was read together with the request, to be read again.
struct Early(Bytes);

impl AsyncRead for Early {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let len = self.0.len().min(buffer.remaining());
        buffer.put_slice(&self.0.split_to(len));
        std::task::Poll::Ready(Ok(()))
    }
}

/// Reads until the connection ends. Everything it says goes through the queue.
async fn read<S: AsyncRead + Unpin>(
    mut socket: FragmentCollectorRead<S>,
    membership: Membership<Bytes>,
    kept: bool,
) -> Result<(), AnyError> {
    let mut closing = false;
    loop {
        // Pongs, and the answer to a Close unless we sent the first.
        let mut answer = |frame: Frame<'_>| {
            if !closing {
                membership.answer(encode(frame));
            }
            ready(Ok::<(), Infallible>(()))
        };
        let frame = socket.read_frame(&mut answer).await?;
        let close = match frame.opcode {
            OpCode::Close => return Ok(()),
            _ if closing => None,
            OpCode::Text => handle(&frame.payload, &membership, kept)?,
            OpCode::Binary => Some(encode(Frame::close(1003, b""))),
            _ => None,
        };
        if let Some(close) = close {
            membership.subscribe(Vec::new());
            membership.answer(close);
            closing = true;
        }
    }
}

/// Does what a message asks for; a Close that is to be sent.
fn handle(
    payload: &[u8],
    membership: &Membership<Bytes>,
    kept: bool,
) -> Result<Option<Bytes>, AnyError> {
    // The library has checked it, but doesn't say so in a type.
    let answer = match Command::parse(std::str::from_utf8(payload)?) {
        Ok(Command::Publish { topic, delivery }) => {
            let (delivered, dropped) = membership.publish(&topic, &text(&delivery));
            if !kept {
                let reason = protocol::delivered(delivered, dropped);
                return Ok(Some(encode(Frame::close(1000, reason.as_bytes()))));
            }
            protocol::published(delivered, dropped)
        }
        Ok(Command::Subscribe {
            topics,
            subscriptions,
        }) => {
            membership.subscribe(topics);
            protocol::subscribed(subscriptions)
        }
        Ok(Command::Ping) => protocol::PONG.to_owned(),
        Err(error) => error,
    };
    membership.answer(text(&answer));
    Ok(None)
}

/// Writes what the queue has, until it ends.
async fn write(mut socket: OwnedWriteHalf, mut queue: Receiver<Bytes>) -> Result<(), AnyError> {
    let mut frames = Frames::default();
    while queue.recv_many(&mut frames.frames, BATCH_MAX).await > 0 {
        socket.write_all_buf(&mut frames).await?;
        frames.clear();
    }
    Ok(())
}

fn text(payload: &str) -> Bytes {
    encode(Frame::text(Payload::Borrowed(payload.as_bytes())))
}

fn encode(mut frame: Frame<'_>) -> Bytes {
    let mut bytes = Vec::new();
    let len = frame.write(&mut bytes).len();
    bytes.truncate(len);
    bytes.into()
}

/// Frames on their way out, for vectored writes.
#[derive(Default)]
struct Frames {
    frames: Vec<Bytes>,
    /// Frames that are wholly written.
    written: usize,
}

impl Frames {
    fn clear(&mut self) {
        self.frames.clear();
        self.written = 0;
    }
}

impl Buf for Frames {
    fn remaining(&self) -> usize {
        self.frames[self.written..].iter().map(Bytes::len).sum()
    }

    fn has_remaining(&self) -> bool {
        self.written < self.frames.len()
    }

    fn chunk(&self) -> &[u8] {
        self.frames.get(self.written).map_or(&[], |frame| frame)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let pairs = slices.iter_mut().zip(&self.frames[self.written..]);
        pairs
            .map(|(slice, frame)| *slice = IoSlice::new(frame))
            .count()
    }

    fn advance(&mut self, mut count: usize) {
        while count > 0 {
            let frame = &mut self.frames[self.written];
            let part = count.min(frame.len());
            frame.advance(part);
            count -= part;
            if frame.is_empty() {
                self.written += 1;
            }
        }
    }
}
