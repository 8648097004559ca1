//! Reads the configuration again and again: a file with a problem stays in force as it was when it
//! last was valid, while others change. A problem of `moorgate.toml`, whose rules and groups hold
//! for all domains, leaves everything as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::domain_file::{self, DomainReading};
use super::files;
use super::problem::Problems;
use super::resolve::{self, Conflict, ResolvedDomain, ResolvedMain};
use super::snapshot::{LogSettings, MAIN_FILE, Snapshot};
use crate::registry::host::HostName;

/// Reads the configuration of a directory.
#[derive(Debug)]
pub(crate) struct Loader {
    directory: PathBuf,
    /// What the files said when they were read last, valid or not.
    readings: BTreeMap<PathBuf, DomainReading>,
    main: Option<Arc<ResolvedMain>>,
    named_by_main: Vec<PathBuf>,
    accepted: Option<Selection>,
}

/// The directory of the domain files.
pub(crate) fn domain_folder(directory: &Path) -> PathBuf {
    files::domain_folder(directory)
}

/// The domain files that are there. Blocks on the file system.
pub(crate) fn domain_files(directory: &Path) -> Vec<PathBuf> {
    files::list(&domain_folder(directory))
        .unwrap_or_default()
        .domains
}

/// A configuration that was read: all files alone are checked.
#[derive(Debug)]
pub(crate) struct CandidateConfig {
    main: Arc<ResolvedMain>,
    domains: BTreeMap<PathBuf, CandidateDomain>,
    /// Of the files that are passed over.
    warnings: Problems,
}

#[derive(Debug)]
struct CandidateDomain {
    /// `None` after an error.
    resolved: Option<Arc<ResolvedDomain>>,
    name: Option<HostName>,
    problems: Problems,
    /// Whether it differs from the version in force.
    is_changed: bool,
}

/// The version of each file that is to be in force.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    main: Arc<ResolvedMain>,
    domains: BTreeMap<PathBuf, Arc<ResolvedDomain>>,
    /// The files whose newest version is not in force.
    pub(crate) refused: Vec<RefusedFile>,
    pub(crate) warnings: Problems,
}

/// A domain file whose newest version is not in force.
#[derive(Clone, Debug)]
pub(crate) struct RefusedFile {
    pub(crate) file: PathBuf,
    /// The domain, if the file says which.
    pub(crate) domain: Option<HostName>,
    pub(crate) problems: Problems,
    /// Whether an earlier version is in force.
    pub(crate) is_served: bool,
}

