//! Lists of references to images that are in use elsewhere, in Kubernetes for instance.

use std::collections::{HashMap, HashSet};
use std::fmt;

use crate::registry::digest::Digest;
use crate::registry::host::{Authority, HostName};
use crate::registry::name::RepositoryName;
use crate::registry::reference::{Reference, Tag};

/// The tags and digests of a domain that are in use elsewhere.
#[derive(Clone, Debug, Default)]
pub(crate) struct InUse {
    /// The names of the domain.
    names: HashSet<HostName>,
    /// Where the references were found.
    sources: Vec<Box<str>>,
    references: HashMap<RepositoryName, HashMap<Reference, SourceIndex>>,
    /// Digests that a list names without a repository.
    digests: HashMap<Digest, SourceIndex>,
}

/// The place of a source in the order in which they were added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SourceIndex(pub(super) u32);

/// What is in use of one repository.
#[derive(Clone, Copy, Debug)]
pub(super) struct RepositoryInUse<'a> {
    references: Option<&'a HashMap<Reference, SourceIndex>>,
    digests: &'a HashMap<Digest, SourceIndex>,
}

/// A list has something that is no reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {reason}")]
pub(crate) struct InvalidReferenceList {
    pub(crate) place: ListPlace,
    pub(crate) reason: String,
}

/// From 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListPlace {
    Line(usize),
    /// Of a JSON array.
    Entry(usize),
}

impl fmt::Display for ListPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}"),
            Self::Entry(entry) => write!(f, "entry {entry} of the array"),
        }
    }
}

impl InUse {
    /// Nothing in use yet, for a domain that has these names.
    pub(crate) fn new(names: impl IntoIterator<Item = HostName>) -> Self {
        Self {
            names: names.into_iter().collect(),
            ..Self::default()
        }
    }

    /// Adds the references of a list: one in each line, with comments after `#`, or a JSON array of
    /// strings. Those of other hosts are left out. `source` is shown to users.
    ///
    /// Errors: the first line that is no reference. What is in use is not known then.
    pub(crate) fn add(&mut self, source: &str, list: &str) -> Result<(), InvalidReferenceList> {
        let at = SourceIndex(u32::try_from(self.sources.len()).unwrap_or(u32::MAX));
        self.sources.push(source.into());
        let list = list.trim_start_matches('\u{feff}');
        if is_array(list) {
            return self.add_array(at, list);
        }
        for (line, text) in (1..).zip(list.lines()) {
            let text = without_comment(text).trim();
            if !text.is_empty() {
                self.add_reference(at, text, ListPlace::Line(line))?;
            }
        }
        Ok(())
    }

    fn add_array(&mut self, at: SourceIndex, list: &str) -> Result<(), InvalidReferenceList> {
        let entries: Vec<String> =
            serde_json::from_str(list).map_err(|error| InvalidReferenceList {
                place: ListPlace::Line(error.line().max(1)),
                reason: format!("not a JSON array of strings: {error}"),
            })?;
        for (entry, text) in (1..).zip(&entries) {
            self.add_reference(at, text.trim(), ListPlace::Entry(entry))?;
        }
        Ok(())
    }

    fn add_reference(
        &mut self,
        at: SourceIndex,
        text: &str,
        place: ListPlace,
    ) -> Result<(), InvalidReferenceList> {
        match ImageReference::parse(text) {
            Ok(ImageReference::Digest(digest)) => {
                self.digests.entry(digest).or_insert(at);
            }
            Ok(ImageReference::Image {
                host,
                repository,
                reference,
            }) => {
                if self.names.contains(&host) {
                    let named = self.references.entry(repository).or_default();
                    named.entry(reference).or_insert(at);
                }
            }
            Err(problem) => {
                let shown: String = text.chars().take(MAX_SHOWN_CHARACTERS).collect();
                let reason = format!("{shown:?} is no image reference: {problem}");
                return Err(InvalidReferenceList { place, reason });
            }
        }
        Ok(())
    }

    /// The source that names a tag.
    pub(crate) fn tag(&self, repository: &RepositoryName, tag: &Tag) -> Option<&str> {
        let at = self.of(repository).tag(tag)?;
        Some(self.source(at))
    }

    /// The source that names a manifest by its digest.
    pub(crate) fn digest(&self, repository: &RepositoryName, digest: &Digest) -> Option<&str> {
        let at = self.of(repository).digest(digest)?;
        Some(self.source(at))
    }

