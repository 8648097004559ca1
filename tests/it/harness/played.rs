//! A registry in this process that plays one of nine products: it follows the distribution
//! specification but for its switches, checks credentials, and records every request. Its own API
//! and the storage that its blobs are redirected to are servers beside it.

mod answer;
mod api;
mod authorization;
mod contents;
mod deletion;
mod grants;
mod lists;
mod manifests;
mod products;
mod registry;
mod requests;
mod server;
mod signature;
mod switches;
mod throttling;
mod uploads;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;

use api::ServiceAccount;
use contents::Contents;
pub use contents::digest;
use grants::Grants;
pub use requests::{Recipient, RecordedRequest};
pub use switches::*;

use super::{RegistryClient, basic};

/// A played registry. Dropped, it stops listening.
pub struct PlayedRegistry {
    played: Arc<Mutex<Played>>,
    addresses: PlayedAddresses,
    listening: Vec<JoinHandle<()>>,
}

/// Where the servers of a player are.
#[derive(Clone, Copy, Debug)]
pub struct PlayedAddresses {
    pub registry: SocketAddr,
    pub api: SocketAddr,
    pub storage: SocketAddr,
}

/// What all servers of a player share.
struct Played {
    switches: Switches,
    addresses: PlayedAddresses,
    contents: Contents,
    grants: Grants,
    recorded: Vec<RecordedRequest>,
    service_account: ServiceAccount,
    /// How far the clock of the player is ahead of the other one.
    ahead: Duration,
    begun: tokio::time::Instant,
}

impl Played {
    /// The player's clock, from its start.
    fn now(&self) -> Duration {
        self.begun.elapsed() + self.ahead
    }
}

/// The switches of a product.
pub type ProductSwitches = fn() -> Switches;

/// The starts of the nine products, by the names that the configuration has for them.
pub const PLAYED_PRODUCTS: [(&str, ProductSwitches); 9] = [
    ("acr", Switches::acr),
    ("distribution", Switches::distribution),
    ("dockerhub", Switches::dockerhub),
    ("ecr", Switches::ecr),
    ("gar", Switches::gar),
    ("ghcr", Switches::ghcr),
    ("gitlab", Switches::gitlab),
    ("harbor", Switches::harbor),
    ("quay", Switches::quay),
];

impl PlayedRegistry {
    pub async fn acr() -> Self {
        Self::start(Switches::acr()).await
    }

    /// Version 2.8, open to everybody.
    pub async fn distribution() -> Self {
        Self::start(Switches::distribution()).await
    }

    pub async fn dockerhub() -> Self {
        Self::start(Switches::dockerhub()).await
    }

    pub async fn ecr() -> Self {
        Self::start(Switches::ecr()).await
    }

    pub async fn gar() -> Self {
        Self::start(Switches::gar()).await
    }

    pub async fn ghcr() -> Self {
        Self::start(Switches::ghcr()).await
    }

    pub async fn gitlab() -> Self {
        Self::start(Switches::gitlab()).await
    }

    pub async fn harbor() -> Self {
        Self::start(Switches::harbor()).await
    }

    pub async fn quay() -> Self {
        Self::start(Switches::quay()).await
    }

    /// A registry with these switches. The repository of a product where it must exist does not,
    /// until [`Self::make_repository`].
    pub async fn start(switches: Switches) -> Self {
        let (registry, api, storage) = (
            server::bind().await,
            server::bind().await,
            server::bind().await,
        );
        let addresses = PlayedAddresses {
            registry: registry.local_addr().unwrap(),
            api: api.local_addr().unwrap(),
            storage: storage.local_addr().unwrap(),
        };
        let played = Arc::new(Mutex::new(Played {
            switches,
            addresses,
            contents: Contents::default(),
            grants: Grants::default(),
            recorded: Vec::new(),
            service_account: ServiceAccount::default(),
            ahead: Duration::ZERO,
            begun: tokio::time::Instant::now(),
        }));
        let listening = [
            (registry, Recipient::Registry),
            (api, Recipient::Api),
            (storage, Recipient::Storage),
        ]
        .map(|(listener, recipient)| {
            tokio::spawn(server::serve(listener, recipient, played.clone()))
        });
        Self {
            played,
            addresses,
            listening: listening.into(),
        }
    }

    /// `http://127.0.0.1:PORT` of the registry.
    pub fn url(&self) -> String {
        format!("http://{}", self.addresses.registry)
    }

    /// The same of its own API, where the services are too that exchange credentials.
    pub fn api_url(&self) -> String {
        format!("http://{}", self.addresses.api)
    }

    pub fn addresses(&self) -> PlayedAddresses {
        self.addresses
    }

