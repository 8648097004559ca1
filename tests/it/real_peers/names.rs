//! Repositories that docker-registry knows by other names.

use std::fs;
use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::engine::Engine;
use super::fixture::RegistriesFixture;
use super::image::write_oci_layout;
use super::process::{run, until};
use crate::store::image::sha256;

const MAP: &str = "
[[upstream.map]]
prefix = \"ci/\"
to = \"acme/ci-\"
flatten = \"--\"

[[upstream.map]]
prefix = \"base/\"
to = \"mirror/\"
";

impl RegistriesFixture {
    /// The map is in force for the first domain when this returns.
    fn mapped() -> Self {
        let fixture = Self::new();
        let file = fixture.conf_d(&fixture.ci, "toml");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, format!("{text}{MAP}")).unwrap();
        fixture.moorgate.signal(Signal::HUP);
        until("the map is in force", || {
            fixture.moorgate.stderr().contains("configuration reloaded")
        });
        fixture.logged_in(&fixture.ci, &fixture.ci.by_name());
        fixture
    }

    fn remote(&self, what: &str) -> String {
        format!("docker://{}/{what}", self.ci.by_name())
    }

    /// What the registry itself says, with nobody in front.
    fn inside(&self, target: &str) -> Value {
        let url = format!("http://{}{target}", self.ci.registry());
        serde_json::from_str(&run(self.curl().arg(url), "").succeeded()).unwrap()
    }

    /// The head of an answer to the first domain's user.
    fn head_of(&self, method: &str, target: &str, arguments: &[&str]) -> String {
        let mut curl: Command = self.curl();
        let user = format!("{}:{}", self.ci.user, self.ci.password);
        curl.args(["--user", &user, "--request", method])
            .args(["--output", "/dev/null", "--dump-header", "-"])
            .args(arguments);
        let url = match target.strip_prefix('/') {
            Some(_) => format!("https://{}{target}", self.ci.by_name()),
            None => target.to_owned(),
        };
        run(curl.arg(url), "").succeeded()
    }
}

/// The value of a header of a head.
fn header(head: &str, name: &str) -> String {
    let value = head.lines().find_map(|line| {
        let (found, value) = line.split_once(": ")?;
        found.eq_ignore_ascii_case(name).then_some(value)
    });
    value
        .unwrap_or_else(|| panic!("no {name}: {head}"))
        .to_owned()
}

#[test]
fn skopeo_pushes_pulls_mounts_lists_and_deletes_by_other_names() {
    let fixture = RegistriesFixture::mapped();
    let (pushed, image) = fixture.image(2);
    for tag in ["v1", "v2"] {
        fixture.push(&image, &fixture.remote(&format!("ci/a/b:{tag}")));
    }
    let inside = fixture.inside("/v2/acme/ci-a--b/tags/list");
    assert_eq!(inside["tags"], json!(["v1", "v2"]));

    let pulled = fixture.path().join("pulled");
    let to = format!("oci:{}:v1", pulled.display());
    fixture
        .skopeo(&["copy", &fixture.remote("ci/a/b:v1"), &to])
        .succeeded();
    for blob in fs::read_dir(pushed.join("blobs/sha256")).unwrap() {
        let name = blob.unwrap().file_name();
        let [sent, got] =
            [&pushed, &pulled].map(|side| fs::read(side.join("blobs/sha256").join(&name)).unwrap());
        assert!(sent == got, "{name:?} differs");
    }

    fixture
        .skopeo(&[
            "copy",
            &fixture.remote("ci/a/b:v1"),
            &fixture.remote("base/c/d:v1"),
        ])
        .succeeded();
    let mounts = fixture.logged(&["call=upload.mount", "repository=base/c/d"]);
    let mounted = mounts.iter().filter(|line| line.contains(" status=201 "));
    assert_eq!(mounted.count(), 2, "{mounts:?}");

    let tags = fixture
        .skopeo(&["list-tags", &fixture.remote("ci/a/b")])
        .succeeded();
    let tags: Value = serde_json::from_str(&tags).unwrap();
    assert_eq!(tags["Tags"], json!(["v1", "v2"]));
    fixture
        .skopeo(&["delete", &fixture.remote("ci/a/b:v1")])
        .succeeded();
    let message = fixture
        .skopeo(&["inspect", &fixture.remote("ci/a/b:v2")])
        .failed();
    assert!(message.contains("manifest unknown"), "{message}");
    fixture
        .skopeo(&["inspect", &fixture.remote("base/c/d:v1")])
        .succeeded();
    let log = fixture.moorgate.stdout();
    assert!(!log.contains("acme") && !log.contains("mirror"), "{log}");

    let refused = fixture.skopeo(&["copy", &image, &fixture.remote("ci/a--b:v1")]);
    let message = refused.failed();
    assert!(
        message.contains("a component of it contains `--`"),
        "{message}"
    );
}

