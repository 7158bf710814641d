//! "Why didn't it get that?": who would get a notification now, who not, and because of what.
//!
//! Who gets it is asked of the index, as a publish asks it; why is found by looking at lists one by one, of those alone that
//! are asked about, and within a bound on the work and on the answer. Changes nothing.

use std::borrow::Cow;

use super::Hub;
use super::command::ErrorCode;
use super::command::{self, Asked, CommandError, JsonText, Publication, Whom, parse_question};
use super::filter::{Notification, Subscription};
use super::mismatch::{Examined, Miss, Verdict};
use super::operators::{LISTED_MAX, SCANNED_MAX, not_in_history, respond, write_published};
use super::post::bad_request;
use super::slot_set::SlotSet;
use super::standing::{Moment, State};
use crate::application::{Outbox, Response};
use crate::id::ConnectionId;
use crate::journal::id::{EntryId, Position};

/// Comparisons of texts for one answer, about; a few milliseconds of them.
const STEPS_MAX: usize = 64 * 1024;

/// Lists and subscriptions of the index that are met to find out who gets it.
const WALKED_MAX: usize = 64 * 1024;

/// What it takes to make a subscription or a value of a list, in these.
const LISTED_STEPS: usize = 4;

/// Subscriptions that are shown of a connection.
const SHOWN_MAX: usize = 20;

/// Bytes of a subscription that is shown.
const SUBSCRIPTION_BYTES_MAX: usize = 4 * 1024;

/// Bytes of an answer, beyond which no subscription is added.
const ANSWER_BYTES_MAX: usize = 192 * 1024;

/// What else counts beside what a notification says.
struct Occasion {
    /// It was published, at this position.
    position: Option<Position>,
    is_kept: bool,
    /// It isn't published, as this one has its key.
    repeated: Option<EntryId>,
}

/// Whether a connection gets it, and the word that says why; and for people.
struct Outcome {
    gets: Option<bool>,
    reason: &'static str,
    detail: Cow<'static, str>,
}

impl Outcome {
    const fn new(gets: bool, reason: &'static str, detail: &'static str) -> Self {
        Self {
            gets: Some(gets),
            reason,
            detail: Cow::Borrowed(detail),
        }
    }
}

/// What a look at the list of a connection has shown.
struct Looks<'s> {
    verdicts: Vec<(&'s Subscription<'s>, Verdict<'s>)>,
    matching: usize,
    /// Whether all of them were looked at.
    is_whole: bool,
}

impl<'s> Looks<'s> {
    fn take(list: &'s [Subscription<'s>], examined: &mut Examined<'_>) -> Self {
        let verdicts = list
            .iter()
            .map(|subscription| (subscription, examined.look_at(subscription)));
        let verdicts: Vec<_> = verdicts.collect();
        let count = |wanted: fn(&Verdict<'_>) -> bool| {
            verdicts
                .iter()
                .filter(|(_, verdict)| wanted(verdict))
                .count()
        };
        Self {
            matching: count(|verdict| *verdict == Verdict::Matches),
            is_whole: count(|verdict| *verdict == Verdict::NotLookedAt) == 0,
            verdicts,
        }
    }

    /// Whether any matches, if that is known.
    const fn any_matches(&self) -> Option<bool> {
        match (self.matching, self.is_whole) {
            (0, false) => None,
            (matching, _) => Some(matching > 0),
        }
    }
}

impl Hub {
    /// Answers a question about who gets a notification.
    pub fn explain(&mut self, body: &[u8], outbox: &mut dyn Outbox) -> Response {
        let explained = self.try_explain(body, outbox);
        explained.unwrap_or_else(|refused| refused)
    }

