//! The removal from one repository in parts, so that it is locked for a short time at once.

use std::collections::{HashMap, HashSet};

use crate::registry::digest::Digest;
use crate::retention::registry::{DoomedManifest, DoomedTag, Removal};

/// In one part: its lock is held for some milliseconds.
const MAX_PART: usize = 500;

/// The same removal in parts. The tags of a manifest that goes are in its part or before it: a
/// product that deletes a manifest with its last tag has to be told so. The tags of referrers come
/// after their subjects.
pub(super) fn parts(removal: Removal) -> Vec<Removal> {
    // A repository of the usual size is one part, with one lock.
    if removal.tags.len() + removal.manifests.len() <= MAX_PART {
        return vec![removal];
    }
    let Removal { tags, manifests } = removal;
    let going: HashSet<Digest> = manifests.iter().map(|m| m.digest.clone()).collect();
    let mut parts = RemovalParts::default();
    let mut tags_of: HashMap<Digest, Vec<DoomedTag>> = HashMap::new();
    let mut of_referrers = Vec::new();
    for doomed in tags {
        if going.contains(&doomed.digest) {
            let tags = tags_of.entry(doomed.digest.clone());
            tags.or_default().push(doomed);
        } else if doomed.tag.subject().is_some() {
            of_referrers.push(doomed);
        } else {
            parts.tag(doomed);
        }
    }
    for manifest in manifests {
        let tags = tags_of.remove(&manifest.digest).unwrap_or_default();
        parts.manifest(manifest, tags);
    }
    of_referrers.into_iter().for_each(|tag| parts.tag(tag));
    parts.done.push(parts.open);
    parts.done
}

#[derive(Default)]
struct RemovalParts {
    done: Vec<Removal>,
    open: Removal,
}

impl RemovalParts {
    fn tag(&mut self, tag: DoomedTag) {
        self.fit(1);
        self.open.tags.push(tag);
    }

    fn manifest(&mut self, manifest: DoomedManifest, tags: Vec<DoomedTag>) {
        // Together, if a part can hold that.
        self.fit((tags.len() + 1).min(MAX_PART));
        tags.into_iter().for_each(|tag| self.tag(tag));
        self.fit(1);
        self.open.manifests.push(manifest);
    }

    fn fit(&mut self, entries: usize) {
        if self.open.tags.len() + self.open.manifests.len() + entries > MAX_PART {
            self.done.push(std::mem::take(&mut self.open));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::reference::Tag;

    fn digest(number: u64) -> Digest {
        Digest::parse(&format!("sha256:{number:064x}")).unwrap()
    }

    fn tag(name: &str, to: u64) -> DoomedTag {
        DoomedTag {
            tag: Tag::parse(name).unwrap(),
            digest: digest(to),
            pushed: None,
            pulled: None,
        }
    }

    fn manifest(number: u64) -> DoomedManifest {
        DoomedManifest {
            digest: digest(number),
            pulled: None,
        }
    }

    #[test]
    fn a_small_removal_is_one_part() {
        let removal = Removal {
            tags: (0..250).map(|n| tag(&format!("v{n}"), n)).collect(),
            manifests: (0..250).map(manifest).collect(),
        };
        assert_eq!(parts(removal).len(), 1);
    }

    #[test]
    fn tags_are_with_their_manifest_and_those_of_referrers_after_their_subject() {
        let signature = |subject: u64| format!("sha256-{subject:064x}.sig");
        let mut tags = vec![tag(&signature(0), 9000)];
        for number in 0..600 {
            tags.push(tag(&signature(number), 1000 + number));
            tags.push(tag(&format!("v{number}"), number));
            tags.push(tag(&format!("w{number}"), number));
            tags.push(tag(&format!("other{number}"), 5000));
        }
        let subjects = 0..600;
        let signatures = 1000..1600;
        let manifests = subjects.chain(signatures).map(manifest).collect();
        let all = parts(Removal { tags, manifests });
        let of_tag = |name: &str| {
            let has = |part: &Removal| part.tags.iter().any(|tag| tag.tag.as_str() == name);
            all.iter().position(has).unwrap()
        };
        let of_manifest = |number: u64| {
            let found = digest(number);
            let has = |part: &Removal| part.manifests.iter().any(|m| m.digest == found);
            all.iter().position(has).unwrap()
        };
        for number in 0..600 {
            for name in ["v", "w"] {
                let tag = of_tag(&format!("{name}{number}"));
                assert_eq!(tag, of_manifest(number), "{number}");
            }
            assert_eq!(of_tag(&signature(number)), of_manifest(1000 + number));
            assert!(of_tag(&signature(number)) >= of_manifest(number));
            assert!(of_tag(&format!("other{number}")) <= of_manifest(0));
        }
        let sizes = all
            .iter()
            .map(|part| part.tags.len() + part.manifests.len());
        assert!(sizes.clone().all(|size| size <= MAX_PART));
        assert_eq!(sizes.sum::<usize>(), 1 + 4 * 600 + 2 * 600);
        let last = all.last().unwrap();
        assert_eq!(last.tags.last().unwrap().digest, digest(9000));
    }

    #[test]
    fn more_tags_than_a_part_can_hold_come_before_their_manifest() {
        let removal = Removal {
            tags: (0..1200).map(|n| tag(&format!("v{n}"), 7)).collect(),
            manifests: vec![manifest(7)],
        };
        let sizes = parts(removal);
        let sizes = sizes
            .iter()
            .map(|part| (part.tags.len(), part.manifests.len()));
        assert_eq!(sizes.collect::<Vec<_>>(), [(500, 0), (500, 0), (200, 1)]);
    }
}
