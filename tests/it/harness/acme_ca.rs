//! A CA that the test plays: RFC 8555 and RFC 9773 as far as a client sees them. It verifies each signature
//! and each nonce, believes every name without looking, and does once what it is told to.

use std::collections::{HashMap, HashSet, VecDeque};
use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD as B64, Engine};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PublicKeyData};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use super::tls_server;

/// The CA. It ends with the test's runtime.
pub struct AcmeCa {
    url: String,
    roots: String,
    shared: Arc<Shared>,
}

struct Shared {
    url: String,
    issuer: Issuer<'static, KeyPair>,
    issuer_pem: String,
    world: Mutex<World>,
    changed: Notify,
}

#[derive(Default)]
struct World {
    count: usize,
    nonces: HashSet<String>,
    /// The public keys of accounts, uncompressed points, by their URL.
    accounts: HashMap<String, Vec<u8>>,
    orders: Vec<Order>,
    /// What was asked: the endpoint, and the payload.
    asked: Vec<(String, Value)>,
    once: HashMap<&'static str, VecDeque<Told>>,
    profiles: Vec<&'static str>,
    /// As which it stands in DNS.
    identities: Vec<&'static str>,
    /// The challenges that it offers; http-01 without any.
    offers: Vec<&'static str>,
    /// The renewal windows of certificates, first to last, as offsets from now in seconds.
    windows: Vec<(i64, i64)>,
}

