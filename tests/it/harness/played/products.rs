//! The nine products by their switches.

use std::time::Duration;

use super::switches::*;

impl Switches {
    /// Docker's registry 2.8, open to everybody.
    pub fn distribution() -> Self {
        Self {
            product: "distribution",
            credentials: PlayedCredentials::default(),
            challenge: PlayedChallenge::None,
            takes_basic: false,
            token_life: Duration::from_mins(5),
            tells_life: true,
            says_rights: false,
            rights: &["pull", "push", "delete", "metadata_read", "metadata_write"],
            denied_action: None,
            refuses_delete_scope: false,
            delete_action: "delete",
            levels: None,
            missing: MissingRepository::Created,
            catalog: PlayedCatalog::Everybody,
            pages: PlayedPages {
                default: 1000,
                max: 1000,
                above: Some(Refused {
                    status: 400,
                    code: "PAGINATION_NUMBER_INVALID",
                    message: "invalid number of results requested",
                }),
            },
            pages_tags: false,
            describes_manifests: false,
            chunks: PlayedChunks::Any,
            checks_ranges: false,
            first_range: "0-0",
            has_upload_state: true,
            tag_deletion: RegistryDeletion::Refused(Refused {
                status: 400,
                code: "DIGEST_INVALID",
                message: "provided digest did not match uploaded content",
            }),
            digest_deletion: RegistryDeletion::Done,
            deletion_guard: DeletionGuard::None,
            has_immutable_tags: false,
            immutable_tag: Refused {
                status: 403,
                code: "DENIED",
                message: "tag {tag} is immutable",
            },
            throttling: PlayedThrottling::Error(TOO_MANY_REQUESTS),
            throttled: 0,
            api_throttled: 0,
            tokens_throttled: 0,
            has_endless_lists: false,
            closed_projects: Vec::new(),
            redirects_blobs: false,
            has_absolute_locations: true,
            tells_digest_of_tag: true,
            checks_accept: true,
            has_referrers: false,
            mounts: true,
            refuses_anonymous_mounts: false,
            location: None,
            realm: None,
            token_redirect: None,
            next_page: None,
            blob_redirect: None,
            manifest_redirect: None,
            api_redirect: None,
        }
    }

    /// What the others have in common: version 3 of the same registry, with pages of tags and the
    /// referrers of OCI 1.1.
    fn recent() -> Self {
        Self {
            pages: PlayedPages {
                above: None,
                ..Self::distribution().pages
            },
            pages_tags: true,
            checks_ranges: true,
            tag_deletion: RegistryDeletion::Done,
            checks_accept: false,
            has_referrers: true,
            ..Self::distribution()
        }
    }

    pub fn acr() -> Self {
        Self {
            product: "acr",
            says_rights: true,
            challenge: PlayedChallenge::Bearer {
                service: "played.azurecr.io",
                path: "/oauth2/token",
                at: RealmServer::Registry,
            },
            takes_basic: true,
            token_life: Duration::from_mins(75),
            tells_life: false,
            pages: PlayedPages {
                default: 100,
                max: 1000,
                above: None,
            },
            has_absolute_locations: false,
            tag_deletion: RegistryDeletion::Refused(UNSUPPORTED),
            immutable_tag: Refused {
                status: 405,
                code: "UNSUPPORTED",
                message: "The operation is disallowed on this registry, repository or image. View \
                          troubleshooting steps at https://aka.ms/acr/faq/",
            },
            redirects_blobs: true,
            throttling: PlayedThrottling::Error(Refused {
                status: 429,
                code: "TOOMANYREQUESTS",
                message: "too many requests",
            }),
            ..Self::recent()
        }
    }

