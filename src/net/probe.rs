//! Whether an address could be listened on, without listening there: nothing is made, removed or locked, and a server that
//! is there, or starts at this moment, isn't in the way of this nor this in its way.
//!
//! Main entry: [`probe`].

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::ListenAddress;

use super::socket_file;

/// What was found at an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Probed {
    /// A server could listen there.
    Free,
    /// Another one does.
    InUse,
}

/// Looks whether [`Listener::bind`](super::listener::Listener::bind) would get `address`.
///
/// # Errors
/// Why it could not, whoever else is running: this machine has no such address, a folder is missing.
pub fn probe(address: &ListenAddress, reuse_port: bool) -> io::Result<Probed> {
    let probed = match address {
        ListenAddress::Tcp(address) => bind_tcp(*address, reuse_port),
        ListenAddress::Unix(path) => socket_file::probe(path),
    };
    match probed {
        Ok(()) => Ok(Probed::Free),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(Probed::InUse),
        Err(error) => Err(error),
    }
}

/// Binds as a listener does, and goes no further: until it listens, nobody notices, and others that share addresses may
/// bind as well.
fn bind_tcp(address: SocketAddr, reuse_port: bool) -> io::Result<()> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;

    use super::*;
    use crate::application::Lane;
    use crate::config::ServerConfig;
    use crate::net::listener::Listener;

    fn listen(address: &ListenAddress, reuse_port: bool) -> io::Result<Listener> {
        let config = ServerConfig {
            reuse_port,
            ..ServerConfig::default()
        };
        Listener::bind(address, Lane::Publishers, &config)
    }

    fn kind(address: &ListenAddress) -> io::ErrorKind {
        probe(address, false).expect_err("it can't be").kind()
    }

    #[test]
    fn a_probe_finds_what_a_listener_would() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let any = ListenAddress::Tcp(any.parse().expect("valid"));
            for is_shared in [false, true] {
                let Ok(first) = listen(&any, is_shared) else {
                    // There is no IPv6 here.
                    continue;
                };
                let address = first.local_addr().expect("it is bound");
                let shares = if is_shared {
                    Probed::Free
                } else {
                    Probed::InUse
                };
                assert_eq!(probe(&address, true).expect("a result"), shares);
                assert_eq!(probe(&address, false).expect("a result"), Probed::InUse);
                drop(first);
                assert_eq!(probe(&address, false).expect("a result"), Probed::Free);
            }
        }
        // Of TEST-NET-1 (RFC 5737).
        let foreign = ListenAddress::Tcp(([192, 0, 2, 1], 0).into());
        assert_eq!(kind(&foreign), io::ErrorKind::AddrNotAvailable);
    }

    #[test]
    fn connections_that_have_ended_are_not_in_the_way() {
        let server = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = server.local_addr().expect("it is bound");
        let client = TcpStream::connect(address).expect("it listens");
        let (accepted, _) = server.accept().expect("there is one");
        // The side that closes first waits for what may be under way (RFC 9293 §3.6.1).
        drop(accepted);
        drop((client, server));
        let address = ListenAddress::Tcp(address);
        assert_eq!(probe(&address, false).expect("a result"), Probed::Free);
    }

    #[test]
    fn a_server_can_start_while_it_is_looked() {
        let any = ListenAddress::Tcp(([127, 0, 0, 1], 0).into());
        let first = listen(&any, false).expect("a free port");
        let address = first.local_addr().expect("it is bound");
        drop(first);
        let ListenAddress::Tcp(tcp) = address else {
            unreachable!("it is TCP");
        };
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_reuse_address(true).expect("a new socket");
        socket.bind(&tcp.into()).expect("a free port");
        listen(&address, false).expect("nobody listens there");
    }

    /// A folder of its own for a test, gone with it.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let name = format!("crieur-probe-{}-{name}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir(&path).expect("a new folder");
            Self(path)
        }

        fn socket(&self) -> ListenAddress {
            ListenAddress::Unix(self.0.join("a.sock"))
        }

        fn files(&self) -> usize {
            fs::read_dir(&self.0).expect("it is there").count()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).expect("it is ours");
        }
    }

    #[test]
    fn a_unix_socket_is_left_as_it_is() {
        let folder = Folder::new("left");
        let address = folder.socket();
        assert_eq!(probe(&address, false).expect("a result"), Probed::Free);
        assert_eq!(folder.files(), 0, "nothing is made");
        let listener = listen(&address, false).expect("nobody has it");
        assert_eq!(probe(&address, false).expect("a result"), Probed::InUse);
        assert_eq!(folder.files(), 2, "the socket and its lock are there");
        drop(listener);
        // One that was left behind is for a start to remove.
        drop(UnixListener::bind(folder.0.join("a.sock")).expect("a new socket"));
        assert_eq!(probe(&address, false).expect("a result"), Probed::Free);
        assert_eq!(folder.files(), 1, "nothing is removed");
        listen(&address, false).expect("it is removed now");
    }

    #[test]
    fn a_path_where_no_socket_can_be_is_told() {
        let folder = Folder::new("path");
        let at = |name: &str| ListenAddress::Unix(folder.0.join(name));
        assert_eq!(kind(&at("missing/a.sock")), io::ErrorKind::NotFound);
        fs::write(folder.0.join("file"), "").expect("writable");
        assert_eq!(kind(&at("file")), io::ErrorKind::AlreadyExists);
        assert_eq!(kind(&at("file/a.sock")), io::ErrorKind::NotADirectory);
        assert_eq!(kind(&at(&"a".repeat(200))), io::ErrorKind::InvalidInput);
    }
}
