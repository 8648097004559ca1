//! Traefik: one `acme.json`, with an account and certificates for each resolver. Version 1 has only
//! one resolver.

use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use super::{FoundAccount, FoundCertificate, FoundFiles, Tool, changed, keys, known, read_json};

/// Reads an `acme.json`, whatever its name.
pub(super) fn read_traefik(place: &Path, found: &mut FoundFiles) {
    if !found.is_file(place) {
        return;
    }
    let json = match read_json(place) {
        Ok(json) => json,
        Err(error) => return found.unusable("Traefik's file", place, &error),
    };
    let is_resolver =
        |value: &&Value| get(value, "Account").is_some() || get(value, "Certificates").is_some();
    let resolvers: Vec<&Value> = match &json {
        Value::Object(_) if is_resolver(&&json) => vec![&json],
        Value::Object(all) => all.values().filter(is_resolver).collect(),
        _ => Vec::new(),
    };
    if resolvers.is_empty() {
        return;
    }
    found.tool(Tool::Traefik);
    resolvers
        .into_iter()
        .for_each(|resolver| read_resolver(place, resolver, found));
}

fn read_resolver(place: &Path, resolver: &Value, found: &mut FoundFiles) {
    let account = get(resolver, "Account").filter(|account| account.is_object());
    let registration = account.and_then(|account| get(account, "Registration"));
    let url = registration.and_then(|registration| text(registration, "uri"));
    // The file does not contain the URL of the directory.
    let ca = url.and_then(known::by_any_url);
    let certificates = get(resolver, "Certificates").and_then(Value::as_array);
    for certificate in certificates.into_iter().flatten() {
        let name = get(certificate, "Domain")
            .and_then(|domain| text(domain, "Main"))
            .unwrap_or("a certificate");
        let part = |key| text(certificate, key).and_then(|text| BASE64_STANDARD.decode(text).ok());
        match (part("Certificate"), part("Key")) {
            (Some(chain), Some(key)) => found.certificates.push(FoundCertificate {
                from: place.to_owned(),
                name: name.to_owned(),
                ca: ca.clone(),
                chain,
                key,
            }),
            _ => found.skip(name, place, "its certificate or its key is damaged"),
        }
    }
    let Some((account, key)) =
        account.and_then(|account| Some((account, text(account, "PrivateKey")?)))
    else {
        return;
    };
    let contacts = registration.and_then(|registration| get(registration, "body"));
    let contacts = contacts
        .and_then(|body| get(body, "contact"))
        .and_then(Value::as_array);
    let mut contacts: Vec<String> = contacts
        .into_iter()
        .flatten()
        .filter_map(|contact| contact.as_str().map(str::to_owned))
        .collect();
    if let Some(mail) =
        text(account, "Email").filter(|mail| contacts.is_empty() && !mail.is_empty())
    {
        contacts.push(format!("mailto:{mail}"));
    }
    found.accounts.push(FoundAccount {
        ca,
        url: url.map(str::to_owned),
        contacts,
        key: keys::from_base64(key),
        changed: changed(place),
        from: place.to_owned(),
    });
}

/// Returns a member of an object. Version 1 begins some names with capitals, later versions do not.
fn get<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    value
        .as_object()?
        .iter()
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

fn text<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    get(value, name)?.as_str()
}
