//! Real clients in front of each registry product, which this process plays: a domain for each, one
//! moorgate in front of all.

mod buildah;
mod docker;
mod skopeo;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::fixture::get;
use super::image::{blob, tar};
use super::machine::Machine;
use super::ports::free_port;
use super::process::{self, Process, run};
use crate::harness::Domain;
use crate::harness::played::{PLAYED_PRODUCTS, PlayedRegistry};
use crate::products::fixture::upstream_keys;

/// The players, moorgate in front of them, and a machine for clients. Dropped in this order.
struct ProductsFixture {
    domains: Vec<ProductDomain>,
    _moorgate: Process,
    machine: Machine,
    /// The players run in it.
    _runtime: tokio::runtime::Runtime,
    directory: tempfile::TempDir,
}

/// A product and the domain in front of it.
struct ProductDomain {
    product: &'static str,
    played: PlayedRegistry,
    authority: String,
}

/// The repository that every product has room for.
const NAME: &str = "acme/app";
const USER: &str = "alice";
const PASSWORD: &str = "secret";

impl ProductsFixture {
    fn new() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("moorgate-products-")
            .tempdir()
            .unwrap();
        let path = directory.path();
        let config = path.join("config");
        fs::create_dir_all(config.join("conf.d")).unwrap();
        for made in ["logs", "cwd"] {
            fs::create_dir(path.join(made)).unwrap();
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let port = free_port();
        let domains: Vec<_> = PLAYED_PRODUCTS
            .iter()
            .map(|(product, switches)| {
                let played = runtime.block_on(PlayedRegistry::start(switches()));
                played.make_repository(NAME);
                let keys = upstream_keys(product, &played, &played.api_url());
                let domain = Domain::new(&format!("{product}.test"), &played.url())
                    .upstream(&format!("create = true\n{keys}"));
                let file = config.join("conf.d").join(format!("{product}.test"));
                fs::write(file.with_extension("test.toml"), domain.toml()).unwrap();
                let users = Domain::htpasswd(&[(USER.to_owned(), PASSWORD.to_owned())]);
                fs::write(file.with_extension("test.htpasswd"), users).unwrap();
                ProductDomain {
                    product,
                    played,
                    authority: format!("{product}.test:{port}"),
                }
            })
            .collect();
        let names: Vec<_> = domains
            .iter()
            .map(|domain| domain.authority.split(':').next().unwrap())
            .collect();
        let machine = Machine::new(path, &names);
        let moorgate = start(path, &config, port);
        let mut ca = process::command(&process::moorgate(), &machine.home());
        ca.args(["certs", "ca", "--config"]).arg(&config);
        machine.trusts(&run(&mut ca, "").succeeded());
        Self {
            domains,
            _moorgate: moorgate,
            machine,
            _runtime: runtime,
            directory,
        }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Does the same in front of all products, side by side. Fails with all that failed.
    fn each(&self, act: impl Fn(&ProductDomain) + Sync) {
        let failed: Vec<_> = std::thread::scope(|scope| {
            let running: Vec<_> = self
                .domains
                .iter()
                .map(|domain| (domain.product, scope.spawn(|| act(domain))))
                .collect();
            let ended = running.into_iter();
            let ended = ended.map(|(product, thread)| (product, thread.join().is_err()));
            ended
                .filter(|(_, failed)| *failed)
                .map(|(product, _)| product)
                .collect()
        });
        assert!(failed.is_empty(), "before {failed:?}");
    }
}

fn start(path: &Path, config: &Path, port: u16) -> Process {
    let admin = free_port();
    let main = format!(
        "https = [\"127.0.0.1:{port}\"]\nhttp = []\nstate = \"../state\"\n\
         [admin]\nlisten = \"127.0.0.1:{admin}\"\n"
    );
    fs::write(config.join("moorgate.toml"), main).unwrap();
    let mut command = process::command(&process::moorgate(), &path.join("cwd"));
    command.arg("run").arg("--config").arg(config);
    let mut moorgate = Process::start("moorgate", command, &path.join("logs"));
    moorgate.becomes("ready", || {
        get(admin, "/readyz").starts_with("HTTP/1.1 200")
    });
    moorgate
}

impl ProductDomain {
    /// The repository, with what stands behind its name.
    fn image(&self, rest: &str) -> String {
        format!("{}/{NAME}{rest}", self.authority)
    }

    fn tags(&self) -> Vec<String> {
        let tags = self.played.tags(NAME).into_iter();
        tags.map(|(tag, _)| tag).collect()
    }
}

/// Writes a layout with an index of two images, tagged `multi`; how skopeo names it.
pub(super) fn write_index(directory: &Path) -> String {
    fs::create_dir_all(directory.join("blobs/sha256")).unwrap();
    let kind = |kind: &str| format!("application/vnd.oci.image.{kind}+json");
    let images = ["amd64", "arm64"].map(|architecture| {
        let layer = tar("hello", architecture.as_bytes());
        let layer = blob(directory, &layer, "application/vnd.oci.image.layer.v1.tar");
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": {},
            "rootfs": { "type": "layers", "diff_ids": [layer["digest"]] },
        });
        let config = blob(directory, config.to_string().as_bytes(), &kind("config.v1"));
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": kind("manifest.v1"),
            "config": config,
            "layers": [layer],
        });
        let manifest = manifest.to_string();
        let mut manifest = blob(directory, manifest.as_bytes(), &kind("manifest.v1"));
        manifest["platform"] = json!({ "architecture": architecture, "os": "linux" });
        manifest
    });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": kind("index.v1"),
        "manifests": images,
    });
    let mut index = blob(directory, index.to_string().as_bytes(), &kind("index.v1"));
    index["annotations"] = json!({ "org.opencontainers.image.ref.name": "multi" });
    let layout = json!({ "schemaVersion": 2, "manifests": [index] });
    fs::write(directory.join("index.json"), layout.to_string()).unwrap();
    let version = r#"{"imageLayoutVersion":"1.0.0"}"#;
    fs::write(directory.join("oci-layout"), version).unwrap();
    format!("oci:{}:multi", directory.display())
}

/// The digests of the blobs of a layout.
fn blobs(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory.join("blobs/sha256")).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into())
        .collect();
    names.sort();
    names
}
