//! No circles of imports inside a module.
//!
//! The children of a module, files or folders, must not depend on each other in a circle, at any depth. A child depends on
//! another when a file in it names something that is *defined* in a file of the other: a name re-exported by a `mod.rs` counts
//! for the file that it comes from. A definition in a `mod.rs` itself counts for none of its children, since a module and its
//! parts are one unit.

use std::collections::{BTreeMap, BTreeSet};

use super::code::{Module, modules};
use super::imports::{self, Import};

/// Circles that are still there: each must go, and then leave this list.
const KNOWN: [&str; 0] = [];

type Path = Vec<String>;

/// A file's imports and paths.
struct Names {
    imports: Vec<Import>,
    paths: Vec<Path>,
}

struct Graph {
    files: BTreeMap<Path, Names>,
}

impl Graph {
    fn new(modules: &[Module]) -> Self {
        let names = |module: &Module| {
            let (imports, paths) = imports::of(&module.code);
            (module.path.clone(), Names { imports, paths })
        };
        Self { files: modules.iter().map(names).collect() }
    }

    /// The file that defines what `path` names in the file `from`; `None` for other crates and local names.
    fn definition(&self, from: &Path, path: &[String]) -> Option<Path> {
        self.owner(&self.absolute(from, path)?, 0)
    }

    /// `path` from the root of the crate.
    fn absolute(&self, from: &Path, path: &[String]) -> Option<Path> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => Some(rest.to_vec()),
            "self" => Some([from, rest].concat()),
            "super" => {
                let (_, parent) = from.split_last()?;
                let mut all = vec!["self".to_owned()];
                all.extend_from_slice(rest);
                if rest.first().is_some_and(|next| next == "super") {
                    all.remove(0);
                }
                self.absolute(&parent.to_vec(), &all)
            }
            _ => {
                let child = [&from[..], std::slice::from_ref(first)].concat();
                if self.files.contains_key(&child) {
                    return Some([child.as_slice(), rest].concat());
                }
                let import = self.files[from]
                    .imports
                    .iter()
                    .find(|import| import.name == *first && import.path.first() != Some(first))?;
                Some([self.absolute(from, &import.path)?.as_slice(), rest].concat())
            }
        }
    }

    /// Follows re-exports from the module that `path` leads to.
    fn owner(&self, path: &[String], depth: u8) -> Option<Path> {
        let length = (0..=path.len()).rev().find(|&n| self.files.contains_key(&path[..n]))?;
        let (module, rest) = (path[..length].to_vec(), &path[length..]);
        let Some((name, rest)) = rest.split_first() else { return Some(module) };
        let exported = self.files[&module].imports.iter().find(|import| import.name == *name);
        let source = exported.and_then(|import| self.absolute(&module, &import.path));
        match source {
            Some(source) if depth < 8 && source != path => {
                self.owner(&[source.as_slice(), rest].concat(), depth + 1)
            }
            _ => Some(module),
        }
    }

    /// The files that `file` depends on.
    fn dependencies(&self, file: &Path) -> BTreeSet<Path> {
        let Names { imports, paths } = &self.files[file];
        let imported = imports.iter().filter_map(|import| {
            let path = import.path.strip_suffix(&["*".to_owned()]).unwrap_or(&import.path);
            let definition = self.definition(file, path)?;
            // `pub use child::Name` makes no use of it.
            let is_own = import.is_public && definition.starts_with(file);
            (!is_own).then_some(definition)
        });
        let named = paths.iter().filter_map(|path| self.definition(file, path));
        imported.chain(named).filter(|definition| definition != file).collect()
    }

    /// Every circle among the children of one module, as `module: child, child`.
    fn circles(&self) -> BTreeSet<String> {
        // For each module, which of its children depends on which.
        let mut edges: BTreeMap<&[String], BTreeSet<(&str, String)>> = BTreeMap::new();
        for file in self.files.keys() {
            for other in self.dependencies(file) {
                let common = file.iter().zip(&other).take_while(|(a, b)| a == b).count();
                if common > 0 && file.len() > common && other.len() > common {
                    let edge = (file[common].as_str(), other[common].clone());
                    edges.entry(&file[..common]).or_default().insert(edge);
                }
            }
        }
        let mut circles = BTreeSet::new();
        for (module, edges) in &edges {
            for (child, _) in edges {
                let reaches = reached(edges, child);
                let is_mutual = |other: &&&str| reached(edges, other).contains(child);
                let circle: Vec<&str> = reaches.iter().filter(is_mutual).copied().collect();
                if circle.len() > 1 {
                    circles.insert(format!("{}: {}", module.join("::"), circle.join(", ")));
                }
            }
        }
        circles
    }
}

