//! What happens while the disk is read, and what is known of it afterwards.

use std::collections::HashSet;
use std::time::{Duration, Instant, SystemTime};

use super::{digest, name, table};
use crate::registry::upload_id::UploadId;
use crate::store::layout::StoreLayout;
use crate::store::quota::areas::QuotaTables;
use crate::store::quota::changes::SharedChanges;
use crate::store::quota::event::{AreaEvent, ProcessId, PublicationId};
use crate::store::quota::scan::{self, BlobSizes, DiskScan, ScannedRepository};
use crate::store::quota::state::QuotaState;
use crate::store::quota::usage::ContentUsage;

fn counting() -> ContentUsage {
    let mut usage = ContentUsage::default();
    usage.set_tables(QuotaTables::new(vec![table(&["**"], 1000)]));
    usage
}

fn used(usage: &ContentUsage) -> u64 {
    usage.report()[0].used()
}

/// The events of an upload of ten bytes, and of its publication.
fn upload(number: u64) -> [AreaEvent; 3] {
    let process = ProcessId::parse("0123456789abcdef").unwrap();
    let id = UploadId::parse(&format!("{number:032x}")).unwrap();
    let publication = PublicationId {
        process: process.clone(),
        number,
    };
    let received = AreaEvent::Upload {
        process,
        repository: name("app"),
        id: id.clone(),
        bytes: 10,
        is_receiving: false,
    };
    let publishing = AreaEvent::Publishing {
        publication: publication.clone(),
        repository: name("app"),
        digest: digest(1),
        size: 10,
        upload: Some(id),
    };
    let ended = AreaEvent::Ended {
        publication,
        is_stored: true,
    };
    [received, publishing, ended]
}

#[test]
fn an_upload_of_content_that_is_there_counts_until_its_file_is_gone() {
    let mut usage = counting();
    upload(1).iter().for_each(|event| usage.apply(event));
    assert_eq!(used(&usage), 10);
    let counted = upload(2).map(|event| {
        usage.apply(&event);
        used(&usage)
    });
    assert_eq!(counted, [20, 20, 10]);
}

#[test]
fn of_publications_at_once_each_file_counts_whichever_ends_first() {
    for last in [0, 1] {
        let mut usage = counting();
        let [first, second] = [upload(1), upload(2)];
        let begun = [&first[0], &second[0], &first[1], &second[1]];
        begun.iter().for_each(|event| usage.apply(event));
        assert_eq!(used(&usage), 20);
        let ends = [&first[2], &second[2]];
        usage.apply(ends[1 - last]);
        assert_eq!(used(&usage), 20);
        usage.apply(ends[last]);
        assert_eq!(used(&usage), 10);
    }
}

#[test]
fn what_is_published_during_a_scan_counts_once_whatever_the_scan_has_seen() {
    for is_seen in [false, true] {
        let mut usage = counting();
        let [received, publishing, ended] = upload(1);
        usage.apply(&received);
        usage.begin_scan();
        usage.apply(&publishing);
        usage.apply(&ended);
        let mut scan = DiskScan::default();
        let id = UploadId::parse(&format!("{:032x}", 1)).unwrap();
        scan.uploads.insert(id, (name("app"), 10));
        let key = scan::ContentKey::new(&digest(1)).unwrap();
        let blobs = BlobSizes::from_iter(is_seen.then_some((key, 10)));
        let read = ScannedRepository::Read {
            stamps: None,
            blobs,
        };
        scan.repositories.insert(name("app"), read);
        usage.end_scan(scan, &HashSet::new());
        assert_eq!(used(&usage), 10, "seen: {is_seen}");
    }
}

#[test]
fn a_repository_that_has_just_changed_is_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let layout = StoreLayout::create(&directory.path().join("ci")).unwrap();
    let blobs = layout.repository(&name("app")).join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let is_remembered = || {
        let scan = scan::scan(&layout, &counting(), &|_| true).unwrap();
        let scanned = &scan.repositories[&name("app")];
        matches!(
            scanned,
            ScannedRepository::Read {
                stamps: Some(_),
                ..
            }
        )
    };
    assert!(!is_remembered());
    let past = SystemTime::now() - Duration::from_secs(10);
    std::fs::File::open(&blobs)
        .unwrap()
        .set_modified(past)
        .unwrap();
    assert!(is_remembered());
}

#[test]
fn who_finds_another_file_of_changes_reads_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().canonicalize().unwrap();
    let mut changes = [(); 2].map(|()| SharedChanges::join(path.clone()).unwrap());
    let mut state = QuotaState::default();
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut share = |changes: &mut SharedChanges| {
        state.read_at = Some(Instant::now());
        state.share(changes, deadline, |_, _| ()).unwrap();
        state.read_at.is_some()
    };
    assert!(!share(&mut changes[0]), "the first");
    assert!(share(&mut changes[0]), "the same");
    let (mut locked, _) = changes[1].lock(deadline).unwrap();
    let events: Vec<_> = (0..100).flat_map(upload).collect();
    locked.add(&events).unwrap();
    locked.shorten(Vec::new).unwrap();
    assert!(!share(&mut changes[0]), "another");
}
