//! What waits to be written to one connection.
//!
//! Frames of a fan-out are shared: the queue holds a reference. What is for this connection
//! alone (handshake, replies, control frames) is copied, and put together as long as it is
//! small, so that a burst of Pongs is one segment. The first segment sits in the queue itself:
//! one frame to an idle connection allocates nothing.
//!
//! Invariants: `unsent_bytes` is what the segments hold less `front_sent`; without a first
//! segment there are no others; an empty queue owns no memory.

mod saved;

use std::io::IoSlice;

use super::backlog::{Backlog, Segment};
use super::pinned::PinnedBytes;
use super::shared::SharedBytes;

/// Own segments beyond this start a new one instead of growing.
const OWN_SEGMENT_BYTES_MAX: usize = 4096;

/// How many segments go into one vectored write at most; what Linux calls `IOV_MAX`.
pub const SLICES_MAX: usize = 1024;

/// The bytes that a connection has not been sent yet, in order.
#[derive(Default, Debug)]
pub struct SendQueue {
    front: Option<Segment>,
    /// Boxed, because few connections have more than one segment.
    rest: Option<Box<Backlog>>,
    /// How much of the first segment has been sent.
    front_sent: u32,
    unsent_bytes: usize,
    /// All that was ever sent, to tell when a certain byte has left.
    sent_bytes_total: u64,
    own_bytes: u32,
    /// What this queue has charged to the process.
    charged_bytes: u32,
    /// How many unsent bytes it has noted there.
    noted_bytes: u32,
}

