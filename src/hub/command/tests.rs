//! What commands are read as, and which errors answer what breaks a rule.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::application::Delivered;
use crate::hub::filter::matches;
use crate::hub::index::SubscriptionIndex;
use crate::id::ConnectionId;
use crate::journal::id::EntryId;

fn parse_default(text: &str) -> Result<Command<'_>, CommandError> {
    parse(text, &HubLimits::default())
}

/// The list of a subscriber that sends `list`.
fn subscribe(list: &str) -> Result<String, CommandError> {
    let text = format!(r#"{{"sender":"client","subscriptions":{list}}}"#);
    match parse_default(&text)? {
        Command::Subscribe { subscriptions, .. } => Ok(format!("{subscriptions:?}")),
        other => panic!("{other:?}"),
    }
}

/// The frame's payload for a publisher that sends `text`.
fn publish(text: &str) -> Result<String, CommandError> {
    match parse_default(text)? {
        Command::Publish(publish) => {
            let frame = publish.read(true)?.content.plain();
            Ok(String::from_utf8(frame.payload().to_vec()).expect("text"))
        }
        other => panic!("{other:?}"),
    }
}

fn code<T: fmt::Debug>(result: Result<T, CommandError>) -> &'static str {
    let error = result.expect_err("an error");
    let reply: Value = serde_json::from_str(&error.reply()).expect("JSON");
    assert_eq!(reply["type"], "error");
    assert_eq!(reply["error"]["code"], error.code.as_str());
    assert_eq!(reply["error"]["detail"], error.detail.as_str());
    assert_eq!(reply.as_object().map(|members| members.len()), Some(2));
    error.code.as_str()
}

fn detail<T: fmt::Debug>(result: Result<T, CommandError>) -> String {
    result.expect_err("an error").detail
}

fn publish_code(notification: &str) -> &'static str {
    code(publish(&format!(
        r#"{{"sender":"server","notification":{notification}}}"#
    )))
}

