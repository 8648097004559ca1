//! acme.sh: `NAME/` or `NAME_ecc/` for each certificate, `ca/HOST/PATH/` for each account.

use std::path::Path;

use super::{FoundAccount, FoundFiles, Tool, changed, file_name, keys, known, read};
use crate::certs::state::paths::CaId;

/// Reads a directory like `~/.acme.sh`.
pub(super) fn read_acme_sh(place: &Path, found: &mut FoundFiles) {
    let mut is_here = false;
    for directory in found.directories(place) {
        let called = file_name(&directory);
        let name = called.strip_suffix("_ecc").unwrap_or(&called).to_owned();
        let [chain, key, about] = [
            "fullchain.cer",
            &format!("{name}.key"),
            &format!("{name}.conf"),
        ]
        .map(|file| directory.join(file));
        if found.is_file(&about) && found.is_file(&key) {
            is_here = true;
            let ca = setting(&about, "Le_API", found).and_then(|url| known::by_url(&url));
            found.pair(&name, ca, &chain, &key);
        }
    }
    let ca = place.join("ca");
    if is_here || found.is_file(&place.join("account.conf")) {
        found.tool(Tool::AcmeSh);
        for host in found.directories(&ca) {
            accounts(&host, &file_name(&host), 0, found);
        }
    }
}

/// Reads accounts: directories are nested like the URL of the CA, down to one with an account.
fn accounts(directory: &Path, url: &str, depth: u32, found: &mut FoundFiles) {
    let key = directory.join("account.key");
    if found.is_file(&key) {
        let about = directory.join("ca.conf");
        let ca = match depth {
            0 => known::by_name(url),
            _ => known::by_url(&format!("https://{url}")),
        };
        let url = setting(&about, "ACCOUNT_URL", found);
        let contact = setting(&about, "CA_EMAIL", found);
        found.accounts.push(FoundAccount {
            ca: ca.map(usual_spelling),
            url,
            contacts: contact
                .map(|mail| format!("mailto:{mail}"))
                .into_iter()
                .collect(),
            key: read(&key)
                .map_err(|_| keys::KeyFault::Damaged)
                .and_then(|pem| keys::from_pem(&pem)),
            changed: changed(&about),
            from: key,
        });
    }
    if depth < MAX_URL_SEGMENTS {
        for child in found.directories(directory) {
            let url = format!("{url}/{}", file_name(&child));
            accounts(&child, &url, depth + 1, found);
        }
    }
}

/// Corrects the case of the path for known CAs: acme.sh changes it.
fn usual_spelling(ca: CaId) -> CaId {
    let path = ca.as_str().trim_start_matches("https://");
    known::by_name(path).unwrap_or(ca)
}

/// Reads a setting `NAME='value'`. A value with special characters is base64 between two markers.
fn setting(path: &Path, name: &str, found: &mut FoundFiles) -> Option<String> {
    let text = String::from_utf8(found.content(path)?).ok()?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
    let value = value.trim().trim_matches(['\'', '"']);
    let value = match value
        .strip_prefix("__ACME_BASE64__START_")
        .and_then(|v| v.strip_suffix("__ACME_BASE64__END_"))
    {
        Some(encoded) => {
            use base64::Engine;
            let bytes = base64::prelude::BASE64_STANDARD.decode(encoded).ok()?;
            String::from_utf8(bytes).ok()?
        }
        None => value.to_owned(),
    };
    (!value.is_empty()).then_some(value)
}

/// The number of segments of a URL's path.
const MAX_URL_SEGMENTS: u32 = 6;
