//! What is known of an upstream after asking it.

use std::time::SystemTime;

use tokio::time::Instant;

use crate::clock::time_of_day;
use crate::config::upstream::UpstreamUrl;
use crate::registry::host::HostName;
use crate::registry::name::RepositoryName;
use crate::registry::product::Product;
use crate::upstream::credential::Credential;
use crate::upstream::known_product::ProductSource;
use crate::upstream::login::inspection;
use crate::upstream::product::ability::{Ability, Possibility};
use crate::upstream::product::inspection::RequestLimit;

/// What is known of one domain's upstream.
pub(crate) struct UpstreamReport {
    pub(crate) domain: HostName,
    pub(crate) url: UpstreamUrl,
    pub(crate) product: Product,
    pub(crate) known_by: ProductSource,
    pub(crate) credential: CredentialReport,
    /// As the product's own API writes when the credential for it ends.
    pub(crate) api_credential_expires: Option<String>,
    /// The repository that was asked about, by the name that clients know.
    pub(crate) repository: Option<RepositoryName>,
    /// All abilities, in their order.
    pub(crate) abilities: Vec<AbilityReport>,
    pub(crate) limits: Vec<RequestLimit>,
}

/// Whose credential moorgate sends, and how long it lives.
pub(crate) struct CredentialReport {
    /// In words, without a secret.
    pub(crate) name: String,
    pub(crate) life: CredentialLife,
}

/// How long what is sent to a registry is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CredentialLife {
    /// Nothing of moorgate's own is sent, or the registry has not shown how it takes it.
    Unknown,
    /// It is sent as it is.
    Endless,
    /// It is exchanged for tokens, of which one ends then.
    Until(SystemTime),
}

/// What is known of an ability.
pub(crate) struct AbilityReport {
    pub(crate) ability: Ability,
    pub(crate) possibility: Possibility,
    /// Whether an answer of the upstream says so.
    pub(crate) is_probed: bool,
    /// Why, or under which conditions; may be empty.
    pub(crate) why: String,
    /// The right that the credential lacks, in the product's own words.
    pub(crate) missing_right: Option<String>,
}

impl CredentialLife {
    /// Whether it ends; `None` where that is not known.
    pub(crate) fn ends(self) -> Option<bool> {
        match self {
            Self::Unknown => None,
            Self::Endless => Some(false),
            Self::Until(_) => Some(true),
        }
    }
}

impl CredentialReport {
    /// What is known without asking.
    pub(crate) fn new(credential: &Credential) -> Self {
        let foreign = |name: &str| Self {
            name: name.to_owned(),
            life: CredentialLife::Unknown,
        };
        let login = match credential {
            Credential::None => return foreign("none"),
            Credential::Client => return foreign("the clients' own"),
            Credential::Own(login) => login,
        };
        let expires = inspection::expires(login);
        let life = match expires.map(time_of) {
            Some(end) => CredentialLife::Until(end),
            None if inspection::is_sent_as_is(login) == Some(true) => CredentialLife::Endless,
            None => CredentialLife::Unknown,
        };
        Self {
            name: inspection::credential(login).to_owned(),
            life,
        }
    }
}

/// The time of day of an instant to come.
fn time_of(instant: Instant) -> SystemTime {
    time_of_day() + instant.saturating_duration_since(Instant::now())
}
