//! A domain with retention and a store, and what its administrator does.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::harness::cli;
use crate::store::client::Client;
use crate::store::fixture::StoreFixture;
use crate::store::image::{Image, index};

/// All but the newest tag of a repository go, after a second.
pub const NEWEST: &str = r#"
[[retention]]
repositories = ["cache/**"]
protect = ["latest"]
keep = { newest = 1 }
[retention_settings]
min_age = "1s"
max_share = "100%"
every = "never"
"#;

/// Waits until the clock has begun so many more seconds: times count in whole ones, by the clock of
/// the machine, which no test can move for a process.
pub async fn clock_reaches(seconds: u64) {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let end = Duration::from_secs(now().as_secs() + seconds);
    while let Some(left) = end.checked_sub(now()).filter(|left| !left.is_zero()) {
        tokio::time::sleep(left).await;
    }
}

/// The domain `ci.test` with retention.
pub struct RetentionFixture {
    pub store: StoreFixture,
    pub client: Client,
}

impl RetentionFixture {
    pub async fn new(tables: &str) -> Self {
        let store = StoreFixture::with(|domain| domain.tables(tables)).await;
        let client = store.http1();
        Self { store, client }
    }

    /// Waits until all is older than `min_age`.
    pub async fn grow_old(&self) {
        clock_reaches(2).await;
    }

    /// Waits for the next second: of what is pushed in one, nothing is the newest.
    pub async fn next_second(&self) {
        clock_reaches(1).await;
    }

    /// Runs `moorgate retention`: its exit status, output and messages.
    pub async fn command(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let directory = self.store.gateway.directory.path();
        let arguments = [&["retention"], arguments].concat();
        cli(directory, &arguments).await
    }

    /// What a command prints that succeeds.
    pub async fn done(&self, arguments: &[&str]) -> String {
        let (code, out, error) = self.command(arguments).await;
        assert_eq!(code, Some(0), "{out}{error}");
        out
    }

    /// Makes a plan: its name and its lines.
    pub async fn plan(&self) -> (String, Vec<Value>) {
        let out = self.done(&["plan", "ci.test", "--json"]).await;
        let lines = out.lines().map(|line| serde_json::from_str(line).unwrap());
        let lines: Vec<Value> = lines.collect();
        let id = lines[0]["id"].as_str().unwrap().to_owned();
        (id, lines)
    }

    pub fn state(&self, path: &str) -> PathBuf {
        self.store
            .gateway
            .path(&format!("state/retention/ci.test/{path}"))
    }

    /// Pushes images with tags `v1` to `vN`, the last one in a second of its own.
    pub async fn push_images(&mut self, repository: &str, count: u64) -> Vec<Image> {
        let mut images = Vec::new();
        for number in 1..=count {
            let image = Image::small(number);
            if number == count {
                self.next_second().await;
            }
            self.client
                .push(repository, &format!("v{number}"), &image)
                .await;
            images.push(image);
        }
        images
    }

    /// Pushes an index of images under a tag: its bytes.
    pub async fn push_index(&mut self, repository: &str, tag: &str, images: &[Image]) -> Vec<u8> {
        for image in images {
            let digest = image.digest();
            self.client.push(repository, &digest, image).await;
        }
        let listed: Vec<_> = images.iter().map(Image::descriptor).collect();
        let bytes = index(&listed);
        self.client.push_manifest(repository, tag, &bytes).await;
        bytes
    }

    pub async fn tags(&mut self, repository: &str) -> Vec<String> {
        let answer = self
            .client
            .get(&format!("/v2/{repository}/tags/list"))
            .await;
        let json = answer.is(200).json();
        let tags = json["tags"].as_array().unwrap().iter();
        tags.map(|tag| tag.as_str().unwrap().to_owned()).collect()
    }
}
