//! moorgate's own registry with real clients: in front of it, and in its directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::clients::Tool;
use super::engine::Engine;
use super::fixture::RegistriesFixture;
use super::image::{blob, sha256, tar, write_oci_layout};
use super::process::{Output, run, tool};

/// The names of the blobs of an image layout, each of which has to be what its name says.
fn blobs(layout: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(layout.join("blobs/sha256"))
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = format!("sha256:{}", entry.file_name().into_string().unwrap());
            assert_eq!(sha256(&fs::read(entry.path()).unwrap()), name);
            name
        })
        .collect();
    names.sort();
    names
}

impl RegistriesFixture {
    /// An image for two machines, as skopeo names it.
    fn two_images(&self) -> (PathBuf, String) {
        let directory = self.path().join("two");
        let mut listed = Vec::new();
        for machine in ["amd64", "arm64"] {
            write_oci_layout(
                &directory,
                &[
                    ("machine", machine.as_bytes()),
                    ("both", b"the same in both"),
                ],
            );
            let index: Value =
                serde_json::from_slice(&fs::read(directory.join("index.json")).unwrap()).unwrap();
            let mut manifest = index["manifests"][0].clone();
            manifest.as_object_mut().unwrap().remove("annotations");
            manifest["platform"] = json!({ "architecture": machine, "os": "linux" });
            listed.push(manifest);
        }
        let kind = "application/vnd.oci.image.index.v1+json";
        let list = json!({ "schemaVersion": 2, "mediaType": kind, "manifests": listed });
        let mut list = blob(&directory, list.to_string().as_bytes(), kind);
        list["annotations"] = json!({ "org.opencontainers.image.ref.name": "v1" });
        let index = json!({ "schemaVersion": 2, "manifests": [list] });
        fs::write(directory.join("index.json"), index.to_string()).unwrap();
        let name = format!("oci:{}:v1", directory.display());
        (directory, name)
    }

    fn tags(&self, repository: &str) -> Value {
        let listed = self.skopeo(&["list-tags", repository]).succeeded();
        serde_json::from_str::<Value>(&listed).unwrap()["Tags"].clone()
    }

    fn buildah(&self, arguments: &[&str], input: &str) -> Output {
        let storage = self.path().join("buildah");
        let mut command = self.machine.command(&tool("buildah", "buildah"));
        command.env(
            "REGISTRY_AUTH_FILE",
            self.machine.home().join("buildah-auth.json"),
        );
        command
            .arg("--root")
            .arg(storage.join("root"))
            .arg("--runroot")
            .arg(storage.join("run"));
        run(
            command.args(["--storage-driver", "vfs"]).args(arguments),
            input,
        )
    }
}

#[test]
fn skopeo_pushes_pulls_lists_and_deletes() {
    let fixture = RegistriesFixture::of_stores();
    let authority = fixture.ci.by_name();
    fixture.logged_in(&fixture.ci, &authority);
    fixture.push_and_pull(&authority);
    let remote = |tag: &str| format!("docker://{authority}/base/app{tag}");
    for tag in [":v2", ":latest"] {
        fixture
            .skopeo(&["copy", &remote(":v1"), &remote(tag)])
            .succeeded();
    }
    assert_eq!(fixture.tags(&remote("")), json!(["latest", "v1", "v2"]));
    // Layers come from where they are; nothing is sent again.
    fixture
        .skopeo(&[
            "copy",
            &remote(":v1"),
            &format!("docker://{authority}/other/app:v1"),
        ])
        .succeeded();
    let mounts = fixture.logged(&["call=upload.mount", "repository=other/app"]);
    assert!(
        mounts.iter().all(|line| line.contains(" status=201 ")),
        "{mounts:?}"
    );
    fixture.skopeo(&["delete", &remote(":v1")]).succeeded();
    let message = fixture.skopeo(&["inspect", &remote(":v2")]).failed();
    assert!(message.contains("manifest unknown"), "{message}");
    assert_eq!(fixture.tags(&remote("")), json!([]));
    fixture
        .skopeo(&["inspect", &format!("docker://{authority}/other/app:v1")])
        .succeeded();
    for line in fixture.moorgate.stdout().lines() {
        assert!(line.contains(" end=complete"), "{line}");
    }
}

