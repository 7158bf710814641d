//! Publishing by HTTP: several notifications at once, which are taken whole or not at all. The application is handed
//! them as if a request had brought them; requests themselves are no part of the simulation.

use crieur::application::{Answer, Response};

use crate::texts::{self, Publication};

use super::{Phase, World, WorldEngine};

/// A request's notifications, and its answer.
pub(super) struct Post {
    publications: Vec<Publication>,
    answer: Option<Response>,
}

impl World {
    /// Somebody posts some notifications.
    pub(super) fn post(&mut self, engine: &mut WorldEngine) {
        let style = self.style();
        let count = self.dice.below(6);
        let mut publications = Vec::new();
        for _ in 0..count {
            self.tally.published += 1;
            let number = self.tally.published;
            publications.push(texts::publication(&mut self.dice, number, false, style));
        }
        let bodies: Vec<_> = publications.iter().map(|one| one.text.as_str()).collect();
        let body = format!("[{}]", bodies.join(","));
        let mut answer = None;
        engine.act(self.now(), |witness, outbox| {
            answer = match witness.post(&body, outbox) {
                Answer::Now(response) => Some(response),
                Answer::Later => None,
            };
        });
        self.posted = Some(Post {
            publications,
            answer,
        });
        self.phase = Phase::Input;
        self.look(engine);
    }

    /// What follows from it; `lost` have left the next moment.
    pub(super) fn follow_post(&mut self, lost: &[usize]) {
        let post = self.posted.take().expect("it was posted");
        let (publications, answer) = (&post.publications, post.answer.expect("an answer"));
        let has_history = self.log.is_on();
        if publications.iter().any(|one| one.is_bad(has_history)) {
            assert_eq!(answer.status.code, 400, "{}", answer.body);
            return;
        }
        assert_eq!(answer.status.code, 200, "{}", answer.body);
        let list = answer.body.strip_prefix('[');
        let list = list.and_then(|list| list.strip_suffix(']'));
        let list = list.expect("an array").replace("},{", "}\n{");
        let told: Vec<_> = list.lines().collect();
        assert_eq!(told.len(), publications.len(), "{list}");
        let mut entered = Vec::new();
        for (publication, told) in publications.iter().zip(&told) {
            let is_repeated = told.ends_with(r#""repeated":true}"#);
            let counts = self.recipients(None, publication, lost);
            entered.push(self.enter(publication, counts, is_repeated));
        }
        self.log.seal();
        for ((publication, told), (position, receipt)) in publications.iter().zip(told).zip(entered)
        {
            if !receipt.is_repeated {
                self.deliver(publication, position);
            }
            // A queue that is full takes nothing more of the rest, which is counted nowhere. The first with a key may
            // have left the history by now, and with it how many it was for.
            let is_unknown = receipt.is_repeated && !self.log.is_within_bytes(receipt.position());
            let is_right = receipt.is_told_by(told, "{") || !lost.is_empty() || is_unknown;
            assert!(is_right, "{told} for {receipt:?}");
            let id = receipt.id.as_deref().unwrap_or("}");
            assert!(told.contains(id), "{told} for {receipt:?}");
        }
    }
}
