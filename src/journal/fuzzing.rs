//! The bodies of the fuzz targets of ids and of the history on disk: each takes any bytes, and panics if a promise is
//! broken.
//!
//! They run on a small corpus as tests too, so that what a fuzzer once found stays found.

use super::id::{EntryId, Generation, ID_BYTES_MAX, Position};
use super::record::{Chain, POSITION_MAX, StoredEntry, seal};
use super::segments::{Restored, Segments};
use super::simulated::SimulatedDisk;
use super::storage::Side;
use super::write_ahead::WriteAhead;
use crate::handover::{Fields, Members};

/// Reads `bytes` as what a client shows: what is an id has this one text.
pub fn fuzz_id(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(id) = text.parse::<EntryId>() {
        assert_eq!(id.to_string(), text);
        assert!(text.len() <= ID_BYTES_MAX);
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
        assert!(text.bytes().all(is_allowed));
    }
}

/// Files as they may be found: what a start takes over is the same at the next start, and it can be gone on from, by
/// another program in the same process too.
///
/// The first three bytes say how long the first segment and the mark are, and whether the checks of the records are to
/// be put in: a fuzzer would hardly find them.
pub fn fuzz_segments(bytes: &[u8]) {
    let Some(([low, high, control], bytes)) = bytes.split_first_chunk() else {
        return;
    };
    let first_len = usize::from(u16::from_le_bytes([*low, *high]));
    let (first, rest) = bytes.split_at(first_len.min(bytes.len()));
    let mark_len = usize::from(control & 3) * 8;
    let (second, mark) = rest.split_at(rest.len().saturating_sub(mark_len));
    let disk = SimulatedDisk::default();
    for (side, bytes) in Side::ALL.into_iter().zip([first, second]) {
        let mut bytes = bytes.to_vec();
        if control & 0x80 != 0 {
            seal_whole(&mut bytes);
        }
        *disk.segment(side) = bytes;
    }
    *disk.mark() = (!mark.is_empty()).then(|| mark.to_vec());

    let (process, restored) = start(&disk, 1);
    let texts = texts(&restored);
    let end = Position(restored.first.0 + texts.len() as u64);
    check_generations(&restored, end);
    if end >= POSITION_MAX {
        return;
    }
    drop(process);
    let (process, again) = start(&disk, 2);
    let process = carry(&disk, process);
    assert_eq!(self::texts(&again), texts);
    assert_eq!(again.first, restored.first);
    let entry = StoredEntry {
        unix_micros: 1,
        key: None,
        kind: "\"notification\"",
        notification: "new",
    };
    process.append(end.next(), std::iter::once(entry));
    process.commit();
    drop(process);
    let (_, with_new) = start(&disk, 3);
    assert_eq!(with_new.entries.iter().last(), Some(entry));
    check_generations(&with_new, end.next());
}

/// The generations are in the order of their positions, and the last is at the end.
fn check_generations(restored: &Restored, end: Position) {
    let generations = &restored.generations;
    assert!(generations.is_sorted_by_key(|(_, position)| *position));
    assert_eq!(generations.last().map(|(_, position)| *position), Some(end));
}

fn start(disk: &SimulatedDisk, generation: u64) -> (WriteAhead, Restored) {
    let (storage, boot) = disk.start();
    let opened = Segments::open(storage, 1 << 20, Some(boot), Generation(generation));
    let (segments, restored) = opened.expect("nothing fails");
    (WriteAhead::new(segments), restored)
}

fn carry(disk: &SimulatedDisk, process: WriteAhead) -> WriteAhead {
    let save = |process: &WriteAhead| {
        let mut saved = Vec::new();
        process.save(&mut Members::new(&mut saved));
        saved
    };
    let saved = save(&process);
    let fields = Fields::parse(&saved).expect("members");
    let Ok(carried) = WriteAhead::carried(&fields, 1 << 20, |_| Ok(disk.again())) else {
        // It has an ordinal that no server gets to.
        return process;
    };
    assert!(!carried.is_failed() && save(&carried) == saved);
    carried
}

fn texts(restored: &Restored) -> Vec<String> {
    let entries = restored.entries.iter();
    entries.map(|entry| format!("{entry:?}")).collect()
}

/// Puts the checks into as much of `bytes` as is whole records, by the lengths.
fn seal_whole(bytes: &mut [u8]) {
    let mut whole = 0;
    while let Some(length) = bytes[whole..].first_chunk() {
        let next = whole + 12 + u32::from_le_bytes(*length) as usize;
        if next > bytes.len() {
            break;
        }
        whole = next;
    }
    seal(&mut bytes[..whole], Chain::FIRST);
}

#[cfg(test)]
mod tests {
    use crate::run_corpus;

    use super::*;

    #[test]
    fn the_corpus_of_ids_passes() {
        run_corpus("id", fuzz_id);
    }

    #[test]
    fn the_corpus_of_segments_passes() {
        run_corpus("segments", fuzz_segments);
    }
}
