//! How a state names bytes that many share: by a number, so that each are in it once.
//!
//! The writer asks [`FrameNumbers`] for the number of each frame, and writes the bytes of those that are new; the reader
//! collects them in [`Frames`], in the same order. The number is kept in the frame itself, so nothing is searched, and
//! nothing is reset: the numbers of each writing begin above all that were given before.
//!
//! A frame is named with its length. What was encoded anew and has become another so closes the connection that was in
//! the midst of it, which else would read the end of the one behind the start of the other.

use std::io;

use crate::handover::Malformed;

use super::shared::SharedBytes;

/// Gives frames their numbers, which begin at 0 in each writing. One for all frames that can meet in a queue.
#[derive(Debug)]
pub struct FrameNumbers {
    /// What frames keep is above 0, which says that they have none; below this it is of an earlier writing.
    first: u32,
    next: u32,
}

impl Default for FrameNumbers {
    fn default() -> Self {
        Self { first: 1, next: 1 }
    }
}

impl FrameNumbers {
    /// Begins a writing: no frame has a number.
    pub const fn begin(&mut self) {
        self.first = self.next;
    }

    /// Gives `frame` the next number, unless it has one; says whether it had none.
    ///
    /// # Errors
    ///
    /// More than four billion frames were numbered, in all the writings together.
    pub fn number(&mut self, frame: &SharedBytes) -> io::Result<bool> {
        if self.get(frame).is_some() {
            return Ok(false);
        }
        let next = self.next.checked_add(1);
        let next = next.ok_or_else(|| io::Error::other("no number is left for a frame"))?;
        frame.set_number(self.next);
        self.next = next;
        Ok(true)
    }

    /// The number that `frame` has in this writing.
    #[must_use]
    pub fn get(&self, frame: &SharedBytes) -> Option<u32> {
        frame.number().checked_sub(self.first)
    }
}

/// The frames of a state, by their numbers.
#[derive(Default, Debug)]
pub struct Frames(Vec<SharedBytes>);

impl Frames {
    /// Adds the frame that has the next number.
    pub fn push(&mut self, frame: SharedBytes) {
        self.0.push(frame);
    }

    /// The frame that has `number`, if it has `len` bytes.
    ///
    /// # Errors
    ///
    /// None has that number, or it has another length.
    pub fn get(&self, number: u64, len: u64) -> Result<&SharedBytes, Malformed> {
        let place = usize::try_from(number).ok();
        let frame = place.and_then(|place| self.0.get(place));
        let frame = frame.ok_or(Malformed("a frame is missing"))?;
        if frame.as_bytes().len() as u64 == len {
            Ok(frame)
        } else {
            Err(Malformed("a frame has another length"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_frame_has_one_number_in_each_writing() {
        let frames = ["a", "b", "c"].map(|bytes| SharedBytes::new(bytes.into()));
        let [a, b, c] = &frames;
        let mut numbers = FrameNumbers::default();
        assert_eq!(numbers.get(a), None);
        for order in [[a, b, c], [c, a, b], [b, b, a]] {
            numbers.begin();
            assert!(frames.iter().all(|frame| numbers.get(frame).is_none()));
            let mut expected = 0;
            for (place, frame) in order.into_iter().enumerate() {
                let is_new = numbers.number(frame).expect("a number is left");
                let is_first = order[..place]
                    .iter()
                    .all(|one| one.number() != frame.number());
                assert_eq!(is_new, is_first);
                if is_new {
                    assert_eq!(numbers.get(&frame.clone()), Some(expected));
                    expected += 1;
                }
                assert!(!numbers.number(frame).expect("it has one"));
            }
        }
        assert_eq!(numbers.get(c), None, "the last writing didn't have it");
    }

    #[test]
    fn no_number_is_given_twice() {
        let [a, b] = ["a", "b"].map(|bytes| SharedBytes::new(bytes.into()));
        let (first, next) = (u32::MAX - 1, u32::MAX - 1);
        let mut numbers = FrameNumbers { first, next };
        assert!(numbers.number(&a).expect("one is left"));
        for _ in 0..2 {
            assert!(numbers.number(&b).is_err());
            assert_eq!((numbers.get(&a), numbers.get(&b)), (Some(0), None));
        }
        numbers.begin();
        assert_eq!(numbers.get(&a), None);
        assert!(numbers.number(&a).is_err());
    }

    #[test]
    fn a_frame_is_found_by_number_and_length() {
        let mut frames = Frames::default();
        assert!(frames.get(0, 0).is_err());
        for bytes in ["", "one", "three"] {
            frames.push(SharedBytes::new(bytes.into()));
        }
        let found = frames.get(2, 5).expect("it is there");
        assert_eq!(found.as_bytes(), b"three");
        assert!(frames.get(0, 0).is_ok());
        for (number, len) in [(1, 2), (1, 4), (3, 0), (u64::MAX, 3), (1 << 32, 3)] {
            assert!(frames.get(number, len).is_err(), "{number}, {len}");
        }
    }
}
