//! What the Redis of a cluster has taken, on all branches that its stream has ever had: each entry, what was ahead of
//! it, and what it says.
//!
//! Main type: [`Truth`]. Records count from 0 in the order in which they were taken, so one lies behind all that it
//! follows on its branch.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::rc::Rc;

use crieur::redis::WholeId;
use crieur::redis::simulated::{EPOCH_MILLIS, SimulatedRedis, Taken};

use crate::dice::Dice;
use crate::texts::Publication;

/// What an entry says.
#[derive(Clone, Debug)]
pub(super) enum What {
    Barrier,
    Invalid,
    Said(Rc<Publication>),
}

/// An entry that was taken.
#[derive(Debug)]
pub(super) struct Record {
    /// As clients are told it.
    pub(super) id: Rc<str>,
    /// Its id in Redis.
    pub(super) place: (u64, u64),
    pub(super) ahead: Option<usize>,
    pub(super) what: What,
    /// When it was taken, or earlier.
    pub(super) at: u64,
}

impl Record {
    /// What a history keeps of it.
    pub(super) fn kept(&self) -> Option<&Publication> {
        match &self.what {
            What::Said(publication) if publication.is_kept => Some(publication),
            _ => None,
        }
    }

    /// Whether a position may be called by its id.
    pub(super) fn names_position(&self) -> bool {
        matches!(self.what, What::Barrier) || self.kept().is_some()
    }
}

/// That a client gets what follows a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Promise {
    pub(super) record: usize,
    /// Which entry was the newest of Redis, and how many there were, when the client asked its API what there is. Unless it
    /// resumes.
    pub(super) now: Option<(Option<usize>, usize)>,
}

pub(super) struct Truth {
    pub(super) redis: SimulatedRedis,
    records: Vec<Record>,
    wholes: HashMap<WholeId, usize>,
    ids: HashMap<Rc<str>, usize>,
    /// What was ever to be published, by its number.
    publications: HashMap<u64, Rc<Publication>>,
    next_number: u64,
    taken: HashMap<u64, usize>,
    /// What a publisher was told that it wasn't published.
    refused: HashSet<u64>,
    /// Of what was to be published together.
    batches: Vec<Vec<u64>>,
    /// What any node has ever read.
    read: BTreeSet<usize>,
    /// Its clock isn't that of the nodes, or wasn't some time.
    pub(super) has_moved: bool,
}

fn field<'a>(taken: &'a Taken, name: &[u8]) -> Option<&'a [u8]> {
    let field = taken.fields.iter().find(|(field, _)| field == name);
    field.map(|(_, value)| value.as_slice())
}

