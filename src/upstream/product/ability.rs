//! What moorgate can do at an upstream, as far as its product and its settings say without asking,
//! and what right each ability needs there, in the product's own words.

use super::{CatalogSource, Chunks, Deletion, Dialect, dialect};
use crate::config::upstream::{Untag, UpstreamSettings};
use crate::registry::product::Product;

/// Something that clients do at an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Ability {
    Pull,
    /// Into a repository that is there.
    Push,
    /// To make a repository, or what contains it.
    Create,
    /// To take a tag away, while its manifest stays.
    Untag,
    /// To delete a manifest.
    Delete,
    /// To list tags.
    List,
    Catalog,
    Referrers,
    Mounts,
    /// To upload a blob in chunks.
    Chunks,
}

impl Ability {
    /// In the order in which they are shown.
    pub(crate) const ALL: [Self; 10] = [
        Self::Pull,
        Self::Push,
        Self::Create,
        Self::Untag,
        Self::Delete,
        Self::List,
        Self::Catalog,
        Self::Referrers,
        Self::Mounts,
        Self::Chunks,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Create => "create",
            Self::Untag => "untag",
            Self::Delete => "delete",
            Self::List => "list",
            Self::Catalog => "catalog",
            Self::Referrers => "referrers",
            Self::Mounts => "mounts",
            Self::Chunks => "chunks",
        }
    }
}

/// Whether something can be done, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Possibility {
    /// As the distribution specification says.
    Yes,
    No,
    /// By the product's own API.
    Api,
    /// By a manifest that takes the tag and is then deleted.
    Swap,
    Unknown,
}

impl Possibility {
    /// In JSON.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Api => "api",
            Self::Swap => "swap",
            Self::Unknown => "unknown",
        }
    }
}

/// What is known of an ability without asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KnownAbility {
    pub(crate) possibility: Possibility,
    /// Why, or under which conditions; may be empty.
    pub(crate) why: &'static str,
}

const fn known(possibility: Possibility, why: &'static str) -> KnownAbility {
    KnownAbility { possibility, why }
}

/// An upstream, as far as its abilities depend on it.
#[derive(Clone, Copy)]
pub(crate) struct AbilitySource<'a> {
    pub(crate) product: Product,
    pub(crate) settings: &'a UpstreamSettings,
    /// Whether there is a client of the product's own API.
    pub(crate) has_api: bool,
}

impl AbilitySource<'_> {
    /// What is known of an ability without asking.
    pub(crate) fn get(self, ability: Ability) -> KnownAbility {
        let facts = facts(self.product);
        match ability {
            Ability::Pull | Ability::Push | Ability::List => known(Possibility::Yes, ""),
            Ability::Create => self.create(facts.creation),
            Ability::Untag => self.untag(),
            Ability::Delete => self.delete(facts.deletion),
            Ability::Catalog => match self.dialect().capabilities().catalog {
                CatalogSource::Registry => known(Possibility::Yes, facts.catalog),
                CatalogSource::Api | CatalogSource::ApiOrRegistry if self.has_api => {
                    known(Possibility::Api, "")
                }
                CatalogSource::ApiOrRegistry => known(Possibility::Yes, "for administrators"),
                CatalogSource::Api => known(Possibility::No, NO_API),
            },
            Ability::Referrers => facts.referrers,
            Ability::Mounts => facts.mounts,
            Ability::Chunks => match self.dialect().capabilities().chunks {
                Chunks::Any => known(Possibility::Yes, ""),
                Chunks::One | Chunks::AtMost(_) => known(Possibility::Yes, COLLECTED),
            },
        }
    }

    fn dialect(self) -> &'static dyn Dialect {
        dialect(self.product)
    }

    fn create(self, creation: Creation) -> KnownAbility {
        match creation {
            Creation::ByPush(why) => known(Possibility::Yes, why),
            Creation::Never(why) => known(Possibility::No, why),
            Creation::Api if !self.settings.create => known(Possibility::No, "`create` is off"),
            Creation::Api if self.has_api => known(Possibility::Api, ""),
            Creation::Api => known(Possibility::No, NO_API),
        }
    }

    fn untag(self) -> KnownAbility {
        let by_api = self.dialect().capabilities().tag_deletion == Deletion::Api;
        match (self.settings.untag, by_api) {
            (Some(Untag::Off), _) => known(Possibility::No, "`untag` is off"),
            (Some(Untag::Swap), _) => known(Possibility::Swap, "as `untag` says"),
            (_, true) if self.has_api => known(Possibility::Api, ""),
            (None, true) => known(Possibility::Swap, NO_API),
            (Some(Untag::Native), true) => known(Possibility::No, NO_API),
            (None, false) if self.product == Product::Distribution => known(
                Possibility::Yes,
                "by the registry API from version 3 on, else by a swap",
            ),
            (Some(Untag::Native), false) if self.product == Product::Distribution => {
                known(Possibility::Unknown, "version 3 can, older ones cannot")
            }
            (_, false) => known(Possibility::Yes, ""),
        }
    }

    fn delete(self, why: &'static str) -> KnownAbility {
        match self.dialect().capabilities().digest_deletion {
            // No answer but that to a deletion shows it.
            Deletion::Registry if self.product == Product::Distribution => {
                known(Possibility::Unknown, why)
            }
            Deletion::Registry => known(Possibility::Yes, why),
            Deletion::Api if self.has_api => known(Possibility::Api, why),
            Deletion::Api => known(Possibility::No, NO_API),
        }
    }
}

