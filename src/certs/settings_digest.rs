//! A digest of the settings of an order, by which a failure is known to be one of other settings.

use secrecy::ExposeSecret;

use crate::config::acme::{AcmeRequest, AcmeSettings, CaSettings, ExternalBinding};
use crate::crypto;

/// The digest of all settings on which the result of an order depends. It is stored: the key of an
/// external account is in it with everything else, and has too many bits to be guessed.
pub(super) fn settings_digest(settings: &AcmeSettings, request: &AcmeRequest) -> String {
    let AcmeSettings {
        authorities,
        challenges,
        dns_command,
        resolvers,
    } = settings;
    let AcmeRequest {
        contact,
        names,
        profile,
        fallback: _,
    } = request;
    let mut text =
        format!("{challenges:?} {dns_command:?} {resolvers:?} {contact:?} {names:?} {profile:?}");
    for ca in authorities {
        let CaSettings {
            directory,
            roots,
            profile,
            chain,
            binding,
            public,
            ports,
        } = ca;
        let binding = binding
            .as_ref()
            .map(|ExternalBinding { key_id, hmac_key }| {
                (
                    key_id,
                    crypto::sha256_hex(hmac_key.expose_secret().as_bytes()),
                )
            });
        text += &format!(
            " {} {roots:?} {profile:?} {chain:?} {binding:?} {public:?} {ports:?}",
            directory.url()
        );
    }
    crypto::sha256_hex(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::testing::snapshot;
    use crate::config::acme::Fallback;

    #[test]
    fn a_corrected_setting_changes_the_digest() {
        let directory = tempfile::tempdir().expect("directory");
        let mut settings = snapshot(directory.path(), Vec::new()).acme;
        let request = AcmeRequest {
            contact: None,
            names: Vec::new(),
            profile: None,
            fallback: Fallback::Refuse,
        };
        let mut seen = vec![settings_digest(&settings, &request)];
        assert_eq!(seen[0], settings_digest(&settings.clone(), &request));
        for hmac_key in ["AAAA", "BBBB"] {
            settings.authorities[0].binding = Some(ExternalBinding {
                key_id: "kid".to_owned(),
                hmac_key: hmac_key.to_owned().into(),
            });
            seen.push(settings_digest(&settings, &request));
        }
        let with_profile = AcmeRequest {
            profile: Some("classic".to_owned()),
            ..request
        };
        seen.push(settings_digest(&settings, &with_profile));
        settings.dns_command = Some(vec!["set-txt".to_owned()]);
        seen.push(settings_digest(&settings, &with_profile));
        assert!(!seen[0].contains("AAAA"));
        let all: std::collections::BTreeSet<_> = seen.iter().collect();
        assert_eq!(all.len(), seen.len());
    }
}
