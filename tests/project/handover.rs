//! What goes over to a successor: nothing that lives across iterations is left out by accident.

use crate::sources::{Source, sources};

/// What takes a type apart that goes over: every field is written, or named with where it comes from.
const SAVES: [&str; 3] = ["save", "saved_parts", "write_state"];

#[test]
fn what_is_saved_is_taken_apart_field_by_field() {
    let sources = sources();
    let found: Vec<_> = sources.iter().flat_map(saves).collect();
    assert!(found.len() > 40, "only {} functions", found.len());
    let short: Vec<_> = found
        .iter()
        .filter(|(_, body)| leaves_out(body))
        .map(|(file, _)| file)
        .collect();
    assert!(short.is_empty(), "`..` leaves fields out: {short:?}");
}

/// The bodies of the functions in [`SAVES`], each with its file.
fn saves(source: &Source) -> Vec<(String, &[String])> {
    let tokens = &source.shipped;
    let mut found = Vec::new();
    for (at, pair) in tokens.windows(2).enumerate() {
        if pair[0] == "fn" && SAVES.contains(&pair[1].as_str()) {
            let body = &tokens[at..];
            let begins = body.iter().position(|token| token == "{");
            let ends = body.iter().position(|token| token == ";");
            // One of a trait has none.
            if let Some(begins) = begins.filter(|begins| ends.is_none_or(|ends| *begins < ends)) {
                found.push((source.file.clone(), until_closed(&body[begins..])));
            }
        }
    }
    found
}

/// Up to the brace that closes the first.
fn until_closed(tokens: &[String]) -> &[String] {
    let mut depth = 0;
    let end = tokens.iter().position(|token| {
        match token.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        depth == 0
    });
    &tokens[..=end.expect("it is closed")]
}

/// Whether a pattern ends in `..`.
fn leaves_out(body: &[String]) -> bool {
    let text = body.join(" ").replace(". .", "..");
    text.contains(".. }") || text.contains(".. , }")
}

#[test]
fn a_field_that_is_left_out_is_found() {
    for (text, is_short) in [
        (
            "fn save(&self) { let Self { a, b: _ } = self; f(a); }",
            false,
        ),
        ("fn save(&self) { let Self { a, .. } = self; f(a); }", true),
        (
            "fn other(&self) { let Self { a, .. } = self; f(a); }",
            false,
        ),
        (
            "trait T { fn save(&self); fn g() { let A { .. } = a; } }",
            false,
        ),
    ] {
        let source = Source::new("net/connection.rs", text);
        let found = saves(&source);
        assert_eq!(
            found.iter().any(|(_, body)| leaves_out(body)),
            is_short,
            "{text}"
        );
    }
}
