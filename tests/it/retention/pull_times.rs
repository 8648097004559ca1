//! What counts as a pull and as a push, for moorgate's own store and for an upstream: what clients
//! do with the names that they know, and nothing that moorgate does itself.

use bytes::Bytes;
use moorgate::internal::journal::{Journal, RepositoryHistory, Use};
use moorgate::internal::registry::{Digest, RepositoryName, Tag};

use crate::harness::{Domain, Gateway, Setup};
use crate::products_deletion::between::Between;
use crate::store::client::{Answer, Client, Endpoint};
use crate::store::image::{Image, index, sha256};

/// A gateway whose domain has retention, and perhaps a registry behind it.
struct JournalFixture {
    gateway: Gateway,
    journal: &'static str,
    _registry: Option<Between>,
}

const STORE: &str = "state/store/ci/journal.redb";
const UPSTREAM: &str = "state/retention/ci.test/journal.redb";
const RETENTION: &str = "[[retention]]\nrepositories = [\"**\"]\nkeep = { newest = 1 }\n";

impl JournalFixture {
    /// moorgate's own registry records always.
    async fn of_store() -> Self {
        let gateway = Setup::new()
            .domain(Domain::store("ci.test", "ci"))
            .start()
            .await;
        Self {
            gateway,
            journal: STORE,
            _registry: None,
        }
    }

    /// Debian's docker-registry 2.8.
    async fn of_upstream() -> Self {
        let registry = Between::new(true).await;
        let gateway = registry.gateway("", RETENTION).await;
        Self {
            gateway,
            journal: UPSTREAM,
            _registry: Some(registry),
        }
    }

    fn client(&self) -> Client {
        Endpoint::new(&self.gateway, "http/1.1").client()
    }

    /// What the journal has of a repository once it is written.
    async fn history(&self, repository: &str) -> RepositoryHistory {
        self.gateway.app.clone().maintain_stores().await;
        let journal = Journal::new(self.gateway.path(self.journal));
        assert!(journal.recorded_since().unwrap().is_some());
        let name = RepositoryName::parse(repository).unwrap();
        journal.history(&name).unwrap()
    }
}

fn tag(history: &RepositoryHistory, tag: &str) -> Use {
    let tag = Tag::parse(tag).unwrap();
    history.tags.get(&tag).copied().unwrap_or_default()
}

fn manifest(history: &RepositoryHistory, digest: &str) -> Use {
    let digest = Digest::parse(digest).unwrap();
    history.manifests.get(&digest).copied().unwrap_or_default()
}

/// An index with its child, pushed as `v1`. Returns both digests.
async fn push_index(client: &mut Client, repository: &str) -> [String; 2] {
    let child = Image::small(1);
    client.push(repository, &child.digest(), &child).await;
    let index = index(&[child.descriptor()]);
    client.push_manifest(repository, "v1", &index).await.is(201);
    [sha256(&index), child.digest()]
}

async fn pull(client: &mut Client, method: &str, target: &str) -> Answer {
    let manifests =
        "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json";
    client
        .ask_with(method, target, &[("accept", manifests)], Bytes::new())
        .await
}

async fn what_clients_do_counts(fixture: JournalFixture) {
    let mut client = fixture.client();
    let [index, child] = push_index(&mut client, "base/app").await;
    let history = fixture.history("base/app").await;
    let pushed = [
        tag(&history, "v1"),
        manifest(&history, &index),
        manifest(&history, &child),
    ];
    for used in pushed {
        assert!(used.pushed.is_some() && used.pulled.is_none(), "{used:?}");
    }
    // containerd and Docker resolve a tag with HEAD.
    let target = |reference: &str| format!("/v2/base/app/manifests/{reference}");
    pull(&mut client, "HEAD", &target("v1")).await.is(200);
    let history = fixture.history("base/app").await;
    assert!(tag(&history, "v1").pulled.is_some());
    assert!(manifest(&history, &index).pulled.is_some());
    assert!(manifest(&history, &child).pulled.is_none());
    // They go on by digests.
    pull(&mut client, "GET", &target(&child)).await.is(200);
    let history = fixture.history("base/app").await;
    assert!(manifest(&history, &child).pulled.is_some());
    assert_eq!((history.tags.len(), history.manifests.len()), (1, 2));
}

async fn what_only_looks_counts_as_nothing(fixture: JournalFixture) {
    let mut client = fixture.client();
    let [index, child] = push_index(&mut client, "base/app").await;
    for digest in [&index, &child] {
        let target = format!("/v2/base/app/manifests/{digest}");
        pull(&mut client, "HEAD", &target).await.is(200);
    }
    client.get("/v2/base/app/tags/list").await.is(200);
    client.get("/v2/_catalog").await.is(200);
    client.get("/v2/base/app/manifests/missing").await.is(404);
    client.get("/v2/other/manifests/v1").await.is(404);
    let mut nobody = fixture.client().anonymous();
    nobody.get("/v2/base/app/manifests/v1").await.is(401);
    let history = fixture.history("base/app").await;
    let all = history.tags.values().chain(history.manifests.values());
    assert!(all.clone().all(|used| used.pulled.is_none()), "{history:?}");
    assert_eq!(all.count(), 3);
    assert!(fixture.history("other").await.tags.is_empty());
    pull(&mut client, "GET", "/v2/base/app/manifests/v1")
        .await
        .is(200);
    assert!(
        tag(&fixture.history("base/app").await, "v1")
            .pulled
            .is_some()
    );
}

