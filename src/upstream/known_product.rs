//! Which product a registry is, and how that is known.

use std::sync::OnceLock;

use http::HeaderMap;

use super::product::{Dialect, dialect};
use crate::config::upstream::UpstreamSettings;
use crate::registry::challenge;
use crate::registry::product::Product;

/// The product of one registry, as far as it is known.
#[derive(Debug)]
pub(crate) struct KnownProduct {
    /// For certain.
    given: Option<(Product, ProductSource)>,
    /// As an answer of the registry says.
    learned: OnceLock<Product>,
}

/// How a product is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProductSource {
    Configuration,
    HostName,
    /// The registry asks for a login in its way.
    Challenge,
    /// Nothing says otherwise.
    Default,
}

impl ProductSource {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::HostName => "host",
            Self::Challenge => "challenge",
            Self::Default => "default",
        }
    }
}

impl KnownProduct {
    pub(crate) fn new(settings: &UpstreamSettings) -> Self {
        let configured = settings.product;
        let configured = configured.map(|product| (product, ProductSource::Configuration));
        let named = || {
            let product = Product::of_host(&settings.url.host)?;
            Some((product, ProductSource::HostName))
        };
        Self {
            given: configured.or_else(named),
            learned: OnceLock::new(),
        }
    }

    /// That of a server that is no registry.
    pub(crate) fn none() -> Self {
        Self {
            given: Some((Product::Distribution, ProductSource::Default)),
            learned: OnceLock::new(),
        }
    }

    /// The product, and how it is known.
    pub(crate) fn get(&self) -> (Product, ProductSource) {
        let learned = || {
            let product = *self.learned.get()?;
            Some((product, ProductSource::Challenge))
        };
        let known = self.given.or_else(learned);
        known.unwrap_or((Product::Distribution, ProductSource::Default))
    }

    pub(crate) fn dialect(&self) -> &'static dyn Dialect {
        dialect(self.get().0)
    }

    /// The ways of the product, if it is known for certain and not because an answer says so.
    pub(crate) fn given(&self) -> Option<&'static dyn Dialect> {
        self.given.map(|(product, _)| dialect(product))
    }

    /// Takes what the challenges of a registry tell. The first one that tells something counts.
    pub(crate) fn learn(&self, headers: &HeaderMap) {
        if self.given.is_some() || self.learned.get().is_some() {
            return;
        }
        let challenges = challenge::of_response(headers);
        if let Some(product) = challenges.iter().find_map(Product::of_challenge) {
            // Two requests may learn it at once, of one registry.
            let _ = self.learned.set(product);
        }
    }
}
