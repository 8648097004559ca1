//! A domain with access rules over a store of its own, or before another moorgate that plays the
//! registry.

use std::path::Path;

use moorgate::internal::app::{App, StartOptions};
use moorgate::internal::listen::InheritedSockets;

use crate::harness::{Domain, Gateway, Setup, start_app};
use crate::store::client::{Client, Endpoint};
use crate::store::image::Image;

/// What the rules stand before, and which protocol clients speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Store,
    Upstream,
    StoreHttp2,
    UpstreamHttp2,
}

pub const KINDS: [Kind; 4] = [
    Kind::Store,
    Kind::Upstream,
    Kind::StoreHttp2,
    Kind::UpstreamHttp2,
];

/// How clients show who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Login {
    Password,
    Token,
}

impl Kind {
    fn alpn(self) -> &'static str {
        match self {
            Self::Store | Self::Upstream => "http/1.1",
            Self::StoreHttp2 | Self::UpstreamHttp2 => "h2",
        }
    }
}

/// Every user's password is `secret`; `root` may do everything.
pub struct AccessFixture {
    pub gateway: Gateway,
    kind: Kind,
    domain: Box<dyn Fn(&str) -> Domain>,
    behind: Option<Gateway>,
}

const ROOT: &str = "[[access]]\nusers = ['root']\nrepositories = ['**']\nactions = ['all']\n";

impl AccessFixture {
    pub async fn new(kind: Kind, rules: &str) -> Self {
        Self::with(kind, rules, |domain| domain).await
    }

    pub async fn with(
        kind: Kind,
        rules: &str,
        settings: impl Fn(Domain) -> Domain + 'static,
    ) -> Self {
        let behind = match kind {
            Kind::Store | Kind::StoreHttp2 => None,
            Kind::Upstream | Kind::UpstreamHttp2 => {
                let registry =
                    Domain::store("registry.test", "behind").top("aliases = ['127.0.0.1']");
                Some(Setup::new().domain(registry).start().await)
            }
        };
        let upstream = behind.as_ref().map(|behind| {
            let roots = behind.path("state/internal-ca/ca.pem");
            let keys = format!(
                "roots = '{}'\nusername = 'alice'\npassword = 'secret'",
                roots.display()
            );
            (format!("https://{}", behind.https()), keys)
        });
        let domain = move |rules: &str| {
            let domain = match &upstream {
                Some((url, keys)) => Domain::new("ci.test", url).upstream(keys),
                None => Domain::store("ci.test", "ci"),
            };
            let domain = ["root", "bob", "carol"]
                .into_iter()
                .fold(domain, |d, user| d.user(user, "secret"));
            settings(domain.tables(&format!("{ROOT}{rules}")))
        };
        let gateway = Setup::new().domain(domain(rules)).start().await;
        Self {
            gateway,
            kind,
            domain: Box::new(domain),
            behind,
        }
    }

    /// Other rules from now on.
    pub async fn rules(&self, rules: &str) {
        let path = self.gateway.path("conf.d/ci.test.toml");
        std::fs::write(path, (self.domain)(rules).toml()).unwrap();
        self.gateway
            .app
            .reload()
            .await
            .unwrap_or_else(|error| panic!("{error}\n{rules}"));
    }

    /// The domain with other rules.
    pub fn domain(&self, rules: &str) -> Domain {
        (self.domain)(rules)
    }

    /// Ends the process, so to speak, and starts another one over the same files.
    pub async fn restart(&mut self) {
        assert!(self.gateway.stop().await);
        let directory = self.gateway.directory.path().to_owned();
        self.gateway.app = start(&directory).await;
    }

    pub fn client(&self, user: &str) -> Client {
        Endpoint::new(&self.gateway, self.kind.alpn())
            .client()
            .of(user)
    }

    /// The registry behind, if it is another one.
    pub fn registry(&self) -> Option<&Gateway> {
        self.behind.as_ref()
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// A client that has logged in, unless it is of `@anonymous`. A token is for whatever the rules
    /// allow now in these repositories, and for the catalog.
    pub async fn login(&self, login: Login, user: &str, repositories: &[&str]) -> Client {
        match (user, login) {
            ("@anonymous", _) => self.anonymous(),
            (user, Login::Password) => self.client(user),
            (user, Login::Token) => {
                let scope = |name: &&str| format!("&scope=repository:{name}:pull,push,delete");
                let scopes: String = repositories.iter().map(scope).collect();
                let target = format!("/token?service=ci.test&scope=registry:catalog:*{scopes}");
                let answer = self.client(user).get(&target).await.is(200).json();
                self.anonymous().bearing(answer["token"].as_str().unwrap())
            }
        }
    }

    pub fn anonymous(&self) -> Client {
        Endpoint::new(&self.gateway, self.kind.alpn())
            .client()
            .anonymous()
    }

    /// An image that is in these repositories under a tag.
    pub async fn seeded(&self, seed: u64, repositories: &[&str], tag: &str) -> Image {
        let image = Image::small(seed);
        let mut root = self.client("root");
        for repository in repositories {
            root.push(repository, tag, &image).await;
        }
        image
    }
}

/// A process over the files of a directory, beside the one that may be there already.
pub async fn start(directory: &Path) -> std::sync::Arc<App> {
    let options = StartOptions {
        directory: directory.to_owned(),
        workers: None,
        log_floor: None,
        logs: None,
        sockets: InheritedSockets::default(),
        predecessor: None,
        strict: false,
    };
    start_app(options).await.unwrap()
}

/// A rule for alice.
pub fn allow(repositories: &str, actions: &str) -> String {
    format!(
        "[[access]]\nusers = ['alice']\nrepositories = ['{repositories}']\nactions = [{actions}]\n"
    )
}

/// The push inbox.
pub const INBOX: &str = "[[access]]\nusers = ['*']\nrepositories = ['${user}/**']\n\
    actions = ['push', 'overwrite']\ntags = ['release']\n";
