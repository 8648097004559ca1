//! Files that another user put into the directory, as an administrator does whose tools run as
//! root.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::process::Command;

use super::fixture::{DAY, Killable, UNTAGGED, binary, gc};
use super::image::{Image, sha256};
use crate::harness::{Domain, Setup, seconds};

const NOBODY: u32 = 65_534;

#[tokio::test]
async fn what_another_user_put_there_is_served_and_not_collected() {
    assert!(
        rustix::process::geteuid().is_root(),
        "needs root, for a process of another user"
    );
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    Setup::new()
        .domain(Domain::store("ci.test", "ci").upstream(UNTAGGED))
        .write(path);
    let moorgate = path.join("moorgate");
    std::fs::copy(binary(), &moorgate).unwrap();
    assert!(
        Command::new("chown")
            .args(["-R", "65534:65534"])
            .arg(path)
            .status()
            .unwrap()
            .success()
    );
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(moorgate);
    command.args(["run", "--config"]).arg(path);
    let process = Killable::spawn(path, command);
    let mut client = process.endpoint.client();
    let (image, own) = (Image::small(1), Image::small(2));
    client.push("a", &image.digest(), &image).await;
    client.push("a", &own.digest(), &own).await;
    let disk = process.disk();
    for blob in image.blobs().chain([&image.manifest[..]]) {
        let file = disk.blob("a", &sha256(blob));
        assert_eq!(file.metadata().unwrap().uid(), NOBODY);
        std::fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        chown(file, Some(0), Some(0)).unwrap();
    }
    disk.age(DAY + seconds(1));
    // It cannot note that somebody has asked for them: so they stay.
    client.check("a", &image.digest(), &image).await;
    for blob in image.blobs() {
        client
            .ask("HEAD", &format!("/v2/a/blobs/{}", sha256(blob)))
            .await
            .is(200);
        client.push_blob("a", blob).await;
    }
    client
        .push_manifest("a", "v1", &image.manifest)
        .await
        .is(201);
    client.ask("DELETE", "/v2/a/manifests/v1").await.is(202);
    let collected = gc(path, &[]);
    assert_eq!(
        (&collected["manifests"], &collected["blobs"]),
        (&1.into(), &3.into()),
        "{collected}"
    );
    client.check("a", &image.digest(), &image).await;
    client
        .get(&format!("/v2/a/manifests/{}", own.digest()))
        .await
        .refused(404, "MANIFEST_UNKNOWN");
    disk.is_sound();
}
