//! skopeo pushes, pulls, lists, inspects, mounts and deletes.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::fixture::{Domain, RegistriesFixture};
use super::image::write_oci_layout;
use super::process::{Output, run, tool};

impl RegistriesFixture {
    pub(super) fn skopeo(&self, arguments: &[&str]) -> Output {
        self.skopeo_with(arguments, "")
    }

    fn skopeo_with(&self, arguments: &[&str], input: &str) -> Output {
        let skopeo = tool("skopeo", "skopeo");
        let mut command: Command = self.machine.command(&skopeo);
        // Where it keeps logins.
        command.env(
            "REGISTRY_AUTH_FILE",
            self.machine.home().join("skopeo-auth.json"),
        );
        run(command.args(arguments), input)
    }

    pub(super) fn skopeo_login(&self, authority: &str, user: &str, password: &str) -> Output {
        self.skopeo_with(
            &["login", "--username", user, "--password-stdin", authority],
            password,
        )
    }

    /// Logs in as the domain's own user.
    pub(super) fn logged_in(&self, domain: &Domain, authority: &str) {
        self.skopeo_login(authority, domain.user, domain.password)
            .succeeded();
    }

    /// An image of that many layers, as skopeo names it.
    pub(super) fn image(&self, layers: usize) -> (PathBuf, String) {
        let raw = self.path().join("raw-image");
        let contents: Vec<_> = (0..layers)
            .map(|layer| {
                (
                    format!("file-{layer}"),
                    format!("layer {layer}\n").repeat(20_000),
                )
            })
            .collect();
        let layers: Vec<_> = contents
            .iter()
            .map(|(name, content)| (name.as_str(), content.as_bytes()))
            .collect();
        write_oci_layout(&raw, &layers);
        // skopeo compresses layers wherever it copies them to: once is enough.
        let directory = self.path().join("image");
        let name = format!("oci:{}:v1", directory.display());
        self.skopeo(&["copy", &format!("oci:{}:v1", raw.display()), &name])
            .succeeded();
        (directory, name)
    }

    pub(super) fn push(&self, image: &str, remote: &str) {
        self.skopeo(&["copy", image, remote]).succeeded();
    }

    /// Pushes an image, pulls it into another directory, and compares.
    pub(super) fn push_and_pull(&self, authority: &str) {
        let (pushed, image) = self.image(2);
        let remote = format!("docker://{authority}/base/app:v1");
        self.push(&image, &remote);
        let pulled = self.path().join("pulled");
        self.skopeo(&["copy", &remote, &format!("oci:{}:v1", pulled.display())])
            .succeeded();
        let mut blobs = 0;
        for blob in fs::read_dir(pushed.join("blobs/sha256")).unwrap() {
            let name = blob.unwrap().file_name();
            let [sent, got] = [&pushed, &pulled]
                .map(|side| fs::read(side.join("blobs/sha256").join(&name)).unwrap());
            assert!(sent == got, "{name:?} differs");
            blobs += 1;
        }
        assert_eq!(blobs, 4, "two layers, a config and a manifest");
    }
}

#[test]
fn skopeo_pushes_and_pulls_by_name() {
    let fixture = RegistriesFixture::new();
    fixture.logged_in(&fixture.ci, &fixture.ci.by_name());
    fixture.push_and_pull(&fixture.ci.by_name());
    let commit = fixture.logged(&["call=upload.commit", "domain=docker-ci.test"]);
    assert!(
        commit
            .iter()
            .all(|line| line.contains(" user=ci-bot ") && line.contains(" status=201 "))
    );
    assert!(
        commit
            .iter()
            .all(|line| line.contains(" repository=base/app ")),
        "{commit:?}"
    );
    for line in fixture.moorgate.stdout().lines() {
        assert!(line.contains(" end=complete"), "{line}");
    }
}

#[test]
fn skopeo_pushes_and_pulls_through_the_port_of_the_domain() {
    let fixture = RegistriesFixture::new();
    for domain in [&fixture.ci, &fixture.cache] {
        fixture.logged_in(domain, &domain.by_port());
        fixture.push_and_pull(&domain.by_port());
    }
    for line in fixture.logged(&["call=upload.commit", "user=cache-bot"]) {
        assert!(line.contains(" domain=docker-cache.test "), "{line}");
    }
}

