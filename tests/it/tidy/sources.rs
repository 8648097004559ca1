//! The sources of the library and the program, parsed, without what exists only for tests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};
use syn::{Attribute, Item};

/// The path of a module from the root of the crate; the root's is empty.
pub type ModulePath = Vec<String>;

/// A source file.
pub struct Source {
    /// Below `src/`, like `tls/handshake.rs`.
    pub path: String,
    pub module: ModulePath,
    pub text: String,
    pub file: syn::File,
}

impl Source {
    /// The module at the top that it belongs to.
    pub fn top(&self) -> &str {
        match self.module.first() {
            Some(top) => top,
            None => self.path.trim_end_matches(".rs"),
        }
    }
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files that are compiled without `cfg(test)`, by following the `mod` items.
pub fn sources() -> Vec<Source> {
    let mut all = Vec::new();
    for name in ["lib.rs", "main.rs"] {
        read(name.to_owned(), Vec::new(), &mut all);
    }
    assert!(all.len() > 50, "the sources were found");
    all
}

fn read(path: String, module: ModulePath, all: &mut Vec<Source>) {
    let text = std::fs::read_to_string(root().join("src").join(&path)).unwrap();
    let mut file = syn::parse_file(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
    file.items
        .retain(|item| !attributes(item).iter().any(is_test_only));
    let directory = match module.as_slice() {
        [] => String::new(),
        _ => format!("{}/", path.trim_end_matches(".rs")),
    };
    let children: Vec<_> = file
        .items
        .iter()
        .filter_map(|item| match item {
            Item::Mod(child) if child.content.is_none() => Some(child.ident.to_string()),
            _ => None,
        })
        .collect();
    all.push(Source {
        path,
        module: module.clone(),
        text,
        file,
    });
    for child in children {
        let path = format!("{directory}{child}.rs");
        read(path, [module.clone(), vec![child]].concat(), all);
    }
}

fn is_test_only(attribute: &Attribute) -> bool {
    attribute.path().is_ident("cfg")
        && attribute
            .parse_args::<syn::Path>()
            .is_ok_and(|condition| condition.is_ident("test"))
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Every `.rs` file below a directory.
pub fn files(directory: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push(path);
        }
    }
    all.sort();
    all
}

/// A path as it is written in a file: `use` items one by one, and all other paths, those in the
/// arguments of macros included.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WrittenPath {
    pub segments: Vec<String>,
    /// Whether it only gives an item of another module a further name for others.
    pub is_reexport: bool,
}

/// All paths of a file.
pub fn paths(file: &syn::File) -> Vec<WrittenPath> {
    let mut collector = Paths::default();
    collector.visit_file(file);
    collector.found.sort();
    collector.found.dedup();
    collector.found
}

#[derive(Default)]
struct Paths {
    found: Vec<WrittenPath>,
}

impl Paths {
    fn push(&mut self, segments: Vec<String>) {
        self.found.push(WrittenPath {
            segments,
            is_reexport: false,
        });
    }
}

impl<'a> Visit<'a> for Paths {
    fn visit_path(&mut self, path: &'a syn::Path) {
        let segments = path.segments.iter().map(|s| s.ident.to_string());
        self.push(segments.collect());
        visit::visit_path(self, path);
    }

    fn visit_visibility(&mut self, _: &'a syn::Visibility) {
        // `pub(in crate::config)` uses nothing.
    }

    fn visit_item_use(&mut self, item: &'a syn::ItemUse) {
        let is_reexport = !matches!(item.vis, syn::Visibility::Inherited);
        for (segments, _) in imports(&item.tree) {
            self.found.push(WrittenPath {
                segments,
                is_reexport,
            });
        }
    }

    fn visit_macro(&mut self, used: &'a syn::Macro) {
        let found = syn::parse::Parser::parse2(macro_paths, used.tokens.clone()).unwrap();
        found.into_iter().for_each(|segments| self.push(segments));
        visit::visit_macro(self, used);
    }
}

/// The paths that a `use` item names, each with the name it gets; `*` stands for all names.
pub fn imports(tree: &syn::UseTree) -> Vec<(Vec<String>, String)> {
    match tree {
        syn::UseTree::Path(path) => {
            let below = imports(&path.tree).into_iter();
            let first = path.ident.to_string();
            below
                .map(|(segments, name)| {
                    let is_self = segments == ["self"];
                    let name = if is_self { first.clone() } else { name };
                    let rest = if is_self { Vec::new() } else { segments };
                    ([vec![first.clone()], rest].concat(), name)
                })
                .collect()
        }
        syn::UseTree::Name(name) => {
            let name = name.ident.to_string();
            vec![(vec![name.clone()], name)]
        }
        syn::UseTree::Rename(rename) => {
            vec![(vec![rename.ident.to_string()], rename.rename.to_string())]
        }
        syn::UseTree::Glob(_) => vec![(vec!["*".to_owned()], "*".to_owned())],
        syn::UseTree::Group(group) => group.items.iter().flat_map(imports).collect(),
    }
}

