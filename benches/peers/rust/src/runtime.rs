//! One thread, a listener, and a task for each connection.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;

/// Reads `--listen HOST:PORT`, listens there, says so, and runs `serve` on each connection.
/// Doesn't return but by an error.
pub fn run<F, Fut>(mut serve: F) -> io::Result<()>
where
    F: FnMut(TcpStream) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let address = listen_argument()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "usage: --listen HOST:PORT"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        let listener = listen(address)?;
        println!("listening on {}", listener.local_addr()?);
        loop {
            // What fails is a connection that is gone again, or a lack of descriptors.
            let Ok((stream, _)) = listener.accept().await else {
                tokio::task::yield_now().await;
                continue;
            };
            if stream.set_nodelay(true).is_ok() {
                tokio::spawn(serve(stream));
            }
        }
    })
}

fn listen_argument() -> Option<SocketAddr> {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next()?.as_str(), arguments.next()?.parse()) {
        ("--listen", Ok(address)) => Some(address),
        _ => None,
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
