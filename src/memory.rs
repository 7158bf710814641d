//! Giving memory back when a crowd has left.

use std::collections::VecDeque;

/// Allocations beyond this are mappings of their own, as long as no larger one is freed: glibc
/// takes that as a hint to put the next ones on its heap, which only shrinks from its end.
pub const MAPPING_BYTES: usize = 128 * 1024;

/// Frees what a list has, which may be large, without teaching the allocator to keep such
/// pieces: it is made small first, where it lies.
pub fn free<T>(mut list: Vec<T>) {
    list.clear();
    list.shrink_to(1);
}

/// Makes a list that is a quarter full or less as small as twice what is in it; a list that
/// takes no more than `kept` entries is left alone.
///
/// A small one moves to a new place: where it lies, it may be the last on the heap, and then
/// all that was freed before it could not be given back.
pub fn shrink_sparse<T>(list: &mut Vec<T>, kept: usize) {
    if list.capacity() <= kept || list.len() * 4 > list.capacity() {
        return;
    }
    if list.is_empty() {
        free(std::mem::take(list));
    } else if list.capacity() * size_of::<T>() > MAPPING_BYTES {
        list.shrink_to(list.len() * 2);
    } else {
        let mut smaller = Vec::with_capacity(list.len() * 2);
        smaller.append(list);
        *list = smaller;
    }
}

/// The same for a queue.
pub fn shrink_sparse_queue<T>(queue: &mut VecDeque<T>, kept: usize) {
    if queue.capacity() > kept && queue.len() * 4 <= queue.capacity() {
        let mut smaller = VecDeque::with_capacity(queue.len() * 2);
        smaller.append(queue);
        *queue = smaller;
    }
}

/// Gives the free pages in the midst of the heap back to the system: by itself, glibc only cuts
/// the heap off behind the last piece that is in use. Takes up to a millisecond for the heap of
/// ten thousand connections. Other allocators do it as they see fit.
pub fn trim_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: it may be called at any time, from any thread, and changes nothing in use.
        #[expect(
            unsafe_code,
            reason = "20 crowds of 10,000 connections leave 1.2 MiB without it"
        )]
        unsafe {
            libc::malloc_trim(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sparse_gets_small_and_the_rest_stays() {
        let mut list: Vec<u32> = (0..1000).collect();
        shrink_sparse(&mut list, 0);
        assert!(list.capacity() >= 1000);
        list.truncate(100);
        shrink_sparse(&mut list, 0);
        assert_eq!((list.len(), list.capacity()), (100, 200));
        list.clear();
        shrink_sparse(&mut list, 300);
        assert_eq!(list.capacity(), 200);
        shrink_sparse(&mut list, 64);
        assert_eq!(list.capacity(), 0);

        let mut queue: VecDeque<u32> = (0..1000).collect();
        queue.truncate(3);
        shrink_sparse_queue(&mut queue, 64);
        assert!(queue.capacity() < 64 && queue.iter().eq(&[0, 1, 2]));
    }
}