#[tokio::test]
async fn what_clients_do_with_the_own_registry_counts() {
    what_clients_do_counts(JournalFixture::of_store().await).await;
}

#[tokio::test]
async fn what_clients_do_with_an_upstream_counts() {
    what_clients_do_counts(JournalFixture::of_upstream().await).await;
}

#[tokio::test]
async fn what_only_looks_at_the_own_registry_counts_as_nothing() {
    what_only_looks_counts_as_nothing(JournalFixture::of_store().await).await;
}

#[tokio::test]
async fn what_only_looks_at_an_upstream_counts_as_nothing() {
    what_only_looks_counts_as_nothing(JournalFixture::of_upstream().await).await;
}

#[tokio::test]
async fn deletions_and_own_requests_of_moorgate_count_as_nothing() {
    let fixture = JournalFixture::of_upstream().await;
    let mut client = fixture.client();
    let image = Image::small(1);
    for tag in ["v1", "v2"] {
        client.push("app", tag, &image).await;
    }
    // moorgate asks where the tag leads, swaps it and deletes what it has swapped it for.
    let target = "/v2/app/manifests/v1";
    client.ask("DELETE", target).await.is(202);
    client.get(target).await.is(404);
    let history = fixture.history("app").await;
    assert_eq!(history.tags.len(), 2);
    assert_eq!(history.manifests.len(), 1);
    let all = history.tags.values().chain(history.manifests.values());
    assert!(all.clone().all(|used| used.pulled.is_none()), "{history:?}");
}

#[tokio::test]
async fn uses_survive_a_reload_and_the_end_of_the_process() {
    for fixture in [
        JournalFixture::of_store().await,
        JournalFixture::of_upstream().await,
    ] {
        let mut client = fixture.client();
        client.push("app", "v1", &Image::small(1)).await;
        fixture.gateway.app.reload().await.unwrap();
        pull(&mut client, "GET", "/v2/app/manifests/v1")
            .await
            .is(200);
        drop(client);
        assert!(fixture.gateway.stop().await);
        let journal = Journal::new(fixture.gateway.path(fixture.journal));
        let history = journal.history(&RepositoryName::parse("app").unwrap());
        let used = tag(&history.unwrap(), "v1");
        assert!(used.pushed.is_some() && used.pulled.is_some());
    }
}

#[tokio::test]
async fn the_record_of_an_upstream_ends_with_its_retention() {
    let fixture = JournalFixture::of_upstream().await;
    let mut client = fixture.client();
    client.push("app", "v1", &Image::small(1)).await;
    let history = fixture.history("app").await;
    let journal = Journal::new(fixture.gateway.path(UPSTREAM));
    let begun = journal.recorded_since().unwrap();
    let file = fixture.gateway.path("conf.d/ci.test.toml");
    let with = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, with.replace(RETENTION, "")).unwrap();
    fixture.gateway.app.reload().await.unwrap();
    pull(&mut client, "GET", "/v2/app/manifests/v1")
        .await
        .is(200);
    fixture.gateway.app.clone().maintain_stores().await;
    assert_eq!(journal.recorded_since().unwrap(), None);
    std::fs::write(&file, with).unwrap();
    fixture.gateway.app.reload().await.unwrap();
    // What was known is known again, but not whether it was the last push.
    let again = fixture.history("app").await;
    let [before, after] = [&history, &again].map(|history| tag(history, "v1"));
    assert!(before.pushed.is_some() && before.pulled.is_none());
    assert_eq!(again.tags.len(), 1);
    assert!(after.pushed.is_none_or(|pushed| Some(pushed) >= begun));
    assert!(journal.recorded_since().unwrap() >= begun);
}

#[tokio::test]
async fn the_names_are_those_that_clients_know() {
    let registry = Between::new(true).await;
    let map = "[[upstream.map]]\nprefix = \"ci/\"\nto = \"inside/\"\n";
    let gateway = registry.gateway("", &format!("{map}{RETENTION}")).await;
    let fixture = JournalFixture {
        gateway,
        journal: UPSTREAM,
        _registry: Some(registry),
    };
    let mut client = fixture.client();
    client.push("ci/app", "v1", &Image::small(1)).await;
    pull(&mut client, "GET", "/v2/ci/app/manifests/v1")
        .await
        .is(200);
    assert!(tag(&fixture.history("ci/app").await, "v1").pulled.is_some());
    assert!(fixture.history("inside/app").await.tags.is_empty());
}