    pub fn dockerhub() -> Self {
        Self {
            product: "dockerhub",
            says_rights: true,
            challenge: PlayedChallenge::Bearer {
                service: "registry.docker.io",
                path: "/token",
                at: RealmServer::Api,
            },
            levels: Some(2),
            catalog: PlayedCatalog::Admins,
            tag_deletion: RegistryDeletion::Refused(UNSUPPORTED),
            deletion_guard: DeletionGuard::TaggedOrReferenced(Refused {
                status: 403,
                code: "DENIED",
                message: "manifest is tagged or referenced",
            }),
            immutable_tag: Refused {
                status: 403,
                code: "DENIED",
                message: "tag {tag} of {name} is immutable and cannot be overwritten",
            },
            throttling: PlayedThrottling::Error(Refused {
                status: 429,
                code: "TOOMANYREQUESTS",
                message: "You have reached your pull rate limit. You may increase the limit by \
                          authenticating and upgrading: https://www.docker.com/increase-rate-limit",
            }),
            redirects_blobs: true,
            ..Self::recent()
        }
    }

    pub fn ecr() -> Self {
        Self {
            product: "ecr",
            challenge: PlayedChallenge::Basic(
                "realm=\"https://played.dkr.ecr.eu-central-1.amazonaws.com/\",\
                 service=\"ecr.amazonaws.com\"",
            ),
            token_life: Duration::from_hours(12),
            missing: MissingRepository::Refused(
                "The repository with name '{name}' does not exist in the registry with id \
                 '123456789012'",
            ),
            pages: PlayedPages {
                default: 1000,
                max: 1000,
                above: Some(Refused {
                    status: 405,
                    code: "UNSUPPORTED",
                    message: "Invalid parameter at 'maxResults' failed to satisfy constraint: \
                              'Member must have value less than or equal to 1000'",
                }),
            },
            chunks: PlayedChunks::First,
            has_upload_state: false,
            tag_deletion: RegistryDeletion::Refused(Refused {
                status: 400,
                ..UNSUPPORTED
            }),
            deletion_guard: DeletionGuard::Referenced(Refused {
                status: 403,
                code: "DENIED",
                message: "The image is referenced by a manifest list",
            }),
            immutable_tag: Refused {
                status: 400,
                code: "TAG_INVALID",
                message: "The image tag '{tag}' already exists in the '{name}' repository and \
                          cannot be overwritten because the repository is immutable.",
            },
            throttling: PlayedThrottling::Error(Refused {
                status: 429,
                code: "TOOMANYREQUESTS",
                message: "Rate exceeded",
            }),
            redirects_blobs: true,
            tells_digest_of_tag: false,
            mounts: false,
            ..Self::recent()
        }
    }

    pub fn gar() -> Self {
        Self {
            product: "gar",
            credentials: PlayedCredentials {
                user: "oauth2accesstoken".to_owned(),
                ..PlayedCredentials::default()
            },
            challenge: PlayedChallenge::Bearer {
                service: "europe-docker.pkg.dev",
                path: "/v2/token",
                at: RealmServer::Registry,
            },
            takes_basic: true,
            token_life: Duration::from_hours(1),
            missing: MissingRepository::RefusedProject {
                levels: 2,
                as_: MissingProject::Unknown,
            },
            pages_tags: false,
            describes_manifests: true,
            chunks: PlayedChunks::None,
            has_upload_state: false,
            has_absolute_locations: false,
            deletion_guard: DeletionGuard::Tagged(Refused {
                status: 400,
                code: "GOOGLE_MANIFEST_DANGLING_TAG",
                message: "Manifest is still referenced by one or more tags",
            }),
            immutable_tag: Refused {
                status: 400,
                code: "DENIED",
                message: "cannot update tag {tag}. The repository has enabled tag immutability",
            },
            throttling: PlayedThrottling::Error(Refused {
                status: 429,
                code: "TOOMANYREQUESTS",
                message: "Quota exceeded for quota metric 'Requests per project per user'",
            }),
            ..Self::recent()
        }
    }

