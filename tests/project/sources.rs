//! The sources as names: which paths of this crate each file of `src/` names.
//!
//! Comments and literals are no names; `use` trees are followed, `super` and `self` resolved. What
//! is under `#[cfg(test)]`, or in a module called `tests`, doesn't ship. Knows no rules.

use std::fs;
use std::path::Path;

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// A file of `src/`.
pub(crate) struct Source {
    /// Its path under `src/`.
    pub(crate) file: String,
    /// The path of its module; that of `lib.rs` is empty.
    pub(crate) module: String,
    /// Identifiers, `::`, braces, parentheses for the other brackets, and punctuation.
    pub(crate) tokens: Vec<String>,
    /// Those of them that ship.
    pub(crate) shipped: Vec<String>,
}

/// A path that a file names.
pub(crate) struct Name {
    /// From the root of the crate.
    pub(crate) path: String,
    /// Whether `use` names it, so that others may find it here.
    pub(crate) is_import: bool,
}

/// All files of `src/`.
pub(crate) fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("src/ is readable") {
            let path = entry.expect("src/ is readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source is readable");
                let file = path.strip_prefix(&root).expect("it is in src/");
                sources.push(Source::new(&file.to_string_lossy(), &text));
            }
        }
    }
    sources.sort_by(|one, other| one.file.cmp(&other.file));
    sources
}

impl Source {
    pub(crate) fn new(file: &str, text: &str) -> Self {
        let path = file.trim_end_matches(".rs");
        let path = path.strip_suffix("/mod").unwrap_or(path);
        let module = if path == "lib" { "" } else { path };
        let stream: TokenStream = text.parse().expect("it is Rust");
        let (mut tokens, mut shipped) = (Vec::new(), Vec::new());
        flatten(stream.clone(), true, &mut tokens);
        if !module.split('/').any(|part| part == "tests") {
            flatten(stream, false, &mut shipped);
        }
        let (file, module) = (file.to_owned(), module.replace('/', "::"));
        Self {
            file,
            module,
            tokens,
            shipped,
        }
    }

    /// What these tokens of it name.
    pub(crate) fn names(&self, tokens: &[String]) -> Vec<Name> {
        let mut names = Vec::new();
        // The modules in this file that are open here, each with the depth of its block.
        let mut inner: Vec<(&str, usize)> = Vec::new();
        let (mut depth, mut is_import) = (0_usize, false);
        for (at, token) in tokens.iter().enumerate() {
            match token.as_str() {
                "{" => depth += 1,
                "}" => {
                    depth -= 1;
                    inner.retain(|(_, opened_at)| *opened_at <= depth);
                }
                ";" => is_import = false,
                "use" => is_import = true,
                "mod" if tokens[at + 2] == "{" => inner.push((&tokens[at + 1], depth + 1)),
                _ if begins_path(tokens, at) => {
                    let own = self.module.split("::").filter(|part| !part.is_empty());
                    let here = own.chain(inner.iter().map(|(name, _)| *name)).collect();
                    let mut paths = Vec::new();
                    follow(&tokens[at..], here, &mut paths);
                    names.extend(paths.into_iter().map(|path| Name { path, is_import }));
                }
                _ => {}
            }
        }
        names
    }

    /// The types that it has an `impl` for.
    pub(crate) fn implemented(&self) -> impl Iterator<Item = &str> {
        let starts = (0..self.shipped.len()).filter(|at| self.shipped[*at] == "impl");
        starts.filter_map(|at| implemented(&self.shipped[at + 1..]))
    }
}

