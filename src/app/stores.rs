//! Maintains the stores: ends abandoned uploads, performs deferred writes, and collects garbage on
//! schedule. Writes the journals, those of upstreams too.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::site::journal_path;
use crate::config::vhost::StoreSettings;
use crate::journal::{Journal, JournalError};
use crate::observe::resource_use::ResourceUse;
use crate::request::site::{Site, Sites};
use crate::store::collect::{CollectionOptions, UploadAge};
use crate::store::{Store, upload_sessions};

pub(super) const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(60);

/// Maintains all stores once. Blocks on the disk and on locks.
pub(super) fn maintain(sites: &Sites) {
    for site in &sites.all {
        if let Some(Err(error)) = site.spool.as_ref().map(|spool| spool.expire()) {
            let domain = site.host.domain.as_str();
            let error = &error as &dyn std::error::Error;
            tracing::error!(domain, error, "abandoned uploads not removed");
        }
    }
    write_journals(sites);
    for (site, store, settings) in all(sites) {
        let domain = site.host.domain.as_str();
        if let Err(error) = store.maintain() {
            tracing::error!(
                domain,
                error = &error as &dyn std::error::Error,
                "store maintenance failed"
            );
        }
        if store.exists() && is_due(settings, store.collected_at(), SystemTime::now()) {
            collect(domain, store, settings);
        }
    }
}

/// Performs deferred writes before the process ends. Blocks on the disk and on locks.
pub(super) fn flush(sites: &Sites) {
    flush_journals(sites);
    for (site, store, _) in all(sites) {
        if let Err(error) = store.maintain() {
            let domain = site.host.domain.as_str();
            tracing::error!(
                domain,
                error = &error as &dyn std::error::Error,
                "store maintenance failed"
            );
        }
    }
}

/// Writes the journals of upstreams. Those without one may have had one before: its record ends.
fn write_journals(sites: &Sites) {
    for site in &sites.all {
        if site.registry.store().is_some() {
            continue;
        }
        let written = match &site.journal {
            Some(journal) => journal.flush(),
            None => Journal::end(&journal_path(&sites.snapshot.state, &site.host.domain)),
        };
        report(site, written);
    }
}

/// Writes the journals of a process that drains. It ends no record: a process that has taken over may
/// have begun it, with a newer configuration.
pub(super) fn flush_journals(sites: &Sites) {
    for site in &sites.all {
        if let Some(journal) = &site.journal {
            report(site, journal.flush());
        }
    }
}

/// Whether so much of a journal is pending that it cannot wait.
pub(super) fn has_full_journal(sites: &Sites) -> bool {
    let mut journals = sites.all.iter().filter_map(|site| site.journal.as_ref());
    journals.any(|journal| journal.is_full())
}

/// Writes the journals of which so much is pending that they cannot wait.
pub(super) fn write_full_journals(sites: &Sites) {
    let journals = sites
        .all
        .iter()
        .filter_map(|site| Some((site, site.journal.as_ref()?)));
    for (site, journal) in journals.filter(|(_, journal)| journal.is_full()) {
        report(site, journal.flush());
    }
}

fn report(site: &Site, written: Result<(), JournalError>) {
    if let Err(error) = written {
        let (domain, error) = (site.host.domain.as_str(), &error as &dyn std::error::Error);
        tracing::error!(domain, error, "journal of pushes and pulls not written");
    }
}

pub(super) fn all_exist(sites: &Sites) -> bool {
    all(sites).all(|(_, store, _)| store.exists())
}

/// The use of the fullest queue of all stores, if there are stores.
pub(super) fn fullest_queue(sites: &Sites) -> Option<ResourceUse> {
    all(sites)
        .map(|(_, store, _)| store.queued_jobs())
        .max_by_key(|queue| queue.used)
}

/// The upload sessions of the user who has the most, if there are stores or spools.
pub(super) fn most_upload_sessions(sites: &Sites) -> Option<ResourceUse> {
    let of_site = |site: &Arc<Site>| {
        let stored = site.registry.store().map(|store| store.most_sessions());
        let spooled = site.spool.as_ref().map(|spool| spool.most_sessions());
        let most = stored.into_iter().chain(spooled).max()?;
        Some(upload_sessions(most, site.host.limits.user_upload_sessions))
    };
    sites
        .all
        .iter()
        .filter_map(of_site)
        .reduce(ResourceUse::fuller)
}

fn all(sites: &Sites) -> impl Iterator<Item = (&Arc<Site>, &Arc<Store>, &StoreSettings)> {
    sites
        .all
        .iter()
        .filter_map(|site| Some((site, site.registry.store()?, site.host.registry.store()?)))
}

/// Whether a collection is due. A last collection far in the future means that the clock was wrong.
fn is_due(settings: &StoreSettings, last: Option<SystemTime>, now: SystemTime) -> bool {
    let Some(every) = settings.collect_every else {
        return false;
    };
    last.is_none_or(|last| {
        now.duration_since(last).is_ok_and(|since| since >= every) || last > now + every
    })
}

fn collect(domain: &str, store: &Store, settings: &StoreSettings) {
    let collected = store.collect(CollectionOptions {
        grace: settings.grace,
        untagged: settings.untagged,
        uploads: UploadAge::Expired,
        dry_run: false,
    });
    // Also after a failure: the next attempt is as far away as any other.
    if let Err(error) = store.record_collection() {
        tracing::error!(domain, %error, "time of the collection cannot be stored");
    }
    match collected {
        Ok(collected) => {
            for failed in &collected.failed {
                let (repository, error) = (&failed.repository, &failed.error);
                tracing::error!(domain, %repository, error, "repository not collected");
            }
            tracing::info!(
                domain,
                manifests = collected.manifests,
                blobs = collected.blobs,
                uploads = collected.uploads,
                bytes = collected.bytes,
                "garbage collected"
            );
        }
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::error!(domain, error, "garbage collection failed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::vhost::MissingContent;

    #[test]
    fn a_collection_is_due_when_the_last_is_long_past_or_was_never() {
        let hour = Duration::from_secs(3600);
        let settings = |collect_every| StoreSettings {
            name: "ci".to_owned(),
            directory: "store/ci".into(),
            collect_every,
            grace: hour,
            untagged: None,
            missing: MissingContent::Refuse,
        };
        let now = SystemTime::now();
        let every_hour = settings(Some(hour));
        assert!(is_due(&every_hour, None, now));
        assert!(is_due(&every_hour, Some(now - hour), now));
        assert!(!is_due(&every_hour, Some(now - hour / 2), now));
        assert!(!is_due(&every_hour, Some(now + hour / 2), now));
        assert!(is_due(&every_hour, Some(now + hour * 2), now));
        assert!(!is_due(&settings(None), None, now));
    }
}
