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
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    fcntl_add_seals(&*file, seals)?;
    file.rewind()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn what_is_sealed_is_read_and_never_changed() {
        let mut file = create().expect("memory");
        file.write_all(b"state").expect("memory");
        seal(&mut file).expect("it is unsealed");
        let mut read = String::new();
        file.read_to_string(&mut read).expect("readable");
        assert_eq!(read, "state");
        assert!(file.write_all(b"more").is_err());
        assert!(file.set_len(0).is_err());
        let flags = rustix::io::fcntl_getfd(&file).expect("open");
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }
}