impl Loader {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            readings: BTreeMap::new(),
            main: None,
            named_by_main: Vec::new(),
            accepted: None,
        }
    }

    /// The configuration directory.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Reads all files but those that are `unsettled`, which are taken as they were when they were
    /// read last. Blocks on the file system.
    ///
    /// Errors: the problems for which nothing may change, whatever the domain files say.
    pub(crate) fn read(
        &mut self,
        unsettled: &BTreeSet<PathBuf>,
    ) -> Result<CandidateConfig, Problems> {
        let mut problems = files::directory_problems(&self.directory);
        if problems.has_errors() {
            return Err(problems);
        }
        let main = self.read_main(unsettled, &mut problems);
        let mut warnings = Problems::default();
        let mut paths = files::domain_paths(&self.directory, &mut warnings);
        if warnings.has_errors() {
            problems.extend(warnings);
            return Err(problems);
        }
        // One that is being replaced may be missing for a short time.
        let known = unsettled.iter();
        let known = known.filter(|path| self.readings.contains_key(*path));
        let missing: Vec<_> = known
            .filter(|path| !paths.contains(path))
            .cloned()
            .collect();
        paths.extend(missing);
        self.read_domains(paths, unsettled);
        let main = main.ok_or(problems)?;
        let domains = self
            .readings
            .iter()
            .map(|(path, reading)| (path.clone(), self.candidate(path, reading, &main)));
        Ok(CandidateConfig {
            domains: domains.collect(),
            main,
            warnings,
        })
    }

    /// `None` after an error.
    fn read_main(
        &mut self,
        unsettled: &BTreeSet<PathBuf>,
        problems: &mut Problems,
    ) -> Option<Arc<ResolvedMain>> {
        if let Some(main) = &self.main
            && unsettled.contains(main.file.source.path())
        {
            return Some(main.clone());
        }
        let mut found = Problems::default();
        let file = files::main_file(&self.directory, &mut found);
        self.named_by_main = files::named_by_main(&file);
        let main = match &self.main {
            Some(known) if known.file.is_same(&file) => known.clone(),
            Some(_) | None => Arc::new(ResolvedMain::new(file, &self.directory)),
        };
        found.extend(main.problems.iter().cloned());
        if found.has_errors() {
            problems.extend(found);
            return None;
        }
        self.main = Some(main.clone());
        Some(main)
    }

    fn read_domains(&mut self, paths: Vec<PathBuf>, unsettled: &BTreeSet<PathBuf>) {
        let mut before = std::mem::take(&mut self.readings);
        for path in paths {
            let known = before.remove(&path);
            let reading = match known {
                Some(known) if unsettled.contains(&path) => known,
                // Somebody is writing it.
                None if unsettled.contains(&path) => continue,
                known => domain_file::read(&path, known.as_ref()),
            };
            self.readings.insert(path, reading);
        }
    }

    fn candidate(
        &self,
        path: &Path,
        reading: &DomainReading,
        main: &Arc<ResolvedMain>,
    ) -> CandidateDomain {
        let accepted = self.accepted.as_ref();
        let before = accepted.and_then(|accepted| accepted.domains.get(path));
        let is_same_main = accepted.is_some_and(|accepted| Arc::ptr_eq(&accepted.main, main));
        let mut problems = reading.problems.clone();
        let files = [reading.file.as_ref(), before.map(|before| &before.file)];
        let mut names = files.into_iter().flatten().filter_map(|file| file.name());
        let name = names.next().cloned();
        let Some(file) = &reading.file else {
            return CandidateDomain {
                resolved: None,
                name,
                problems,
                is_changed: true,
            };
        };
        let resolved = match before {
            Some(before) if is_same_main && Arc::ptr_eq(&before.file, file) => before.clone(),
            before => Arc::new(self.resolve(file.clone(), main, before)),
        };
        problems.extend(resolved.problems.iter().cloned());
        let is_changed = !before.is_some_and(|before| Arc::ptr_eq(&before.file, file));
        CandidateDomain {
            resolved: Some(resolved).filter(|_| !problems.has_errors()),
            name,
            problems,
            is_changed,
        }
    }

    fn resolve(
        &self,
        file: Arc<resolve::DomainFile>,
        main: &ResolvedMain,
        before: Option<&Arc<ResolvedDomain>>,
    ) -> ResolvedDomain {
        let before = before.and_then(|before| before.host.as_ref());
        ResolvedDomain::new(file, main, &self.directory, before)
    }

    /// Chooses the version of each file: the newest one that has no problem and no conflict with
    /// what the others say. Of two files that exclude each other, those that changed are at fault.
    /// `unusable` are further problems of files: nothing that serves could be built of them.
    ///
    /// Errors: the problems of a new `moorgate.toml` with domain files that were valid before.
    pub(crate) fn select(
        &self,
        candidate: &CandidateConfig,
        unusable: &BTreeMap<PathBuf, Problems>,
    ) -> Result<Selection, Problems> {
        let mut refused = unusable.clone();
        loop {
            let (domains, mut warnings) = self.choose(candidate, &refused)?;
            let all: Vec<&ResolvedDomain> = domains.values().map(|domain| &**domain).collect();
            let conflicts = resolve::conflicts(&all, &candidate.main);
            if !conflicts.is_empty() {
                candidate.refuse(conflicts, &mut refused)?;
                continue;
            }
            resolve::warn(&all, &candidate.main, &mut warnings);
            warnings.sort();
            return Ok(Selection {
                refused: candidate.refused_files(&domains, &refused),
                main: candidate.main.clone(),
                domains,
                warnings,
            });
        }
    }

    /// The newest version of each file that is not refused, or else the one in force, with warnings.
    fn choose(
        &self,
        candidate: &CandidateConfig,
        refused: &BTreeMap<PathBuf, Problems>,
    ) -> Result<(ChosenDomains, Problems), Problems> {
        let mut warnings = candidate.main.problems.clone();
        warnings.extend(candidate.warnings.iter().cloned());
        let mut domains = ChosenDomains::new();
        for (path, newest) in &candidate.domains {
            let resolved = newest.resolved.as_ref();
            let chosen = match resolved.filter(|_| !refused.contains_key(path)) {
                Some(resolved) => {
                    warnings.extend(newest.problems.iter().cloned());
                    resolved.clone()
                }
                None => match self.in_force(path, &candidate.main)? {
                    Some(resolved) => resolved,
                    None => continue,
                },
            };
            domains.insert(path.clone(), chosen);
        }
        Ok((domains, warnings))
    }

    /// The version of a file that is in force, if there is one, with the settings of this
    /// `moorgate.toml`.
    fn in_force(
        &self,
        path: &Path,
        main: &Arc<ResolvedMain>,
    ) -> Result<Option<Arc<ResolvedDomain>>, Problems> {
        let accepted = self.accepted.as_ref();
        let Some((accepted, before)) =
            accepted.and_then(|accepted| Some((accepted, accepted.domains.get(path)?)))
        else {
            return Ok(None);
        };
        if Arc::ptr_eq(&accepted.main, main) {
            return Ok(Some(before.clone()));
        }
        let resolved = self.resolve(before.file.clone(), main, Some(before));
        if resolved.problems.has_errors() {
            return Err(resolved.problems);
        }
        Ok(Some(Arc::new(resolved)))
    }

    /// Whether a selection is the same as the one in force.
    pub(crate) fn is_in_force(&self, selection: &Selection) -> bool {
        let Some(accepted) = &self.accepted else {
            return false;
        };
        let files = |selection: &Selection| {
            let files = selection.domains.iter();
            let files = files.map(|(path, domain)| (path.clone(), Arc::as_ptr(domain)));
            files.collect::<Vec<_>>()
        };
        Arc::ptr_eq(&accepted.main, &selection.main) && files(accepted) == files(selection)
    }

    /// Records that a selection is in force.
    pub(crate) fn accept(&mut self, selection: &Selection) {
        self.accepted = Some(selection.clone());
    }

    /// The files that the configuration consists of, and those that they name, as they were read
    /// last.
    pub(crate) fn files(&self) -> BTreeSet<PathBuf> {
        let main = self.directory.join(MAIN_FILE);
        let domains = self
            .readings
            .iter()
            .flat_map(|(path, reading)| std::iter::once(path).chain(&reading.named));
        let all = domains.chain(&self.named_by_main).cloned();
        all.chain([main]).collect()
    }
}

