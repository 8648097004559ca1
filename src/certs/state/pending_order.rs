//! A pending order, stored so that a restarted process resumes it by its URL instead of placing
//! another one.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::KeyPair;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::ledger::{OrderKind, OrderRequest};
use crate::certs::names::NameSet;
use crate::certs::renewal::Validity;
use crate::certs::state::paths::{CaId, CaPaths};
use crate::certs::timestamps;
use crate::state_file::{Access, atomic_write};

/// An order that has been placed and has not ended.
///
/// When `newOrder` has returned, [`store`](Self::store) the order with the key of its certificate
/// before anything else. Before each new order for a domain, [`find`](Self::find) the pending one
/// and continue from the state that its URL reports: a certificate that was issued just before a
/// crash is then downloaded, since its key is here. [`remove`](Self::remove) the order when its
/// certificate is stored, or when the CA reports it as invalid or unknown. Record a resumed order
/// in the ledger only when it progresses (`Finalizing`, `Issued`, `Failed`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenOrder {
    /// The CA.
    pub ca: CaId,
    /// The URL of the account.
    pub account: String,
    /// The URL of the order.
    pub url: String,
    pub names: NameSet,
    pub kind: OrderKind,
    #[serde(with = "timestamps")]
    pub placed: SystemTime,
}

/// A stored order cannot be resumed: remove it and place another one.
#[derive(Debug, thiserror::Error)]
pub enum OrderLost {
    /// The file is not what was written.
    #[error("the order in {} is damaged", .0.display())]
    Damaged(PathBuf),
    /// The key is missing: the certificate would be useless.
    #[error("the key of the order in {} is missing", .0.display())]
    NoKey(PathBuf),
    /// The file of the key contains no key.
    #[error("the key of the order in {} is damaged", .0.display())]
    DamagedKey(PathBuf),
    /// The order is for other names or another account: the configuration has changed.
    #[error("the order in {} is for {names} and does not match the configuration any more", path.display())]
    Unwanted { path: PathBuf, names: NameSet },
    /// The order has not ended in time, and perhaps never will.
    #[error("the order in {} has not ended in time", .0.display())]
    TooOld(PathBuf),
}

impl OpenOrder {
    /// Writes the key, then the order, so that an order never exists without its key.
    pub fn store(&self, files: &CaPaths, domain: &str, key_pem: &str) -> io::Result<()> {
        files.make_directories()?;
        atomic_write(
            &files.order_key(domain),
            key_pem.as_bytes(),
            Access::Private,
        )?;
        let text = serde_json::to_vec_pretty(self)?;
        atomic_write(&files.order(domain), &text, Access::Private)
    }

    /// The order of a domain and its key in PEM, if there is one for the names and the account of
    /// `request`, whatever kind of order it asks for now.
    pub fn find(
        files: &CaPaths,
        domain: &str,
        request: &OrderRequest<'_>,
        now: SystemTime,
    ) -> Result<Option<(Self, SecretString)>, OrderLost> {
        let path = files.order(domain);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(_) => return Err(OrderLost::Damaged(path)),
        };
        let Ok(order) = serde_json::from_slice::<Self>(&text) else {
            return Err(OrderLost::Damaged(path));
        };
        if order.account != request.account || order.names != *request.names {
            return Err(OrderLost::Unwanted {
                path,
                names: order.names,
            });
        }
        if now
            .duration_since(order.placed)
            .is_ok_and(|age| age > longest_order(request.held, order.placed))
        {
            return Err(OrderLost::TooOld(path));
        }
        let Ok(key) = std::fs::read_to_string(files.order_key(domain)) else {
            return Err(OrderLost::NoKey(path));
        };
        if KeyPair::from_pem(&key).is_err() {
            return Err(OrderLost::DamagedKey(path));
        }
        Ok(Some((order, key.into())))
    }

    /// Removes the order and its key, if they exist.
    pub fn remove(files: &CaPaths, domain: &str) -> io::Result<()> {
        remove_if_exists(&files.order(domain))?;
        remove_if_exists(&files.order_key(domain))
    }
}