struct Order {
    identifiers: Value,
    profile: Value,
    replaces: Value,
    authorized: bool,
    chain: Option<String>,
    /// How often it still seems to be processed, and for how long each time.
    busy: (u32, &'static str),
}

/// What an endpoint is told to do the next time, instead of its work.
#[derive(Clone, Debug)]
pub enum Told {
    /// Refuse by a problem: its type and status, and further header lines.
    Refuse(&'static str, u16, &'static [(&'static str, &'static str)]),
    /// Answer HTML.
    Html(u16, &'static [(&'static str, &'static str)]),
    /// Issue, but say this often that the order is still being processed, and for how long.
    Busy(u32, &'static str),
    /// Send a certificate for another key.
    WrongChain,
    /// Never answer.
    Silence,
}

struct PublicKey(Vec<u8>);

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

type Answer = Response<Full<Bytes>>;

impl AcmeCa {
    pub async fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let server = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
        let tls = tls_server(&server, &key);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, "a played CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer_pem = params.self_signed(&key).unwrap().pem();
        let (world, changed) = (Mutex::default(), Notify::new());
        let shared = Arc::new(Shared {
            url: url.clone(),
            issuer: Issuer::new(params, key),
            issuer_pem,
            world,
            changed,
        });
        let ca = shared.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (tls, ca) = (tls.clone(), ca.clone());
                tokio::spawn(async move {
                    let Ok(stream) = tls.accept(tcp).await else { return };
                    let service = service_fn(move |request| {
                        let ca = ca.clone();
                        async move { Ok::<_, Infallible>(ca.answer(request).await) }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { url, roots: server.pem(), shared }
    }

    /// The `[[ca]]` of moorgate.toml. The roots lie in a directory that outlives the gateway.
    pub fn toml(&self, directory: &Path, name: &str) -> String {
        let roots = directory.join(format!("{name}.pem"));
        std::fs::write(&roots, &self.roots).unwrap();
        format!("[[ca]]\ndirectory = \"{}/dir\"\nroots = \"{}\"\n", self.url, roots.display())
    }

    /// Tells an endpoint what to do the next time.
    pub fn once(&self, endpoint: &'static str, told: Told) {
        self.world(|world| world.once.entry(endpoint).or_default().push_back(told));
    }

    /// Which profiles there are.
    pub fn profiles(&self, profiles: &[&'static str]) {
        self.world(|world| world.profiles = profiles.to_vec());
    }

    /// As which it stands in DNS.
    pub fn identities(&self, identities: &[&'static str]) {
        self.world(|world| world.identities = identities.to_vec());
    }

    /// Which challenges it offers.
    pub fn offers(&self, kinds: &[&'static str]) {
        self.world(|world| world.offers = kinds.to_vec());
    }

    /// Suggests windows for the first, the second certificate and so on; the last one holds for all that follow.
    pub fn windows(&self, windows: &[(i64, i64)]) {
        self.world(|world| world.windows = windows.to_vec());
    }

    /// The payloads that an endpoint was asked with so far.
    pub fn asked(&self, endpoint: &str) -> Vec<Value> {
        let all = |world: &mut World| world.asked.iter().filter(|(at, _)| at == endpoint).cloned().collect();
        let all: Vec<(String, Value)> = self.world(all);
        all.into_iter().map(|(_, payload)| payload).collect()
    }

    /// Waits until an endpoint has been asked so often.
    pub async fn until_asked(&self, endpoint: &str, times: usize) {
        let waited = async {
            loop {
                let changed = self.shared.changed.notified();
                if self.asked(endpoint).len() >= times {
                    return;
                }
                changed.await;
            }
        };
        let done = tokio::time::timeout(Duration::from_secs(30), waited).await;
        let all = |world: &mut World| world.asked.iter().map(|(at, _)| at.clone()).collect::<Vec<_>>();
        assert!(done.is_ok(), "{endpoint} was not asked {times} times: {:?}", self.world(all));
    }

    fn world<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        change(&mut self.shared.world.lock().unwrap())
    }
}

impl Shared {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let path = parts.uri.path().to_owned();
        let endpoint = path.split('/').nth(1).unwrap().to_owned();
        let told = {
            let mut world = self.world.lock().unwrap();
            let told = world.once.iter_mut().find(|(at, _)| **at == endpoint);
            told.and_then(|(_, told)| told.pop_front())
        };
        let payload = if parts.method == Method::POST {
            self.verified(&path, &body)
        } else {
            Ok((json!(null), String::new()))
        };
        let mut answer = match payload {
            Err(problem) => *problem,
            Ok((payload, account)) => {
                self.world.lock().unwrap().asked.push((endpoint.clone(), payload.clone()));
                self.told_or_work(told, &endpoint, &path, &payload, &account).await
            }
        };
        let mut world = self.world.lock().unwrap();
        world.count += 1;
        let nonce = format!("nonce-{}", world.count);
        world.nonces.insert(nonce.clone());
        answer.headers_mut().insert("replay-nonce", nonce.parse().unwrap());
        drop(world);
        self.changed.notify_waiters();
        answer
    }

    async fn told_or_work(
        &self,
        told: Option<Told>,
        endpoint: &str,
        path: &str,
        payload: &Value,
        account: &str,
    ) -> Answer {
        match told {
            None => self.work(endpoint, path, payload, account),
            Some(Told::Refuse(kind, status, lines)) => with(problem(kind, status), lines),
            Some(Told::Html(status, lines)) => {
                let page = Full::from("<html><body>Come back later.</body></html>");
                with(Response::builder().status(status).body(page).unwrap(), lines)
            }
            Some(Told::Busy(times, retry_after)) => {
                let answer = self.work(endpoint, path, payload, account);
                self.world.lock().unwrap().orders[index_of(path)].busy = (times, retry_after);
                drop(answer);
                self.show_order(index_of(path))
            }
            Some(Told::WrongChain) => {
                let stranger = KeyPair::generate().unwrap();
                let params = CertificateParams::new(["ci.test".to_owned()]).unwrap();
                let leaf = params.signed_by(&stranger, &self.issuer).unwrap();
                chain_answer(format!("{}{}", leaf.pem(), self.issuer_pem))
            }
            Some(Told::Silence) => std::future::pending().await,
        }
    }

    /// The payload, and the account that signed it (RFC 8555 §6.2).
    fn verified(&self, path: &str, body: &[u8]) -> Result<(Value, String), Box<Answer>> {
        let jws: Value = serde_json::from_slice(body).expect("a JWS");
        let part = |name: &str| B64.decode(jws[name].as_str().unwrap()).expect("base64url");
        let protected: Value = serde_json::from_slice(&part("protected")).unwrap();
        assert_eq!(protected["alg"], "ES256");
        assert_eq!(protected["url"], format!("{}{path}", self.url), "signed for another URL");
        let mut world = self.world.lock().unwrap();
        if !world.nonces.remove(protected["nonce"].as_str().unwrap()) {
            return Err(Box::new(problem("badNonce", 400)));
        }
        let account = protected["kid"].as_str().unwrap_or_default().to_owned();
        let key = match &protected["jwk"] {
            Value::Null => match world.accounts.get(&account) {
                Some(key) => key.clone(),
                None => return Err(Box::new(problem("accountDoesNotExist", 400))),
            },
            jwk => {
                let half = |name: &str| B64.decode(jwk[name].as_str().unwrap()).unwrap();
                [vec![4], half("x"), half("y")].concat()
            }
        };
        let signed = format!("{}.{}", jws["protected"].as_str().unwrap(), jws["payload"].as_str().unwrap());
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &key);
        public.verify(signed.as_bytes(), &part("signature")).expect("the signature holds");
        let payload = part("payload");
        let payload =
            if payload.is_empty() { Value::Null } else { serde_json::from_slice(&payload).unwrap() };
        if protected["kid"].is_null() {
            let url = format!("{}/account/{}", self.url, world.accounts.len());
            world.accounts.insert(url.clone(), key);
            return Ok((payload, url));
        }
        Ok((payload, account))
    }

    fn work(&self, endpoint: &str, path: &str, payload: &Value, account: &str) -> Answer {
        let index = index_of(path);
        match endpoint {
            "dir" => self.directory(),
            "nonce" => Response::new(Full::default()),
            "account" => with_location(json_answer(201, &json!({ "status": "valid" })), account),
            "order" => self.new_order(payload),
            "o" => self.show_order(index),
            "authz" => json_answer(200, &self.authorization(index)),
            "challenge" => {
                self.world.lock().unwrap().orders[index].authorized = true;
                json_answer(200, &self.authorization(index)["challenges"][0])
            }
            "finalize" => {
                self.issue(index, payload["csr"].as_str().unwrap());
                self.show_order(index)
            }
            "cert" => chain_answer(self.world.lock().unwrap().orders[index].chain.clone().unwrap()),
            "renewal" => self.renewal_info(),
            other => panic!("moorgate asked for {other}"),
        }
    }

    fn directory(&self) -> Answer {
        let world = self.world.lock().unwrap();
        let at = |endpoint: &str| format!("{}/{endpoint}", self.url);
        let profiles: HashMap<_, _> = world.profiles.iter().map(|profile| (*profile, "a profile")).collect();
        let mut directory = json!({
            "newNonce": at("nonce"), "newAccount": at("account"), "newOrder": at("order"),
            "revokeCert": at("revoke"), "keyChange": at("key"), "meta": { "profiles": profiles, "caaIdentities": world.identities },
        });
        if !world.windows.is_empty() {
            directory["renewalInfo"] = json!(at("renewal"));
        }
        json_answer(200, &directory)
    }

    fn new_order(&self, payload: &Value) -> Answer {
        let mut world = self.world.lock().unwrap();
        world.orders.push(Order {
            identifiers: payload["identifiers"].clone(),
            profile: payload["profile"].clone(),
            replaces: payload["replaces"].clone(),
            authorized: false,
            chain: None,
            busy: (0, ""),
        });
        let index = world.orders.len() - 1;
        drop(world);
        with_location(json_answer(201, &self.order(index)), &format!("{}/o/{index}", self.url))
    }

    fn show_order(&self, index: usize) -> Answer {
        let mut order = self.order(index);
        let mut world = self.world.lock().unwrap();
        let (times, retry_after) = &mut world.orders[index].busy;
        if *times == 0 {
            return json_answer(200, &order);
        }
        *times -= 1;
        order["status"] = json!("processing");
        with(json_answer(200, &order), &[("retry-after", *retry_after)])
    }

    fn order(&self, index: usize) -> Value {
        let world = self.world.lock().unwrap();
        let Order { identifiers, profile, replaces, authorized, chain, busy: _ } = &world.orders[index];
        let is = match (chain, authorized) {
            (Some(_), _) => "valid",
            (None, true) => "ready",
            (None, false) => "pending",
        };
        let mut order = json!({
            "status": is,
            "identifiers": identifiers,
            "authorizations": [format!("{}/authz/{index}", self.url)],
            "finalize": format!("{}/finalize/{index}", self.url),
        });
        for (key, value) in [("profile", profile), ("replaces", replaces)] {
            if !value.is_null() {
                order[key] = value.clone();
            }
        }
        if chain.is_some() {
            order["certificate"] = json!(format!("{}/cert/{index}", self.url));
        }
        order
    }

    fn authorization(&self, index: usize) -> Value {
        let world = self.world.lock().unwrap();
        let order = &world.orders[index];
        let status = if order.authorized { "valid" } else { "pending" };
        let named = order.identifiers[0]["value"].as_str().unwrap();
        let base = named.strip_prefix("*.").unwrap_or(named);
        let kinds = if world.offers.is_empty() { &["http-01"][..] } else { &world.offers };
        let challenge = |kind: &&str| {
            json!({
                "type": kind,
                "url": format!("{}/challenge/{index}", self.url),
                "token": "a-token-of-more-than-22-characters",
                "status": status,
            })
        };
        json!({
            "status": status,
            "identifier": { "type": order.identifiers[0]["type"], "value": base },
            "wildcard": base != named,
            "challenges": kinds.iter().map(challenge).collect::<Vec<_>>(),
        })
    }

    fn issue(&self, index: usize, csr: &str) {
        let der = B64.decode(csr).unwrap();
        let (_, request) = X509CertificationRequest::from_der(&der).unwrap();
        let info = &request.certification_request_info;
        let key = PublicKey(info.subject_pki.subject_public_key.data.to_vec());
        let mut world = self.world.lock().unwrap();
        let order = &mut world.orders[index];
        let names = order.identifiers.as_array().unwrap().iter();
        let names: Vec<String> = names.map(|one| one["value"].as_str().unwrap().to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.use_authority_key_identifier_extension = true;
        params.not_before = (SystemTime::now() - Duration::from_secs(3600)).into();
        // As long as Let's Encrypt's, from an hour ago.
        let hours = if order.profile == "shortlived" { 160 } else { 90 * 24 };
        params.not_after = (SystemTime::now() + Duration::from_secs((hours - 1) * 3600)).into();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        order.chain = Some(format!("{}{}", leaf.pem(), self.issuer_pem));
    }

    fn renewal_info(&self) -> Answer {
        let world = self.world.lock().unwrap();
        let issued = world.orders.iter().filter(|order| order.chain.is_some()).count();
        let (start, end) = world.windows[(issued - 1).min(world.windows.len() - 1)];
        let now = jiff::Timestamp::now();
        let at = |offset: i64| (now + jiff::SignedDuration::from_secs(offset)).to_string();
        json_answer(200, &json!({ "suggestedWindow": { "start": at(start), "end": at(end) } }))
    }
}

fn index_of(path: &str) -> usize {
    path.rsplit('/').next().and_then(|index| index.parse().ok()).unwrap_or_default()
}

fn json_answer(status: u16, value: &Value) -> Answer {
    let body = Full::from(value.to_string());
    Response::builder().status(status).header("content-type", "application/json").body(body).unwrap()
}

fn chain_answer(chain: String) -> Answer {
    Response::builder()
        .header("content-type", "application/pem-certificate-chain")
        .body(Full::from(chain))
        .unwrap()
}

fn problem(kind: &str, status: u16) -> Answer {
    let kind = format!("urn:ietf:params:acme:error:{kind}");
    json_answer(status, &json!({ "type": kind, "detail": "the CA was told to", "status": status }))
}

fn with(mut answer: Answer, lines: &[(&'static str, &'static str)]) -> Answer {
    for (name, value) in lines {
        answer.headers_mut().insert(*name, value.parse().unwrap());
    }
    answer
}

fn with_location(mut answer: Answer, url: &str) -> Answer {
    answer.headers_mut().insert("location", url.parse().unwrap());
    answer
}
