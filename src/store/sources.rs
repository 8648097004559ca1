//! Looks for a manifest in other repositories of the store.

use std::sync::Arc;

use super::error::StoreError;
use super::{Store, files};
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;

/// A manifest that is wanted in some repository.
pub(crate) struct ManifestSearch {
    pub(crate) digest: Digest,
    /// Where it is looked for first.
    pub(crate) likely: Vec<RepositoryName>,
    /// Whether it is looked for in all other repositories that match `others` as well.
    pub(crate) has_others: bool,
    pub(crate) others: NameTest,
    /// Whether it counts that a repository has it; tested only of those that have it.
    pub(crate) may_see: NameTest,
}

type NameTest = Box<dyn Fn(&RepositoryName) -> bool + Send>;

impl ManifestSearch {
    /// Whether a repository has the manifest. Costs a status of a file for each repository that
    /// matches, and reads the index of one that has the file: 130 ms with 10,000 repositories, of which
    /// none has it, in a debug build on two busy cores.
    pub(crate) async fn run(self, store: &Arc<Store>) -> Result<bool, StoreError> {
        let Self {
            digest,
            likely,
            has_others,
            others,
            may_see,
        } = self;
        store
            .run_read(move |store| {
                let counts = |name: &RepositoryName| -> Result<bool, StoreError> {
                    Ok(has_file_of(store, name, &digest)?
                        && may_see(name)
                        && lists_manifest(store, name, &digest)?)
                };
                for name in &likely {
                    if counts(name)? {
                        return Ok(true);
                    }
                }
                if !has_others {
                    return Ok(false);
                }
                for name in store.names()? {
                    if others(&name) && counts(&name)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            })
            .await
    }
}

fn has_file_of(store: &Store, name: &RepositoryName, digest: &Digest) -> Result<bool, StoreError> {
    match store.layout.blob(name, digest) {
        Ok(path) => Ok(files::exists(&path)),
        Err(StoreError::DigestUnsupported) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether it is a manifest of the repository: the file alone may also be a layer, or await its
/// collection.
fn lists_manifest(
    store: &Store,
    name: &RepositoryName,
    digest: &Digest,
) -> Result<bool, StoreError> {
    match store.repository(name).index() {
        Ok(index) => Ok(index.manifest(digest).is_some()),
        // One that cannot be read is reported where it is found, and must not stop others.
        Err(
            StoreError::RepositoryUnknown | StoreError::IndexDamaged(_) | StoreError::Linked(_),
        ) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto;

    /// A store with repositories `ci/0`, `ci/1` and so on that have nothing.
    fn store_of(count: usize) -> (tempfile::TempDir, Arc<Store>) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("ci")).unwrap();
        for number in 0..count {
            let path = store.layout.repository(&repository(number));
            std::fs::create_dir_all(path.join("blobs/sha256")).unwrap();
        }
        (directory, store)
    }

    fn repository(number: usize) -> RepositoryName {
        RepositoryName::parse(&format!("ci/{number}")).unwrap()
    }

    /// Makes a manifest a blob of a repository, and lists it if it is to be its manifest.
    fn add(store: &Store, name: &RepositoryName, digest: &Digest, is_listed: bool) {
        std::fs::write(store.layout.blob(name, digest).unwrap(), "{}").unwrap();
        let manifests = serde_json::json!([{
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest.as_str(), "size": 2
        }]);
        let manifests = if is_listed {
            manifests
        } else {
            serde_json::json!([])
        };
        let index = serde_json::json!({"schemaVersion": 2, "manifests": manifests});
        let path = store.layout.repository(name).join("index.json");
        std::fs::write(path, index.to_string()).unwrap();
    }

    fn search(digest: &Digest, likely: &[usize], has_others: bool) -> ManifestSearch {
        ManifestSearch {
            digest: digest.clone(),
            likely: likely.iter().map(|number| repository(*number)).collect(),
            has_others,
            others: Box::new(|name| name.as_str().starts_with("ci/")),
            may_see: Box::new(|name| name.as_str() != "ci/7"),
        }
    }

    #[tokio::test]
    async fn a_manifest_is_found_where_it_counts() {
        let digest = format!("sha256:{}", crypto::sha256_hex(b"{}"));
        let digest = Digest::parse(&digest).unwrap();
        let (_directory, store) = store_of(20);
        let found = async |likely: &[usize], has_others| {
            search(&digest, likely, has_others)
                .run(&store)
                .await
                .unwrap()
        };
        assert!(!found(&[3, 99_999_999], true).await);
        add(&store, &repository(5), &digest, false);
        assert!(!found(&[5], true).await, "a layer");
        add(&store, &repository(7), &digest, true);
        assert!(!found(&[7], true).await, "what the user may not see");
        add(&store, &repository(11), &digest, true);
        assert!(found(&[], true).await);
        assert!(found(&[11], false).await);
        assert!(!found(&[5], false).await);
        std::fs::write(
            store.layout.repository(&repository(5)).join("index.json"),
            "{",
        )
        .unwrap();
        assert!(found(&[5], true).await, "an unreadable index stops nothing");
    }
}
