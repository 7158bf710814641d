//! The history in a directory: what survives which end of the process, and when it isn't believed.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::helpers::http::{Http, figures, post};
use crate::helpers::numbered::{
    caught_up, id_of, not_resumed, numbered, numbered_subscriber, position, publish_all,
    publish_kept, publish_whole, resume, resumed, wait_for_figure, wait_until,
};
use crate::helpers::receipts::{split_id, split_ids};
use crate::helpers::{Client, Ended, Server, message, run};

const C: &str = r#"{"channel":"c"}"#;

/// A directory that isn't there yet; removed when the test is over.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("crieur-history-{}-{number}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("a path of ours is UTF-8")
    }

    fn server(&self, flags: &[&str]) -> Server {
        Server::with(&[&["--history-directory", self.path()], flags].concat())
    }

    /// The segments, and how long they are.
    fn segments(&self) -> Vec<(PathBuf, u64)> {
        ["segment-0", "segment-1"]
            .map(|name| self.0.join(name))
            .into_iter()
            .map(|path| {
                (
                    path.clone(),
                    fs::metadata(path).map_or(0, |data| data.len()),
                )
            })
            .collect()
    }

    /// Cuts bytes off the end of the one segment that has something.
    fn tear(&self, bytes: u64) {
        let mut segments = self.segments();
        segments.retain(|(_, length)| *length > 0);
        assert_eq!(segments.len(), 1, "one is enough for these tests");
        let (path, length) = &segments[0];
        let file = OpenOptions::new().write(true).open(path);
        let file = file.expect("it is ours");
        file.set_len(length - bytes).expect("it is longer");
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // A test may have ended before it was made.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn on_channel(n: usize) -> String {
    format!(r#"{{"channel":"c","n":{n}}}"#)
}

/// Ends a server in one of two ways.
fn end(mut server: Server, is_killed: bool) {
    if is_killed {
        server.kill();
    } else {
        server.terminate();
        assert_eq!(server.wait().status, Some(0));
    }
}

fn failed_start(flags: &[&str]) -> Ended {
    let ended = run(&[&["serve", "--listen", "127.0.0.1:0"], flags].concat(), "");
    assert_eq!(ended.status, Some(1), "{ended:?}");
    ended
}

#[test]
fn what_was_published_while_the_history_was_off_makes_earlier_ids_unknown() {
    let directory = Directory::new();
    let server = directory.server(&[]);
    let since = position(&server);
    publish_all(&server, &[on_channel(0)]);
    end(server, false);
    let server = directory.server(&["--history-seconds", "0"]);
    server.wait_for_line("the history is off");
    publish_all(&server, &[on_channel(1)]);
    end(server, false);
    let server = directory.server(&[]);
    let (_, answer) = resume(&server, r#"["c"]"#, &since);
    assert_eq!(answer, not_resumed(1, &position(&server), "unknown"));
}

#[test]
fn what_was_missed_over_a_restart_is_caught_up_with() {
    for is_killed in [true, false] {
        let directory = Directory::new();
        let server = directory.server(&[]);
        let start = position(&server);
        let all: Vec<_> = (0..10).map(on_channel).collect();
        let mut ids = vec![start];
        ids.extend(publish_all(&server, &all));
        end(server, is_killed);
        let server = directory.server(&[]);
        server.wait_for_line("with 10 notifications");
        assert_eq!(position(&server), ids[10]);
        for (at, since) in ids.iter().enumerate() {
            let (mut client, answer) = resume(&server, r#"["c"]"#, since);
            assert_eq!(answer, resumed(1, since));
            for n in at..10 {
                assert_eq!(client.whole_text(), numbered(&ids[n + 1], &all[n]));
            }
            assert_eq!(client.whole_text(), caught_up(&ids[10], 10 - at));
        }
        // What comes has an id that was never given, and is behind what was there.
        let next = publish_kept(&server, C);
        assert!(!ids.contains(&next));
        let (mut client, answer) = resume(&server, r#"["c"]"#, &ids[9]);
        assert_eq!(answer, resumed(1, &ids[9]));
        client.expect_texts(&[numbered(&ids[10], &all[9]), numbered(&next, C)]);
        assert_eq!(client.whole_text(), caught_up(&next, 2));
    }
}

#[test]
fn ids_of_every_earlier_process_are_known() {
    let directory = Directory::new();
    let (mut all, mut ids) = (Vec::<Option<String>>::new(), Vec::new());
    for round in 0..6 {
        let server = directory.server(&[]);
        ids.push(position(&server));
        all.push(None);
        for (n, since) in ids.iter().enumerate() {
            let (mut client, answer) = resume(&server, r#"["c"]"#, since);
            assert_eq!(answer, resumed(1, since), "{round}");
            let behind = (n..ids.len()).filter_map(|n| Some((&ids[n], all[n].as_ref()?)));
            let behind = behind.filter(|(id, _)| *id != since);
            let expected: Vec<String> = behind.map(|(id, text)| numbered(id, text)).collect();
            client.expect_texts(&expected);
            assert_eq!(
                client.whole_text(),
                caught_up(&ids[ids.len() - 1], expected.len())
            );
        }
        // One of them publishes nothing.
        if round != 3 {
            for n in 0..3 {
                let notification = on_channel(10 * round + n);
                ids.push(publish_kept(&server, &notification));
                all.push(Some(notification));
            }
        }
        end(server, round % 2 == 0);
    }
}

#[test]
fn what_survives_has_its_type_its_bytes_and_its_matches() {
    let directory = Directory::new();
    let server = directory.server(&[]);
    let start = position(&server);
    let notification = concat!(
        "{ \"package\":\t\"p\",\"page\":\"q\" ,\n\"n\":[1.0,-0,1E+2],\"text\":\"\\u00e9 é 😀\",",
        r#""filters":{"values":{"a":["1","2"],"b":"3"}}}"#
    );
    let message =
        format!(r#"{{"sender":"server","type":"a\u0062\"c","notification":{notification}}}"#);
    let mut http = Http::connect(&server);
    http.send(post(&format!("[{message},{message}]")));
    let (_, ids) = split_ids(&http.receive().2);
    end(server, true);
    let server = directory.server(&[]);
    let page =
        |values: &str| format!(r#"[{{"package":"p","page":"q","filters":{{"values":{values}}}}}]"#);
    for values in ["true", r#"{"a":"2","b":true}"#, r#"["3"]"#] {
        let (mut client, _) = resume(&server, &page(values), &start);
        for id in &ids {
            let text =
                format!(r#"{{"type":"a\u0062\"c","id":"{id}","notification":{notification}}}"#);
            assert_eq!(client.whole_text(), text);
        }
        assert_eq!(client.whole_text(), caught_up(&ids[1], 2));
    }
    let (mut client, _) = resume(&server, &page(r#"{"a":"3"}"#), &start);
    assert_eq!(client.whole_text(), caught_up(&ids[1], 0));
}

#[test]
fn a_key_survives_and_who_had_its_notification_does_not() {
    let directory = Directory::new();
    let server = directory.server(&[]);
    let mut there = numbered_subscriber(&server, r#"["c"]"#);
    let keyed = r#"{"sender":"server","key":"k\u00e9y","notification":{"channel":"c"}}"#;
    let (receipt, id) = split_id(&publish_whole(&server, keyed));
    assert_eq!(receipt, r#"{"delivered":1}"#);
    assert_eq!(there.whole_text(), numbered(&id, C));
    end(server, true);
    let server = directory.server(&[]);
    let repeated = format!(r#"{{"delivered":0,"id":"{id}","repeated":true}}"#);
    assert_eq!(publish_whole(&server, keyed), repeated);
}

#[test]
fn what_was_not_kept_does_not_survive() {
    let directory = Directory::new();
    let server = directory.server(&[]);
    let start = position(&server);
    let unkept = format!(r#"{{"sender":"server","keep":false,"notification":{C}}}"#);
    assert_eq!(publish_whole(&server, &unkept), r#"{"delivered":0}"#);
    end(server, true);
    let server = directory.server(&[]);
    assert_eq!(position(&server), start);
    let (mut client, answer) = resume(&server, r#"["c"]"#, &start);
    assert_eq!(answer, resumed(1, &start));
    assert_eq!(client.whole_text(), caught_up(&start, 0));
}

#[test]
fn without_a_directory_nothing_survives() {
    let mut server = Server::start();
    let (start, id) = (position(&server), publish_kept(&server, C));
    server.kill();
    let server = Server::start();
    for since in [start, id] {
        let answer = resume(&server, r#"["c"]"#, &since).1;
        assert_eq!(answer, not_resumed(1, &position(&server), "unknown"));
    }
}

#[test]
fn a_record_that_was_being_written_is_cut_off() {
    let directory = Directory::new();
    let server = directory.server(&[]);
    let ids = publish_all(&server, &[on_channel(0), on_channel(1), on_channel(2)]);
    end(server, true);
    directory.tear(1);
    let server = directory.server(&[]);
    server.wait_for_line("with 2 notifications");
    assert_eq!(position(&server), ids[1]);
    let (mut client, answer) = resume(&server, r#"["c"]"#, &ids[0]);
    assert_eq!(answer, resumed(1, &ids[0]));
    client.expect_texts(&[numbered(&ids[1], &on_channel(1)), caught_up(&ids[1], 1)]);
    // Whatever was told of the last, it isn't there; and its id isn't given again.
    let answer = resume(&server, r#"["c"]"#, &ids[2]).1;
    assert_eq!(answer, not_resumed(1, &ids[1], "unknown"));
    let next = publish_kept(&server, C);
    assert_ne!(next, ids[2]);
    let answer = resume(&server, r#"["c"]"#, &ids[2]).1;
    assert_eq!(answer, not_resumed(1, &next, "unknown"));
}

#[test]
fn an_array_that_was_being_written_is_cut_off_whole() {
    let directory = Directory::new();
    let server = directory.server(&[]);
    let first = publish_kept(&server, C);
    let mut http = Http::connect(&server);
    let parts: Vec<_> = (0..20).map(|n| message(&on_channel(n))).collect();
    http.send(post(&format!("[{}]", parts.join(","))));
    let (_, ids) = split_ids(&http.receive().2);
    end(server, true);
    directory.tear(1);
    let server = directory.server(&[]);
    assert_eq!(position(&server), first);
    for since in &ids {
        let answer = resume(&server, r#"["c"]"#, since).1;
        assert_eq!(answer, not_resumed(1, &first, "unknown"));
    }
}

#[test]
fn files_that_are_damaged_are_not_believed() {
    for damage in 0..3 {
        let directory = Directory::new();
        let server = directory.server(&[]);
        let ids = publish_all(&server, &[C; 20]);
        end(server, true);
        let mut segments = directory.segments();
        segments.retain(|(_, length)| *length > 0);
        let (path, length) = &segments[0];
        match damage {
            0 => fs::write(path, "nonsense").expect("it is ours"),
            1 => fs::remove_file(path).expect("it is ours"),
            _ => {
                let mut bytes = fs::read(path).expect("it is ours");
                bytes[*length as usize / 2] ^= 1;
                fs::write(path, bytes).expect("it is ours");
            }
        }
        let server = directory.server(&[]);
        for since in &ids {
            let answer = resume(&server, r#"["c"]"#, since).1;
            assert!(!answer.contains(r#""resumed":true"#), "{damage}: {answer}");
        }
        // It begins afresh, and that survives.
        let start = position(&server);
        let id = publish_kept(&server, C);
        end(server, true);
        let server = directory.server(&[]);
        let (mut client, answer) = resume(&server, r#"["c"]"#, &start);
        assert_eq!(answer, resumed(1, &start));
        client.expect_texts(&[numbered(&id, C), caught_up(&id, 1)]);
    }
}

#[test]
fn much_more_than_the_history_survives_as_much_as_it_holds() {
    let directory = Directory::new();
    let flags = ["--history-bytes", "200000"];
    let server = directory.server(&flags);
    let text = "x".repeat(4000);
    let notification = |n: usize| format!(r#"{{"channel":"c","n":{n},"text":"{text}"}}"#);
    let all: Vec<_> = (0..500).map(notification).collect();
    let ids = publish_all(&server, &all);
    end(server, true);
    let lengths = directory.segments();
    assert!(
        lengths.iter().all(|(_, length)| *length < 600_000),
        "{lengths:?}"
    );
    let server = directory.server(&flags);
    assert_eq!(position(&server), ids[499]);
    let (mut client, answer) = resume(&server, r#"["c"]"#, &ids[470]);
    assert_eq!(answer, resumed(1, &ids[470]));
    for n in 471..500 {
        assert!(client.whole_text() == numbered(&ids[n], &all[n]), "{n}");
    }
    assert_eq!(client.whole_text(), caught_up(&ids[499], 29));
    let answer = resume(&server, r#"["c"]"#, &ids[0]).1;
    assert_eq!(answer, not_resumed(1, &ids[499], "expired"));
}

#[test]
fn what_was_too_old_does_not_get_young_by_a_restart() {
    let directory = Directory::new();
    let flags = ["--history-seconds", "1"];
    let server = directory.server(&flags);
    let (start, id) = (position(&server), publish_kept(&server, C));
    end(server, true);
    // When this is too old elsewhere, so is what was before it.
    let elsewhere = Server::with(&flags);
    let (later, _) = (position(&elsewhere), publish_kept(&elsewhere, C));
    wait_until("it is too old", || {
        let answer = resume(&elsewhere, r#"["c"]"#, &later).1;
        !answer.contains(r#""resumed":true"#)
    });
    let server = directory.server(&flags);
    let answer = resume(&server, r#"["c"]"#, &start).1;
    assert_eq!(answer, not_resumed(1, &id, "expired"));
    // The newest is as good as ever.
    assert_eq!(resume(&server, r#"["c"]"#, &id).1, resumed(1, &id));
}

#[test]
fn an_id_survives_starts_that_publish_nothing() {
    let directory = Directory::new();
    let server = directory.server(&[]);
    let (start, id) = (position(&server), publish_kept(&server, C));
    end(server, true);
    for _ in 0..70 {
        end(directory.server(&[]), true);
    }
    let server = directory.server(&[]);
    assert_eq!(position(&server), id);
    for since in [&start, &id] {
        assert_eq!(resume(&server, r#"["c"]"#, since).1, resumed(1, since));
    }
}

#[test]
fn a_directory_is_one_servers() {
    let directory = Directory::new();
    let first = directory.server(&[]);
    let id = publish_kept(&first, C);
    let refused = failed_start(&["--history-directory", directory.path()]);
    assert!(
        refused.stderr.contains("--history-directory of its own"),
        "{}",
        refused.stderr
    );
    // It has done no harm, and what there is is nobody else's to read.
    assert_eq!(position(&first), id);
    let mode = fs::metadata(&directory.0)
        .expect("it is there")
        .permissions();
    assert_eq!(mode.mode() & 0o777, 0o700);
    end(first, true);
    let second = directory.server(&[]);
    assert_eq!(position(&second), id);
}

#[test]
fn a_file_is_no_directory() {
    let directory = Directory::new();
    fs::create_dir(&directory.0).expect("a new directory");
    let file = directory.0.join("file");
    fs::write(&file, "").expect("a new file");
    let path = file.to_str().expect("a path of ours is UTF-8");
    let refused = failed_start(&["--history-directory", path]);
    assert!(
        refused.stderr.contains("not a directory"),
        "{}",
        refused.stderr
    );
}

#[test]
fn a_failed_write_is_told_once_and_the_files_are_not_believed_later() {
    let directory = Directory::new();
    let flags = ["--history-directory", directory.path()];
    // A file may have 64 KiB; what a write beyond that gets is an error.
    let mut server = Server::after("trap '' XFSZ && ulimit -f 128", &flags);
    let start = position(&server);
    let mut client = numbered_subscriber(&server, r#"["c"]"#);
    let text = "x".repeat(4000);
    let notification = |n: usize| format!(r#"{{"channel":"c","n":{n},"text":"{text}"}}"#);
    let all: Vec<_> = (0..60).map(notification).collect();
    let ids = publish_all(&server, &all);
    for (id, notification) in ids.iter().zip(&all) {
        assert!(client.whole_text() == numbered(id, notification));
    }
    wait_for_figure(&server, "crieur_history_write_errors_total 1");
    server.wait_for_line("cannot write the history to disk");
    let told = server
        .log()
        .matches("cannot write the history to disk")
        .count();
    assert_eq!(told, 1);
    // It goes on in memory.
    let (mut late, answer) = resume(&server, r#"["c"]"#, &start);
    assert_eq!(answer, resumed(1, &start));
    for (id, notification) in ids.iter().zip(&all) {
        assert!(late.whole_text() == numbered(id, notification));
    }
    assert_eq!(late.whole_text(), caught_up(&ids[59], 60));
    server.kill();
    let server = directory.server(&[]);
    for since in [&start, &ids[0], &ids[30], &ids[59]] {
        let answer = resume(&server, r#"["c"]"#, since).1;
        assert_eq!(answer, not_resumed(1, &position(&server), "unknown"));
    }
    assert!(figures(&server).contains("\ncrieur_history_write_errors_total 0\n"));
}

#[test]
fn a_directory_is_of_no_use_without_a_history() {
    let directory = Directory::new();
    let server = directory.server(&["--history-bytes", "0"]);
    server.wait_for_line("--history-directory has no effect");
    publish_kept(&server, C);
    assert!(!directory.0.exists());
}

#[test]
fn whatever_anybody_had_seen_is_there_after_a_kill() {
    let directory = Directory::new();
    let mut last = None;
    let (mut seen, mut acknowledged) = (Vec::<String>::new(), 0);
    for round in 0..5 {
        let mut server = directory.server(&[]);
        let since = last.clone().unwrap_or_else(|| position(&server));
        let (mut client, answer) = resume(&server, r#"["c"]"#, &since);
        assert_eq!(answer, resumed(1, &since), "{round}");
        let mut publisher = Client::connect_with(&server, "/publish", &[]);
        // What was acknowledged is repeated, and so is what may not have been taken.
        let again = acknowledged.max(1) - 1;
        let keyed = |n: usize| {
            let notification = on_channel(n);
            format!(r#"{{"sender":"server","key":"{n}","notification":{notification}}}"#)
        };
        for n in again..again + 300 {
            publisher.send(&keyed(n));
        }
        let mut answers = 0;
        for _ in 0..100 + 50 * round {
            publisher.text();
            answers += 1;
        }
        acknowledged = again + answers;
        // The client reads as far as it happens to.
        let mut to_read = 50;
        while to_read > 0 {
            let text = client.whole_text();
            last = Some(id_of(&text));
            if !text.starts_with(r#"{"type":"caught-up","#) {
                seen.push(text);
                to_read -= 1;
            }
        }
        server.kill();
    }
    let server = directory.server(&[]);
    let since = last.expect("it has read");
    let (mut client, answer) = resume(&server, r#"["c"]"#, &since);
    assert_eq!(answer, resumed(1, &since));
    loop {
        match client.whole_text() {
            text if text.starts_with(r#"{"type":"caught-up","#) => break,
            text => seen.push(text),
        }
    }
    assert!(
        seen.len() >= acknowledged,
        "{} of {acknowledged}",
        seen.len()
    );
    for (n, text) in seen.iter().enumerate() {
        assert!(
            text.ends_with(&format!("{}}}", on_channel(n))),
            "{n}: {text}"
        );
    }
}
