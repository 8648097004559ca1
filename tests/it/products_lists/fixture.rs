//! A played product behind a gateway with two users, and lists read page by page.

use crate::harness::played::{PLAYED_PRODUCTS, PlayedRegistry, Switches};
use crate::harness::registry_client::ClientAnswer;
use crate::harness::{Domain, Gateway, RegistryClient, Setup, basic};
use crate::products::fixture;

/// The products whose repositories are listed by their own API.
pub const LISTED_BY_API: [&str; 3] = ["dockerhub", "ghcr", "harbor"];

/// A product and the gateway in front of it.
pub struct ListsFixture {
    pub played: PlayedRegistry,
    gateway: Gateway,
}

/// A player of a product with other switches.
pub async fn player(product: &str, change: impl FnOnce(&mut Switches)) -> PlayedRegistry {
    let found = PLAYED_PRODUCTS.iter().find(|(name, _)| *name == product);
    let (_, switches) = found.unwrap();
    let mut switches = switches();
    change(&mut switches);
    PlayedRegistry::start(switches).await
}

/// The settings of moorgate's usual login there.
pub fn login(product: &str, played: &PlayedRegistry) -> String {
    fixture::login(product, played, &played.api_url())
}

impl ListsFixture {
    /// With moorgate's usual login there.
    pub async fn new(product: &str, tables: &str) -> Self {
        let played = player(product, |_| {}).await;
        let login = login(product, &played);
        Self::before(played, &format!("{login}\n{tables}")).await
    }

    /// With these tables, the login among them.
    pub async fn before(played: PlayedRegistry, tables: &str) -> Self {
        let (product, api) = (played.switches().product, played.api_url());
        let keys = format!("product = \"{product}\"\napi = \"{api}\"");
        let domain = Domain::new("ci.test", &played.url())
            .upstream(&keys)
            .tables(tables)
            .user("bob", "secret");
        let gateway = Setup::new().domain(domain).start().await;
        Self { played, gateway }
    }

    pub fn client(&self, user: &str) -> RegistryClient {
        let mut client = RegistryClient::through(&self.gateway);
        client.authorization = Some(basic(user, "secret"));
        client
    }

    /// What alice gets.
    pub async fn get(&self, target: &str) -> ClientAnswer {
        self.client("alice").get(target).await
    }

    /// Puts a manifest with each of these tags into a repository.
    pub fn tag(&self, repository: &str, tags: &[&str]) {
        let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": "a/b", "layers": []});
        for tag in tags {
            self.played.put_manifest(repository, Some(tag), &manifest);
        }
    }
}

/// An error as the specification has it; its message.
#[track_caller]
pub fn refused(answer: &ClientAnswer, status: u16, code: &str) -> String {
    answer.expect(status);
    assert_eq!(answer.code().as_deref(), Some(code), "{answer:?}");
    let message = answer.json()["errors"][0]["message"].clone();
    message.as_str().unwrap().to_owned()
}

/// The target of the link to the next page, of the same host.
pub fn next(answer: &ClientAnswer) -> Option<String> {
    let link = answer.header("link")?;
    let (target, rest) = link.strip_prefix('<').unwrap().split_once('>').unwrap();
    assert!(rest.contains("next"), "{link}");
    let host = target.strip_prefix("https://ci.test");
    let target = host.unwrap_or(target);
    assert!(target.starts_with("/v2/"), "{link}");
    Some(target.to_owned())
}

/// Every page of a list, following the links.
pub async fn pages(client: &RegistryClient, target: &str, member: &str) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut target = Some(target.to_owned());
    while let Some(asked) = target {
        let answer = client.get(&asked).await;
        answer.expect(200);
        pages.push(serde_json::from_value(answer.json()[member].clone()).unwrap());
        assert!(pages.len() < 100, "no end: {pages:?}");
        target = next(&answer);
    }
    pages
}

/// Names of pages that are as long as they can be.
#[track_caller]
pub fn full(pages: &[Vec<String>], n: usize) -> Vec<String> {
    let (last, others) = pages.split_last().unwrap();
    assert!(others.iter().all(|page| page.len() == n), "{n}: {pages:?}");
    assert!(last.len() <= n, "{n}: {pages:?}");
    pages.concat()
}
