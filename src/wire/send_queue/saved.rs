//! A send queue in a state.
//!
//! The first segment is there whole, although a part of it is sent: it mustn't be cut when the rest is discarded.

use crate::handover::{Fields, Malformed, Members};
use crate::wire::backlog::Segment;
use crate::wire::carried::{FrameNumbers, Frames};
use crate::wire::shared::SharedBytes;

use super::{SendQueue, saturate};

// Members of a connection.
const SEGMENTS: u8 = 31;
const FRONT_SENT: u8 = 32;
const SENT_BYTES_TOTAL: u8 = 33;

/// More than any connection has sent, and so few that no position in its stream overflows.
const SENT_BYTES_TOTAL_MAX: u64 = u64::MAX / 2;

impl SendQueue {
    /// The bytes in it that others may hold too, in order. They get their numbers before the queue is saved, and are charged
    /// after it was restored.
    pub fn shared(&self) -> impl Iterator<Item = &SharedBytes> {
        let rest = self.rest.iter().flat_map(|rest| rest.iter());
        self.front.iter().chain(rest).filter_map(Segment::shared)
    }

    /// Writes what a successor must know, when each of [`SendQueue::shared`] has its number in `frames`.
    pub fn save(&self, members: &mut Members<'_>, frames: &FrameNumbers) {
        let Self {
            front,
            rest,
            front_sent,
            // The sum of the segments, less `front_sent`.
            unsent_bytes: _,
            sent_bytes_total,
            // The sum of those that are its own.
            own_bytes: _,
            // By `settle`.
            charged_bytes: _,
            noted_bytes: _,
        } = self;
        let mut segments = Vec::new();
        if let Some(front) = front {
            front.save(&mut segments, frames);
        }
        if let Some(rest) = rest {
            rest.save(&mut segments, frames);
        }
        members.bytes(SEGMENTS, &segments);
        members.number(FRONT_SENT, u64::from(*front_sent));
        members.number(SENT_BYTES_TOTAL, *sent_bytes_total);
    }

    /// The queue that was saved; nothing of it is charged yet.
    ///
    /// # Errors
    /// A segment can't be read or its frame isn't there, or the figures contradict each other.
    pub fn restore(fields: &Fields<'_>, frames: &Frames) -> Result<Self, Malformed> {
        let mut segments = fields.bytes(SEGMENTS);
        if u32::try_from(segments.len()).is_err() {
            return Err(Malformed("a queue is too long"));
        }
        let mut queue = Self::default();
        while !segments.is_empty() {
            let segment = Segment::restore(&mut segments, frames)?;
            queue.unsent_bytes += segment.as_bytes().len();
            queue.own_bytes += saturate(segment.own_capacity());
            queue.push_segment(segment);
        }
        queue.resume(fields.narrow(FRONT_SENT)?, fields.number(SENT_BYTES_TOTAL))?;
        Ok(queue)
    }

