//! The work of the played CA: its endpoints, from the directory to the chain.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD as B64, Engine};
use http::Response;
use http_body_util::BodyExt;
use rcgen::{CertificateParams, KeyPair, PublicKeyData, SerialNumber};
use serde_json::{Value, json};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use super::sending::Sending;
use super::{Answer, Authorization, Order, Scripted, Shared, USUAL_LIFE};

struct PublicKey(Vec<u8>);

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

/// A request whose signature has been verified.
#[derive(Clone, Copy)]
pub(super) struct Verified<'a> {
    pub endpoint: &'a str,
    pub path: &'a str,
    pub payload: &'a Value,
    pub account: &'a str,
}

impl Shared {
    /// Does what is scripted, or else what a CA does. `None` ends the connection without a response.
    pub(super) async fn respond(
        &self,
        scripted: Option<Scripted>,
        request: Verified<'_>,
    ) -> Option<Answer> {
        let Verified {
            endpoint,
            path,
            payload,
            account,
        } = request;
        let work = || self.work(endpoint, path, payload, account);
        Some(match scripted {
            None => work(),
            Some(Scripted::Refuse(kind, status, lines)) => with(problem(kind, status), lines),
            Some(Scripted::Html(status, lines)) => {
                let page = Sending::from("<html>\r\n<body>Come back later.</body>\r\n</html>\r\n");
                with(
                    Response::builder().status(status).body(page).unwrap(),
                    lines,
                )
            }
            Some(Scripted::Busy(times, retry_after)) => {
                work();
                self.state.lock().unwrap().orders[index_of(path)].busy = (times, retry_after);
                self.show_order(index_of(path))
            }
            Some(Scripted::Invalid(kind, times)) => {
                let mut state = self.state.lock().unwrap();
                let order = &mut state.orders[index_of(path)];
                (order.error, order.busy) = (Some(kind), (times, "1"));
                drop(state);
                self.show_order(index_of(path))
            }
            Some(Scripted::NotReplacing) => {
                let mut payload = payload.clone();
                payload["replaces"] = json!(null);
                self.work(endpoint, path, &payload, account)
            }
            Some(Scripted::ForeignIssuer) => self.chain_below("a foreign CA", path),
            Some(Scripted::ForgedIssuer) => self.chain_below("a played CA", path),
            Some(Scripted::Text(text)) => chain_answer(text.to_owned()),
            Some(Scripted::Life(begin, end)) => {
                let now = (self.clock)();
                let at = |offset: i64| {
                    let by = Duration::from_secs(offset.unsigned_abs());
                    if offset < 0 { now - by } else { now + by }
                };
                let life = Some((at(begin), at(end)));
                self.issue(index_of(path), payload["csr"].as_str().unwrap(), life);
                self.show_order(index_of(path))
            }
            Some(Scripted::WrongChain) => {
                let foreign = KeyPair::generate().unwrap();
                let params = CertificateParams::new(["ci.test".to_owned()]).unwrap();
                let leaf = params.signed_by(&foreign, &self.issuer).unwrap();
                chain_answer(format!("{}{}", leaf.pem(), self.issuer_pem))
            }
            Some(Scripted::Unmet) => self.fail(path),
            Some(Scripted::Silence) => std::future::pending().await,
            Some(Scripted::Hangup) => return None,
            Some(Scripted::Lost) => {
                work();
                return None;
            }
            Some(Scripted::Denied(kind, status)) => {
                work();
                problem(kind, status)
            }
            Some(Scripted::Endless(length)) => {
                json_answer(200, &json!(null)).map(|_| Sending::Endless(length))
            }
            Some(Scripted::Trickle) => {
                let (slow_bodies, body) = tokio::sync::mpsc::unbounded_channel();
                self.state.lock().unwrap().slow_bodies.push(slow_bodies);
                json_answer(200, &json!(null)).map(|_| Sending::Trickling(body))
            }
            Some(Scripted::WindowsLines) => {
                let (head, body) = work().into_parts();
                let text = body.collect().await.unwrap().to_bytes();
                let text = String::from_utf8_lossy(&text).replace('\n', "\r\n");
                Response::from_parts(head, Sending::from(text))
            }
        })
    }