#[test]
fn skopeo_refuses_a_gateway_whose_ca_it_does_not_know() {
    let fixture = RegistriesFixture::new();
    fixture.machine.trusts("");
    let ci = &fixture.ci;
    let message = fixture
        .skopeo_login(&ci.by_name(), ci.user, ci.password)
        .failed();
    assert!(
        message.contains("certificate signed by unknown authority"),
        "{message}"
    );
}

#[test]
fn an_image_of_one_domain_is_not_in_the_other() {
    let fixture = RegistriesFixture::new();
    let (ci, cache) = (fixture.ci.by_name(), fixture.cache.by_name());
    fixture.logged_in(&fixture.ci, &ci);
    fixture.logged_in(&fixture.cache, &cache);
    let (_, image) = fixture.image(1);
    fixture.push(&image, &format!("docker://{ci}/base/app:v1"));
    fixture
        .skopeo(&["inspect", &format!("docker://{ci}/base/app:v1")])
        .succeeded();
    let message = fixture
        .skopeo(&["inspect", &format!("docker://{cache}/base/app:v1")])
        .failed();
    assert!(message.contains("manifest unknown"), "{message}");
}

#[test]
fn skopeo_lists_tags_inspects_and_deletes() {
    let fixture = RegistriesFixture::new();
    let authority = fixture.ci.by_name();
    fixture.logged_in(&fixture.ci, &authority);
    let (_, image) = fixture.image(2);
    let remote = |tag: &str| format!("docker://{authority}/base/app{tag}");
    for tag in [":v1", ":v2", ":latest"] {
        fixture.push(&image, &remote(tag));
    }
    let tags = |repository: &str| -> Value {
        serde_json::from_str(&fixture.skopeo(&["list-tags", repository]).succeeded()).unwrap()
    };
    let mut listed: Vec<_> = tags(&remote(""))["Tags"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tag| tag.as_str().unwrap().to_owned())
        .collect();
    listed.sort();
    assert_eq!(listed, ["latest", "v1", "v2"]);
    let inspected = fixture.skopeo(&["inspect", &remote(":v2")]).succeeded();
    let inspected: Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!(inspected["Name"], format!("{authority}/base/app"));
    assert_eq!(inspected["Layers"].as_array().unwrap().len(), 2);
    // By digest, as the protocol has it: all three tags go.
    fixture.skopeo(&["delete", &remote(":v1")]).succeeded();
    let message = fixture.skopeo(&["inspect", &remote(":v2")]).failed();
    assert!(message.contains("manifest unknown"), "{message}");
    assert!(fixture.logged(&["call=manifest.delete"])[0].contains(" status=202 "));
}

#[test]
fn a_blob_is_mounted_from_another_repository() {
    let fixture = RegistriesFixture::new();
    let authority = fixture.ci.by_name();
    fixture.logged_in(&fixture.ci, &authority);
    let (_, image) = fixture.image(2);
    let (from, to) = (
        format!("docker://{authority}/base/app:v1"),
        format!("docker://{authority}/other/app:v1"),
    );
    fixture.push(&image, &from);
    fixture.skopeo(&["copy", &from, &to]).succeeded();
    let mounts = fixture.logged(&["call=upload.mount", "repository=other/app"]);
    assert!(
        mounts.iter().all(|line| line.contains(" status=201 ")),
        "{mounts:?}"
    );
    assert!(mounts.len() >= 2, "both layers: {mounts:?}");
    // Its line comes after those of all uploads.
    fixture.logged(&["call=manifest.write", "repository=other/app"]);
    let sent_again = fixture.logged(&["call=upload.chunk", "repository=other/app"]);
    assert_eq!(
        sent_again.len(),
        1,
        "only the config, which skopeo does not mount: {sent_again:?}"
    );
    fixture.skopeo(&["inspect", &to]).succeeded();
}

#[test]
fn many_layers_go_up_and_down_side_by_side() {
    let fixture = RegistriesFixture::new();
    let authority = fixture.cache.by_name();
    fixture.logged_in(&fixture.cache, &authority);
    let (pushed, image) = fixture.image(24);
    let remote = format!("docker://{authority}/release/many:v1");
    fixture.push(&image, &remote);
    let pulled = fixture.path().join("many");
    fixture
        .skopeo(&["copy", &remote, &format!("oci:{}:v1", pulled.display())])
        .succeeded();
    let names = |directory: &PathBuf| {
        let entries = fs::read_dir(directory.join("blobs/sha256")).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&pulled), names(&pushed));
    assert_eq!(names(&pulled).len(), 26);
}
