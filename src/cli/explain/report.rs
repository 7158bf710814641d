//! What a server has explained, for people to read: who gets a notification, who doesn't, and because of what.
//!
//! Main entry: [`of`]. Invariant: what comes from peers has nothing in it that a terminal obeys.

use std::fmt::Write as _;

use serde_json::Value;

use crate::cli::output::Plain;

/// The members of a subscription in the order in which people write them.
const MEMBERS: [&str; 3] = ["package", "page", "filters"];

/// The answer to a question, and what to say if there is no connection in it.
pub(super) fn of(answer: &Value, none: Option<String>) -> String {
    let mut report = Report {
        text: String::new(),
        now: answer["now"].as_u64().unwrap_or_default(),
    };
    report.write_summary(answer);
    let connections = entries(&answer["connections"]);
    for connection in connections {
        report.write_connection(connection);
    }
    for ended in entries(&answer["ended"]) {
        report.write_ended(ended);
    }
    if let (Some(none), []) = (none, connections) {
        report.line(0, &none);
    }
    if answer["truncated"] == true {
        let hint = "More was left out: ask for less with --connection, --user or --address.";
        report.line(0, hint);
    }
    report.text
}

struct Report {
    text: String,
    /// Of the server, in milliseconds since the Unix epoch.
    now: u64,
}

impl Report {
    /// A line, without what a terminal would obey.
    fn line(&mut self, indent: usize, line: &str) {
        self.text.extend(std::iter::repeat_n(' ', indent));
        // Writing to a string can't fail.
        let _ = writeln!(self.text, "{}", Plain(line));
    }

    fn write_summary(&mut self, answer: &Value) {
        let published = &answer["published"];
        if published.is_object() {
            let (delivered, dropped) = (&published["delivered"], &published["dropped"]);
            let when = self.ago(published);
            let line = format!("Published {when}: {delivered} delivered, {dropped} dropped.");
            self.line(0, &line);
        }
        if let Some(id) = answer["repeated"].as_str() {
            let line = format!("Its key is that of {id}: nobody would get it again.");
            self.line(0, &line);
        }
        let (getting, open) = (&answer["would_get"], &answer["connections_open"]);
        let place = match answer["scope"] == "node" {
            true => " of this server",
            false => "",
        };
        let line = match getting.as_u64() {
            Some(getting) => format!("{getting} of {open} open connections{place} would get it."),
            None if answer["truncated"] == true => {
                format!(
                    "How many of {open} open connections{place} would get it takes too long to count."
                )
            }
            None => format!("{open} open connections{place}, by the lists that they have now:"),
        };
        self.line(0, &line);
    }

    fn write_connection(&mut self, connection: &Value) {
        self.text.push('\n');
        let verb = match connection["gets"].as_bool() {
            Some(true) => "gets it",
            Some(false) => "does not get it",
            None => "may get it or not",
        };
        self.line(
            0,
            &format!("{} {verb}{}", who(connection), because(connection)),
        );
        let gets = connection["gets"] == true;
        let subscriptions = entries(&connection["subscriptions"]);
        for subscription in subscriptions {
            // Of a connection that gets it, what else it has is of no interest.
            if gets && subscription["matches"] != true {
                continue;
            }
            let line = match &subscription["subscription"] {
                Value::Null => "a long subscription".to_owned(),
                shown => show(shown),
            };
            let matches = subscription["matches"].as_bool();
            let sign = matches.map_or('?', |matches| if matches { '+' } else { '-' });
            self.line(2, &format!("{sign} {line}"));
            if let (Some(false), Some(detail)) = (matches, subscription["detail"].as_str()) {
                self.line(4, detail);
            }
        }
        let shown = subscriptions.len() as u64;
        let total = connection["subscriptions_total"].as_u64().unwrap_or(shown);
        if let (false, Some(more @ 1..)) = (gets, total.checked_sub(shown)) {
            self.line(2, &format!("and {more} more subscriptions"));
        }
        self.write_token(&connection["token"]);
        if let Some(waiting @ 1..) = connection["waiting"].as_u64() {
            self.line(2, &format!("{waiting} bytes wait for it: it reads slowly"));
        }
    }