    /// The chain of an order with another certificate of this common name in the issuer's place.
    fn chain_below(&self, issuer: &str, path: &str) -> Answer {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, issuer);
        let foreign = params.self_signed(&key).unwrap().pem();
        let state = self.state.lock().unwrap();
        let chain = state.orders[index_of(path)].chain.as_ref().unwrap();
        chain_answer(chain.replace(&self.issuer_pem, &foreign))
    }

    fn work(&self, endpoint: &str, path: &str, payload: &Value, account: &str) -> Answer {
        let index = index_of(path);
        match endpoint {
            "dir" | "directory" => self.directory(),
            "nonce" => Response::new(Sending::default()),
            "account" => self.account(account),
            "order" => self.new_order(payload, account),
            "o" => self.show_order(index),
            "authz" => json_answer(200, &self.authorization(index, parts_of(path).1)),
            "challenge" => {
                let (_, number, kind) = parts_of(path);
                self.state.lock().unwrap().orders[index].authorizations[number] =
                    Authorization::Valid;
                json_answer(200, &self.challenge(index, number, &kind))
            }
            "finalize" => {
                self.issue(index, payload["csr"].as_str().unwrap(), None);
                self.show_order(index)
            }
            "cert" => chain_answer(
                self.state.lock().unwrap().orders[index]
                    .chain
                    .clone()
                    .unwrap(),
            ),
            "renewal" => self.renewal_info(path),
            other => panic!("moorgate asked for {other}"),
        }
    }

    fn directory(&self) -> Answer {
        let state = self.state.lock().unwrap();
        let at = |endpoint: &str| format!("{}/{endpoint}", self.url);
        let profiles: HashMap<_, _> = state
            .profiles
            .iter()
            .map(|(name, _)| (*name, "a profile"))
            .collect();
        let mut directory = json!({
            "newNonce": at("nonce"), "newAccount": at("account"), "newOrder": at("order"),
            "revokeCert": at("revoke"), "keyChange": at("key"),
            "meta": { "profiles": profiles, "caaIdentities": state.identities },
        });
        if state.suggests || !state.windows.is_empty() {
            directory["renewalInfo"] = json!(at("renewal"));
        }
        json_answer(200, &directory)
    }

    fn account(&self, url: &str) -> Answer {
        let now = (self.clock)();
        let mut state = self.state.lock().unwrap();
        if let Some(Err(words)) = state.limits.as_mut().map(|limits| limits.account(now)) {
            state.accounts.remove(url);
            return limited(words);
        }
        with_location(json_answer(201, &json!({ "status": "valid" })), url)
    }

    fn new_order(&self, payload: &Value, account: &str) -> Answer {
        let now = (self.clock)();
        let mut guard = self.state.lock().unwrap();
        let state = &mut *guard;
        let replaced = payload["replaces"]
            .as_str()
            .and_then(|id| state.orders.get(certificate_of(id)));
        if replaced.is_some_and(|order| order.replaced) {
            return problem("alreadyReplaced", 409);
        }
        let identifiers = payload["identifiers"].clone();
        let order = Order {
            account: account.to_owned(),
            authorizations: vec![Authorization::Pending; identifiers.as_array().unwrap().len()],
            identifiers,
            profile: payload["profile"].clone(),
            replaces: payload["replaces"].clone(),
            chain: None,
            life: None,
            replaced: false,
            busy: (0, ""),
            error: None,
        };
        if let Some(limits) = &mut state.limits
            && let Err(words) =
                limits.order(account, &order.names(), !order.replaces.is_null(), now)
        {
            return limited(words);
        }
        state.orders.push(order);
        let index = state.orders.len() - 1;
        drop(guard);
        with_location(
            json_answer(201, &self.order(index)),
            &format!("{}/o/{index}", self.url),
        )
    }

    fn show_order(&self, index: usize) -> Answer {
        let mut order = self.order(index);
        let mut state = self.state.lock().unwrap();
        let (times, retry_after) = &mut state.orders[index].busy;
        if *times == 0 {
            return json_answer(200, &order);
        }
        *times -= 1;
        order["status"] = json!("processing");
        with(json_answer(200, &order), &[("retry-after", *retry_after)])
    }

    fn order(&self, index: usize) -> Value {
        let state = self.state.lock().unwrap();
        let Order {
            identifiers,
            profile,
            replaces,
            authorizations,
            chain,
            error,
            ..
        } = &state.orders[index];
        let has_failed = |one: &Authorization| matches!(one, Authorization::Invalid(_));
        let is = match chain {
            Some(_) => "valid",
            None if error.is_some() || authorizations.iter().any(has_failed) => "invalid",
            None if authorizations
                .iter()
                .all(|one| *one == Authorization::Valid) =>
            {
                "ready"
            }
            None => "pending",
        };
        let places: Vec<String> = (0..authorizations.len())
            .map(|number| format!("{}/authz/{index}-{number}", self.url))
            .collect();
        let mut order = json!({
            "status": is,
            "identifiers": identifiers,
            "authorizations": places,
            "finalize": format!("{}/finalize/{index}", self.url),
        });
        for (key, value) in [("profile", profile), ("replaces", replaces)] {
            if !value.is_null() {
                order[key] = value.clone();
            }
        }
        if let Some(kind) = error {
            order["error"] = document(kind, 500, "the CA was told to");
        }
        if chain.is_some() {
            order["certificate"] = json!(format!("{}/cert/{index}", self.url));
        }
        order
    }

    fn authorization(&self, index: usize, number: usize) -> Value {
        let offers = self.state.lock().unwrap().offers.clone();
        let kinds = if offers.is_empty() {
            vec!["http-01", "tls-alpn-01"]
        } else {
            offers
        };
        let challenges: Vec<Value> = kinds
            .iter()
            .map(|kind| self.challenge(index, number, kind))
            .collect();
        let state = self.state.lock().unwrap();
        let order = &state.orders[index];
        let status = match order.authorizations[number] {
            Authorization::Pending => "pending",
            Authorization::Valid => "valid",
            Authorization::Invalid(_) => "invalid",
        };
        let named = order.identifiers[number]["value"].as_str().unwrap();
        let base = named.strip_prefix("*.").unwrap_or(named);
        json!({
            "status": status,
            "identifier": { "type": order.identifiers[number]["type"], "value": base },
            "wildcard": base != named,
            "challenges": challenges,
        })
    }

    fn challenge(&self, index: usize, number: usize, kind: &str) -> Value {
        let state = self.state.lock().unwrap();
        let mut challenge = json!({
            "type": kind,
            "url": format!("{}/challenge/{index}-{number}-{kind}", self.url),
            "token": format!("a-token-of-more-than-22-characters-{index}-{number}"),
            "status": "pending",
        });
        match &state.orders[index].authorizations[number] {
            Authorization::Invalid(failed) if failed == kind => {
                challenge["status"] = json!("invalid");
                let kind = "urn:ietf:params:acme:error:connection";
                challenge["error"] =
                    json!({ "type": kind, "detail": "nobody answers", "status": 400 });
            }
            Authorization::Valid => challenge["status"] = json!("valid"),
            Authorization::Invalid(_) | Authorization::Pending => {}
        }
        challenge
    }

    fn fail(&self, path: &str) -> Answer {
        let (index, number, kind) = parts_of(path);
        let now = (self.clock)();
        let mut guard = self.state.lock().unwrap();
        let state = &mut *guard;
        let order = &mut state.orders[index];
        order.authorizations[number] = Authorization::Invalid(kind.clone());
        let name = order.names().swap_remove(number);
        if let Some(limits) = &mut state.limits {
            limits.failed(&order.account, &name, now);
        }
        drop(guard);
        json_answer(200, &self.challenge(index, number, &kind))
    }

    fn issue(&self, index: usize, csr: &str, life: Option<(SystemTime, SystemTime)>) {
        let der = B64.decode(csr).unwrap();
        let (_, request) = X509CertificationRequest::from_der(&der).unwrap();
        let info = &request.certification_request_info;
        let key = PublicKey(info.subject_pki.subject_public_key.data.to_vec());
        let now = (self.clock)();
        let mut guard = self.state.lock().unwrap();
        let state = &mut *guard;
        let order = &mut state.orders[index];
        let profile = state
            .profiles
            .iter()
            .find(|(name, _)| order.profile == *name);
        // Let's Encrypt dates certificates an hour back.
        let begin = now - Duration::from_secs(3600);
        let usual = (begin, begin + profile.map_or(USUAL_LIFE, |(_, life)| *life));
        let life = life.unwrap_or(usual);
        let mut params = CertificateParams::new(order.names()).unwrap();
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(SerialNumber::from(index as u64 + 1));
        (params.not_before, params.not_after) = (life.0.into(), life.1.into());
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        order.chain = Some(format!("{}{}", leaf.pem(), self.issuer_pem));
        order.life = Some(life);
        let replaces = order.replaces.as_str().map(certificate_of);
        if let Some(limits) = &mut state.limits {
            limits.issued(&order.account, &order.names(), replaces.is_some(), now);
        }
        if let Some(replaced) = replaces.and_then(|index| state.orders.get_mut(index)) {
            replaced.replaced = true;
        }
    }

    fn renewal_info(&self, path: &str) -> Answer {
        let now = (self.clock)();
        let state = self.state.lock().unwrap();
        let moment = |at: SystemTime| jiff::Timestamp::try_from(at).unwrap().to_string();
        if !state.suggests {
            let issued = state
                .orders
                .iter()
                .filter(|order| order.chain.is_some())
                .count();
            let (start, end) = state.windows[issued.saturating_sub(1).min(state.windows.len() - 1)];
            let now = jiff::Timestamp::try_from(now).unwrap();
            let at = |offset: i64| (now + jiff::SignedDuration::from_secs(offset)).to_string();
            let window = json!({ "start": at(start), "end": at(end) });
            let info = json!({ "suggestedWindow": window, "explanationURL": state.explanation });
            return json_answer(200, &info);
        }
        let id = path.rsplit('/').next().unwrap();
        let (begin, end) = state.orders[certificate_of(id)].life.unwrap();
        let window = match state.revoked {
            Some(revoked) if begin + Duration::from_secs(3600) <= revoked => {
                (revoked - 2 * DAY, revoked - DAY)
            }
            _ => {
                let life = end.duration_since(begin).unwrap();
                let ideal = end - life / if life < 10 * DAY { 2 } else { 3 };
                (ideal - life / 100, ideal + life / 100)
            }
        };
        let window = json!({ "start": moment(window.0), "end": moment(window.1) });
        with(
            json_answer(200, &json!({ "suggestedWindow": window })),
            &[("retry-after", "43200")],
        )
    }
}

