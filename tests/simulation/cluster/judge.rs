//! What must come of what a node has read of the stream, for each of its peers.
//!
//! A node reads one entry after the other ([`Reading`]): each has to be the one behind the last on its branch, unless the
//! node has said that something may be gone. Everything that a peer is told follows from that order, from what it has
//! said, and from when it was told that it is caught up. Both are known by the tape of the node.

use std::rc::Rc;

use crieur::application::Response;
use crieur::hub::filter::Subscription;
use crieur::id::ConnectionId;

use crate::client::{Counts, Receipt, Said};
use crate::tape::{Act, Work};
use crate::texts::Publication;

use super::Tally;
use super::node::Node;
use super::peer::{Kind, Peer, Question, Stage};
use super::reading::{Read, Reading};
use super::truth::{Promise, Truth, What};

const GAP: &str = r#"{"type":"gap""#;

/// How many peers a node tells of a doubt at once.
const TOLD_AT_ONCE: usize = 256;

/// What is known where a node is judged.
pub(super) struct Court<'a> {
    pub(super) truth: &'a mut Truth,
    pub(super) tally: &'a mut Tally,
    /// Whether anything has happened that is a reason for doubts.
    pub(super) may_doubt: bool,
    pub(super) now: u64,
}

fn find(peers: &mut [Peer], id: ConnectionId) -> &mut Peer {
    let peer = peers.iter_mut().find(|peer| peer.id == id);
    peer.unwrap_or_else(|| panic!("{id} is nobody"))
}

impl Node {
    /// Follows what has happened since it was followed last.
    pub(super) fn follow(&mut self, court: &mut Court<'_>) {
        court.truth.update(court.now);
        for act in self.tape.take() {
            let is_call = !matches!(
                act,
                Act::Replied(..) | Act::Delivered(..) | Act::Closed(..) | Act::Responded(..)
            );
            if is_call {
                self.end_call(court.truth);
            }
            self.follow_act(act, court);
        }
        self.end_call(court.truth);
        self.check_turn(court);
    }

    fn follow_act(&mut self, act: Act, court: &mut Court<'_>) {
        let peers = &mut self.peers;
        match act {
            Act::LetIn(id) => find(peers, id).stage = Stage::Open,
            Act::Heard(id, payload) => find(peers, id).hear(&payload, court.now),
            Act::Posted(id, body) => find(peers, id).hear(&body, court.now),
            Act::Worked(work) => self.follow_work(work, court),
            Act::Drained => {}
            Act::Gone(id) => {
                let peer = find(peers, id);
                assert!(peer.may_go(), "{id} is gone for nothing");
                peer.stage = Stage::Gone;
            }
            Act::Replied(id, text) => {
                let peer = find(peers, id);
                peer.tell(&text);
                self.reading.gaps += u64::from(text.starts_with(GAP));
                if !peer.has_hung_up() {
                    self.follow_reply(id, &text, court);
                }
            }
            Act::Delivered(text, ids, queued) => self.follow_delivery(&text, &ids, queued, court),
            Act::Closed(id, code, reason) => {
                let peer = find(peers, id);
                peer.close(code, &reason);
                if !peer.has_hung_up() {
                    peer.follow_close(code, &reason, &self.reading, court);
                }
            }
            Act::Responded(id, response) => {
                // Nobody takes note of a connection's end that was about a request.
                if let Some(peer) = peers.iter_mut().find(|peer| peer.id == id) {
                    if !peer.has_hung_up() {
                        peer.follow_response(&response, &self.reading, court);
                    }
                    peer.respond(response);
                }
            }
        }
    }

    fn follow_delivery(
        &mut self,
        text: &Rc<str>,
        ids: &[ConnectionId],
        queued: usize,
        court: &mut Court<'_>,
    ) {
        let mut peers = self.peers.iter().filter(|peer| ids.contains(&peer.id));
        let mut present = peers.clone().filter(|peer| !peer.has_hung_up());
        let is_live = present.clone().any(Peer::is_live);
        // Whether one that has hung up is being caught up isn't known.
        let may_be_live = present.next().is_none() && peers.next().is_some();
        if let Some(read) = self.reading.reads.last_mut() {
            read.queued += if is_live { queued } else { 0 };
            read.queued_perhaps += if may_be_live { queued } else { 0 };
        }
        for id in ids {
            let peer = find(&mut self.peers, *id);
            peer.tell(text);
            if !peer.has_hung_up() {
                peer.advance(text, &self.reading, court);
            }
        }
    }

