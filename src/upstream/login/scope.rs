//! What a token has to allow, as the call tells.

use crate::registry::call::{Call, RepositoryCall};
use crate::upstream::product::{Dialect, TokenNeed};

/// What a token has to allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenScope<'a> {
    /// Nothing but to be known to the registry.
    Registry,
    /// The list of repositories.
    Catalog,
    /// What is in a repository, by the name that the registry knows.
    Repository {
        name: &'a str,
        need: TokenNeed,
        /// The repository from which a blob is mounted.
        from: Option<&'a str>,
    },
}

impl<'a> TokenScope<'a> {
    /// The scope of a call to the registry.
    pub(crate) fn from_call(call: &'a Call) -> Self {
        match call {
            Call::Ping { .. } => Self::Registry,
            Call::Catalog { .. } => Self::Catalog,
            Call::Repository { name, operation } => Self::Repository {
                name: name.as_str(),
                need: need(operation),
                from: match operation {
                    RepositoryCall::Mount {
                        from: Some(from), ..
                    } => Some(from.as_str()),
                    _ => None,
                },
            },
        }
    }

    /// The scopes of the token, the most important one first: some services honour only that one.
    pub(super) fn texts(self, dialect: &dyn Dialect) -> Vec<String> {
        let of = |name: &str, need| format!("repository:{name}:{}", dialect.token_actions(need));
        match self {
            Self::Registry => Vec::new(),
            Self::Catalog => vec!["registry:catalog:*".to_owned()],
            Self::Repository { name, need, from } => {
                let source = from.map(|from| of(from, TokenNeed::Read));
                std::iter::once(of(name, need)).chain(source).collect()
            }
        }
    }
}

fn need(operation: &RepositoryCall) -> TokenNeed {
    match operation {
        RepositoryCall::TagsList { .. }
        | RepositoryCall::ManifestRead { .. }
        | RepositoryCall::BlobRead { .. }
        | RepositoryCall::Referrers { .. } => TokenNeed::Read,
        RepositoryCall::ManifestWrite { .. }
        | RepositoryCall::UploadStart { .. }
        | RepositoryCall::Mount { .. }
        | RepositoryCall::Upload { .. } => TokenNeed::Write,
        RepositoryCall::ManifestDelete { .. } | RepositoryCall::BlobDelete { .. } => {
            TokenNeed::Delete
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::registry::product::Product;
    use crate::upstream::product::dialect;

    fn scopes(product: Product, method: Method, target: &str) -> Vec<String> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query = (!query.is_empty()).then_some(query);
        let call = Call::parse(&method, path, query).expect(target);
        TokenScope::from_call(&call).texts(dialect(product))
    }

    #[test]
    fn each_call_needs_a_token_for_what_it_does() {
        let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let blob = format!("/v2/a/b/blobs/{digest}");
        let mount = format!("/v2/a/b/blobs/uploads/?mount={digest}&from=c/d");
        let anywhere = format!("/v2/a/b/blobs/uploads/?mount={digest}");
        let manifest = format!("/v2/a/b/manifests/{digest}");
        let (read, write) = ("repository:a/b:pull", "repository:a/b:pull,push");
        for (method, target, expected) in [
            (Method::GET, "/v2/", &[][..]),
            (Method::GET, "/v2/_catalog?n=1", &["registry:catalog:*"]),
            (Method::GET, "/v2/a/b/tags/list", &[read]),
            (Method::HEAD, "/v2/a/b/manifests/v1", &[read]),
            (Method::GET, &blob, &[read]),
            (Method::POST, "/v2/a/b/blobs/uploads/", &[write]),
            (Method::PATCH, "/v2/a/b/blobs/uploads/1", &[write]),
            (Method::DELETE, "/v2/a/b/blobs/uploads/1", &[write]),
            (Method::PUT, "/v2/a/b/manifests/v1", &[write]),
            (Method::POST, &mount, &[write, "repository:c/d:pull"]),
            (Method::POST, &anywhere, &[write]),
            (
                Method::DELETE,
                &manifest,
                &["repository:a/b:pull,push,delete"],
            ),
            (Method::DELETE, &blob, &["repository:a/b:pull,push,delete"]),
        ] {
            let found = scopes(Product::Distribution, method, target);
            assert_eq!(found, expected, "{target}");
        }
        // A scope with `delete` gets no token at all at Quay.
        assert_eq!(scopes(Product::Quay, Method::DELETE, &manifest), [write]);
    }
}
