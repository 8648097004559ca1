//! Whether the CAA records of a name allow a CA (RFC 8659).

use crate::certs::preflight::dns::{CaaProperty, DnsError, Resolver};
use crate::config::acme::CertifiedName;

/// Why the records of a name, or of the nearest domain above it that has any, forbid a CA with these
/// identities to issue (RFC 8659 §3); `None`: they do not.
pub(super) async fn forbidden(
    resolver: &Resolver,
    name: &CertifiedName,
    identities: &[String],
) -> Result<Option<String>, DnsError> {
    let mut domain = name.base().as_str();
    loop {
        let properties = resolver.caa(domain).await?;
        if !properties.is_empty() {
            let Some(allowed) = allowed(&properties, name.is_wildcard()) else {
                return Ok(None);
            };
            if allowed.iter().any(|allowed| identities.contains(allowed)) {
                return Ok(None);
            }
            let permitted = if allowed.is_empty() {
                "no CA".to_owned()
            } else {
                format!("only {}", allowed.join(", "))
            };
            let identities = identities.join(" or ");
            return Ok(Some(format!(
                "the CAA records of {domain} allow {permitted}, not {identities}"
            )));
        }
        match domain.split_once('.') {
            Some((_, parent)) => domain = parent,
            None => return Ok(None),
        }
    }
}

/// The identities of the CAs that may issue; `None`: any CA may.
fn allowed(properties: &[CaaProperty], wildcard: bool) -> Option<Vec<String>> {
    let issuers = |tag: &str| {
        let values = properties.iter().filter(|property| property.tag == tag);
        values
            .map(|property| {
                property
                    .value
                    .split(';')
                    .next()
                    .unwrap_or_default()
                    .trim()
                    .to_ascii_lowercase()
            })
            .collect()
    };
    let for_wildcards: Vec<String> = issuers("issuewild");
    let relevant = if wildcard && !for_wildcards.is_empty() {
        for_wildcards
    } else {
        issuers("issue")
    };
    (!relevant.is_empty()).then(|| {
        relevant
            .into_iter()
            .filter(|domain| !domain.is_empty())
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caa_records_allow_some_all_or_none() {
        let allowed = |wildcard, properties: &[(&str, &str)]| {
            let all: Vec<_> = properties
                .iter()
                .map(|(tag, value)| CaaProperty {
                    tag: (*tag).to_owned(),
                    value: (*value).to_owned(),
                })
                .collect();
            allowed(&all, wildcard).map(|domains| domains.join(" "))
        };
        let two = [
            ("issue", "letsencrypt.org; x=y"),
            ("issue", "PKI.goog"),
            ("issuewild", ";"),
        ];
        assert_eq!(
            allowed(false, &two).as_deref(),
            Some("letsencrypt.org pki.goog")
        );
        assert_eq!(allowed(true, &two).as_deref(), Some(""));
        assert_eq!(
            allowed(true, &two[..2]).as_deref(),
            Some("letsencrypt.org pki.goog")
        );
        assert_eq!(allowed(false, &[("iodef", "mailto:a@example.com")]), None);
    }
}
