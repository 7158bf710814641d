//! What is wrong with a resume is found, wherever it is.

use super::*;
use crate::message::Topic;

const SINCE: &[u8] = b"00ff-7";
const CHANNEL: usize = 1;

fn id(number: usize) -> Id {
    Id::parse(format!("00ff-{}", number + 8).as_bytes()).expect("an id")
}

/// Six entries, of which three are for each of two channels.
fn backlog() -> Backlog {
    let layout = Layout::new(Topic::Channel, 200).expect("long enough");
    let mut backlog = Backlog::new(layout, 6, 3).expect("it divides");
    for number in 0..6 {
        backlog.published(Some(id(number))).expect("new");
    }
    backlog
}

fn text(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::push_server_frame(TEXT, &[payload], &mut out);
    out
}

fn answer() -> Vec<u8> {
    text(
        b"{\"type\":\"subscribed\",\"subscriptions\":1,\"heartbeat\":25,\"id\":\"00ff-7\",\"resumed\":true}",
    )
}

fn caught_up(missed: usize) -> Vec<u8> {
    let payload = format!("{{\"type\":\"caught-up\",\"id\":\"00ff-13\",\"missed\":{missed}}}");
    text(payload.as_bytes())
}

/// The answer, the entries of these numbers, and `caught-up`.
fn replay(backlog: &Backlog, numbers: &[usize]) -> Vec<u8> {
    let mut out = answer();
    for &number in numbers {
        out.extend_from_slice(&backlog.frames[number]);
    }
    out.extend_from_slice(&caught_up(3));
    out
}

fn receive(backlog: &Backlog, bytes: &[u8]) -> Result<(Resume, Progress), Fault> {
    let mut resume = Resume::new(CHANNEL, Id::parse(SINCE).expect("an id"));
    let progress = resume.receive(backlog, 9, bytes)?;
    Ok((resume, progress))
}

#[test]
fn what_was_missed_is_understood_at_every_split_point() {
    let backlog = backlog();
    let mut whole = replay(&backlog, &[1, 3, 5]);
    let end = whole.len();
    // What comes behind is for the checker.
    whole.extend_from_slice(&backlog.frames[0]);
    for split in 0..=whole.len() {
        let (mut resume, first) = receive(&backlog, &whole[..split]).expect("right");
        let second = resume
            .receive(&backlog, 9, &whole[first.consumed..])
            .expect("right");
        assert!(resume.is_caught_up());
        assert_eq!(first.consumed + second.consumed, end);
        assert_eq!(first.deliveries + second.deliveries, 3);
    }
}

#[test]
fn holes_repetitions_and_strangers_are_found() {
    let backlog = backlog();
    let out_of_order = |sequence, expected| Fault::OutOfOrder {
        member: 9,
        sequence,
        expected,
    };
    let skipped = |sequence, missing| Fault::Skipped {
        member: 9,
        sequence,
        missing,
    };
    let doubled = |sequence| Fault::Doubled {
        member: 9,
        sequence,
    };
    let misdirected = |sequence| Fault::Misdirected {
        member: 9,
        sequence,
    };
    for (numbers, fault) in [
        (&[3, 5][..], out_of_order(3, 1)),
        (&[1, 5], out_of_order(5, 3)),
        (&[1, 3], skipped(5, 1)),
        (&[], skipped(1, 3)),
        (&[1, 1, 3, 5], doubled(1)),
        (&[1, 3, 5, 5], doubled(5)),
        (&[1, 3, 1, 5], doubled(1)),
        (&[1, 2, 3, 5], misdirected(2)),
        (&[1, 3, 5, 4], misdirected(4)),
    ] {
        let bytes = replay(&backlog, numbers);
        assert_eq!(
            receive(&backlog, &bytes).map(drop),
            Err(fault),
            "{numbers:?}"
        );
    }
}

#[test]
fn damage_is_found_at_every_byte() {
    let backlog = backlog();
    let whole = replay(&backlog, &[1, 3, 5]);
    // How long the heartbeat is, the member's order and the position that caught-up tells are
    // the server's.
    let hits_start = answer().len();
    let hits_end = whole.len() - caught_up(3).len();
    for offset in hits_start..hits_end {
        let mut bytes = whole.clone();
        bytes[offset] ^= 1;
        let is_found = receive(&backlog, &bytes).map_or(true, |(resume, _)| !resume.is_caught_up());
        assert!(is_found, "byte {offset}");
    }
}

#[test]
fn wrong_answers_and_counts_are_found() {
    let backlog = backlog();
    for wrong in [
        "{\"type\":\"subscribed\",\"subscriptions\":1,\"id\":\"00ff-7\",\"resumed\":false,\"reason\":\"expired\"}",
        "{\"type\":\"subscribed\",\"subscriptions\":1,\"id\":\"00ff-8\",\"resumed\":true}",
        "{\"type\":\"subscribed\",\"subscriptions\":2,\"id\":\"00ff-7\",\"resumed\":true}",
        "{\"type\":\"subscribed\",\"subscriptions\":1}",
        "{\"type\":\"error\"}",
    ] {
        let result = receive(&backlog, &text(wrong.as_bytes())).map(drop);
        assert!(matches!(result, Err(Fault::Unexpected { .. })), "{wrong}");
    }
    let mut bytes = replay(&backlog, &[1, 3, 5]);
    bytes.truncate(bytes.len() - caught_up(3).len());
    for behind in [
        caught_up(4),
        text(b"{\"type\":\"caught-up\",\"missed\":3}"),
        text(b"{\"type\":\"pong\"}"),
        vec![0x88, 0],
    ] {
        let bytes = [&bytes[..], &behind].concat();
        assert!(receive(&backlog, &bytes).is_err());
    }
    // A live notification must wait for caught-up.
    let mut notification = Vec::new();
    backlog.layout.push_notification(6, 2, &mut notification);
    push_numbered_frame(&id(6), &notification, &mut bytes);
    assert!(receive(&backlog, &bytes).is_err());
}

#[test]
fn entries_have_ids_of_their_own() {
    let layout = Layout::new(Topic::Channel, 200).expect("long enough");
    let mut backlog = Backlog::new(layout, 4, 2).expect("it divides");
    assert!(backlog.published(None).is_err());
    assert_eq!(backlog.published(Some(id(0))), Ok(()));
    assert!(backlog.published(Some(id(0))).is_err());
    let layout = Layout::new(Topic::Channel, 200).expect("long enough");
    assert!(Backlog::new(layout, 4, 3).is_err());
}
