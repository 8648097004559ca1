//! moorgate's own credentials for an upstream: which kind they are, and that they are whole.

use std::path::PathBuf;

use super::super::DomainFile;
use crate::config::problem::{Problem, Problems};
use crate::config::raw::{RawLogin, RawUpstream, Setting};
use crate::config::secret::{RawSecret, SecretSource};
use crate::config::source::Span;
use crate::config::upstream::{AdminLogin, AwsKeys, LoginKind, LoginSettings};
use crate::registry::product::Product;

/// A user name and its password, in one table.
pub(super) struct NameAndPassword<'a> {
    pub(super) table: &'static str,
    pub(super) username: &'a Setting<String>,
    pub(super) password: &'a Setting<RawSecret>,
}

/// The credentials of `[upstream.login]`: exactly one kind, and one that the product takes.
pub(super) fn login(
    file: &DomainFile,
    (raw, header): (&RawLogin, &Span),
    product: Option<Product>,
    problems: &mut Problems,
) -> Option<LoginSettings> {
    let kinds = Kind::ALL.map(|kind| (kind, kind.is_begun(raw)));
    let mut begun = kinds
        .iter()
        .filter(|(_, is_begun)| *is_begun)
        .map(|(kind, _)| *kind);
    let mut report = |message: String, help: &str| {
        problems.push(Problem::at(&file.source, header, message, help));
    };
    let (kind, other) = (begun.next(), begun.next());
    let Some(kind) = kind else {
        let message = "`[upstream.login]` names no credentials";
        report(
            message.to_owned(),
            "write username and password, or what docs/upstreams.md has for the product",
        );
        return None;
    };
    if let Some(other) = other {
        let message = format!("`[upstream.login]` holds {kind} and {other}");
        report(message, "leave one of the two out");
        return None;
    }
    if let Some(product) = product.filter(|product| !kind.fits(*product)) {
        let message = format!(
            "`[upstream.login]` holds {kind}, which the product \"{}\" does not take",
            product.as_str()
        );
        report(message, "write what docs/upstreams.md has for the product");
        return None;
    }
    Some(LoginSettings {
        kind: kind.read(file, (raw, header), problems)?,
        endpoint: raw.endpoint.given().cloned(),
        region: raw.region.given().cloned(),
    })
}

