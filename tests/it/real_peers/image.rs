//! Images made on the spot, as an OCI layout in a directory.

use std::fs;
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};

/// Writes an image, tagged `v1` in the layout, whose layers hold a file each.
pub fn write_oci_layout(directory: &Path, layers: &[(&str, &[u8])]) {
    fs::create_dir_all(directory.join("blobs/sha256")).unwrap();
    let layers: Vec<_> = layers
        .iter()
        .map(|(name, content)| {
            blob(
                directory,
                &tar(name, content),
                "application/vnd.oci.image.layer.v1.tar",
            )
        })
        .collect();
    let digests: Vec<_> = layers.iter().map(|layer| &layer["digest"]).collect();
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": digests },
    });
    let config = blob(
        directory,
        config.to_string().as_bytes(),
        "application/vnd.oci.image.config.v1+json",
    );
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({ "schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": layers });
    let mut manifest = blob(directory, manifest.to_string().as_bytes(), manifest_type);
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "v1" });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    fs::write(directory.join("index.json"), index.to_string()).unwrap();
    fs::write(
        directory.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .unwrap();
}

/// The digest of some bytes.
pub fn sha256(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

/// Lower-case hexadecimal behind `sha256:`.
pub fn hex(digest: &[u8]) -> String {
    let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}

pub fn blob(directory: &Path, content: &[u8], media_type: &str) -> Value {
    let digest = sha256(content);
    fs::write(
        directory.join("blobs").join(digest.replace(':', "/")),
        content,
    )
    .unwrap();
    json!({ "mediaType": media_type, "digest": digest, "size": content.len() })
}

/// A tar archive with one file (POSIX.1-1988 ustar).
pub fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut head = [0_u8; 512];
    let mut put =
        |at: usize, text: &str| head[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000644\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{:011o}\0", content.len()));
    put(136, "00000000000\0");
    // The sum is taken with spaces in its own place.
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
    head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut archive = head.to_vec();
    archive.extend_from_slice(content);
    archive.resize(archive.len().next_multiple_of(512) + 1024, 0);
    archive
}
