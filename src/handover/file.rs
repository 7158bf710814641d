//! The file that a state is in: memory that only the two programs can read. A state holds secrets, so it has no name.

use std::fs::File;
use std::io::{self, Seek};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;

/// An empty file in memory.
///
/// # Errors
///
/// There is no descriptor or no memory left.
pub fn create() -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels before 6.3 don't know that a file may be one that can't be run; some later ones want it said.
    let created = match memfd_create(c"crieur-state", flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => memfd_create(c"crieur-state", flags),
        created => created,
    };
    Ok(created?.into())
}

/// Makes `file` one that nobody can change any more, to be read from its beginning.
///
/// # Errors
///
/// It is none of [`create`].
pub fn seal(file: &mut File) -> io::Result<()> {
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    // That of `WRITE` waits for everybody who holds one of its pages, be it the kernel's own bookkeeping, and fails if that
    // takes long. Nobody has mapped it, so this one forbids as much; kernels before 5.1 don't know it.
    match fcntl_add_seals(&*file, seals | SealFlags::FUTURE_WRITE) {
        Err(Errno::INVAL) => fcntl_add_seals(&*file, seals | SealFlags::WRITE)?,
        sealed => sealed?,
    }
    file.rewind()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn file_of(bytes: &[u8]) -> File {
        let mut file = create().expect("memory");
        file.write_all(bytes).expect("memory");
        file
    }

    #[test]
    fn what_is_sealed_is_read_and_never_changed() {
        let mut file = file_of(b"state");
        seal(&mut file).expect("it is unsealed");
        let mut read = String::new();
        file.read_to_string(&mut read).expect("readable");
        assert_eq!(read, "state");
        assert!(file.write_all(b"more").is_err());
        assert!(file.set_len(0).is_err());
        let flags = rustix::io::fcntl_getfd(&file).expect("open");
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }

    #[test]
    fn a_page_that_somebody_holds_is_no_reason_to_wait() {
        let mut file = file_of(&[7; 8192]);
        let (_reader, writer) = io::pipe().expect("a pipe");
        file.rewind().expect("a file");
        // The kernel puts the pages themselves into the pipe, where they stay.
        let sent = rustix::fs::sendfile(&writer, &file, None, 8192);
        assert_eq!(sent, Ok(8192));
        seal(&mut file).expect("it is unsealed");
        assert!(file.write_all(b"more").is_err());
    }
}
