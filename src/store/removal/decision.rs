//! What of a removal may go: all that is as it was planned, and that nothing needs which stays.

use std::collections::{HashMap, HashSet};

use super::links::KnownLinks;
use super::{RemovalOutcome, RemovalRequest, TagRemoval};
use crate::registry::digest::Digest;
use crate::registry::reference::Tag;
use crate::store::index::RepositoryIndex;

/// What goes.
pub(super) struct RemovalDecision<'a> {
    index: &'a RepositoryIndex,
    request: &'a RemovalRequest,
    links: &'a KnownLinks,
    tags: HashSet<&'a Tag>,
    manifests: HashSet<&'a Digest>,
    /// What stays, and why.
    changed: Vec<String>,
}

const USED: &str = "it was used since the plan";
const NEEDED: &str = "a tag or manifest that stays needs it";
const REFERS: &str = "the manifest that it refers to stays";

impl<'a> RemovalDecision<'a> {
    /// `used`: the manifests that were used since the plan.
    pub(super) fn new(
        index: &'a RepositoryIndex,
        request: &'a RemovalRequest,
        links: &'a KnownLinks,
        used: &HashSet<Digest>,
    ) -> Self {
        let mut decision = Self {
            index,
            request,
            links,
            tags: HashSet::new(),
            manifests: HashSet::new(),
            changed: Vec::new(),
        };
        for TagRemoval { tag, digest, .. } in &request.tags {
            match index.tag(tag) {
                None => {}
                Some(now) if now != digest => {
                    let changed = format!("tag {tag}: it leads to {now} now");
                    decision.changed.push(changed);
                }
                Some(_) if used.contains(digest) => {
                    decision.changed.push(format!("tag {tag}: {USED}"));
                }
                Some(_) => {
                    decision.tags.insert(tag);
                }
            }
        }
        for removal in &request.manifests {
            let digest = &removal.digest;
            if index.manifest(digest).is_none() {
            } else if used.contains(digest) {
                decision.changed.push(format!("{digest}: {USED}"));
            } else {
                decision.manifests.insert(digest);
            }
        }
        decision.exclude_needed();
        decision
    }

    /// Excludes what something that stays needs: manifests with a name, those that an index lists,
    /// and the referrers of a manifest.
    fn exclude_needed(&mut self) {
        let (index, request, links) = (self.index, self.request, self.links);
        let planned: HashSet<&Digest> = request.manifests.iter().map(|m| &m.digest).collect();
        let mut referrers: HashMap<&Digest, Vec<&Digest>> = HashMap::new();
        for digest in planned.iter().copied() {
            if let Some(subject) = links.of(digest).and_then(|links| links.subject.as_ref()) {
                referrers.entry(subject).or_default().push(digest);
            }
        }
        let mut referrer_tags: HashMap<Digest, Vec<&TagRemoval>> = HashMap::new();
        for removal in &request.tags {
            if let Some(subject) = removal.tag.subject() {
                referrer_tags.entry(subject).or_default().push(removal);
            }
        }
        let all = index.manifests().map(|(digest, _)| digest);
        let mut staying: Vec<&Digest> = all
            .filter(|digest| !self.manifests.contains(digest))
            .collect();
        staying.extend(index.named_without(|tag| self.tags.contains(tag)));
        while let Some(digest) = staying.pop() {
            if self.manifests.remove(digest) {
                self.changed.push(format!("{digest}: {NEEDED}"));
            }
            let children = links.of(digest).map(|links| &links.children);
            let children = children.into_iter().flatten();
            let needed = children.chain(referrers.get(digest).into_iter().flatten().copied());
            staying.extend(needed.filter(|needed| self.manifests.contains(needed)));
            let tags = referrer_tags.get(digest).into_iter().flatten();
            // A tag that names the manifest that it leads to is no referrer's if that stays anyway.
            let stays_anyway = !planned.contains(digest);
            let of_others = tags.filter(|removal| !(stays_anyway && removal.digest == *digest));
            for TagRemoval { tag, digest, .. } in of_others {
                if self.tags.remove(tag) {
                    self.changed.push(format!("tag {tag}: {REFERS}"));
                    staying.push(digest);
                }
            }
        }
    }

    pub(super) fn manifests(&self) -> impl Iterator<Item = &'a Digest> {
        self.manifests.iter().copied()
    }

    pub(super) fn changes_nothing(&self) -> bool {
        self.tags.is_empty() && self.manifests.is_empty()
    }

    /// The index without what goes.
    pub(super) fn rest(&self) -> RepositoryIndex {
        let mut rest = self.index.clone();
        for tag in &self.tags {
            rest.untag(tag);
        }
        if !self.manifests.is_empty() {
            rest.remove(|digest| self.manifests.contains(digest));
        }
        rest
    }

    pub(super) fn outcome(self) -> RemovalOutcome {
        let tags = self.request.tags.iter().map(|removal| &removal.tag);
        let tags = tags.filter(|tag| self.tags.contains(tag) || self.index.tag(tag).is_none());
        let manifests = self.request.manifests.iter().map(|removal| &removal.digest);
        let manifests = manifests.filter(|digest| {
            self.manifests.contains(digest) || self.index.manifest(digest).is_none()
        });
        RemovalOutcome {
            tags: tags.cloned().collect(),
            manifests: manifests.cloned().collect(),
            changed: self.changed,
        }
    }
}
