//! certbot: `live/NAME` links into `archive/NAME`, `renewal/NAME.conf` names the CA, and
//! `accounts/CA-HOST/PATH/HASH` contains an account.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{FoundAccount, FoundFiles, Tool, changed, file_name, keys, known, read_json};
use crate::certs::state::paths::CaId;

/// Reads a directory like `/etc/letsencrypt`.
pub(super) fn read_certbot(place: &Path, found: &mut FoundFiles) {
    let names = ["live", "archive"].map(|name| found.directories(&place.join(name)));
    let names: BTreeSet<String> = names.iter().flatten().map(|path| file_name(path)).collect();
    if names.is_empty() {
        return;
    }
    found.tool(Tool::Certbot);
    for name in names {
        let ca = server(&place.join("renewal").join(format!("{name}.conf")), found);
        let live = place.join("live").join(&name);
        let [chain, key] = ["fullchain.pem", "privkey.pem"].map(|file| live.join(file));
        // A copy without the symbolic links has only the archive.
        let newest = if found.is_file(&chain) && found.is_file(&key) {
            None
        } else {
            newest(&place.join("archive").join(&name), found)
        };
        let (chain, key) = newest.unwrap_or((chain, key));
        found.pair(&name, ca, &chain, &key);
    }
    let accounts = place.join("accounts");
    for host in found.directories(&accounts) {
        read_accounts(&host, &file_name(&host), 0, found);
    }
}

/// Reads the setting `server = URL`.
fn server(renewal: &Path, found: &mut FoundFiles) -> Option<CaId> {
    let text = String::from_utf8(found.content(renewal)?).ok()?;
    let value = text.lines().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        (name.trim() == "server").then(|| value.trim().to_owned())
    })?;
    known::by_url(&value)
}

/// The pair `fullchainN.pem` and `privkeyN.pem` with the highest number.
fn newest(archive: &Path, found: &mut FoundFiles) -> Option<(PathBuf, PathBuf)> {
    let numbers = found.entries(archive).into_iter().filter_map(|path| {
        file_name(&path)
            .strip_prefix("fullchain")?
            .strip_suffix(".pem")?
            .parse::<u32>()
            .ok()
    });
    let mut numbers: Vec<u32> = numbers.collect();
    numbers.sort_unstable();
    let pair = |n: u32| {
        (
            archive.join(format!("fullchain{n}.pem")),
            archive.join(format!("privkey{n}.pem")),
        )
    };
    numbers
        .into_iter()
        .rev()
        .map(pair)
        .find(|(_, key)| found.is_file(key))
}

/// Reads accounts: directories are nested like the URL of the CA, down to one with an account.
fn read_accounts(directory: &Path, url: &str, depth: u32, found: &mut FoundFiles) {
    for child in found.directories(directory) {
        let key = child.join("private_key.json");
        if found.is_file(&key) {
            account(&child, &key, url, found);
        } else if depth < MAX_URL_SEGMENTS {
            read_accounts(
                &child,
                &format!("{url}/{}", file_name(&child)),
                depth + 1,
                found,
            );
        }
    }
}

fn account(directory: &Path, key: &Path, url: &str, found: &mut FoundFiles) {
    let about = directory.join("regr.json");
    let json = match read_json(&about) {
        Ok(json) => json,
        Err(error) => {
            let account = format!("account {}", file_name(directory));
            return found.unusable(&account, &about, &error);
        }
    };
    let contacts = json.pointer("/body/contact").and_then(Value::as_array);
    found.accounts.push(FoundAccount {
        ca: known::by_url(&format!("https://{url}")),
        url: json.get("uri").and_then(Value::as_str).map(str::to_owned),
        contacts: contacts
            .into_iter()
            .flatten()
            .filter_map(|c| c.as_str().map(str::to_owned))
            .collect(),
        key: read_json(key)
            .map_err(|_| keys::KeyFault::Damaged)
            .and_then(|key| keys::from_jwk(&key)),
        changed: changed(&about),
        from: about,
    });
}

/// The number of segments of a URL's path.
const MAX_URL_SEGMENTS: u32 = 6;
