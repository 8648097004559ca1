//! Two pushes race for one protected tag, and however they come, exactly one wins.

use std::time::Duration;

use tokio::net::TcpListener;

use super::fixture::allow;
use crate::harness::{Domain, Gateway, RawPeer, Setup, Upstream};
use crate::store::client::{Answer, Client, Endpoint};
use crate::store::image::{Image, MANIFEST};

/// Two domains with rules of their own before one registry, the first of which has another name,
/// too. In `base/app` are the parts of both images.
struct SharedRegistryFixture {
    gateway: Gateway,
    images: [Image; 2],
    _behind: Gateway,
}

impl SharedRegistryFixture {
    async fn new() -> Self {
        let registry = Domain::store("registry.test", "behind").top("aliases = ['127.0.0.1']");
        let behind = Setup::new().domain(registry).start().await;
        let roots = behind.path("state/internal-ca/ca.pem");
        let keys = format!(
            "roots = '{}'\nusername = 'alice'\npassword = 'secret'",
            roots.display()
        );
        let domain = |name: &str| {
            let domain = Domain::new(name, &format!("https://{}", behind.https())).upstream(&keys);
            domain.tables(&allow("base/**", "'push', 'pull'"))
        };
        let first = domain("ci.test").top("aliases = ['alias.test']");
        let gateway = Setup::new()
            .domain(first)
            .domain(domain("second.test"))
            .start()
            .await;
        let images = [Image::small(1), Image::small(2)];
        let fixture = Self {
            gateway,
            images,
            _behind: behind,
        };
        for blob in fixture.images.iter().flat_map(Image::blobs) {
            fixture
                .client("ci.test", "http/1.1")
                .push_blob("base/app", blob)
                .await;
        }
        fixture
    }

    fn client(&self, host: &str, alpn: &str) -> Client {
        Endpoint {
            host: host.to_owned(),
            ..Endpoint::new(&self.gateway, alpn)
        }
        .client()
    }
}

/// How one of the two pushes comes.
#[derive(Clone, Copy, Debug)]
struct Way {
    host: &'static str,
    alpn: &'static str,
    /// Under its digest, with the tag in the query.
    by_digest: bool,
}

const WAY: Way = Way {
    host: "ci.test",
    alpn: "http/1.1",
    by_digest: false,
};

impl Way {
    async fn push(self, fixture: &SharedRegistryFixture, image: &Image, tag: &str) -> Answer {
        let target = match self.by_digest {
            true => format!(
                "/v2/base/app/manifests/{}?tag={tag}&tag=other-{tag}",
                image.digest()
            ),
            false => format!("/v2/base/app/manifests/{tag}"),
        };
        let kind = [("content-type", MANIFEST)];
        fixture
            .client(self.host, self.alpn)
            .ask_with("PUT", &target, &kind, image.manifest.clone())
            .await
    }
}

#[tokio::test]
async fn exactly_one_of_two_pushes_wins_whichever_way_they_come() {
    let fixture = SharedRegistryFixture::new().await;
    let (http2, alias) = (
        Way { alpn: "h2", ..WAY },
        Way {
            host: "alias.test",
            ..WAY
        },
    );
    let second = Way {
        host: "second.test",
        ..WAY
    };
    let by_digest = Way {
        by_digest: true,
        ..WAY
    };
    let pairs = [
        (WAY, by_digest),
        (by_digest, by_digest),
        (WAY, second),
        (
            second,
            Way {
                by_digest: true,
                ..http2
            },
        ),
        (WAY, alias),
        (alias, second),
        (WAY, http2),
        (http2, http2),
    ];
    for (number, (one, other)) in pairs.into_iter().enumerate() {
        for round in 0..6 {
            let tag = format!("v{number}.{round}");
            let [first, last] = &fixture.images;
            let (a, b) = tokio::join!(
                one.push(&fixture, first, &tag),
                other.push(&fixture, last, &tag)
            );
            let context = format!("{one:?}, {other:?}: {a:?}, {b:?}");
            assert_eq!(
                [a.status, b.status]
                    .iter()
                    .filter(|status| **status == 201)
                    .count(),
                1,
                "{context}"
            );
            let (lost, won) = if a.status == 201 {
                (b, first)
            } else {
                (a, last)
            };
            assert!(
                lost.refused(403, "DENIED")
                    .starts_with("alice may not overwrite base/app:"),
                "{context}"
            );
            let mut client = fixture.client(WAY.host, WAY.alpn);
            let there = client
                .get(&format!("/v2/base/app/manifests/{tag}"))
                .await
                .is(200);
            assert_eq!(there.body, won.manifest, "{context}");
        }
    }
}

/// A registry that has no manifest and takes each, without reading it.
async fn taking_registry() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let mut peer = RawPeer::new(listener.accept().await.unwrap().0);
            tokio::spawn(async move {
                while let Some(head) = peer.try_head().await {
                    let length = head.length().unwrap_or_default();
                    peer.bytes(length).await;
                    let status = match head.first.starts_with("HEAD") {
                        true => "404 Not Found",
                        false => "201 Created",
                    };
                    peer.send(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"))
                        .await;
                }
            });
        }
    });
    url
}

#[tokio::test]
async fn a_registry_that_never_answers_delays_no_other_domain() {
    let stuck = Upstream::new().await;
    let rules = allow("**", "'pull', 'push'");
    let gateway = Setup::new()
        .domain(Domain::new("slow.test", &stuck.url()).tables(&rules))
        .domain(Domain::new("fast.test", &taking_registry().await).tables(&rules))
        .start()
        .await;
    let client = |host: &str| {
        Endpoint {
            host: host.to_owned(),
            ..Endpoint::new(&gateway, "http/1.1")
        }
        .client()
    };
    let kind = [("content-type", MANIFEST)];
    let mut pushes = tokio::task::JoinSet::new();
    for number in 0..150 {
        let mut client = client("slow.test");
        pushes.spawn(async move {
            let target = format!("/v2/app/manifests/s{number}");
            client.ask_with("PUT", &target, &kind, b"{}".to_vec()).await
        });
    }
    let mut asked = Vec::new();
    // By far the most of them have asked for their tags and wait for the answer.
    while asked.len() < 100 {
        asked.push(stuck.accept().await);
    }
    let mut client = client("fast.test");
    for number in 0..100 {
        let target = format!("/v2/app/manifests/f{number}");
        let push = client.ask_with("PUT", &target, &kind, b"{}".to_vec());
        let answer = tokio::time::timeout(Duration::from_secs(20), push).await;
        answer.expect("no other registry is waited for").is(201);
    }
}
