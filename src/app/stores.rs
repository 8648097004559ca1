//! Maintains the stores: ends abandoned uploads, performs deferred writes, and collects garbage on
//! schedule.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::config::vhost::StoreSettings;
use crate::observe::resource_use::ResourceUse;
use crate::request::site::{Site, Sites};
use crate::store::Store;
use crate::store::collect::{CollectionOptions, UploadAge};

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

pub(super) fn all_exist(sites: &Sites) -> bool {
    all(sites).all(|(_, store, _)| store.exists())
}

/// The use of the fullest queue of all stores, if there are stores.
pub(super) fn fullest_queue(sites: &Sites) -> Option<ResourceUse> {
    all(sites)
        .map(|(_, store, _)| store.queued_jobs())
        .max_by_key(|queue| queue.used)
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