/// The dependencies of `from`, direct and indirect; they include `from` if it is in a circle.
fn reached<'a>(edges: &'a BTreeSet<(&str, String)>, from: &'a str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut left = vec![from];
    while let Some(child) = left.pop() {
        let next = edges.iter().filter(|(from, _)| *from == child).map(|(_, to)| to.as_str());
        left.extend(next.filter(|to| reached.insert(*to)));
    }
    reached
}

#[test]
fn modules_have_no_circles() {
    let found = Graph::new(&modules()).circles();
    let known: BTreeSet<String> = KNOWN.iter().map(|circle| (*circle).to_owned()).collect();
    let new: Vec<&String> = found.difference(&known).collect();
    assert!(new.is_empty(), "circles of imports among the children of a module: {new:#?}");
    let gone: Vec<&String> = known.difference(&found).collect();
    assert!(gone.is_empty(), "no circles any more, take them out of KNOWN: {gone:#?}");
}

/// Modules with their code.
fn graph(files: &[(&str, &str)]) -> Graph {
    let module = |(path, code): &(&str, &str)| Module {
        path: path.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect(),
        file: path.into(),
        code: (*code).to_owned(),
    };
    Graph::new(&files.iter().map(module).collect::<Vec<_>>())
}

#[test]
fn circles_are_found_at_every_depth() {
    for (files, expected) in [
        // By `use`, by a path, by an import of the module.
        (
            &[("m", ""), ("m::a", "use super::b::B;"), ("m::b", "fn f() { super::a::g() }")][..],
            &["m: a, b"][..],
        ),
        (
            &[
                ("m", ""),
                ("m::a", "use super::b;\nfn f() { b::g() }"),
                ("m::b", "use crate::m::a::A;"),
            ],
            &["m: a, b"],
        ),
        // Round three; one that is only used is not in it.
        (
            &[
                ("m", ""),
                ("m::a", "use super::{b::B, d::D};"),
                ("m::b", "use crate::m::c;"),
                ("m::c", "use crate::{x::y, m::a::A as B};"),
                ("m::d", ""),
            ],
            &["m: a, b, c"],
        ),
        // Between folders, and inside one.
        (
            &[
                ("m", ""),
                ("m::a", ""),
                ("m::a::x", "use super::y::Y;\nuse crate::m::b::B;"),
                ("m::a::y", "use super::x::X;"),
                ("m::b", "use super::a::y::Y;"),
            ],
            &["m: a, b", "m::a: x, y"],
        ),
        // By names that a `mod.rs` re-exports.
        (
            &[
                ("m", "pub(crate) use a::A;\npub use b::{B, C};"),
                ("m::a", "use super::B;"),
                ("m::b", "use super::A;"),
            ],
            &["m: a, b"],
        ),
        // A module and its parts are one unit.
        (
            &[
                ("m", "mod a;\nuse a::A;\nstruct M(A);"),
                ("m::a", "use super::M;"),
                ("m::b", "use super::a::A;"),
            ],
            &[],
        ),
        // Downward only.
        (
            &[
                ("m", "pub use b::B;"),
                ("m::a", "use super::B;"),
                ("m::b", "use crate::n::N;"),
                ("n", ""),
            ],
            &[],
        ),
    ] {
        let found: Vec<String> = graph(files).circles().into_iter().collect();
        assert_eq!(found, expected, "{files:?}");
    }
}