    /// Goes on where `front_sent` bytes of the first segment were sent, and `sent_bytes_total` of the whole stream.
    fn resume(&mut self, front_sent: u32, sent_bytes_total: u64) -> Result<(), Malformed> {
        let front_len = self.front.as_ref().map_or(0, |one| one.as_bytes().len());
        let sent = front_sent as usize;
        if sent > 0 && sent >= front_len {
            return Err(Malformed("a segment is sent and still queued"));
        }
        if u64::from(front_sent) > sent_bytes_total || sent_bytes_total > SENT_BYTES_TOTAL_MAX {
            return Err(Malformed("what was sent of a stream is out of range"));
        }
        self.front_sent = front_sent;
        self.unsent_bytes -= sent;
        self.sent_bytes_total = sent_bytes_total;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::pinned::PinnedBytes;
    use crate::wire::send_queue::OWN_SEGMENT_BYTES_MAX;
    use fastrand::Rng;

    /// Carries queues from one process to the next, with the frames that the history retains.
    #[derive(Default)]
    struct Carrier {
        numbers: FrameNumbers,
        history: Vec<SharedBytes>,
    }

    impl Carrier {
        fn retain(&mut self, bytes: &[u8]) -> SharedBytes {
            let frame = SharedBytes::new(bytes.to_vec());
            frame.retain();
            self.history.push(frame.clone());
            frame
        }

        /// The queue in a state, the frames that are ahead of it there, and those that the next history has.
        fn save(&mut self, queue: &SendQueue) -> (Vec<u8>, Frames, Vec<SharedBytes>) {
            let mut frames = Frames::default();
            self.numbers.begin();
            let mut history = Vec::new();
            for frame in &self.history {
                assert!(self.numbers.number(frame).expect("one is left"));
                let again = SharedBytes::new(frame.as_bytes().to_vec());
                again.retain();
                frames.push(again.clone());
                history.push(again);
            }
            for frame in queue.shared() {
                if self.numbers.number(frame).expect("one is left") {
                    frames.push(SharedBytes::new(frame.as_bytes().to_vec()));
                }
            }
            let mut bytes = Vec::new();
            queue.save(&mut Members::new(&mut bytes), &self.numbers);
            (bytes, frames, history)
        }

        fn carry(&mut self, queue: SendQueue) -> SendQueue {
            let (bytes, frames, history) = self.save(&queue);
            drop(queue);
            self.history = history;
            let queue = restored(&bytes, &frames).expect("it was saved");
            drop(frames);
            queue.check_invariants();
            assert_eq!(self.save(&queue).0, bytes, "saved again");
            queue
        }
    }

    fn restored(bytes: &[u8], frames: &Frames) -> Result<SendQueue, Malformed> {
        SendQueue::restore(&Fields::parse(bytes)?, frames)
    }

    fn own(queue: &mut SendQueue, bytes: &[u8]) {
        queue.push_own(|into| into.extend_from_slice(bytes));
    }

    fn unsent(queue: &SendQueue) -> Vec<u8> {
        let mut bytes = Vec::new();
        queue.copy_into(&mut bytes, usize::MAX);
        bytes
    }

    /// Segments of each kind, in every order of two, with one frame that is there twice.
    fn mixed(carrier: &mut Carrier) -> SendQueue {
        let retained = carrier.retain(b"retained");
        carrier.retain(b"of nobody");
        let shared = SharedBytes::new(b"shared".to_vec());
        let mut queue = SendQueue::default();
        own(&mut queue, b"one");
        queue.push_shared(shared.clone());
        queue.push_shared(shared);
        own(&mut queue, b"two");
        queue.push_shared(retained.clone());
        queue.push_shared(SharedBytes::new(b"another".to_vec()));
        queue.push_shared(retained);
        own(&mut queue, b"three");
        queue
    }

    /// All that a queue tells.
    fn figures(queue: &SendQueue) -> (Vec<u8>, [u64; 6]) {
        let sizes = [
            queue.kept_bytes() as u64,
            queue.pinned_bytes() as u64,
            queue.pinned_bytes_behind() as u64,
            queue.segments_len() as u64,
            queue.sent_position(),
            queue.end_position(),
        ];
        (unsent(queue), sizes)
    }

    #[test]
    fn a_queue_goes_on_wherever_it_is_carried() {
        let len = unsent(&mixed(&mut Carrier::default())).len();
        for step in 1..=len {
            let mut carrier = Carrier::default();
            let mut other = Carrier::default();
            let (mut queue, mut twin) = (mixed(&mut carrier), mixed(&mut other));
            let mut left = len;
            while left > 0 {
                queue = carrier.carry(queue);
                assert_eq!(figures(&queue), figures(&twin), "{step}, {left}");
                let sent = step.min(left);
                queue.advance(sent);
                twin.advance(sent);
                left -= sent;
            }
            queue = carrier.carry(queue);
            assert!(queue.is_empty());
            assert_eq!(queue.sent_position(), len as u64);
        }
    }

    #[test]
    fn a_carried_queue_discards_the_same() {
        let len = unsent(&mixed(&mut Carrier::default())).len();
        for sent in 0..=len {
            for needed in 0..=len as u64 {
                let mut carrier = Carrier::default();
                let mut other = Carrier::default();
                let (mut queue, mut twin) = (mixed(&mut carrier), mixed(&mut other));
                queue.advance(sent);
                twin.advance(sent);
                let mut queue = carrier.carry(queue);
                for queue in [&mut queue, &mut twin] {
                    queue.discard_unsent(needed);
                    own(queue, b"close");
                    queue.check_invariants();
                }
                assert_eq!(figures(&queue), figures(&twin), "{sent}, {needed}");
            }
        }
    }

    #[test]
    fn what_is_retained_after_it_was_carried_is_not_pinned() {
        let mut carrier = Carrier::default();
        let mut queue = mixed(&mut carrier);
        // The history lets go of it, so it is written as the frame of a queue.
        carrier.history[0].release();
        carrier.history.remove(0);
        queue.update_retained();
        let mut queue = carrier.carry(queue);
        assert_eq!(queue.pinned_bytes(), queue.kept_bytes());
        let late = carrier.retain(b"late");
        queue.push_shared(late);
        let mut queue = carrier.carry(queue);
        assert_eq!(queue.pinned_bytes(), queue.kept_bytes() - 4);
        for frame in &carrier.history {
            frame.release();
        }
        queue.update_retained();
        assert_eq!(queue.pinned_bytes(), queue.kept_bytes());
        queue.check_invariants();
    }

    #[test]
    fn a_carried_queue_charges_what_it_pins_and_gives_it_back() {
        let pinned = PinnedBytes::new(usize::MAX);
        let mut carrier = Carrier::default();
        let mut queue = carrier.carry(mixed(&mut Carrier::default()));
        queue.shared().for_each(|frame| frame.pin(&pinned));
        queue.settle(&pinned);
        assert_eq!(queue.noted_bytes(), queue.unsent_bytes());
        assert_eq!(pinned.unsent_bytes(), queue.unsent_bytes());
        // A frame that is in it twice is one, and nobody retains any.
        let frames = "sharedretainedanother".len();
        assert_eq!(pinned.bytes(), queue.charged_bytes() + frames);
        queue.advance(queue.unsent_bytes());
        queue.settle(&pinned);
        assert_eq!((pinned.bytes(), pinned.unsent_bytes()), (0, 0));
    }

    #[test]
    fn long_segments_of_its_own_stay_apart() {
        let mut carrier = Carrier::default();
        let mut queue = SendQueue::default();
        own(&mut queue, &[b'a'; OWN_SEGMENT_BYTES_MAX]);
        own(&mut queue, b"b");
        own(&mut queue, b"c");
        let mut queue = carrier.carry(queue);
        assert_eq!(queue.segments_len(), 2);
        queue.advance(OWN_SEGMENT_BYTES_MAX);
        let mut queue = carrier.carry(queue);
        own(&mut queue, b"d");
        assert_eq!(queue.single(), Some(&b"bcd"[..]));
    }

    fn written(segments: &[u8], front_sent: u64, sent_bytes_total: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut members = Members::new(&mut bytes);
        members.bytes(SEGMENTS, segments);
        members.number(FRONT_SENT, front_sent);
        members.number(SENT_BYTES_TOTAL, sent_bytes_total);
        bytes
    }

    #[test]
    fn each_figure_has_its_bounds() {
        let max = SENT_BYTES_TOTAL_MAX;
        // One of its own with three bytes.
        let one: &[u8] = &[0, 3, b'a', b'b', b'c'];
        for (segments, front_sent, total, is_queue) in [
            (one, 0, 0, true),
            (one, 2, 2, true),
            (one, 2, max, true),
            (one, 3, 3, false),
            (one, u64::MAX, max, false),
            (one, 2, 1, false),
            (one, 2, max + 1, false),
            (&[], 0, 0, true),
            (&[], 0, max, true),
            (&[], 0, max + 1, false),
            (&[], 1, 1, false),
        ] {
            let bytes = written(segments, front_sent, total);
            let queue = restored(&bytes, &Frames::default());
            assert_eq!(queue.is_ok(), is_queue, "{front_sent}, {total}");
            if let Ok(mut queue) = queue {
                queue.check_invariants();
                let expected = segments.get(2 + front_sent as usize..).unwrap_or_default();
                assert_eq!(unsent(&queue), expected);
                queue.discard_unsent(u64::MAX);
                queue.advance(queue.unsent_bytes());
            }
        }
    }

    #[test]
    fn segments_that_cannot_be_are_malformed() {
        let mut frames = Frames::default();
        frames.push(SharedBytes::new(b"frame".to_vec()));
        for (segments, is_queue) in [
            (&[1, 5][..], true),
            (&[1, 5, 1, 5], true),
            // Another length; no such frame; the number of none.
            (&[1, 4], false),
            (&[1, 6], false),
            (&[2, 5], false),
            (&[255, 255, 255, 255, 255, 255, 255, 255, 255, 1, 5], false),
            // Empty; cut off within its length, and within its bytes.
            (&[1, 0], false),
            (&[0, 0], false),
            (&[1], false),
            (&[0], false),
            (&[0, 2, b'a'], false),
        ] {
            let queue = restored(&written(segments, 0, 0), &frames);
            assert_eq!(queue.is_ok(), is_queue, "{segments:?}");
        }
    }

    #[test]
    fn whatever_is_read_is_a_queue_or_malformed() {
        let mut random = Rng::with_seed(18);
        let mut queues = 0;
        for _ in 0..50_000 {
            let mut frames = Frames::default();
            frames.push(SharedBytes::new(b"frame".to_vec()));
            let low = |random: &mut Rng| random.u8(..) & ((1 << random.u8(0..8)) - 1);
            let segments: Vec<_> = (0..random.usize(..12)).map(|_| low(&mut random)).collect();
            let sent = u64::from(low(&mut random) & 7);
            let total = sent + (random.u64(..) >> random.u8(0..64));
            let Ok(mut queue) = restored(&written(&segments, sent, total), &frames) else {
                continue;
            };
            queues += 1;
            queue.check_invariants();
            let saved = |queue: &SendQueue| {
                let mut numbers = FrameNumbers::default();
                for frame in queue.shared() {
                    numbers.number(frame).expect("one is left");
                }
                let mut bytes = Vec::new();
                queue.save(&mut Members::new(&mut bytes), &numbers);
                bytes
            };
            let bytes = saved(&queue);
            let again = restored(&bytes, &frames).expect("it was saved");
            assert_eq!(unsent(&again), unsent(&queue));
            queue.discard_unsent(random.u64(..));
            own(&mut queue, b"close");
            queue.advance(random.usize(..=queue.unsent_bytes()));
            queue.check_invariants();
        }
        assert!(queues > 1000, "only {queues}");
    }
}