impl SendQueue {
    /// Whether all is sent.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.front.is_none()
    }

    /// Bytes that are still to be sent.
    #[must_use]
    pub const fn unsent_bytes(&self) -> usize {
        self.unsent_bytes
    }

    /// Bytes that the queue keeps in memory, shared ones counted in full: a segment that is half sent
    /// is kept whole.
    #[must_use]
    pub const fn kept_bytes(&self) -> usize {
        self.front_sent as usize + self.unsent_bytes
    }

    /// Of these, what nobody else pays for: all but what was retained when [`SendQueue::update_retained`] looked.
    #[must_use]
    pub fn pinned_bytes(&self) -> usize {
        let front = self.front.as_ref().map_or(0, Segment::retained_bytes);
        let rest = self.rest.as_ref().map_or(0, |rest| rest.retained_bytes());
        self.kept_bytes() - front - rest
    }

    /// The same without a frame that is on its way, which is the first segment. What is for this connection alone
    /// counts there too.
    #[must_use]
    pub fn pinned_bytes_behind(&self) -> usize {
        let front = match &self.front {
            Some(Segment::Shared(bytes) | Segment::Retained(bytes)) => bytes.as_bytes().len(),
            Some(Segment::Own(_)) | None => 0,
        };
        let rest = self.rest.as_ref().map_or(0, |rest| rest.retained_bytes());
        self.kept_bytes() - front - rest
    }

    /// Looks again what is retained still.
    pub fn update_retained(&mut self) {
        if let Some(rest) = &mut self.rest {
            rest.update_retained();
        }
    }

    /// The position in the stream of bytes behind the last one that is queued.
    #[must_use]
    pub const fn end_position(&self) -> u64 {
        self.sent_bytes_total + self.unsent_bytes as u64
    }

    /// The position in the stream up to which bytes have been sent.
    #[must_use]
    pub const fn sent_position(&self) -> u64 {
        self.sent_bytes_total
    }

    /// Unsent bytes that it has noted at the process; all of them, once it is settled.
    #[must_use]
    pub const fn noted_bytes(&self) -> usize {
        self.noted_bytes as usize
    }

    /// Bytes that this queue has charged to the process; shared frames charge themselves.
    #[must_use]
    pub const fn charged_bytes(&self) -> usize {
        self.charged_bytes as usize
    }

    /// Queues bytes that others share.
    #[inline]
    pub fn push_shared(&mut self, bytes: SharedBytes) {
        self.unsent_bytes += bytes.as_bytes().len();
        self.push_segment(Segment::of_shared(bytes));
    }

    /// Queues what `write` appends to the buffer that it is given.
    pub fn push_own(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let rest = self.rest.as_mut().and_then(|rest| rest.last_mut());
        let last = rest.or(self.front.as_mut());
        if let Some(Segment::Own(bytes)) = last
            && bytes.len() < OWN_SEGMENT_BYTES_MAX
        {
            let (len, capacity) = (bytes.len(), bytes.capacity());
            write(bytes);
            self.unsent_bytes += bytes.len() - len;
            self.own_bytes += saturate(bytes.capacity() - capacity);
            return;
        }
        let mut bytes = Vec::new();
        write(&mut bytes);
        if !bytes.is_empty() {
            self.unsent_bytes += bytes.len();
            self.own_bytes += saturate(bytes.capacity());
            self.push_segment(Segment::Own(bytes));
        }
    }

    #[inline]
    fn push_segment(&mut self, segment: Segment) {
        if self.front.is_none() {
            self.front = Some(segment);
        } else {
            self.rest.get_or_insert_default().push(segment);
        }
    }

    /// The unsent bytes if they are one segment, for a plain write.
    #[must_use]
    pub fn single(&self) -> Option<&[u8]> {
        let front = self.front.as_ref()?;
        let rest = self.rest.as_ref();
        rest.is_none_or(|rest| rest.is_empty())
            .then(|| &front.as_bytes()[self.front_sent as usize..])
    }

    /// How many segments wait.
    #[must_use]
    pub fn segments_len(&self) -> usize {
        usize::from(self.front.is_some()) + self.rest.as_ref().map_or(0, |rest| rest.len())
    }

    /// Fills `slices` with the unsent bytes in order, for a vectored write, and says how many
    /// of them it filled.
    pub fn gather<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let front = self
            .front
            .iter()
            .map(|front| &front.as_bytes()[self.front_sent as usize..]);
        let rest = self
            .rest
            .iter()
            .flat_map(|rest| rest.iter())
            .map(Segment::as_bytes);
        let mut filled = 0;
        for (slice, bytes) in slices.iter_mut().zip(front.chain(rest)) {
            *slice = IoSlice::new(bytes);
            filled += 1;
        }
        filled
    }

    /// Appends the unsent bytes in order, whole segments until `into` holds `bytes_max` or all.
    pub fn copy_into(&self, into: &mut Vec<u8>, bytes_max: usize) {
        let front = self
            .front
            .iter()
            .map(|front| &front.as_bytes()[self.front_sent as usize..]);
        let rest = self
            .rest
            .iter()
            .flat_map(|rest| rest.iter())
            .map(Segment::as_bytes);
        for bytes in front.chain(rest) {
            if into.len() + bytes.len() > bytes_max {
                break;
            }
            into.extend_from_slice(bytes);
        }
    }

    /// Forgets `sent` bytes, which the socket took.
    #[inline]
    pub fn advance(&mut self, mut sent: usize) {
        debug_assert!(
            sent <= self.unsent_bytes,
            "the socket took more than was offered"
        );
        self.unsent_bytes -= sent;
        self.sent_bytes_total += sent as u64;
        while let Some(front) = &self.front {
            let left = front.as_bytes().len() - self.front_sent as usize;
            if sent < left {
                self.front_sent += saturate(sent);
                return;
            }
            sent -= left;
            self.own_bytes -= saturate(front.own_capacity());
            self.front_sent = 0;
            self.front = self.rest.as_mut().and_then(|rest| rest.pop());
        }
        // Nobody is served by what an idle connection keeps.
        self.rest = None;
    }

    /// Forgets all but what the peer has to be able to read before the Close that comes next: a
    /// segment that has been sent in part, and those with bytes before the position `needed`.
    pub fn discard_unsent(&mut self, needed: u64) {
        let needed = needed.max(self.sent_bytes_total);
        let mut end = self.sent_bytes_total - self.front_sent as u64;
        let mut is_kept = |segment: &Segment| {
            let is_kept = end < needed;
            if is_kept {
                end += segment.as_bytes().len() as u64;
            }
            is_kept
        };
        self.front = self.front.take().filter(&mut is_kept);
        self.rest = self.rest.take().and_then(|mut rest| {
            rest.truncate(rest.iter().take_while(|one| is_kept(one)).count());
            (!rest.is_empty()).then_some(rest)
        });
        self.unsent_bytes = (end - self.sent_bytes_total) as usize;
        let rest = self.rest.iter().flat_map(|rest| rest.iter());
        let own = self.front.iter().chain(rest).map(Segment::own_capacity);
        self.own_bytes = saturate(own.sum());
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.front = None;
        self.rest = None;
        (self.front_sent, self.own_bytes) = (0, 0);
        self.unsent_bytes = 0;
    }

    /// Asserts what is true between any two calls.
    pub fn check_invariants(&self) {
        let rest = self.rest.iter().flat_map(|rest| rest.iter());
        let segments: Vec<_> = self.front.iter().chain(rest).collect();
        assert!(self.front.is_some() || self.rest.is_none());
        let queued: usize = segments.iter().map(|one| one.as_bytes().len()).sum();
        assert_eq!(self.kept_bytes(), queued);
        let own: usize = segments.iter().map(|one| one.own_capacity()).sum();
        assert_eq!(self.own_bytes as usize, own);
        if let Some(rest) = &self.rest {
            rest.check_invariants();
        }
    }

    /// Brings the charge to the process up to date with what the queue pins: its own segments
    /// and its entries. To be called after the queue was changed.
    #[inline]
    pub fn settle(&mut self, pinned: &PinnedBytes) {
        let rest_bytes = self.rest.as_ref().map_or(0, |rest| rest.heap_bytes());
        let pins = saturate(self.own_bytes as usize + rest_bytes);
        if pins > self.charged_bytes {
            pinned.add((pins - self.charged_bytes) as usize);
        } else if pins < self.charged_bytes {
            pinned.subtract((self.charged_bytes - pins) as usize);
        }
        self.charged_bytes = pins;
        let unsent_bytes = saturate(self.unsent_bytes);
        if unsent_bytes != self.noted_bytes {
            pinned.note_unsent(self.noted_bytes as usize, unsent_bytes as usize);
            self.noted_bytes = unsent_bytes;
        }
    }
}