    fn try_explain(&mut self, body: &[u8], outbox: &mut dyn Outbox) -> Result<Response, Response> {
        let text = std::str::from_utf8(body).map_err(|_| {
            bad_request(&CommandError::new(
                ErrorCode::InvalidJson,
                "not JSON: not UTF-8",
            ))
        })?;
        let question = parse_question(text).map_err(|error| bad_request(&error))?;
        let now = outbox.now();
        match &question.asked {
            Asked::Publish(publish) => {
                let publication = publish.read(self.journal.is_on());
                let publication = publication.map_err(|error| bad_request(&error))?;
                let Publication {
                    notification,
                    is_kept,
                    key,
                    ..
                } = publication;
                let first = key.as_deref().and_then(|key| self.journal.find_key(key));
                let occasion = Occasion {
                    position: None,
                    is_kept,
                    repeated: first.map(|first| self.journal.entry_id(first)),
                };
                Ok(self.explain_to(&notification, &occasion, &question.whom, outbox))
            }
            Asked::Id(id) => {
                let position = self.journal.find(id, now).ok_or_else(not_in_history)?;
                let entry = self.journal.history().get(position);
                // The index is walked meanwhile, which marks what it finds.
                let text = entry.map(|entry| entry.content().notification.to_owned());
                let text = text.ok_or_else(not_in_history)?;
                let notification = command::parse_notification(&text).ok_or_else(not_in_history)?;
                let occasion = Occasion {
                    position: Some(position),
                    is_kept: true,
                    repeated: None,
                };
                Ok(self.explain_to(&notification, &occasion, &question.whom, outbox))
            }
        }
    }

    fn explain_to(
        &mut self,
        notification: &Notification<'_>,
        occasion: &Occasion,
        whom: &Whom<'_>,
        outbox: &mut dyn Outbox,
    ) -> Response {
        let mut recipients = std::mem::take(&mut self.recipients);
        recipients.clear();
        // A publish has to take the time; who asks needn't.
        let is_walked = self.index.is_walk_within(notification, WALKED_MAX);
        if is_walked {
            self.index.collect_recipients(notification, &mut recipients);
        }
        let moment = Moment {
            now: outbox.now(),
            unix_now: outbox.unix_now(),
        };
        let mut json = self.begin_answer(moment);
        let would_get = match occasion.repeated {
            Some(_) => Some(0),
            // Of what was published, the index knows only who has a list now that it matches.
            None if occasion.position.is_some() => None,
            None => is_walked.then_some(recipients.len()),
        };
        if let Some(would_get) = would_get {
            json.number("would_get", would_get as u64);
        }
        json.number("connections_open", self.connections.len() as u64);
        if let Some(repeated) = occasion.repeated {
            json.plain("repeated", &repeated);
        }
        if let Some(position) = occasion.position {
            let id = Some(self.journal.entry_id(position));
            let mut newest = self.recent.published.newest();
            let published = newest.find(|published| published.id == id && !published.is_repeated);
            if let Some(published) = published {
                json.begin(Some("published"));
                write_published(published, moment, &mut json);
                json.end();
            }
        }
        let mut met = SlotSet::default();
        recipients.iter().for_each(|&id| met.insert(id));
        let (chosen, is_all) = self.choose(whom, recipients.len(), &met);
        let mut explained = Explained {
            hub: self,
            notification,
            examined: Examined::new(notification, STEPS_MAX),
            occasion,
            recipients: is_walked.then_some(&met),
            moment,
            is_truncated: !is_all || !is_walked,
        };
        json.begin_list("connections");
        for id in chosen {
            explained.write(id, outbox.unsent_bytes(id), &mut json);
        }
        json.end_list();
        json.flag("truncated", explained.is_truncated);
        if *whom == Whom::Anybody {
            json.begin_list("ended");
            json.end_list();
        } else {
            self.write_ended(whom, moment, &mut json);
        }
        recipients.clear();
        self.recipients = recipients;
        respond(json)
    }

