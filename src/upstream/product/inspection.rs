//! What a product's answers say of rights and limits.

use http::{HeaderMap, HeaderValue};

use super::ability::Ability;

/// What a product's own API says of the credential for it.
#[derive(Debug, Default)]
pub(crate) struct ApiInspection {
    /// Whether the credential has the right to an ability, where the API says so.
    pub(crate) rights: Vec<(Ability, bool)>,
    pub(crate) limits: Vec<RequestLimit>,
    /// When the credential ends, as the API writes it.
    pub(crate) expires: Option<String>,
}

/// How much is left of a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestLimit {
    /// What is counted.
    pub(crate) name: &'static str,
    pub(crate) remaining: u64,
    pub(crate) limit: Option<u64>,
    /// The seconds in which so many are allowed.
    pub(crate) window: Option<u64>,
}

impl RequestLimit {
    /// That of pulls, as Docker Hub's registry has it: `ratelimit-remaining: 76;w=21600`.
    pub(crate) fn of_registry(headers: &HeaderMap) -> Option<Self> {
        let (remaining, window) = counted(headers.get("ratelimit-remaining")?)?;
        let limit = headers.get("ratelimit-limit").and_then(counted);
        Some(Self {
            name: "pulls",
            remaining,
            limit: limit.map(|(limit, _)| limit),
            window,
        })
    }

    /// That of requests to an API: `x-ratelimit-remaining: 4999`.
    pub(crate) fn of_api(headers: &HeaderMap) -> Option<Self> {
        let (remaining, _) = counted(headers.get("x-ratelimit-remaining")?)?;
        let limit = headers.get("x-ratelimit-limit").and_then(counted);
        Some(Self {
            name: "api requests",
            remaining,
            limit: limit.map(|(limit, _)| limit),
            window: None,
        })
    }
}

/// A number, and the window behind it.
fn counted(value: &HeaderValue) -> Option<(u64, Option<u64>)> {
    let text = value.to_str().ok()?;
    let (number, rest) = text.split_once(';').unwrap_or((text, ""));
    let window = rest.trim().strip_prefix("w=");
    let window = window.and_then(|seconds| seconds.parse().ok());
    Some((number.trim().parse().ok()?, window))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| {
                let name = http::HeaderName::from_static(name);
                (name, HeaderValue::from_static(value))
            })
            .collect()
    }

    #[test]
    fn limits_are_read_in_all_their_forms() {
        let pulls = RequestLimit::of_registry(&headers(&[
            ("ratelimit-limit", "200;w=21600"),
            ("ratelimit-remaining", "76;w=21600"),
        ]));
        let pulls = pulls.expect("a limit");
        assert_eq!((pulls.remaining, pulls.limit), (76, Some(200)));
        assert_eq!(pulls.window, Some(21600));
        let api = RequestLimit::of_api(&headers(&[("x-ratelimit-remaining", "4999")]));
        assert_eq!(
            api.map(|api| (api.remaining, api.limit)),
            Some((4999, None))
        );
        for odd in ["", "many", "-1", ";w=5"] {
            assert_eq!(
                RequestLimit::of_api(&headers(&[("x-ratelimit-remaining", odd)])),
                None
            );
        }
    }
}
