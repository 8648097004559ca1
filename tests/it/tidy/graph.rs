//! Which files use which, and the circles among them.

use std::collections::{BTreeMap, BTreeSet};

use super::sources::{Modules, Source, paths};

/// A file or module, and those that it uses.
pub type Graph = BTreeMap<String, BTreeSet<String>>;

/// The files that each file uses an item of, but those that it is a part of.
pub fn file_graph(sources: &[Source]) -> Graph {
    let modules = Modules::new(sources);
    let by_module: BTreeMap<_, _> = sources
        .iter()
        .filter(|source| source.path != "main.rs")
        .map(|source| (&source.module, &source.path))
        .collect();
    let mut graph = Graph::new();
    for source in sources {
        let used = graph.entry(source.path.clone()).or_default();
        let written = paths(&source.file);
        for path in written.iter().filter(|path| !path.is_reexport) {
            let definer = modules.resolve(&source.module, &path.segments);
            let file = definer.and_then(|module| by_module.get(&module).copied());
            // A part may use what the whole defines.
            let file = file.filter(|file| **file != source.path && !source.is_part_of(file));
            if let Some(file) = file {
                used.insert(file.clone());
            }
        }
    }
    graph
}

impl Source {
    /// Whether it is a part of another: `store/index.rs` of `store.rs`, and everything of the root.
    fn is_part_of(&self, file: &str) -> bool {
        let directory = file.trim_end_matches(".rs");
        directory == "lib" || self.path.starts_with(&format!("{directory}/"))
    }
}

/// The same for the modules at the top.
pub fn top_graph(sources: &[Source]) -> Graph {
    let top = |path: &str| {
        path.split('/')
            .next()
            .unwrap()
            .trim_end_matches(".rs")
            .to_owned()
    };
    let mut tops = Graph::new();
    for (file, used) in file_graph(sources) {
        let others = used.iter().map(|used| top(used));
        let others = others.filter(|used| *used != top(&file));
        tops.entry(top(&file)).or_default().extend(others);
    }
    tops
}

/// The groups of nodes that use each other, each group once: its strongly connected components.
pub fn circles(graph: &Graph) -> Vec<Vec<String>> {
    let reach: BTreeMap<_, _> = graph
        .keys()
        .map(|node| (node.as_str(), reachable(graph, node)))
        .collect();
    let mut circles = Vec::new();
    let mut seen = BTreeSet::new();
    for node in graph.keys() {
        let reached = &reach[node.as_str()];
        if !reached.contains(node.as_str()) || seen.contains(node.as_str()) {
            continue;
        }
        let circle: Vec<_> = reached
            .iter()
            .filter(|other| {
                reach
                    .get(**other)
                    .is_some_and(|r| r.contains(node.as_str()))
            })
            .copied()
            .collect();
        seen.extend(circle.iter().copied());
        circles.push(circle.iter().map(|&node| node.to_owned()).collect());
    }
    circles
}

fn reachable<'g>(graph: &'g Graph, from: &str) -> BTreeSet<&'g str> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&str> = vec![from];
    while let Some(node) = open.pop() {
        for next in graph.get(node).into_iter().flatten() {
            if reached.insert(next.as_str()) {
                open.push(next);
            }
        }
    }
    reached
}
