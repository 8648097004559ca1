//! `WWW-Authenticate` headers (RFC 9110 §11.6.1): challenges, each a scheme and its parameters,
//! separated by commas as the parameters are.

use super::link::until_separator;

/// Whether one of the challenges in a header value has this scheme, in any letter case.
pub(crate) fn offers(value: &str, scheme: &str) -> bool {
    let mut rest = value;
    while !rest.is_empty() {
        let element = until_separator(rest, b',');
        rest = rest.get(element.len() + 1..).unwrap_or_default();
        // A scheme stands alone or before a space; a parameter has `=` behind its name.
        let element = element.trim_start_matches([' ', '\t']);
        let end = element.find([' ', '\t', '=']).unwrap_or(element.len());
        let (name, after) = element.split_at(end);
        let is_parameter = after.trim_start().starts_with('=');
        if !is_parameter && name.eq_ignore_ascii_case(scheme) {
            return true;
        }
    }
    false
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

    proptest! {
        #[test]
        fn nothing_panics(value in "[,;=\"\\\\ a-z\u{e9}]{0,30}") {
            let _ = offers(&value, "basic");
        }
    }
}
