//! Tokens that a player has issued: each ends by its clock, or with all others.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The tokens that count.
#[derive(Default)]
pub struct Grants {
    tokens: BTreeMap<String, PlayedGrant>,
    issued: usize,
    /// Whether tokens of the registry are JWTs, which say their scopes.
    pub says_scopes: bool,
}

/// What a token is for.
#[derive(Clone, Debug)]
pub struct PlayedGrant {
    pub use_: GrantUse,
    pub scopes: Vec<PlayedScope>,
    pub is_admin: bool,
    ends: Duration,
}

/// Where a token is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantUse {
    /// At the registry, for its scopes.
    Registry,
    /// To get such a token: ACR's refresh token.
    Refresh,
    /// At the product's own API. That of a cloud is taken at the registry too, for everything.
    Api,
    /// As ECR's password, for everything.
    Password,
}

/// What may be done with what, as a scope says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlayedScope {
    pub kind: String,
    pub name: String,
    pub actions: Vec<String>,
}

impl PlayedScope {
    pub fn repository(name: &str, actions: &[&str]) -> Self {
        Self {
            kind: "repository".to_owned(),
            name: name.to_owned(),
            actions: actions.iter().map(|action| (*action).to_owned()).collect(),
        }
    }

    pub fn catalog() -> Self {
        Self {
            kind: "registry".to_owned(),
            name: "catalog".to_owned(),
            actions: vec!["*".to_owned()],
        }
    }

    /// `repository:a/b:pull,push`
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        let (name, actions) = rest.rsplit_once(':')?;
        Some(Self {
            kind: kind.to_owned(),
            name: name.to_owned(),
            actions: actions.split(',').map(str::to_owned).collect(),
        })
    }

    /// As the claims of a token have it.
    fn access(&self) -> serde_json::Value {
        serde_json::json!({"type": self.kind, "name": self.name, "actions": self.actions})
    }

    /// Whether it allows all that another one needs.
    pub fn covers(&self, needed: &Self) -> bool {
        let has = |action: &String| self.actions.contains(action) || self.allows_all();
        self.kind == needed.kind && self.name == needed.name && needed.actions.iter().all(has)
    }

    fn allows_all(&self) -> bool {
        self.actions.iter().any(|action| action == "*")
    }
}

impl std::fmt::Display for PlayedScope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.kind, self.name, self.actions.join(","))
    }
}

impl Grants {
    /// A new token that counts until a time of the player's clock.
    pub fn issue(
        &mut self,
        use_: GrantUse,
        scopes: Vec<PlayedScope>,
        is_admin: bool,
        ends: Duration,
    ) -> String {
        self.issued += 1;
        let mut token = format!("played-{use_:?}-token-{}", self.issued).to_lowercase();
        if self.says_scopes && use_ == GrantUse::Registry {
            let access = scopes.iter().map(PlayedScope::access);
            let claims = serde_json::json!({ "access": access.collect::<Vec<_>>() });
            token = format!("e30.{}.{token}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        }
        let grant = PlayedGrant {
            use_,
            scopes,
            is_admin,
            ends,
        };
        self.tokens.insert(token.clone(), grant);
        token
    }

    /// What a token is for, as long as it counts.
    pub fn get(&self, token: &str, now: Duration) -> Option<&PlayedGrant> {
        self.tokens.get(token).filter(|grant| now < grant.ends)
    }

    pub fn revoke(&mut self) {
        self.tokens.clear();
    }
}