    fn follow_work(&mut self, work: Work, court: &mut Court<'_>) {
        let Work {
            read,
            has_doubt,
            is_cut,
            was_ready,
        } = work;
        assert!(!(has_doubt && read.is_some()), "one thing at a time");
        let had_name = self.reading.name.is_some();
        if let Some(whole) = read {
            let record = court.truth.find(whole);
            let reading = &mut self.reading;
            reading.push(record, court.truth, was_ready, court.now);
        }
        if has_doubt {
            assert!(court.may_doubt || !had_name, "a doubt for nothing");
            assert!(is_cut, "a doubt, and nothing is cut");
            court.tally.doubts += 1;
            (self.reading.has_doubt, self.reading.has_doubted) = (true, true);
            let len = self.reading.len();
            let numbered = self.peers.iter_mut().filter(|peer| peer.is_numbered);
            for peer in numbered.filter(|peer| peer.stage == Stage::Open) {
                peer.owed_gap = Some(len);
            }
        }
        // Before there is a position, nothing can be located.
        let reading = &mut self.reading;
        let is_cut = is_cut && reading.name.is_some();
        let was_cut = std::mem::replace(&mut reading.is_cut, is_cut);
        assert!(
            !is_cut || was_cut || has_doubt || !had_name,
            "a cut for nothing"
        );
    }

    /// A call is over: whoever is live has all that was read.
    fn end_call(&mut self, truth: &Truth) {
        let reading = &mut self.reading;
        if !std::mem::take(&mut reading.is_fresh) {
            return;
        }
        let live = self.peers.iter_mut().filter(|peer| peer.is_live());
        for peer in live.filter(|peer| !peer.has_hung_up()) {
            for read in &reading.reads[peer.at..] {
                if let What::Said(publication) = &truth.record(read.record).what {
                    let is_missed = peer.wants(publication);
                    assert!(!is_missed, "{} doesn't get {publication:?}", peer.id);
                }
            }
            peer.at = reading.reads.len();
        }
    }