    /// The connections that are asked about, or some, and whether these are all.
    fn choose(
        &self,
        whom: &Whom<'_>,
        recipients_len: usize,
        met: &SlotSet,
    ) -> (Vec<ConnectionId>, bool) {
        let mut chosen = Vec::new();
        let mut slot = 0;
        while *whom == Whom::Anybody
            && chosen.len() < LISTED_MAX
            && let Some(next) = met.next_from(slot)
        {
            chosen.extend(self.connections.id_at(next));
            slot = next + 1;
        }
        let slots_len = self.connections.slots_len();
        for slot in 0..slots_len.min(SCANNED_MAX) {
            let id = self.connections.id_at(slot);
            let found = id.and_then(|id| Some((id, self.connections.find(id)?.1)));
            let Some((id, address)) = found else {
                continue;
            };
            let is_new = *whom != Whom::Anybody || !met.contains(id);
            if is_new && self.is_meant(id, address, whom) {
                if chosen.len() == LISTED_MAX {
                    return (chosen, false);
                }
                chosen.push(id);
            }
        }
        let is_all = slots_len <= SCANNED_MAX && recipients_len <= LISTED_MAX;
        let is_all = is_all || (*whom != Whom::Anybody && slots_len <= SCANNED_MAX);
        (chosen, is_all)
    }
}

/// An explanation that is being written.
struct Explained<'h, 'n> {
    hub: &'h Hub,
    notification: &'n Notification<'n>,
    examined: Examined<'n>,
    occasion: &'h Occasion,
    /// Those in the index that it is for, if that is known.
    recipients: Option<&'h SlotSet>,
    moment: Moment,
    is_truncated: bool,
}

impl Explained<'_, '_> {
    fn write(&mut self, id: ConnectionId, unsent_bytes: usize, json: &mut JsonText) {
        let hub = self.hub;
        let Some((rights, address)) = hub.connections.find(id) else {
            return;
        };
        let state = hub.state_of(id, rights.publish);
        let holdings = hub.holdings_of(id);
        let list_len = holdings.subscriptions as usize + holdings.values as usize;
        let list = match hub.replays.get(id) {
            _ if !self.examined.spend(list_len * LISTED_STEPS) => None,
            Some(cursor) => Some(Cow::Borrowed(cursor.subscriptions())),
            None => Some(Cow::Owned(hub.index.list_of(id))),
        };
        let looks = list
            .as_deref()
            .map(|list| Looks::take(list, &mut self.examined));
        let allows = hub.clearances.allowed(id).and_then(|allowed| {
            let looks = Looks::take(allowed, &mut self.examined);
            looks.any_matches()
        });
        let outcome = self.judge(id, state, looks.as_ref(), allows);
        hub.begin_connection(id, address, state, json);
        if let Some(gets) = outcome.gets {
            json.flag("gets", gets);
        }
        json.plain("reason", &outcome.reason);
        json.text("detail", &outcome.detail);
        json.number("waiting", unsent_bytes as u64);
        hub.write_token(id, allows, self.moment, json);
        json.number("subscriptions_total", holdings.subscriptions.into());
        json.begin_list("subscriptions");
        match looks {
            Some(looks) => self.write_looks(&looks, json),
            None => self.is_truncated = true,
        }
        json.end_list();
        json.end();
    }

    fn judge(
        &self,
        id: ConnectionId,
        state: State,
        looks: Option<&Looks<'_>>,
        allows: Option<bool>,
    ) -> Outcome {
        if self.occasion.repeated.is_some() {
            let detail =
                "a notification with this key was published before, so it isn't published again";
            return Outcome::new(false, "repeated", detail);
        }
        let any_matches = match state {
            State::Live | State::CatchingUp => match self.recipients {
                Some(recipients) if state == State::Live => Some(recipients.contains(id)),
                _ => looks.and_then(Looks::any_matches),
            },
            State::NoSubscriptions | State::Publisher => {
                return Outcome::new(false, "no-subscriptions", "it has no subscriptions");
            }
            State::TokenAwaited => {
                let detail = "it hasn't shown a token yet, so it has no subscriptions";
                return Outcome::new(false, "token-awaited", detail);
            }
            State::ListWaits => {
                let detail = "its list waits for an id that this server hasn't read yet";
                return Outcome::new(false, "list-waits", detail);
            }
        };
        match any_matches {
            None => Outcome {
                gets: None,
                reason: "not-looked-at",
                detail: Cow::Borrowed("it would take too long to say"),
            },
            Some(false) => {
                let count = self.hub.holdings_of(id).subscriptions;
                let mut detail = match count {
                    1 => "its subscription doesn't match".to_owned(),
                    more => format!("none of its {more} subscriptions matches"),
                };
                if allows == Some(false) {
                    detail.push_str(", and its token allows none that would");
                }
                Outcome {
                    gets: Some(false),
                    reason: "no-match",
                    detail: Cow::Owned(detail),
                }
            }
            Some(true) => self.judge_match(id, looks),
        }
    }

