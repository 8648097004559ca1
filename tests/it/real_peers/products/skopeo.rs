//! skopeo copies in and out, lists, inspects and deletes.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::super::image::write_oci_layout;
use super::super::process::{Output, run, tool};
use super::{PASSWORD, ProductDomain, ProductsFixture, USER, blobs, write_index};
use crate::harness::played::DeletionGuard;

/// skopeo with a file of logins of its own.
struct ProductSkopeo<'a> {
    fixture: &'a ProductsFixture,
    domain: &'a ProductDomain,
}

impl ProductSkopeo<'_> {
    fn run(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = self.fixture.machine.command(&tool("skopeo", "skopeo"));
        let logins = format!("skopeo-{}.json", self.domain.product);
        command.env("REGISTRY_AUTH_FILE", self.fixture.path().join(logins));
        run(command.args(arguments), input)
    }

    fn succeeds(&self, arguments: &[&str]) -> String {
        let Output {
            status,
            stdout,
            stderr,
        } = self.run(arguments, "");
        let product = self.domain.product;
        assert!(
            status.success(),
            "{product} {arguments:?}: {stdout}{stderr}"
        );
        stdout
    }

    fn remote(&self, rest: &str) -> String {
        format!("docker://{}", self.domain.image(rest))
    }

    fn login(&self) {
        let authority = &self.domain.authority;
        let login = ["login", "--username", USER, "--password-stdin", authority];
        let refused = self.run(&login, "wrong").failed();
        assert!(refused.contains("invalid username/password"), "{refused}");
        self.run(&login, PASSWORD).succeeded();
    }

    fn copies(&self, image: &Path, index: &str) {
        let local = format!("oci:{}:v1", image.display());
        for tag in [":v1", ":v2"] {
            self.succeeds(&["copy", &local, &self.remote(tag)]);
        }
        self.succeeds(&["copy", "--all", index, &self.remote(":multi")]);
        let product = self.domain.product;
        for (tag, name, options) in [("v1", "image", &[][..]), ("multi", "index", &["--all"])] {
            let pulled = self.fixture.path().join(format!("{product}-{tag}"));
            let to = format!("oci:{}:{tag}", pulled.display());
            let mut copy = vec!["copy"];
            copy.extend(options);
            let from = self.remote(&format!(":{tag}"));
            copy.extend([&*from, &*to]);
            self.succeeds(&copy);
            let pushed = self.fixture.path().join(name);
            assert_eq!(blobs(&pulled), blobs(&pushed), "{product} {tag}");
        }
    }

    fn reads(&self) {
        let list = self.succeeds(&["list-tags", &self.remote("")]);
        let list: Value = serde_json::from_str(&list).unwrap();
        assert_eq!(list["Tags"], serde_json::json!(["multi", "v1", "v2"]));
        let inspected = self.succeeds(&["inspect", &self.remote(":v2")]);
        let inspected: Value = serde_json::from_str(&inspected).unwrap();
        assert_eq!(inspected["Name"], self.domain.image(""));
        let raw = self.succeeds(&["inspect", "--raw", &self.remote(":multi")]);
        let raw: Value = serde_json::from_str(&raw).unwrap();
        assert_eq!(raw["manifests"].as_array().unwrap().len(), 2);
        let missing = self.run(&["inspect", &self.remote(":none")], "").failed();
        assert!(missing.contains("manifest unknown"), "{missing}");
    }

    /// Into a repository that is not there.
    fn makes(&self, image: &Path) {
        let ProductDomain {
            product,
            played,
            authority,
        } = self.domain;
        let name = match played.switches().levels {
            Some(_) => "fresh/app",
            None => "fresh/team/app",
        };
        let local = format!("oci:{}:v1", image.display());
        let remote = format!("docker://{authority}/{name}:v1");
        let copied = self.run(&["copy", &local, &remote], "");
        // A user and password of Google's have no right to its API, and GitLab's projects are for
        // people to make.
        if ["gar", "gitlab"].contains(product) {
            let message = copied.failed();
            let words = "its administrator has to";
            assert!(message.contains(words), "{product}: {message}");
            return;
        }
        assert!(copied.status.success(), "{product}: {}", copied.stderr);
        assert_eq!(played.tags(name).len(), 1, "{product}");
    }

    /// Deletes by the digest, as skopeo does: both tags of the image go, unless the product keeps
    /// manifests that have any.
    fn deletes(&self) {
        let product = self.domain.product;
        let deleted = self.run(&["delete", &self.remote(":v1")], "");
        match self.domain.played.switches().deletion_guard {
            DeletionGuard::Tagged(_) | DeletionGuard::TaggedOrReferenced(_) => {
                let message = deleted.failed();
                assert!(
                    message.contains("delete these first") || message.contains("tagged"),
                    "{product}: {message}"
                );
                assert_eq!(self.domain.tags(), ["multi", "v1", "v2"], "{product}");
            }
            DeletionGuard::None | DeletionGuard::Referenced(_) => {
                assert!(deleted.status.success(), "{product}: {}", deleted.stderr);
                assert_eq!(self.domain.tags(), ["multi"], "{product}");
            }
        }
    }
}

#[test]
fn skopeo_copies_lists_inspects_and_deletes() {
    let fixture = ProductsFixture::new();
    let [raw, image, index] = ["raw", "image", "index"].map(|name| fixture.path().join(name));
    write_oci_layout(&raw, &[("hello", b"hello\n"), ("other", b"other\n")]);
    let index = write_index(&index);
    // skopeo compresses layers wherever it copies them to: once is enough.
    let first = ProductSkopeo {
        fixture: &fixture,
        domain: &fixture.domains[0],
    };
    let [from, to] = [&raw, &image].map(|path| format!("oci:{}:v1", path.display()));
    first.succeeds(&["copy", &from, &to]);
    let compressed = fixture.path().join("compressed");
    let to = format!("oci:{}:multi", compressed.display());
    first.succeeds(&["copy", "--all", &index, &to]);
    fs::remove_dir_all(fixture.path().join("index")).unwrap();
    fs::rename(&compressed, fixture.path().join("index")).unwrap();
    fixture.each(|domain| {
        let skopeo = ProductSkopeo {
            fixture: &fixture,
            domain,
        };
        skopeo.login();
        skopeo.copies(&image, &index);
        skopeo.reads();
        skopeo.makes(&image);
        skopeo.deletes();
    });
}
