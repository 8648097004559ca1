//! A played product behind a gateway, by the login that its registry takes.

use serde_json::{Value, json};

use super::observed::image;
use super::played_tls::PlayedTls;
use crate::harness::played::{
    PLAYED_PRODUCTS, PlayedChallenge, PlayedRegistry, RealmServer, Switches, digest,
};
use crate::harness::registry_client::ClientAnswer;
use crate::harness::{Domain, Gateway, RegistryClient, Setup};

/// The repository of all tests, which is there.
pub const NAME: &str = "acme/app";

/// A product, the gateway in front of it, and alice.
pub struct ProductFixture {
    pub product: &'static str,
    pub played: PlayedRegistry,
    pub gateway: Gateway,
    pub alice: RegistryClient,
    _tls: Option<PlayedTls>,
}

/// Where a gateway finds a player.
struct PlayerUrls {
    registry: String,
    api: String,
}

/// The settings of a login, beside the product and its address.
pub fn login(kind: &str, played: &PlayedRegistry, api: &str) -> String {
    let own = played.switches().credentials;
    let (id, secret) = (own.key_id, own.secret_key);
    let keys = match kind {
        "distribution" => return String::new(),
        "ecr" => format!(
            "access_key_id = \"{id}\"\nsecret_access_key = \"{secret}\"\n\
             region = \"eu-central-1\""
        ),
        "gar with a key" => format!(
            "service_account = '{}'\nregion = \"europe\"\nendpoint = \"{api}\"",
            played.service_account_key()
        ),
        "gar on a machine" => {
            format!("metadata_server = true\nregion = \"europe\"\nendpoint = \"{api}\"")
        }
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

/// The credential for the product's own API, where it is another one.
fn admin(product: &str, played: &PlayedRegistry) -> String {
    let own = played.switches().credentials;
    let (user, password) = (own.admin_user, own.admin_password);
    match product {
        "acr" | "dockerhub" | "harbor" => {
            format!("[upstream.admin]\nusername = \"{user}\"\npassword = \"{password}\"")
        }
        "ghcr" => format!("[upstream.admin]\ntoken = \"{password}\""),
        _ => String::new(),
    }
}

/// What `[upstream]` has beside its URL, with the tables below it.
pub fn upstream_keys(product: &str, played: &PlayedRegistry, api: &str) -> String {
    let name = played.switches().product;
    let login = login(product, played, api);
    let admin = admin(product, played);
    format!("product = \"{name}\"\napi = \"{api}\"\n{login}\n{admin}\n")
}

/// The switches of a product; a login may stand behind its name.
fn switches(product: &str) -> Switches {
    let (_, switches) = PLAYED_PRODUCTS
        .iter()
        .find(|(name, _)| product.split(' ').next() == Some(name))
        .unwrap();
    switches()
}

impl ProductFixture {
    pub async fn new(product: &'static str) -> Self {
        Self::with(product, "", "").await
    }

    /// With further keys of `[upstream]`, and further tables.
    pub async fn with(product: &'static str, keys: &str, tables: &str) -> Self {
        Self::playing((product, switches(product)), keys, tables).await
    }

    /// With a user of the registry who may do everything there.
    pub async fn of_administrator(product: &'static str) -> Self {
        let mut switches = switches(product);
        let own = &mut switches.credentials;
        own.user.clone_from(&own.admin_user);
        own.password.clone_from(&own.admin_password);
        Self::playing((product, switches), "", "").await
    }

    /// With one credential, which has no right to delete by the product's own API.
    pub async fn without_admin(product: &'static str) -> Self {
        let mut switches = switches(product);
        let own = switches.credentials.clone();
        // What is configured as the other one is the same.
        switches.credentials.admin_user.clone_from(&own.user);
        switches
            .credentials
            .admin_password
            .clone_from(&own.password);
        let fixture = Self::playing((product, switches), "", "").await;
        fixture.played.set(|switches| switches.credentials = own);
        fixture
    }

    /// With TLS in front of the registry and of its API.
    pub async fn over_tls(product: &'static str, keys: &str, tables: &str) -> Self {
        let played = PlayedRegistry::start(switches(product)).await;
        let tls = PlayedTls::new(played.addresses()).await;
        let (registry, api) = (tls.registry_url(), tls.api_url());
        if let PlayedChallenge::Bearer { path, at, .. } = played.switches().challenge {
            let realm = match at {
                RealmServer::Api => format!("{api}{path}"),
                RealmServer::Registry => format!("{registry}{path}"),
            };
            played.set(|switches| switches.realm = Some(realm));
        }
        let keys = format!("roots = \"{}\"\n{keys}", tls.roots().display());
        let urls = PlayerUrls { registry, api };
        let mut fixture = Self::before(played, product, urls, (&keys, tables)).await;
        fixture._tls = Some(tls);
        fixture
    }

    async fn playing(
        (product, switches): (&'static str, Switches),
        keys: &str,
        tables: &str,
    ) -> Self {
        let played = PlayedRegistry::start(switches).await;
        let urls = PlayerUrls {
            registry: played.url(),
            api: played.api_url(),
        };
        Self::before(played, product, urls, (keys, tables)).await
    }

    async fn before(
        played: PlayedRegistry,
        product: &'static str,
        urls: PlayerUrls,
        (keys, tables): (&str, &str),
    ) -> Self {
        let PlayerUrls { registry, api } = urls;
        played.make_repository(NAME);
        let own = upstream_keys(product, &played, &api);
        let domain = Domain::new("ci.test", &registry)
            .user("root", "secret")
            .upstream(&format!("{keys}\n{own}"))
            .tables(tables);
        let gateway = Setup::new().domain(domain).start().await;
        let alice = RegistryClient::through(&gateway);
        Self {
            product,
            played,
            gateway,
            alice,
            _tls: None,
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

    /// Gives a manifest that is there a further tag.
    pub async fn tag(&self, tag: &str, manifest: &Value) {
        let pushed = self.alice.push_manifest(NAME, tag, manifest).await;
        self.expect(&pushed, 201);
    }

    /// Pushes an index of two images; the digests of these.
    pub async fn push_index(&self, tag: &str) -> (Value, Vec<String>) {
        let mut parts = Vec::new();
        for architecture in ["amd64", "arm64"] {
            let image = self.push(architecture, architecture.as_bytes()).await;
            let image = image.to_string();
            parts.push(json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": digest(image.as_bytes()),
                "size": image.len(),
                "platform": {"os": "linux", "architecture": architecture},
            }));
        }
        let digests = parts.iter().map(|part| part["digest"].as_str().unwrap());
        let digests = digests.map(str::to_owned).collect();
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": parts});
        self.tag(tag, &index).await;
        (index, digests)
    }

    /// Deletes a manifest or a tag.
    pub async fn delete(&self, reference: &str) -> ClientAnswer {
        let target = format!("/v2/{NAME}/manifests/{reference}");
        self.alice.send("DELETE", &target, &[], b"").await
    }

    /// The tags that the registry has.
    pub fn tags(&self) -> Vec<String> {
        let tags = self.played.tags(NAME).into_iter();
        tags.map(|(tag, _)| tag).collect()
    }

    /// Asserts a refusal by status and code that says these words.
    #[track_caller]
    pub fn refused(&self, answer: &ClientAnswer, (status, code): (u16, &str), words: &str) {
        self.expect(answer, status);
        assert_eq!(answer.code().as_deref(), Some(code), "{}", self.product);
        let message = answer.json()["errors"][0]["message"].clone();
        let message = message.as_str().unwrap();
        assert!(message.contains(words), "{}: {message}", self.product);
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
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
