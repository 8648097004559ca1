//! Random repositories and rules, small ones: each of them has a few of what goes wrong.

use proptest::prelude::*;

use super::model::{Model, ModelImage, ModelRule, ModelTag, NAMES};
use super::sample::digest;

fn ago() -> impl Strategy<Value = Option<i64>> {
    prop_oneof![1 => Just(None), 1 => (-2i64..0).prop_map(Some), 6 => (0i64..12).prop_map(Some)]
}

fn maybe(range: std::ops::Range<i64>) -> impl Strategy<Value = Option<i64>> {
    prop::option::of(range)
}

fn images(count: usize) -> impl Strategy<Value = Vec<ModelImage>> {
    let uses = (
        ago(),
        prop::option::weighted(0.3, 0i64..12),
        prop::option::weighted(0.2, 1i64..9),
        ago(),
    );
    let one = (
        prop::collection::vec(0..count, 0..3),
        prop::option::weighted(0.2, 0..count),
        uses,
    );
    let image = one.prop_map(
        |(children, subject, (pushed, pulled, life, created))| ModelImage {
            children,
            subject,
            pushed,
            pulled,
            life,
            created,
        },
    );
    // Half of them list nothing, as most in a registry.
    let thin = (image, any::<bool>()).prop_map(|(mut image, lists)| {
        image.children.retain(|_| lists);
        image
    });
    prop::collection::vec(thin, count)
}

fn tags(count: usize) -> impl Strategy<Value = Vec<ModelTag>> {
    let referrer = (0..count + 1, prop::sample::select(vec!["", ".sig"]))
        .prop_map(|(image, end)| format!("{}{end}", digest(image).as_str().replace(':', "-")));
    let ordinary = prop::sample::select(NAMES.to_vec()).prop_map(str::to_owned);
    let name = prop_oneof![3 => ordinary, 1 => referrer];
    let tag = (0..count, ago(), prop::option::weighted(0.2, 0i64..12));
    let all = prop::collection::btree_map(name, tag, 0..8);
    all.prop_map(|all| {
        let tag = |(name, (image, pushed, pulled))| ModelTag {
            name,
            image,
            pushed,
            pulled,
        };
        all.into_iter().map(tag).collect()
    })
}

fn model_rule() -> impl Strategy<Value = ModelRule> {
    let kept = (prop::option::of(1usize..4), maybe(1..9), maybe(1..9));
    let names = prop::sample::select(vec!["*", "*", "a-*", "1.*", "sha256-*", "latest"]);
    let protect = prop::option::weighted(
        0.3,
        prop::sample::select(vec!["latest", "1.0.*", "sha256-*"]),
    );
    (
        prop::bool::weighted(0.9),
        names,
        protect,
        kept,
        maybe(1..9),
        0usize..4,
        any::<bool>(),
    )
        .prop_map(
            |(matches_repository, tags, protect, kept, ttl, per, reads_label)| ModelRule {
                matches_repository,
                tags,
                protect,
                kept,
                ttl,
                per,
                reads_label,
            },
        )
}

pub(super) fn model() -> impl Strategy<Value = Model> {
    (1usize..8).prop_flat_map(|count| {
        let limits = (
            0i64..4,
            maybe(0..12),
            prop_oneof![3 => Just(usize::MAX), 1 => 0usize..4],
        );
        let used_tag = prop::option::weighted(0.2, prop::sample::select(NAMES.to_vec()));
        let used = (used_tag, prop::option::weighted(0.2, 0..count));
        (
            images(count),
            tags(count),
            prop::collection::vec(model_rule(), 1..3),
            limits,
            used,
        )
            .prop_map(
                |(images, tags, rules, (min_age, since, max_tags), (used_tag, used_image))| Model {
                    images,
                    tags,
                    rules,
                    min_age,
                    since,
                    used_tag,
                    used_image,
                    max_tags,
                },
            )
    })
}