#[test]
fn skopeo_pushes_and_pulls_an_image_for_two_machines() {
    let fixture = RegistriesFixture::of_stores();
    let authority = fixture.ci.by_name();
    fixture.logged_in(&fixture.ci, &authority);
    let (pushed, image) = fixture.two_images();
    let remote = format!("docker://{authority}/base/two:v1");
    fixture
        .skopeo(&["copy", "--all", "--preserve-digests", &image, &remote])
        .succeeded();
    let pulled = fixture.path().join("pulled");
    let to = format!("oci:{}:v1", pulled.display());
    fixture
        .skopeo(&["copy", "--all", "--preserve-digests", &remote, &to])
        .succeeded();
    assert_eq!(blobs(&pulled), blobs(&pushed));
    assert_eq!(
        blobs(&pulled).len(),
        8,
        "an index, and of two images manifest, config and a layer; one of both"
    );
    for machine in ["amd64", "arm64"] {
        let inspected = fixture
            .skopeo(&["inspect", "--override-arch", machine, &remote])
            .succeeded();
        assert!(inspected.contains("\"Layers\""), "{inspected}");
    }
}

#[test]
fn skopeo_copies_an_index_without_its_images_where_the_domain_allows_it() {
    let fixture = RegistriesFixture::of_stores();
    let authority = fixture.ci.by_name();
    fixture.logged_in(&fixture.ci, &authority);
    let (_, image) = fixture.two_images();
    let remote = format!("docker://{authority}/base/sparse:v1");
    let copy = ["copy", "--multi-arch", "index-only", &image, &remote];
    let message = fixture.skopeo(&copy).failed();
    assert!(message.contains("push it first"), "{message}");
    let file = fixture.conf_d(&fixture.ci, "toml");
    let settings = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{settings}missing = \"allow\"\n")).unwrap();
    fixture.cli(&["reload"]).succeeded();
    fixture.skopeo(&copy).succeeded();
    let raw = fixture.skopeo(&["inspect", "--raw", &remote]).succeeded();
    let index: Value = serde_json::from_str(&raw).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
    let message = fixture.skopeo(&["inspect", &remote]).failed();
    assert!(message.contains("manifest unknown"), "{message}");
}

#[test]
fn other_tools_read_what_is_in_the_directory() {
    let fixture = RegistriesFixture::of_stores();
    let authority = fixture.ci.by_name();
    fixture.logged_in(&fixture.ci, &authority);
    let (pushed, image) = fixture.image(3);
    fixture.push(&image, &format!("docker://{authority}/base/app:v1"));
    fixture.push(&image, &format!("docker://{authority}/base/app:v2"));
    let layout = fixture.layout(&fixture.ci, "base/app");
    assert_eq!(blobs(&layout), blobs(&pushed));
    let local = format!("oci:{}:v1", layout.display());
    let [here, there] = [local.clone(), format!("docker://{authority}/base/app:v1")].map(|name| {
        let inspected: Value =
            serde_json::from_str(&fixture.skopeo(&["inspect", &name]).succeeded()).unwrap();
        (inspected["Digest"].clone(), inspected["Layers"].clone())
    });
    assert_eq!(here, there);
    let copied = fixture.path().join("copied");
    fixture
        .skopeo(&["copy", &local, &format!("dir:{}", copied.display())])
        .succeeded();
    for name in blobs(&pushed) {
        let content = fs::read(pushed.join("blobs").join(name.replace(':', "/"))).unwrap();
        let copy = copied.join(name.strip_prefix("sha256:").unwrap());
        let is_manifest = !copy.exists();
        let copy = if is_manifest {
            copied.join("manifest.json")
        } else {
            copy
        };
        assert!(fs::read(copy).unwrap() == content, "{name}");
    }
}

