//! buildah pushes and pulls.

use std::fs;

use super::super::clients::storing_client;
use super::super::image::write_oci_layout;
use super::super::process::{Output, run, tool};
use super::{PASSWORD, ProductsFixture, USER};

#[test]
fn buildah_pushes_and_pulls() {
    let fixture = ProductsFixture::new();
    // It makes a name of the path, which has to be one, too.
    let layout = fixture.machine.home().join("image");
    write_oci_layout(&layout, &[("hello", b"hello\n")]);
    fixture.each(|domain| {
        let product = domain.product;
        let directory = fixture.path().join(format!("buildah-{product}"));
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("auth.json"), "{}").unwrap();
        let buildah = |arguments: &[&str], input: &str| -> Output {
            let program = tool("buildah", "buildah");
            let mut command = storing_client(&fixture.machine, &program, &directory);
            run(command.args(arguments), input)
        };
        let login = [
            "login",
            "--username",
            USER,
            "--password-stdin",
            &domain.authority,
        ];
        buildah(&login, PASSWORD).succeeded();
        let id = buildah(&["pull", "--quiet", "oci:image:v1"], "").succeeded();
        let id = id.trim();
        let name = domain.image(":v1");
        let to = format!("docker://{name}");
        buildah(&["push", id, &to], "").succeeded();
        assert_eq!(domain.tags(), ["v1"], "{product}");
        buildah(&["rmi", "--force", id], "").succeeded();
        let pulled = buildah(&["pull", "--quiet", &name], "").succeeded();
        assert_eq!(pulled.trim(), id, "{product}");
    });
}
