//! What operators ask over HTTP: connections by what they do, the newest notifications, publishes that were refused.
//!
//! Owns who may ask, and the form of the answers. Each is bounded, in what it says and in the work that it takes: the loop
//! serves everybody else meanwhile. `explain.rs` has the question that comes as a body.

use std::borrow::Cow;

use super::Hub;
use super::access::policy::{Decision, PublishRight, bearer};
use super::command::{self, CommandError, ErrorCode, JsonText, Query, Whom, read_query};
use super::post::{
    MAY_NOT_PUBLISH, NO_PUBLISHERS_TOKEN, bad_request, forbidden, is_json, unauthorized,
};
use super::recent::{Notified, Refused, Tenant};
use super::standing::{Moment, State, write_tenant};
use crate::application::{BodyPermit, BodyUse, Figures, Framing, Request, Response, Status};
use crate::id::ConnectionId;
use crate::journal::entry::Content;

/// Connections that an answer lists.
pub(super) const LISTED_MAX: usize = 100;

/// Slots that are looked at for one answer, each in some 50 ns.
pub(super) const SCANNED_MAX: usize = 64 * 1024;

/// Bytes of the list of a connection that was asked for.
const LIST_BYTES_MAX: usize = 64 * 1024;

/// Subscriptions of it.
const LIST_MAX: usize = 100;

/// Which connections are to be listed.
struct Listing<'a> {
    whom: Whom<'a>,
    /// In this state alone.
    wanted: Option<State>,
    /// The first slot.
    first: usize,
}

impl<'a> Listing<'a> {
    fn read(target: &'a str) -> Result<Self, CommandError> {
        let Query { whom, values } = read_query(target, &["state", "after"])?;
        let mut values = values.into_iter();
        let (state, after) = (values.next().flatten(), values.next().flatten());
        let wanted = state.map(|word| {
            let state = State::ALL.into_iter().find(|state| state.word() == word);
            state.ok_or_else(|| unknown("there is no such state"))
        });
        let first = after.map(|text| {
            let after = ConnectionId::of_text(&text);
            let after = after.ok_or_else(|| unknown("after must be the next of the answer before"));
            Ok(after?.slot() + 1)
        });
        Ok(Self {
            whom,
            wanted: wanted.transpose()?,
            first: first.transpose()?.unwrap_or_default(),
        })
    }
}

impl Hub {
    /// Checks by its head that a request may ask what only publishers may. One that may not hasn't tried to publish, and
    /// isn't counted as if it had.
    ///
    /// # Errors
    /// The answer, if it may not.
    pub(super) fn permit_question(
        &mut self,
        request: &Request<'_>,
        decision: &Decision,
    ) -> Result<(), Response> {
        if decision.publish == PublishRight::Never || !decision.is_origin_allowed {
            return Err(forbidden(MAY_NOT_PUBLISH));
        }
        match decision.publish {
            PublishRight::Granted => Ok(()),
            _ if bearer(request.head).is_some() => Err(forbidden(NO_PUBLISHERS_TOKEN)),
            _ => Err(unauthorized()),
        }
    }

    /// Decides by its head whether the body of a question is read.
    ///
    /// # Errors
    /// The answer, if it isn't.
    pub fn permit_explain(
        &mut self,
        request: &Request<'_>,
        framing: Framing,
        decision: &Decision,
    ) -> Result<BodyPermit, Response> {
        if request.head.method != "POST" {
            let response = Response::new(Status::METHOD_NOT_ALLOWED, "only POST explains");
            return Err(response.with_field("Allow", "POST"));
        }
        self.permit_question(request, decision)?;
        check_body(request, framing)?;
        Ok(BodyPermit {
            bytes_max: self.message_bytes_max(PublishRight::Granted),
            body_use: BodyUse::Explain,
        })
    }

    /// Begins an answer.
    pub(super) fn begin_answer(&self, moment: Moment) -> JsonText {
        let mut json = JsonText::object();
        json.number("now", moment.millis(moment.now));
        let scope = match self.redis {
            Some(_) => "node",
            None => "server",
        };
        json.plain("scope", &scope);
        json
    }

    /// The connections, by what they do.
    pub fn answer_connections(
        &mut self,
        request: &Request<'_>,
        decision: &Decision,
        figures: &dyn Figures,
    ) -> Response {
        let permitted = self.permit_question(request, decision);
        permitted.map_or_else(
            |refused| refused,
            |()| self.list_connections(request, figures),
        )
    }

