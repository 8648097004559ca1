//! Checks after a removal that every image that stays is whole.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use super::context::RunContext;
use super::error::RunError;
use super::plan_id::PlanId;
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::registry::reference::Tag;
use crate::retention::registry::RetainedRegistry;

/// What the checks of a run found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CheckSummary {
    /// Images that were checked.
    pub(crate) images: u64,
    /// Images for which there was no time.
    pub(crate) unchecked: u64,
    /// Images that lack what the run has not taken away: the first of them.
    pub(crate) incomplete: Vec<String>,
}

/// What is checked at a repository.
#[derive(Clone, Copy, Debug)]
pub(super) struct TagCheck<'a> {
    pub(super) repository: &'a RepositoryName,
    /// The manifests that this run took away.
    pub(super) taken: &'a [Digest],
    pub(super) plan: &'a PlanId,
}

/// Checks the images of tags, each image once, for [`CHECK_TIME`] at most.
///
/// Errors: an image lacks what this run took away. What lacks something else lacked it before, as an
/// index does that was pushed without some of its platforms: it is named in the summary.
pub(super) async fn check<R: RetainedRegistry>(
    run: &RunContext<'_, R>,
    check: TagCheck<'_>,
    tags: &[(Tag, Digest)],
    summary: &mut CheckSummary,
) -> Result<(), RunError> {
    let TagCheck {
        repository,
        taken,
        plan,
    } = check;
    if taken.is_empty() {
        return Ok(());
    }
    let deadline = Instant::now() + CHECK_TIME;
    let mut seen = HashSet::new();
    for (tag, _) in tags.iter().filter(|(_, digest)| seen.insert(digest)) {
        if Instant::now() >= deadline {
            summary.unchecked += 1;
            continue;
        }
        run.check_stop()?;
        let missing = run.registry.missing_of(repository, tag).await;
        let missing = missing.map_err(RunError::at(repository))?;
        summary.images += 1;
        let Some(digest) = missing else {
            continue;
        };
        if taken.contains(&digest) {
            return Err(RunError::TookTooMuch {
                repository: repository.clone(),
                tag: tag.clone(),
                digest,
                plan: plan.clone(),
            });
        }
        if summary.incomplete.len() < MAX_NAMED {
            let text = format!("{repository}:{tag} lacks {digest}");
            summary.incomplete.push(text);
        }
    }
    Ok(())
}

/// For one repository. A store checks thousands of images in it; an upstream in a network some
/// hundreds to thousands.
const CHECK_TIME: Duration = Duration::from_secs(300);
const MAX_NAMED: usize = 100;