fn values_of(values: &str) -> String {
    let list = format!(r#"[{{"package":"p","page":"q","filters":{{"values":{values}}}}}]"#);
    subscribe(&list).expect("valid")
}

#[test]
fn matching_cases_by_the_oracle_and_by_the_index() {
    let cases = include_str!("../../../tests/data/matching-cases.json");
    let cases: Vec<Value> = serde_json::from_str(cases).expect("JSON");
    assert!(cases.len() > 40);
    for case in cases {
        let subscribe = json!({"sender": "client", "subscriptions": [case["subscription"]]});
        let publish = json!({"sender": "server", "notification": case["notification"]});
        let (subscribe, publish) = (subscribe.to_string(), publish.to_string());
        let Ok(Command::Subscribe { subscriptions, .. }) = parse_default(&subscribe) else {
            panic!("{case}")
        };
        let Ok(Command::Publish(publish)) = parse_default(&publish) else {
            panic!("{case}")
        };
        let notification = publish.read(true).expect("valid").notification;
        assert_eq!(
            matches(&subscriptions[0], &notification),
            case["matches"],
            "{case}"
        );
        let mut index = SubscriptionIndex::default();
        let id = ConnectionId {
            index: 3,
            serial: 9,
        };
        index.replace(id, &subscriptions);
        let mut recipients = Vec::new();
        index.collect_recipients(&notification, &mut recipients);
        assert_eq!(recipients == [id], case["matches"], "{case}");
        index.check_invariants();
    }
}

#[test]
fn bad_messages() {
    let cases = include_str!("../../../tests/data/bad-messages.json");
    let cases: Vec<Value> = serde_json::from_str(cases).expect("JSON");
    assert!(cases.len() > 10);
    for case in cases {
        let text = match (case.get("message"), case.get("text")) {
            (Some(message), _) => message.to_string(),
            (None, Some(text)) => text.as_str().expect("text").to_owned(),
            // The case that is told in words.
            (None, None) => "[".repeat(100_000),
        };
        assert_eq!(code(parse_default(&text)), case["error"], "{case}");
    }
}

#[test]
fn depth_is_harmless_wherever_it_is() {
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let deep_objects = r#"{"a":"#.repeat(100_000) + "1" + &"}".repeat(100_000);
    for deep in [&deep, &deep_objects] {
        assert_eq!(code(parse_default(&deep[..deep.len() - 1])), "invalid-json");
        assert_eq!(
            subscribe(&format!(
                r#"[{{"package":"p","page":"q","x":{deep}}}],"y":{deep}"#
            )),
            subscribe(r#"[{"package":"p","page":"q"}]"#)
        );
        let text = format!(
            r#"{{"sender":"server","notification":{{"package":"p","page":"q","message":{deep},"channel":{deep}}}}}"#
        );
        assert!(publish(&text).is_ok());
        let filters = format!(r#"{{"values":{deep}}}"#);
        let body = format!(r#"{{"package":"p","page":"q","filters":{filters}}}"#);
        assert_eq!(
            code(subscribe(&format!("[{body}]"))),
            "invalid-subscription"
        );
        assert_eq!(publish_code(&body), "invalid-notification");
        assert_eq!(code(subscribe(deep)), "invalid-subscription");
        assert_eq!(
            publish_code(&format!(r#"{{"channel":{deep}}}"#)),
            "invalid-notification"
        );
    }
    assert_eq!(code(parse_default(&deep)), "unknown-message");
    assert_eq!(publish_code(&deep), "invalid-notification");
    assert_eq!(publish_code(&deep_objects), "invalid-notification");
}

#[test]
fn text_that_is_not_json_is_refused_from_everybody() {
    for text in [
        "",
        " ",
        "{",
        "nul",
        r#"{"sender":"server"} x"#,
        r#"{"sender":"server",}"#,
        "{sender:1}",
        r#"{"a":01}"#,
        r#"{"a":"\x"}"#,
        r#"{"a":"\u12g4"}"#,
        r#"{"a":[1,]}"#,
        "{\"a\nb\":1}",
        "{\"a\\n\nb\":1}",
        "{\"x\":{\"a\nb\":1}}",
        "{\"x\":\"a\tb\"}",
        "\u{feff}{}",
        "\u{c}{}",
        "{\"sender\":\"client\",\"subscriptions\":[{\"a\\n\nb\":1}]}",
        "'a'",
        "NaN",
        "-",
        "1.",
    ] {
        assert_eq!(code(parse_default(text)), "invalid-json", "{text:?}");
    }
    for text in [
        "{}",
        "[]",
        "1",
        "null",
        r#""ping""#,
        "1e999",
        r#""\ud800""#,
        " {} \r\n\t",
    ] {
        assert_eq!(code(parse_default(text)), "unknown-message", "{text:?}");
    }
}

#[test]
fn the_grammar_is_that_of_json_and_nothing_else() {
    // Snippets in every order: what `serde_json` takes as JSON is never invalid-json here.
    let snippets = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        r#""a""#,
        "1",
        r#""sender""#,
        r#""client""#,
    ];
    let count = snippets.len();
    for number in 0..count.pow(5) {
        let mut rest = number;
        let mut text = String::new();
        for _ in 0..5 {
            text.push_str(snippets[rest % count]);
            rest /= count;
        }
        let is_json = serde_json::from_str::<IgnoredAny>(&text).is_ok();
        let is_refused = matches!(
            parse_default(&text),
            Err(CommandError {
                code: ErrorCode::InvalidJson,
                ..
            })
        );
        assert_eq!(is_refused, !is_json, "{text}");
    }
}

#[test]
fn sender_decides_and_type_counts_only_without_it() {
    for text in [
        r#"{"type":"ping"}"#,
        r#" {"x":1,"type":"p\u0069ng","subscriptions":1,"subscriptions":2}"#,
        r#"{"\u0074ype":"ping","notification":{}}"#,
    ] {
        assert!(matches!(parse_default(text), Ok(Command::Ping)), "{text}");
    }
    for text in [
        r#"{"type":"ping","type":"ping"}"#,
        r#"{"type":"ping","\u0074ype":"ping"}"#,
        r#"{"type":"pong"}"#,
        r#"{"type":null}"#,
        r#"{"sender":null,"type":"ping"}"#,
        r#"{"sender":"client","type":"ping"}"#,
        r#"{"sender":"Client","subscriptions":[]}"#,
        r#"{"sender":"\ud800","subscriptions":[]}"#,
        r#"{"sender":["client"],"subscriptions":[]}"#,
        r#"{"sender":"server","sender":"server","notification":{"channel":1}}"#,
        r#"{"sender":"client","s\u0065nder":"client","subscriptions":[]}"#,
    ] {
        assert_eq!(code(parse_default(text)), "unknown-message", "{text}");
    }
    // Members that are not named beside this sender, and a type beside a client.
    for text in [
        r#"{"sender":"client","subscriptions":[],"type":1,"type":2}"#,
        r#"{"s\u0065nder":"cl\u0069ent","subscr\u0069ptions":[],"notification":1,"notification":1}"#,
        r#"{"sender":"client","subscriptions":[],"\ud800":"\udfff","\ud800":1e999}"#,
    ] {
        assert!(
            matches!(parse_default(text), Ok(Command::Subscribe { subscriptions, .. }) if subscriptions.is_empty())
        );
    }
    assert!(matches!(
        parse_default(r#"{"sender":"server","subscriptions":1,"subscriptions":2}"#),
        Ok(Command::Publish(_))
    ));
}

#[test]
fn members_that_stand_twice() {
    let twice = r#"{"sender":"server","sender":"server","notification":{}}"#;
    let batch = parse_batch(twice).map(|_| ());
    assert_eq!(
        batch.map_err(|error| error.to_string()),
        Err("unknown-message: duplicate member sender".to_owned())
    );
    let twice = r#"{"sender":"client","subscriptions":[],"subscr\u0069ptions":[]}"#;
    assert_eq!(
        parse_default(twice)
            .map(|_| ())
            .map_err(|error| error.to_string()),
        Err("invalid-subscription: duplicate member subscriptions".to_owned())
    );
    for (list, member) in [
        (
            r#"{"package":"p","page":"q","pack\u0061ge":"p"}"#,
            ".package",
        ),
        (r#"{"package":"p","page":"q","page":"q"}"#, ".page"),
        (
            r#"{"package":"p","page":"q","filters":null,"filters":null}"#,
            ".filters",
        ),
        (
            r#"{"package":"p","page":"q","filters":{"values":null,"v\u0061lues":null}}"#,
            ".filters.values",
        ),
        (
            r#"{"package":"p","page":"q","filters":{"values":{"b":1,"a":1,"\u0062":1}}}"#,
            ".filters.values.b",
        ),
    ] {
        let list = format!(r#"["a",{list}]"#);
        assert_eq!(code(subscribe(&list)), "invalid-subscription");
        assert_eq!(
            detail(subscribe(&list)),
            format!("duplicate member subscriptions[1]{member}")
        );
    }
    assert!(subscribe(r#"[{"package":"p","page":"q","channel":1,"channel":2}]"#).is_ok());
    for text in [
        r#"{"sender":"server","type":"a","type":"a","notification":{"channel":1}}"#,
        r#"{"sender":"server","notification":{"channel":1},"notification":{"channel":1}}"#,
        r#"{"sender":"server","notification":{"channel":1,"ch\u0061nnel":1}}"#,
        r#"{"sender":"server","notification":{"channel":1,"filters":{},"filters":{}}}"#,
        r#"{"sender":"server","notification":{"channel":1,"filters":{"values":{"a":1,"a":2}}}}"#,
    ] {
        let error = publish(text).expect_err("twice");
        assert_eq!(error.code.as_str(), "invalid-notification", "{text}");
        assert!(error.detail.starts_with("duplicate member "), "{error}");
    }
    let own = r#"{"sender":"server","notification":{"channel":1,"message":1,"message":2,"type":1,"type":2}}"#;
    assert!(publish(own).is_ok());
}

#[test]
fn details_name_the_member() {
    let page = r#""package":"p","page":"q""#;
    for (list, expected) in [
        ("{}".to_owned(), "subscriptions must be a list"),
        (
            r#"[{"package":"p"}]"#.to_owned(),
            "subscriptions[0].page is missing",
        ),
        (
            r#"["a",{"page":"p"}]"#.to_owned(),
            "subscriptions[1].package is missing",
        ),
        ("[{}]".to_owned(), "subscriptions[0].package is missing"),
        (
            "[7]".to_owned(),
            "subscriptions[0] must be an object or a string",
        ),
        (
            r#"["\ud800"]"#.to_owned(),
            "subscriptions[0] must be an object or a string",
        ),
        (
            r#"[{"package":1,"page":"q"}]"#.to_owned(),
            "subscriptions[0].package must be a string",
        ),
        (
            format!(r#"[{{{page},"filters":[1]}}]"#),
            "subscriptions[0].filters must be an object",
        ),
        (
            format!(r#"[{{{page},"filters":true}}]"#),
            "subscriptions[0].filters must be an object",
        ),
        (
            format!(r#"[{{{page},"filters":{{"values":[null]}}}}]"#),
            "subscriptions[0].filters.values must be an object, a scalar or a list of scalars",
        ),
        (
            format!(r#"[{{{page},"filters":{{"values":1e999}}}}]"#),
            "subscriptions[0].filters.values must be an object, a scalar or a list of scalars",
        ),
        (
            format!(r#"[{{{page},"filters":{{"values":{{"a":1,"b":null}}}}}}]"#),
            "subscriptions[0].filters.values.b must be a scalar or a list of scalars",
        ),
        (
            format!(r#"[{{{page},"filters":{{"values":{{"\ud800":1}}}}}}]"#),
            "subscriptions[0].filters.values must be an object whose names are Unicode text",
        ),
    ] {
        assert_eq!(detail(subscribe(&list)), expected, "{list}");
    }
    let long = "\u{e9}\\\"".repeat(500);
    let list = format!(r#"[{{{page},"filters":{{"values":{{"{long}":null}}}}}}]"#);
    let error = subscribe(&list).expect_err("null is no scalar");
    assert!(error.detail.len() < 200 && error.detail.contains('…'));
    assert_eq!(code::<()>(Err(error)), "invalid-subscription");
}

#[test]
fn scalars_compare_by_their_text() {
    for (scalar, text) in [
        ("2", "2"),
        ("2.0", "2"),
        (r#""2""#, "2"),
        (r#""2.0""#, "2.0"),
        ("1e2", "100"),
        ("-0", "0"),
        ("-0.0", "0"),
        ("-0e5", "0"),
        ("-1e-400", "0"),
        ("0.1", "0.1"),
        ("9007199254740993", "9007199254740993"),
        ("9007199254740993.0", "9007199254740992"),
        ("18446744073709551615", "18446744073709551615"),
        ("18446744073709551616", "18446744073709552000"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("-9223372036854775809", "-9223372036854776000"),
        ("1E-7", "0.0000001"),
        ("8.41", "8.41"),
        ("false", "false"),
        (r#""\u0061""#, "a"),
        (r#""\ud83d\ude00""#, "\u{1f600}"),
    ] {
        let expected = values_of(&format!(r#"{{"a":["{text}"]}}"#));
        assert_eq!(
            values_of(&format!(r#"{{"a":{scalar}}}"#)),
            expected,
            "{scalar}"
        );
        assert_eq!(
            values_of(&format!(r#"{{"a":[{scalar}]}}"#)),
            expected,
            "{scalar}"
        );
        let nameless = values_of(&format!(r#"["{text}"]"#));
        assert_eq!(values_of(scalar), nameless, "{scalar}");
    }
    assert_eq!(values_of("[true]"), values_of(r#""true""#));
    assert_eq!(values_of(r#"{"a":[true]}"#), values_of(r#"{"a":"true"}"#));
    for nothing in ["null", "{}", "[]"] {
        assert_eq!(values_of(nothing), values_of("true"));
    }
    for bad in [
        "1e999",
        "[-1e999]",
        r#"{"a":1e999}"#,
        r#"{"a":[[]]}"#,
        r#"{"a":{}}"#,
        "[{}]",
    ] {
        let body = format!(r#"{{"package":"p","page":"q","filters":{{"values":{bad}}}}}"#);
        assert_eq!(
            code(subscribe(&format!("[{body}]"))),
            "invalid-subscription",
            "{bad}"
        );
        assert_eq!(publish_code(&body), "invalid-notification", "{bad}");
    }
}

#[test]
fn limits_at_max_and_one_more() {
    let limits = HubLimits {
        subscriptions_max: 3,
        values_max: 5,
        ..HubLimits::default()
    };
    let code_of = |list: &str| {
        let text = format!(r#"{{"sender":"client","subscriptions":{list}}}"#);
        parse(&text, &limits)
            .map(|_| ())
            .map_err(|error| error.code.as_str())
    };
    assert_eq!(code_of(r#"["a","b","c"]"#), Ok(()));
    assert_eq!(code_of(r#"["a","b","c",7]"#), Err("too-many-subscriptions"));
    let with_values = |values: &str| {
        code_of(&format!(
            r#"["a",{{"package":"p","page":"q","filters":{{"values":{values}}}}}]"#
        ))
    };
    for four in [
        "[1,2,3,4]",
        r#"{"a":[1,2,3],"b":true}"#,
        r#"{"a":[],"b":[1,2],"c":3}"#,
    ] {
        assert_eq!(with_values(four), Ok(()), "{four}");
    }
    for five in [
        "[1,2,3,4,4]",
        r#"{"a":[1,2,3],"b":true,"c":true}"#,
        r#"{"a":[],"b":[1,2],"c":3,"d":[]}"#,
    ] {
        assert_eq!(with_values(five), Err("too-many-subscriptions"), "{five}");
    }
}

#[test]
fn numbers_written_out_at_max_and_one_more() {
    let member =
        |values: &str| format!(r#"{{"package":"p","page":"q","filters":{{"values":{values}}}}}"#);
    let subscribe = |values: &str| {
        let text = format!(
            r#"{{"sender":"client","subscriptions":[{}]}}"#,
            member(values)
        );
        parse(&text, &HubLimits::default()).map(drop)
    };
    let publish = |values: &str| {
        let text = format!(r#"{{"sender":"server","notification":{}}}"#, member(values));
        parse(&text, &HubLimits::default()).and_then(|command| match command {
            Command::Publish(publish) => publish.read(true).map(drop),
            other => panic!("{other:?}"),
        })
    };
    // A dozen numbers of 326 bytes, and a text.
    let values = |length| format!(r#"[{}"{}"]"#, "5e-324,".repeat(12), "x".repeat(length));
    let (at_max, one_more) = (values(184), values(185));
    assert_eq!((subscribe(&at_max), publish(&at_max)), (Ok(()), Ok(())));
    let error = subscribe(&one_more).expect_err("too long");
    assert_eq!(error.code, ErrorCode::TooManySubscriptions);
    let detail = "must have at most 4096 bytes of values, with numbers written out";
    assert_eq!(error.detail, format!("subscriptions {detail}"));
    let error = publish(&one_more).expect_err("too long");
    assert_eq!(error.code, ErrorCode::InvalidNotification);
    assert_eq!(error.detail, format!("notification {detail}"));
    // As many bytes as its JSON has, if those are more.
    let values = |spaces| format!("[{}{}]", " ".repeat(spaces), ["5e-324"; 20].join(","));
    let spaces = 20 * 326 - member(&values(0)).len();
    assert_eq!(publish(&values(spaces)), Ok(()));
    assert!(publish(&values(spaces - 1)).is_err());
    let many = format!("[{}1e308]", "1e308,".repeat(400));
    let error = subscribe(&many).expect_err("too long");
    assert_eq!(error.code, ErrorCode::TooManySubscriptions);
}

#[test]
fn a_list_alone_is_read_like_that_of_a_message() {
    let limits = HubLimits {
        subscriptions_max: 2,
        values_max: 3,
        ..HubLimits::default()
    };
    let page = r#""package":"p","p\u0061ge":"q""#;
    let deep = "[".repeat(100_000);
    for list in [
        "[]".to_owned(),
        format!(r#" ["\u0061",{{{page},"filters":{{"values":{{"a":[1,"b"]}}}}}}] "#),
        format!(r#"[{{{page},"filters":{{"values":{{"a":true,"b":[]}}}}}}]"#),
        format!(r#"[{{{page}}},{{{page},"filters":{{"values":[1,2.5]}}}}]"#),
        "[1]".to_owned(),
        "null".to_owned(),
        r#"["a","b","c"]"#.to_owned(),
        format!(r#"["a",{{{page},"filters":{{"values":[1,2,3]}}}}]"#),
        format!("{deep}{}", "]".repeat(100_000)),
    ] {
        let text = format!(r#"{{"sender":"client","subscriptions":{list}}}"#);
        let expected = parse(&text, &limits).map(|command| match command {
            Command::Subscribe { subscriptions, .. } => subscriptions,
            other => panic!("{other:?}"),
        });
        assert_eq!(parse_subscriptions(&list, &limits), expected, "{list:.80}");
    }
    for bad in ["", "[", "[] []", "[\"a\n\"]", &deep] {
        assert_eq!(code(parse_subscriptions(bad, &limits)), "invalid-json");
    }
}

#[test]
fn a_notification_goes_out_as_it_came() {
    for notification in [
        r#"{"channel":1.0}"#,
        "{ \"package\" : \"p\",\n\t\"page\":\"\\u0071\", \"n\": 9007199254740993, \"m\":\"\\u00e9\\ud800\" }",
        r#"{"package":"p","page":"q","channel":{"id":[1e999]}}"#,
        r#"{"package":"p","page":"q","channel":null,"type":"chat"}"#,
    ] {
        let text = format!(r#" {{"notification": {notification} ,"sender":"server"}}"#);
        assert_eq!(
            publish(&text),
            Ok(format!(
                r#"{{"type":"notification","notification":{notification}}}"#
            ))
        );
    }
    let typed = |kind: &str| {
        publish(&format!(
            r#"{{"sender":"server","type":{kind},"notification":{{"channel":1}}}}"#
        ))
    };
    for kind in [
        r#""chat""#,
        r#""refreshcontent""#,
        r#""""#,
        r#""a\"b\u00e9""#,
        r#""ping""#,
    ] {
        assert_eq!(
            typed(kind),
            Ok(format!(
                r#"{{"type":{kind},"notification":{{"channel":1}}}}"#
            ))
        );
    }
    for kind in [
        r#""subscribed""#,
        r#""p\u006fng""#,
        r#""error""#,
        r#""published""#,
        "1",
        "null",
        r#"["a"]"#,
        r#""\ud800""#,
    ] {
        assert_eq!(code(typed(kind)), "invalid-notification", "{kind}");
    }
}

#[test]
fn notifications_that_are_refused() {
    for notification in [
        "{}",
        "[]",
        "null",
        r#""a""#,
        r#"{"package":"p"}"#,
        r#"{"page":"q"}"#,
        r#"{"package":"p","channel":"a"}"#,
        r#"{"package":null,"page":null,"channel":"a"}"#,
        r#"{"package":"p","page":1}"#,
        r#"{"channel":null}"#,
        r#"{"channel":["a"]}"#,
        r#"{"channel":{}}"#,
        r#"{"channel":1e999}"#,
        r#"{"channel":"\ud800"}"#,
        r#"{"channel":1,"filters":7}"#,
        r#"{"channel":1,"filters":[1]}"#,
        r#"{"channel":1,"filters":{"values":{"a":null}}}"#,
        r#"{"package":"p","page":"q","filters":{"values":[[]]}}"#,
    ] {
        assert_eq!(
            publish_code(notification),
            "invalid-notification",
            "{notification}"
        );
    }
    assert_eq!(
        detail(publish(r#"{"sender":"server"}"#)),
        "notification is missing"
    );
}

#[test]
fn answers() {
    let seconds = Duration::from_secs;
    assert_eq!(
        subscribed_reply(2, seconds(25), None),
        r#"{"type":"subscribed","subscriptions":2,"heartbeat":25}"#
    );
    let half = subscribed_reply(0, Duration::from_millis(500), None);
    assert!(half.ends_with(r#""heartbeat":0.5}"#), "{half}");
    let receipt = |dropped| Receipt {
        delivered: Delivered { queued: 3, dropped },
        id: None,
        is_repeated: false,
    };
    let (some, cut) = (receipt(0), receipt(1));
    assert_eq!(published_reason(&some), r#"{"delivered":3}"#);
    assert_eq!(published_reason(&cut), r#"{"delivered":3,"dropped":1}"#);
    assert_eq!(
        published_reply(&some),
        r#"{"type":"published","delivered":3}"#
    );
    assert_eq!(
        published_reply(&cut),
        r#"{"type":"published","delivered":3,"dropped":1}"#
    );
    assert_eq!(
        close_reason("slow-consumer", 4200),
        r#"{"reason":"slow-consumer","retry":4200}"#
    );
}

#[test]
fn answers_with_ids() {
    let id: EntryId = "0123456789abcdef-42".parse().expect("an id");
    let subscribed = |resumption| subscribed_reply(1, Duration::from_secs(25), Some(resumption));
    let start =
        r#"{"type":"subscribed","subscriptions":1,"heartbeat":25,"id":"0123456789abcdef-42""#;
    assert_eq!(subscribed(Resumption::From(id)), format!("{start}}}"));
    let since = "0123456789abcdef-42";
    assert_eq!(
        subscribed(Resumption::Resumed { since }),
        format!(r#"{start},"resumed":true}}"#)
    );
    let reason = "expired";
    assert_eq!(
        subscribed(Resumption::NotResumed { now: id, reason }),
        format!(r#"{start},"resumed":false,"reason":"expired"}}"#)
    );
    assert_eq!(
        caught_up_message(id, 3),
        r#"{"type":"caught-up","id":"0123456789abcdef-42","missed":3}"#
    );
    assert_eq!(
        numbered_pong_reply(id),
        r#"{"type":"pong","id":"0123456789abcdef-42"}"#
    );
    assert_eq!(position_reply(id), r#"{"id":"0123456789abcdef-42"}"#);
    let delivered = Delivered {
        queued: 1_000_000,
        dropped: 1_000_000,
    };
    let longest = Receipt {
        delivered,
        id: "ffffffffffffffff-18446744073709551615".parse().ok(),
        is_repeated: true,
    };
    // What a Close frame has room for.
    assert!(published_reason(&longest).len() <= 123);
    let repeated = Receipt {
        delivered: Delivered {
            queued: 2,
            dropped: 0,
        },
        id: Some(id),
        is_repeated: true,
    };
    assert_eq!(
        batch_reply(&[repeated], true),
        r#"[{"delivered":2,"id":"0123456789abcdef-42","repeated":true}]"#
    );
}

#[test]
fn since_is_a_string() {
    let since = |members: &str| {
        let text = format!(r#"{{"sender":"client","subscriptions":[]{members}}}"#);
        match parse_default(&text)? {
            Command::Subscribe { since, .. } => Ok(since.map(Cow::into_owned)),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(since(""), Ok(None));
    assert_eq!(since(r#","since":"""#), Ok(Some(String::new())));
    assert_eq!(since(r#","since":"\u0061""#), Ok(Some("a".to_owned())));
    for members in [
        r#","since":null"#,
        r#","since":1"#,
        r#","since":[]"#,
        r#","since":"\ud800""#,
        r#","since":"","since":"""#,
    ] {
        assert_eq!(code(since(members)), "invalid-subscription", "{members}");
    }
}

#[test]
fn keep_and_key_are_checked() {
    let read = |members: &str, takes_keys| {
        let notification = r#""notification":{"channel":"a"}"#;
        let text = format!(r#"{{"sender":"server",{notification}{members}}}"#);
        // What is read borrows from the text.
        let text: &'static str = Box::leak(text.into_boxed_str());
        match parse_default(text)? {
            Command::Publish(publish) => publish.read(takes_keys).map(|publication| {
                let key = publication.key.map(Cow::into_owned);
                (publication.is_kept, key)
            }),
            other => panic!("{other:?}"),
        }
    };
    let key = |text: &str| Some(text.to_owned());
    assert_eq!(read("", false), Ok((true, None)));
    assert_eq!(read(r#","keep":true"#, false), Ok((true, None)));
    assert_eq!(read(r#","keep":false"#, false), Ok((false, None)));
    assert_eq!(read(r#","key":"\u0061""#, true), Ok((true, key("a"))));
    let longest = "é".repeat(64);
    let members = format!(r#","key":"{longest}""#);
    assert_eq!(read(&members, true), Ok((true, key(&longest))));
    for members in [
        r#","keep":null"#,
        r#","keep":0"#,
        r#","keep":"false""#,
        r#","keep":true,"keep":true"#,
        r#","key":"""#,
        r#","key":null"#,
        r#","key":1"#,
        r#","key":"a","key":"a""#,
        r#","key":"a","keep":false"#,
        &format!(r#","key":"{longest}a""#),
    ] {
        assert_eq!(
            code(read(members, true)),
            "invalid-notification",
            "{members}"
        );
    }
    assert_eq!(code(read(r#","key":"a""#, false)), "invalid-notification");
}

#[test]
fn an_entry_of_a_stream_is_a_notification_without_a_key_and_takes_a_position_if_it_is_kept() {
    let notification = r#""notification":{"channel":"a"}"#;
    for (members, is_kept) in [
        ("", true),
        (r#""sender":"server","#, true),
        (r#""token":["x"],"since":1,"other":{},"#, true),
        (r#""keep":true,"type":"x","#, true),
        (r#""keep":false,"#, false),
    ] {
        let json = format!("{{{members}{notification}}}");
        let entry = parse_entry(&json).expect("valid");
        assert_eq!((entry.is_kept, entry.key), (is_kept, None));
        assert_eq!(takes_position(&json), is_kept);
    }
    for json in [
        "",
        "[]",
        "{}",
        &format!("[{{{notification}}}]"),
        &format!(r#"{{"key":"a",{notification}}}"#),
        &format!(r#"{{"key":null,{notification}}}"#),
        &format!(r#"{{"sender":"client",{notification}}}"#),
        &format!(r#"{{"type":"gap",{notification}}}"#),
        &format!("{{{notification},{notification}}}"),
    ] {
        assert!(
            parse_entry(json).is_err() && !takes_position(json),
            "{json}"
        );
    }
    // However long it is.
    let long = format!(
        r#"{{"notification":{{"channel":"a","x":"{}"}}}}"#,
        "x".repeat(4 << 20)
    );
    assert!(takes_position(&long));
}

#[test]
fn what_is_told_of_redis_has_one_form() {
    let id = "5-1-0123456789abcdef".parse().expect("an id");
    let gap = r#"{"type":"gap","id":"5-1-0123456789abcdef","reason":"lost"}"#;
    assert_eq!(gap_message(id, "lost"), gap);
    assert_eq!(ErrorCode::Unavailable.as_str(), "unavailable");
}

#[test]
fn a_question_names_one_notification_and_at_most_one_of_whom() {
    let whom = |text| parse_question(text).map(|question| question.whom);
    let user = |text: &str| Ok(Whom::User(text.to_owned().into()));
    assert_eq!(whom(r#"{"notification":{}}"#), Ok(Whom::Anybody));
    assert_eq!(whom(r#"{"id":"a-1","user":"\u0061"}"#), user("a"));
    let address = Whom::Address("192.0.2.7".parse().expect("an address"));
    let mapped = r#"{"id":"a-1","address":"::ffff:192.0.2.7","other":[{}]}"#;
    assert_eq!(whom(mapped), Ok(address));
    let pasted = r#"{"sender":"server","type":"x","notification":{},"connection":"12.3"}"#;
    let id = ConnectionId {
        index: 12,
        serial: 3,
    };
    assert_eq!(whom(pasted), Ok(Whom::Connection(id)));
    for (text, detail) in [
        ("{}", "notification is missing"),
        ("7", "notification is missing"),
        (r#"[{"id":"a-1"}]"#, "notification is missing"),
        (r#"{"id":"a-1","notification":{}}"#, "exclude each other"),
        (r#"{"id":7}"#, "id must be a string"),
        (r#"{"id":"a","id":"a"}"#, "id must be a string"),
        (r#"{"id":"a","user":"a","address":"::1"}"#, "exclude"),
        (r#"{"id":"a","connection":"12"}"#, "like 12.3"),
        (r#"{"id":"a","address":"::1:80x"}"#, "without a port"),
        (r#"{"id":"a""#, "not JSON"),
    ] {
        let error = whom(text).expect_err(text);
        assert!(error.detail.contains(detail), "{text}: {error}");
    }
}