    fn write_token(&mut self, token: &Value) {
        if !token.is_object() {
            return;
        }
        let allows = match token["allows"] == true {
            true => "allows",
            false => "does not allow",
        };
        let mut line = format!("its token {allows} a subscription that matches");
        if let Some(expires) = token["expires"].as_u64() {
            line += &match expires.checked_sub(self.now) {
                Some(left) => format!("; it expires in {}", span(left)),
                None => "; it has expired".to_owned(),
            };
        }
        self.line(2, &line);
    }

    fn write_ended(&mut self, ended: &Value) {
        let (who, when) = (who(ended), self.ago(ended));
        let how = match (ended["cut_off"] == true, ended["reason"].as_str()) {
            (true, Some(reason)) => format!("was closed by the server {when}: {reason}"),
            (true, None) => format!("was closed by the server {when}"),
            (false, _) => format!("left {when}"),
        };
        self.text.push('\n');
        self.line(0, &format!("{who} {how}"));
    }

    /// When something was.
    fn ago(&self, entry: &Value) -> String {
        let at = entry["at"].as_u64().unwrap_or(self.now);
        format!("{} ago", span(self.now.saturating_sub(at)))
    }
}

fn entries(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A connection with its user and its address, as far as they are known.
fn who(connection: &Value) -> String {
    let text = |name| connection[name].as_str();
    let user = text("user").map(|user| format!("user {user}"));
    let known: Vec<_> = user
        .into_iter()
        .chain(text("peer").map(str::to_owned))
        .collect();
    let id = text("connection").unwrap_or("?");
    match known.is_empty() {
        true => format!("Connection {id}"),
        false => format!("Connection {id} ({})", known.join(", ")),
    }
}

fn because(connection: &Value) -> String {
    let said = connection["detail"].as_str();
    let said = said.or_else(|| connection["reason"].as_str());
    said.map_or_else(String::new, |detail| format!(": {detail}"))
}

/// A subscription as JSON, in the order in which people write it.
fn show(subscription: &Value) -> String {
    let Some(members) = subscription.as_object() else {
        return subscription.to_string();
    };
    let first = MEMBERS
        .iter()
        .filter_map(|name| members.get_key_value(*name));
    let others = members
        .iter()
        .filter(|(name, _)| !MEMBERS.contains(&name.as_str()));
    let members = first.chain(others);
    let members: Vec<_> = members
        .map(|(name, value)| format!("{}:{value}", Value::from(name.as_str())))
        .collect();
    format!("{{{}}}", members.join(","))
}

/// A time in milliseconds, in the unit that suits it.
fn span(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::is_plain;

    fn report(answer: &str, none: Option<&str>) -> String {
        let answer = serde_json::from_str(answer).expect("JSON");
        of(&answer, none.map(str::to_owned))
    }

    #[test]
    fn an_answer_is_told_in_words() {
        let answer = r#"{"now":1790000000123,"scope":"server","would_get":3,"connections_open":125,
            "connections":[
             {"connection":"12.3","peer":"192.0.2.7:50012","user":"17","state":"live","gets":false,"reason":"no-match",
              "detail":"none of its 2 subscriptions matches","waiting":0,
              "token":{"allows":true,"history":true,"expires":1790003600123},
              "subscriptions_total":2,
              "subscriptions":[
               {"subscription":{"filters":{"values":{"state":["new","paid"]}},"package":"shop","page":"orders"},"matches":false,
                "reason":"value","name":"state","detail":"it wants \"new\" or \"paid\" for state; the notification has \"lost\""},
               {"subscription":"Production","matches":false,"reason":"channel","detail":"it wants the channel \"Production\"; the notification has none"}]},
             {"connection":"13.1","state":"catching-up","gets":true,"reason":"catching-up","waiting":65536,
              "subscriptions_total":9,
              "subscriptions":[{"subscription":{"package":"shop","page":"orders"},"matches":true},
               {"subscription":"a","matches":false,"reason":"channel","detail":"no"}]},
             {"connection":"14.1","peer":"a Unix socket","reason":"not-looked-at","subscriptions_total":3,
              "subscriptions":[{"subscription":"a","reason":"not-looked-at"}]}],
            "truncated":true,
            "ended":[{"connection":"9.1","peer":"192.0.2.9:40000","user":"18","at":1789999820123,"reason":"slow-consumer","cut_off":true},
                     {"connection":"8.1","at":1789999999123,"reason":"left","cut_off":false}]}"#;
        assert_eq!(
            report(answer, Some("There is none.")),
            r#"3 of 125 open connections would get it.

Connection 12.3 (user 17, 192.0.2.7:50012) does not get it: none of its 2 subscriptions matches
  - {"package":"shop","page":"orders","filters":{"values":{"state":["new","paid"]}}}
    it wants "new" or "paid" for state; the notification has "lost"
  - "Production"
    it wants the channel "Production"; the notification has none
  its token allows a subscription that matches; it expires in 60 min

Connection 13.1 gets it: catching-up
  + {"package":"shop","page":"orders"}
  65536 bytes wait for it: it reads slowly

Connection 14.1 (a Unix socket) may get it or not: not-looked-at
  ? "a"
  and 2 more subscriptions

Connection 9.1 (user 18, 192.0.2.9:40000) was closed by the server 3 min ago: slow-consumer

Connection 8.1 left 1 s ago
More was left out: ask for less with --connection, --user or --address.
"#
        );
    }

    #[test]
    fn one_that_was_published_and_one_that_is_repeated() {
        let published = r#"{"now":60000,"scope":"node","connections_open":2,
            "published":{"id":"a-1","at":30000,"delivered":3,"dropped":1},"connections":[],"ended":[]}"#;
        assert_eq!(
            report(published, None),
            "Published 30 s ago: 3 delivered, 1 dropped.\n\
             2 open connections of this server, by the lists that they have now:\n"
        );
        let uncounted = r#"{"scope":"server","connections_open":2,"truncated":true}"#;
        assert_eq!(
            report(uncounted, None),
            "How many of 2 open connections would get it takes too long to count.\n\
             More was left out: ask for less with --connection, --user or --address.\n"
        );
        let repeated =
            r#"{"now":1,"scope":"server","would_get":0,"connections_open":2,"repeated":"a-1"}"#;
        assert_eq!(
            report(repeated, Some("There is none.")),
            "Its key is that of a-1: nobody would get it again.\n\
             0 of 2 open connections would get it.\n\
             There is none.\n"
        );
    }

    #[test]
    fn nothing_that_a_terminal_obeys_is_printed() {
        let answer = r#"{"connections":[{"connection":"1.1","user":"\u001b[2J\u009b\u202e\n","gets":true,
            "subscriptions":[{"subscription":"\u007f\u001b","matches":true}]}]}"#;
        let text = report(answer, None);
        assert!(text.chars().all(|c| c == '\n' || is_plain(c)), "{text:?}");
        assert!(
            text.contains(r"user \u{1b}[2J\u{9b}\u{202e}\u{a}"),
            "{text}"
        );
        // Whatever the answer is, there is a report.
        for odd in ["null", "[]", r#"{"connections":[1,null]}"#] {
            assert!(report(odd, None).ends_with('\n'), "{odd}");
        }
    }

    #[test]
    fn times_have_a_unit_that_suits_them() {
        for (millis, expected) in [
            (999, "0 s"),
            (119_999, "119 s"),
            (120_000, "2 min"),
            (7_200_000, "2 h"),
            (172_800_000, "2 days"),
        ] {
            assert_eq!(span(millis), expected);
        }
    }
}
