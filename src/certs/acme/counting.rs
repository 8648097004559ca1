//! Whether a CA can have counted a request towards one of its limits.

use http::{Response, StatusCode};

use super::problem::problem_type;

/// What is known about the last POST request of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum LastPost {
    /// None has been sent.
    #[default]
    None,
    /// It was sent, and there is no complete response to it.
    Unanswered,
    /// The CA has refused it before it counted anything.
    Refused,
    /// The CA has done what was requested, or may have.
    Taken,
}

impl LastPost {
    /// By the response.
    ///
    /// Let's Encrypt counts an account or an order when it creates one, and gives back what it
    /// has counted if that fails. A status of 4xx means that nothing was created, with two
    /// exceptions in doubt. A `rateLimited` request shows that the CA has counted more than was
    /// counted here. 408 is sent by whatever stands before the CA.
    pub(super) fn of_response<T: AsRef<[u8]>>(response: &Response<T>) -> Self {
        let status = response.status();
        let is_doubtful =
            status == StatusCode::REQUEST_TIMEOUT || status == StatusCode::TOO_MANY_REQUESTS;
        if !status.is_client_error() || is_doubtful {
            return Self::Taken;
        }
        let problem = serde_json::from_slice::<instant_acme::Problem>(response.body().as_ref());
        match problem.as_ref().ok().and_then(problem_type) {
            Some("rateLimited" | "serverInternal") => Self::Taken,
            _ => Self::Refused,
        }
    }

    /// Whether the CA may have counted it.
    pub(super) fn may_count(self) -> bool {
        match self {
            Self::None | Self::Refused => false,
            Self::Unanswered | Self::Taken => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_is_certain_not_to_count() {
        let may_count = |status: u16, body: &str| {
            let response = Response::builder().status(status).body(body.to_owned());
            LastPost::of_response(&response.expect("a response")).may_count()
        };
        let problem = |kind: &str| format!("{{ \"type\": \"urn:ietf:params:acme:error:{kind}\" }}");
        for kind in [
            "accountDoesNotExist",
            "alreadyReplaced",
            "badNonce",
            "externalAccountRequired",
            "invalidContact",
            "invalidProfile",
            "malformed",
            "rejectedIdentifier",
            "unauthorized",
            "unsupportedContact",
            "unsupportedIdentifier",
            "userActionRequired",
        ] {
            assert!(!may_count(400, &problem(kind)), "{kind}");
            assert!(!may_count(403, &problem(kind)), "{kind}");
            assert!(may_count(500, &problem(kind)), "{kind}");
        }
        for kind in ["rateLimited", "serverInternal"] {
            assert!(may_count(403, &problem(kind)), "{kind}");
        }
        for status in [200, 201, 302, 408, 429, 500, 502, 503, 504] {
            assert!(may_count(status, "<html>"), "{status}");
        }
        for status in [401, 403, 404, 413] {
            assert!(!may_count(status, "<html>"), "{status}");
        }
        assert!(!LastPost::default().may_count());
        assert!(LastPost::Unanswered.may_count());
    }
}