    /// Changes switches of the running registry.
    pub fn set(&self, change: impl FnOnce(&mut Switches)) {
        change(&mut self.played.lock().unwrap().switches);
    }

    /// The switches as they are now.
    pub fn switches(&self) -> Switches {
        self.played.lock().unwrap().switches.clone()
    }

    /// The requests that came since the last call, in order, of all of its servers.
    pub fn take(&self) -> Vec<RecordedRequest> {
        std::mem::take(&mut self.played.lock().unwrap().recorded)
    }

    /// The same as lines: `registry POST /v2/a/blobs/uploads/`, `api CreateRepository`.
    pub fn take_lines(&self) -> Vec<String> {
        self.take().iter().map(RecordedRequest::line).collect()
    }

    /// A client of the registry with what its challenge wants for a scope.
    pub async fn client(&self, scope: &str) -> RegistryClient {
        let own = self.switches().credentials;
        let pair = basic(&own.user, &own.password);
        let mut client = RegistryClient::plain(self.addresses.registry, None);
        let PlayedChallenge::Bearer { service, path, at } = self.switches().challenge else {
            client.authorization = Some(pair);
            return client;
        };
        let address = match at {
            RealmServer::Api => self.addresses.api,
            RealmServer::Registry => self.addresses.registry,
        };
        let realm = RegistryClient::plain(address, Some(&pair));
        let target = format!("{path}?service={service}&scope={scope}");
        let answer = realm.get(&target).await;
        answer.expect(200);
        let document = answer.json();
        let token = document["token"].as_str();
        let token = token.or_else(|| document["access_token"].as_str()).unwrap();
        client.authorization = Some(format!("Bearer {token}"));
        client
    }

    /// The headers of a call of ECR's API, signed with the player's key.
    pub fn signed_action(&self, action: &str, body: &str) -> Vec<String> {
        let own = self.switches().credentials;
        signature::signed_headers(&own, &self.addresses.api.to_string(), (action, body))
    }

    /// Moves the player's clock, and no other one: tokens end by it.
    pub fn advance(&self, time: Duration) {
        self.played.lock().unwrap().ahead += time;
    }

    /// Ends all tokens that were issued so far.
    pub fn revoke_tokens(&self) {
        self.played.lock().unwrap().grants.revoke();
    }

    /// The key file of Google's service account, which is made by the first call.
    pub fn service_account_key(&self) -> String {
        let token_uri = format!("{}/token", self.api_url());
        let account = &mut self.played.lock().unwrap().service_account;
        if account.key_file.is_empty() {
            *account = ServiceAccount::new(&token_uri);
        }
        account.key_file.clone()
    }

    /// From here on, no machine and no key gets a token of Google's service account.
    pub fn disable_service_account(&self) {
        let account = &mut self.played.lock().unwrap().service_account;
        account.key_file.clear();
        account.is_disabled = true;
    }

    /// Makes a repository, and the project that it is in.
    pub fn make_repository(&self, name: &str) {
        self.played.lock().unwrap().contents.make_repository(name);
    }

    /// Makes a project, for products whose repositories are in one.
    pub fn make_project(&self, name: &str) {
        self.played.lock().unwrap().contents.make_project(name);
    }

    /// Puts a blob into a repository; its digest.
    pub fn put_blob(&self, repository: &str, bytes: &[u8]) -> String {
        let contents = &mut self.played.lock().unwrap().contents;
        contents.put_blob(repository, bytes.to_vec().into())
    }

    /// Puts a manifest into a repository, with a tag if there is one; its digest.
    pub fn put_manifest(
        &self,
        repository: &str,
        tag: Option<&str>,
        manifest: &serde_json::Value,
    ) -> String {
        let contents = &mut self.played.lock().unwrap().contents;
        contents.put_json(repository, tag, manifest)
    }

    /// The names of the repositories.
    pub fn repositories(&self) -> Vec<String> {
        self.played.lock().unwrap().contents.names()
    }

    /// The tags of a repository with their digests.
    pub fn tags(&self, repository: &str) -> Vec<(String, String)> {
        let contents = &self.played.lock().unwrap().contents;
        let found = contents.repository(repository);
        let tags = found.into_iter().flat_map(|found| found.tags.clone());
        tags.collect()
    }

    /// Whether a repository has a manifest.
    pub fn has_manifest(&self, repository: &str, digest: &str) -> bool {
        let contents = &self.played.lock().unwrap().contents;
        let found = contents.repository(repository);
        found.is_some_and(|found| found.manifests.contains_key(digest))
    }
}

impl Drop for PlayedRegistry {
    fn drop(&mut self) {
        for server in &self.listening {
            server.abort();
        }
    }
}
