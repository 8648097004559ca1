//! `check --live` at each of the nine products: what it says of the login and of what moorgate may
//! do, and that it asks without changing anything.

use std::fs;
use std::path::Path;

use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};

use super::check;
use crate::harness::played::{PLAYED_PRODUCTS, PlayedRegistry, RecordedRequest, Switches};
use crate::harness::{Domain, RawPeer, RegistryClient, Setup, cli};

const NAME: &str = "acme/app";

/// A product with an image in it, and a domain before it.
struct CheckedUpstream {
    played: PlayedRegistry,
    directory: TempDir,
}

/// What the command prints and says, without what changes with each run.
struct CheckReport {
    status: i32,
    printed: String,
    said: String,
}

impl CheckedUpstream {
    async fn new(product: &str, change: impl FnOnce(&mut Switches)) -> Self {
        let (_, switches) = PLAYED_PRODUCTS
            .iter()
            .find(|(name, _)| *name == product)
            .unwrap();
        let mut switches = switches();
        change(&mut switches);
        let played = PlayedRegistry::start(switches).await;
        let config = json!({"mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": played.put_blob(NAME, b"{}"), "size": 2});
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": [],
            "mediaType": "application/vnd.oci.image.manifest.v1+json"});
        played.make_repository(NAME);
        played.put_manifest(NAME, Some("v1"), &manifest);
        let directory = tempfile::tempdir().unwrap();
        let checked = Self { played, directory };
        checked.configure("", "");
        checked
    }

    /// Writes the configuration, with further keys in `[upstream]` and further tables.
    fn configure(&self, keys: &str, tables: &str) {
        let api = self.played.api_url();
        let api = format!("api = \"{api}\"\n").repeat(usize::from(!keys.contains("api =")));
        self.write(&format!("{api}{keys}"), tables);
    }

    fn write(&self, keys: &str, tables: &str) {
        let product = self.played.switches().product;
        let create = product == "harbor";
        let keys = format!("product = \"{product}\"\ncreate = {create}\n{keys}");
        let login = self.login(product);
        let domain = Domain::new("ci.localhost", &self.played.url())
            .upstream(&keys)
            .tables(&format!("{login}\n{tables}"));
        Setup::new().domain(domain).write(self.directory.path());
        private(&self.directory.path().join("conf.d/ci.localhost.toml"));
    }

    fn login(&self, product: &str) -> String {
        let own = self.played.switches().credentials;
        let (id, secret) = (own.key_id, own.secret_key);
        let keys = match product {
            "distribution" => return String::new(),
            "ecr" => format!(
                "access_key_id = \"{id}\"\nsecret_access_key = \"{secret}\"\nregion = \"eu-west-1\""
            ),
            "gar" => format!(
                "service_account = '{}'\nendpoint = \"{}\"",
                self.played.service_account_key(),
                self.played.api_url()
            ),
            _ => format!(
                "username = \"{}\"\npassword = \"{}\"",
                own.user, own.password
            ),
        };
        format!("[upstream.login]\n{keys}")
    }

    async fn report(&self, arguments: &[&str]) -> CheckReport {
        let arguments = [&["check", "--live"], arguments].concat();
        let (status, printed, said) = cli(self.directory.path(), &arguments).await;
        self.assert_without_secrets(&printed);
        self.assert_without_secrets(&said);
        CheckReport {
            status: status.unwrap(),
            printed: self.masked(&printed),
            said: self.masked(&said),
        }
    }

    fn masked(&self, text: &str) -> String {
        let addresses = self.played.addresses();
        let text = text
            .replace(&addresses.registry.to_string(), "REGISTRY")
            .replace(&addresses.api.to_string(), "API");
        let mut masked = String::new();
        for line in text.split_inclusive('\n') {
            match line.split_once("its token ends ") {
                Some((before, end)) => {
                    let time: jiff::Timestamp = end.trim().parse().unwrap();
                    assert!(time > jiff::Timestamp::now(), "{line}");
                    masked += &format!("{before}its token ends TIME\n");
                }
                None => masked += line,
            }
        }
        masked
    }

    fn assert_without_secrets(&self, text: &str) {
        let own = self.played.switches().credentials;
        let key = self.played.service_account_key();
        let key = serde_json::from_str::<Value>(&key).unwrap()["private_key"].clone();
        let begin = key.as_str().unwrap()[40..80].to_owned();
        for secret in [&own.password, &own.secret_key, &own.admin_password, &begin] {
            assert!(!text.contains(secret.as_str()), "{text}");
        }
        assert!(!text.contains("played-"), "a token is shown: {text}");
    }

    /// The matrix alone, without whys.
    async fn answers(&self, arguments: &[&str]) -> String {
        let report = self.report(&[&["--json"], arguments].concat()).await;
        let document: Value = serde_json::from_str(&report.printed).unwrap();
        let abilities = document["upstreams"][0]["abilities"].as_object().unwrap();
        let shown = abilities.iter().map(|(name, ability)| {
            let answer = ability["answer"].as_str().unwrap();
            format!("{name} {answer}")
        });
        shown.collect::<Vec<_>>().join(", ")
    }
}