/// The chains of identifiers and `::` among the arguments of a macro.
fn macro_paths(input: syn::parse::ParseStream<'_>) -> syn::Result<Vec<Vec<String>>> {
    input.step(|cursor| {
        let mut found = Vec::new();
        let mut rest = *cursor;
        scan(&mut rest, &mut found);
        Ok((found, rest))
    })
}

fn scan(cursor: &mut syn::buffer::Cursor<'_>, found: &mut Vec<Vec<String>>) {
    let mut path: Vec<String> = Vec::new();
    let mut colons = 0;
    loop {
        if let Some((ident, next)) = cursor.ident() {
            if colons != 2 && !path.is_empty() {
                found.push(std::mem::take(&mut path));
            }
            path.push(ident.to_string());
            (colons, *cursor) = (0, next);
        } else if let Some((punct, next)) = cursor.punct() {
            colons = if punct.as_char() == ':' {
                colons + 1
            } else {
                3
            };
            *cursor = next;
        } else if let Some((mut inner, _, _, next)) = cursor.any_group() {
            scan(&mut inner, found);
            (colons, *cursor) = (3, next);
        } else if let Some((_, next)) = cursor.token_tree() {
            (colons, *cursor) = (3, next);
        } else {
            break;
        }
    }
    if !path.is_empty() {
        found.push(path);
    }
}

/// What a name means in a module.
#[derive(Clone)]
enum Meaning {
    Item,
    Import(Vec<String>),
}

/// Which module defines what: resolves paths to the modules whose items they name.
pub struct Modules {
    names: BTreeMap<ModulePath, BTreeMap<String, Meaning>>,
    globs: BTreeMap<ModulePath, Vec<Vec<String>>>,
}

impl Modules {
    pub fn new(sources: &[Source]) -> Self {
        let mut modules = Self {
            names: BTreeMap::new(),
            globs: BTreeMap::new(),
        };
        for source in sources.iter().filter(|source| source.path != "main.rs") {
            let names = modules.names.entry(source.module.clone()).or_default();
            for item in &source.file.items {
                match item {
                    Item::Use(item) => {
                        for (segments, name) in imports(&item.tree) {
                            if name == "*" {
                                let globs = modules.globs.entry(source.module.clone());
                                globs.or_default().push(segments);
                            } else {
                                names.insert(name, Meaning::Import(segments));
                            }
                        }
                    }
                    item => {
                        if let Some(name) = super::names::item_name(item) {
                            names.entry(name).or_insert(Meaning::Item);
                        }
                    }
                }
            }
        }
        modules
    }

    /// The module that defines what a path names in a module: the item's own, past all further
    /// names that other modules give it. `None`: an item of another crate, or a local name.
    pub fn resolve(&self, module: &[String], segments: &[String]) -> Option<ModulePath> {
        self.resolve_within(module, segments, 16)
    }

    fn resolve_within(
        &self,
        module: &[String],
        segments: &[String],
        depth: u32,
    ) -> Option<ModulePath> {
        let depth = depth.checked_sub(1)?;
        let (first, rest) = segments.split_first()?;
        let mut at = match first.as_str() {
            "crate" => Vec::new(),
            "self" => module.to_vec(),
            "super" => module.split_last()?.1.to_vec(),
            _ => return self.lookup(module, segments, depth),
        };
        let mut rest = rest;
        while let Some(("super", deeper)) = rest.split_first().map(|(s, d)| (s.as_str(), d)) {
            at.pop()?;
            rest = deeper;
        }
        if rest.is_empty() || rest == ["*"] {
            return Some(at);
        }
        // A name that is not found is one of a macro or of a glob of another crate.
        Some(self.lookup(&at, rest, depth).unwrap_or(at))
    }

    /// Resolves a path whose first segment is a name in a module.
    fn lookup(&self, module: &[String], segments: &[String], depth: u32) -> Option<ModulePath> {
        let (first, rest) = segments.split_first()?;
        let child: ModulePath = [module, std::slice::from_ref(first)].concat();
        if self.names.contains_key(&child) {
            if rest.is_empty() || rest == ["*"] {
                return Some(child);
            }
            return Some(self.lookup(&child, rest, depth).unwrap_or(child));
        }
        match self.names.get(module)?.get(first) {
            Some(Meaning::Item) => Some(module.to_vec()),
            Some(Meaning::Import(target)) if target[..] == *segments => None,
            Some(Meaning::Import(target)) => {
                self.resolve_within(module, &[target, rest].concat(), depth)
            }
            None => self.globs.get(module)?.iter().find_map(|glob| {
                let (_, origin) = glob.split_last()?;
                let origin = self.resolve_within(module, origin, depth)?;
                self.lookup(&origin, segments, depth.checked_sub(1)?)
            }),
        }
    }
}
