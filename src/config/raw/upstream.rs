//! The table `[upstream]` of a domain file.

use std::path::PathBuf;
use std::time::Duration;

use super::table::TableReader;
use super::{List, MINUTE, Setting};
use crate::config::secret::RawSecret;
use crate::config::upstream::{Redirects, Untag, UpstreamUrl};
use crate::config::values::{self, DAY, GIB, MIB};
use crate::config::vhost::{LocationForm, MissingContent};
use crate::registry::host::Authority;
use crate::registry::product::Product;

#[derive(Clone, Debug, Default)]
pub(in crate::config) struct RawUpstream {
    /// The only address, or the first of [`Self::urls`].
    pub(in crate::config) url: Setting<UpstreamUrl>,
    pub(in crate::config) urls: List<UpstreamUrl>,
    pub(in crate::config) check: Setting<RawReplicaCheck>,
    pub(in crate::config) directory: Setting<String>,
    pub(in crate::config) gc: Setting<Option<Duration>>,
    pub(in crate::config) gc_grace: Setting<Duration>,
    pub(in crate::config) untagged: Setting<Option<Duration>>,
    pub(in crate::config) missing: Setting<MissingContent>,
    pub(in crate::config) roots: Setting<PathBuf>,
    pub(in crate::config) username: Setting<String>,
    pub(in crate::config) password: Setting<RawSecret>,
    pub(in crate::config) authorization: Setting<RawAuthorization>,
    pub(in crate::config) product: Setting<Option<Product>>,
    pub(in crate::config) create: Setting<bool>,
    pub(in crate::config) untag: Setting<Untag>,
    pub(in crate::config) api: Setting<UpstreamUrl>,
    pub(in crate::config) hosts: List<Authority>,
    pub(in crate::config) spool: Setting<u64>,
    pub(in crate::config) login: Setting<RawLogin>,
    pub(in crate::config) admin: Setting<RawAdminLogin>,
    pub(in crate::config) map: List<RawNameRule>,
    pub(in crate::config) redirects: Setting<Redirects>,
    pub(in crate::config) follow_hosts: List<Authority>,
    pub(in crate::config) locations: Setting<LocationForm>,
}

/// `[upstream.check]`
#[derive(Clone, Debug, Default)]
pub(in crate::config) struct RawReplicaCheck {
    pub(in crate::config) interval: Setting<Duration>,
    pub(in crate::config) path: Setting<String>,
}

/// What is done with the client's `Authorization`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum RawAuthorization {
    Strip,
    Pass,
}

/// `[upstream.login]`
#[derive(Clone, Debug, Default)]
pub(in crate::config) struct RawLogin {
    pub(in crate::config) username: Setting<String>,
    pub(in crate::config) password: Setting<RawSecret>,
    pub(in crate::config) access_key_id: Setting<RawSecret>,
    pub(in crate::config) secret_access_key: Setting<RawSecret>,
    pub(in crate::config) session_token: Setting<RawSecret>,
    pub(in crate::config) profile: Setting<String>,
    pub(in crate::config) credentials_file: Setting<PathBuf>,
    pub(in crate::config) role: Setting<String>,
    pub(in crate::config) web_identity_token_file: Setting<PathBuf>,
    pub(in crate::config) instance_role: Setting<bool>,
    pub(in crate::config) region: Setting<String>,
    pub(in crate::config) tenant: Setting<String>,
    pub(in crate::config) client_id: Setting<String>,
    pub(in crate::config) client_secret: Setting<RawSecret>,
    pub(in crate::config) service_account: Setting<RawSecret>,
    pub(in crate::config) metadata_server: Setting<bool>,
    pub(in crate::config) endpoint: Setting<UpstreamUrl>,
}

/// `[upstream.admin]`
#[derive(Clone, Debug, Default)]
pub(in crate::config) struct RawAdminLogin {
    pub(in crate::config) username: Setting<String>,
    pub(in crate::config) password: Setting<RawSecret>,
    pub(in crate::config) token: Setting<RawSecret>,
}

/// `[[upstream.map]]`
#[derive(Clone, Debug, Default)]
pub(in crate::config) struct RawNameRule {
    pub(in crate::config) prefix: Setting<String>,
    pub(in crate::config) to: Setting<String>,
    pub(in crate::config) flatten: Setting<String>,
}

impl RawUpstream {
    /// The secrets of the table, with the names of their keys.
    pub(in crate::config) fn secrets(&self) -> Vec<(&'static str, &Setting<RawSecret>)> {
        let mut secrets = vec![("upstream.password", &self.password)];
        if let Some(login) = self.login.given() {
            secrets.extend([
                ("upstream.login.password", &login.password),
                ("upstream.login.access_key_id", &login.access_key_id),
                ("upstream.login.secret_access_key", &login.secret_access_key),
                ("upstream.login.session_token", &login.session_token),
                ("upstream.login.client_secret", &login.client_secret),
            ]);
        }
        if let Some(admin) = self.admin.given() {
            secrets.extend([
                ("upstream.admin.password", &admin.password),
                ("upstream.admin.token", &admin.token),
            ]);
        }
        secrets
    }
}

pub(super) fn upstream(table: &mut TableReader<'_>) -> RawUpstream {
    let mut raw = of_registry(table);
    // Whatever is about an address is about the first one.
    let first = raw.urls.given().and_then(|urls| urls.first());
    if let (Setting::Absent, Some(first)) = (&raw.url, first) {
        raw.url = Setting::Given(first.get_ref().clone(), first.span());
    }
    raw
}

