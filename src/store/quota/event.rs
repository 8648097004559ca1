//! What processes tell each other of the content of areas: one line for each event.

use std::fmt;

use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::registry::upload_id::UploadId;

/// A process that has the store open: 16 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ProcessId(Box<str>);

/// A publication of a process, by its number there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PublicationId {
    pub(super) process: ProcessId,
    pub(super) number: u64,
}

/// A change of what counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AreaEvent {
    /// An upload counts so many bytes from now on.
    Upload {
        process: ProcessId,
        repository: RepositoryName,
        id: UploadId,
        bytes: u64,
        /// Whether a request adds to it, so that the bytes may not have arrived yet.
        is_receiving: bool,
    },
    /// Content is about to appear in a repository. It counts, in place of its upload.
    Publishing {
        publication: PublicationId,
        repository: RepositoryName,
        digest: Digest,
        size: u64,
        upload: Option<UploadId>,
    },
    /// The end of a publication.
    Ended {
        publication: PublicationId,
        /// Whether the content is in the repository.
        is_stored: bool,
    },
}

impl ProcessId {
    pub(super) fn random() -> std::io::Result<Self> {
        let random = crate::crypto::random::<8>().map_err(std::io::Error::from)?;
        Ok(Self(crate::crypto::hex(&random).into()))
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let is_digit = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        (text.len() == 16 && text.bytes().all(is_digit)).then(|| Self(text.into()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl AreaEvent {
    /// The process that it comes from.
    pub(super) fn process(&self) -> &ProcessId {
        match self {
            Self::Upload { process, .. } => process,
            Self::Publishing { publication, .. } | Self::Ended { publication, .. } => {
                &publication.process
            }
        }
    }

    /// Parses a line without its end. `None` for a line that a process which died did not write to
    /// its end.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let fields: Vec<_> = line.split(' ').collect();
        match *fields.as_slice() {
            ["upload", process, repository, id, bytes, state, "."] => Some(Self::Upload {
                process: ProcessId::parse(process)?,
                repository: RepositoryName::parse(repository).ok()?,
                id: UploadId::parse(id).ok()?,
                bytes: bytes.parse().ok()?,
                is_receiving: flag(state, RECEIVING, IDLE)?,
            }),
            [
                "publishing",
                process,
                number,
                repository,
                digest,
                size,
                upload,
                ".",
            ] => {
                let upload = match upload {
                    NO_UPLOAD => None,
                    id => Some(UploadId::parse(id).ok()?),
                };
                Some(Self::Publishing {
                    publication: publication(process, number)?,
                    repository: RepositoryName::parse(repository).ok()?,
                    digest: Digest::parse(digest).ok()?,
                    size: size.parse().ok()?,
                    upload,
                })
            }
            ["ended", process, number, state, "."] => Some(Self::Ended {
                publication: publication(process, number)?,
                is_stored: flag(state, STORED, ABANDONED)?,
            }),
            _ => None,
        }
    }
}

fn publication(process: &str, number: &str) -> Option<PublicationId> {
    Some(PublicationId {
        process: ProcessId::parse(process)?,
        number: number.parse().ok()?,
    })
}

fn flag(text: &str, yes: &str, no: &str) -> Option<bool> {
    (text == yes || text == no).then_some(text == yes)
}

/// The line, with its end.
impl fmt::Display for AreaEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Upload {
                process,
                repository,
                id,
                bytes,
                is_receiving,
            } => {
                let (process, id) = (process.as_str(), id.as_str());
                let state = if *is_receiving { RECEIVING } else { IDLE };
                writeln!(f, "upload {process} {repository} {id} {bytes} {state} .")
            }
            Self::Publishing {
                publication: PublicationId { process, number },
                repository,
                digest,
                size,
                upload,
            } => {
                let process = process.as_str();
                let upload = upload.as_ref().map_or(NO_UPLOAD, UploadId::as_str);
                writeln!(
                    f,
                    "publishing {process} {number} {repository} {digest} {size} {upload} ."
                )
            }
            Self::Ended {
                publication: PublicationId { process, number },
                is_stored,
            } => {
                let process = process.as_str();
                let state = if *is_stored { STORED } else { ABANDONED };
                writeln!(f, "ended {process} {number} {state} .")
            }
        }
    }
}

const RECEIVING: &str = "receiving";
const IDLE: &str = "idle";
const STORED: &str = "stored";
const ABANDONED: &str = "abandoned";
const NO_UPLOAD: &str = "-";

#[cfg(test)]
mod tests {
    use super::super::tests::{digest, name};
    use super::*;

    #[test]
    fn every_event_is_a_line_and_no_part_of_the_line_is_one() {
        let process = ProcessId::random().unwrap();
        let publication = PublicationId {
            process: process.clone(),
            number: 12,
        };
        let publishing = |upload| AreaEvent::Publishing {
            publication: publication.clone(),
            repository: name("team/app"),
            digest: digest(1),
            size: 10,
            upload,
        };
        let id = UploadId::parse("0a").unwrap();
        let ended = |is_stored| AreaEvent::Ended {
            publication: publication.clone(),
            is_stored,
        };
        let upload = |is_receiving| AreaEvent::Upload {
            process: process.clone(),
            repository: name("team/app"),
            id: id.clone(),
            bytes: u64::MAX,
            is_receiving,
        };
        for event in [
            upload(true),
            upload(false),
            publishing(None),
            publishing(Some(id.clone())),
            ended(true),
            ended(false),
        ] {
            let line = event.to_string();
            let line = line.strip_suffix('\n').unwrap();
            assert_eq!(AreaEvent::parse(line), Some(event));
            for length in 0..line.len() {
                assert_eq!(AreaEvent::parse(&line[..length]), None);
                assert_eq!(AreaEvent::parse(&line[length + 1..]), None);
            }
        }
    }
}
