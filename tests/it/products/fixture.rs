//! A played product behind a gateway, by the login that its registry takes.

use serde_json::Value;

use super::observed::image;
use crate::harness::played::{PLAYED_PRODUCTS, PlayedRegistry, Switches};
use crate::harness::registry_client::ClientAnswer;
use crate::harness::{Domain, Gateway, RegistryClient, Setup};

/// The repository of all tests, which is there.
pub const NAME: &str = "acme/app";

/// A product, the gateway in front of it, and alice.
pub struct ProductFixture {
    pub product: &'static str,
    pub played: PlayedRegistry,
    _gateway: Gateway,
    pub alice: RegistryClient,
}

/// The settings of a login, beside the product and its address.
fn login(switches: &Switches) -> String {
    let own = &switches.credentials;
    match switches.product {
        "distribution" => String::new(),
        _ => format!(
            "[upstream.login]\nusername = \"{}\"\npassword = \"{}\"",
            own.user, own.password
        ),
    }
}

/// The products before which moorgate can log in.
pub fn products() -> impl Iterator<Item = &'static str> {
    let all = PLAYED_PRODUCTS.iter().map(|(product, _)| *product);
    all.filter(|product| *product != "ecr")
}

impl ProductFixture {
    pub async fn new(product: &'static str) -> Self {
        let (_, switches) = PLAYED_PRODUCTS
            .iter()
            .find(|(name, _)| *name == product)
            .unwrap();
        let switches = switches();
        let tables = login(&switches);
        let played = PlayedRegistry::start(switches).await;
        played.make_repository(NAME);
        let keys = format!("product = \"{product}\"\napi = \"{}\"", played.api_url());
        let domain = Domain::new("ci.test", &played.url())
            .upstream(&keys)
            .tables(&tables);
        let gateway = Setup::new().domain(domain).start().await;
        let alice = RegistryClient::through(&gateway);
        Self {
            product,
            played,
            _gateway: gateway,
            alice,
        }
    }

    /// Pushes an image of one layer; its manifest.
    pub async fn push(&self, tag: &str, layer: &[u8]) -> Value {
        let layer = self.alice.push_blob(NAME, layer).await;
        self.alice.push_blob(NAME, b"{}").await;
        let manifest = image(&layer);
        let pushed = self.alice.push_manifest(NAME, tag, &manifest).await;
        assert_eq!(pushed.status, 201, "{}: {pushed:?}", self.product);
        manifest
    }

    /// A manifest as alice gets it.
    pub async fn manifest(&self, reference: &str) -> ClientAnswer {
        let target = format!("/v2/{NAME}/manifests/{reference}");
        self.alice.send("GET", &target, &[ACCEPT], b"").await
    }

    /// Asserts a status; says which product it is.
    #[track_caller]
    pub fn expect(&self, answer: &ClientAnswer, status: u16) {
        let body = String::from_utf8_lossy(&answer.body);
        assert_eq!(
            answer.status, status,
            "{}: {:?} {body}",
            self.product, answer.headers
        );
    }
}

const ACCEPT: &str = "accept: application/vnd.oci.image.manifest.v1+json, \
                      application/vnd.oci.image.index.v1+json";
