//! Access rules as real clients meet them, in front of docker-registry and of moorgate's own
//! registry.

use std::fs;

use rustix::process::Signal;

use super::clients::{Containerd, Tool, only_tells_of_its_pipe};
use super::engine::Engine;
use super::fixture::RegistriesFixture;
use super::image::write_oci_layout;
use super::process::{Output, until};

const RULES: &str = "
[[access]]
users = [\"ci-bot\"]
repositories = [\"base/**\"]
actions = [\"pull\", \"push\", \"list\"]

[[access]]
users = [\"reader\"]
repositories = [\"base/**\"]
actions = [\"pull\", \"list\"]

[[access]]
users = [\"*\"]
repositories = [\"${user}/**\"]
actions = [\"push\", \"overwrite\"]
tags = [\"release\"]

[[access]]
users = [\"@anonymous\"]
repositories = [\"public/**\"]
actions = [\"pull\", \"list\"]

[[access]]
users = [\"ci-bot\"]
repositories = [\"public/**\"]
actions = [\"all\"]
";

impl RegistriesFixture {
    /// Rules and users for the first domain, in force when this returns.
    pub fn ruled(self) -> Self {
        self.ruled_with("")
    }

    /// The same with further keys of `[auth]`.
    pub fn ruled_with(self, auth: &str) -> Self {
        self.ruled_by(auth, "")
    }

    /// The same with further rules.
    pub fn ruled_by(self, auth: &str, more: &str) -> Self {
        for user in ["reader", "contractor"] {
            self.htpasswd("-bB", &self.ci, &[user, "their password"]);
        }
        let file = self.conf_d(&self.ci, "toml");
        let text = fs::read_to_string(&file)
            .unwrap()
            .replace("[auth]", &format!("[auth]\nanonymous = \"pull\"\n{auth}"));
        fs::write(&file, format!("{text}{RULES}{more}")).unwrap();
        self.moorgate.signal(Signal::HUP);
        until("the rules are in force", || {
            self.moorgate.stderr().contains("configuration reloaded")
        });
        self
    }

    pub fn password(&self, user: &str) -> &str {
        if user == self.ci.user {
            self.ci.password
        } else {
            "their password"
        }
    }

    pub fn copied(&self, user: &str, image: &str, to: &str) -> Output {
        let credentials = format!("{user}:{}", self.password(user));
        let remote = format!("docker://{}/{to}", self.ci.by_name());
        self.skopeo(&["copy", "--dest-creds", &credentials, image, &remote])
    }

    pub fn inspected(&self, user: &str, what: &str) -> Output {
        let credentials = format!("{user}:{}", self.password(user));
        let remote = format!("docker://{}/{what}", self.ci.by_name());
        self.skopeo(&["inspect", "--creds", &credentials, &remote])
    }

    /// An image with this word in it, as skopeo names it.
    pub fn image_of(&self, word: &str) -> String {
        let directory = self.path().join(format!("image-{word}"));
        write_oci_layout(&directory, &[("word", word.repeat(10_000).as_bytes())]);
        format!("oci:{}:v1", directory.display())
    }
}

pub fn refused(message: &str, words: &str) {
    assert!(message.contains(words), "{words:?} is not in {message}");
}

fn skopeo_under_rules(fixture: &RegistriesFixture) {
    let [one, two] = ["one", "two"].map(|word| fixture.image_of(word));
    fixture.copied("ci-bot", &one, "base/app:v1").succeeded();
    fixture.copied("ci-bot", &one, "base/app:v1").succeeded();
    refused(
        &fixture.copied("ci-bot", &two, "base/app:v1").failed(),
        "ci-bot may not overwrite base/app:v1",
    );
    fixture.copied("ci-bot", &two, "base/app:v2").succeeded();

    fixture.inspected("reader", "base/app:v1").succeeded();
    refused(
        &fixture.copied("reader", &two, "base/app:v3").failed(),
        "denied",
    );
    refused(
        &fixture
            .inspected("reader", "contractor/site:release")
            .failed(),
        "unknown",
    );

    for image in [&one, &two, &two] {
        fixture
            .copied("contractor", image, "contractor/site:release")
            .succeeded();
    }
    let message = fixture
        .copied("contractor", &one, "contractor/site:latest")
        .failed();
    refused(
        &message,
        "but may: push and overwrite contractor/** (tag release)",
    );
    refused(
        &fixture
            .copied("contractor", &one, "base/app:release")
            .failed(),
        "denied",
    );
    refused(
        &fixture.inspected("contractor", "base/app:v1").failed(),
        "unknown",
    );
    let denied = fixture.logged(&["call=manifest.write", "reference=latest", "status=403"]);
    assert!(denied[0].contains(" rule=none "), "{denied:?}");
}

#[test]
fn skopeo_under_rules_before_docker_registry() {
    skopeo_under_rules(&RegistriesFixture::new().ruled());
}

#[test]
fn skopeo_under_rules_before_a_store() {
    skopeo_under_rules(&RegistriesFixture::of_stores().ruled());
}

#[test]
fn of_two_pushes_for_one_tag_at_docker_registry_exactly_one_wins() {
    let fixture = RegistriesFixture::new().ruled();
    let images = ["one", "two", "three"].map(|word| fixture.image_of(word));
    for (number, image) in images.iter().enumerate() {
        // So that the race is for the tag alone.
        fixture
            .copied("ci-bot", image, &format!("base/app:{number}"))
            .succeeded();
    }
    for round in 0..4 {
        let to = format!("base/app:race-{round}");
        let outputs: Vec<Output> = std::thread::scope(|scope| {
            let pushes = images.each_ref().map(|image| {
                let (fixture, to) = (&fixture, &to);
                scope.spawn(move || fixture.copied("ci-bot", image, to))
            });
            pushes.map(|push| push.join().unwrap()).into()
        });
        let (won, lost): (Vec<_>, Vec<_>) = outputs
            .into_iter()
            .partition(|output| output.status.success());
        assert_eq!(won.len(), 1, "{lost:?}");
        for output in lost {
            refused(&output.failed(), "may not overwrite");
        }
    }
}

#[test]
fn docker_under_rules() {
    let fixture = RegistriesFixture::new().ruled();
    let engine = Engine::start(&fixture.machine, &fixture.path().join("engine"));
    let authority = fixture.ci.by_name();
    let name = |what: &str| format!("{authority}/{what}");
    let login = |user: &str| {
        engine
            .login(&authority, user, fixture.password(user))
            .succeeded()
    };
    let tagged = |from: &str, to: &str| engine.docker(&["tag", &name(from), &name(to)]).succeeded();
    login("ci-bot");
    for what in ["base/app:v1", "public/app:v1"] {
        engine.import(&name(what));
        engine.push_and_pull(&name(what));
    }
    engine.docker(&["push", &name("base/app:v1")]).succeeded();
    tagged("public/app:v1", "base/app:v1");
    let message = engine.docker(&["push", &name("base/app:v1")]).failed();
    refused(&message, "denied: ci-bot may not overwrite base/app:v1");

    login("reader");
    engine.docker(&["pull", &name("base/app:v1")]).succeeded();
    tagged("base/app:v1", "base/app:mine");
    refused(
        &engine.docker(&["push", &name("base/app:mine")]).failed(),
        "reader may not push",
    );

    login("contractor");
    for from in ["base/app:v1", "public/app:v1"] {
        tagged(from, "contractor/site:release");
        engine
            .docker(&["push", &name("contractor/site:release")])
            .succeeded();
    }
    tagged("base/app:v1", "contractor/site:latest");
    let message = engine
        .docker(&["push", &name("contractor/site:latest")])
        .failed();
    refused(
        &message,
        "but may: push and overwrite contractor/** (tag release)",
    );
    refused(
        &engine.docker(&["pull", &name("base/app:v1")]).failed(),
        "not found",
    );

    // As `check` says: without a login the classic engine does not even ask.
    engine.docker(&["logout", &authority]).succeeded();
    engine.docker(&["pull", &name("public/app:v1")]).failed();
    fixture.logged(&["call=ping", "user=-", "status=401"]);
    let log = fixture.moorgate.stdout();
    assert!(
        !log.lines()
            .any(|line| line.contains(" user=- ") && line.contains("call=manifest.read")),
        "{log}"
    );
    let checked = fixture.cli(&["check"]);
    assert!(
        checked
            .stderr
            .contains("the classic Docker engine cannot pull from here"),
        "{checked:?}"
    );
}

#[test]
fn buildah_and_skopeo_under_rules_and_without_a_login() {
    let fixture = RegistriesFixture::of_stores().ruled();
    let buildah = Tool::buildah(&fixture);
    let authority = fixture.ci.by_name();
    let image = fixture.image_of("one");
    fixture
        .copied("ci-bot", &image, "public/app:v1")
        .succeeded();
    fixture.copied("ci-bot", &image, "base/app:v1").succeeded();

    let public = format!("{authority}/public/app:v1");
    buildah.run(&["pull", &public]).succeeded();
    refused(
        &buildah
            .run(&["pull", &format!("{authority}/base/app:v1")])
            .failed(),
        "unauthorized",
    );
    fixture
        .skopeo(&["inspect", &format!("docker://{public}")])
        .succeeded();
    fixture
        .skopeo(&["inspect", &format!("docker://{authority}/base/app:v1")])
        .failed();

    buildah.login("contractor").succeeded();
    buildah.push(&public, "contractor/site:release").succeeded();
    let message = buildah.push(&public, "contractor/site:v2").failed();
    refused(&message, "contractor may not push contractor/site:v2");
}

/// The same in each mode: nothing is different for these clients but the way in.
pub fn podman_or_buildah(fixture: &RegistriesFixture, tool: &Tool<'_>) {
    let name = |what: &str| format!("{}/{what}", fixture.ci.by_name());
    let image = fixture.image_of("one");
    for what in ["public/app:v1", "base/app:v1"] {
        fixture.copied("ci-bot", &image, what).succeeded();
    }
    tool.run(&["pull", &name("public/app:v1")]).succeeded();
    refused(
        &tool.run(&["pull", &name("base/app:v1")]).failed(),
        "log in to use this registry",
    );
    tool.push(&name("public/app:v1"), "public/app:mine")
        .failed();

    tool.login("contractor").succeeded();
    for _ in 0..2 {
        tool.push(&name("public/app:v1"), "contractor/site:release")
            .succeeded();
    }
    let message = tool
        .push(&name("public/app:v1"), "contractor/site:v2")
        .failed();
    refused(&message, "contractor may not push contractor/site:v2");
    refused(
        &tool.run(&["pull", &name("base/app:v1")]).failed(),
        "unknown",
    );

    tool.login("ci-bot").succeeded();
    tool.run(&["pull", &name("base/app:v1")]).succeeded();
    tool.push(&name("base/app:v1"), "base/app:v2").succeeded();
    tool.run(&["pull", &name("base/app:v2")]).succeeded();
}

/// The same for containerd, which has no login of its own: it shows what it is given each time.
pub fn containerd(fixture: &RegistriesFixture) {
    let ctr = Containerd::start(&fixture.machine, &fixture.path().join("containerd"));
    let name = |what: &str| format!("{}/{what}", fixture.ci.by_name());
    let of = |user: &str| format!("{user}:{}", fixture.password(user));
    let image = fixture.image_of("one");
    for what in ["public/app:v1", "base/app:v1"] {
        fixture.copied("ci-bot", &image, what).succeeded();
    }
    ctr.pull(None, &name("public/app:v1")).succeeded();
    refused(
        &ctr.pull(None, &name("base/app:v1")).failed(),
        "401 Unauthorized",
    );
    refused(
        &ctr.pull(Some(&of("contractor")), &name("base/app:v1"))
            .failed(),
        "not found",
    );
    fixture.logged(&[
        "user=contractor",
        "call=manifest.read",
        "repository=base/app",
        "status=404",
    ]);
    ctr.pull(Some(&of("reader")), &name("base/app:v1"))
        .succeeded();
    refused(
        &ctr.pull(Some("reader:wrong"), &name("base/app:v2"))
            .failed(),
        "401 Unauthorized",
    );

    ctr.tag(&name("base/app:v1"), &name("base/app:v2"))
        .succeeded();
    let refused_or_silent = |said: &str, words: &str| {
        assert!(
            said.contains(words) || only_tells_of_its_pipe(said),
            "{said}"
        );
    };
    let said = ctr.push(None, &name("base/app:v2")).failed();
    refused_or_silent(&said, "401 Unauthorized");
    let said = ctr.push(Some(&of("reader")), &name("base/app:v2")).failed();
    refused_or_silent(&said, "403 Forbidden");
    fixture.logged(&["user=reader", "repository=base/app", "status=403"]);
    ctr.push(Some(&of("ci-bot")), &name("base/app:v2"))
        .succeeded();
    fixture.inspected("reader", "base/app:v2").succeeded();
    ctr.tag(&name("base/app:v1"), &name("contractor/site:release"))
        .succeeded();
    for _ in 0..2 {
        ctr.push(Some(&of("contractor")), &name("contractor/site:release"))
            .succeeded();
    }
    ctr.tag(&name("base/app:v1"), &name("contractor/site:v2"))
        .succeeded();
    let said = ctr
        .push(Some(&of("contractor")), &name("contractor/site:v2"))
        .failed();
    refused_or_silent(&said, "403 Forbidden");
    fixture.logged(&[
        "user=contractor",
        "call=manifest.write",
        "reference=v2",
        "status=403",
    ]);
}

#[test]
fn podman_under_rules_and_without_a_login() {
    let fixture = RegistriesFixture::new().ruled();
    podman_or_buildah(&fixture, &Tool::podman(&fixture));
}

#[test]
fn containerd_under_rules_and_without_a_login() {
    let fixture = RegistriesFixture::new().ruled();
    containerd(&fixture);
}
