//! The directories to watch for a set of files. A file changes by being written, but also by being
//! replaced, and by any symbolic link and any directory on the way to it. Pure: what a path leads to
//! is given.

use std::collections::{BTreeSet, HashMap};
use std::path::{Component, Path, PathBuf};

/// What is at a path, symbolic links not followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PathKind {
    Missing,
    Link(PathBuf),
    Other,
}

/// The directories to watch, and what matters in them.
#[derive(Debug, Default)]
pub(super) struct WatchedPaths {
    pub(super) directories: BTreeSet<PathBuf>,
    /// The entries of these directories whose change matters.
    entries: BTreeSet<PathBuf>,
    /// The one of the domain files, which may get new entries.
    folder: Option<PathBuf>,
}

impl WatchedPaths {
    /// Whether an event of a directory or of an entry in one matters.
    pub(super) fn concerns(&self, path: &Path) -> bool {
        let is_domain_file = || {
            path.parent() == self.folder.as_deref()
                && path
                    .extension()
                    .is_some_and(|extension| extension == "toml")
        };
        self.entries.contains(path) || self.directories.contains(path) || is_domain_file()
    }
}

/// The directories in which changes of these files can be seen, and of the entries of `folder`.
pub(super) fn watched(
    files: &BTreeSet<PathBuf>,
    folder: &Path,
    mut kind: impl FnMut(&Path) -> PathKind,
) -> WatchedPaths {
    let mut known: HashMap<PathBuf, PathKind> = HashMap::new();
    let mut kind = |path: &Path| -> PathKind {
        if let Some(kind) = known.get(path) {
            return kind.clone();
        }
        let found = kind(path);
        known.insert(path.to_owned(), found.clone());
        found
    };
    let mut watched = WatchedPaths::default();
    for file in files {
        follow(file, &mut kind, &mut watched);
    }
    if let Some(end) = follow(folder, &mut kind, &mut watched) {
        watched.directories.insert(end.clone());
        watched.folder = Some(end);
    }
    watched
}

/// Follows the links of a path to its end. Returns that, unless something is missing.
fn follow(
    path: &Path,
    kind: &mut impl FnMut(&Path) -> PathKind,
    watched: &mut WatchedPaths,
) -> Option<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..=MAX_LINKS {
        match go_along(&path, kind, watched) {
            PathEnd::Missing => return None,
            PathEnd::Reached(end) => return Some(end),
            PathEnd::Link(next) => path = next,
        }
    }
    None
}

/// Where a path leads.
enum PathEnd {
    Missing,
    Reached(PathBuf),
    /// Where the first link on it leads.
    Link(PathBuf),
}

/// Goes along a path to its end, its first link, or what is missing.
fn go_along(
    path: &Path,
    kind: &mut impl FnMut(&Path) -> PathKind,
    watched: &mut WatchedPaths,
) -> PathEnd {
    let mut current = PathBuf::new();
    let mut components = path.components();
    while let Some(component) = components.next() {
        let next = current.join(component);
        if !matches!(component, Component::Normal(_)) {
            current = next;
            continue;
        }
        let found = kind(&next);
        let rest = components.as_path();
        if rest.as_os_str().is_empty() || found != PathKind::Other {
            let directory = if current.as_os_str().is_empty() {
                PathBuf::from(".")
            } else {
                current.clone()
            };
            watched.directories.insert(directory);
            watched.entries.insert(next.clone());
        }
        match found {
            PathKind::Missing => return PathEnd::Missing,
            PathKind::Link(target) => return PathEnd::Link(current.join(target).join(rest)),
            PathKind::Other => current = next,
        }
    }
    PathEnd::Reached(current)
}

/// As many as Linux follows.
const MAX_LINKS: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    /// The directories and entries for one file, with these links and missing paths.
    fn of(file: &str, links: &[(&str, &str)], missing: &[&str]) -> (Vec<String>, Vec<String>) {
        let kind = |path: &Path| {
            let path = path.to_str().expect("a text");
            let link = links.iter().find(|(from, _)| *from == path);
            match link {
                Some((_, to)) => PathKind::Link(PathBuf::from(to)),
                None if missing.contains(&path) => PathKind::Missing,
                None => PathKind::Other,
            }
        };
        let folder = Path::new("/etc/conf.d");
        let watched = watched(&[PathBuf::from(file)].into(), folder, kind);
        let texts = |paths: &BTreeSet<PathBuf>| {
            let texts = paths.iter().map(|path| path.display().to_string());
            let own = ["/etc", "/etc/conf.d"];
            texts
                .filter(|text| !own.contains(&&**text))
                .collect::<Vec<_>>()
        };
        (texts(&watched.directories), texts(&watched.entries))
    }

    fn texts(all: &[&str]) -> Vec<String> {
        all.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_file_is_seen_in_its_directory() {
        assert_eq!(
            of("/a/b/c", &[], &[]),
            (texts(&["/a/b"]), texts(&["/a/b/c"]))
        );
        assert_eq!(of("c", &[], &[]), (texts(&["."]), texts(&["c"])));
    }

    #[test]
    fn every_link_on_the_way_is_watched() {
        // As Kubernetes mounts a ConfigMap.
        let links = [
            ("/etc/conf.d/a.toml", "..data/a.toml"),
            ("/etc/conf.d/..data", "..2026_1"),
        ];
        let (directories, entries) = of("/etc/conf.d/a.toml", &links, &[]);
        assert_eq!(directories, ["/etc/conf.d/..2026_1"]);
        let expected = [
            "/etc/conf.d/..2026_1/a.toml",
            "/etc/conf.d/..data",
            "/etc/conf.d/a.toml",
        ];
        assert_eq!(entries, expected);
        let links = [("/srv/current", "/releases/5")];
        let (directories, entries) = of("/srv/current/x/key", &links, &[]);
        assert_eq!(directories, ["/releases/5/x", "/srv"]);
        assert_eq!(entries, ["/releases/5/x/key", "/srv/current"]);
    }

    #[test]
    fn what_is_missing_is_watched_for() {
        let found = of("/a/b/c/d", &[], &["/a/b"]);
        assert_eq!(found, (texts(&["/a"]), texts(&["/a/b"])));
        let found = of("/a/b", &[], &["/a/b"]);
        assert_eq!(found, (texts(&["/a"]), texts(&["/a/b"])));
    }

    #[test]
    fn links_in_a_circle_end() {
        let links = [("/a/x", "y"), ("/a/y", "x")];
        let (directories, entries) = of("/a/x/b", &links, &[]);
        assert_eq!(directories, ["/a"]);
        assert_eq!(entries, ["/a/x", "/a/y"]);
    }

    #[test]
    fn only_what_matters_concerns() {
        let file = PathBuf::from("/a/users");
        let folder = Path::new("/etc/conf.d");
        let files = [file.clone()].into();
        let linked = watched(&files, folder, |path| {
            if path == folder {
                PathKind::Link(PathBuf::from("/srv/domains"))
            } else {
                PathKind::Other
            }
        });
        assert!(linked.concerns(Path::new("/srv/domains/new.toml")));
        assert!(linked.concerns(folder) && linked.directories.contains(Path::new("/etc")));
        let watched = watched(&files, folder, |_| PathKind::Other);
        assert!(watched.concerns(&file) && watched.concerns(Path::new("/a")));
        assert!(!watched.concerns(Path::new("/a/log")));
        assert!(watched.concerns(Path::new("/etc/conf.d/new.toml")));
        assert!(!watched.concerns(Path::new("/etc/conf.d/new.toml.swp")));
    }
}
