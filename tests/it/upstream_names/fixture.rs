//! Domains with a map of names.

use crate::access::fixture::{AccessFixture, Kind};
use crate::harness::ProxiedPair;

/// Flattens below `ci/`, keeps the levels below `base/`, and has no counterpart for any other name.
pub const MAP: &str = "[[upstream.map]]\nprefix = 'ci/'\nto = 'acme/ci-'\nflatten = '--'\n\
    [[upstream.map]]\nprefix = 'base/'\nto = 'mirror/'\n";

pub const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// A domain with [`MAP`] before an upstream that the test plays.
pub async fn mapped_pair() -> ProxiedPair {
    ProxiedPair::with(|domain| domain.tables(MAP)).await
}

/// A domain with rules and a map before a registry in this process.
pub async fn mapped_registry(kind: Kind, rules: &str, map: &str) -> AccessFixture {
    AccessFixture::new(kind, &format!("{rules}{map}")).await
}

pub const KINDS: [Kind; 2] = [Kind::Upstream, Kind::UpstreamHttp2];
