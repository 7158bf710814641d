//! The checker finds what it is there for.

use super::*;
use crate::message::Topic;

const MEMBERS: usize = 3;

/// Two groups of three, one publisher of order, and the frames of notifications sent so far.
struct Scene {
    checker: Checker,
    frames: Vec<Vec<u8>>,
    /// The same with ids.
    numbered: Vec<Vec<u8>>,
}

/// The id of a notification.
fn id(sequence: usize) -> Id {
    Id::parse(format!("00ff-{}", sequence + 7).as_bytes()).expect("an id")
}

impl Scene {
    fn new() -> Self {
        let layout = Layout::new(Topic::Channel, 200).expect("long enough");
        Self {
            checker: Checker::new(layout, &[MEMBERS, MEMBERS], 1),
            frames: Vec::new(),
            numbered: Vec::new(),
        }
    }

    /// With `count` notifications to the first group under way.
    fn with(count: usize) -> Self {
        let mut scene = Self::new();
        (0..count).for_each(|_| scene.send(0, Some(0)));
        scene
    }

    fn send(&mut self, group: usize, publisher: Option<usize>) {
        let slot = self.checker.send(group, group as u32, publisher, 100);
        let notification = self.checker.notification(slot);
        let [mut frame, mut numbered] = [Vec::new(), Vec::new()];
        message::push_delivery_frame(notification, &mut frame);
        let id = id(self.frames.len());
        push_numbered_frame(&id, notification, &mut numbered);
        self.frames.push(frame);
        self.numbered.push(numbered);
    }

    /// Brings a numbered member one notification with an id.
    fn bring_numbered(&mut self, member: usize, sequence: usize) -> Result<u64, Fault> {
        let frame = self.numbered[sequence].clone();
        self.checker
            .receive(member, &frame, 300)
            .map(|progress| progress.deliveries)
    }

    /// Brings a member notifications; all of it must be consumed.
    fn bring(&mut self, member: usize, sequences: &[usize]) -> Result<u64, Fault> {
        let frames: Vec<u8> = sequences
            .iter()
            .flat_map(|&one| self.frames[one].clone())
            .collect();
        let progress = self.checker.receive(member, &frames, 300)?;
        assert_eq!(progress.consumed, frames.len());
        Ok(progress.deliveries)
    }
}

#[test]
fn exactly_once_in_order_is_what_is_wanted() {
    let mut scene = Scene::with(3);
    assert_eq!(scene.bring(1, &[0, 1]), Ok(2));
    assert_eq!(scene.bring(0, &[0, 1, 2]), Ok(3));
    assert_eq!(scene.bring(1, &[2]), Ok(1));
    assert!(matches!(
        scene.checker.lost(),
        Some(Fault::Lost {
            member: 2,
            sequence: 0,
            missing: 1
        })
    ));
    assert_eq!(scene.bring(2, &[0, 1, 2]), Ok(3));
    assert_eq!((scene.checker.lost(), scene.checker.in_flight()), (None, 3));
    (0..3).for_each(|slot| assert_eq!(scene.checker.answered(slot, None), Ok(())));
    assert_eq!(scene.checker.in_flight(), 0);
    assert_eq!(scene.checker.latencies().max(), 200);
    // Slots are used again.
    scene.send(1, Some(0));
    assert_eq!(scene.bring(4, &[3]), Ok(1));
    assert_eq!(scene.checker.in_flight(), 1);
}

#[test]
fn a_stream_is_understood_at_every_split_point() {
    let whole: Vec<u8> = Scene::with(3).frames.concat();
    for split in 0..=whole.len() {
        let mut scene = Scene::with(3);
        let first = scene
            .checker
            .receive(0, &whole[..split], 0)
            .expect("intact");
        let second = scene
            .checker
            .receive(0, &whole[first.consumed..], 0)
            .expect("intact");
        assert_eq!(first.consumed + second.consumed, whole.len());
        assert_eq!(first.deliveries + second.deliveries, 3);
    }
}

#[test]
fn a_doubled_delivery_is_found() {
    let doubled = |member, sequence| Err(Fault::Doubled { member, sequence });
    // Before anybody else has it, after all have it, and once it is forgotten.
    let mut scene = Scene::with(2);
    assert_eq!(scene.bring(0, &[0, 0]), doubled(0, 0));
    let mut scene = Scene::with(2);
    scene.bring(1, &[0, 1]).expect("right");
    assert_eq!(scene.bring(0, &[0, 0]), doubled(0, 0));
    let mut scene = Scene::with(2);
    (0..MEMBERS).for_each(|member| assert_eq!(scene.bring(member, &[0]), Ok(1)));
    scene.bring(1, &[1]).expect("right");
    assert_eq!(scene.bring(0, &[0]), doubled(0, 0));
    assert_eq!(scene.checker.answered(0, None), Ok(()));
    assert_eq!(scene.bring(2, &[0]), doubled(2, 0));
}