    pub(super) fn of(&self, repository: &RepositoryName) -> RepositoryInUse<'_> {
        RepositoryInUse {
            references: self.references.get(repository),
            digests: &self.digests,
        }
    }

    pub(super) fn source(&self, at: SourceIndex) -> &str {
        let source = self.sources.get(at.0 as usize);
        source.map_or("", |source| source)
    }
}

impl RepositoryInUse<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.references.is_none() && self.digests.is_empty()
    }

    pub(super) fn tag(&self, tag: &Tag) -> Option<SourceIndex> {
        let references = self.references?;
        references.get(&Reference::Tag(tag.clone())).copied()
    }

    pub(super) fn digest(&self, digest: &Digest) -> Option<SourceIndex> {
        let named = self.references.and_then(|references| {
            // Clones of digests share their text.
            references.get(&Reference::Digest(digest.clone()))
        });
        named.or_else(|| self.digests.get(digest)).copied()
    }
}

/// An image as `docker pull` names it, or as Kubernetes reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum ImageReference {
    Image {
        host: HostName,
        repository: RepositoryName,
        /// The digest, if there is one: a tag beside it is not followed.
        reference: Reference,
    },
    /// A digest alone, as Kubernetes has it where it knows no repository.
    Digest(Digest),
}

impl ImageReference {
    /// Parses `[host[:port]/]repository[:tag][@digest]` as Docker does: without a host it is of
    /// Docker Hub, without tag and digest it is `latest`.
    fn parse(text: &str) -> Result<Self, &'static str> {
        // Kubernetes: `status.containerStatuses[].imageID` with Docker as the runtime.
        let text = ["docker-pullable://", "docker://"]
            .iter()
            .find_map(|scheme| text.strip_prefix(scheme))
            .unwrap_or(text);
        if let Ok(digest) = Digest::parse(text) {
            return Ok(Self::Digest(digest));
        }
        let (named, digest) = match text.split_once('@') {
            Some((named, digest)) => {
                let digest = Digest::parse(digest).map_err(|_| "the digest is not valid")?;
                (named, Some(digest))
            }
            None => (text, None),
        };
        let (host, rest) = split_host(named);
        let host = Authority::parse(host).map_err(|_| "the host is not valid")?;
        let (repository, tag) = match rest.split_once(':') {
            Some((repository, tag)) => (repository, tag),
            None => (rest, "latest"),
        };
        let tag = Tag::parse(tag).map_err(|_| "the tag is not valid")?;
        let official = host.host.as_str() == DOCKER_HUB && !repository.contains('/');
        let repository = if official {
            RepositoryName::parse(&format!("library/{repository}"))
        } else {
            RepositoryName::parse(repository)
        };
        Ok(Self::Image {
            host: host.host,
            repository: repository.map_err(|_| "the repository name is not valid")?,
            reference: digest.map_or(Reference::Tag(tag), Reference::Digest),
        })
    }
}

/// Splits the host from the rest: the first component, if it cannot be one of a repository's name.
fn split_host(named: &str) -> (&str, &str) {
    match named.split_once('/') {
        Some(("index.docker.io", rest)) => (DOCKER_HUB, rest),
        Some((first, rest))
            if first == "localhost"
                || first.contains(['.', ':'])
                || first.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DOCKER_HUB, named),
    }
}

/// Whether a list is a JSON array: no address in brackets is at its start.
fn is_array(list: &str) -> bool {
    let rest = list.trim_start().strip_prefix('[');
    let is_address = |rest: &str| rest.starts_with(|c: char| c == ':' || c.is_ascii_hexdigit());
    rest.is_some_and(|rest| !is_address(rest))
}

/// The line up to a `#` at its start or after a space: no reference has one.
fn without_comment(line: &str) -> &str {
    let mut comments = line.match_indices('#').filter(|(at, _)| {
        let before = line.get(..*at).unwrap_or_default();
        before.is_empty() || before.ends_with(char::is_whitespace)
    });
    let end = comments.next().map_or(line.len(), |(at, _)| at);
    line.get(..end).unwrap_or_default()
}

const DOCKER_HUB: &str = "docker.io";

const MAX_SHOWN_CHARACTERS: usize = 100;

#[cfg(test)]
mod tests;