    fn list_connections(&self, request: &Request<'_>, figures: &dyn Figures) -> Response {
        let listing = match Listing::read(request.head.target) {
            Ok(listing) => listing,
            Err(error) => return bad_request(&error),
        };
        let moment = moment_of(request);
        let mut json = self.begin_answer(moment);
        json.number("since", moment.millis(self.recent.since));
        json.begin_list("connections");
        let (counts, next) = self.write_connections(&listing, figures, moment, &mut json);
        json.end_list();
        json.begin(Some("counts"));
        for (state, count) in State::ALL.into_iter().zip(counts) {
            json.number(state.word(), count);
        }
        json.end();
        json.flag("truncated", next.is_some());
        if let Some(next) = next {
            let serial = self.connections.id_at(next).map_or(0, |id| id.serial);
            json.plain("next", &format_args!("{next}.{serial}"));
        }
        self.write_ended(&listing.whom, moment, &mut json);
        respond(json)
    }

    /// Writes the connections of a listing. Returns how many there are in each state, and the slot behind which there
    /// is more.
    fn write_connections(
        &self,
        listing: &Listing<'_>,
        figures: &dyn Figures,
        moment: Moment,
        json: &mut JsonText,
    ) -> ([u64; State::ALL.len()], Option<usize>) {
        let Listing {
            whom,
            wanted,
            first,
        } = listing;
        let slots_len = self.connections.slots_len();
        // All are counted, as long as that takes no time.
        let scanned = match slots_len > SCANNED_MAX {
            true => *first..slots_len.min(first.saturating_add(SCANNED_MAX)),
            false => 0..slots_len,
        };
        let mut next = (scanned.end < slots_len).then(|| scanned.end - 1);
        let mut counts = [0; State::ALL.len()];
        let (mut listed, mut last) = (0, 0);
        for slot in scanned {
            let id = self.connections.id_at(slot);
            let known = id.and_then(|id| Some((id, self.connections.find(id)?)));
            let Some((id, (rights, address))) = known else {
                continue;
            };
            if !self.is_meant(id, address, whom) {
                continue;
            }
            let state = self.state_of(id, rights.publish);
            counts[state as usize] += 1;
            if wanted.is_some_and(|wanted| wanted != state) || slot < *first {
                continue;
            }
            if listed == LISTED_MAX {
                next = Some(last);
                continue;
            }
            (listed, last) = (listed + 1, slot);
            self.begin_connection(id, address, state, json);
            self.write_standing(id, figures.unsent_bytes(id), json);
            if let Whom::Connection(_) = whom {
                self.write_list(id, json);
                self.write_token(id, None, moment, json);
            }
            json.end();
        }
        (counts, next)
    }

    /// What a connection has, and how far it is.
    fn write_standing(&self, id: ConnectionId, unsent_bytes: usize, json: &mut JsonText) {
        let holdings = self.holdings_of(id);
        json.number("subscriptions", holdings.subscriptions.into());
        json.number("values", holdings.values.into());
        json.number("waiting", unsent_bytes as u64);
        json.flag("numbered", self.numbered.contains(id));
        if let Some(cursor) = self.replays.get(id) {
            json.number("missed", cursor.missed);
        }
    }

    fn write_list(&self, id: ConnectionId, json: &mut JsonText) {
        let list = match self.replays.get(id) {
            Some(cursor) => Cow::Borrowed(cursor.subscriptions()),
            None => Cow::Owned(self.index.list_of(id)),
        };
        let begin = json.bytes_len();
        json.begin_list("list");
        let mut is_whole = list.len() <= LIST_MAX;
        for subscription in list.iter().take(LIST_MAX) {
            let text = command::subscription_text(subscription);
            if json.bytes_len() - begin + text.len() > LIST_BYTES_MAX {
                is_whole = false;
                break;
            }
            json.entry(&text);
        }
        json.end_list();
        json.flag("truncated", !is_whole);
    }

    /// Writes what the token of a connection grants, if it has shown one; `allows` is whether it allows what is asked about.
    pub(super) fn write_token(
        &self,
        id: ConnectionId,
        allows: Option<bool>,
        moment: Moment,
        json: &mut JsonText,
    ) {
        if let Some(until) = self.clearances.expiry(id) {
            json.begin(Some("token"));
            if let Some(allows) = allows {
                json.flag("allows", allows);
            }
            json.flag("history", self.clearances.allows_history(id));
            json.number("expires", moment.millis(until));
            json.end();
        }
    }

