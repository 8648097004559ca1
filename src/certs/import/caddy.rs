//! Caddy: version 1 has `acme/CA-HOST/{sites,users}`, version 2 `certificates/CA` and
//! `acme/CA/users`.

use std::path::Path;

use serde_json::Value;

use super::{FoundAccount, FoundFiles, Tool, changed, file_name, keys, known, read, read_json};
use crate::certs::state::paths::CaId;

/// Reads a directory of version 1, like `~/.caddy`.
pub(super) fn read_v1(place: &Path, found: &mut FoundFiles) {
    for ca_directory in found.directories(&place.join("acme")) {
        let (sites, users) = (ca_directory.join("sites"), ca_directory.join("users"));
        if !found.is_directory(&sites) {
            continue;
        }
        found.tool(Tool::Caddy1);
        let ca = known::by_name(&file_name(&ca_directory));
        for site in found.directories(&sites) {
            certificate(&site, ca.as_ref(), found);
        }
        for user in found.directories(&users) {
            account(&user, ca.as_ref(), found);
        }
    }
}

/// Reads a directory of version 2, like `~/.local/share/caddy` or `/data/caddy`.
pub(super) fn read_v2(place: &Path, found: &mut FoundFiles) {
    let all = found.directories(&place.join("certificates"));
    if all.is_empty() {
        return;
    }
    found.tool(Tool::Caddy2);
    for ca_directory in all {
        let name = file_name(&ca_directory);
        if name == "local" {
            found.skip(
                "Caddy's own CA",
                &ca_directory,
                "its clients trust it alone: set `internal = true` for such a domain",
            );
            continue;
        }
        let ca = known::by_name(&name);
        for site in found.directories(&ca_directory) {
            certificate(&site, ca.as_ref(), found);
        }
    }
    for ca_directory in found.directories(&place.join("acme")) {
        let ca = known::by_name(&file_name(&ca_directory));
        for user in found.directories(&ca_directory.join("users")) {
            account(&user, ca.as_ref(), found);
        }
    }
}

/// Reads `NAME/NAME.crt`, `.key` and `.json`.
fn certificate(site: &Path, ca: Option<&CaId>, found: &mut FoundFiles) {
    let name = file_name(site);
    let [chain, key, about] =
        ["crt", "key", "json"].map(|suffix| site.join(format!("{name}.{suffix}")));
    // Version 2 stores the URL of the CA, whatever the name of the directory.
    let said = read_json(&about).ok();
    let said = said
        .as_ref()
        .and_then(|about| about.pointer("/issuer_data/ca"))
        .and_then(Value::as_str);
    let ca = said.and_then(known::by_url).or_else(|| ca.cloned());
    found.pair(&name.replacen("wildcard_", "*", 1), ca, &chain, &key);
}

/// Reads `MAIL/LOCAL-PART.json` and `.key`; there is only one of each.
fn account(user: &Path, ca: Option<&CaId>, found: &mut FoundFiles) {
    let files = found.entries(user);
    let with = |suffix: &str| {
        let mut files = files.iter();
        files.find(|path| path.extension().is_some_and(|e| e == suffix))
    };
    let (Some(about), Some(key)) = (with("json"), with("key")) else {
        return;
    };
    let json = match read_json(about) {
        Ok(json) => json,
        Err(error) => {
            let account = format!("account {}", file_name(user));
            return found.unusable(&account, about, &error);
        }
    };
    // Version 2; version 1 with either of its libraries.
    let url = ["/location", "/Registration/uri", "/Registration/location"];
    let url = url
        .iter()
        .find_map(|path| json.pointer(path))
        .and_then(Value::as_str);
    let contacts = ["/contact", "/Registration/body/contact"]
        .iter()
        .find_map(|path| json.pointer(path));
    let mut contacts: Vec<String> = contacts
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|contact| contact.as_str().map(str::to_owned))
        .collect();
    if let Some(mail) = json
        .pointer("/Email")
        .and_then(Value::as_str)
        .filter(|_| contacts.is_empty())
    {
        contacts.push(format!("mailto:{mail}"));
    }
    found.accounts.push(FoundAccount {
        ca: ca.cloned().or_else(|| url.and_then(known::by_any_url)),
        url: url.map(str::to_owned),
        contacts,
        key: read(key)
            .map_err(|_| keys::KeyFault::Damaged)
            .and_then(|pem| keys::from_pem(&pem)),
        changed: changed(about),
        from: about.clone(),
    });
}