fn of_registry(table: &mut TableReader<'_>) -> RawUpstream {
    RawUpstream {
        url: table.value("url", values::upstream_url),
        urls: table.list("urls", values::upstream_url),
        check: table.inner("check", "upstream.check", |table| RawReplicaCheck {
            interval: table.value("interval", |value| values::duration(value, DAY)),
            path: table.value("path", check_path),
        }),
        roots: table.value("roots", values::path),
        username: table.value("username", values::username),
        password: table.value("password", values::secret),
        authorization: table.value("authorization", |value| {
            values::choice(
                value,
                &[
                    ("strip", RawAuthorization::Strip),
                    ("pass", RawAuthorization::Pass),
                ],
            )
        }),
        redirects: table.value("redirects", |value| {
            values::choice(
                value,
                &[("pass", Redirects::Pass), ("follow", Redirects::Follow)],
            )
        }),
        follow_hosts: table.list("follow_hosts", values::follow_host),
        locations: table.value("locations", |value| {
            values::choice(
                value,
                &[
                    ("absolute", LocationForm::Absolute),
                    ("relative", LocationForm::Relative),
                ],
            )
        }),
        ..of_product(table)
    }
}

fn check_path(value: &toml::de::DeValue<'_>) -> Result<String, values::InvalidValue> {
    let help = "write a path of the registry: \"/v2/\"";
    let path = values::text(value, help)?;
    let is_path = path.starts_with('/')
        && path
            .parse::<http::uri::PathAndQuery>()
            .is_ok_and(|parsed| parsed == *path);
    match is_path {
        true => Ok(path.to_owned()),
        false => Err(values::InvalidValue::new("is no path", help)),
    }
}

/// The keys about the product of an existing registry.
fn of_product(table: &mut TableReader<'_>) -> RawUpstream {
    RawUpstream {
        product: table.value("product", |value| {
            let named = Product::ALL.map(|product| (product.as_str(), Some(product)));
            let choices: Vec<_> = [("auto", None)].into_iter().chain(named).collect();
            values::choice(value, &choices)
        }),
        create: table.value("create", values::flag),
        untag: table.value("untag", |value| {
            values::choice(
                value,
                &[
                    ("native", Untag::Native),
                    ("swap", Untag::Swap),
                    ("off", Untag::Off),
                ],
            )
        }),
        api: table.value("api", values::upstream_url),
        hosts: table.list("hosts", values::follow_host),
        spool: table.value("spool", |value| values::size(value, MIB, 64 * 1024 * GIB)),
        login: table.inner("login", "upstream.login", login),
        admin: table.inner("admin", "upstream.admin", |table| RawAdminLogin {
            username: table.value("username", values::username),
            password: table.value("password", values::secret),
            token: table.value("token", values::secret),
        }),
        map: table.inner_list("map", "upstream.map", |table| RawNameRule {
            prefix: table.value("prefix", |value| name_text(value, "\"ci/\"")),
            to: table.value("to", |value| name_text(value, "\"acme/ci-\"")),
            flatten: table.value("flatten", |value| name_text(value, "\"--\"")),
        }),
        ..of_store(table)
    }
}

/// The keys of moorgate's own registry.
fn of_store(table: &mut TableReader<'_>) -> RawUpstream {
    RawUpstream {
        directory: table.value("directory", values::store_name),
        gc: table.value("gc", |value| {
            values::duration_or_never(value, MINUTE, 365 * DAY)
        }),
        gc_grace: table.value("gc_grace", |value| {
            values::long_duration(value, MIN_GRACE, 365 * DAY)
        }),
        untagged: table.value("untagged", |value| {
            values::duration_or_never(value, MIN_UNTAGGED, 3650 * DAY)
        }),
        missing: table.value("missing", |value| {
            values::choice(
                value,
                &[
                    ("refuse", MissingContent::Refuse),
                    ("allow", MissingContent::Allow),
                ],
            )
        }),
        ..RawUpstream::default()
    }
}

fn login(table: &mut TableReader<'_>) -> RawLogin {
    RawLogin {
        username: table.value("username", values::username),
        password: table.value("password", values::secret),
        access_key_id: table.value("access_key_id", values::secret),
        secret_access_key: table.value("secret_access_key", values::secret),
        session_token: table.value("session_token", values::secret),
        profile: table.value("profile", values::given_name),
        credentials_file: table.value("credentials_file", values::path),
        role: table.value("role", values::given_name),
        web_identity_token_file: table.value("web_identity_token_file", values::path),
        instance_role: table.value("instance_role", values::flag),
        region: table.value("region", values::region),
        tenant: table.value("tenant", values::given_name),
        client_id: table.value("client_id", values::given_name),
        client_secret: table.value("client_secret", values::secret),
        service_account: table.value("service_account", values::secret),
        metadata_server: table.value("metadata_server", values::flag),
        endpoint: table.value("endpoint", values::upstream_url),
    }
}

/// A part of repository names. What is wrong with it is told where all rules are known.
fn name_text(value: &toml::de::DeValue<'_>, example: &str) -> Result<String, values::InvalidValue> {
    let help = format!("write a part of repository names in quotes, like {example}");
    values::text(value, &help).map(str::to_owned)
}

/// A push must have ended before its blobs count as garbage, and times of use are an hour coarse.
const MIN_GRACE: Duration = Duration::from_secs(2 * 3600);
/// Something that runs once a day, such as a nightly job that pulls by digest, has pulled by then.
const MIN_UNTAGGED: Duration = DAY;