#[test]
fn a_lost_delivery_is_found() {
    let mut scene = Scene::with(3);
    scene.bring(0, &[0, 1, 2]).expect("right");
    let fault = Fault::OutOfOrder {
        member: 1,
        sequence: 2,
        expected: 1,
    };
    assert_eq!(scene.bring(1, &[0, 2]), Err(fault));
    // The last one of all is missed at the end.
    let mut scene = Scene::with(1);
    scene.bring(0, &[0]).expect("right");
    scene.bring(2, &[0]).expect("right");
    let fault = Fault::Lost {
        member: 1,
        sequence: 0,
        missing: 1,
    };
    assert_eq!(scene.checker.lost(), Some(fault));
    // One that reached nobody, too.
    let fault = Fault::Lost {
        member: 0,
        sequence: 0,
        missing: 3,
    };
    assert_eq!(Scene::with(2).checker.lost(), Some(fault));
}

#[test]
fn a_reordered_delivery_is_found() {
    let mut scene = Scene::with(3);
    let fault = Fault::Overtaken {
        member: 0,
        sequence: 0,
    };
    assert_eq!(scene.bring(0, &[1, 0]), Err(fault));
    // Without an order of its publisher, the order of the others counts.
    let mut scene = Scene::new();
    (0..3).for_each(|_| scene.send(0, None));
    assert_eq!(scene.bring(0, &[2, 0, 1]), Ok(3));
    assert_eq!(scene.bring(1, &[2, 0, 1]), Ok(3));
    let fault = Fault::OutOfOrder {
        member: 2,
        sequence: 0,
        expected: 2,
    };
    assert_eq!(scene.bring(2, &[0]), Err(fault));
}

#[test]
fn a_damaged_delivery_is_found_wherever_the_damage_is() {
    for others_have_it in [false, true] {
        for offset in 0..Scene::with(1).frames[0].len() {
            let mut scene = Scene::with(1);
            if others_have_it {
                scene.bring(1, &[0]).expect("right");
            }
            scene.frames[0][offset] ^= 1;
            // A damaged length is waited for: it is lost in the end.
            let frame = scene.frames[0].clone();
            let result = scene.checker.receive(0, &frame, 0);
            let is_found = result.is_err() || scene.checker.lost().is_some();
            assert!(is_found, "byte {offset}");
            if offset >= 4 + 60 {
                let is_exact =
                    matches!(result, Err(Fault::Damaged { offset: at, .. }) if at == offset);
                assert!(is_exact || result.is_err(), "byte {offset}: {result:?}");
            }
        }
    }
}

#[test]
fn a_delivery_to_the_wrong_group_is_found() {
    let mut scene = Scene::with(1);
    let fault = Fault::Misdirected {
        member: MEMBERS,
        sequence: 0,
    };
    assert_eq!(scene.bring(MEMBERS, &[0]), Err(fault));
}

#[test]
fn pings_are_counted_and_a_close_is_a_fault() {
    let mut scene = Scene::with(1);
    let mut bytes = vec![0x89, 0, 0x8a, 0];
    bytes.extend_from_slice(&scene.frames[0]);
    let progress = scene.checker.receive(0, &bytes, 0).expect("right");
    assert_eq!((progress.pings, progress.deliveries), (1, 1));
    let mut close = Vec::new();
    frame::push_server_frame(CLOSE, &[&1013_u16.to_be_bytes(), b"{}"], &mut close);
    let fault = Fault::Unexpected {
        member: 0,
        what: "a Close 1013 {}".to_owned(),
    };
    assert_eq!(scene.checker.receive(0, &close, 0), Err(fault));
}

#[test]
fn numbered_members_and_others_get_the_same_in_frames_of_their_own() {
    let mut scene = Scene::with(2);
    scene.checker.number(1);
    scene.checker.number(2);
    assert_eq!(scene.bring(0, &[0, 1]), Ok(2));
    assert_eq!(scene.bring_numbered(1, 0), Ok(1));
    assert_eq!(scene.checker.answered(0, Some(id(0))), Ok(()));
    // A receipt that comes first settles the id as well.
    assert_eq!(scene.checker.answered(1, Some(id(1))), Ok(()));
    assert_eq!(scene.bring_numbered(1, 1), Ok(1));
    assert_eq!(scene.bring_numbered(2, 0), Ok(1));
    assert_eq!(scene.bring_numbered(2, 1), Ok(1));
    assert_eq!((scene.checker.lost(), scene.checker.in_flight()), (None, 0));
}