/// The number that a notification has in its text.
fn number(json: &str) -> Option<u64> {
    let (_, rest) = json.split_once(r#""message":{"id":""#)?;
    rest.split_once('"')?.0.parse().ok()
}

impl Truth {
    pub(super) fn new(redis: SimulatedRedis) -> Self {
        Self {
            redis,
            records: Vec::new(),
            wholes: HashMap::new(),
            ids: HashMap::new(),
            publications: HashMap::new(),
            next_number: 1,
            taken: HashMap::new(),
            refused: HashSet::new(),
            batches: Vec::new(),
            read: BTreeSet::new(),
            has_moved: false,
        }
    }

    /// The number of a notification that is going to be made.
    pub(super) const fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number - 1
    }

    /// Somebody is going to publish this.
    pub(super) fn announce(&mut self, publication: &Publication) {
        let number = publication.number;
        let before = self
            .publications
            .insert(number, Rc::new(publication.clone()));
        assert!(before.is_none());
    }

    /// These together.
    pub(super) fn announce_batch(&mut self, publications: &[Publication]) {
        publications.iter().for_each(|one| self.announce(one));
        let numbers = publications.iter().map(|one| one.number);
        self.batches.push(numbers.collect());
    }

    /// Looks at what was taken since.
    pub(super) fn update(&mut self, now: u64) {
        for taken in self.redis.log_behind(self.records.len()) {
            let at = self.records.len();
            let what = self.what(&taken);
            if let What::Said(publication) = &what {
                let before = self.taken.insert(publication.number, at);
                assert_eq!(before, None, "it is appended once: {publication:?}");
            }
            let WholeId {
                millis,
                sequence,
                tag,
            } = taken.id;
            let id: Rc<str> = format!("{millis}-{sequence}-{tag:016x}").into();
            assert_eq!(
                self.wholes.insert(taken.id, at),
                None,
                "{id} is given twice"
            );
            self.ids.insert(Rc::clone(&id), at);
            self.records.push(Record {
                id,
                place: (millis, sequence),
                ahead: taken.ahead,
                what,
                // It may be older than this look: by its own word, if no clock was set.
                at: now.min(millis.saturating_sub(EPOCH_MILLIS) * 1000),
            });
        }
    }

    fn what(&self, taken: &Taken) -> What {
        let Some(json) = field(taken, b"n") else {
            let is_barrier = field(taken, b"b").is_some();
            return if is_barrier {
                What::Barrier
            } else {
                What::Invalid
            };
        };
        let number = std::str::from_utf8(json).ok().and_then(number);
        let Some(publication) = number.map(|number| &self.publications[&number]) else {
            return What::Invalid;
        };
        let key = field(taken, b"k").map(|key| std::str::from_utf8(key).expect("a key"));
        assert_eq!(key, publication.key, "{publication:?}");
        What::Said(Rc::clone(publication))
    }

    pub(super) fn record(&self, at: usize) -> &Record {
        &self.records[at]
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    pub(super) fn find(&self, id: WholeId) -> usize {
        self.wholes[&id]
    }

    /// What has the id that a client shows.
    pub(super) fn named(&self, id: &str) -> Option<usize> {
        self.ids.get(id).copied()
    }

    /// Where a notification was taken.
    pub(super) fn taken(&self, publication: &Publication) -> Option<usize> {
        self.taken.get(&publication.number).copied()
    }

    /// A publisher was told that this wasn't published.
    pub(super) fn refuse(&mut self, publication: &Publication) {
        self.refused.insert(publication.number);
    }

    pub(super) fn note_read(&mut self, at: usize) {
        self.read.insert(at);
    }

    /// Whether one follows the other on a branch, or is it.
    pub(super) fn follows(&self, behind: usize, ahead: usize) -> bool {
        let mut at = Some(behind);
        while let Some(place) = at.filter(|place| *place > ahead) {
            at = self.records[place].ahead;
        }
        at == Some(ahead)
    }

    /// What a client may rely on that is given a record now, as the newest.
    pub(super) fn promise(&self, record: usize) -> Promise {
        let now = Some((self.redis.tip(), self.len()));
        Promise { record, now }
    }

    /// Whether a client is to have got an entry that some node has read, or be told.
    pub(super) fn is_promised(&self, entry: usize, promise: Promise) -> bool {
        let Promise { record, now } = promise;
        let was_lost = now.is_some_and(|(tip, len)| {
            entry < len && tip.is_none_or(|tip| !self.follows(tip, entry))
        });
        entry != record && self.follows(entry, record) && !was_lost
    }

    /// What some node has read, and Redis has lost.
    pub(super) fn lost(&self) -> Vec<usize> {
        let tip = self.redis.tip();
        let is_lost = |at: &&usize| tip.is_none_or(|tip| !self.follows(tip, **at));
        self.read.iter().filter(is_lost).copied().collect()
    }

    /// What was refused is nowhere, and what was published together is together.
    pub(super) fn check(&self) {
        for number in &self.refused {
            let publication = &self.publications[number];
            let is_taken = self.taken.contains_key(number);
            assert!(!is_taken, "refused, and taken: {publication:?}");
        }
        for batch in &self.batches {
            let places = batch.iter().filter_map(|number| self.taken.get(number));
            let places: Vec<_> = places.copied().collect();
            let are_together = places.windows(2).all(|two| two[0] + 1 == two[1]);
            assert!(are_together, "{places:?} of {batch:?}");
            let is_whole = |number: &u64| {
                // What is repeated isn't taken.
                self.taken.contains_key(number) || self.publications[number].key.is_some()
            };
            assert!(places.is_empty() || batch.iter().all(is_whole), "{batch:?}");
        }
    }

    /// An id that some entry has, most likely a new one.
    pub(super) fn any_id(&self, dice: &mut Dice) -> Rc<str> {
        if self.records.is_empty() {
            return "".into();
        }
        let from = if dice.chance(70) {
            self.records.len().saturating_sub(8)
        } else {
            0
        };
        Rc::clone(&self.records[dice.between(from, self.records.len() - 1)].id)
    }

    /// What looks like an id, or doesn't, and none has.
    pub(super) fn invented_id(&self, dice: &mut Dice) -> Rc<str> {
        let newest = self.records.last().map_or((5, 0), |record| record.place);
        let (millis, sequence) = newest;
        let tag = dice.next_u64();
        match dice.below(6) {
            0 => format!("{millis}-{sequence}-{tag:016x}"),
            1 => format!("{}-0-{tag:016x}", millis + 100_000_000),
            2 => format!("{}-{sequence}-{tag:016x}", millis.saturating_sub(200)),
            3 => format!("{tag:016x}-{sequence}"),
            4 => format!("{millis}-{sequence}"),
            _ => "0-0-0000000000000000".to_owned(),
        }
        .into()
    }
}