    /// A subscription matches; it may come too late all the same.
    fn judge_match(&self, id: ConnectionId, looks: Option<&Looks<'_>>) -> Outcome {
        let hub = self.hub;
        let position = self.occasion.position;
        if position.is_some_and(|position| position <= hub.connections.covers_from(id)) {
            let detail = "a subscription matches, but its list came after the notification: an earlier list may have got it";
            return Outcome::new(false, "subscribed-later", detail);
        }
        if let Some(cursor) = hub.replays.get(id) {
            if !self.occasion.is_kept {
                let detail =
                    "it is being caught up, and keep:false reaches only those that are live";
                return Outcome::new(false, "not-kept", detail);
            }
            if position.is_none_or(|position| position > cursor.position) {
                let detail =
                    "a subscription matches; it comes after what the connection has missed";
                return Outcome::new(true, "catching-up", detail);
            }
        }
        let detail = match looks {
            Some(looks) if looks.is_whole && looks.matching > 0 => {
                let (matching, all) = (looks.matching, looks.verdicts.len());
                match (matching, all) {
                    (1, 1) => Cow::Borrowed("its subscription matches"),
                    (1, _) => Cow::Owned(format!("1 of its {all} subscriptions matches")),
                    _ => Cow::Owned(format!("{matching} of its {all} subscriptions match")),
                }
            }
            _ => Cow::Borrowed("a subscription matches"),
        };
        Outcome {
            gets: Some(true),
            reason: "matches",
            detail,
        }
    }

    fn write_looks(&mut self, looks: &Looks<'_>, json: &mut JsonText) {
        self.is_truncated |= looks.verdicts.len() > SHOWN_MAX || !looks.is_whole;
        let mut left = SHOWN_MAX;
        for rank in 0..=Verdict::RANK_MAX {
            let verdicts = looks.verdicts.iter();
            let of_rank = verdicts.filter(|(_, verdict)| verdict.rank(self.notification) == rank);
            for (subscription, verdict) in of_rank.take(left) {
                left -= 1;
                if json.bytes_len() > ANSWER_BYTES_MAX {
                    self.is_truncated = true;
                    return;
                }
                self.write_look(subscription, verdict, json);
            }
        }
    }

    fn write_look(
        &self,
        subscription: &Subscription<'_>,
        verdict: &Verdict<'_>,
        json: &mut JsonText,
    ) {
        json.begin(None);
        let text = command::subscription_text(subscription);
        if text.len() <= SUBSCRIPTION_BYTES_MAX {
            json.raw("subscription", &text);
        }
        match verdict {
            Verdict::Matches => json.flag("matches", true),
            Verdict::Misses(miss) => {
                json.flag("matches", false);
                self.write_miss(*miss, json);
            }
            Verdict::NotLookedAt => json.plain("reason", &"not-looked-at"),
        }
        json.end();
    }

    fn write_miss(&self, miss: Miss<'_>, json: &mut JsonText) {
        json.plain("reason", &miss.reason());
        if let Some(name) = miss.name() {
            json.text("name", command::clipped(name, SUBSCRIPTION_BYTES_MAX));
        }
        json.text("detail", &miss.detail(self.notification));
    }
}
