//! Bytes that many send queues share, encoded once. Main type: [`SharedBytes`].

use std::cell::{Cell, OnceCell};
use std::fmt;
use std::rc::{Rc, Weak};

use super::pinned::PinnedBytes;

/// Bytes that are kept once, however many hold them; a clone is another handle.
///
/// From [`SharedBytes::pin`] on they are charged to the process until the last clone is dropped, but for the time
/// in which they are retained: between [`SharedBytes::retain`] and [`SharedBytes::release`] an owner with
/// an account of its own, the history, pays for them.
#[derive(Clone)]
pub struct SharedBytes(Rc<Inner>);

/// A handle that doesn't keep the bytes.
#[derive(Clone, Default)]
pub struct WeakBytes(Weak<Inner>);

impl WeakBytes {
    /// The bytes, if anybody keeps them.
    #[must_use]
    pub fn upgrade(&self) -> Option<SharedBytes> {
        self.0.upgrade().map(SharedBytes)
    }
}

struct Inner {
    bytes: Box<[u8]>,
    pinned: OnceCell<PinnedBytes>,
    is_retained: Cell<bool>,
    /// The number that `carried` has given it; 0 before the first.
    number: Cell<u32>,
}

/// Every frame of the history has one. The number goes where padding was.
const _: () = assert!(size_of::<Inner>() <= 32);

/// Bytes that a handle's target takes beside its own, about.
pub const SHARED_OVERHEAD_BYTES: usize = size_of::<Inner>() + 2 * size_of::<usize>();

impl SharedBytes {
    /// A first handle on `bytes`.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Rc::new(Inner {
            bytes: bytes.into_boxed_slice(),
            pinned: OnceCell::new(),
            is_retained: Cell::new(false),
            number: Cell::new(0),
        }))
    }

    /// The bytes.
    #[inline]
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0.bytes
    }

    /// A handle that doesn't keep the bytes.
    #[must_use]
    pub fn downgrade(&self) -> WeakBytes {
        WeakBytes(Rc::downgrade(&self.0))
    }

    /// Whether there is another handle.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        Rc::strong_count(&self.0) > 1
    }

    /// Charges the bytes to `pinned`, once, for as long as there is a handle.
    pub fn pin(&self, pinned: &PinnedBytes) {
        self.0.pinned.get_or_init(|| {
            if !self.is_retained() {
                pinned.add(self.0.bytes.len());
            }
            pinned.clone()
        });
    }

    /// Has the owner of this handle pay for the bytes from now on, instead of the process.
    pub fn retain(&self) {
        self.set_retained(true);
    }

    /// Has the process pay for the bytes again, if anybody else holds them. The owner drops its handle next.
    pub fn release(&self) {
        self.set_retained(false);
    }

    fn set_retained(&self, is_retained: bool) {
        if self.0.is_retained.replace(is_retained) == is_retained {
            return;
        }
        match (self.0.pinned.get(), is_retained) {
            (Some(pinned), true) => pinned.subtract(self.0.bytes.len()),
            (Some(pinned), false) => pinned.add(self.0.bytes.len()),
            (None, _) => {}
        }
    }

    /// Whether an owner with an account of its own pays for the bytes.
    #[inline]
    #[must_use]
    pub fn is_retained(&self) -> bool {
        self.0.is_retained.get()
    }

    /// The number that it was given last; 0 before the first.
    pub(super) fn number(&self) -> u32 {
        self.0.number.get()
    }

    /// Gives it a number.
    pub(super) fn set_number(&self, number: u32) {
        self.0.number.set(number);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(pinned) = self.pinned.get()
            && !self.is_retained.get()
        {
            pinned.subtract(self.bytes.len());
        }
    }
}

impl fmt::Debug for WeakBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WeakBytes")
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

    #[test]
    fn retained_bytes_are_charged_only_before_and_after() {
        let pinned = PinnedBytes::new(usize::MAX);
        let bytes = SharedBytes::new(b"123456789".to_vec());
        bytes.retain();
        let clone = bytes.clone();
        clone.pin(&pinned);
        assert_eq!(pinned.bytes(), 0);
        bytes.release();
        bytes.release();
        drop(bytes);
        assert_eq!(pinned.bytes(), 9);
        clone.retain();
        assert_eq!(pinned.bytes(), 0);
        drop(clone);
        assert_eq!(pinned.bytes(), 0);
        // What was never queued is nobody's but the owner's.
        let bytes = SharedBytes::new(b"1".to_vec());
        bytes.retain();
        bytes.release();
        assert_eq!(pinned.bytes(), 0);
    }
}
