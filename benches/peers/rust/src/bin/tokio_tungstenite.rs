//! A server on tokio-tungstenite.
//!
//! A task for each connection waits for its queue and its socket. A payload is shared by all
//! subscribers until the library copies it into the connection's write buffer, and what waits
//! together is flushed together.

use futures_util::{FutureExt, SinkExt, StreamExt};
use peers::hub::{Membership, SharedHub};
use peers::protocol::{self, Command};
use tokio::net::TcpStream;
use tokio::sync::mpsc::Receiver;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config};

/// Messages taken from the queue, or from the socket, between two flushes.
const BATCH_MAX: usize = 256;

/// What the library advises for many connections that say little; the default is 128 KiB each.
const READ_BUFFER_BYTES: usize = 4 * 1024;

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

async fn serve(stream: TcpStream, hub: &SharedHub<Utf8Bytes>) -> Result<(), Error> {
    let mut kept = false;
    // The type of the error is the library's.
    #[allow(clippy::result_large_err)]
    let read_path = |request: &Request, response: Response| {
        kept = request.uri().path() == protocol::KEPT_PATH;
        Ok(response)
    };
    let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES);
    let mut socket = accept_hdr_async_with_config(stream, read_path, Some(config)).await?;
    let (membership, mut queue) = hub.join();
    let close = converse(&mut socket, &membership, &mut queue, kept).await?;
    drop(membership);
    if let Some(close) = close {
        socket.close(Some(close)).await?;
    }
    // The peer's Close, or its answer to ours.
    while socket.next().await.transpose()?.is_some() {}
    Ok(())
}

/// Serves until the peer has closed (`None`) or has to be closed.
async fn converse(
    socket: &mut WebSocketStream<TcpStream>,
    membership: &Membership<Utf8Bytes>,
    queue: &mut Receiver<Utf8Bytes>,
    kept: bool,
) -> Result<Option<CloseFrame>, Error> {
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            biased;
            count = queue.recv_many(&mut batch, BATCH_MAX) => {
                if count == 0 {
                    return Ok(Some(close(CloseCode::Again, "")));
                }
                for payload in batch.drain(..) {
                    socket.feed(Message::Text(payload)).await?;
                }
            }
            message = socket.next() => {
                let mut next = message;
                for _ in 0..BATCH_MAX {
                    let Some(message) = next.transpose()? else {
                        return Ok(None);
                    };
                    if let Some(close) = handle(socket, message, membership, kept).await? {
                        return Ok(Some(close));
                    }
                    match socket.next().now_or_never() {
                        Some(more) => next = more,
                        None => break,
                    }
                }
            }
        }
        socket.flush().await?;
    }
}

/// Does what a message asks for; a Close that is to be sent.
async fn handle(
    socket: &mut WebSocketStream<TcpStream>,
    message: Message,
    membership: &Membership<Utf8Bytes>,
    kept: bool,
) -> Result<Option<CloseFrame>, Error> {
    let text = match message {
        Message::Text(text) => text,
        Message::Binary(_) => return Ok(Some(close(CloseCode::Unsupported, ""))),
        // The library answers these itself.
        _ => return Ok(None),
    };
    let answer = match Command::parse(&text) {
        Ok(Command::Publish { topic, delivery }) => {
            let (delivered, dropped) = membership.publish(&topic, &delivery.into());
            if !kept {
                let reason = protocol::delivered(delivered, dropped);
                return Ok(Some(close(CloseCode::Normal, &reason)));
            }
            protocol::published(delivered, dropped).into()
        }
        Ok(Command::Subscribe {
            topics,
            subscriptions,
        }) => {
            membership.subscribe(topics);
            protocol::subscribed(subscriptions).into()
        }
        Ok(Command::Ping) => Utf8Bytes::from_static(protocol::PONG),
        Err(error) => error.into(),
    };
    socket.feed(Message::Text(answer)).await?;
    Ok(None)
}

fn close(code: CloseCode, reason: &str) -> CloseFrame {
    CloseFrame {
        code,
        reason: reason.into(),
    }
}