/// What the products do that their dialects need not know.
struct ProductFacts {
    creation: Creation,
    /// On which condition a manifest is deleted.
    deletion: &'static str,
    /// Which repositories the registry lists.
    catalog: &'static str,
    referrers: KnownAbility,
    mounts: KnownAbility,
}

/// How a repository comes to be.
#[derive(Clone, Copy)]
enum Creation {
    /// With the first push to it.
    ByPush(&'static str),
    Api,
    Never(&'static str),
}

fn facts(product: Product) -> ProductFacts {
    match product {
        Product::Acr => ProductFacts::USUAL,
        Product::Distribution => ProductFacts {
            deletion: "if `storage.delete.enabled` is on there",
            referrers: known(Possibility::Unknown, "not before version 3"),
            ..ProductFacts::USUAL
        },
        Product::DockerHub => ProductFacts {
            deletion: "if no tag and no index leads to it",
            ..ProductFacts::USUAL
        },
        Product::Ecr => ProductFacts {
            creation: Creation::Api,
            mounts: known(Possibility::Unknown, BLOB_MOUNTING),
            ..ProductFacts::USUAL
        },
        Product::Gar => ProductFacts {
            creation: Creation::Api,
            deletion: "if no tag leads to it",
            ..ProductFacts::USUAL
        },
        Product::Ghcr => ProductFacts {
            referrers: known(Possibility::No, "clients use tags instead"),
            ..ProductFacts::USUAL
        },
        Product::Gitlab => ProductFacts {
            creation: Creation::Never(NO_PROJECT),
            catalog: "for administrators",
            referrers: known(Possibility::Unknown, "not in every version"),
            ..ProductFacts::USUAL
        },
        Product::Harbor => ProductFacts {
            creation: Creation::Api,
            ..ProductFacts::USUAL
        },
        Product::Quay => ProductFacts {
            catalog: "of what the robot sees",
            ..ProductFacts::USUAL
        },
    }
}

impl ProductFacts {
    const USUAL: Self = Self {
        creation: Creation::ByPush("with the first push"),
        deletion: "",
        catalog: "",
        referrers: known(Possibility::Yes, ""),
        mounts: known(Possibility::Yes, ""),
    };
}

const BLOB_MOUNTING: &str = "if the account setting BLOB_MOUNTING is on; else the blob is uploaded";
const NO_PROJECT: &str = "somebody makes the project; repositories come with the first push";
const NO_API: &str = "only by the product's API, for which moorgate has no credential";
const COLLECTED: &str = "moorgate collects them below `spool`, and sends the blob as one";

/// The rights that the abilities need, in a product's own words; empty where it has no name for one.
struct ProductRights {
    /// To log in at all.
    login: &'static str,
    pull: &'static str,
    push: &'static str,
    create: &'static str,
    untag: &'static str,
    delete: &'static str,
    list: &'static str,
    catalog: &'static str,
}

/// The right that an ability needs at a product, in its own words.
pub(crate) fn right(product: Product, ability: Ability) -> Option<&'static str> {
    let rights = rights(product);
    let right = match ability {
        Ability::Pull => rights.pull,
        Ability::Push => rights.push,
        Ability::Create => rights.create,
        Ability::Untag => rights.untag,
        Ability::Delete => rights.delete,
        Ability::List => rights.list,
        Ability::Catalog => rights.catalog,
        Ability::Referrers => rights.pull,
        Ability::Mounts | Ability::Chunks => rights.push,
    };
    Some(right).filter(|right| !right.is_empty())
}

/// The right without which a product gives no credentials for its registry.
pub(crate) fn login_right(product: Product) -> Option<&'static str> {
    Some(rights(product).login).filter(|right| !right.is_empty())
}

