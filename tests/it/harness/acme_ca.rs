//! A CA that the test plays: RFC 8555 and RFC 9773 as far as a client sees them. It verifies each
//! signature and each nonce, believes every name without looking, and does what it is told to.

mod jws;
mod limits;
mod sending;
mod work;

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use http::{Method, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;

pub use self::limits::Limits;
use self::sending::Sending;
use super::tls_server;

/// The CA. It ends with the test's runtime.
pub struct AcmeCa {
    url: String,
    roots: String,
    shared: Arc<Shared>,
}

/// What it is, where it is not any CA that has just been founded.
pub struct CaOptions {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The host of its URLs; its address without one.
    pub host: Option<&'static str>,
    /// What its clock shows.
    pub clock: Clock,
    /// Whether it keeps to the limits of Let's Encrypt.
    pub has_limits: bool,
}

pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;
pub type Handler = Box<dyn FnMut(&CaRequest) -> Option<Scripted> + Send>;

/// What it is asked for.
pub struct CaRequest {
    pub endpoint: String,
    /// Of a challenge: its type and the name that is to be proved.
    pub challenge: Option<(String, String)>,
}

impl Default for CaOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            host: None,
            clock: Arc::new(SystemTime::now),
            has_limits: false,
        }
    }
}

struct Shared {
    url: String,
    issuer: Issuer<'static, KeyPair>,
    issuer_pem: String,
    clock: Clock,
    state: Mutex<CaState>,
    changed: Notify,
}

