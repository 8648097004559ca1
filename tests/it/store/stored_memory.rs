//! What the process holds in memory does not grow with what is stored.

use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use super::fixture::Killable;
use super::image::sha256;
use crate::harness::promptly;

const TAGS: usize = 100;

#[tokio::test]
async fn memory_does_not_grow_with_the_number_of_repositories() {
    let few = Box::pin(peak_with(250)).await;
    let many = Box::pin(peak_with(1000)).await;
    assert!(
        2 * many < 3 * few,
        "{} KiB with 250 repositories, {} KiB with 1,000",
        few >> 10,
        many >> 10
    );
}

/// The peak of a process that lists and collects so many repositories.
async fn peak_with(repositories: usize) -> u64 {
    let directory = tempfile::tempdir().unwrap();
    for number in 0..repositories {
        write_repository(directory.path(), number);
    }
    let process = Killable::start(directory.path());
    let mut client = process.endpoint.client();
    // Written at the end of the collection that follows a start.
    let collected = process.disk().0.join("collected");
    promptly(async {
        loop {
            let listed = client.get("/v2/_catalog?n=1000").await.is(200).json();
            assert_eq!(
                listed["repositories"].as_array().unwrap().len(),
                repositories
            );
            if collected.exists() {
                break;
            }
        }
    })
    .await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = peak.unwrap().trim().strip_suffix(" kB").unwrap();
    kib.parse::<u64>().unwrap() * 1024
}

/// A repository whose index has [`TAGS`] tags. The manifests are missing.
fn write_repository(config: &Path, number: usize) {
    let name = format!("state/store/ci/repositories/team+app-{number}");
    let path = config.join(name);
    let mut private = std::fs::DirBuilder::new();
    private.recursive(true).mode(0o700).create(&path).unwrap();
    let manifests: Vec<_> = (0..TAGS)
        .map(|tag| {
            serde_json::json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": sha256(format!("{number}/{tag}").as_bytes()),
                "size": 1234,
                "annotations": { "org.opencontainers.image.ref.name": format!("v1.{tag}") },
            })
        })
        .collect();
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": manifests });
    std::fs::write(path.join("index.json"), index.to_string()).unwrap();
    // Without it the collection takes it for no repository.
    let layout = "{\"imageLayoutVersion\":\"1.0.0\"}";
    std::fs::write(path.join("oci-layout"), layout).unwrap();
}