fn rights(product: Product) -> &'static ProductRights {
    match product {
        Product::Acr => &ACR,
        Product::Distribution => &DISTRIBUTION,
        Product::DockerHub => &DOCKER_HUB,
        Product::Ecr => &ECR,
        Product::Gar => &GAR,
        Product::Ghcr => &GHCR,
        Product::Gitlab => &GITLAB,
        Product::Harbor => &HARBOR,
        Product::Quay => &QUAY,
    }
}

/// Registries in the mode "RBAC Registry + ABAC Repository Permissions" do not honour the roles
/// AcrPull, AcrPush and AcrDelete.
const ACR: ProductRights = ProductRights {
    login: "",
    pull: "the role AcrPull, with ABAC the role Container Registry Repository Reader, for a token \
           content/read",
    push: "the role AcrPush, with ABAC the role Container Registry Repository Writer, for a token \
           content/write",
    create: "",
    untag: "the role AcrDelete, with ABAC the role Container Registry Repository Contributor, \
            for a token content/delete",
    delete: "the role AcrDelete, with ABAC the role Container Registry Repository Contributor, \
            for a token content/delete",
    list: "the role AcrPull, with ABAC the role Container Registry Repository Reader, for a token \
           metadata/read",
    catalog: "the role AcrPull, with ABAC the role Container Registry Repository Catalog Lister",
};

const DISTRIBUTION: ProductRights = ProductRights {
    login: "",
    pull: "",
    push: "",
    create: "",
    untag: "",
    delete: "",
    list: "",
    catalog: "",
};

const DOCKER_HUB: ProductRights = ProductRights {
    login: "",
    pull: "a personal access token with Read",
    push: "a personal access token with Read and Write",
    create: "",
    untag: "a personal access token with Read, Write and Delete",
    delete: "a personal access token with Read, Write and Delete",
    list: "a personal access token with Read",
    catalog: "a personal access token with Read",
};

const ECR: ProductRights = ProductRights {
    login: "ecr:GetAuthorizationToken",
    pull: "ecr:BatchGetImage, ecr:GetDownloadUrlForLayer and ecr:BatchCheckLayerAvailability",
    push: "ecr:BatchCheckLayerAvailability, ecr:InitiateLayerUpload, ecr:UploadLayerPart, \
           ecr:CompleteLayerUpload and ecr:PutImage",
    create: "ecr:CreateRepository",
    untag: "ecr:BatchDeleteImage",
    delete: "ecr:BatchDeleteImage",
    list: "ecr:ListImages",
    catalog: "ecr:DescribeRepositories",
};

const GAR: ProductRights = ProductRights {
    login: "",
    pull: "roles/artifactregistry.reader",
    push: "roles/artifactregistry.writer",
    create: "artifactregistry.repositories.create",
    untag: "roles/artifactregistry.repoAdmin",
    delete: "roles/artifactregistry.repoAdmin",
    list: "roles/artifactregistry.reader",
    catalog: "roles/artifactregistry.reader",
};

const GHCR: ProductRights = ProductRights {
    login: "a classic personal access token",
    pull: "the scope read:packages",
    push: "the scope write:packages",
    create: "",
    untag: "the scope delete:packages",
    delete: "the scope delete:packages",
    list: "the scope read:packages",
    catalog: "the scope read:packages",
};

const GITLAB: ProductRights = ProductRights {
    login: "",
    pull: "the scope read_registry",
    push: "the scope write_registry, and the role Developer",
    create: "",
    untag: "the scope api, and the role Developer",
    delete: "the scope api, and the role Developer",
    list: "the scope read_registry",
    catalog: "a token of an administrator",
};

const HARBOR: ProductRights = ProductRights {
    login: "",
    pull: "the robot permission repository: pull",
    push: "the robot permission repository: push",
    create: "the robot permission project: create",
    untag: "the robot permission tag: delete",
    delete: "the robot permission artifact: delete",
    list: "the robot permission repository: pull",
    catalog: "an administrator of Harbor",
};

const QUAY: ProductRights = ProductRights {
    login: "",
    pull: "the robot right Read",
    push: "the robot right Write",
    create: "a team with the role Creator, with the robot in it",
    untag: "the robot right Write",
    delete: "the robot right Write",
    list: "the robot right Read",
    catalog: "the robot right Read",
};

/// A repository whose manifests show how many pulls are left: to ask for one costs none.
pub(crate) fn limit_repository(product: Product) -> Option<&'static str> {
    (product == Product::DockerHub).then_some("ratelimitpreview/test")
}

/// The action that a refusal names: `… not authorized to perform: ecr:ListImages on resource …`.
pub(crate) fn named_right(message: &str) -> Option<&str> {
    let (_, after) = message.split_once("not authorized to perform: ")?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == ':';
    let end = after.find(|c| !is_name(c)).unwrap_or(after.len());
    after.get(..end).filter(|name| name.contains(':'))
}