#[test]
fn a_catalog_of_other_names_is_paged() {
    let fixture = RegistriesFixture::mapped();
    let layout = fixture.path().join("tiny");
    write_oci_layout(&layout, &[("file", b"tiny")]);
    let image = format!("oci:{}:v1", layout.display());
    let outside = [
        "base/a", "base/a/b", "ci/a", "ci/a-b", "ci/a.b", "ci/a/b", "ci/a/b/c", "ci/b",
    ];
    for name in outside {
        fixture.push(&image, &fixture.remote(&format!("{name}:v1")));
    }
    let direct = format!("docker://{}/elsewhere/app:v1", fixture.ci.registry());
    fixture
        .skopeo(&["copy", "--dest-tls-verify=false", &image, &direct])
        .succeeded();
    let inside = fixture.inside("/v2/_catalog");
    assert_eq!(
        inside["repositories"].as_array().unwrap().len(),
        9,
        "{inside}"
    );
    for n in [1, 3, 8, 100] {
        let mut listed = Vec::new();
        let mut target = format!("/v2/_catalog?n={n}");
        loop {
            let (status, page) = fixture.ask(&target);
            assert_eq!(status, "200", "{page}");
            listed.extend(page["repositories"].as_array().unwrap().clone());
            assert!(listed.len() <= outside.len(), "{listed:?}");
            let head = fixture.head_of("GET", &target, &[]);
            if !head.to_ascii_lowercase().contains("\nlink:") {
                break;
            }
            let link = header(&head, "link");
            let (reference, _) = link.strip_prefix('<').unwrap().split_once('>').unwrap();
            target = reference.to_owned();
        }
        assert_eq!(listed, outside, "{n}");
    }
}

#[test]
fn a_blob_is_uploaded_in_chunks_under_another_name() {
    let fixture = RegistriesFixture::mapped();
    let started = fixture.head_of("POST", "/v2/ci/a/b/blobs/uploads/", &[]);
    let mut session = header(&started, "location");
    for (range, chunk) in [("0-4", "01234"), ("5-9", "56789")] {
        let range = format!("Content-Range: {range}");
        let kind = "Content-Type: application/octet-stream";
        let arguments = ["--header", &range, "--header", kind, "--data-binary", chunk];
        let sent = fixture.head_of("PATCH", &session, &arguments);
        assert!(sent.contains(" 202"), "{sent}");
        session = header(&sent, "location");
        assert!(session.contains("/v2/ci/a/b/blobs/uploads/"), "{session}");
    }
    let status = fixture.head_of("GET", &session, &[]);
    assert_eq!(header(&status, "range"), "0-9");
    let digest = sha256(b"0123456789");
    let committed = fixture.head_of("PUT", &format!("{session}&digest={digest}"), &[]);
    assert!(committed.contains(" 201"), "{committed}");
    let location = header(&committed, "location");
    let own = format!("https://{}/v2/ci/a/b/blobs/{digest}", fixture.ci.by_name());
    assert_eq!(location, own);
    let found = fixture.head_of("GET", &location, &[]);
    assert_eq!(header(&found, "content-length"), "10");
    assert_eq!(header(&found, "docker-content-digest"), digest);
}

#[test]
fn errors_of_the_registry_have_the_names_outside() {
    let fixture = RegistriesFixture::mapped();
    let (status, error) = fixture.ask("/v2/ci/a/b/tags/list");
    assert_eq!(status, "404");
    let detail = &error["errors"][0]["detail"];
    assert_eq!(detail, &json!({ "name": "ci/a/b" }), "{error}");
    let (status, error) = fixture.ask("/v2/ci/a/b/manifests/v1");
    assert_eq!(status, "404");
    assert!(!error.to_string().contains("acme"), "{error}");
}

#[test]
fn docker_pushes_and_pulls_by_other_names() {
    let fixture = RegistriesFixture::mapped();
    let engine = Engine::start(&fixture.machine, &fixture.path().join("engine"));
    let authority = fixture.ci.by_name();
    engine
        .login(&authority, fixture.ci.user, fixture.ci.password)
        .succeeded();
    for name in ["ci/a/b:v1", "base/c/d:v1"] {
        let name = format!("{authority}/{name}");
        engine.import(&name);
        engine.push_and_pull(&name);
    }
    let inside = fixture.inside("/v2/_catalog");
    assert_eq!(
        inside["repositories"],
        json!(["acme/ci-a--b", "mirror/c/d"])
    );
}
