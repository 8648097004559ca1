//! A registry that wants moorgate's credentials to go elsewhere, at each product: a server there
//! records every byte that comes, and none of a credential does.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::fixture::{NAME, ProductFixture, products};
use crate::harness::played::{PlayedCredentials, Switches, digest};
use crate::harness::registry_client::{ClientAnswer, with_digest};
use crate::harness::{basic, settle};

/// A server that keeps what comes, and answers everything. Dropped, it stops listening.
struct RecordingServer {
    port: u16,
    read: Arc<Mutex<Vec<u8>>>,
    listening: JoinHandle<()>,
}

impl RecordingServer {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let read = Arc::<Mutex<Vec<u8>>>::default();
        let all = read.clone();
        let listening = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let all = all.clone();
                tokio::spawn(async move {
                    let mut buffer = [0; 4096];
                    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                        all.lock().unwrap().extend_from_slice(&buffer[..count]);
                        let _ = stream.write_all(ANSWER.as_bytes()).await;
                    }
                });
            }
        });
        Self {
            port,
            read,
            listening,
        }
    }

    /// What came since the last call.
    async fn take(&self) -> String {
        settle().await;
        let read = std::mem::take(&mut *self.read.lock().unwrap());
        String::from_utf8_lossy(&read).into_owned()
    }
}

