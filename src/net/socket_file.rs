//! The file of a Unix socket: takes a path for it, and gives the path back.
//!
//! Main type: [`SocketFile`]. Invariants: of those that want a path, one has it at a time; what is removed is
//! a socket that nobody listens on, or our own.
//!
//! A socket that is bound and not listened on yet looks like one that a server left behind which had no
//! time to remove it. So a server locks a file beside the socket, `PATH.lock`, before it looks, and keeps the
//! lock until its socket's file is gone (flock(2): the lock of a process that is killed goes with it).

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, FlockOperation, Mode, OFlags, access, fchmod, flock, open};
use rustix::io::Errno;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::handover::{Fields, Members};

// Members of a file.
const DEVICE: u8 = 1;
const INODE: u8 = 2;

/// A path that is ours. The socket's file is removed with this, unless another one has taken its place.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: Identity,
    /// Given up when the file is gone.
    lock: PathLock,
}

/// Device and inode.
type Identity = (u64, u64);

impl SocketFile {
    /// Listens on `path`, with the permissions `mode` whatever the umask.
    ///
    /// # Errors
    /// As the operating system's; [`io::ErrorKind::AddrInUse`] if another server listens there, or is about to.
    pub(super) fn listen(path: &Path, mode: u32, backlog: i32) -> io::Result<(UnixListener, Self)> {
        let lock = PathLock::take(path)?;
        remove_stale(path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        // Before it is bound, so that there is no moment at which others could connect.
        fchmod(&socket, Mode::from_raw_mode(mode))?;
        socket.bind(&SockAddr::unix(path)?)?;
        let file = Self {
            path: path.to_owned(),
            identity: identity(&fs::symlink_metadata(path)?),
            lock,
        };
        // The umask may have taken some away.
        fs::set_permissions(path, Permissions::from_mode(mode))?;
        socket.listen(backlog)?;
        Ok((socket.into(), file))
    }

    /// Writes what a successor must know that is given the path and [`SocketFile::descriptor`].
    pub(super) fn save(&self, members: &mut Members<'_>) {
        let Self {
            // That of the socket's address.
            path: _,
            identity: (device, inode),
            lock,
        } = self;
        let PathLock {
            // Beside the socket.
            path: _,
            // It goes over.
            file: _,
        } = lock;
        members.number(DEVICE, *device);
        members.number(INODE, *inode);
    }

    /// The file that is locked.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.lock.file.as_fd()
    }

    /// The file at `path` that an earlier program of this process has made and saved.
    pub(super) fn inherited(path: &Path, fields: &Fields<'_>, lock: OwnedFd) -> Self {
        Self {
            path: path.to_owned(),
            identity: (fields.number(DEVICE), fields.number(INODE)),
            lock: PathLock {
                path: lock_path(path),
                file: lock.into(),
            },
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|file| identity(&file) == self.identity) {
            // It is of no use any more, but does no harm either.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(file: &fs::Metadata) -> Identity {
    (file.dev(), file.ino())
}

/// Removes the socket that a server left behind which had no time to; one that is listened on,
/// or what is no socket at all, stays and is found in use.
fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    if is_socket && !is_listened_on(path)? {
        fs::remove_file(path)?;
    }
    Ok(())
}

/// Whether somebody may listen on the socket at `path`.
fn is_listened_on(path: &Path) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Where it is listened on, but nobody accepts, connecting would wait.
    socket.set_nonblocking(true)?;
    let connected = socket.connect(&SockAddr::unix(path)?);
    Ok(!connected.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused))
}

