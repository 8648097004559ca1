//! charliecloud, which takes every `Location` for a URL.

use std::fs;

use super::fixture::{Domain, RegistriesFixture};
use super::process::{Output, run, tool};

/// An image of one layer, as charliecloud keeps it.
const METADATA: &str = r#"{"arch": "amd64", "arg": {}, "cwd": "/", "env": {}, "labels": {}, "volumes": [],
    "shell": ["/bin/sh", "-c"], "history": [{"created_by": "a test"}]}"#;

impl RegistriesFixture {
    /// Pushes a directory with a file in it as the domain's own user.
    fn ch_image_push(&self, domain: &Domain) -> Output {
        let image = self.path().join("unpacked");
        fs::create_dir_all(image.join("ch")).unwrap();
        fs::write(image.join("file"), "content").unwrap();
        fs::write(image.join("ch/metadata.json"), METADATA).unwrap();
        let mut command = self
            .machine
            .command(&tool("ch-image", "charliecloud-builders"));
        command
            .env("USER", "root")
            .env("CH_IMAGE_USERNAME", domain.user)
            .env("CH_IMAGE_PASSWORD", domain.password)
            .args(["push", "--no-cache", "--storage"])
            .arg(self.path().join("charliecloud"))
            .arg("--image")
            .arg(&image)
            .args(["base/app:v1", &format!("{}/base/app:v1", domain.by_name())]);
        run(&mut command, "")
    }
}

#[test]
fn charliecloud_pushes_to_the_store_and_through_the_proxy() {
    for fixture in [RegistriesFixture::of_stores(), RegistriesFixture::new()] {
        let authority = fixture.ci.by_name();
        fixture.ch_image_push(&fixture.ci).succeeded();
        fixture.logged_in(&fixture.ci, &authority);
        let remote = format!("docker://{authority}/base/app:v1");
        fixture.skopeo(&["inspect", &remote]).succeeded();
    }
}