#[derive(Default)]
struct CaState {
    count: usize,
    nonces: HashSet<String>,
    /// The public keys of accounts, uncompressed points, by their URL.
    accounts: HashMap<String, Vec<u8>>,
    orders: Vec<Order>,
    /// What was asked: the endpoint, and the payload; of a challenge, its type and name.
    asked: Vec<(String, Value)>,
    once: HashMap<&'static str, VecDeque<Scripted>>,
    /// Decides when nothing is scripted.
    handler: Option<Handler>,
    profiles: Vec<(&'static str, Duration)>,
    /// As which it stands in DNS.
    identities: Vec<&'static str>,
    /// The challenges that it offers; http-01 and tls-alpn-01 without any.
    offers: Vec<&'static str>,
    /// The renewal windows of certificates, first to last, as offsets from now in seconds.
    windows: Vec<(i64, i64)>,
    /// The page that explains the windows.
    explanation: Option<&'static str>,
    /// Each certificate has a window of its own.
    suggests: bool,
    /// What was issued before this moment is to be renewed at once.
    revoked: Option<SystemTime>,
    limits: Option<Limits>,
    /// The answers that trickle.
    slow_bodies: Vec<UnboundedSender<()>>,
}

struct Order {
    account: String,
    identifiers: Value,
    profile: Value,
    replaces: Value,
    /// For each identifier: whether it is proved, or what has failed.
    authorizations: Vec<Authorization>,
    chain: Option<String>,
    /// Its life, once it is issued.
    life: Option<(SystemTime, SystemTime)>,
    replaced: bool,
    /// How often it still seems to be processed, and for how long each time.
    busy: (u32, &'static str),
    /// What has made it invalid.
    error: Option<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Authorization {
    Pending,
    Valid,
    /// By this challenge.
    Invalid(String),
}

/// What an endpoint does the next time, instead of its work.
#[derive(Clone, Debug)]
pub enum Scripted {
    /// Refuse by a problem: its type and status, and further header lines.
    Refuse(&'static str, u16, &'static [(&'static str, &'static str)]),
    /// Answer HTML.
    Html(u16, &'static [(&'static str, &'static str)]),
    /// Issue, but say this often that the order is still being processed, and for how long.
    Busy(u32, &'static str),
    /// Say so often that the order is being processed, and then that it is invalid, for a problem
    /// of this type.
    Invalid(&'static str, u32),
    /// Make an order, but no replacement.
    NotReplacing,
    /// Send a certificate for another key.
    WrongChain,
    /// Send the certificate below one that has not signed it.
    ForeignIssuer,
    /// Send the certificate below one that has not signed it, but has its issuer's name.
    ForgedIssuer,
    /// Send this in place of the chain.
    Text(&'static str),
    /// Issue a certificate that begins and ends so many seconds from now.
    Life(i64, i64),
    /// Find the challenge not met.
    Unmet,
    /// Never answer.
    Silence,
    /// Close the connection, nothing done.
    Hangup,
    /// Do what was asked, and close the connection instead of the answer.
    Lost,
    /// Do what was asked, and answer with a problem: its type and status.
    Denied(&'static str, u16),
    /// Answer with so many bytes.
    Endless(u64),
    /// Answer with a byte now and then: [`AcmeCa::drip`].
    Trickle,
    /// Do what was asked, and send the chain with the line ends of Windows.
    WindowsLines,
}

type Answer = Response<Sending>;

impl AcmeCa {
    pub async fn new() -> Self {
        Self::with(CaOptions::default()).await
    }

    pub async fn with(options: CaOptions) -> Self {
        let CaOptions {
            listen,
            host,
            clock,
            has_limits,
        } = options;
        let listener = TcpListener::bind(listen).await.unwrap();
        let address = listener.local_addr().unwrap();
        let host = host.map_or_else(|| address.to_string(), str::to_owned);
        let key = KeyPair::generate().unwrap();
        let names = [address.ip().to_string(), host.clone()];
        let names = names
            .into_iter()
            .filter(|name| !name.contains(':'))
            .collect::<Vec<_>>();
        let server = CertificateParams::new(names)
            .unwrap()
            .self_signed(&key)
            .unwrap();
        let tls = tls_server(&server, &key);
        let url = format!("https://{host}");
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "a played CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer_pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let state = CaState {
            limits: has_limits.then(Limits::new),
            ..CaState::default()
        };
        let (state, changed) = (Mutex::new(state), Notify::new());
        let shared = Arc::new(Shared {
            url: url.clone(),
            issuer,
            issuer_pem,
            clock,
            state,
            changed,
        });
        let ca = shared.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                tcp.set_nodelay(true).unwrap();
                let (tls, ca) = (tls.clone(), ca.clone());
                tokio::spawn(async move {
                    let Ok(stream) = tls.accept(tcp).await else {
                        return;
                    };
                    let service = service_fn(move |request| {
                        let ca = ca.clone();
                        async move {
                            ca.answer(request)
                                .await
                                .ok_or_else(|| std::io::Error::other("hung up"))
                        }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self {
            url,
            roots: server.pem(),
            shared,
        }
    }

    /// The `[[ca]]` of moorgate.toml. The roots lie in a directory that outlives the gateway.
    pub fn toml(&self, directory: &Path, name: &str) -> String {
        let roots = self.write_roots(directory, name);
        format!(
            "[[ca]]\ndirectory = \"{}/dir\"\nroots = \"{roots}\"\n",
            self.url
        )
    }

    /// Writes what its server's certificate is verified by, and returns the path.
    pub fn write_roots(&self, directory: &Path, name: &str) -> String {
        let roots = directory.join(format!("{name}.pem"));
        std::fs::write(&roots, &self.roots).unwrap();
        roots.display().to_string()
    }

    /// Tells an endpoint what to do the next time.
    pub fn once(&self, endpoint: &'static str, scripted: Scripted) {
        self.state(|state| state.once.entry(endpoint).or_default().push_back(scripted));
    }

    /// Tells an endpoint what to do from now on, each time.
    pub fn always(&self, endpoint: &'static str, scripted: Scripted) {
        self.state(|state| {
            state.handler = Some(Box::new(move |asked| {
                (asked.endpoint == endpoint).then(|| scripted.clone())
            }))
        });
    }

    /// Lets something decide from now on.
    pub fn decides(&self, handler: Handler) {
        self.state(|state| state.handler = Some(handler));
    }

    /// Has done what it was still processing.
    pub fn finishes(&self) {
        self.state(|state| {
            state
                .orders
                .iter_mut()
                .for_each(|order| order.busy = (0, ""))
        });
    }

    /// Sends the next byte of answers that trickle.
    pub fn drip(&self) {
        self.state(|state| state.slow_bodies.retain(|answer| answer.send(()).is_ok()));
    }

    /// Does its work again from now on.
    pub fn recovers(&self) {
        self.state(|state| (state.handler, state.once) = (None, HashMap::new()));
    }

    /// Which profiles there are. Certificates live as long as Let's Encrypt's.
    pub fn profiles(&self, profiles: &[&'static str]) {
        let life = |profile| {
            if profile == "shortlived" {
                SHORT_LIFE
            } else {
                USUAL_LIFE
            }
        };
        self.profiles_for(
            &profiles
                .iter()
                .map(|profile| (*profile, life(*profile)))
                .collect::<Vec<_>>(),
        );
    }

    /// As which it stands in DNS.
    pub fn identities(&self, identities: &[&'static str]) {
        self.state(|state| state.identities = identities.to_vec());
    }

    /// Which challenges it offers.
    pub fn offers(&self, kinds: &[&'static str]) {
        self.state(|state| state.offers = kinds.to_vec());
    }

    /// Which profiles there are, and how long a certificate of each lives.
    pub fn profiles_for(&self, profiles: &[(&'static str, Duration)]) {
        self.state(|state| state.profiles = profiles.to_vec());
    }

    /// Suggests windows for the first, the second certificate and so on; the last one holds for all
    /// that follow.
    pub fn windows(&self, windows: &[(i64, i64)]) {
        self.state(|state| state.windows = windows.to_vec());
    }

    /// Names a page that explains its windows.
    pub fn explains(&self, url: &'static str) {
        self.state(|state| state.explanation = Some(url));
    }

    /// Suggests for each certificate a window around the moment at which a third of its life is
    /// left, or half of a short one.
    pub fn suggests(&self) {
        self.state(|state| state.suggests = true);
    }

    /// Wants all certificates that exist replaced at once.
    pub fn revokes_all(&self) {
        let now = (self.shared.clock)();
        self.state(|state| state.revoked = Some(now));
    }

    /// The payloads that an endpoint was asked with so far.
    pub fn asked(&self, endpoint: &str) -> Vec<Value> {
        let all = |state: &mut CaState| {
            state
                .asked
                .iter()
                .filter(|(at, _)| at == endpoint)
                .cloned()
                .collect()
        };
        let all: Vec<(String, Value)> = self.state(all);
        all.into_iter().map(|(_, payload)| payload).collect()
    }

    /// How often it was asked for anything.
    pub fn requests(&self) -> usize {
        self.state(|state| state.asked.len())
    }

    /// Waits until it was asked for anything so often.
    pub async fn until_requests(&self, times: usize) {
        loop {
            let changed = self.shared.changed.notified();
            if self.requests() >= times {
                return;
            }
            changed.await;
        }
    }

    /// The certificates that were issued, oldest first: the names, the profile, and the life.
    pub fn issued(&self) -> Vec<(Vec<String>, String, (SystemTime, SystemTime))> {
        self.state(|state| {
            let issued = state.orders.iter().filter_map(|order| {
                Some((
                    order.names(),
                    order.profile.as_str().unwrap_or_default().to_owned(),
                    order.life?,
                ))
            });
            issued.collect()
        })
    }

    /// What was refused because a limit was used up.
    pub fn refused_for_limits(&self) -> Vec<String> {
        self.state(|state| {
            state
                .limits
                .as_ref()
                .map_or_else(Vec::new, |limits| limits.refused.clone())
        })
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
        let all = |state: &mut CaState| {
            state
                .asked
                .iter()
                .map(|(at, _)| at.clone())
                .collect::<Vec<_>>()
        };
        assert!(
            done.is_ok(),
            "{endpoint} was not asked {times} times: {:?}",
            self.state(all)
        );
    }

    fn state<T>(&self, change: impl FnOnce(&mut CaState) -> T) -> T {
        change(&mut self.shared.state.lock().unwrap())
    }
}

impl Order {
    fn names(&self) -> Vec<String> {
        let names = self.identifiers.as_array().unwrap().iter();
        names
            .map(|one| one["value"].as_str().unwrap().to_owned())
            .collect()
    }
}

impl Shared {
    /// `None`: the connection is to be closed instead.
    async fn answer(&self, request: Request<Incoming>) -> Option<Answer> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        let path = parts.uri.path().to_owned();
        let endpoint = path.split('/').nth(1).unwrap().to_owned();
        let scripted = self.state.lock().unwrap().next_scripted(&endpoint, &path);
        let payload = if parts.method == Method::POST {
            self.verified(&path, &body)
        } else {
            Ok((json!(null), String::new()))
        };
        let answer = match payload {
            Err(problem) => Some(*problem),
            Ok((payload, account)) => {
                self.state
                    .lock()
                    .unwrap()
                    .record(&endpoint, &path, &payload);
                self.changed.notify_waiters();
                let verified = work::Verified {
                    endpoint: &endpoint,
                    path: &path,
                    payload: &payload,
                    account: &account,
                };
                self.respond(scripted, verified).await
            }
        };
        let mut state = self.state.lock().unwrap();
        state.count += 1;
        let nonce = format!("nonce-{}", state.count);
        state.nonces.insert(nonce.clone());
        drop(state);
        let mut answer = answer?;
        let date = httpdate::fmt_http_date((self.clock)());
        for (name, value) in [("replay-nonce", nonce), ("date", date)] {
            answer.headers_mut().insert(name, value.parse().unwrap());
        }
        Some(answer)
    }
}

impl CaState {
    fn next_scripted(&mut self, endpoint: &str, path: &str) -> Option<Scripted> {
        let once = self.once.get_mut(endpoint).and_then(VecDeque::pop_front);
        once.or_else(|| {
            let asked = CaRequest {
                endpoint: endpoint.to_owned(),
                challenge: self.challenge(endpoint, path),
            };
            self.handler.as_mut().and_then(|handler| handler(&asked))
        })
    }

    fn record(&mut self, endpoint: &str, path: &str, payload: &Value) {
        let recorded = match self.challenge(endpoint, path) {
            Some((kind, name)) => json!({ "type": kind, "name": name }),
            None => payload.clone(),
        };
        self.asked.push((endpoint.to_owned(), recorded));
    }

    /// The type of a challenge, and the name that is to be proved by it.
    fn challenge(&self, endpoint: &str, path: &str) -> Option<(String, String)> {
        let (index, number, kind) = work::parts_of(path);
        (endpoint == "challenge").then(|| (kind, self.orders[index].names().swap_remove(number)))
    }
}

const USUAL_LIFE: Duration = Duration::from_secs(90 * 86_400);
const SHORT_LIFE: Duration = Duration::from_secs(160 * 3600);
