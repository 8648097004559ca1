//! acme.sh: `NAME/` or `NAME_ecc/` for each certificate, `ca/HOST/PATH/` for each account.

use std::path::Path;

use super::{FoundAccount, FoundFiles, Tool, changed, directories, file_name, keys, known, read};
use crate::certs::state::paths::CaId;

/// Reads a directory like `~/.acme.sh`.
pub(super) fn read_acme_sh(place: &Path, found: &mut FoundFiles) {
    let mut is_here = false;
    for directory in directories(place) {
        let called = file_name(&directory);
        let name = called.strip_suffix("_ecc").unwrap_or(&called).to_owned();
        let [chain, key, about] = [
            "fullchain.cer",
            &format!("{name}.key"),
            &format!("{name}.conf"),
        ]
        .map(|file| directory.join(file));
        if about.is_file() && key.is_file() {
            is_here = true;
            let ca = setting(&about, "Le_API").and_then(|url| known::by_url(&url));
            found.pair(&name, ca, &chain, &key);
        }
    }
    let ca = place.join("ca");
    if is_here || place.join("account.conf").is_file() {
        found.tool(Tool::AcmeSh);
        directories(&ca)
            .iter()
            .for_each(|host| accounts(host, &file_name(host), 0, found));
    }
}

/// Reads accounts: directories are nested like the URL of the CA, down to one with an account.
fn accounts(directory: &Path, url: &str, depth: u32, found: &mut FoundFiles) {
    let key = directory.join("account.key");
    if key.is_file() {
        let about = directory.join("ca.conf");
        let ca = match depth {
            0 => known::by_name(url),
            _ => known::by_url(&format!("https://{url}")),
        };
        found.accounts.push(FoundAccount {
            ca: ca.map(usual_spelling),
            url: setting(&about, "ACCOUNT_URL"),
            contacts: setting(&about, "CA_EMAIL")
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
        let children = directories(directory);
        children.iter().for_each(|child| {
            accounts(
                child,
                &format!("{url}/{}", file_name(child)),
                depth + 1,
                found,
            );
        });
    }
}

/// Corrects the case of the path for known CAs: acme.sh changes it.
fn usual_spelling(ca: CaId) -> CaId {
    let path = ca.as_str().trim_start_matches("https://");
    known::by_name(path).unwrap_or(ca)
}

/// Reads a setting `NAME='value'`. A value with special characters is base64 between two markers.
fn setting(path: &Path, name: &str) -> Option<String> {
    let text = String::from_utf8(read(path).ok()?).ok()?;
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
