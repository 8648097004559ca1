//! Plan files: JSON lines, a header, then for each repository its tags, the manifests that go and a
//! summary, and the totals. Scripts read them too.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Lines, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::error::RunError;
use crate::retention::plan::Reason;
use crate::state_file::TEMPORARY_PREFIX;

/// A line of a plan file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "kebab-case")]
pub(crate) enum PlanLine {
    Plan(PlanHeader),
    Tag(TagLine),
    Manifest(ManifestLine),
    /// After the tags and manifests of the repository.
    Repository(RepositoryLine),
    Totals(PlanTotals),
}

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlanHeader {
    /// Of the format: 1.
    pub(crate) version: u32,
    pub(crate) id: String,
    pub(crate) domain: String,
    /// The directory of the store, or the address of the upstream.
    pub(crate) registry: String,
    pub(crate) made: Timestamp,
    /// Where the rules are: FILE:LINE.
    pub(crate) rules: Vec<String>,
}

/// What becomes of a tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TagLine {
    pub(crate) repository: String,
    pub(crate) tag: String,
    pub(crate) digest: String,
    pub(crate) stays: bool,
    pub(crate) reasons: Vec<ReasonLine>,
    /// FILE:LINE of the rule that decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rule: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pushed: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pulled: Option<Timestamp>,
    /// When it goes if nobody pushes or pulls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<Timestamp>,
}

/// A reason in one word and in a sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReasonLine {
    pub(crate) reason: String,
    pub(crate) text: String,
}

impl ReasonLine {
    pub(crate) fn new(reason: &Reason) -> Self {
        Self {
            reason: reason_name(reason).to_owned(),
            text: reason.to_string(),
        }
    }
}

/// A manifest that goes with its last tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ManifestLine {
    pub(crate) repository: String,
    pub(crate) digest: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pulled: Option<Timestamp>,
}

/// The end of a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RepositoryLine {
    pub(crate) repository: String,
    pub(crate) tags: u64,
    pub(crate) goes: u64,
    pub(crate) manifests: u64,
    /// What comes free, where sizes are known.
    pub(crate) bytes: u64,
    /// Since when pulls have been recorded without a gap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) recorded_since: Option<Timestamp>,
}

/// The last line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlanTotals {
    pub(crate) repositories: u64,
    pub(crate) tags: u64,
    pub(crate) goes: u64,
    pub(crate) manifests: u64,
    pub(crate) bytes: u64,
    /// How many tags stay by the first of their reasons.
    pub(crate) stays: BTreeMap<String, u64>,
    /// The latest of all repositories.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) recorded_since: Option<Timestamp>,
}

impl PlanTotals {
    pub(super) fn add(&mut self, repository: &RepositoryLine) {
        self.repositories += 1;
        self.tags += repository.tags;
        self.goes += repository.goes;
        self.manifests += repository.manifests;
        self.bytes += repository.bytes;
        self.recorded_since = self.recorded_since.max(repository.recorded_since);
    }

    /// Whether more than a share of the tags goes.
    pub(crate) fn is_beyond(&self, max_share: u8) -> bool {
        self.goes.saturating_mul(100) > self.tags.saturating_mul(max_share.into())
    }
}

/// The name of a reason in plan files and counts.
fn reason_name(reason: &Reason) -> &'static str {
    match reason {
        Reason::NoRule => "no-rule",
        Reason::Protected { .. } => "protected",
        Reason::Young { .. } => "young",
        Reason::InUse { .. } => "in-use",
        Reason::Newest { .. } => "newest",
        Reason::PulledWithin { .. } => "pulled-within",
        Reason::PushedWithin { .. } => "pushed-within",
        Reason::NotYetKnown { .. } => "not-yet-known",
        Reason::NotExpired { .. } => "not-expired",
        Reason::OfKeptImage { .. } => "of-kept-image",
        Reason::WithSubject { .. } => "with-subject",
        Reason::NoReasonToStay => "nothing-keeps-it",
        Reason::Expired { .. } => "expired",
        Reason::BeyondLimit => "beyond-limit",
    }
}

/// Writes a plan, which appears under its name when it is complete. Blocks on the disk.
#[derive(Debug)]
pub(super) struct PlanWriter {
    file: BufWriter<NamedTempFile>,
    path: PathBuf,
}

