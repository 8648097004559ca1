//! What is in force of the configuration, and what is wrong with the rest. A problem is logged once,
//! and reported until it has ended.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::config::loader::{RefusedFile, Selection};
use crate::config::problem::{Colour, Problems};
use crate::registry::host::HostName;

/// What is in force of the configuration.
#[derive(Clone, Debug)]
pub(crate) struct ConfigurationStatus {
    /// When the newest part of what is in force was read.
    pub(crate) loaded: SystemTime,
    /// The files whose newest version is not in force, by path.
    pub(crate) problems: BTreeMap<PathBuf, FileProblem>,
}

impl ConfigurationStatus {
    /// Why nothing of the newest configuration is in force, if that is so.
    pub(crate) fn refused(&self) -> Option<&FileProblem> {
        let mut all = self.problems.values();
        all.find(|problem| problem.effect == ProblemEffect::AllRefused)
    }
}

/// What is wrong with a file whose newest version is not in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileProblem {
    /// The domain, if the file says which.
    pub(crate) domain: Option<HostName>,
    pub(crate) text: String,
    pub(crate) effect: ProblemEffect,
}

/// What a problem leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProblemEffect {
    /// The domain is served as an earlier version of its file says.
    EarlierServed,
    /// The domain is not served.
    NotServed,
    /// The whole configuration stays as it was.
    AllRefused,
}

impl ProblemEffect {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::EarlierServed => "earlier-served",
            Self::NotServed => "not-served",
            Self::AllRefused => "all-refused",
        }
    }
}

/// When a problem is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReportTime {
    /// At once: somebody waits for the result.
    Now,
    /// When it is found a second time: a file may be half written.
    WhenConfirmed,
}

/// The problems that are reported, and those that are yet to be confirmed.
#[derive(Debug)]
pub(super) struct ProblemReports {
    pub(super) status: ConfigurationStatus,
    unconfirmed: BTreeSet<PathBuf>,
    warned: HashSet<(PathBuf, String)>,
}

impl ProblemReports {
    pub(super) fn new() -> Self {
        Self {
            status: ConfigurationStatus {
                loaded: SystemTime::now(),
                problems: BTreeMap::new(),
            },
            unconfirmed: BTreeSet::new(),
            warned: HashSet::new(),
        }
    }

    /// Records what is in force of the newest configuration. Logs its warnings.
    pub(super) fn loaded(&mut self, selection: &Selection, is_changed: bool, time: ReportTime) {
        self.warn(&selection.warnings);
        self.refused_files(&selection.refused, time);
        if is_changed || (time == ReportTime::Now && selection.refused.is_empty()) {
            self.status.loaded = SystemTime::now();
        }
    }

    fn refused_files(&mut self, refused: &[RefusedFile], time: ReportTime) {
        let found = refused.iter().map(|refused| {
            let effect = if refused.is_served {
                ProblemEffect::EarlierServed
            } else {
                ProblemEffect::NotServed
            };
            let problem = FileProblem {
                domain: refused.domain.clone(),
                text: refused.problems.render(Colour::Never),
                effect,
            };
            (refused.file.clone(), problem)
        });
        self.found(found.collect(), time);
    }

    /// Records why nothing of the newest configuration is in force. What was wrong with domain files
    /// still is, as far as is known.
    pub(super) fn refused(&mut self, main_file: &Path, text: String, time: ReportTime) {
        let mut found = self.status.problems.clone();
        let problem = FileProblem {
            domain: None,
            text,
            effect: ProblemEffect::AllRefused,
        };
        found.insert(main_file.to_owned(), problem);
        self.found(found, time);
    }

    /// Whether a problem is yet to be confirmed.
    pub(super) fn is_unconfirmed(&self) -> bool {
        !self.unconfirmed.is_empty()
    }

    fn found(&mut self, found: BTreeMap<PathBuf, FileProblem>, time: ReportTime) {
        let before = std::mem::take(&mut self.status.problems);
        let unconfirmed = std::mem::take(&mut self.unconfirmed);
        for (file, problem) in found {
            let known = before.get(&file);
            let is_confirmed = time == ReportTime::Now || unconfirmed.contains(&file);
            if known == Some(&problem) || is_confirmed {
                if known != Some(&problem) || time == ReportTime::Now {
                    problem.log(&file);
                }
                self.status.problems.insert(file, problem);
                continue;
            }
            if let Some(known) = known {
                self.status.problems.insert(file.clone(), known.clone());
            }
            self.unconfirmed.insert(file);
        }
        for file in before.keys() {
            if !self.status.problems.contains_key(file) {
                tracing::info!(file = %file.display(), "file has no problem any more");
            }
        }
    }