#[test]
fn what_other_tools_write_into_the_directory_is_there() {
    let fixture = RegistriesFixture::of_stores();
    let authority = fixture.ci.by_name();
    fixture.logged_in(&fixture.ci, &authority);
    let (pushed, image) = fixture.image(2);
    let (both_pushed, both) = fixture.two_images();
    let layout = |name: &str, tag: &str| {
        format!("oci:{}:{tag}", fixture.layout(&fixture.ci, name).display())
    };
    let remote = |name: &str| format!("docker://{authority}/{name}");
    // Into a repository that is there, and into one that was never pushed to.
    fixture.push(&image, &remote("base/app:v1"));
    for name in ["base/app", "tool/made"] {
        fixture
            .skopeo(&["copy", &image, &layout(name, "by-tool")])
            .succeeded();
        fixture
            .skopeo(&[
                "copy",
                "--all",
                "--preserve-digests",
                &both,
                &layout(name, "both"),
            ])
            .succeeded();
    }
    assert_eq!(
        fixture.tags(&remote("base/app")),
        json!(["both", "by-tool", "v1"])
    );
    assert_eq!(
        fixture.tags(&remote("tool/made")),
        json!(["both", "by-tool"])
    );
    for (n, (tag, source)) in [("by-tool", &pushed), ("both", &both_pushed)]
        .into_iter()
        .enumerate()
    {
        let pulled = fixture.path().join(format!("pulled-{n}"));
        let to = format!("oci:{}:v1", pulled.display());
        let from = format!("{}:{tag}", remote("tool/made"));
        fixture
            .skopeo(&["copy", "--all", "--preserve-digests", &from, &to])
            .succeeded();
        assert_eq!(blobs(&pulled), blobs(source));
    }
    // What is pushed after that leaves it alone.
    fixture.push(&image, &remote("tool/made:v3"));
    fixture
        .skopeo(&["inspect", &layout("tool/made", "both"), "--raw"])
        .succeeded();
    fixture
        .skopeo(&["inspect", &layout("tool/made", "v3")])
        .succeeded();
    assert_eq!(
        fixture.tags(&remote("tool/made")),
        json!(["both", "by-tool", "v3"])
    );
    fixture
        .skopeo(&["delete", &remote("tool/made:by-tool")])
        .succeeded();
    assert_eq!(
        fixture.tags(&remote("tool/made")),
        json!(["both"]),
        "two tags of one image"
    );
}

#[test]
fn docker_pushes_and_pulls() {
    let fixture = RegistriesFixture::of_stores();
    let engine = Engine::start(&fixture.machine, &fixture.path().join("engine"));
    for domain in [&fixture.ci, &fixture.cache] {
        engine
            .login(&domain.by_port(), domain.user, domain.password)
            .succeeded();
        let name = format!("{}/base/app:v1", domain.by_port());
        engine.import(&name);
        engine.push_and_pull(&name);
    }
    let ci = &fixture.ci;
    engine
        .login(&ci.by_name(), ci.user, ci.password)
        .succeeded();
    let name = format!("{}/release/many", ci.by_name());
    engine.build(&format!("{name}:v1"), 12);
    engine.push_and_pull(&format!("{name}:v1"));
    engine
        .docker(&["tag", &format!("{name}:v1"), &format!("{name}:v2")])
        .succeeded();
    engine.docker(&["push", "--all-tags", &name]).succeeded();
    let id = engine.image_id(&format!("{name}:v1"));
    engine
        .docker(&["image", "rm", "--force", id.trim()])
        .succeeded();
    engine.docker(&["pull", "--all-tags", &name]).succeeded();
    assert_eq!(engine.image_id(&format!("{name}:v2")), id);
    // Its manifests are of Docker's own type, and listed so. skopeo reads those of OCI's types
    // only.
    let layout = fixture.layout(ci, "release/many");
    let index: Value =
        serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    assert_eq!(
        index["manifests"][0]["mediaType"],
        "application/vnd.docker.distribution.manifest.v2+json"
    );
    assert_eq!(
        blobs(&layout).len(),
        14,
        "twelve layers, a config and a manifest"
    );
}

impl RegistriesFixture {
    /// Stores whose users have an area of their own in a domain, of this size.
    fn with_quota(size: u64) -> Self {
        let fixture = Self::of_stores();
        let file = fixture.conf_d(&fixture.ci, "toml");
        let before = fs::read_to_string(&file).unwrap();
        let quota = "[[quota]]\nrepositories = [\"${user}/**\"]\nsize = ";
        fs::write(&file, format!("{before}\n{quota}{size}\n")).unwrap();
        fixture.cli(&["reload"]).succeeded();
        fixture
    }