/// The type of the `impl` whose other tokens these are; `None` for `impl Trait` in a signature.
fn implemented(tokens: &[String]) -> Option<&str> {
    let (mut depth, mut name) = (0_usize, None);
    for token in tokens {
        match token.as_str() {
            "<" => depth += 1,
            ">" => depth = depth.saturating_sub(1),
            "{" | "where" => return name,
            "(" | ")" | ";" | "," if depth == 0 => return None,
            // The last one: a trait and `for` come before the type.
            word if depth == 0 && word.starts_with(is_word) => name = Some(word),
            _ => {}
        }
    }
    None
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn is(token: Option<&String>, wanted: &str) -> bool {
    token.is_some_and(|token| token == wanted)
}

fn is_cfg_test(group: &Group) -> bool {
    group.delimiter() == Delimiter::Bracket && group.stream().to_string() == "cfg (test)"
}

fn flatten(stream: TokenStream, with_tests: bool, tokens: &mut Vec<String>) {
    let mut trees = stream.into_iter();
    while let Some(tree) = trees.next() {
        match tree {
            TokenTree::Group(group) if !with_tests && is_cfg_test(&group) => {
                // The item ends with its block, or without one.
                trees.find(|tree| match tree {
                    TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
                    other => other.to_string() == ";",
                });
            }
            TokenTree::Group(group) => {
                let is_block = group.delimiter() == Delimiter::Brace;
                let (open, close) = if is_block { ("{", "}") } else { ("(", ")") };
                tokens.push(open.to_owned());
                flatten(group.stream(), with_tests, tokens);
                tokens.push(close.to_owned());
            }
            // A lifetime.
            TokenTree::Punct(mark) if mark.as_char() == '\'' => drop(trees.next()),
            TokenTree::Punct(mark) if mark.as_char() == ':' && is(tokens.last(), ":") => {
                *tokens.last_mut().expect("just seen") = "::".to_owned();
            }
            TokenTree::Ident(_) | TokenTree::Punct(_) => tokens.push(tree.to_string()),
            TokenTree::Literal(_) => {}
        }
    }
}

/// Whether a path of this crate begins at `at`: at its root, here, above, or with a module that
/// this file declares.
fn begins_path(tokens: &[String], at: usize) -> bool {
    let is_within = at > 0 && tokens[at - 1] == "::";
    // `use crate as other` would name everything.
    let goes_on = is(tokens.get(at + 1), "::") || is(tokens.get(at + 1), "as");
    let is_root = || matches!(tokens[at].as_str(), "crate" | "crieur" | "self" | "super");
    let is_child = || {
        let mut triples = tokens.windows(3);
        triples.any(|triple| triple[0] == "mod" && triple[1] == tokens[at] && triple[2] == ";")
    };
    !is_within && goes_on && (is_root() || is_child())
}

/// Follows the path, or the tree of paths, that `tokens` begin with, and adds where it leads.
/// Returns how many tokens that took.
fn follow<'a>(tokens: &'a [String], mut path: Vec<&'a str>, paths: &mut Vec<String>) -> usize {
    let mut at = 0;
    loop {
        match tokens.get(at).map(String::as_str) {
            Some("crate" | "crieur") => path.clear(),
            Some("super") => drop(path.pop()),
            Some("self" | "*") => {}
            Some("{") => return at + follow_group(&tokens[at..], &path, paths),
            Some(word) if word.starts_with(is_word) => path.push(word),
            // Generic arguments: the path ends here.
            _ => break,
        }
        at += 1;
        if !is(tokens.get(at), "::") {
            break;
        }
        at += 1;
    }
    paths.push(path.join("::"));
    at
}

fn follow_group<'a>(tokens: &'a [String], path: &[&'a str], paths: &mut Vec<String>) -> usize {
    let mut at = 1;
    loop {
        match tokens[at].as_str() {
            "}" => return at + 1,
            "," => at += 1,
            // `name as other`
            "as" => at += 2,
            _ => at += follow(&tokens[at..], path.to_vec(), paths),
        }
    }
}

#[test]
fn names_are_found_and_resolved() {
    // A file, what it says, and what it names.
    for line in r#"
        hub.rs | use crate::{http::{self, head::Head as H}, ws::*, id}; | http http::head::Head ws id
        hub.rs | use crate::ws::frame::{*}; use crate as other; | ws::frame
        main.rs | crieur::cli::run::<u8>() | cli::run
        net.rs | fn f(x: crate::ws::Y) -> $crate::hub::Z { self.x } pub(crate) fn f(self) {} | ws::Y hub::Z
        net.rs | #[cfg(test)] #[x] fn f(_: [u8; 2]) { crate::a() } use crate::b; | b
        net.rs | #[cfg(test)] use crate::a; use crate::b; #[cfg(not(test))] use crate::c; | b c
        ws/frame.rs | use super::close::X; use super::super::hub::X; | ws::close::X hub::X
        ws/tests.rs | use super::close::X; |
        net/mod.rs | mod a { mod b { use super::super::X; } } use super::hub; use self::c; | net::X hub net::c
        net/mod.rs | mod a; use a::X; b::Y; x::a::Z | net::a::X
        net.rs | 'a' 'é' "crate::a" r"crate::b" <'crate> /* crate::a /* */ */ crate::c | c
        net.rs | "\" crate::a" b"crate::b" '\'' c"crate::d" crate::c | c
    "#
    .trim()
    .lines()
    {
        let mut cells = line.split(" |").map(str::trim);
        let mut cell = || cells.next().unwrap_or_default();
        let source = Source::new(cell(), cell());
        let names = source.names(&source.shipped).into_iter().map(|name| name.path);
        assert_eq!(names.collect::<Vec<_>>().join(" ").trim(), cell(), "{line}");
    }
}
