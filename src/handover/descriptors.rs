//! Open descriptors on their way to the successor, in messages of a Unix socket (`SCM_RIGHTS`, unix(7)).
//!
//! What is sent stays open here, and what arrives is close-on-exec: whether the successor begins or not, nothing has to
//! be undone, and no number can be mistaken for another. The order is the order of the records that tell of them.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::vec;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg, sockopt,
};

/// As many as the kernel takes in one message (`SCM_MAX_FD`).
const PER_MESSAGE: usize = 253;
const SPACE: usize = rustix::cmsg_space!(ScmRights(PER_MESSAGE));
/// What a message takes of the socket's buffer, roughly: the kernel counts its own records of it.
const BYTES_PER_MESSAGE: usize = 2048;

/// A pair of sockets of which the first has room for `count` descriptors.
///
/// # Errors
///
/// There are no descriptors left, or no memory.
pub fn pair_for(count: usize) -> io::Result<(UnixStream, UnixStream)> {
    let (near, far) = UnixStream::pair()?;
    near.set_nonblocking(true)?;
    let messages = count.div_ceil(PER_MESSAGE) + 1;
    // The kernel grants what it may; what doesn't fit is refused by `send`.
    sockopt::set_socket_send_buffer_size(&near, messages * BYTES_PER_MESSAGE)?;
    Ok((near, far))
}

/// Puts `descriptors` on their way. Nobody has to read meanwhile: all of them fit, or it fails.
///
/// # Errors
///
/// They don't fit (`WouldBlock`), or a user has more of them under way than `RLIMIT_NOFILE`.
pub fn send(to: &UnixStream, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    for some in descriptors.chunks(PER_MESSAGE) {
        let mut space = [MaybeUninit::uninit(); SPACE];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fits = control.push(SendAncillaryMessage::ScmRights(some));
        debug_assert!(fits, "there is space for as many");
        // A stream carries descriptors only along with bytes.
        sendmsg(to, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?;
    }
    Ok(())
}

/// Takes the descriptors that arrive, in their order.
#[derive(Debug)]
pub struct Descriptors {
    from: OwnedFd,
    arrived: vec::IntoIter<OwnedFd>,
}

impl Descriptors {
    /// Takes what arrives at `from`.
    #[must_use]
    pub fn new(from: OwnedFd) -> Self {
        let arrived = Vec::new().into_iter();
        Self { from, arrived }
    }

    /// The next one.
    ///
    /// # Errors
    ///
    /// There is no further one (`UnexpectedEof`), or this process may have no more.
    pub fn take(&mut self) -> io::Result<OwnedFd> {
        loop {
            if let Some(descriptor) = self.arrived.next() {
                return Ok(descriptor);
            }
            self.receive()?;
        }
    }

    fn receive(&mut self) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); SPACE];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let mut bytes = [IoSliceMut::new(&mut byte)];
        let message = recvmsg(
            self.from.as_fd(),
            &mut bytes,
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        let mut arrived = Vec::with_capacity(PER_MESSAGE);
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                arrived.extend(descriptors);
            }
        }
        if message.bytes == 0 || arrived.is_empty() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if message.flags.contains(rustix::net::ReturnFlags::CTRUNC) {
            // The kernel leaves out those that there is no room for in the table of this process.
            return Err(io::Error::from(rustix::io::Errno::MFILE));
        }
        self.arrived = arrived.into_iter();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::io::Write;

    use super::*;

    #[test]
    fn descriptors_arrive_in_their_order_and_are_the_same_files() {
        // More than two messages take.
        let count = 2 * PER_MESSAGE + 1;
        let (near, far) = pair_for(count).expect("a pair");
        let pipes: Vec<_> = (0..count).map(|_| io::pipe().expect("a pipe")).collect();
        let readers: Vec<_> = pipes.iter().map(|(reader, _)| reader.as_fd()).collect();
        send(&near, &readers).expect("room");
        // Those here may be closed: what is under way stays open.
        let writers: Vec<_> = pipes.into_iter().map(|(_, writer)| writer).collect();
        drop(near);
        let mut descriptors = Descriptors::new(far.into());
        for (number, mut writer) in writers.into_iter().enumerate() {
            let number = u32::try_from(number).expect("small").to_le_bytes();
            writer.write_all(&number).expect("a reader");
            let mut file = File::from(descriptors.take().expect("one more"));
            let mut read = [0; 4];
            file.read_exact(&mut read).expect("written");
            assert_eq!(read, number);
            let flags = rustix::io::fcntl_getfd(&file).expect("open");
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        }
        let error = descriptors.take().expect_err("there are no more");
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_does_not_fit_is_refused_and_stays_open() {
        let (near, far) = UnixStream::pair().expect("a pair");
        near.set_nonblocking(true).expect("set");
        sockopt::set_socket_send_buffer_size(&near, 1).expect("set");
        let file = File::open("/dev/null").expect("there");
        let many = vec![file.as_fd(); 100 * PER_MESSAGE];
        let error = send(&near, &many).expect_err("there is no room");
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        drop((near, far));
        assert!(file.metadata().is_ok());
    }
}