    fn follow_reply(&mut self, id: ConnectionId, text: &str, court: &mut Court<'_>) {
        let (peers, reading) = (&mut self.peers, &mut self.reading);
        let peer = find(peers, id);
        let truth = &mut *court.truth;
        if text.starts_with(GAP) {
            let owed = peer.owed_gap.take();
            let owed = owed.unwrap_or_else(|| panic!("{id}: a gap for nothing"));
            let gap = |reason| {
                let id = reading.id_at(owed, truth);
                format!(r#"{{"type":"gap","id":"{id}","reason":"{reason}"}}"#)
            };
            assert!(
                text == gap("lost") || text == gap("trimmed"),
                "{text}: {reading:?}"
            );
            let missing = reading.next_kept(peer, truth);
            let is_early = peer.replay.is_some() && missing.is_some_and(|next| next < owed);
            assert!(!is_early, "{id}: a gap ahead of what comes before");
            peer.promise = None;
            court.tally.gaps += 1;
            return;
        }
        if text.starts_with(r#"{"type":"caught-up""#) {
            let missed = peer.replay.take().expect("it was being caught up");
            assert_eq!(
                reading.next_kept(peer, truth),
                None,
                "{id}: caught up with a hole"
            );
            // It is told of a doubt that came up this moment as others are that have everything.
            let is_told = peer.owed_gap.is_none_or(|owed| owed == reading.len());
            assert!(is_told, "{id}: caught up, and wasn't told of a doubt");
            let newest = reading.id(truth);
            let due = format!(r#"{{"type":"caught-up","id":"{newest}","missed":{missed}}}"#);
            assert_eq!(text, due, "{id}");
            peer.at = reading.len();
            court.tally.replayed += missed as u64;
            return;
        }
        let Some((question, asked)) = peer.questions.pop_front() else {
            panic!("{id} has asked nothing, and is told {text}");
        };
        match question {
            Question::Said(Said::Ping(_)) => peer.check_pong(text, reading, truth),
            Question::Said(Said::Bad(_, code)) => check_error(text, code),
            Question::Said(Said::BadPublish) => {
                check_error(text, "invalid-notification");
                peer.is_to_be_closed(1008);
            }
            Question::Said(Said::Subscribe(_, list, since)) => {
                peer.follow_list(list, since.as_deref(), (text, asked), reading, court);
            }
            Question::Said(Said::Publish(publication)) => {
                if text.starts_with(r#"{"type":"published","#) {
                    assert_eq!(peer.kind, Kind::Kept);
                    let told = text.replacen(r#""type":"published","#, "", 1);
                    check_receipt(&publication, &told, reading, court);
                } else if publication.is_bad(true) {
                    check_error(text, "invalid-notification");
                    peer.is_to_be_closed(1008);
                } else {
                    check_error(text, "unavailable");
                    follow_refusal(&[&publication], text, court);
                    peer.is_to_be_closed(1013);
                }
            }
            Question::Said(said) => panic!("{said:?} is not answered"),
            Question::Post { .. } => panic!("{id} asks over HTTP"),
        }
    }

    /// What is promised of every turn.
    fn check_turn(&self, court: &Court<'_>) {
        let timeout = self.reading.configuration.timeout.as_micros() as u64;
        for peer in &self.peers {
            let is_there = peer.stage == Stage::Open || peer.kind == Kind::Http;
            if let Some((question, asked)) = peer.questions.front().filter(|_| is_there) {
                let is_publishing = matches!(
                    question,
                    Question::Said(Said::Publish(_)) | Question::Post { .. }
                );
                let is_late = asked + timeout < court.now && is_publishing;
                let is_let = peer.has_hung_up() || peer.replay.is_some() || peer.is_closing();
                assert!(
                    !is_late || is_let,
                    "{} awaits {question:?} for too long",
                    peer.id
                );
            }
            assert!(peer.questions.len() <= 1100, "{} is read on", peer.id);
            let is_told =
                peer.owed_gap.is_none() || peer.replay.is_some() || !is_there || peer.has_hung_up();
            assert!(
                is_told || self.peers.len() > TOLD_AT_ONCE,
                "{} isn't told",
                peer.id
            );
        }
        let routes = self.routes.borrow();
        let metrics = routes.hub().metrics();
        assert_eq!(metrics.gaps, self.reading.gaps);
        assert_eq!(metrics.entries_invalid, self.reading.invalid);
    }
}

impl Peer {
    /// The node has heard something of it.
    fn hear(&mut self, payload: &[u8], now: u64) {
        let question = self.next_said();
        let said = match &question {
            Question::Said(said) => said.payload(),
            Question::Post { body, .. } => body.as_bytes(),
        };
        assert_eq!(payload, said, "{}", self.id);
        // It reads no answers.
        if self.has_hung_up() {
            return;
        }
        let is_over = self.kind == Kind::Ephemeral && self.questions.iter().any(is_publication);
        assert!(!is_over, "{}: heard behind its end", self.id);
        self.questions.push_back((question, now));
    }

    /// A notification is queued to it.
    fn advance(&mut self, text: &str, reading: &Reading, court: &mut Court<'_>) {
        let (id, truth) = (self.id, &court.truth);
        assert_eq!(self.stage, Stage::Open, "{id}");
        let next = match self.replay {
            Some(_) => reading.next_kept(self, truth),
            // All that it hasn't is the newest.
            None => (self.at < reading.len()).then(|| reading.len() - 1),
        };
        let next = next.unwrap_or_else(|| panic!("{id} gets {text}, and is to get nothing"));
        let record = truth.record(reading.reads[next].record);
        let What::Said(publication) = &record.what else {
            panic!("{id} gets {text} for {record:?}");
        };
        let due = match self.is_numbered && publication.is_kept {
            true => publication.numbered(&record.id),
            false => Rc::clone(&publication.delivered),
        };
        assert!(
            self.wants(publication) && *due == *text,
            "{id} gets {text} for {due}"
        );
        let is_behind = self.owed_gap.is_some_and(|owed| next >= owed);
        assert!(!is_behind, "{id} gets {text}, and wasn't told of a doubt");
        self.at = next + 1;
        if let Some(missed) = &mut self.replay {
            *missed += 1;
        }
        court.tally.deliveries += 1;
    }

    /// An error of its own ends the connection of one that publishes once.
    fn is_to_be_closed(&mut self, code: u16) {
        self.closes_with = (self.kind == Kind::Ephemeral).then_some(code);
    }

    fn check_pong(&self, text: &str, reading: &Reading, truth: &Truth) {
        if !self.is_numbered {
            return assert_eq!(text, r#"{"type":"pong"}"#);
        }
        let told = text.strip_prefix(r#"{"type":"pong","id":""#);
        let told = told.and_then(|rest| rest.strip_suffix(r#""}"#));
        let told = told.unwrap_or_else(|| panic!("{}: {text}", self.id));
        if self.replay.is_none() {
            return assert_eq!(told, &**reading.id(truth), "{}", self.id);
        }
        // All that is for it up to there was queued ahead of this, and nothing behind it.
        let record = truth
            .named(told)
            .and_then(|record| reading.known.get(&record));
        let next = reading.next_kept(self, truth).unwrap_or(reading.len());
        let is_right = record.is_some_and(|place| *place < next && place + 1 >= self.at);
        assert!(
            is_right,
            "{}: {text} at {}, {next} is next",
            self.id, self.at
        );
    }

    /// Its list is answered: from now on it counts.
    fn follow_list(
        &mut self,
        list: Vec<Subscription<'static>>,
        since: Option<&str>,
        (text, asked): (&str, u64),
        reading: &Reading,
        court: &mut Court<'_>,
    ) {
        let (id, truth, now) = (self.id, &court.truth, court.now);
        let start = format!(
            r#"{{"type":"subscribed","subscriptions":{},"heartbeat":25"#,
            list.len()
        );
        assert!(
            since.is_some() || self.replay.is_none(),
            "{id}: a list that has to wait"
        );
        self.is_numbered |= since.is_some();
        (self.subscriptions, self.at) = (list, reading.len());
        (self.replay, self.owed_gap) = (None, None);
        let name = reading.name.filter(|_| self.is_numbered);
        self.promise = name.map(|name| truth.promise(name));
        let newest = reading.id(truth);
        let Some(since) = since.filter(|since| !since.is_empty()) else {
            let id = self.is_numbered.then(|| format!(r#","id":"{newest}""#));
            return assert_eq!(text, format!("{start}{}}}", id.unwrap_or_default()));
        };
        let (may_resume, may_refuse) = reading.judge(since, truth, now);
        if text == format!(r#"{start},"id":"{since}","resumed":true}}"#) {
            assert!(may_resume, "{id} resumes from {since}: {reading:?}");
            let record = truth.named(since).expect("it is known");
            (self.at, self.replay) = (reading.known[&record] + 1, Some(0));
            self.promise = Some(Promise { record, now: None });
            court.tally.resumed += 1;
            court.tally.awaited += u64::from(now > asked);
            return;
        }
        let not =
            |reason| format!(r#"{start},"id":"{newest}","resumed":false,"reason":"{reason}"}}"#);
        assert!(
            text == not("expired") || text == not("unknown"),
            "{id}: {text}"
        );
        assert!(
            may_refuse,
            "{id} may not resume from {since}: {text}; {reading:?}"
        );
        let timeout = reading.configuration.timeout.as_micros() as u64;
        let is_early = now < asked + timeout && !reading.is_cut && reading.may_come(since, truth);
        assert!(!is_early, "{id}: {since} may still come");
        court.tally.not_resumed += 1;
    }

    fn follow_close(&mut self, code: u16, reason: &str, reading: &Reading, court: &mut Court<'_>) {
        let id = self.id;
        if code == 1000 {
            let (question, _) = self.questions.pop_front().expect("a question");
            let Question::Said(Said::Publish(publication)) = question else {
                panic!("{id} is closed for {question:?}");
            };
            assert_eq!(self.kind, Kind::Ephemeral);
            return check_receipt(&publication, reason, reading, court);
        }
        let word = match code {
            1008 => "invalid-notification",
            1013 => "unavailable",
            _ => panic!("{id} is closed with {code}"),
        };
        assert!(
            reason.starts_with(&format!(r#"{{"reason":"{word}","retry":"#)),
            "{reason}"
        );
        let is_due = self.closes_with.take() == Some(code) && self.kind == Kind::Ephemeral;
        assert!(is_due, "{id} is closed with {code}");
    }

    fn follow_response(&mut self, response: &Response, reading: &Reading, court: &mut Court<'_>) {
        let (question, _) = self.questions.pop_front().expect("it was asked");
        let Question::Post { publications, body } = question else {
            panic!("{question:?} isn't answered over HTTP");
        };
        let is_bad = publications.iter().any(|one| one.is_bad(true));
        let text = &response.body;
        match response.status.code {
            200 => {
                let list = text
                    .strip_prefix('[')
                    .and_then(|list| list.strip_suffix(']'));
                assert_eq!(list.is_some(), body.starts_with('['));
                let list = list.unwrap_or(text).replace("},{", "}\n{");
                assert_eq!(list.lines().count(), publications.len(), "{list}");
                for (publication, told) in publications.iter().zip(list.lines()) {
                    check_receipt(publication, told, reading, court);
                }
            }
            400 => assert!(is_bad, "{text}"),
            503 => {
                check_error(text, "unavailable");
                let publications: Vec<_> = publications.iter().collect();
                follow_refusal(&publications, text, court);
            }
            code => panic!("{code} for {publications:?}: {text}"),
        }
        assert_eq!(is_bad, response.status.code == 400, "{text}");
    }
}

fn is_publication((question, _): &(Question, u64)) -> bool {
    matches!(
        question,
        Question::Said(Said::Publish(_) | Said::BadPublish)
    )
}

fn check_error(text: &str, code: &str) {
    let start = format!(r#"{{"type":"error","error":{{"code":"{code}","#);
    assert!(text.starts_with(&start), "{text} for {code}");
}

/// Whoever is told so may rely on it.
fn follow_refusal(publications: &[&Publication], text: &str, court: &mut Court<'_>) {
    if text.contains("it may have been published") {
        court.tally.unanswered += 1;
        return;
    }
    assert!(text.contains("it was not published"), "{text}");
    court.tally.refused += 1;
    for publication in publications {
        court.truth.refuse(publication);
    }
}

/// `told`: the members of a receipt. Redis has the notification, and this node has handed it out.
fn check_receipt(publication: &Publication, told: &str, reading: &Reading, court: &mut Court<'_>) {
    let truth = &court.truth;
    let is_repeated = told.ends_with(r#","repeated":true}"#);
    court.tally.receipts += 1;
    court.tally.repeated += u64::from(is_repeated);
    let Some(record) = truth.taken(publication) else {
        assert!(is_repeated, "{told} for {publication:?}, which nobody has");
        let id = told.split(r#""id":""#).nth(1);
        let id = id.and_then(|rest| rest.split('"').next()).expect("an id");
        let first = truth.named(id).expect("an id of somebody's");
        let is_of_before = reading
            .reads
            .first()
            .is_some_and(|read| first < read.record);
        // Where ids went back, and the node doesn't know yet, it takes it for one that it has passed.
        let is_known = reading.has_read(first) || is_of_before;
        let is_handed_out = is_known || reading.has_doubted || truth.has_moved;
        assert!(is_handed_out, "{told}, and it isn't handed out");
        let key = truth.record(first).kept().and_then(|first| first.key);
        assert!(key.is_some() && key == publication.key, "{told}");
        return;
    };
    let place = reading.known.get(&record);
    let place = place.unwrap_or_else(|| panic!("{told}, and {record} isn't handed out"));
    let Read {
        queued,
        queued_perhaps,
        ..
    } = reading.reads[*place];
    let id = &truth.record(record).id;
    let receipt = |recipients| Receipt {
        counts: Counts {
            recipients,
            dropped: 0..=0,
        },
        id: publication.is_kept.then(|| Rc::clone(id)),
        is_repeated,
    };
    let mut counts = queued..=queued + queued_perhaps;
    let is_right = counts.any(|recipients| receipt(recipients).is_told_by(told, "{"));
    assert!(!is_repeated && is_right, "{told} for {:?}", receipt(queued));
}
