//! What the documents say of files is so: links lead somewhere, and the map of the architecture has
//! every file of `src/`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::sources::sources;

const ARCHITECTURE: &str = include_str!("../../docs/architecture.md");

/// Where files are that documents name in full.
const FOLDERS: [&str; 5] = ["benches/", "docs/", "fuzz/", "src/", "tests/"];

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_map_has_every_file() {
    let (_, map) = ARCHITECTURE
        .split_once("\n## Where things are\n")
        .expect("a map");
    let (map, _) = map.split_once("\n## ").expect("more than a map");
    let rows = map
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let rows: Vec<_> = rows.map(|(file, _)| file.to_owned()).collect();
    let named: BTreeSet<_> = rows.iter().cloned().collect();
    assert_eq!(named.len(), rows.len(), "a file has two rows");
    let files = sources().into_iter().map(|source| source.file);
    let files: BTreeSet<_> = files.filter(|file| !file.ends_with("tests.rs")).collect();
    let missing: Vec<_> = files.difference(&named).collect();
    let gone: Vec<_> = named.difference(&files).collect();
    assert!(
        missing.is_empty(),
        "docs/architecture.md has no row for {missing:#?}"
    );
    assert!(
        gone.is_empty(),
        "docs/architecture.md has rows for files that aren't there: {gone:#?}"
    );
}

#[test]
fn every_file_that_a_document_names_is_there() {
    for (path, document) in documents() {
        let is_of_sources = path.ends_with("architecture.md");
        for name in document.split('`').skip(1).step_by(2) {
            let is_file = FOLDERS.iter().any(|folder| name.starts_with(folder));
            let is_source = is_of_sources && name.ends_with(".rs");
            let is_there = root().join(name).exists()
                || path.with_file_name(name).exists()
                || is_source && root().join("src").join(name).exists();
            let is_one = !name.contains(char::is_whitespace) && (is_file || is_source);
            assert!(!is_one || is_there, "{} names {name}", path.display());
        }
    }
}

/// Every Markdown file of the project, with its text.
pub(crate) fn documents() -> impl Iterator<Item = (PathBuf, String)> {
    let mut files = Vec::new();
    find_documents(root(), &mut files);
    files.into_iter().map(|path| {
        let text = fs::read_to_string(&path).expect("text");
        (path, text)
    })
}

/// Adds the Markdown files below `folder`, but for those that builds and packages have put there.
fn find_documents(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("it is readable") {
        let path = entry.expect("it is readable").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_foreign = name.starts_with('.') || name.starts_with("target");
        if is_foreign || name == "node_modules" {
            continue;
        }
        if path.is_dir() {
            find_documents(&path, files);
        } else if path.extension().is_some_and(|kind| kind == "md") {
            files.push(path);
        }
    }
}

/// The lines of a document that aren't code.
fn prose(document: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    document.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

#[test]
fn every_kind_of_document_is_found() {
    let found: BTreeSet<_> = documents().map(|(path, _)| path).collect();
    for name in ["README.md", "docs/protocol.md", "benches/load/README.md"] {
        assert!(found.contains(&root().join(name)), "{name}");
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    for (path, document) in documents() {
        let text = prose(&document).collect::<Vec<_>>().join("\n");
        let links = text.split("](").skip(1);
        let links = links.map(|rest| rest.split(')').next().expect("there is a first"));
        for link in links.filter(|link| !link.contains("://")) {
            assert!(leads_somewhere(&path, link), "{}: {link}", path.display());
        }
    }
}

fn leads_somewhere(document: &Path, link: &str) -> bool {
    let (file, wanted) = link.split_once('#').unwrap_or((link, ""));
    let target = if file.is_empty() {
        document.to_owned()
    } else {
        document.with_file_name(file)
    };
    let has_wanted = |target| has_anchor(&fs::read_to_string(target).expect("text"), wanted);
    target.exists() && (wanted.is_empty() || has_wanted(target))
}

/// The anchor that a heading gets.
fn anchor(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = words
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn has_anchor(document: &str, wanted: &str) -> bool {
    let mut headings = prose(document).filter(|line| line.starts_with('#'));
    headings.any(|heading| anchor(heading) == wanted)
}

#[test]
fn comments_in_code_are_no_headings() {
    let document = "# One: `two`\n```sh\n# three\n```\n## Four, five\n";
    assert!(has_anchor(document, "one-two") && has_anchor(document, "four-five"));
    assert!(!has_anchor(document, "three"));
}