impl PlanWriter {
    /// The directory exists.
    pub(super) fn new(path: PathBuf, header: PlanHeader) -> Result<Self, RunError> {
        let directory = path.parent().unwrap_or(Path::new("."));
        // Mode 0600.
        let file = tempfile::Builder::new()
            .prefix(TEMPORARY_PREFIX)
            .tempfile_in(directory)
            .map_err(RunError::io(&path))?;
        let file = BufWriter::with_capacity(BUFFER_SIZE, file);
        let mut writer = Self { file, path };
        writer.line(&PlanLine::Plan(header))?;
        Ok(writer)
    }

    pub(super) fn line(&mut self, line: &PlanLine) -> Result<(), RunError> {
        let write = |file: &mut BufWriter<NamedTempFile>| {
            serde_json::to_writer(&mut *file, line)?;
            file.write_all(b"\n")
        };
        write(&mut self.file).map_err(RunError::io(&self.path))
    }

    pub(super) fn finish(mut self, totals: PlanTotals) -> Result<PathBuf, RunError> {
        self.line(&PlanLine::Totals(totals))?;
        let Self { file, path } = self;
        let finish = || {
            let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|error| error.error)?;
            File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
        };
        finish().map_err(RunError::io(&path))?;
        Ok(path)
    }
}

const BUFFER_SIZE: usize = 64 << 10;

/// Reads a plan line by line. Blocks on the disk.
#[derive(Debug)]
pub(crate) struct PlanReader {
    lines: Lines<BufReader<File>>,
    path: PathBuf,
    /// Of the line that was read last.
    number: usize,
    pub(crate) header: PlanHeader,
}

/// The lines of one repository.
#[derive(Clone, Debug, Default)]
pub(crate) struct PlannedLines {
    pub(crate) tags: Vec<TagLine>,
    pub(crate) manifests: Vec<ManifestLine>,
    pub(crate) summary: RepositoryLine,
}

impl PlanReader {
    /// `None`: there is no such file.
    pub(crate) fn open(path: &Path) -> Result<Option<Self>, RunError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(RunError::io(path)(error)),
        };
        let mut lines = BufReader::with_capacity(BUFFER_SIZE, file).lines();
        let header = match parse_next(&mut lines, path, 1)? {
            Some(PlanLine::Plan(header)) if header.version == PLAN_VERSION => header,
            _ => return Err(damaged(path, 1)),
        };
        Ok(Some(Self {
            lines,
            path: path.to_owned(),
            number: 1,
            header,
        }))
    }

    /// The next line. `None` after the last one.
    pub(crate) fn next_line(&mut self) -> Result<Option<PlanLine>, RunError> {
        self.number += 1;
        parse_next(&mut self.lines, &self.path, self.number)
    }

    /// All lines of the next repository. `None`: that was the last one.
    pub(crate) fn next_repository(&mut self) -> Result<Option<PlannedLines>, RunError> {
        let mut planned = PlannedLines::default();
        loop {
            match self.next_line()? {
                Some(PlanLine::Tag(tag)) => planned.tags.push(tag),
                Some(PlanLine::Manifest(manifest)) => planned.manifests.push(manifest),
                Some(PlanLine::Repository(summary)) => {
                    planned.summary = summary;
                    return Ok(Some(planned));
                }
                Some(PlanLine::Totals(_)) => return Ok(None),
                Some(PlanLine::Plan(_)) | None => return Err(damaged(&self.path, self.number)),
            }
        }
    }

    /// The totals, which are the last line. Reads the whole file.
    pub(crate) fn totals(path: &Path) -> Result<Option<PlanTotals>, RunError> {
        let Some(mut reader) = Self::open(path)? else {
            return Ok(None);
        };
        loop {
            match reader.next_line()? {
                Some(PlanLine::Totals(totals)) => return Ok(Some(totals)),
                Some(_) => {}
                None => return Err(damaged(path, reader.number)),
            }
        }
    }

    /// The error for a line that says what cannot be.
    pub(super) fn damaged(&self) -> RunError {
        damaged(&self.path, self.number)
    }
}

fn parse_next(
    lines: &mut Lines<BufReader<File>>,
    path: &Path,
    number: usize,
) -> Result<Option<PlanLine>, RunError> {
    let Some(line) = lines.next() else {
        return Ok(None);
    };
    let line = line.map_err(RunError::io(path))?;
    let parsed = serde_json::from_str(&line);
    parsed.map(Some).map_err(|_| damaged(path, number))
}

fn damaged(path: &Path, line: usize) -> RunError {
    let path = path.to_owned();
    RunError::DamagedPlan { path, line }
}

pub(super) const PLAN_VERSION: u32 = 1;
