//! No files of `src/` name each other in a circle.
//!
//! A name counts for the file where it leads: what a module imports, and so passes on, for the file
//! that has it. To declare a child is not to name it; else a parent and its children are files as
//! all are, so a child may not name what its parent has if the parent names the child. But a child
//! with an `impl` for a type of its parent's is one with it. What only tests name doesn't count.

use std::collections::{BTreeMap, BTreeSet};

use crate::layering::is_in;
use crate::sources::{Name, Source, sources};

#[test]
fn no_files_name_each_other_in_a_circle() {
    let sources = sources();
    let circular = circular(&sources);
    assert!(circular.is_empty(), "{:#?}", circular.values());
}

/// Two files, of which the first names the second; with what it names.
type Edges<'a> = BTreeMap<(&'a str, &'a str), String>;

/// What is named on the way round a circle.
fn circular(sources: &[Source]) -> Edges<'_> {
    let names = sources.iter().map(|source| source.names(&source.shipped));
    let names = names.collect();
    let graph = Graph { sources, names };
    let units: Vec<_> = (0..sources.len()).map(|at| graph.unit(at)).collect();
    let mut edges = Edges::new();
    for (at, source) in sources.iter().enumerate() {
        for Name { path, .. } in &graph.names[at] {
            let [from, to] = [at, graph.file_of(path)].map(|at| sources[units[at]].file.as_str());
            if from != to {
                let line = format!("{} names {path}", source.file);
                edges.insert((from, to), line);
            }
        }
    }
    let all = edges.clone();
    edges.retain(|(from, to), _| leads(&all, to, from));
    edges
}

/// Whether `from` names `to`, or what does.
fn leads(edges: &Edges, from: &str, to: &str) -> bool {
    let (mut reached, mut ahead) = (BTreeSet::new(), vec![from]);
    while let Some(at) = ahead.pop() {
        let next = edges.keys().filter(|(start, _)| *start == at);
        ahead.extend(
            next.map(|(_, next)| *next)
                .filter(|next| reached.insert(*next)),
        );
    }
    reached.contains(to)
}

/// The files, and what each names.
struct Graph<'a> {
    sources: &'a [Source],
    names: Vec<Vec<Name>>,
}

impl Graph<'_> {
    /// The file whose module `path` is, or is in.
    fn home(&self, path: &str) -> usize {
        let module = |at: &usize| &self.sources[*at].module;
        let homes = (0..self.sources.len()).filter(|at| is_in(module(at), path));
        homes.max_by_key(|at| module(at).len()).unwrap_or(0)
    }

    /// The file where `path` leads.
    fn file_of(&self, path: &str) -> usize {
        let home = self.home(path);
        let rest = path[self.sources[home].module.len()..].trim_start_matches("::");
        let end = format!("::{}", rest.split("::").next().unwrap_or_default());
        let mut imports = self.names[home].iter().filter(|name| name.is_import);
        let import = imports.find(|name| name.path.ends_with(&end) && name.path != path);
        import.map_or(home, |import| self.file_of(&import.path))
    }

    /// The file that this one is one with: itself, or that above it whose type it extends.
    fn unit(&self, at: usize) -> usize {
        let child = &self.sources[at];
        let (above, _) = child.module.rsplit_once("::").unwrap_or_default();
        let extends = child.implemented().any(|name| {
            let path = format!("{above}::{name}");
            self.names[at].iter().any(|name| name.path == path)
        });
        if extends {
            self.unit(self.home(above))
        } else {
            at
        }
    }
}

#[test]
fn circles_are_found() {
    // Files, each behind a bar, with what they say; then those of the circle.
    for line in "| a.rs use crate::b::X; | b.rs crate::c::f() | c.rs use super::a; = a.rs b.rs c.rs
        | a.rs use crate::b::X; | b.rs #[cfg(test)] use crate::a; =
        | a/mod.rs mod b; struct Y; | a/b.rs use super::Y; =
        | a/mod.rs mod b; use b::X; struct Y; | a/b.rs use super::Y; = a/b.rs a/mod.rs
        | a.rs mod b; b::f(); struct Y; | a/b.rs use super::Y; fn f(y: impl Y) {} = a.rs a/b.rs
        | a.rs mod b; use b::X; struct Y; | a/b.rs use super::Y; impl Z<Y> {} = a.rs a/b.rs
        | a.rs mod b; use b::X; struct Y; | a/b.rs use super::Y; impl<T: Z> Y<T> where T: X {} =
        | a.rs mod b; use b::X; struct Y; | a/b.rs use super::Y; impl<'a> From<Z<'a>> for Y {} =
        | a.rs pub use self::{b::X, c::Y}; | a/b.rs use super::Y; | a/c.rs use super::X; = a/b.rs a/c.rs"
        .lines()
    {
        let (files, circle) = line.split_once(" =").expect("a circle, or none");
        let files = files.split("| ").skip(1).map(|file| file.split_once(' ').expect("a text"));
        let sources: Vec<_> = files.map(|(file, text)| Source::new(file, text)).collect();
        let edges = circular(&sources);
        let found: Vec<_> = edges.keys().map(|(from, _)| *from).collect();
        assert_eq!(found.join(" "), circle.trim(), "{line}");
    }
}