    /// What a refused push has cost: the requests of the access log that would write, and how many
    /// of them were refused.
    fn writes(&self) -> (usize, usize) {
        self.logged(&["status=403", "reason=over-quota"]);
        let log = self.moorgate.stdout();
        let is_write = |line: &&str| {
            let methods = ["method=POST", "method=PATCH", "method=PUT"];
            methods
                .iter()
                .any(|method| line.split(' ').any(|part| part == *method))
        };
        let writes: Vec<_> = log.lines().filter(is_write).collect();
        let refused = writes.iter().filter(|line| line.contains("status=403"));
        (writes.len(), refused.count())
    }
}

/// The longest that a client may take to give up: those that repeat a push wait longer.
const REFUSAL_TIME: Duration = Duration::from_secs(10);

#[test]
fn docker_shows_what_a_quota_leaves_and_does_not_repeat_the_push() {
    let fixture = RegistriesFixture::with_quota(100);
    let engine = Engine::start(&fixture.machine, &fixture.path().join("engine"));
    let ci = &fixture.ci;
    engine
        .login(&ci.by_port(), ci.user, ci.password)
        .succeeded();
    let name = format!("{}/ci-bot/app:v1", ci.by_port());
    engine.build(&name, 1);
    let begun = Instant::now();
    let message = engine.docker(&["push", &name]).failed();
    assert!(begun.elapsed() < REFUSAL_TIME, "{:?}", begun.elapsed());
    assert!(
        message.contains("denied: the quota is used up: this push needs"),
        "{message}"
    );
    assert!(
        message.contains("\"ci-bot/**\" holds 0 bytes of 100 bytes"),
        "{message}"
    );
    let (writes, refused) = fixture.writes();
    assert!(refused == 1 && writes <= 3, "{}", fixture.moorgate.stdout());
}

#[test]
fn skopeo_and_podman_show_what_a_quota_leaves() {
    let fixture = RegistriesFixture::with_quota(100);
    let ci = &fixture.ci;
    fixture.logged_in(ci, &ci.by_name());
    let (_, image) = fixture.image(1);
    let remote = format!("docker://{}/ci-bot/app:v1", ci.by_name());
    let begun = Instant::now();
    let message = fixture.skopeo(&["copy", &image, &remote]).failed();
    assert!(
        message.contains("denied: the quota is used up: this push needs"),
        "{message}"
    );
    let podman = Tool::podman(&fixture);
    podman.login(ci.user).succeeded();
    let archive = fixture.path().join("import.tar");
    fs::write(&archive, tar("hello", b"hello\n")).unwrap();
    let imported = podman.run(&["import", archive.to_str().unwrap(), "localhost/app:v1"]);
    imported.succeeded();
    let message = podman.push("localhost/app:v1", "ci-bot/app:v1").failed();
    assert!(
        message.contains("denied: the quota is used up: this push needs"),
        "{message}"
    );
    assert!(begun.elapsed() < 2 * REFUSAL_TIME, "{:?}", begun.elapsed());
}

#[test]
fn buildah_pushes_and_pulls() {
    let fixture = RegistriesFixture::of_stores();
    let ci = &fixture.ci;
    let authority = ci.by_name();
    fixture
        .buildah(
            &[
                "login",
                "--username",
                ci.user,
                "--password-stdin",
                &authority,
            ],
            ci.password,
        )
        .succeeded();
    let container = fixture.buildah(&["from", "scratch"], "").succeeded();
    let file = fixture.path().join("hello");
    fs::write(&file, "hello\n").unwrap();
    fixture
        .buildah(
            &["copy", container.trim(), file.to_str().unwrap(), "/hello"],
            "",
        )
        .succeeded();
    for (format, tag) in [("oci", "v1"), ("docker", "v2")] {
        let local = format!("localhost/app:{tag}");
        let remote = format!("docker://{authority}/base/app:{tag}");
        let id = fixture
            .buildah(
                &[
                    "commit",
                    "--quiet",
                    "--format",
                    format,
                    container.trim(),
                    &local,
                ],
                "",
            )
            .succeeded();
        fixture.buildah(&["push", &local, &remote], "").succeeded();
        fixture
            .buildah(&["rmi", "--force", id.trim()], "")
            .succeeded();
        assert_eq!(
            fixture
                .buildah(&["pull", "--quiet", &remote], "")
                .succeeded(),
            id
        );
    }
    fixture.logged_in(ci, &authority);
    assert_eq!(
        fixture.tags(&format!("docker://{authority}/base/app")),
        json!(["v1", "v2"])
    );
}
