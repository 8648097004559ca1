//! The manifests that go with their tags, in an order that registries accept, and the bytes that come
//! free.

use std::collections::VecDeque;

use super::decisions::Decisions;
use super::inventory::{ContentSize, ImageIndex};

/// The manifests that go: an index before what it lists, and a subject before its referrers. Where
/// tags make a circle of these, an index is before what it lists.
pub(super) fn in_order(decisions: &Decisions<'_>) -> Vec<ImageIndex> {
    let mut order = RemovalOrder::new(decisions);
    while let Some(image) = order.next() {
        order.take(image);
    }
    order.taken
}

/// The bytes of all that the manifests need and no other one does, each blob once.
pub(super) fn freed_bytes(decisions: &Decisions<'_>, going: &[ImageIndex]) -> u64 {
    let images = &decisions.rules.inventory().images;
    let contents = |image: &ImageIndex| images.get(image.at()).map(|image| &image.content);
    let going = going.iter().filter_map(contents);
    // Allocated once: these are most of what a plan takes.
    let count = going.clone().map(|contents| contents.len()).sum();
    let mut freed: Vec<ContentSize> = Vec::with_capacity(count);
    freed.extend(going.flatten());
    freed.sort_unstable();
    freed.dedup_by_key(|content| content.key);
    let stay = decisions.staying.ones().filter_map(|at| images.get(at));
    for content in stay.flat_map(|image| &image.content) {
        let found = freed.binary_search_by_key(&content.key, |freed| freed.key);
        if let Some(shared) = found.ok().and_then(|at| freed.get_mut(at)) {
            shared.size = 0;
        }
    }
    freed.iter().map(|content| content.size).sum()
}

/// How many of the manifests that go must go before each, and what may go next.
struct RemovalOrder<'d, 'a> {
    decisions: &'d Decisions<'a>,
    waits: Vec<Waits>,
    /// Waits for nothing.
    free: VecDeque<ImageIndex>,
    /// Waits for subjects alone, and comes when nothing is free.
    without_index: VecDeque<ImageIndex>,
    /// All, for the circles of indexes that no registry can have.
    all: std::vec::IntoIter<ImageIndex>,
    taken: Vec<ImageIndex>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Waits {
    all: u32,
    indexes: u32,
    taken: bool,
}

impl<'d, 'a> RemovalOrder<'d, 'a> {
    fn new(decisions: &'d Decisions<'a>) -> Self {
        let going: Vec<_> = decisions.going_images().collect();
        let graph = &decisions.rules.facts.graph;
        let mut waits = vec![Waits::default(); decisions.rules.inventory().images.len()];
        for image in decisions.staying.ones() {
            // Never comes, whatever that lists it goes.
            if let Some(waits) = waits.get_mut(image) {
                waits.taken = true;
            }
        }
        for image in &going {
            for needed in graph.needs(*image) {
                add(&mut waits, needed, |waits| waits.all += 1);
            }
            for child in graph.children(*image) {
                add(&mut waits, *child, |waits| waits.indexes += 1);
            }
        }
        let of = |image: &ImageIndex| waits.get(image.at()).copied().unwrap_or_default();
        let is_free = |image: &ImageIndex| of(image).all == 0;
        let is_listed = |image: &ImageIndex| of(image).indexes > 0;
        let free = going.iter().copied().filter(is_free).collect();
        let without_index = going.iter().copied().filter(|image| !is_listed(image));
        Self {
            decisions,
            without_index: without_index.collect(),
            free,
            waits,
            taken: Vec::with_capacity(going.len()),
            all: going.into_iter(),
        }
    }

    fn next(&mut self) -> Option<ImageIndex> {
        let waits = &self.waits;
        let is_taken = |image: &ImageIndex| waits.get(image.at()).is_none_or(|w| w.taken);
        let next_of = |queue: &mut VecDeque<ImageIndex>| {
            std::iter::from_fn(|| queue.pop_front()).find(|image| !is_taken(image))
        };
        next_of(&mut self.free)
            .or_else(|| next_of(&mut self.without_index))
            .or_else(|| self.all.find(|image| !is_taken(image)))
    }

    fn take(&mut self, image: ImageIndex) {
        self.taken.push(image);
        add(&mut self.waits, image, |waits| waits.taken = true);
        let graph = &self.decisions.rules.facts.graph;
        for needed in graph.needs(image) {
            add(&mut self.waits, needed, |waits| {
                waits.all = waits.all.saturating_sub(1);
                if waits.all == 0 {
                    self.free.push_back(needed);
                }
            });
        }
        for child in graph.children(image) {
            add(&mut self.waits, *child, |waits| {
                waits.indexes = waits.indexes.saturating_sub(1);
                if waits.indexes == 0 {
                    self.without_index.push_back(*child);
                }
            });
        }
    }
}

fn add(waits: &mut [Waits], image: ImageIndex, change: impl FnOnce(&mut Waits)) {
    if let Some(waits) = waits.get_mut(image.at()) {
        change(waits);
    }
}