type ChosenDomains = BTreeMap<PathBuf, Arc<ResolvedDomain>>;

impl CandidateConfig {
    pub(crate) fn log_settings(&self) -> &LogSettings {
        self.main.log_settings()
    }

    /// Refuses the files that are at fault for conflicts.
    ///
    /// Errors: the conflicts for which no domain file is at fault.
    fn refuse(
        &self,
        conflicts: Vec<Conflict>,
        refused: &mut BTreeMap<PathBuf, Problems>,
    ) -> Result<(), Problems> {
        let mut of_main = Problems::default();
        for Conflict { problem, opposite } in conflicts {
            let mut is_settled = false;
            for problem in std::iter::once(&problem).chain(&opposite) {
                let path = problem.file();
                let changed = self.domains.get(path).filter(|newest| newest.is_changed);
                if changed.is_some_and(|newest| newest.resolved.is_some()) {
                    is_settled = true;
                    refused
                        .entry(path.to_owned())
                        .or_default()
                        .push(problem.clone());
                }
            }
            if !is_settled {
                of_main.push(problem);
            }
        }
        if of_main.has_errors() {
            return Err(of_main);
        }
        Ok(())
    }

    /// The files whose newest version is not among these.
    fn refused_files(
        &self,
        domains: &ChosenDomains,
        refused: &BTreeMap<PathBuf, Problems>,
    ) -> Vec<RefusedFile> {
        let all = self.domains.iter().filter_map(|(file, newest)| {
            let problems = match (&newest.resolved, refused.get(file)) {
                (Some(_), problems) => problems?,
                (None, _) => &newest.problems,
            };
            Some(RefusedFile {
                file: file.clone(),
                domain: newest.name.clone(),
                problems: problems.clone(),
                is_served: domains.contains_key(file),
            })
        });
        all.collect()
    }
}

impl Selection {
    /// The configuration.
    pub(crate) fn snapshot(&self, directory: &Path) -> Snapshot {
        let all: Vec<&ResolvedDomain> = self.domains.values().map(|domain| &**domain).collect();
        resolve::assemble(directory, &self.main, &all).expect("no chosen file has an error")
    }

    /// Whether no file can be served.
    pub(crate) fn is_empty(&self) -> bool {
        self.domains.is_empty()
    }

    /// The problems of all files that are refused.
    pub(crate) fn problems(&self) -> Problems {
        let mut problems = Problems::default();
        for refused in &self.refused {
            problems.extend(refused.problems.iter().cloned());
        }
        problems.sort();
        problems
    }
}

#[cfg(test)]
mod tests;
