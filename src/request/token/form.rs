//! Parses token requests: the query of a GET, or the form of a POST (RFC 6749 §4.3, §6).

use std::borrow::Cow;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, Method, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use secrecy::zeroize::Zeroizing;

use crate::auth::basic::Credentials;
use crate::registry::call::pairs;
use crate::registry::host::Authority;
use crate::registry::scope::Scope;
use crate::request::admit;
use crate::request::conn_info::{ConnInfo, FormPermit};
use crate::request::rejection::{OauthError, RefusalReason, Rejection};
use crate::request::site::Site;
use crate::upstream::client_body::ClientBody;

/// A request for a token.
pub(super) struct TokenRequest {
    pub(super) presented: PresentedCredentials,
    /// Valid scopes that are separated by spaces: parsed ones would take several times the memory
    /// while the password is checked.
    pub(super) scopes: String,
    /// The `client_id`.
    pub(super) client: String,
    /// Whether the client requests a refresh token.
    pub(super) offline: bool,
    /// Counts its memory while it is answered.
    _permit: FormPermit,
}

/// The credentials that a client presents.
pub(super) enum PresentedCredentials {
    None,
    Password(Credentials),
    Refresh(Zeroizing<String>),
}

/// Reads the request.
///
/// Errors: 400 for a malformed request, 401 for malformed credentials, 405 for other methods, 408
/// and 413 for a form that does not arrive or is too long.
pub(super) async fn read(
    site: &Site,
    conn: &ConnInfo,
    parts: &Parts,
    body: ClientBody,
) -> Result<TokenRequest, Rejection> {
    match parts.method {
        Method::GET => {
            let length = parts.uri.query().unwrap_or_default().len();
            let permit = tokio::time::timeout(FORM_TIMEOUT, conn.form_permit(length)).await;
            let permit = permit.map_err(|_| Rejection::form_stalled())?;
            from_query(site, parts, permit)
        }
        Method::POST => {
            // Rejects two Authorization headers, although forms carry the credentials.
            admit::authorization(&parts.headers)?;
            if !is_form(&parts.headers) {
                return Err(invalid(
                    "the Content-Type is not application/x-www-form-urlencoded",
                ));
            }
            let (form, permit) = read_form(conn, &parts.headers, body).await?;
            let form = std::str::from_utf8(&form).map_err(|_| invalid("the form is not text"))?;
            from_form(site, form, permit)
        }
        _ => Err(Rejection::method_not_allowed("GET, POST")),
    }
}

fn from_query(site: &Site, parts: &Parts, permit: FormPermit) -> Result<TokenRequest, Rejection> {
    let fields = Fields::parse(parts.uri.query().unwrap_or_default())?;
    let presented = match admit::credentials(site, &parts.headers)? {
        Some(credentials)
            if fields
                .account
                .as_deref()
                .is_some_and(|account| account != credentials.user()) =>
        {
            return Err(invalid(
                "`account` is not the user of the Authorization header",
            ));
        }
        Some(credentials) => PresentedCredentials::Password(credentials),
        None if fields.account.is_some() => {
            return Err(Rejection::unauthorized(site, "log in to use this registry"));
        }
        None => PresentedCredentials::None,
    };
    let offline = matches!(fields.offline_token.as_deref(), Some("true" | "1"));
    fields.into_request(site, presented, offline, permit)
}

fn from_form(site: &Site, form: &str, permit: FormPermit) -> Result<TokenRequest, Rejection> {
    let fields = Fields::parse(form)?;
    let unauthorized = |message| Rejection::unauthorized(site, message);
    let presented = match fields.grant_type.as_deref() {
        Some("password") => {
            let (Some(user), Some(password)) = (&fields.username, &fields.password) else {
                return Err(invalid(
                    "`username` and `password` are needed for this `grant_type`",
                ));
            };
            let credentials = Credentials::new(user, password).ok_or_else(|| {
                unauthorized("user name and password cannot be read: log in again")
                    .because(RefusalReason::UnusableCredentials)
            })?;
            if credentials.is_empty() {
                PresentedCredentials::None
            } else {
                PresentedCredentials::Password(credentials)
            }
        }
        Some("refresh_token") => match &fields.refresh_token {
            Some(token) => PresentedCredentials::Refresh(Zeroizing::new(token.to_string())),
            None => return Err(invalid("`refresh_token` is missing")),
        },
        Some(_) => {
            let message = "`grant_type` is neither password nor refresh_token";
            return Err(Rejection::oauth(OauthError::UnsupportedGrantType, message));
        }
        None => return Err(invalid("`grant_type` is missing")),
    };
    let offline = fields.access_type.as_deref() == Some("offline");
    fields.into_request(site, presented, offline, permit)
}

/// The supported fields; others are ignored. An empty one counts as missing.
#[derive(Default)]
struct Fields<'a> {
    service: Option<Cow<'a, str>>,
    scopes: Vec<Cow<'a, str>>,
    account: Option<Cow<'a, str>>,
    client_id: Option<Cow<'a, str>>,
    offline_token: Option<Cow<'a, str>>,
    grant_type: Option<Cow<'a, str>>,
    username: Option<Cow<'a, str>>,
    password: Option<Cow<'a, str>>,
    refresh_token: Option<Cow<'a, str>>,
    access_type: Option<Cow<'a, str>>,
}

