//! A domain that gives tokens, over a store of its own or before another moorgate that plays the
//! registry.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::access::fixture::AccessFixture;
use crate::harness::{Domain, basic};
use crate::store::client::{Answer, Client};
use crate::store::image::Image;

pub use crate::access::fixture::Kind;

/// Users as in [`AccessFixture`]: the password of each is `secret`, and `root` may do everything.
pub struct TokenFixture(pub AccessFixture);

pub const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

impl TokenFixture {
    pub async fn new(rules: &str) -> Self {
        Self::with(Kind::Store, "", rules).await
    }

    /// With further keys of `[auth]`.
    pub async fn with(kind: Kind, auth: &'static str, rules: &str) -> Self {
        let settings = move |domain: Domain| domain.auth(&format!("mode = 'token'\n{auth}"));
        Self(AccessFixture::with(kind, rules, settings).await)
    }

    /// Without access rules: every user may do everything.
    pub async fn open(kind: Kind) -> Self {
        let settings = |domain: Domain| domain.auth("mode = 'token'").tables("");
        Self(AccessFixture::with(kind, "", settings).await)
    }

    pub fn client(&self) -> Client {
        self.0.anonymous()
    }

    /// Sends a GET to the endpoint.
    pub async fn get_token(&self, user: Option<(&str, &str)>, query: &str) -> Answer {
        let authorization = user
            .map(|(user, password)| basic(user, password))
            .unwrap_or_default();
        let headers: &[_] = if user.is_some() {
            &[("authorization", authorization.as_str())]
        } else {
            &[]
        };
        self.client()
            .ask_with("GET", &format!("/token?{query}"), headers, "")
            .await
    }

    /// Posts a form to the endpoint.
    pub async fn post_form(&self, form: &str) -> Answer {
        self.client()
            .ask_with("POST", "/token", &[FORM], form.to_owned())
            .await
    }

    /// A token for scopes that are separated by spaces.
    pub async fn token(&self, user: &str, scopes: &str) -> String {
        let query = format!("service=ci.test&scope={}", scopes.replace(' ', "&scope="));
        let answer = self
            .get_token(Some((user, "secret")), &query)
            .await
            .is(200)
            .json();
        answer["token"].as_str().unwrap().to_owned()
    }

    /// A client with such a token.
    pub async fn bearer(&self, user: &str, scopes: &str) -> Client {
        self.client().bearing(&self.token(user, scopes).await)
    }

    /// An image that is in these repositories under a tag.
    pub async fn seeded(&self, repositories: &[&str], tag: &str) -> Image {
        let image = Image::small(1);
        for repository in repositories {
            let mut root = self
                .bearer("root", &format!("repository:{repository}:push"))
                .await;
            root.push(repository, tag, &image).await;
        }
        image
    }

    /// Other users from now on; the password of each is `secret`.
    pub async fn users(&self, names: &[&str]) {
        let users: Vec<_> = names
            .iter()
            .map(|name| ((*name).to_owned(), "secret".to_owned()))
            .collect();
        std::fs::write(
            self.0.gateway.path("conf.d/ci.test.htpasswd"),
            Domain::htpasswd(&users),
        )
        .unwrap();
        self.0.gateway.app.refresh_files().await;
    }

    /// The key that signs now, as the state directory has it, and its name.
    pub async fn key(&self) -> (jsonwebtoken::EncodingKey, String) {
        let text = std::fs::read(self.0.gateway.path("state/token-keys.json")).unwrap();
        let file: Value = serde_json::from_slice(&text).unwrap();
        let pkcs8 = file["keys"][0]["pkcs8"].as_str().unwrap();
        let pkcs8 = base64::engine::general_purpose::STANDARD
            .decode(pkcs8)
            .unwrap();
        let keys = self
            .client()
            .get("/.well-known/jwks.json")
            .await
            .is(200)
            .json();
        (
            jsonwebtoken::EncodingKey::from_ec_der(&pkcs8),
            keys["keys"][0]["kid"].as_str().unwrap().to_owned(),
        )
    }
}

/// A part of a token: 0 is the header, 1 are the claims.
pub fn part(token: &str, number: usize) -> Value {
    let part = token.split('.').nth(number).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}