/// The order of a certificate, by its identifier of RFC 9773 §4.1: serial numbers count the orders.
fn certificate_of(id: &str) -> usize {
    let serial = B64
        .decode(id.split('.').nth(1).expect("a serial number"))
        .expect("base64url");
    serial
        .iter()
        .fold(0, |number, byte| number << 8 | usize::from(*byte))
        - 1
}

/// The order of a path, the number of a name in it, and the type of a challenge, as far as it has
/// them.
pub(super) fn parts_of(path: &str) -> (usize, usize, String) {
    let mut parts = path.rsplit('/').next().unwrap().splitn(3, '-');
    let mut number = || {
        parts
            .next()
            .and_then(|number| number.parse().ok())
            .unwrap_or_default()
    };
    let (index, of) = (number(), number());
    (index, of, parts.next().unwrap_or_default().to_owned())
}

fn index_of(path: &str) -> usize {
    parts_of(path).0
}

fn json_answer(status: u16, value: &Value) -> Answer {
    let body = Sending::from(value.to_string());
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(body)
        .unwrap()
}

fn chain_answer(chain: String) -> Answer {
    let answer = Response::builder().header("content-type", "application/pem-certificate-chain");
    answer.body(Sending::from(chain)).unwrap()
}

pub(super) fn problem(kind: &str, status: u16) -> Answer {
    said(kind, status, "the CA was told to")
}

fn said(kind: &str, status: u16, words: &str) -> Answer {
    json_answer(status, &document(kind, status, words))
}

/// RFC 8555 §6.7.
fn document(kind: &str, status: u16, words: &str) -> Value {
    json!({ "type": format!("urn:ietf:params:acme:error:{kind}"), "detail": words, "status": status })
}

fn limited(words: &str) -> Answer {
    with(said("rateLimited", 429, words), &[("retry-after", "3600")])
}

fn with(mut answer: Answer, lines: &[(&'static str, &'static str)]) -> Answer {
    for (name, value) in lines {
        answer.headers_mut().insert(*name, value.parse().unwrap());
    }
    answer
}

fn with_location(mut answer: Answer, url: &str) -> Answer {
    answer
        .headers_mut()
        .insert("location", url.parse().unwrap());
    answer
}

const DAY: Duration = Duration::from_secs(86_400);