    pub fn ghcr() -> Self {
        Self {
            product: "ghcr",
            challenge: PlayedChallenge::Bearer {
                service: "ghcr.io",
                path: "/token",
                at: RealmServer::Registry,
            },
            tells_life: false,
            catalog: PlayedCatalog::Absent,
            chunks: PlayedChunks::AtMost(4 << 20),
            has_upload_state: false,
            has_absolute_locations: false,
            tag_deletion: RegistryDeletion::Refused(UNSUPPORTED),
            digest_deletion: RegistryDeletion::Refused(UNSUPPORTED),
            redirects_blobs: true,
            checks_accept: true,
            has_referrers: false,
            ..Self::recent()
        }
    }

    pub fn gitlab() -> Self {
        Self {
            product: "gitlab",
            says_rights: true,
            challenge: PlayedChallenge::Bearer {
                service: "container_registry",
                path: "/jwt/auth",
                at: RealmServer::Api,
            },
            tells_life: false,
            missing: MissingRepository::RefusedProject {
                levels: 2,
                as_: MissingProject::NotGranted,
            },
            catalog: PlayedCatalog::Admins,
            throttling: PlayedThrottling::Text("Retry later\n"),
            redirects_blobs: true,
            ..Self::recent()
        }
    }

    pub fn harbor() -> Self {
        Self {
            product: "harbor",
            says_rights: true,
            credentials: PlayedCredentials {
                user: "robot$moorgate".to_owned(),
                ..PlayedCredentials::default()
            },
            challenge: PlayedChallenge::Bearer {
                service: "harbor-registry",
                path: "/service/token",
                at: RealmServer::Registry,
            },
            takes_basic: true,
            token_life: Duration::from_mins(30),
            missing: MissingRepository::RefusedProject {
                levels: 1,
                as_: MissingProject::EmptyChallenge,
            },
            catalog: PlayedCatalog::Admins,
            has_absolute_locations: false,
            tag_deletion: RegistryDeletion::Refused(Refused {
                status: 400,
                code: "UNSUPPORTED",
                message: "deleting tag by registry API is not supported",
            }),
            immutable_tag: Refused {
                status: 412,
                code: "PRECONDITION",
                message: "Failed to process request due to '{name}:{tag}' configured as immutable.",
            },
            throttling: PlayedThrottling::Error(Refused {
                status: 429,
                code: "TOO_MANY_REQUEST",
                message: "too many requests",
            }),
            ..Self::recent()
        }
    }

    pub fn quay() -> Self {
        Self {
            product: "quay",
            says_rights: true,
            credentials: PlayedCredentials {
                user: "acme+robot".to_owned(),
                ..PlayedCredentials::default()
            },
            challenge: PlayedChallenge::Bearer {
                service: "quay.io",
                path: "/v2/auth",
                at: RealmServer::Registry,
            },
            token_life: Duration::from_hours(1),
            tells_life: false,
            refuses_delete_scope: true,
            delete_action: "push",
            catalog: PlayedCatalog::Filtered,
            pages: PlayedPages {
                default: 50,
                max: 100,
                above: None,
            },
            first_range: "bytes=0--1",
            has_upload_state: false,
            immutable_tag: Refused {
                status: 409,
                code: "TAG_IMMUTABLE",
                message: "tag '{tag}' is immutable",
            },
            throttling: PlayedThrottling::Nginx,
            redirects_blobs: true,
            refuses_anonymous_mounts: true,
            ..Self::recent()
        }
    }
}

impl Default for PlayedCredentials {
    fn default() -> Self {
        Self {
            user: "robot".to_owned(),
            password: "upstream-password".to_owned(),
            admin_user: "admin".to_owned(),
            admin_password: "admin-password".to_owned(),
            key_id: "AKIAPLAYED".to_owned(),
            secret_key: "aws-secret-key".to_owned(),
        }
    }
}

const UNSUPPORTED: Refused = Refused {
    status: 405,
    code: "UNSUPPORTED",
    message: "The operation is unsupported.",
};

const TOO_MANY_REQUESTS: Refused = Refused {
    status: 429,
    code: "TOOMANYREQUESTS",
    message: "too many requests",
};
