//! The files that an import reads: paths as a container names them, patterns, and bounded reading.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

/// Directories that the container of Caddy sees under another name, as in `volumes` of a compose
/// file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Volumes(pub(crate) Vec<Volume>);

/// `HOST:CONTAINER`, with or without `:ro`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Volume {
    pub(crate) host: PathBuf,
    pub(crate) container: PathBuf,
}

impl Volume {
    /// Parses `HOST:CONTAINER[:OPTIONS]`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = text.split(':');
        match (parts.next(), parts.next()) {
            (Some(host), Some(container)) if !host.is_empty() && container.starts_with('/') => {
                Ok(Self {
                    host: host.into(),
                    container: container.into(),
                })
            }
            _ => Err("write HOST:CONTAINER, as in `volumes` of a compose file".to_owned()),
        }
    }
}

impl Volumes {
    /// The path on this machine of one that Caddy would open.
    pub(super) fn on_host(&self, path: &Path) -> PathBuf {
        let path = normal(path);
        let mounted = self.0.iter().filter_map(|volume| {
            let rest = path.strip_prefix(&volume.container).ok()?;
            let length = volume.container.components().count();
            Some((length, joined(&volume.host, rest)))
        });
        let nearest = mounted.max_by_key(|(length, _)| *length);
        nearest.map_or(path.clone(), |(_, host)| host)
    }

    /// The files that match a path with `*`, `?` and `[…]`, in order; hidden ones do not.
    pub(super) fn matching(&self, pattern: &Path) -> io::Result<Vec<PathBuf>> {
        let pattern = self.on_host(pattern);
        let mut found = vec![PathBuf::new()];
        for component in pattern.components() {
            let text = component.as_os_str().to_string_lossy();
            if !text.contains(['*', '?', '[']) {
                found.iter_mut().for_each(|path| path.push(component));
                continue;
            }
            let mut next = Vec::new();
            for directory in &found {
                next.extend(entries(directory, &text)?);
            }
            found = next;
        }
        found.retain(|path| path.is_file());
        found.sort();
        Ok(found)
    }
}

fn joined(host: &Path, rest: &Path) -> PathBuf {
    // Joining an empty path would add a slash to a file.
    if rest.as_os_str().is_empty() {
        return host.to_owned();
    }
    host.join(rest)
}

fn entries(directory: &Path, pattern: &str) -> io::Result<Vec<PathBuf>> {
    let directory = if directory.as_os_str().is_empty() {
        Path::new(".")
    } else {
        directory
    };
    let pattern: Vec<char> = pattern.chars().collect();
    let mut found = Vec::new();
    let listed = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        listed => listed?,
    };
    for entry in listed.take(MAX_ENTRIES) {
        let name = entry?.file_name();
        let text: Vec<char> = name.to_string_lossy().chars().collect();
        if text.first() != Some(&'.') && matches(&pattern, &text) {
            found.push(if directory == Path::new(".") {
                PathBuf::from(name)
            } else {
                directory.join(name)
            });
        }
    }
    Ok(found)
}

/// Whether a name matches a pattern of a shell: `*`, `?` and `[a-z]`. Takes a time that is bounded
/// by the product of the lengths.
pub(super) fn matches(pattern: &[char], name: &[char]) -> bool {
    let (mut at, mut position) = (0, 0);
    let mut last_star: Option<(usize, usize)> = None;
    while position < name.len() {
        let one = pattern.get(at).zip(name.get(position));
        let step = match one {
            Some(('*', _)) => {
                last_star = Some((at, position));
                at += 1;
                continue;
            }
            Some(('?', _)) => Some(1),
            Some(('[', c)) => class(pattern.get(at..).unwrap_or_default(), *c),
            Some((expected, c)) => (expected == c).then_some(1),
            None => None,
        };
        match (step, last_star) {
            (Some(length), _) => {
                at += length;
                position += 1;
            }
            (None, Some((star, from))) => {
                last_star = Some((star, from + 1));
                at = star + 1;
                position = from + 1;
            }
            (None, None) => return false,
        }
    }
    pattern
        .get(at..)
        .unwrap_or_default()
        .iter()
        .all(|c| *c == '*')
}

/// The length of a class like `[a-c]` at the start of the pattern, if it has the character.
fn class(pattern: &[char], c: char) -> Option<usize> {
    let end = pattern.iter().position(|c| *c == ']')?;
    let mut inner = pattern.get(1..end)?;
    let is_negated = inner.first() == Some(&'^');
    if is_negated {
        inner = inner.get(1..)?;
    }
    let mut has = false;
    while let Some((first, rest)) = inner.split_first() {
        (has, inner) = match rest {
            ['-', last, rest @ ..] => (has || (first..=last).contains(&&c), rest),
            _ => (has || *first == c, rest),
        };
    }
    (has != is_negated).then_some(end + 1)
}

/// Resolves `.` and `..` in the text, as Caddy does: links are not followed.
pub(super) fn normal(path: &Path) -> PathBuf {
    let mut short = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => match short.components().next_back() {
                Some(Component::Normal(_)) => {
                    short.pop();
                }
                Some(Component::RootDir) => {}
                _ => short.push(component),
            },
            Component::CurDir => {}
            other => short.push(other),
        }
    }
    short
}

/// The text of a regular file of bounded size.
pub(super) fn read(path: &Path) -> io::Result<String> {
    let bytes = read_bytes(path)?;
    String::from_utf8(bytes)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the file is not UTF-8"))
}

pub(super) fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    // Opening a pipe would wait for a writer.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("this is no regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?
        .take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other("the file is larger than 4 MiB"));
    }
    Ok(bytes)
}

const MAX_FILE_BYTES: u64 = 4 << 20;
/// Of a directory that a pattern is matched against.
const MAX_ENTRIES: usize = 10_000;
