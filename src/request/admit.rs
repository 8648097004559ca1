//! Reads the credentials of a request and applies the limits on failed logins. The last step that
//! costs no password hash.

use http::{HeaderMap, HeaderValue, header};

use super::conn_info::ConnInfo;
use super::rejection::{RefusalReason, Rejection};
use super::site::Site;
use crate::auth::UserName;
use crate::auth::basic::{self, BasicError, Credentials};
use crate::auth::lockout::{Logged, TooManyFailures};
use crate::auth::verify::{Login, LoginAdmission, Verifier, VerifyError};
use crate::config::snapshot::FailureBudgets;

/// Admits users whose password is cached, and those with tries left to the check of the password.
///
/// Errors: 401 with the challenge for no credentials, another scheme, or a known wrong password;
/// 400 for two Authorization headers, of which the upstream might read the other one; 429 after too
/// many wrong passwords, whether or not the user exists.
pub(crate) fn admit(
    verifier: &Verifier,
    site: &Site,
    conn: &ConnInfo,
    budgets: &FailureBudgets,
    headers: &HeaderMap,
) -> Result<LoginAdmission, Rejection> {
    let credentials = credentials(site, headers)?
        .ok_or_else(|| Rejection::unauthorized(site, "log in to use this registry"))?;
    login(verifier, site, conn, budgets, &credentials)
}

/// As [`admit`], for credentials that have been read.
pub(crate) fn login(
    verifier: &Verifier,
    site: &Site,
    conn: &ConnInfo,
    budgets: &FailureBudgets,
    credentials: &Credentials,
) -> Result<LoginAdmission, Rejection> {
    let users = site.users.current();
    let domain = site.host.domain.as_str();
    let client = conn.client_address();
    let login = Login {
        domain,
        users: &users,
        credentials,
        client,
        budgets,
    };
    verifier.admit(&login).map_err(|error| {
        if let VerifyError::Refused(refused) = &error {
            // An unknown name may be a password typed into the wrong field.
            let user = users.claim(credentials.user()).user.map(UserName::as_str);
            log(refused, site, conn, user);
        }
        rejection(error, site).of_login(&error, login.claimed_name())
    })
}

/// The rejection of a login.
pub(crate) fn rejection(error: VerifyError, site: &Site) -> Rejection {
    match error {
        VerifyError::WrongPassword => Rejection::unauthorized(site, "wrong user name or password"),
        VerifyError::Refused(refused) => Rejection::too_many_failures(refused.retry_after),
        VerifyError::Overloaded => Rejection::overloaded(),
    }
}

/// The Basic credentials of a request, if it has any.
pub(crate) fn credentials(
    site: &Site,
    headers: &HeaderMap,
) -> Result<Option<Credentials>, Rejection> {
    let Some(value) = authorization(headers)? else {
        return Ok(None);
    };
    let credentials = basic::parse(value.as_bytes()).map_err(|error| {
        let message = match error {
            BasicError::NotBasic => "log in with user and password: only Basic is accepted here",
            BasicError::Malformed => "the Authorization header cannot be read: log in again",
        };
        Rejection::unauthorized(site, message).because(RefusalReason::UnusableCredentials)
    })?;
    // skopeo, podman and buildah send an empty pair if they have no credentials.
    Ok(Some(credentials).filter(|credentials| !credentials.is_empty()))
}

/// The only `Authorization` of a request.
///
/// Errors: 400 for two of them, since the upstream might read the other one.
pub(crate) fn authorization(headers: &HeaderMap) -> Result<Option<&HeaderValue>, Rejection> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let first = all.next();
    if all.next().is_some() {
        return Err(Rejection::bad_request(
            "the request has two Authorization headers",
        ));
    }
    Ok(first)
}

/// Logs a refused login, once a minute for each address or user.
pub(crate) fn log(refused: &TooManyFailures, site: &Site, conn: &ConnInfo, user: Option<&str>) {
    let Logged::Yes { left_out } = refused.logged else {
        return;
    };
    let domain = site.host.domain.as_str();
    let retry_after_s = refused.retry_after.as_secs();
    let of = refused.limit.as_str();
    let client = conn.client_address();
    tracing::warn!(domain, %client, user, of, retry_after_s, "too many wrong passwords: logins are refused");
    if left_out > 0 {
        tracing::warn!(
            offenders = left_out,
            "more refused logins than are logged one by one"
        );
    }
}
