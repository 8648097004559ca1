//! Images made on the spot: small, and different for every seed.

use aws_lc_rs::digest::{SHA256, SHA512, digest};
use serde_json::{Value, json};

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// An image's parts, as they are pushed.
#[derive(Clone, Debug)]
pub struct Image {
    pub config: Vec<u8>,
    pub layers: Vec<Vec<u8>>,
    pub manifest: Vec<u8>,
}

impl Image {
    /// An image of these layers; the seed makes its configuration unique.
    pub fn new(seed: u64, layers: Vec<Vec<u8>>) -> Self {
        let config = json!({ "architecture": "amd64", "os": "linux", "seed": seed })
            .to_string()
            .into_bytes();
        let kind = "application/vnd.oci.image.layer.v1.tar";
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": layers.iter().map(|layer| descriptor(kind, layer)).collect::<Vec<_>>(),
        });
        Self {
            config,
            layers,
            manifest: manifest.to_string().into_bytes(),
        }
    }

    /// An image of one layer that no other seed has.
    pub fn small(seed: u64) -> Self {
        Self::new(seed, vec![bytes(seed, 2000)])
    }

    pub fn blobs(&self) -> impl Iterator<Item = &[u8]> {
        self.layers.iter().chain([&self.config]).map(Vec::as_slice)
    }

    pub fn digest(&self) -> String {
        sha256(&self.manifest)
    }

    /// How an index lists it.
    pub fn descriptor(&self) -> Value {
        descriptor(MANIFEST, &self.manifest)
    }
}

/// An image index.
pub fn index(manifests: &[Value]) -> Vec<u8> {
    json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests })
        .to_string()
        .into_bytes()
}

/// A manifest about another one, as signatures are.
pub fn referrer(subject: &Value, kind: &str, blob: &[u8]) -> Vec<u8> {
    json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": kind,
        "config": descriptor("application/vnd.oci.empty.v1+json", b"{}"),
        "layers": [descriptor("application/octet-stream", blob)],
        "subject": subject,
        "annotations": { "about": kind },
    })
    .to_string()
    .into_bytes()
}

pub fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": sha256(content), "size": content.len() })
}

/// Bytes that look random and are the same for the same seed (xorshift64*).
pub fn bytes(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed
        .wrapping_mul(2)
        .wrapping_add(1)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes()
    };
    let mut all: Vec<u8> = (0..count.div_ceil(8)).flat_map(|_| next()).collect();
    all.truncate(count);
    all
}

pub fn sha256(content: &[u8]) -> String {
    hex("sha256", digest(&SHA256, content).as_ref())
}

pub fn sha512(content: &[u8]) -> String {
    hex("sha512", digest(&SHA512, content).as_ref())
}

fn hex(algorithm: &str, digest: &[u8]) -> String {
    let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{algorithm}:{digits}")
}