impl<'a> Fields<'a> {
    fn parse(text: &'a str) -> Result<Self, Rejection> {
        let mut fields = Self::default();
        for pair in pairs(text) {
            let (name, value) =
                pair.map_err(|_| invalid("the parameters are not encoded as they must be"))?;
            let field = match &*name {
                "service" => &mut fields.service,
                "account" => &mut fields.account,
                "client_id" => &mut fields.client_id,
                "offline_token" => &mut fields.offline_token,
                "grant_type" => &mut fields.grant_type,
                "username" => &mut fields.username,
                "password" => &mut fields.password,
                "refresh_token" => &mut fields.refresh_token,
                "access_type" => &mut fields.access_type,
                "scope" => {
                    fields.scopes.push(value);
                    continue;
                }
                _ => continue,
            };
            // RFC 6749 §3.2.
            if field.is_some() {
                return Err(invalid("a parameter is given more than once"));
            }
            // An empty password is a wrong one, not a missing one.
            *field = Some(value)
                .filter(|value| !value.is_empty() || name == "password" || name == "username");
        }
        Ok(fields)
    }

    fn into_request(
        self,
        site: &Site,
        presented: PresentedCredentials,
        offline: bool,
        permit: FormPermit,
    ) -> Result<TokenRequest, Rejection> {
        if let Some(service) = &self.service {
            let is_ours =
                Authority::parse(service).is_ok_and(|service| site.host.is_named(&service.host));
            if !is_ours {
                return Err(invalid("`service` is another registry's"));
            }
        }
        let scopes = self.scopes.join(" ");
        for scope in split_scopes(&scopes) {
            Scope::parse(scope)
                .map_err(|e| Rejection::oauth(OauthError::InvalidScope, e.to_string()))?;
        }
        Ok(TokenRequest {
            presented,
            scopes,
            client: self.client_id.unwrap_or_default().into_owned(),
            offline,
            _permit: permit,
        })
    }
}

/// The scopes of a text (RFC 6749 §3.3).
pub(super) fn split_scopes(text: &str) -> impl Iterator<Item = &str> {
    text.split(' ').filter(|scope| !scope.is_empty())
}

fn is_form(headers: &HeaderMap) -> bool {
    let Some(value) = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
    else {
        return false;
    };
    let kind = value.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

async fn read_form(
    conn: &ConnInfo,
    headers: &HeaderMap,
    body: ClientBody,
) -> Result<(Zeroizing<Vec<u8>>, FormPermit), Rejection> {
    let too_large = || Rejection::body_too_large(MAX_FORM_BYTES as u64);
    let length = headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    let length = length.unwrap_or(MAX_FORM_BYTES);
    if length > MAX_FORM_BYTES {
        return Err(too_large());
    }
    let collected = async {
        let mut permit = conn.form_permit(length).await;
        let mut body = Limited::new(body, MAX_FORM_BYTES);
        // Of its final size if it is known, so that no copy of a password stays behind.
        let mut form = Zeroizing::new(Vec::with_capacity(length));
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                if error.is::<LengthLimitError>() {
                    too_large()
                } else {
                    invalid("the form ended early")
                }
            })?;
            form.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        }
        permit.shrink(form.len());
        Ok((form, permit))
    };
    tokio::time::timeout(FORM_TIMEOUT, collected)
        .await
        .unwrap_or_else(|_| Err(Rejection::form_stalled()))
}

fn invalid(message: &'static str) -> Rejection {
    Rejection::oauth(OauthError::InvalidRequest, message)
}

/// Scopes for 800 repositories with names of 50 characters: what a tool requests that mirrors a
/// whole catalog. Nothing else bounds their number.
const MAX_FORM_BYTES: usize = 64 << 10;
/// From the head of the request to the end of the form.
const FORM_TIMEOUT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(text: &str) -> String {
        text.bytes().map(|byte| format!("%{byte:02X}")).collect()
    }

    proptest! {
        #[test]
        fn the_fields_of_a_form_are_parsed(
            username in prop::option::of("[a-z &=+%:é]{1,12}"),
            password in prop::option::of("[ -~]{0,12}"),
            scopes in prop::collection::vec("[a-z:/ ]{0,12}", 0..4),
            other in "[a-z]{0,3}",
        ) {
            let field = |name: &str, value: &str| format!("{}={}", encoded(name), encoded(value));
            let mut written: Vec<_> = scopes.iter().map(|scope| field("scope", scope)).collect();
            written.extend(username.as_ref().map(|name| field("username", name)));
            written.extend(password.as_ref().map(|password| field("password", password)));
            written.push(field(&format!("x{other}"), &other));
            let form = written.join("&");
            let Ok(fields) = Fields::parse(&form) else { return Err(TestCaseError::fail("not read")) };
            prop_assert_eq!(fields.username.as_deref(), username.as_deref());
            prop_assert_eq!(fields.password.as_deref(), password.as_deref());
            prop_assert_eq!(&fields.scopes, &scopes);
            prop_assert!(fields.service.is_none() && fields.grant_type.is_none() && fields.refresh_token.is_none());
            if let Some(name) = &username {
                let twice = [form.as_str(), "&", field("username", name).as_str()].concat();
                prop_assert!(Fields::parse(&twice).is_err());
            }
        }

        #[test]
        fn nothing_panics(form in "\\PC{0,40}|([a-z_=&%;+]|scope=|password=){0,12}") {
            let _ = Fields::parse(&form);
        }
    }
}