#[test]
fn faults_of_numbered_deliveries_are_found() {
    let numbered = |count| {
        let mut scene = Scene::with(count);
        (0..MEMBERS).for_each(|member| scene.checker.number(member));
        scene
    };
    let mut scene = numbered(3);
    assert_eq!(scene.bring_numbered(0, 0), Ok(1));
    let doubled = Fault::Doubled {
        member: 0,
        sequence: 0,
    };
    assert_eq!(scene.bring_numbered(0, 0), Err(doubled));
    assert_eq!(scene.bring_numbered(0, 1), Ok(1));
    let lost = Fault::OutOfOrder {
        member: 1,
        sequence: 1,
        expected: 0,
    };
    assert_eq!(scene.bring_numbered(1, 1), Err(lost));
    // A frame without an id is none of a numbered member's, and the other way round.
    let mut scene = numbered(1);
    assert!(matches!(
        scene.bring(0, &[0]),
        Err(Fault::Unexpected { member: 0, .. })
    ));
    let mut scene = Scene::with(1);
    assert!(scene.bring_numbered(0, 0).is_err());
    for offset in 0..numbered(1).numbered[0].len() {
        let mut scene = numbered(1);
        assert_eq!(scene.bring_numbered(1, 0), Ok(1));
        scene.numbered[0][offset] ^= 1;
        let is_found = scene.bring_numbered(0, 0).is_err() || scene.checker.lost().is_some();
        assert!(is_found, "byte {offset}");
    }
}

#[test]
fn ids_that_are_not_one_notifications_alone_are_found() {
    // Another member, or the receipt, has another id.
    let mut scene = Scene::with(2);
    (0..MEMBERS).for_each(|member| scene.checker.number(member));
    assert_eq!(scene.bring_numbered(0, 0), Ok(1));
    let different = |told| Fault::DifferentId {
        sequence: 0,
        settled: id(0),
        told,
    };
    assert_eq!(
        scene.checker.answered(0, Some(id(9))),
        Err(different(Some(id(9))))
    );
    assert_eq!(scene.checker.answered(0, None), Err(different(None)));
    assert_eq!(scene.checker.answered(0, Some(id(0))), Ok(()));
    // Two notifications have one id, by receipt or by delivery.
    let repeated = Fault::RepeatedId {
        sequence: 1,
        id: id(0),
    };
    assert_eq!(scene.checker.answered(1, Some(id(0))), Err(repeated));
    scene.numbered[1].clear();
    let notification = scene.checker.notification(1).to_vec();
    push_numbered_frame(&id(0), &notification, &mut scene.numbered[1]);
    let repeated = Fault::RepeatedId {
        sequence: 1,
        id: id(0),
    };
    assert_eq!(scene.bring_numbered(0, 1), Err(repeated));
}

#[test]
fn ids_of_a_stream_ascend() {
    let of_stream = |place: &str| {
        let text = format!("1795702284393-{place}-0123456789abcdef");
        Id::parse(text.as_bytes()).expect("an id")
    };
    let mut scene = Scene::with(4);
    scene.checker.expect_stream();
    (0..MEMBERS).for_each(|member| scene.checker.number(member));
    let own = scene.bring_numbered(0, 0);
    assert!(matches!(own, Err(Fault::OwnId { sequence: 0, .. })));
    let mut bring = |member, slot: usize, place: &str| {
        let mut frame = Vec::new();
        let notification = scene.checker.notification(slot);
        push_numbered_frame(&of_stream(place), notification, &mut frame);
        let received = scene.checker.receive(member, &frame, 300);
        received.map(|progress| progress.deliveries)
    };
    assert_eq!(bring(0, 0, "9"), Ok(1));
    assert_eq!(bring(0, 1, "10"), Ok(1));
    // The same order for all, as before.
    assert_eq!(bring(1, 0, "9"), Ok(1));
    let expected = Fault::Descending {
        member: 0,
        sequence: 2,
        id: of_stream("8"),
    };
    assert_eq!(bring(0, 2, "8"), Err(expected));
    assert_eq!(bring(0, 3, "11"), Ok(1));
}