    /// Logs the warnings of a configuration that the last one did not have.
    fn warn(&mut self, warnings: &Problems) {
        let mut warned = HashSet::new();
        for warning in warnings.iter() {
            let key = (warning.file().to_owned(), warning.message().to_owned());
            if !self.warned.contains(&key) {
                tracing::warn!(file = %warning.file().display(), "{}", warning.message());
            }
            warned.insert(key);
        }
        self.warned = warned;
    }
}

impl FileProblem {
    fn log(&self, file: &Path) {
        let Self {
            domain,
            text,
            effect,
        } = self;
        let domain = domain.as_ref().map(HostName::as_str);
        let file = file.display();
        match effect {
            ProblemEffect::EarlierServed => tracing::error!(
                %file,
                domain,
                "the domain file has problems, its last valid version stays in force:\n{text}"
            ),
            ProblemEffect::NotServed => tracing::error!(
                %file,
                domain,
                "the domain file has problems, the domain is not served:\n{text}"
            ),
            ProblemEffect::AllRefused => {
                tracing::error!("the new configuration has problems and is not used:\n{text}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(file: &str, message: &str) -> RefusedFile {
        let mut problems = Problems::default();
        let path = PathBuf::from(file);
        problems.push(crate::config::problem::Problem::in_file(
            &path,
            message,
            "correct it",
        ));
        RefusedFile {
            file: path,
            domain: None,
            problems,
            is_served: true,
        }
    }

    fn reported(reports: &ProblemReports) -> Vec<String> {
        let all = reports.status.problems.iter();
        all.map(|(file, problem)| {
            let first = problem.text.lines().next().unwrap_or_default();
            format!("{}: {first}", file.display())
        })
        .collect()
    }

    #[test]
    fn a_problem_that_has_ended_at_the_second_reading_is_never_reported() {
        let mut reports = ProblemReports::new();
        reports.refused_files(&[refused("a", "half")], ReportTime::WhenConfirmed);
        assert!(reports.is_unconfirmed());
        assert!(reported(&reports).is_empty());
        reports.refused_files(&[], ReportTime::WhenConfirmed);
        assert!(!reports.is_unconfirmed());
        reports.refused_files(&[refused("a", "half")], ReportTime::WhenConfirmed);
        assert!(reported(&reports).is_empty(), "it is a new one");
        reports.refused_files(&[refused("a", "whole")], ReportTime::WhenConfirmed);
        assert_eq!(reported(&reports), ["a: error: whole"]);
        assert!(!reports.is_unconfirmed());
    }

    #[test]
    fn a_command_reports_at_once() {
        let mut reports = ProblemReports::new();
        reports.refused_files(&[refused("a", "wrong")], ReportTime::Now);
        assert_eq!(reported(&reports), ["a: error: wrong"]);
        reports.refused_files(&[refused("a", "other")], ReportTime::WhenConfirmed);
        assert_eq!(
            reported(&reports),
            ["a: error: wrong"],
            "until it is confirmed"
        );
        reports.refused_files(&[refused("a", "other")], ReportTime::WhenConfirmed);
        assert_eq!(reported(&reports), ["a: error: other"]);
        reports.refused_files(&[], ReportTime::WhenConfirmed);
        assert!(reported(&reports).is_empty());
    }

    #[test]
    fn a_refused_configuration_leaves_the_problems_of_domains() {
        let mut reports = ProblemReports::new();
        reports.refused_files(&[refused("a", "wrong")], ReportTime::Now);
        reports.refused(
            Path::new("moorgate.toml"),
            "error: no".to_owned(),
            ReportTime::Now,
        );
        assert_eq!(
            reported(&reports),
            ["a: error: wrong", "moorgate.toml: error: no"]
        );
        assert_eq!(
            reports.status.refused().map(|problem| &*problem.text),
            Some("error: no")
        );
        reports.refused_files(&[refused("a", "wrong")], ReportTime::Now);
        assert_eq!(reported(&reports), ["a: error: wrong"]);
    }
}