    /// The newest notifications, without what they say; or one of the history, with it.
    pub fn answer_notifications(&mut self, request: &Request<'_>, decision: &Decision) -> Response {
        if let Err(refused) = self.permit_question(request, decision) {
            return refused;
        }
        let moment = moment_of(request);
        let id = match read_query(request.head.target, &["id"]) {
            Ok(Query {
                whom: Whom::Anybody,
                mut values,
            }) => values.pop().flatten(),
            Ok(_) => return bad_request(&unknown("notifications are of no connection")),
            Err(error) => return bad_request(&error),
        };
        if let Some(id) = id {
            return self.answer_notification(&id, moment);
        }
        let mut json = self.begin_answer(moment);
        json.number("since", moment.millis(self.recent.since));
        json.begin_list("notifications");
        for published in self.recent.published.newest() {
            json.begin(None);
            write_published(published, moment, &mut json);
            json.end();
        }
        json.end_list();
        respond(json)
    }

    fn answer_notification(&self, id: &str, moment: Moment) -> Response {
        let position = self.journal.find(id, moment.now);
        let entry = position.and_then(|position| self.journal.history().get(position));
        let (Some(position), Some(entry)) = (position, entry) else {
            return not_in_history();
        };
        let Content { kind, notification } = entry.content();
        let age = self.journal.age_of(position, moment.now);
        let published = moment.unix_now.saturating_sub(age);
        let mut json = self.begin_answer(moment);
        json.plain("id", &self.journal.entry_id(position));
        json.number("at", published.as_millis() as u64);
        json.number("bytes", notification.len() as u64);
        json.raw("type", kind);
        if let Some(key) = entry.key() {
            json.text("key", key);
        }
        json.raw("notification", notification);
        respond(json)
    }

    /// The newest publishes that were refused.
    pub fn answer_refusals(&mut self, request: &Request<'_>, decision: &Decision) -> Response {
        if let Err(refused) = self.permit_question(request, decision) {
            return refused;
        }
        if let Err(error) = read_query(request.head.target, &[]) {
            return bad_request(&error);
        }
        let moment = moment_of(request);
        let mut json = self.begin_answer(moment);
        json.number("since", moment.millis(self.recent.since));
        for (name, is_own) in [("refusals", true), ("strangers", false)] {
            json.begin_list(name);
            for refused in self.recent.refusals(is_own) {
                let Refused {
                    at,
                    code,
                    detail,
                    address,
                    id,
                } = refused;
                json.begin(None);
                json.number("at", moment.millis(*at));
                json.plain("code", &code);
                json.text("detail", detail);
                if let Some(address) = address {
                    json.plain("peer", &address);
                }
                if let Some(id) = id {
                    json.plain("connection", &id);
                }
                json.end();
            }
            json.end_list();
        }
        respond(json)
    }
}

/// Writes what is known of a notification that was published.
pub(super) fn write_published(published: &Notified, moment: Moment, json: &mut JsonText) {
    let Notified {
        at,
        id,
        from,
        delivered,
        dropped,
        bytes,
        micros,
        is_repeated,
        cut_off,
    } = published;
    if let Some(id) = id {
        json.plain("id", &id);
    }
    json.number("at", moment.millis(*at));
    json.number("delivered", *delivered as u64);
    json.number("dropped", *dropped as u64);
    json.number("bytes", *bytes as u64);
    json.number("micros", *micros);
    if let Some(from) = from {
        json.plain("from", &from);
    }
    if *is_repeated {
        json.flag("repeated", true);
    }
    if !cut_off.is_empty() {
        json.begin_list("cut_off");
        for Tenant { id, address, user } in cut_off {
            json.begin(None);
            write_tenant(*id, *address, user.as_deref(), json);
            json.end();
        }
        json.end_list();
    }
}

/// Checks that a request has a body that can be read.
pub(super) fn check_body(request: &Request<'_>, framing: Framing) -> Result<(), Response> {
    if !is_json(request.head) {
        let why = "Content-Type must be application/json";
        return Err(Response::new(Status::UNSUPPORTED_MEDIA_TYPE, why));
    }
    if framing == Framing::None {
        let why = "Content-Length or chunked transfer coding is required";
        return Err(Response::new(Status::LENGTH_REQUIRED, why));
    }
    Ok(())
}

/// The answer about an id that leads to nothing.
pub(super) fn not_in_history() -> Response {
    let error = unknown("the history has no notification with this id");
    Response::json(Status::NOT_FOUND, error.reply())
}

/// Ends an answer, which nobody keeps.
pub(super) fn respond(json: JsonText) -> Response {
    Response::json(Status::OK, json.finish()).with_field("Cache-Control", "no-store")
}

fn moment_of(request: &Request<'_>) -> Moment {
    Moment {
        now: request.now,
        unix_now: request.unix_now,
    }
}

fn unknown(detail: &str) -> CommandError {
    CommandError::new(ErrorCode::UnknownMessage, detail)
}
