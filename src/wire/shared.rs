//! Bytes that many send queues share, encoded once. Main type: [`SharedBytes`].

use std::cell::OnceCell;
use std::fmt;
use std::rc::Rc;

use super::pinned::PinnedBytes;

/// Bytes that are kept once, however many hold them; a clone is another handle. They are charged to
/// the process from [`SharedBytes::pin`] until the last clone is dropped.
#[derive(Clone)]
pub struct SharedBytes(Rc<Inner>);

struct Inner {
    bytes: Box<[u8]>,
    pinned: OnceCell<PinnedBytes>,
}

impl SharedBytes {
    /// A first handle on `bytes`.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Rc::new(Inner {
            bytes: bytes.into_boxed_slice(),
            pinned: OnceCell::new(),
        }))
    }

    /// The bytes.
    #[inline]
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0.bytes
    }

    /// Charges the bytes to `pinned`, once, for as long as there is a handle.
    pub fn pin(&self, pinned: &PinnedBytes) {
        self.0.pinned.get_or_init(|| {
            pinned.add(self.0.bytes.len());
            pinned.clone()
        });
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(pinned) = self.pinned.get() {
            pinned.subtract(self.bytes.len());
        }
    }
}

impl fmt::Debug for SharedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the bytes: frames end up in logs.
        write!(f, "SharedBytes({})", self.as_bytes().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_charged_once_and_until_the_last_handle_is_dropped() {
        let pinned = PinnedBytes::new(usize::MAX);
        let bytes = SharedBytes::new(b"123456789".to_vec());
        bytes.pin(&pinned);
        let clone = bytes.clone();
        clone.pin(&pinned);
        assert_eq!(pinned.bytes(), 9);
        drop(bytes);
        assert_eq!(pinned.bytes(), 9);
        drop(clone);
        assert_eq!(pinned.bytes(), 0);
    }
}
