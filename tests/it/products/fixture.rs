//! A played product behind a gateway, by the login that its registry takes.

use serde_json::Value;

use super::observed::image;
use crate::harness::played::{PLAYED_PRODUCTS, PlayedRegistry};
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
fn login(kind: &str, played: &PlayedRegistry) -> String {
    let own = played.switches().credentials;
    let (id, secret, api) = (own.key_id, own.secret_key, played.api_url());
    let keys = match kind {
        "distribution" => return String::new(),
        "ecr" => format!(
            "access_key_id = \"{id}\"\nsecret_access_key = \"{secret}\"\n\
             region = \"eu-central-1\""
        ),
        "gar with a key" => format!(
            "service_account = '{}'\nendpoint = \"{api}\"",
            played.service_account_key()
        ),
        "gar on a machine" => format!("metadata_server = true\nendpoint = \"{api}\""),
        "acr with Entra" => format!(
            "tenant = \"tenant\"\nclient_id = \"{id}\"\nclient_secret = \"{secret}\"\n\
             endpoint = \"{api}\""
        ),
        _ => format!(
            "username = \"{}\"\npassword = \"{}\"",
            own.user, own.password
        ),
    };
    format!("[upstream.login]\n{keys}")
}

/// The products with the logins by which moorgate gets in, the product's name first.
pub fn products() -> impl Iterator<Item = &'static str> {
    let all = PLAYED_PRODUCTS.iter().map(|(product, _)| *product);
    all.chain(["gar with a key", "gar on a machine", "acr with Entra"])
}

impl ProductFixture {
    pub async fn new(product: &'static str) -> Self {
        let (_, switches) = PLAYED_PRODUCTS
            .iter()
            .find(|(name, _)| product.split(' ').next() == Some(name))
            .unwrap();
        let played = PlayedRegistry::start(switches()).await;
        played.make_repository(NAME);
        let (name, api) = (played.switches().product, played.api_url());
        let keys = format!("product = \"{name}\"\napi = \"{api}\"");
        let domain = Domain::new("ci.test", &played.url())
            .upstream(&keys)
            .tables(&login(product, &played));
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

    /// How many credentials were exchanged since the last look.
    pub fn exchanges(&self) -> usize {
        let lines = self.played.take_lines();
        let is_exchange = |line: &&String| {
            [
                "service=",
                "api GetAuthorizationToken",
                "POST /token",
                "POST /oauth2/token",
            ]
            .iter()
            .chain(&["service-accounts/default/token"])
            .any(|part| line.contains(part))
        };
        lines.iter().filter(is_exchange).count()
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
