//! Blobs of 3 GiB go up and down; moorgate stays small and keeps nothing.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::fixture::RegistriesFixture;
use super::process::run;
use super::transfer::{Blob, Hash, Upload, with_digest};

/// 3 GiB.
const BLOCKS: u64 = 3 * 1024;
/// How often the open files are looked at: every 128 MiB.
const LOOK: u64 = 128;
/// What moorgate may need at its peak.
const PEAK_KIB: u64 = 64 * 1024;

#[test]
fn three_gibibytes_go_up_in_chunks_and_down_again() {
    let fixture = RegistriesFixture::new();
    let before = Footprint::of(&fixture);
    let (digest, size) = push_in_chunks(&fixture, "--http1.1", 1);
    let path = format!("/v2/base/big/blobs/{digest}");
    assert_eq!(
        fixture.download(&fixture.ci, "--http1.1", &path),
        (digest, size)
    );
    before.assert_nothing_kept(&fixture);
}

#[test]
fn three_gibibytes_go_up_in_one_piece_and_down_again_over_http2() {
    let fixture = RegistriesFixture::new();
    let before = Footprint::of(&fixture);
    let (digest, size) = push_in_one_piece(&fixture, "--http2", 2);
    let path = format!("/v2/base/big/blobs/{digest}");
    assert_eq!(
        fixture.download(&fixture.ci, "--http2", &path),
        (digest, size)
    );
    before.assert_nothing_kept(&fixture);
}

// The registry compares the digest when it commits: what it takes has come whole.

#[test]
fn three_gibibytes_go_up_in_one_piece() {
    let fixture = RegistriesFixture::new();
    let before = Footprint::of(&fixture);
    push_in_one_piece(&fixture, "--http1.1", 3);
    before.assert_nothing_kept(&fixture);
}

#[test]
fn three_gibibytes_go_up_in_chunks_over_http2() {
    let fixture = RegistriesFixture::new();
    let before = Footprint::of(&fixture);
    push_in_chunks(&fixture, "--http2", 4);
    before.assert_nothing_kept(&fixture);
}

/// As Docker does it: a PATCH of unknown length, then a PUT without a body. Returns digest and
/// size.
fn push_in_chunks(fixture: &RegistriesFixture, protocol: &str, seed: u64) -> (String, u64) {
    let ci = &fixture.ci;
    let blob = Blob {
        seed,
        blocks: BLOCKS,
    };
    let chunk = fixture.start_upload(ci, protocol, "base/big");
    // The head of the answer to PATCH says where the commit goes.
    let heads = fixture.machine.home().join("heads");
    let mut curl = fixture.curl_as_user(ci, protocol);
    curl.arg("--dump-header").arg(&heads);
    let mut upload = Upload::start(curl, "PATCH", &chunk);
    let mut hash = Hash::new();
    blob.each_block(|index, block| {
        hash.update(block);
        upload.write(block);
        if index % LOOK == 0 {
            assert_eq!(files_open_for_writing(fixture), Vec::<PathBuf>::new());
        }
    });
    assert_eq!(upload.finish().as_deref(), Ok("202"));
    let digest = hash.digest();
    let head = fs::read_to_string(heads).unwrap();
    let last = head.rsplit("HTTP/").next().unwrap();
    let commit = with_digest(&super::transfer::location(ci, last), &digest);
    let mut curl = fixture.curl_as_user(ci, protocol);
    run(curl.args(["--request", "PUT", &commit]), "").succeeded();
    let chunk = fixture.logged(&["call=upload.chunk"]);
    assert!(
        chunk[0].contains(&format!(" bytes_in={} ", blob.size())),
        "{chunk:?}"
    );
    (digest, blob.size())
}

