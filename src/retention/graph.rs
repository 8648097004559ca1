//! How the manifests of a repository need each other: an index what it lists, and a subject its
//! referrers. Nothing here recurses, and circles end.

use fixedbitset::FixedBitSet;

use super::inventory::{ImageIndex, Inventory};

/// The edges between the images of an inventory, also those that tags make.
#[derive(Debug)]
pub(super) struct ImageGraph<'a> {
    inventory: &'a Inventory,
    parents: Edges,
    referrers: Edges,
}

/// Edges by the node they begin at: two arrays for all of them.
#[derive(Debug)]
struct Edges {
    /// Where the targets of a node begin; one more than there are nodes.
    starts: Box<[u32]>,
    targets: Box<[ImageIndex]>,
}

/// From a node to another one.
#[derive(Clone, Copy, Debug)]
struct Edge {
    from: ImageIndex,
    to: ImageIndex,
}

/// Something that a tag gives to all that it needs. The largest counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Given {
    pub(super) value: u32,
    pub(super) to: ImageIndex,
}

impl<'a> ImageGraph<'a> {
    /// `referrers` are those that tags name: from the subject to the referrer.
    pub(super) fn new(inventory: &'a Inventory, referrers: &[(ImageIndex, ImageIndex)]) -> Self {
        let count = inventory.images.len();
        let images = || indexes(count).zip(&inventory.images);
        let parents = || {
            images().flat_map(|(parent, image)| {
                let edge = move |child: &ImageIndex| Edge {
                    from: *child,
                    to: parent,
                };
                image.children.iter().map(edge)
            })
        };
        let subjects = || {
            let own = images().filter_map(|(at, image)| Some((image.subject?, at)));
            own.chain(referrers.iter().copied())
                .map(|(from, to)| Edge { from, to })
        };
        Self {
            inventory,
            parents: Edges::new(count, parents),
            referrers: Edges::new(count, subjects),
        }
    }

    /// What an image needs, or what makes no sense without it: what it lists, and its referrers.
    pub(super) fn needs(&self, image: ImageIndex) -> impl Iterator<Item = ImageIndex> {
        let children = self.children(image).iter();
        children.chain(self.referrers.of(image)).copied()
    }

    pub(super) fn children(&self, image: ImageIndex) -> &'a [ImageIndex] {
        let image = self.inventory.images.get(image.at());
        image.map_or(&[], |image| &image.children)
    }

    /// All that these images need, themselves included.
    pub(super) fn needed(&self, roots: impl IntoIterator<Item = ImageIndex>) -> FixedBitSet {
        let mut found = FixedBitSet::with_capacity(self.inventory.images.len());
        let mut open: Vec<_> = roots.into_iter().collect();
        while let Some(image) = open.pop() {
            if image.at() < found.len() && !found.put(image.at()) {
                open.extend(self.needs(image));
            }
        }
        found
    }

    /// Gives each image the largest of its own value and those of all that it lists, directly and
    /// below.
    pub(super) fn lift(&self, own: &[u32]) -> Vec<u32> {
        let given = indexes(own.len())
            .zip(own)
            .map(|(to, value)| Given { value: *value, to });
        self.spread(given.collect(), |image| {
            self.parents.of(image).iter().copied()
        })
    }

    /// Gives each image the largest value of all that need it, directly and above.
    pub(super) fn lower(&self, given: Vec<Given>) -> Vec<u32> {
        self.spread(given, |image| self.needs(image))
    }

    /// Values in falling order reach each image once. 0 is none.
    fn spread<I: Iterator<Item = ImageIndex>>(
        &self,
        mut given: Vec<Given>,
        next: impl Fn(ImageIndex) -> I,
    ) -> Vec<u32> {
        given.retain(|given| given.value > 0);
        given.sort_unstable_by(|a, b| b.cmp(a));
        let mut values = vec![0; self.inventory.images.len()];
        let mut open = Vec::new();
        for Given { value, to } in given {
            open.push(to);
            while let Some(image) = open.pop() {
                if let Some(own) = values.get_mut(image.at()).filter(|own| **own == 0) {
                    *own = value;
                    open.extend(next(image));
                }
            }
        }
        values
    }
}

impl Edges {
    /// `edges` gives the same edges each time. Those that begin outside are left out.
    fn new<I: Iterator<Item = Edge>>(count: usize, edges: impl Fn() -> I) -> Self {
        let mut starts = vec![0_u32; count + 1];
        for edge in edges() {
            if let Some(start) = starts.get_mut(edge.from.at() + 1) {
                *start += 1;
            }
        }
        let mut sum = 0;
        for start in &mut starts {
            sum += *start;
            *start = sum;
        }
        let mut targets = vec![ImageIndex(0); sum as usize];
        let mut next = starts.clone();
        for edge in edges().filter(|edge| edge.from.at() < count) {
            if let Some(next) = next.get_mut(edge.from.at())
                && let Some(target) = targets.get_mut(*next as usize)
            {
                *target = edge.to;
                *next += 1;
            }
        }
        Self {
            starts: starts.into(),
            targets: targets.into(),
        }
    }

    fn of(&self, from: ImageIndex) -> &[ImageIndex] {
        let range = self.starts.get(from.at()..=from.at() + 1);
        let targets = match range {
            Some([start, end]) => self.targets.get(*start as usize..*end as usize),
            _ => None,
        };
        targets.unwrap_or_default()
    }
}

/// The indexes of so many images.
pub(super) fn indexes(count: usize) -> impl Iterator<Item = ImageIndex> {
    (0..=u32::MAX).map(ImageIndex).take(count)
}
