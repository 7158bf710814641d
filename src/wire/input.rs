//! The input of one turn: what an earlier turn left over and what was just read, as one run of bytes.
//!
//! Bytes are read into a buffer that all connections share, and whatever is whole is lent from it. Only
//! what is incomplete is copied, and stays with its connection. Main type: [`Input`].
//!
//! Invariant: `last_start <= position <= bytes().len()`.

use std::ops::Range;

/// What a turn works on. Made by [`super::buffers::Buffers::begin_turn`]; a protocol takes from it until
/// it holds nothing whole any more, or [`Cursor::is_exhausted`]; given back to
/// [`super::buffers::Buffers::end_turn`].
#[derive(Debug)]
pub struct Input<'a> {
    /// What earlier turns left over, with what was received behind it; empty if nothing was left over.
    tail: Vec<u8>,
    /// What was received, if there is no tail.
    received: &'a mut [u8],
    cursor: Cursor,
    /// A message that was put together of fragments, while it is lent.
    message: Vec<u8>,
}

/// How far a turn has come in its input.
#[derive(Debug)]
pub struct Cursor {
    /// The bytes before it are used up.
    position: usize,
    /// Where the request that was taken last begins.
    last_start: usize,
    /// Frames or requests that were taken.
    taken: usize,
    /// How many may be, so that a turn ends whatever the input is made of.
    taken_max: usize,
    /// Whether something that had begun was finished in this turn.
    has_finished: bool,
}

impl Cursor {
    /// Uses up the next `len` bytes, which must be there, and says where they are.
    #[inline]
    pub const fn advance(&mut self, len: usize) -> Range<usize> {
        let start = self.position;
        self.position += len;
        start..self.position
    }

    /// Uses up a whole request head of `len` bytes, which [`Input::put_back`] can put back.
    pub const fn advance_request(&mut self, len: usize) {
        self.last_start = self.position;
        self.position += len;
        self.has_finished = true;
    }

    /// Counts a frame or request.
    #[inline]
    pub const fn count(&mut self) {
        self.taken += 1;
    }

    /// Notes that something that had begun is finished: what comes next has its own time.
    #[inline]
    pub const fn finish(&mut self) {
        self.has_finished = true;
    }

    /// How many frames or requests were taken.
    #[must_use]
    pub const fn taken(&self) -> usize {
        self.taken
    }

    /// Whether as many were taken as may be.
    #[inline]
    #[must_use]
    pub const fn is_exhausted(&self) -> bool {
        self.taken >= self.taken_max
    }
}

impl<'a> Input<'a> {
    /// `tail` and `received` as one, of which `taken_max` frames or requests are taken at most.
    pub(super) fn new(mut tail: Vec<u8>, received: &'a mut [u8], taken_max: usize) -> Self {
        if !tail.is_empty() {
            tail.extend_from_slice(received);
        }
        Self {
            tail,
            received,
            cursor: Cursor {
                position: 0,
                last_start: 0,
                taken: 0,
                taken_max,
                has_finished: false,
            },
            message: Vec::new(),
        }
    }

    fn bytes(&self) -> &[u8] {
        if self.tail.is_empty() {
            self.received
        } else {
            &self.tail
        }
    }

    /// The bytes that are not used up.
    #[inline]
    #[must_use]
    pub fn unused(&self) -> &[u8] {
        &self.bytes()[self.cursor.position..]
    }

    /// How far the turn has come.
    #[inline]
    #[must_use]
    pub const fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// The same, to be moved on.
    #[inline]
    pub const fn cursor_mut(&mut self) -> &mut Cursor {
        &mut self.cursor
    }

    /// The bytes that are not used up, and the cursor to be moved while something is lent from them.
    pub fn parts(&mut self) -> (&[u8], &mut Cursor) {
        let bytes = if self.tail.is_empty() {
            &*self.received
        } else {
            &self.tail
        };
        (&bytes[self.cursor.position..], &mut self.cursor)
    }

    /// Uses up all bytes.
    pub fn discard(&mut self) {
        self.cursor.position = self.bytes().len();
    }

    /// The bytes of `range`, which [`Cursor::advance`] returned.
    #[inline]
    #[must_use]
    pub fn get(&self, range: Range<usize>) -> &[u8] {
        &self.bytes()[range]
    }

    /// The same, to be unmasked.
    #[inline]
    pub fn get_mut(&mut self, range: Range<usize>) -> &mut [u8] {
        if self.tail.is_empty() {
            &mut self.received[range]
        } else {
            &mut self.tail[range]
        }
    }

    /// Whether every byte is used up.
    #[must_use]
    pub fn is_used_up(&self) -> bool {
        self.cursor.position == self.bytes().len()
    }

    /// Whether as much was taken as may be, and there may be more.
    #[must_use]
    pub fn is_cut_short(&self) -> bool {
        self.cursor.is_exhausted() && !self.is_used_up()
    }

    /// Puts the request that was taken last, and counted, back.
    pub fn put_back(&mut self) {
        let cursor = &mut self.cursor;
        debug_assert!(cursor.last_start < cursor.position, "no request was taken");
        cursor.position = cursor.last_start;
        cursor.taken -= 1;
    }

    /// Lends a message that was put together of fragments, until [`Input::free_message`].
    pub fn lend(&mut self, message: Vec<u8>) -> &[u8] {
        self.message = message;
        &self.message
    }

    /// Frees the message that was lent.
    #[inline]
    pub fn free_message(&mut self) {
        if self.message.capacity() > 0 {
            self.message = Vec::new();
        }
    }

    /// Whether something was finished, and what is left over.
    pub(super) fn into_rest(mut self) -> (bool, Vec<u8>) {
        let position = self.cursor.position;
        if self.tail.is_empty() {
            self.tail.extend_from_slice(&self.received[position..]);
        } else {
            self.tail.drain(..position);
        }
        (self.cursor.has_finished, self.tail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_over_stands_before_what_was_received() {
        for tail in [&b""[..], b"he"] {
            let mut received = b"hello"[tail.len()..].to_vec();
            let mut input = Input::new(tail.to_vec(), &mut received, 1);
            assert_eq!(input.unused(), b"hello");
            let range = input.cursor_mut().advance(2);
            input.get_mut(range.clone())[0] = b'H';
            assert_eq!(
                (input.get(range), input.unused()),
                (&b"He"[..], &b"llo"[..])
            );
            assert!(!input.is_cut_short());
            input.cursor_mut().count();
            assert!(input.is_cut_short() && !input.is_used_up());
            assert_eq!(input.into_rest(), (false, b"llo".to_vec()));
        }
    }

    #[test]
    fn a_request_is_put_back_as_it_was() {
        let mut received = b"request, next".to_vec();
        let mut input = Input::new(Vec::new(), &mut received, 9);
        let (unused, cursor) = input.parts();
        cursor.advance_request(7);
        cursor.count();
        assert_eq!((unused, cursor.taken()), (&b"request, next"[..], 1));
        assert_eq!(input.unused(), b", next");
        input.put_back();
        assert_eq!(input.unused(), b"request, next");
        assert_eq!(input.cursor().taken(), 0);
    }
}