/// A queue is far shorter than 4 GiB, by its limit.
fn saturate(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unsent(queue: &SendQueue) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 64];
        let filled = queue.gather(&mut slices);
        slices[..filled]
            .iter()
            .flat_map(|slice| slice.iter().copied())
            .collect()
    }

    fn own(queue: &mut SendQueue, bytes: &[u8]) {
        queue.push_own(|into| into.extend_from_slice(bytes));
    }

    #[test]
    fn bytes_come_out_in_order_whatever_the_socket_takes() {
        let frame = SharedBytes::new(b"shared".to_vec());
        let mut expected = b"one".to_vec();
        expected.extend_from_slice(frame.as_bytes());
        expected.extend_from_slice(frame.as_bytes());
        expected.extend_from_slice(b"two");
        for step in 1..=expected.len() {
            let mut queue = SendQueue::default();
            own(&mut queue, b"one");
            queue.push_shared(frame.clone());
            queue.push_shared(frame.clone());
            own(&mut queue, b"two");
            assert_eq!(queue.segments_len(), 4);
            let mut position = 0;
            while position < expected.len() {
                assert_eq!(unsent(&queue), expected[position..], "step {step}");
                assert_eq!(queue.unsent_bytes(), expected.len() - position);
                assert!(queue.kept_bytes() >= queue.unsent_bytes());
                let sent = step.min(expected.len() - position);
                queue.advance(sent);
                position += sent;
                assert_eq!(queue.sent_position(), position as u64);
                assert_eq!(queue.end_position(), expected.len() as u64);
            }
            assert!(queue.is_empty() && queue.segments_len() == 0);
        }
    }

    #[test]
    fn small_own_pieces_are_one_segment() {
        let mut queue = SendQueue::default();
        own(&mut queue, b"a");
        queue.advance(0);
        own(&mut queue, b"b");
        assert_eq!(queue.single(), Some(&b"ab"[..]));
        queue.advance(1);
        own(&mut queue, b"c");
        assert_eq!(queue.single(), Some(&b"bc"[..]));
        own(&mut queue, &[b'd'; OWN_SEGMENT_BYTES_MAX]);
        own(&mut queue, b"e");
        assert_eq!((queue.segments_len(), queue.single()), (2, None));
    }

    #[test]
    fn pushing_nothing_queues_nothing() {
        let mut queue = SendQueue::default();
        own(&mut queue, b"");
        assert!(queue.is_empty());
    }

    #[test]
    fn discarding_keeps_a_half_sent_frame() {
        let frame = SharedBytes::new(b"0123456789".to_vec());
        let mut queue = SendQueue::default();
        queue.push_shared(frame.clone());
        queue.push_shared(frame.clone());
        queue.advance(5);
        queue.discard_unsent(0);
        assert_eq!(unsent(&queue), frame.as_bytes()[5..]);
        assert_eq!(queue.unsent_bytes(), frame.as_bytes().len() - 5);
        assert_eq!(queue.kept_bytes(), frame.as_bytes().len());

        let mut queue = SendQueue::default();
        queue.push_shared(frame.clone());
        queue.push_shared(frame);
        queue.discard_unsent(0);
        assert!(queue.is_empty());
        assert_eq!(queue.unsent_bytes(), 0);
    }

    #[test]
    fn discarding_keeps_what_is_needed() {
        let frame = SharedBytes::new(b"0123456789".to_vec());
        let pinned = PinnedBytes::new(usize::MAX);
        let whole = [b"answer", frame.as_bytes(), frame.as_bytes()].concat();
        let len = frame.as_bytes().len();
        for sent in 0..whole.len() {
            for needed in 0..=whole.len() {
                let mut queue = SendQueue::default();
                own(&mut queue, b"answer");
                queue.push_shared(frame.clone());
                queue.push_shared(frame.clone());
                queue.advance(sent);
                queue.discard_unsent(needed as u64);
                // To the end of the segment that has been begun, or that is needed.
                let ends = [0, 6, 6 + len, whole.len()];
                let end = ends.into_iter().find(|&end| end >= needed.max(sent));
                let end = end.expect("it is within");
                assert_eq!(unsent(&queue), whole[sent..end], "{sent}, {needed}");
                assert_eq!(queue.unsent_bytes(), end - sent);
                assert_eq!(queue.is_empty(), end == sent);
                own(&mut queue, b"close");
                queue.advance(queue.unsent_bytes());
                queue.settle(&pinned);
                assert_eq!(pinned.bytes(), 0);
            }
        }
    }

    #[test]
    fn what_is_retained_is_not_pinned_until_it_is_released() {
        let frames: Vec<_> = (0..4).map(|_| SharedBytes::new(vec![b'x'; 10])).collect();
        frames[..3].iter().for_each(SharedBytes::retain);
        let mut queue = SendQueue::default();
        for frame in &frames {
            queue.push_shared(frame.clone());
            own(&mut queue, b"own");
        }
        assert_eq!((queue.kept_bytes(), queue.pinned_bytes()), (52, 22));
        assert_eq!(queue.pinned_bytes_behind(), 22);
        frames[0].release();
        queue.update_retained();
        assert_eq!(
            (queue.pinned_bytes(), queue.pinned_bytes_behind()),
            (32, 22)
        );
        frames[1].release();
        assert_eq!(queue.pinned_bytes(), 32, "nobody has looked");
        queue.update_retained();
        assert_eq!(
            (queue.pinned_bytes(), queue.pinned_bytes_behind()),
            (42, 32)
        );
        queue.check_invariants();
        // What has been looked at, and what hasn't, leaves with its count.
        frames[2].release();
        for _ in 0..52 {
            queue.advance(1);
            queue.check_invariants();
            assert!(queue.pinned_bytes() <= queue.kept_bytes());
        }
        assert_eq!((queue.pinned_bytes(), queue.pinned_bytes_behind()), (0, 0));
        queue.push_shared(frames[3].clone());
        frames[3].retain();
        queue.push_shared(frames[3].clone());
        queue.push_shared(frames[3].clone());
        queue.discard_unsent(0);
        assert_eq!(queue.pinned_bytes(), 0);
        queue.check_invariants();
    }

    #[test]
    fn what_is_pinned_is_charged_and_given_back() {
        let pinned = PinnedBytes::new(usize::MAX);
        let frame = SharedBytes::new(b"x".to_vec());
        let mut queue = SendQueue::default();
        queue.push_shared(frame.clone());
        queue.settle(&pinned);
        assert_eq!(
            pinned.bytes(),
            0,
            "the first segment sits in the queue, the frame charges itself"
        );
        queue.push_shared(frame);
        own(&mut queue, &[0; 100]);
        queue.settle(&pinned);
        assert!(pinned.bytes() >= 100 + 2 * size_of::<Segment>());
        assert_eq!(pinned.unsent_bytes(), queue.unsent_bytes());
        queue.advance(queue.unsent_bytes());
        queue.settle(&pinned);
        assert_eq!((pinned.bytes(), pinned.unsent_bytes()), (0, 0));
    }
}