fn remove_if_exists(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// How long an order may take: no longer than half of what was left of the served certificate, so
/// that another one can replace it in time.
fn longest_order(held: Option<Validity>, placed: SystemTime) -> Duration {
    let left = held.map(|held| held.left(placed));
    let by_life = left.filter(|left| !left.is_zero()).map(|left| left / 2);
    by_life.map_or(MAX_ORDER_AGE, |by_life| {
        by_life.clamp(MIN_ORDER_AGE, MAX_ORDER_AGE)
    })
}

/// Let's Encrypt keeps a pending order for 7 days, and for 8 hours with its shorter profiles. An
/// order that has not ended within a day never will, and a certificate of 160 hours cannot wait
/// longer.
const MAX_ORDER_AGE: Duration = Duration::from_hours(24);
/// A CA completes an order within seconds.
const MIN_ORDER_AGE: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;
    use crate::certs::state::paths::StatePaths;

    fn names(name: &str) -> NameSet {
        NameSet::new([name]).expect("names")
    }

    #[test]
    fn an_order_is_found_again_until_it_is_forgotten() {
        let directory = tempfile::tempdir().expect("directory");
        let ca = CaId::new("https://ca.example/directory").expect("a URL");
        let files = StatePaths::new(directory.path()).ca(&ca);
        let placed = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let order = OpenOrder {
            ca,
            account: "https://ca.example/account/1".into(),
            url: "https://ca.example/order/1".into(),
            names: names("a.example.com"),
            kind: OrderKind::New,
            placed,
        };
        let find = |name: &str, account: &str, now| {
            let request = OrderRequest {
                ca: &order.ca,
                account,
                names: &names(name),
                kind: OrderKind::Renewal,
                held: None,
            };
            OpenOrder::find(&files, "a.example.com", &request, now)
        };
        assert!(
            find("a.example.com", &order.account, placed)
                .expect("none")
                .is_none()
        );
        let pem = KeyPair::generate().expect("made").serialize_pem();
        order.store(&files, "a.example.com", &pem).expect("kept");
        let (found, key) = find("a.example.com", &order.account, placed)
            .expect("whole")
            .expect("there");
        assert_eq!(found, order);
        assert_eq!(key.expose_secret(), pem);

        let lost = |name: &str, account: &str, now| find(name, account, now).expect_err("lost");
        assert!(matches!(
            lost("b.example.com", &order.account, placed),
            OrderLost::Unwanted { .. }
        ));
        assert!(matches!(
            lost("a.example.com", "another", placed),
            OrderLost::Unwanted { .. }
        ));
        let late = placed + MAX_ORDER_AGE + Duration::from_secs(1);
        assert!(matches!(
            lost("a.example.com", &order.account, late),
            OrderLost::TooOld(_)
        ));
        std::fs::write(files.order_key("a.example.com"), &pem[..pem.len() / 2]).expect("written");
        assert!(matches!(
            lost("a.example.com", &order.account, placed),
            OrderLost::DamagedKey(_)
        ));
        std::fs::remove_file(files.order_key("a.example.com")).expect("removed");
        assert!(matches!(
            lost("a.example.com", &order.account, placed),
            OrderLost::NoKey(_)
        ));
        std::fs::write(files.order("a.example.com"), "{").expect("written");
        assert!(matches!(
            lost("a.example.com", &order.account, placed),
            OrderLost::Damaged(_)
        ));

        let minutes = Duration::from_mins;
        let held = |left| {
            let not_after = placed + left;
            Some(Validity {
                not_before: not_after - minutes(200),
                not_after,
            })
        };
        let longest = |left| longest_order(held(left), placed);
        assert_eq!(longest(minutes(5)), minutes(5) / 2);
        assert_eq!(longest(minutes(1)), minutes(1));
        assert_eq!(longest(minutes(90 * 24 * 60)), MAX_ORDER_AGE);
        assert_eq!(longest(Duration::ZERO), MAX_ORDER_AGE);
        assert_eq!(longest_order(None, placed), MAX_ORDER_AGE);

        OpenOrder::remove(&files, "a.example.com").expect("forgotten");
        OpenOrder::remove(&files, "a.example.com").expect("nothing left to forget");
        assert!(
            find("a.example.com", &order.account, placed)
                .expect("none")
                .is_none()
        );
    }
}