/// The kinds of credentials, as the keys tell them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Password,
    AwsStatic,
    AwsProfile,
    AwsWebIdentity,
    AwsInstanceRole,
    Entra,
    ServiceAccount,
    MetadataServer,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Password => "`username` and `password`",
            Self::AwsStatic => "`access_key_id` and `secret_access_key`",
            Self::AwsProfile => "`profile`",
            Self::AwsWebIdentity => "`role` and `web_identity_token_file`",
            Self::AwsInstanceRole => "`instance_role`",
            Self::Entra => "`tenant`, `client_id` and `client_secret`",
            Self::ServiceAccount => "`service_account`",
            Self::MetadataServer => "`metadata_server`",
        })
    }
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Password,
        Self::AwsStatic,
        Self::AwsProfile,
        Self::AwsWebIdentity,
        Self::AwsInstanceRole,
        Self::Entra,
        Self::ServiceAccount,
        Self::MetadataServer,
    ];

    /// Whether a key of it is there.
    fn is_begun(self, raw: &RawLogin) -> bool {
        let is_absent = match self {
            Self::Password => raw.username.is_absent() && raw.password.is_absent(),
            Self::AwsStatic => {
                raw.access_key_id.is_absent()
                    && raw.secret_access_key.is_absent()
                    && raw.session_token.is_absent()
            }
            Self::AwsProfile => raw.profile.is_absent() && raw.credentials_file.is_absent(),
            Self::AwsWebIdentity => raw.role.is_absent() && raw.web_identity_token_file.is_absent(),
            Self::AwsInstanceRole => raw.instance_role.is_absent(),
            Self::Entra => {
                raw.tenant.is_absent() && raw.client_id.is_absent() && raw.client_secret.is_absent()
            }
            Self::ServiceAccount => raw.service_account.is_absent(),
            Self::MetadataServer => raw.metadata_server.is_absent(),
        };
        !is_absent
    }

    fn fits(self, product: Product) -> bool {
        match self {
            Self::Password => product != Product::Ecr,
            Self::AwsStatic | Self::AwsProfile | Self::AwsWebIdentity | Self::AwsInstanceRole => {
                product == Product::Ecr
            }
            Self::Entra => product == Product::Acr,
            Self::ServiceAccount | Self::MetadataServer => product == Product::Gar,
        }
    }

    /// Whether the API of its product takes these credentials only: keys that sign each request, or
    /// tokens that are obtained for a while.
    fn is_needed_by_api(self) -> bool {
        match self {
            Self::Password | Self::Entra => false,
            Self::AwsStatic
            | Self::AwsProfile
            | Self::AwsWebIdentity
            | Self::AwsInstanceRole
            | Self::ServiceAccount
            | Self::MetadataServer => true,
        }
    }

    fn read(
        self,
        file: &DomainFile,
        (raw, header): (&RawLogin, &Span),
        problems: &mut Problems,
    ) -> Option<LoginKind> {
        let mut keys = LoginKeys {
            file,
            header,
            problems,
        };
        Some(match self {
            Self::Password => {
                let pair = NameAndPassword {
                    table: "upstream.login",
                    username: &raw.username,
                    password: &raw.password,
                };
                password(file, &pair, problems)?
            }
            Self::AwsStatic | Self::AwsProfile | Self::AwsWebIdentity | Self::AwsInstanceRole => {
                LoginKind::Aws {
                    keys: keys.aws(self, raw)?,
                }
            }
            Self::Entra => LoginKind::Entra {
                tenant: keys.given("tenant", &raw.tenant)?.clone(),
                client_id: keys.given("client_id", &raw.client_id)?.clone(),
                client_secret: keys.secret("client_secret", &raw.client_secret)?,
            },
            Self::ServiceAccount => LoginKind::ServiceAccount {
                key: keys.secret("service_account", &raw.service_account)?,
            },
            Self::MetadataServer => {
                keys.is_true("metadata_server", &raw.metadata_server)?;
                LoginKind::MetadataServer
            }
        })
    }
}

/// Reads the keys that one kind needs.
struct LoginKeys<'a> {
    file: &'a DomainFile,
    header: &'a Span,
    problems: &'a mut Problems,
}

impl LoginKeys<'_> {
    /// The keys of AWS, of the kind that they are; no others have any.
    fn aws(&mut self, kind: Kind, raw: &RawLogin) -> Option<AwsKeys> {
        let beside = |path: &PathBuf| self.file.source.beside(path);
        match kind {
            Kind::AwsStatic => Some(AwsKeys::Static {
                session_token: raw
                    .session_token
                    .given()
                    .map(|token| source(self.file, token)),
                access_key_id: self.secret("access_key_id", &raw.access_key_id)?,
                secret_access_key: self.secret("secret_access_key", &raw.secret_access_key)?,
            }),
            Kind::AwsProfile => Some(AwsKeys::Profile {
                file: raw.credentials_file.given().map(beside),
                name: self.given("profile", &raw.profile)?.clone(),
            }),
            Kind::AwsWebIdentity => Some(AwsKeys::WebIdentity {
                role: self.given("role", &raw.role)?.clone(),
                token_file: self.path("web_identity_token_file", &raw.web_identity_token_file)?,
            }),
            Kind::AwsInstanceRole => {
                self.is_true("instance_role", &raw.instance_role)?;
                Some(AwsKeys::InstanceRole)
            }
            Kind::Password | Kind::Entra | Kind::ServiceAccount | Kind::MetadataServer => None,
        }
    }

    fn given<'s, T>(&mut self, key: &str, setting: &'s Setting<T>) -> Option<&'s T> {
        if setting.is_absent() {
            let message = format!("`upstream.login.{key}` is missing");
            let help = "write it beside the other keys of these credentials";
            self.problems
                .push(Problem::at(&self.file.source, self.header, message, help));
        }
        setting.given()
    }

    fn secret(&mut self, key: &str, setting: &Setting<RawSecret>) -> Option<SecretSource> {
        let secret = self.given(key, setting)?;
        Some(source(self.file, secret))
    }

    fn path(&mut self, key: &str, setting: &Setting<PathBuf>) -> Option<PathBuf> {
        let path = self.given(key, setting)?;
        Some(self.file.source.beside(path))
    }

    fn is_true(&mut self, key: &str, setting: &Setting<bool>) -> Option<()> {
        let Setting::Given(value, span) = setting else {
            return None;
        };
        if !value {
            let message = format!("`upstream.login.{key} = false` names no credentials");
            let help = "leave the table out for none";
            self.problems
                .push(Problem::at(&self.file.source, span, message, help));
        }
        value.then_some(())
    }
}