fn private(file: &Path) {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(file, mode).unwrap();
}

/// Whether a request can change nothing at the product.
fn changes_nothing(request: &RecordedRequest) -> bool {
    let is_exchange = matches!(
        request.path(),
        "/oauth2/token" | "/oauth2/exchange" | "/token" | "/v2/auth/token"
    );
    match request.method {
        Method::GET | Method::HEAD => true,
        Method::POST => is_exchange || request.action() == Some("GetAuthorizationToken"),
        _ => false,
    }
}

/// The warnings with their remedies.
fn warnings(said: &str) -> String {
    let lines = said.lines().filter_map(|line| {
        let help = line.trim_start().strip_prefix("= ");
        help.or_else(|| line.strip_prefix("warning: "))
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn each_product_says_what_it_lets_moorgate_do() {
    let mut all = String::new();
    for (product, _) in PLAYED_PRODUCTS {
        let checked = CheckedUpstream::new(product, |_| {}).await;
        let report = checked.report(&["--repository", NAME]).await;
        assert_eq!(report.status, 0, "{product}");
        assert_eq!(report.said, "", "{product}");
        let (_, block) = report.printed.split_once("\n\n").unwrap();
        all += &format!("{}\n", block.replace("ci.localhost -> ", ""));
        let requests = checked.played.take();
        assert!(requests.len() > 1, "{product}");
        for request in &requests {
            assert!(changes_nothing(request), "{product}: {}", request.line());
        }
    }
    insta::assert_snapshot!(all);
}

#[tokio::test]
async fn a_missing_right_is_named_in_the_products_own_way() {
    let mut all = Vec::new();
    for (product, rights) in [
        (
            "acr",
            &["pull", "push", "metadata_read", "metadata_write"][..],
        ),
        ("acr", &["pull", "metadata_read"]),
        ("dockerhub", &["pull", "push"]),
        ("dockerhub", &["pull"]),
        ("ghcr", &["pull", "push"]),
        ("ghcr", &["pull"]),
        ("gitlab", &["pull", "push"]),
        ("gitlab", &["pull"]),
        ("harbor", &["pull", "push"]),
        ("harbor", &["pull"]),
        ("quay", &["pull"]),
    ] {
        let checked = CheckedUpstream::new(product, |switches| switches.rights = rights).await;
        let report = checked.report(&["--repository", NAME]).await;
        assert_eq!(report.status, 0, "{product}");
        let warnings = warnings(&report.said);
        all.push(format!("{product}, {}:\n{warnings}", rights.join(" ")));
        let strict = checked.report(&["--repository", NAME, "--strict"]).await;
        assert_eq!(strict.status, 1, "{product}");
        for request in checked.played.take() {
            assert!(changes_nothing(&request), "{product}: {}", request.line());
        }
    }
    for action in ["GetAuthorizationToken", "ListImages"] {
        let checked = CheckedUpstream::new("ecr", |switches| {
            switches.denied_action = Some(action);
        });
        let report = checked.await.report(&["--repository", NAME]).await;
        all.push(format!("ecr without {action}:\n{}", warnings(&report.said)));
    }
    insta::assert_snapshot!(all.join("\n\n"));
}

#[tokio::test]
async fn nobody_misses_a_right_that_no_rule_gives() {
    let checked = CheckedUpstream::new("dockerhub", |switches| switches.rights = &["pull"]).await;
    let rule = "[[access]]\nusers = [\"@authenticated\"]\nrepositories = [\"**\"]\n";
    checked.configure("", &format!("{rule}actions = [\"pull\", \"list\"]"));
    let report = checked.report(&["--repository", NAME, "--strict"]).await;
    assert_eq!((report.status, report.said.as_str()), (0, ""));
    assert!(
        report
            .printed
            .contains("missing: a personal access token with Read and Write\n")
    );
}

#[tokio::test]
async fn refused_credentials_are_named_and_leave_everything_open() {
    let mut all = Vec::new();
    for (product, _) in PLAYED_PRODUCTS
        .iter()
        .filter(|(name, _)| *name != "distribution")
    {
        let checked = CheckedUpstream::new(product, |_| {}).await;
        checked.played.disable_service_account();
        checked.played.set(|switches| {
            switches.credentials.password = "another-password".to_owned();
            switches.credentials.secret_key = "another-secret".to_owned();
        });
        let report = checked.report(&[]).await;
        assert_eq!(report.status, 0, "{product}");
        all.push(format!("{product}:\n{}", warnings(&report.said)));
        let open = report.printed.matches("unknown").count();
        assert!(open >= 8, "{product}: {}", report.printed);
    }
    insta::assert_snapshot!(all.join("\n\n"));
}

#[tokio::test]
async fn tokens_that_have_ended_are_refused() {
    for product in ["dockerhub", "ecr", "gitlab", "quay"] {
        let checked = CheckedUpstream::new(product, |switches| {
            switches.token_life = std::time::Duration::ZERO;
        });
        let checked = checked.await;
        let report = checked.report(&["--repository", NAME]).await;
        let said = warnings(&report.said);
        assert!(
            said.contains("the upstream registry refused"),
            "{product}: {said}"
        );
    }
}

#[tokio::test]
async fn an_api_that_does_not_answer_is_a_warning() {
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    for product in ["dockerhub", "ghcr", "harbor"] {
        let checked = CheckedUpstream::new(product, |_| {}).await;
        // Docker Hub's tokens come from the same played server.
        let host = checked.played.addresses().api;
        let keys = format!("api = \"{closed}\"\nhosts = [\"{host}\"]");
        checked.configure(&keys, "");
        let report = checked.report(&["--repository", NAME]).await;
        let said = warnings(&report.said);
        assert!(
            said.contains("the product's API cannot be reached"),
            "{product}: {said}"
        );
        assert!(said.contains("help: correct `api`"), "{product}: {said}");
        let untag = report.printed.lines().find(|line| line.contains("untag"));
        assert!(untag.unwrap().contains("unknown"), "{product}: {untag:?}");
    }
}

#[tokio::test]
async fn a_repository_is_found_in_the_catalog_and_in_the_rules_or_is_asked_for() {
    let listed = CheckedUpstream::new("acr", |_| {}).await;
    assert!(
        listed
            .report(&[])
            .await
            .printed
            .contains("  repository  acme/app\n")
    );
    // GitLab shows its catalog to administrators.
    let hidden = CheckedUpstream::new("gitlab", |_| {}).await;
    let answers = hidden.answers(&[]).await;
    assert!(
        answers.contains("delete unknown") && answers.contains("push unknown"),
        "{answers}"
    );
    let rule = "[[access]]\nusers = [\"@authenticated\"]\nactions = [\"all\"]\n";
    hidden.configure(
        "",
        &format!("{rule}repositories = [\"acme/*\", \"acme/app\"]"),
    );
    let answers = hidden.answers(&[]).await;
    assert!(
        answers.contains("delete yes") && answers.contains("push yes"),
        "{answers}"
    );
    hidden.configure("", &format!("{rule}repositories = [\"nobody/knows\"]"));
    let report = hidden.report(&["--strict"]).await;
    assert_eq!(
        (report.status, report.said.as_str()),
        (0, ""),
        "{}",
        report.printed
    );
}

#[tokio::test]
async fn names_are_those_that_clients_know() {
    let checked = CheckedUpstream::new("dockerhub", |_| {}).await;
    checked.configure("", "[[upstream.map]]\nprefix = \"ci/\"\nto = \"acme/\"");
    let report = checked.report(&["--repository", "ci/app"]).await;
    assert!(
        report.printed.contains("  repository  ci/app\n"),
        "{}",
        report.printed
    );
    let asked = checked.played.take_lines();
    assert!(
        asked.contains(&"registry GET /v2/acme/app/tags/list?n=10".to_owned()),
        "{asked:?}"
    );
}

#[tokio::test]
async fn an_untag_that_is_off_is_no_question_of_rights() {
    let checked = CheckedUpstream::new("quay", |switches| switches.rights = &["pull"]).await;
    for (untag, shown) in [
        ("off", "untag no"),
        ("swap", "untag no"),
        ("native", "untag no"),
    ] {
        checked.configure(&format!("untag = \"{untag}\""), "");
        let answers = checked.answers(&["--repository", NAME]).await;
        assert!(answers.contains(shown), "{untag}: {answers}");
    }
    let report = checked.report(&["--repository", NAME]).await;
    assert!(
        report.said.contains("may not delete tags"),
        "{}",
        report.said
    );
    checked.configure("untag = \"off\"", "");
    let report = checked.report(&["--repository", NAME]).await;
    assert!(
        !report.said.contains("may not delete tags"),
        "{}",
        report.said
    );
}

#[tokio::test]
async fn a_repository_needs_live() {
    let checked = CheckedUpstream::new("distribution", |_| {}).await;
    let (status, said) = check(checked.directory.path(), &["--repository", NAME]).await;
    assert_eq!(status, 2, "{said}");
    let (status, said) = check(checked.directory.path(), &["--live", "--repository", "A"]).await;
    assert_eq!(status, 2, "{said}");
}

#[tokio::test]
async fn status_says_the_same_without_asking() {
    let played = PlayedRegistry::dockerhub().await;
    played.make_repository(NAME);
    let keys = format!(
        "product = \"dockerhub\"\napi = \"{}\"\nuntag = \"off\"\nusername = \"robot\"\n\
         password = \"upstream-password\"",
        played.api_url()
    );
    let domain = Domain::new("ci.test", &played.url()).upstream(&keys);
    let gateway = Setup::new().domain(domain).start().await;
    let status = async || {
        let admin = TcpStream::connect(gateway.admin()).await.unwrap();
        let mut admin = RawPeer::new(admin);
        admin
            .send("GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await;
        let (_, body) = admin.answer().await;
        let text = String::from_utf8(body).unwrap();
        assert!(
            !text.contains("upstream-password") && !text.contains("played-"),
            "{text}"
        );
        let document: Value = serde_json::from_str(&text).unwrap();
        document["domains"][0].clone()
    };
    let before = status().await;
    assert_eq!(played.take_lines(), [""; 0], "nothing was asked");
    let credential = &before["upstream_credential"];
    let name = "user `robot`, the username and password in [upstream]";
    assert_eq!(
        *credential,
        json!({"name": name, "ends": null, "token_expires": null})
    );
    let abilities = &before["upstream_abilities"];
    assert_eq!(
        abilities["untag"],
        json!({"answer": "no", "why": "`untag` is off"})
    );
    assert_eq!(abilities["pull"], json!({"answer": "yes", "why": ""}));
    let alice = RegistryClient::through(&gateway);
    let listed = alice.get(&format!("/v2/{NAME}/tags/list")).await;
    assert_ne!(listed.status, 502, "{listed:?}");
    let after = status().await;
    let expires = after["upstream_credential"]["token_expires"]
        .as_str()
        .unwrap();
    let expires: jiff::Timestamp = expires.parse().unwrap();
    assert!(expires > jiff::Timestamp::now());
}
