//! The version is that of `Cargo.toml`, and so is the Rust that is needed, wherever else they are written.

use std::fs;

use crate::references::{documents, root};

const VERSION: &str = env!("CARGO_PKG_VERSION");
const RUST_VERSION: &str = env!("CARGO_PKG_RUST_VERSION");
const DOCKERFILE: &str = include_str!("../../docs/deploy/Dockerfile");

/// What the names of packages begin with; the longer names come first.
const PACKAGES: [&str; 3] = ["crieur-client-", "crieur-", "crieur_"];

/// What follows `before`, as far as it is a version.
fn version_after<'a>(text: &'a str, before: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'));
    let version = rest[..end.unwrap_or(rest.len())].trim_end_matches('.');
    (!version.is_empty()).then_some(version)
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The versions in the names of packages that a text has, such as `crieur_0.1.0-1_amd64.deb`.
fn packages_in(text: &str) -> Vec<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)));
    words
        .filter_map(|word| {
            let name = PACKAGES.iter().find(|name| word.starts_with(**name))?;
            version_after(word, name).filter(|version| version.contains('.'))
        })
        .collect()
}

#[test]
fn every_package_has_the_version_of_the_program() {
    for (file, before) in [
        ("src/web/package.json", "\"version\": \""),
        (
            "docs/deploy/Dockerfile",
            "org.opencontainers.image.version=\"",
        ),
        ("Cargo.lock", "name = \"crieur\"\nversion = \""),
        ("fuzz/Cargo.lock", "name = \"crieur\"\nversion = \""),
    ] {
        let text = read(file);
        assert_eq!(version_after(&text, before), Some(VERSION), "{file}");
    }
}

#[test]
fn documents_name_packages_of_this_version() {
    let mut named = 0;
    // The changelog may name older ones.
    let documents = documents().filter(|(path, _)| !path.ends_with("CHANGELOG.md"));
    for (path, text) in documents {
        for version in packages_in(&text) {
            assert_eq!(version, VERSION, "{}", path.display());
            named += 1;
        }
    }
    assert!(named >= 3, "only {named} packages are found");
}

#[test]
fn the_readme_says_how_young_the_program_is() {
    let (series, _) = VERSION.rsplit_once('.').expect("three numbers");
    for file in ["README.md", "README.fr.md"] {
        let text = read(file);
        assert_eq!(version_after(&text, ": version "), Some(series), "{file}");
    }
}

#[test]
fn the_changelog_begins_with_what_is_new() {
    let changelog = read("CHANGELOG.md");
    let newest = changelog
        .split("\n## ")
        .nth(1)
        .and_then(|section| section.lines().next());
    let newest = newest.expect("it has a section");
    let is_new = newest == "Unreleased" || newest.split(' ').next() == Some(VERSION);
    assert!(
        is_new,
        "CHANGELOG.md begins with {newest:?}, and the version is {VERSION}"
    );
}

#[test]
fn documents_name_the_rust_that_is_needed() {
    for (file, before) in [
        ("README.md", "[Rust](https://rustup.rs) "),
        ("README.fr.md", "[Rust](https://rustup.rs) "),
        ("docs/operations.md", "needs Rust "),
    ] {
        let text = read(file);
        assert_eq!(version_after(&text, before), Some(RUST_VERSION), "{file}");
    }
    let number = |version: &str| -> Option<u32> { version.strip_prefix("1.")?.parse().ok() };
    let image = version_after(DOCKERFILE, "/rust:").and_then(number);
    let needed = number(RUST_VERSION);
    assert!(image.is_some() && image >= needed, "{image:?}, {needed:?}");
}

#[test]
fn packages_are_found_by_their_names() {
    let text = "`crieur_1.2.3-1_amd64.deb`, ../crieur/crieur-client-1.2.4.tgz): crieur-client-1.2.5.tar.gz \
                crieur-client.tgz crieur-1.2.6. crieur-0/x crieur_up 1.2.7";
    assert_eq!(packages_in(text), ["1.2.3", "1.2.4", "1.2.5", "1.2.6"]);
}