impl Drop for RecordingServer {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// What any client of an API or a registry would go on with.
const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 54\r\n\r\n\
                      {\"token\":\"t\",\"access_token\":\"t\",\"refresh_token\":\"t\"  }";

/// What a registry names instead of what is its own. `PORT` is that of the recording server, on
/// all of this machine's names, and `REGISTRY` the authority of the registry.
struct HostileCase {
    name: &'static str,
    is_over_tls: bool,
    /// Further keys of `[upstream]`.
    keys: &'static str,
    target: &'static str,
    set: fn(&mut Switches, String),
    calls: ClientCalls,
    /// Whether the other server may be asked, without credentials.
    is_followed: bool,
}

impl HostileCase {
    const fn new(name: &'static str, target: &'static str, set: fn(&mut Switches, String)) -> Self {
        Self {
            name,
            is_over_tls: false,
            keys: "",
            target,
            set,
            calls: ClientCalls::Any,
            is_followed: false,
        }
    }

    const fn of(self, calls: ClientCalls) -> Self {
        Self { calls, ..self }
    }

    const fn over_tls(self) -> Self {
        Self {
            is_over_tls: true,
            ..self
        }
    }

    const fn keys(self, keys: &'static str) -> Self {
        Self { keys, ..self }
    }

    const fn followed(self) -> Self {
        Self {
            is_followed: true,
            ..self
        }
    }
}

fn realm(switches: &mut Switches, target: String) {
    switches.realm = Some(target);
}

fn location(switches: &mut Switches, target: String) {
    switches.location = Some(target);
}

fn redirects(switches: &mut Switches, target: String) {
    switches.redirects_blobs = true;
    switches.blob_redirect = Some(target.clone());
    switches.manifest_redirect = Some(target);
}

const REALMS: [HostileCase; 7] = [
    HostileCase::new(
        "realm at another host",
        "http://localhost:PORT/token",
        realm,
    ),
    HostileCase::new(
        "realm at another port",
        "http://127.0.0.1:PORT/token",
        realm,
    ),
    HostileCase::new(
        "realm that begins as the registry does",
        "http://REGISTRY@127.0.0.1:PORT/token",
        realm,
    ),
    HostileCase::new(
        "realm that ends as a host that may have them",
        "http://localhost:PORT/token",
        realm,
    )
    .keys("hosts = [\"calhost\", \"host:PORT\"]"),
    HostileCase::new("realm without TLS", "http://localhost:PORT/token", realm)
        .keys("hosts = [\"localhost\"]")
        .over_tls(),
    HostileCase::new(
        "token service that redirects",
        "http://127.0.0.1:PORT/token",
        |switches, target| switches.token_redirect = Some(target),
    ),
    HostileCase::new(
        "API that redirects",
        "http://127.0.0.1:PORT/",
        |switches, target| {
            switches.api_redirect = Some(target);
        },
    ),
];

const ADDRESSES: [HostileCase; 9] = [
    HostileCase::new(
        "upload at another host",
        "http://localhost:PORT/upload",
        location,
    )
    .of(ClientCalls::Uploads),
    HostileCase::new(
        "upload at another port",
        "http://127.0.0.1:PORT/v2/acme/app/blobs/uploads/00000000-0000-4000-8000-000000000001",
        location,
    )
    .of(ClientCalls::Uploads),
    HostileCase::new("upload at no scheme", "//localhost:PORT/upload", location)
        .of(ClientCalls::Uploads),
    HostileCase::new(
        "upload without TLS",
        "http://localhost:PORT/v2/upload",
        location,
    )
    .of(ClientCalls::Uploads)
    .over_tls(),
    HostileCase::new(
        "next page elsewhere",
        "http://localhost:PORT/v2/_catalog?n=1&last=a",
        |switches, target| switches.next_page = Some(target),
    )
    .of(ClientCalls::Lists),
    HostileCase::new(
        "next page at no scheme",
        "//localhost:PORT/v2/acme/app/tags/list?n=1",
        |switches, target| switches.next_page = Some(target),
    )
    .of(ClientCalls::Lists),
    HostileCase::new(
        "download elsewhere",
        "http://localhost:PORT/blob",
        redirects,
    )
    .of(ClientCalls::Downloads),
    HostileCase::new(
        "download that is followed",
        "http://127.0.0.1:PORT/blob?a=b",
        redirects,
    )
    .of(ClientCalls::Downloads)
    .keys("redirects = \"follow\"\nfollow_hosts = [\"127.0.0.1\"]")
    .followed(),
    HostileCase::new(
        "download without TLS",
        "http://127.0.0.1:PORT/blob",
        redirects,
    )
    .of(ClientCalls::Downloads)
    .keys("redirects = \"follow\"\nfollow_hosts = [\"127.0.0.1\"]")
    .over_tls()
    .followed(),
];

/// Filtered lists are read by moorgate itself, page by page.
const RULES: &str =
    "[[access]]\nusers = ['alice']\nrepositories = ['acme/**']\nactions = ['all']\n";

/// What clients do that leads to what a case is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ClientCalls {
    /// Some of all, for whatever has to be exchanged.
    Any,
    Uploads,
    Lists,
    Downloads,
}

/// Does so, with the address of the other server where clients can name one.
async fn act(fixture: &ProductFixture, calls: ClientCalls, port: u16) -> Vec<ClientAnswer> {
    let (layer, found) = (digest(b"layer"), digest(b"none"));
    let manifest = format!("/v2/{NAME}/manifests");
    let blob = format!("/v2/{NAME}/blobs/{layer}");
    let calls = match calls {
        ClientCalls::Any => vec![
            ("GET", format!("{manifest}/v1")),
            ("GET", "/v2/_catalog".to_owned()),
            ("DELETE", format!("{manifest}/v2")),
            ("DELETE", format!("{manifest}/{found}")),
        ],
        ClientCalls::Uploads => vec![("DELETE", format!("{manifest}/v2"))],
        ClientCalls::Lists => vec![
            ("GET", "/v2/_catalog?n=1".to_owned()),
            ("GET", format!("/v2/{NAME}/tags/list?n=1")),
            ("GET", format!("/v2/{NAME}/referrers/{found}")),
        ],
        ClientCalls::Downloads => vec![
            ("HEAD", format!("{manifest}/v1")),
            ("GET", format!("{manifest}/v1")),
            ("GET", format!("{manifest}/{found}")),
            ("HEAD", blob.clone()),
            ("GET", blob),
        ],
    };
    let mut all = Vec::new();
    for (method, target) in calls {
        all.push(fixture.alice.send(method, &target, &[], b"").await);
    }
    all.extend(upload(fixture, port).await);
    all
}

/// Mounts and uploads a blob, and writes a manifest.
async fn upload(fixture: &ProductFixture, port: u16) -> Vec<ClientAnswer> {
    let alice = &fixture.alice;
    let layer = digest(b"layer");
    let kind = "content-type: application/octet-stream";
    let begin = format!("/v2/{NAME}/blobs/uploads/");
    let mut all = Vec::new();
    for from in [
        format!("acme/other&origin=localhost:{port}"),
        format!("http://localhost:{port}/acme/app"),
    ] {
        let target = format!("{begin}?mount={layer}&from={from}");
        all.push(alice.send("POST", &target, &[], b"").await);
    }
    let mut upload = alice.send("POST", &begin, &[], b"").await;
    for (method, body) in [("PATCH", b"layer".as_slice()), ("GET", b""), ("PUT", b"")] {
        let Some(location) = own_location(&upload).filter(|_| upload.status < 300) else {
            break;
        };
        let location = match method {
            "PUT" => with_digest(&location, &layer),
            _ => location,
        };
        let next = alice.send(method, &location, &[kind], body).await;
        all.push(std::mem::replace(&mut upload, next));
    }
    all.push(upload);
    let manifest = super::observed::image(&layer);
    all.push(alice.push_manifest(NAME, "v1", &manifest).await);
    all
}

/// Where an upload goes on, if that is at the domain. Clients send no credentials elsewhere.
fn own_location(answer: &ClientAnswer) -> Option<String> {
    let location = answer.header("location")?;
    let path = location.strip_prefix("https://ci.test")?;
    Some(path.to_owned())
}

/// What nobody else may read: the secrets, whatever is exchanged for them, and the headers in which
/// they are sent.
fn secrets(own: &PlayedCredentials) -> Vec<String> {
    let pairs = [
        basic(&own.user, &own.password),
        basic(&own.admin_user, &own.admin_password),
        basic("alice", "secret"),
    ];
    // The user name and the beginning of ECR's password.
    let aws = basic("AWS", "pl");
    let pairs = pairs.iter().chain([&aws]);
    let pairs = pairs.map(|pair| pair.trim_start_matches("Basic ").to_owned());
    let secrets = [
        &own.password,
        &own.admin_password,
        &own.secret_key,
        &own.key_id,
    ];
    let texts = [
        "played-",
        "PRIVATE KEY",
        "assertion=",
        "client_secret",
        "refresh_token=",
    ];
    pairs
        .chain(secrets.map(String::clone))
        .chain(texts.map(str::to_owned))
        .collect()
}

fn is_free_of_secrets(text: &str, own: &PlayedCredentials, case: &str) {
    for secret in secrets(own) {
        assert!(!text.contains(&secret), "{case}: {secret} in {text}");
    }
    let lower = text.to_ascii_lowercase();
    for header in [
        "authorization:",
        "cookie:",
        "x-amz-security-token:",
        "private-token:",
    ] {
        assert!(!lower.contains(header), "{case}: {text}");
    }
}

/// Plays a case at a product, which has an image with two tags.
async fn play(product: &'static str, case: &HostileCase, elsewhere: &RecordingServer) {
    let port = elsewhere.port.to_string();
    let keys = case.keys.replace("PORT", &port);
    let fixture = if case.is_over_tls {
        ProductFixture::over_tls(product, &keys, RULES).await
    } else {
        ProductFixture::with(product, &keys, RULES).await
    };
    let played = &fixture.played;
    let config = played.put_blob(NAME, b"{}");
    let layer = played.put_blob(NAME, b"layer");
    assert_ne!(config, layer);
    for tag in ["v1", "v2"] {
        played.put_manifest(NAME, Some(tag), &super::observed::image(&layer));
    }
    played.make_repository("acme/other");
    let registry = played.addresses().registry.to_string();
    let target = case.target.replace("PORT", &port);
    let target = target.replace("REGISTRY", &registry);
    played.set(|switches| (case.set)(switches, target));
    let name = format!("{product}, {}", case.name);
    let answers = act(&fixture, case.calls, elsewhere.port).await;
    let read = elsewhere.take().await;
    let own = played.switches().credentials;
    is_free_of_secrets(&read, &own, &name);
    if case.is_followed {
        assert!(
            read.starts_with("GET /blob") || read.starts_with("HEAD /blob"),
            "{name}"
        );
    } else {
        assert_eq!(read, "", "{name}");
    }
    for answer in answers {
        let text = format!(
            "{:?} {}",
            answer.headers,
            String::from_utf8_lossy(&answer.body)
        );
        is_free_of_secrets(&text, &own, &name);
        let link = answer.header("link").unwrap_or_default();
        assert!(!link.contains(&port), "{name}: {link}");
    }
}

#[tokio::test]
async fn services_elsewhere_get_no_credentials() {
    let elsewhere = RecordingServer::new().await;
    for product in products() {
        for case in &REALMS {
            play(product, case, &elsewhere).await;
        }
    }
}

#[tokio::test]
async fn addresses_elsewhere_get_no_credentials() {
    let elsewhere = RecordingServer::new().await;
    for product in products() {
        for case in &ADDRESSES {
            play(product, case, &elsewhere).await;
        }
    }
}

/// The server and the search for secrets would show it: a service that the settings name gets them.
#[tokio::test]
async fn a_service_that_is_named_gets_credentials() {
    let elsewhere = RecordingServer::new().await;
    for product in ["dockerhub", "ghcr", "gitlab", "quay"] {
        let keys = format!("hosts = [\"localhost:{}\"]", elsewhere.port);
        let fixture = ProductFixture::with(product, &keys, RULES).await;
        let target = format!("http://localhost:{}/token", elsewhere.port);
        fixture.played.set(|switches| switches.realm = Some(target));
        act(&fixture, ClientCalls::Any, elsewhere.port).await;
        let read = elsewhere.take().await;
        let own = fixture.played.switches().credentials;
        let pair = basic(&own.user, &own.password);
        assert!(read.contains(&pair), "{product}: {read}");
    }
}