/// Looks whether [`SocketFile::listen`] could have `path`, and leaves everything as it is. The lock isn't tried: to have it
/// even for a moment would keep a server from starting.
///
/// # Errors
/// Why not; [`io::ErrorKind::AddrInUse`] if a server listens there.
pub(super) fn probe(path: &Path) -> io::Result<()> {
    // It has to fit.
    SockAddr::unix(path)?;
    match fs::symlink_metadata(path) {
        Ok(file) if !file.file_type().is_socket() => {
            let why = "there is a file that is no socket";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
        }
        Ok(_) if is_listened_on(path)? => return Err(io::ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or_else(|| Path::new("."));
    Ok(access(folder, Access::WRITE_OK | Access::EXEC_OK)?)
}

/// The right to bind a socket at a path, or to remove it from there.
#[derive(Debug)]
struct PathLock {
    path: PathBuf,
    /// Open for as long as it is locked.
    file: File,
}

fn lock_path(socket: &Path) -> PathBuf {
    let mut path = socket.as_os_str().to_owned();
    path.push(".lock");
    path.into()
}

impl PathLock {
    fn take(socket: &Path) -> io::Result<Self> {
        let path = lock_path(socket);
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        loop {
            let file = File::from(open(&path, flags, Mode::RUSR | Mode::WUSR)?);
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Err(io::ErrorKind::AddrInUse.into()),
                Err(error) => return Err(error.into()),
            }
            // Its last owner may have removed it since it was opened; then the path is another file's, or
            // nobody's.
            let locked = identity(&file.metadata()?);
            if fs::symlink_metadata(&path).is_ok_and(|file| identity(&file) == locked) {
                return Ok(Self { path, file });
            }
        }
    }
}

impl Drop for PathLock {
    fn drop(&mut self) {
        // While it is still locked. It does no harm where it can't be removed: its lock is gone at once.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    /// A path in a folder of its own.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let name = format!("crieur-socket-file-{}-{name}", std::process::id());
            let folder = std::env::temp_dir().join(name);
            fs::create_dir(&folder).expect("a new folder");
            Self(folder)
        }

        fn socket(&self) -> PathBuf {
            self.0.join("a.sock")
        }

        fn listen(&self) -> io::Result<(UnixListener, SocketFile)> {
            SocketFile::listen(&self.socket(), 0o600, 16)
        }

        fn files(&self) -> usize {
            fs::read_dir(&self.0).expect("it is there").count()
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).expect("it is ours");
        }
    }

    fn is_in_use(listened: io::Result<(UnixListener, SocketFile)>) -> bool {
        listened.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
    }

    #[test]
    fn a_socket_that_is_about_to_be_listened_on_stays() {
        let place = Place::new("about-to");
        let lock = PathLock::take(&place.socket()).expect("nobody has it");
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
        let address = SockAddr::unix(place.socket()).expect("a short path");
        socket.bind(&address).expect("a new socket");
        assert!(is_in_use(place.listen()));
        socket.listen(1).expect("it is bound");
        UnixStream::connect(place.socket()).expect("its file is where it was");
        drop((socket, lock));
        drop(place.listen().expect("nobody listens there any more"));
        assert_eq!(place.files(), 0, "nothing is left");
    }

    #[test]
    fn the_lock_of_a_killed_server_is_gone() {
        let place = Place::new("killed");
        fs::write(place.0.join("a.sock.lock"), "").expect("a file");
        drop(UnixListener::bind(place.socket()).expect("left behind"));
        let first = place.listen().expect("nobody has it");
        assert!(is_in_use(place.listen()));
        drop(first);
        assert_eq!(place.files(), 0);
    }

    #[test]
    fn one_of_many_that_start_at_once_has_the_path() {
        const STARTERS: usize = 8;
        let place = Place::new("at-once");
        for _ in 0..100 {
            drop(UnixListener::bind(place.socket()).expect("left behind"));
            let (ready, done) = (Barrier::new(STARTERS), Barrier::new(STARTERS));
            let start = || {
                ready.wait();
                let listened = place.listen();
                done.wait();
                let is_one = listened.is_ok();
                assert!(is_one || is_in_use(listened));
                is_one
            };
            let started: Vec<bool> = thread::scope(|scope| {
                let starters: Vec<_> = (0..STARTERS).map(|_| scope.spawn(start)).collect();
                let ends = starters.into_iter().map(|starter| starter.join());
                ends.map(|end| end.expect("no panic")).collect()
            });
            assert_eq!(started.iter().filter(|&&is_one| is_one).count(), 1);
            assert_eq!(place.files(), 0, "nothing is left");
        }
    }
}
