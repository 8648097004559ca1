//! `WWW-Authenticate` headers (RFC 9110 §11.6.1): challenges, each a scheme and its parameters,
//! separated by commas as the parameters are.

use std::borrow::Cow;

use http::{HeaderMap, header};

use super::link::{unquoted, until_separator};

/// A challenge of a header value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AuthChallenge<'a> {
    /// As written: letter case does not matter.
    pub(crate) scheme: &'a str,
    parameters: Vec<(&'a str, Cow<'a, str>)>,
}

impl AuthChallenge<'_> {
    pub(crate) fn is(&self, scheme: &str) -> bool {
        self.scheme.eq_ignore_ascii_case(scheme)
    }

    /// The value of a parameter, whose name has any letter case; the first one counts.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let mut parameters = self.parameters.iter();
        let found = parameters.find(|(written, _)| written.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_ref())
    }
}

/// The challenges of a response, in order.
pub(crate) fn of_response(headers: &HeaderMap) -> Vec<AuthChallenge<'_>> {
    let values = headers.get_all(header::WWW_AUTHENTICATE).iter();
    let values = values.filter_map(|value| value.to_str().ok());
    values.flat_map(challenges).collect()
}

/// The challenges of a header value, in order.
pub(crate) fn challenges(value: &str) -> Vec<AuthChallenge<'_>> {
    let mut found: Vec<AuthChallenge<'_>> = Vec::new();
    let mut rest = value;
    while !rest.is_empty() {
        let element = until_separator(rest, b',');
        rest = rest.get(element.len() + 1..).unwrap_or_default();
        let mut element = element.trim_matches([' ', '\t']);
        // A scheme stands alone or before a space; a parameter has `=` behind its name.
        if parameter(element).is_none() && !element.is_empty() {
            let end = element.find([' ', '\t']).unwrap_or(element.len());
            let (scheme, after) = element.split_at(end);
            found.push(AuthChallenge {
                scheme,
                parameters: Vec::new(),
            });
            element = after.trim_start();
        }
        if let (Some(challenge), Some(parameter)) = (found.last_mut(), parameter(element)) {
            challenge.parameters.push(parameter);
        }
    }
    found
}

fn parameter(element: &str) -> Option<(&str, Cow<'_, str>)> {
    let end = element.find([' ', '\t', '='])?;
    let (name, after) = element.split_at(end);
    let value = after.trim_start().strip_prefix('=')?;
    Some((name, unquoted(value.trim())))
}

/// Whether one of the challenges in a header value has this scheme, in any letter case.
pub(crate) fn offers(value: &str, scheme: &str) -> bool {
    challenges(value)
        .iter()
        .any(|challenge| challenge.is(scheme))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_scheme_is_found_among_challenges_and_not_among_parameters() {
        for value in [
            "Bearer realm=\"https://a/token\",service=\"b\"",
            "bearer",
            "Basic realm=\"a, b\", BEARER realm=x",
            "Basic realm=a,\tBearer",
            ", Bearer abc123==",
        ] {
            assert!(offers(value, "bearer"), "{value}");
        }
        for value in [
            "",
            "Basic realm=\"x, Bearer y\"",
            "Basic realm=\"x\\\", Bearer\"",
            "Basic Bearer=x",
            "Basic realm=x, Bearer=y",
            "Basic realm=x, bearer = y",
            "Bearerish realm=x",
        ] {
            assert!(!offers(value, "bearer"), "{value}");
        }
        assert!(offers("Negotiate, Basic realm=x", "basic"));
    }

    #[test]
    fn parameters_belong_to_the_challenge_before_them() {
        let value = "Basic realm=\"a, b\", Bearer REALM=\"https://a/t?x=\\\"1\\\"\" , \
                     service = b,scope=\"repository:a/b:pull,push\", Negotiate abc==";
        let all = challenges(value);
        let [basic, bearer, negotiate] = all.as_slice() else {
            panic!("{all:?}");
        };
        assert!(basic.is("basic") && bearer.is("BEARER") && negotiate.is("negotiate"));
        assert_eq!(basic.parameter("realm"), Some("a, b"));
        assert_eq!(basic.parameter("service"), None);
        assert_eq!(bearer.parameter("realm"), Some("https://a/t?x=\"1\""));
        assert_eq!(bearer.parameter("Service"), Some("b"));
        assert_eq!(bearer.parameter("scope"), Some("repository:a/b:pull,push"));
        assert_eq!(negotiate.parameter("realm"), None);
        assert!(challenges("realm=x").is_empty());
    }

    proptest! {
        #[test]
        fn nothing_panics(value in "[,;=\"\\\\ a-z\u{e9}]{0,30}") {
            let _ = offers(&value, "basic");
        }
    }
}