/// A user name with its password.
pub(super) fn password(
    file: &DomainFile,
    pair: &NameAndPassword<'_>,
    problems: &mut Problems,
) -> Option<LoginKind> {
    let (username, password) = both(file, pair, problems)?;
    Some(LoginKind::Password { username, password })
}

/// The second credentials; the inner value is `None` where there are none.
pub(super) fn admin(
    file: &DomainFile,
    raw: &RawUpstream,
    problems: &mut Problems,
) -> Option<Option<AdminLogin>> {
    let Setting::Given(admin, header) = &raw.admin else {
        return matches!(raw.admin, Setting::Absent).then_some(None);
    };
    let pair = NameAndPassword {
        table: "upstream.admin",
        username: &admin.username,
        password: &admin.password,
    };
    let has_password = !(admin.username.is_absent() && admin.password.is_absent());
    if let Some(taken) = api_credential(raw) {
        let message =
            format!("`[upstream.admin]` cannot stand beside {taken}: the API takes no other");
        let help = "leave it out, and give the credentials of `[upstream.login]` the rights to delete and create";
        problems.push(Problem::at(&file.source, header, message, help));
        return None;
    }
    if admin.token.is_absent() != has_password {
        let message = "`[upstream.admin]` needs `token`, or `username` and `password`";
        problems.push(Problem::at(
            &file.source,
            header,
            message,
            "write one of the two",
        ));
        return None;
    }
    if has_password {
        let (username, password) = both(file, &pair, problems)?;
        return Some(Some(AdminLogin::Password { username, password }));
    }
    Some(Some(AdminLogin::Token(source(file, admin.token.given()?))))
}

/// What the product's own API takes nothing else than. A password or token in its place would be a
/// header that the API refuses.
fn api_credential(raw: &RawUpstream) -> Option<String> {
    if let Setting::Given(login, _) = &raw.login
        && let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.is_begun(login))
    {
        return kind.is_needed_by_api().then(|| kind.to_string());
    }
    let host = || raw.url.given().and_then(|url| Product::of_host(&url.host));
    let product = raw.product.or(None).or_else(host);
    (product == Some(Product::Ecr))
        .then(|| "the product \"ecr\", whose requests keys sign".to_owned())
}

fn both(
    file: &DomainFile,
    NameAndPassword {
        table,
        username,
        password,
    }: &NameAndPassword<'_>,
    problems: &mut Problems,
) -> Option<(String, SecretSource)> {
    if let Some(span) = username.span().filter(|_| password.is_absent()) {
        let help = format!("write password = {{ file = \"PATH\" }} in [{table}]");
        let message = format!("`{table}.username` has no `password`");
        problems.push(Problem::at(&file.source, span, message, help));
    }
    if let Some(span) = password.span().filter(|_| username.is_absent()) {
        let help = format!("write username = \"NAME\" in [{table}]");
        let message = format!("`{table}.password` has no `username`");
        problems.push(Problem::at(&file.source, span, message, help));
    }
    Some((username.given()?.clone(), source(file, password.given()?)))
}

fn source(file: &DomainFile, secret: &RawSecret) -> SecretSource {
    secret.source(|path| file.source.beside(path))
}