/// A PUT of known length. Returns digest and size.
fn push_in_one_piece(fixture: &RegistriesFixture, protocol: &str, seed: u64) -> (String, u64) {
    let ci = &fixture.ci;
    // Mostly a hole, so that it costs neither disk nor time; curl knows its size.
    let source = fixture.machine.home().join("source");
    let size = BLOCKS * Blob::BLOCK as u64;
    let file = File::create(&source).unwrap();
    file.set_len(size).unwrap();
    Blob {
        seed,
        blocks: BLOCKS / LOOK,
    }
    .each_block(|index, block| {
        file.write_all_at(block, index * LOOK * Blob::BLOCK as u64 + 12_345)
            .unwrap();
    });
    let digest = digest_of(&source);
    let commit = with_digest(&fixture.start_upload(ci, protocol, "base/big"), &digest);
    let mut curl = fixture.curl_as_user(ci, protocol);
    curl.arg("--upload-file").arg(&source).args([
        "--write-out",
        "%{http_version} %{http_code}",
        &commit,
    ]);
    let version = protocol.trim_start_matches("--http");
    assert_eq!(run(&mut curl, "").succeeded(), format!("{version} 201"));
    let commit = fixture.logged(&["call=upload.commit"]);
    assert!(
        commit[0].contains(&format!(" bytes_in={size} ")),
        "{commit:?}"
    );
    (digest, size)
}

fn digest_of(path: &Path) -> String {
    let file = File::open(path).unwrap();
    let mut hash = Hash::new();
    let mut buffer = vec![0; Blob::BLOCK];
    for at in (0..file.metadata().unwrap().len()).step_by(Blob::BLOCK) {
        file.read_exact_at(&mut buffer, at).unwrap();
        hash.update(&buffer);
    }
    hash.digest()
}

/// What moorgate keeps on disk.
struct Footprint(BTreeMap<PathBuf, u64>);

impl Footprint {
    fn of(fixture: &RegistriesFixture) -> Self {
        let mut files = BTreeMap::new();
        for directory in ["state", "config", "cwd"] {
            list(&fixture.path().join(directory), &mut files);
        }
        Self(files)
    }

    /// Asserts that the disk is as it was, that hardly a byte was written, and that memory stayed
    /// small.
    fn assert_nothing_kept(&self, fixture: &RegistriesFixture) {
        assert_eq!(files_open_for_writing(fixture), Vec::<PathBuf>::new());
        assert_eq!(Self::of(fixture).0, self.0);
        let written = number(&proc(fixture, "io"), "write_bytes:");
        assert!(written < 4 << 20, "{written} bytes written to disk");
        let peak = number(&proc(fixture, "status"), "VmHWM:");
        eprintln!("peak resident memory: {peak} KiB, written: {written} bytes");
        assert!(peak < PEAK_KIB, "{peak} KiB at the peak");
    }
}

fn list(directory: &Path, files: &mut BTreeMap<PathBuf, u64>) {
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            list(&entry.path(), files);
        } else {
            files.insert(entry.path(), entry.metadata().unwrap().len());
        }
    }
}

/// Files on disk, deleted ones too, that moorgate could write to; without its two logs.
fn files_open_for_writing(fixture: &RegistriesFixture) -> Vec<PathBuf> {
    // What the test gave it, by whatever number it writes to them.
    let logs = ["1", "2"].map(|descriptor| {
        let of_process = format!("/proc/{}/fd/{descriptor}", fixture.moorgate.id());
        fs::read_link(of_process).unwrap()
    });
    let process = PathBuf::from(format!("/proc/{}", fixture.moorgate.id()));
    let descriptors = fs::read_dir(process.join("fd"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    descriptors
        .filter_map(|descriptor| {
            // A socket may be closed between the two looks.
            let path = fs::read_link(process.join("fd").join(&descriptor)).ok()?;
            let info = fs::read_to_string(process.join("fdinfo").join(&descriptor)).ok()?;
            let flags = info
                .lines()
                .find_map(|line| line.strip_prefix("flags:"))
                .unwrap()
                .trim();
            // open(2): the lowest two bits are 0 for reading only.
            let writes = u32::from_str_radix(flags, 8).unwrap() & 3 != 0;
            let is_file = path.is_absolute() && !path.starts_with("/dev");
            (writes && is_file && !logs.contains(&path)).then_some(path)
        })
        .collect()
}

fn proc(fixture: &RegistriesFixture, file: &str) -> String {
    fs::read_to_string(format!("/proc/{}/{file}", fixture.moorgate.id())).unwrap()
}

fn number(text: &str, name: &str) -> u64 {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}
