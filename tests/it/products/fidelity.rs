//! The player beside the real ones: what a client sees must be the same. docker-registry 2.8 and
//! two emulators of ECR run as processes of their own.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde_json::{Value, json};

use super::observed::{Observation, Observed, image};
use crate::harness::played::PlayedRegistry;
use crate::harness::registry_client::ClientAnswer;
use crate::harness::{Domain, Gateway, RegistryClient, Setup};
use crate::real_peers::ports::free_port;
use crate::real_peers::process::{Process, command, tool};

/// A difference that is a limit of the real one beside which the player was put: the calls in which
/// it shows, what differs (anything, where nothing is named), and why.
struct KnownDifference {
    steps: &'static [&'static str],
    facts: &'static [&'static str],
    reason: &'static str,
}

impl KnownDifference {
    fn is(&self, step: &str, fact: &str) -> bool {
        self.steps.contains(&step) && (self.facts.is_empty() || self.facts.contains(&fact))
    }
}

/// Fails with every difference that is not known, and every call where a known one does not show.
fn compare(played: &[Observed], real: &[Observed], known: &[KnownDifference]) {
    let (mut wrong, mut shown) = (Vec::new(), BTreeSet::new());
    assert_eq!(played.len(), real.len());
    for (played, real) in played.iter().zip(real) {
        let step = played.step;
        assert_eq!(step, real.step);
        let facts = played.facts.keys().chain(real.facts.keys());
        for fact in facts.collect::<BTreeSet<_>>() {
            let (ours, theirs) = (played.facts.get(fact), real.facts.get(fact));
            if ours == theirs {
                continue;
            }
            match known.iter().find(|difference| difference.is(step, fact)) {
                Some(difference) => {
                    shown.insert((step, difference.reason));
                }
                None => wrong.push(format!("{step}: {fact}: played {ours:?}, real {theirs:?}")),
            }
        }
    }
    for KnownDifference { steps, reason, .. } in known {
        let gone = steps
            .iter()
            .filter(|step| !shown.contains(&(**step, *reason)));
        wrong.extend(gone.map(|step| format!("{step}: no difference any more: {reason}")));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// A real one, listening on loopback.
struct RealRegistry {
    _process: Process,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl RealRegistry {
    fn docker_registry() -> Self {
        let (directory, address) = place();
        let yaml = format!(
            "version: 0.1\nlog: {{level: error}}\n\
             storage: {{filesystem: {{rootdirectory: {}/data}}, delete: {{enabled: true}}}}\n\
             http: {{addr: \"{address}\", secret: not-a-secret}}\n",
            directory.path().display()
        );
        let file = directory.path().join("registry.yml");
        std::fs::write(&file, yaml).unwrap();
        let program = tool("docker-registry", "docker-registry");
        let mut command = command(&program, directory.path());
        command.arg("serve").arg(file);
        Self::start("docker-registry", command, (directory, address))
    }

    fn ministack() -> Self {
        let (directory, address) = place();
        let mut command = command(&installed("ministack", "ministack"), directory.path());
        command
            .env("BIND_HOST", "127.0.0.1")
            .env("GATEWAY_PORT", address.port().to_string())
            .env("MINISTACK_REGION", "eu-central-1")
            // Other listeners of its own, on fixed ports.
            .env("IOT_MTLS_ENABLED", "0")
            .env("SFTP_ENABLED", "0");
        Self::start("ministack", command, (directory, address))
    }

    fn moto() -> Self {
        let (directory, address) = place();
        let mut command = command(&installed("moto", "moto_server"), directory.path());
        command
            .args(["--host", "127.0.0.1", "--port"])
            .arg(address.port().to_string());
        Self::start("moto", command, (directory, address))
    }

    fn start(
        name: &'static str,
        command: std::process::Command,
        (directory, address): (tempfile::TempDir, SocketAddr),
    ) -> Self {
        let mut process = Process::start(name, command, directory.path());
        process.becomes("listening", || {
            std::net::TcpStream::connect(address).is_ok()
        });
        Self {
            _process: process,
            address,
            _directory: directory,
        }
    }
}

fn place() -> (tempfile::TempDir, SocketAddr) {
    let directory = tempfile::tempdir().unwrap();
    (directory, (Ipv4Addr::LOCALHOST, free_port()).into())
}

/// A program of an environment that `./ctl.sh test` makes, of whatever version it names.
fn installed(environment: &str, program: &str) -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| {
        let home = std::env::var_os("HOME").unwrap_or_else(|| "/root".into());
        PathBuf::from(home).join(".cache")
    });
    let script = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/ctl.sh")).unwrap();
    let key = format!("readonly {environment}_version=");
    let version = script.lines().find_map(|line| line.strip_prefix(&key));
    let directory = format!("{environment}-{}", version.unwrap());
    let path = cache
        .join("moorgate")
        .join(directory)
        .join("bin")
        .join(program);
    assert!(
        path.is_file(),
        "`{}` is missing: run `./ctl.sh test`, which installs it",
        path.display()
    );
    path
}

#[tokio::test]
async fn a_played_distribution_answers_as_docker_registry_does() {
    let real = RealRegistry::docker_registry();
    let played = PlayedRegistry::distribution().await;
    let real = Observation::all(&RegistryClient::plain(real.address, None)).await;
    let client = RegistryClient::plain(played.addresses().registry, None);
    compare(&Observation::all(&client).await, &real, &[]);
}

/// What clients see through moorgate: swaps of tags, creation and translated refusals with it.
#[tokio::test]
async fn a_played_distribution_answers_as_docker_registry_does_behind_moorgate() {
    let real = RealRegistry::docker_registry();
    let played = PlayedRegistry::distribution().await;
    let [real, played] = [format!("http://{}", real.address), played.url()].map(|url| async move {
        let domain = Domain::new("ci.test", &url).upstream("product = \"distribution\"");
        let gateway = Setup::new().domain(domain).start().await;
        Observation::all(&RegistryClient::through(&gateway)).await
    });
    let (real, played) = (real.await, played.await);
    compare(&played, &real, &[]);
}

/// What ministack leaves out or does in its own way.
const MINISTACK: &[KnownDifference] = &[
    KnownDifference {
        steps: &[
            "first chunk",
            "second chunk",
            "end of chunks",
            "progress of an end",
            "stream",
        ],
        facts: &[],
        reason: "answers 202 and appends: ECR answers 201 and drops all chunks but the first",
    },
    KnownDifference {
        steps: &["cancel"],
        facts: &["docker-upload-uuid"],
        reason: "names no id",
    },
    KnownDifference {
        steps: &[
            "blob, head",
            "by tag, head",
            "by tag",
            "by digest",
            "without accept",
        ],
        facts: &["accept-ranges", "etag"],
        reason: "has neither ranges nor entity tags",
    },
    KnownDifference {
        steps: &["blob", "part of a blob", "no such part"],
        facts: &[],
        reason: "serves blobs itself, and whole: ECR redirects to S3",
    },
    KnownDifference {
        steps: &["mount"],
        facts: &[],
        reason: "mounts blobs, which is an option of an account at ECR",
    },
    KnownDifference {
        steps: &["push by wrong digest", "broken manifest", "without a layer"],
        facts: &[],
        reason: "takes everything for a manifest",
    },
    KnownDifference {
        steps: &["by tag", "without accept"],
        facts: &["docker-content-digest"],
        reason: "tells the digest of a tag: ECR does so for HEAD only",
    },
    KnownDifference {
        steps: &["unchanged"],
        facts: &[],
        reason: "knows no conditions",
    },
    KnownDifference {
        steps: &["page of tags", "next page of tags"],
        facts: &["link"],
        reason: "names no next page",
    },
    KnownDifference {
        steps: &["page of the catalog", "too large a page"],
        facts: &[],
        reason: "its catalog has no pages, and no limit",
    },
    KnownDifference {
        steps: &["referrers"],
        facts: &[],
        reason: "has no referrers",
    },
    KnownDifference {
        steps: &["delete a part of an index"],
        facts: &[],
        reason: "deletes what an index refers to",
    },
    KnownDifference {
        steps: &["wrong method", "upper case"],
        facts: &[],
        reason: "has other pages for what is no call of the API",
    },
];

#[tokio::test]
async fn a_played_ecr_answers_as_ministack_does() {
    let (real, played) = (RealRegistry::ministack(), PlayedRegistry::ecr().await);
    for name in ["base/app", "other/app", "api/app"] {
        let input = json!({ "repositoryName": name });
        let created = action(
            &played,
            played.addresses().api,
            ("CreateRepository", &input),
        );
        created.await.expect(200);
        let created = action(&played, real.address, ("CreateRepository", &input));
        created.await.expect(200);
    }
    let client = played.client("").await;
    let here = Observation::all(&client).await;
    let mut client = RegistryClient::plain(real.address, None);
    client.authorization = Some(crate::harness::basic("AWS", "any"));
    compare(&here, &Observation::all(&client).await, MINISTACK);
    let (here, there) = (&played.client("").await, &client);
    for client in [here, there] {
        client.push_blob("api/app", b"{}").await;
        // Of the tags of one image, ministack lists the last one only.
        for (tag, layer) in [("v1", b"first"), ("v2", b"other")] {
            let image = image(&client.push_blob("api/app", layer).await);
            let pushed = client.push_manifest("api/app", tag, &image).await;
            pushed.expect(201);
        }
    }
    let repository = json!({"repositoryName": "api/app"});
    let untag = json!({"repositoryName": "api/app", "imageIds": [{"imageTag": "v2"}]});
    let calls = [
        ("CreateRepository", repository.clone()),
        (
            "DescribeRepositories",
            json!({"repositoryNames": ["api/app"]}),
        ),
        ("DescribeRepositories", json!({"repositoryNames": ["none"]})),
        ("ListImages", json!({"repositoryName": "none"})),
        ("ListImages", repository.clone()),
        ("BatchDeleteImage", untag.clone()),
        ("BatchDeleteImage", untag),
        ("ListImages", repository),
        ("GetAuthorizationToken", json!({})),
    ];
    same_answers(&played, real.address, &calls).await;
}

/// The differences that moorgate leaves: it collects chunks, bounds pages and answers what is no
/// call itself.
fn behind_moorgate(known: &'static [KnownDifference]) -> Vec<KnownDifference> {
    const SAME: [&str; 7] = [
        "first chunk",
        "second chunk",
        "end of chunks",
        "progress of an end",
        "too large a page",
        "wrong method",
        "upper case",
    ];
    let steps = known.iter().flat_map(|difference| {
        let steps = difference.steps.chunks(1);
        steps.map(|steps| KnownDifference {
            steps,
            ..*difference
        })
    });
    let forgotten = KnownDifference {
        steps: &["tags that are left"],
        facts: &["body"],
        reason: "of the tags of one image, it knows the last one only",
    };
    steps
        .filter(|difference| !SAME.contains(&difference.steps[0]))
        .chain([forgotten])
        .collect()
}

/// The same through moorgate, which logs in, makes repositories and untags by the API.
#[tokio::test]
async fn a_played_ecr_answers_as_ministack_does_behind_moorgate() {
    let (real, played) = (RealRegistry::ministack(), PlayedRegistry::ecr().await);
    let mut seen = Vec::new();
    for (registry, api) in [
        (played.addresses().registry, played.addresses().api),
        (real.address, real.address),
    ] {
        let gateway = behind(&played, (registry, api), "create = true").await;
        let client = RegistryClient::through(&gateway);
        // Made by what is pushed first.
        for name in ["base/app", "other/app"] {
            client.push_blob(name, b"first").await;
        }
        seen.push(Observation::all(&client).await);
    }
    compare(&seen[0], &seen[1], &behind_moorgate(MINISTACK));
}

/// A gateway in front of an ECR and its API, with the player's keys and further keys of
/// `[upstream]`.
async fn behind(
    played: &PlayedRegistry,
    (registry, api): (SocketAddr, SocketAddr),
    keys: &str,
) -> Gateway {
    let own = played.switches().credentials;
    let login = format!(
        "[upstream.login]\naccess_key_id = \"{}\"\nsecret_access_key = \"{}\"\n\
         region = \"eu-central-1\"",
        own.key_id, own.secret_key
    );
    let keys = format!("product = \"ecr\"\napi = \"http://{api}\"\n{keys}");
    let domain = Domain::new("ci.test", &format!("http://{registry}"));
    let domain = domain.upstream(&keys).tables(&login);
    Setup::new().domain(domain).start().await
}

/// CreateRepository, BatchDeleteImage and the deletion of a manifest, each with what ministack then
/// has. At its API, an image goes with any of its tags: at ECR, with its last one.
#[tokio::test]
async fn ministack_creates_untags_and_deletes_what_moorgate_asks_it_to() {
    let (real, played) = (RealRegistry::ministack(), PlayedRegistry::ecr().await);
    let (address, uploads) = (real.address, "/v2/app/web/blobs/uploads/");
    let places = (address, address);
    let swapping = behind(&played, places, "untag = \"swap\"").await;
    let refused = RegistryClient::through(&swapping);
    let refused = refused.send("POST", uploads, &[], b"").await;
    refused.expect(404);
    assert_eq!(refused.code().as_deref(), Some("NAME_UNKNOWN"));

    // Without a swap, so that only the API can do it.
    let keys = "create = true\nuntag = \"native\"";
    let gateway = behind(&played, places, keys).await;
    let client = RegistryClient::through(&gateway);
    let repository = json!({ "repositoryName": "app/web" });
    client.push_blob("app/web", b"{}").await;
    let made = ("DescribeRepositories", &json!({}));
    let made = action(&played, address, made).await;
    assert_eq!(shape(&made)["repositories"], json!(["app/web"]));
    let mut digests = Vec::new();
    for (tag, layer) in [("v1", b"first"), ("v2", b"first"), ("v3", b"other")] {
        let image = image(&client.push_blob("app/web", layer).await);
        let pushed = client.push_manifest("app/web", tag, &image).await;
        pushed.expect(201);
        digests.push(pushed.header("docker-content-digest").unwrap().to_owned());
    }
    assert_eq!(digests[0], digests[1]);
    let kept = json!([{ "imageDigest": digests[1], "imageTag": "v2" }]);

    untag(&RegistryClient::through(&swapping), "v1").await;
    untag(&client, "v3").await;
    client.get("/v2/app/web/manifests/v2").await.expect(200);
    let left = action(&played, address, ("ListImages", &repository)).await;
    assert_eq!(shape(&left)["images"], kept);

    let manifest = format!("/v2/app/web/manifests/{}", digests[1]);
    client.send("DELETE", &manifest, &[], b"").await.expect(202);
    client.get("/v2/app/web/manifests/v2").await.expect(404);
    let left = action(&played, address, ("ListImages", &repository)).await;
    assert_eq!(shape(&left)["images"], json!([]));
    client.send("DELETE", &manifest, &[], b"").await.expect(404);
}

/// Deletes a tag, which a second time is not there.
async fn untag(client: &RegistryClient, tag: &str) {
    let target = format!("/v2/app/web/manifests/{tag}");
    client.send("DELETE", &target, &[], b"").await.expect(202);
    client.get(&target).await.expect(404);
    let again = client.send("DELETE", &target, &[], b"").await;
    again.expect(404);
    assert_eq!(again.code().as_deref(), Some("MANIFEST_UNKNOWN"), "{tag}");
}

#[tokio::test]
async fn the_api_of_a_played_ecr_answers_as_moto_does() {
    let (real, played) = (RealRegistry::moto(), PlayedRegistry::ecr().await);
    let calls = [
        ("DescribeRepositories", json!({})),
        ("ListImages", json!({"repositoryName": "base/app"})),
        ("CreateRepository", json!({"repositoryName": "base/app"})),
        ("CreateRepository", json!({"repositoryName": "base/app"})),
        ("DescribeRepositories", json!({"repositoryNames": ["none"]})),
        ("ListImages", json!({"repositoryName": "base/app"})),
        (
            "BatchDeleteImage",
            json!({"repositoryName": "base/app", "imageIds": [{"imageTag": "none"}]}),
        ),
        ("GetAuthorizationToken", json!({})),
    ];
    same_answers(&played, real.address, &calls).await;
}

/// A call of ECR's API, signed with the player's key, whose host is the player's.
async fn action(
    played: &PlayedRegistry,
    address: SocketAddr,
    (name, input): (&str, &Value),
) -> ClientAnswer {
    let body = input.to_string();
    let lines = played.signed_action(name, &body);
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    let client = RegistryClient::plain(address, None);
    client.send("POST", "/", &lines, body.as_bytes()).await
}

/// Fails where the answers to calls of the API differ in status, error or images.
async fn same_answers(played: &PlayedRegistry, real: SocketAddr, calls: &[(&str, Value)]) {
    for (name, input) in calls {
        let ours = action(played, played.addresses().api, (name, input)).await;
        let theirs = action(played, real, (name, input)).await;
        assert_eq!(shape(&ours), shape(&theirs), "{name} {input}");
    }
}

/// What a client of the API reads in an answer: the images and failures whole, of all else that it
/// is there.
fn shape(answer: &ClientAnswer) -> Value {
    let document = answer.json();
    let sorted = |list: &str| {
        let mut list = document[list].as_array().cloned().unwrap_or_default();
        list.sort_by_key(Value::to_string);
        list
    };
    let names: Vec<_> = document["repositories"]
        .as_array()
        .map_or_else(Vec::new, |list| {
            list.iter()
                .map(|found| found["repositoryName"].clone())
                .collect()
        });
    let data = &document["authorizationData"][0];
    json!({
        "status": answer.status,
        "type": document["__type"],
        "images": sorted("imageIds"),
        "failures": sorted("failures"),
        "created": document["repository"]["repositoryName"],
        "repositories": names,
        "has token": data["authorizationToken"].is_string() && data["expiresAt"].is_number(),
    })
}
