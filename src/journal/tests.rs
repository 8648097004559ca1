//! Tests of the journal: what is merged, what survives damage, and what is forgotten.

use std::fs;

use super::*;

/// A journal in a directory of its own.
struct JournalDirectory {
    directory: tempfile::TempDir,
}

const NOW: u32 = FIRST_PLAUSIBLE_TIME + 1_000_000;

fn name(text: &str) -> RepositoryName {
    RepositoryName::parse(text).unwrap()
}

fn tag(text: &str) -> Tag {
    Tag::parse(text).unwrap()
}

fn digest(n: usize) -> Digest {
    Digest::parse(&format!("sha256:{n:064x}")).unwrap()
}

fn at(seconds: u32) -> Option<Timestamp> {
    Some(Timestamp::from_second(i64::from(seconds)).unwrap())
}

impl JournalDirectory {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { directory }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    fn journal(&self) -> Journal {
        Journal::new(self.path("journal.redb"))
    }

    fn pull(&self, n: usize, at: u32) {
        self.pull_by(&self.journal(), n, at);
    }

    fn pull_by(&self, journal: &Journal, n: usize, at: u32) {
        let times = UseTimes::pulled(at);
        journal
            .pending
            .add(&name("a"), [&tag("v1")], Some(&digest(n)), times);
        journal.flush_at(at).unwrap();
    }

    fn pulled(&self, n: usize) -> Option<Timestamp> {
        let history = self.journal().history_at(&name("a"), NOW + 1000).unwrap();
        history.manifests.get(&digest(n))?.pulled
    }

    fn since(&self) -> Option<u32> {
        let since = self.journal().since(NOW + 1000).unwrap();
        since.map(|since| since.all)
    }
}

#[test]
fn uses_are_known_before_and_after_they_are_written() {
    let directory = JournalDirectory::new();
    let journal = directory.journal();
    journal.pushed(&name("a/b"), [&tag("v1"), &tag("v2")], Some(&digest(1)));
    journal.pulled(&name("a/b"), Some(&tag("v1")), Some(&digest(1)));
    journal.pulled(&name("a"), None, Some(&digest(2)));
    let before = journal.history(&name("a/b")).unwrap();
    journal.flush().unwrap();
    for journal in [journal, directory.journal()] {
        let history = journal.history(&name("a/b")).unwrap();
        assert_eq!(history.tags, before.tags);
        assert_eq!(history.manifests, before.manifests);
        assert_eq!(history.tags.len(), 2);
        let [first, second] = ["v1", "v2"].map(|text| history.tags[&tag(text)]);
        assert!(first.pushed.is_some() && first.pulled.is_some());
        assert!(second.pushed.is_some() && second.pulled.is_none());
        assert_eq!(history.manifests[&digest(1)], first);
        assert_eq!(journal.tag(&name("a/b"), &tag("v1")).unwrap(), first);
        assert_eq!(journal.tag(&name("a"), &tag("v1")).unwrap(), Use::default());
        let other = journal.history(&name("a")).unwrap();
        assert!(other.tags.is_empty() && other.manifests.len() == 1);
        assert_eq!(journal.repositories().unwrap(), [name("a"), name("a/b")]);
        assert!(journal.recorded_since().unwrap().unwrap() <= Timestamp::now());
    }
}

#[test]
fn the_record_begins_with_the_first_flush_and_is_read_before() {
    let directory = JournalDirectory::new();
    let journal = directory.journal();
    assert_eq!(journal.recorded_since().unwrap(), None);
    assert!(journal.history(&name("a")).unwrap().tags.is_empty());
    journal.flush_at(NOW).unwrap();
    directory.journal().flush_at(NOW + 500).unwrap();
    assert_eq!(directory.since(), Some(NOW));
    let missing = Journal::new(directory.path("missing/journal.redb"));
    assert_eq!(missing.recorded_since().unwrap(), None);
    missing.pulled(&name("a"), Some(&tag("v1")), Some(&digest(1)));
    assert_eq!(missing.history(&name("a")).unwrap().tags.len(), 1);
    assert!(
        missing
            .tag(&name("a"), &tag("v1"))
            .unwrap()
            .pulled
            .is_some()
    );
    missing.flush().unwrap_err();
    let bounded = Journal::bounded(directory.path("made/for/it/journal.redb"));
    bounded.flush().unwrap();
    assert!(bounded.recorded_since().unwrap().is_some());
}

#[test]
fn several_processes_add_to_one_file() {
    let directory = JournalDirectory::new();
    let (directory, start) = (&directory, &std::sync::Barrier::new(4));
    std::thread::scope(|scope| {
        for process in 0..4 {
            scope.spawn(move || {
                let journal = directory.journal();
                start.wait();
                for n in 0..10 {
                    // All of them use 0, and each some that no other uses.
                    let at = NOW + u32::try_from(n).unwrap();
                    directory.pull_by(&journal, 0, at);
                    directory.pull_by(&journal, 100 * process + n + 1, at);
                }
            });
        }
    });
    assert_eq!(directory.pulled(0), at(NOW + 9));
    for process in 0..4 {
        for n in 0..10 {
            assert!(directory.pulled(100 * process + n + 1).is_some());
        }
    }
}

#[test]
fn an_earlier_time_that_is_written_later_changes_nothing() {
    let directory = JournalDirectory::new();
    let (one, other) = (directory.journal(), directory.journal());
    directory.pull_by(&one, 1, NOW + 5);
    other.pending.add(
        &name("a"),
        [&tag("v1")],
        Some(&digest(1)),
        UseTimes::pulled(NOW),
    );
    other
        .pending
        .add(&name("a"), [&tag("v1")], None, UseTimes::pushed(NOW + 7));
    other.flush_at(NOW + 9).unwrap();
    let expected = Use {
        pushed: at(NOW + 7),
        pulled: at(NOW + 5),
    };
    let history = one.history_at(&name("a"), NOW + 9).unwrap();
    assert_eq!(history.tags[&tag("v1")], expected);
    assert_eq!(directory.pulled(1), at(NOW + 5));
}

#[test]
fn what_cannot_be_written_stays_pending() {
    let directory = JournalDirectory::new();
    let journal = directory.journal();
    directory.pull_by(&journal, 1, NOW);
    let path = directory.path("journal.redb");
    fs::rename(&path, directory.path("away")).unwrap();
    fs::create_dir(&path).unwrap();
    journal.pending.add(
        &name("a"),
        [&tag("v2")],
        Some(&digest(2)),
        UseTimes::pulled(NOW + 1),
    );
    let failed = journal.flush_at(NOW + 1);
    assert!(matches!(failed, Err(JournalError::Io { .. })), "{failed:?}");
    let failed = journal.history(&name("a"));
    assert!(matches!(failed, Err(JournalError::Io { .. })), "{failed:?}");
    fs::remove_dir(&path).unwrap();
    fs::rename(directory.path("away"), &path).unwrap();
    journal.flush_at(NOW + 2).unwrap();
    assert_eq!(
        (directory.pulled(1), directory.pulled(2)),
        (at(NOW), at(NOW + 1))
    );
    assert_eq!(directory.since(), Some(NOW));
    assert!(!directory.path("journal.redb.damaged").exists());
}

#[test]
fn uses_that_were_dropped_are_a_gap_in_the_record() {
    let directory = JournalDirectory::new();
    let journal = directory.journal();
    journal.flush_at(NOW).unwrap();
    journal.pending.put_overflow_back();
    journal.flush_at(NOW + 7).unwrap();
    assert_eq!(directory.since(), Some(NOW + 7));
    journal.flush_at(NOW + 9).unwrap();
    assert_eq!(directory.since(), Some(NOW + 7));
}

#[test]
fn a_clock_that_was_wrong_spoils_nothing() {
    let directory = JournalDirectory::new();
    let journal = directory.journal();
    // A machine whose clock is not yet set.
    journal
        .pending
        .add(&name("a"), [], Some(&digest(1)), UseTimes::pulled(77));
    journal.flush_at(99).unwrap();
    assert_eq!(directory.since(), None);
    journal.flush_at(NOW).unwrap();
    assert_eq!(
        (directory.pulled(1), directory.since()),
        (at(NOW), Some(NOW))
    );
    // One that was set to the next year for a while.
    let year = 365 * 24 * 3600;
    directory.pull_by(&journal, 2, NOW + year);
    let history = journal.history_at(&name("a"), NOW + 10).unwrap();
    assert_eq!(history.manifests[&digest(2)].pulled, at(NOW + 10));
    directory.pull_by(&journal, 2, NOW + 20);
    let history = journal.history_at(&name("a"), NOW + 2 * year).unwrap();
    assert_eq!(history.manifests[&digest(2)].pulled, at(NOW + 20));
    let ahead = JournalDirectory::new();
    ahead.journal().flush_at(NOW + year).unwrap();
    assert_eq!(ahead.journal().since(NOW).unwrap().unwrap().all, NOW);
    ahead.pull(1, NOW + 30);
    assert_eq!(
        ahead.journal().since(NOW + year).unwrap().unwrap().all,
        NOW + 30
    );
}

#[test]
fn the_oldest_uses_go_at_the_bound_and_the_record_begins_after_them() {
    let directory = JournalDirectory::new();
    let journal = Journal {
        max_entries: Some(100),
        ..directory.journal()
    };
    journal.flush_at(NOW).unwrap();
    for n in 0..101 {
        let at = NOW + 1 + u32::try_from(n).unwrap();
        let repository = name(if n % 2 == 0 { "a" } else { "b" });
        journal
            .pending
            .add(&repository, [], Some(&digest(n)), UseTimes::pulled(at));
    }
    journal.flush_at(NOW + 500).unwrap();
    // 90 of them stay.
    assert_eq!(directory.since(), Some(NOW + 11));
    let count = |text: &str| journal.history(&name(text)).unwrap().manifests.len();
    assert_eq!(count("a") + count("b"), 90);
    assert_eq!(
        (directory.pulled(10), directory.pulled(12)),
        (None, at(NOW + 13))
    );
}

#[test]
fn what_has_gone_is_forgotten_unless_it_was_used_of_late() {
    let directory = JournalDirectory::new();
    let journal = directory.journal();
    for (repository, n) in [("a", 1), ("a", 2), ("b", 3)] {
        let old = UseTimes::pulled(NOW);
        journal
            .pending
            .add(&name(repository), [&tag("old")], Some(&digest(n)), old);
    }
    journal.flush().unwrap();
    journal.pushed(&name("a"), [&tag("new")], &digest(4));
    journal.flush().unwrap();
    journal.pulled(&name("a"), Some(&tag("pending")), None);
    journal
        .prune(&name("a"), |_| false, |known| *known == digest(2))
        .unwrap();
    let history = directory.journal().history(&name("a")).unwrap();
    assert_eq!(history.tags.into_keys().collect::<Vec<_>>(), [tag("new")]);
    let mut manifests: Vec<_> = history.manifests.into_keys().collect();
    manifests.sort_unstable();
    assert_eq!(manifests, [digest(2), digest(4)]);
    assert_eq!(
        directory.journal().history(&name("b")).unwrap().tags.len(),
        1
    );
    assert_eq!(journal.history(&name("a")).unwrap().tags.len(), 2);
}

#[test]
fn a_record_of_an_older_form_is_taken_over_once() {
    let directory = JournalDirectory::new();
    let pull = |n, at| ImportedPull {
        repository: name("a"),
        digest: digest(n),
        at,
    };
    let journal = directory.journal();
    let pulls_since = || journal.manifest_pulls_since().unwrap().unwrap();
    journal
        .import(&[pull(1, u64::from(NOW)), pull(2, u64::MAX)], true)
        .unwrap();
    assert_eq!(directory.pulled(1), at(NOW));
    assert!(directory.pulled(2).is_some());
    assert!(pulls_since() < at(2).unwrap());
    let since = journal.recorded_since().unwrap().unwrap();
    assert!(since > at(FIRST_PLAUSIBLE_TIME).unwrap());
    // A process of the older version has written once more.
    journal
        .import(&[pull(1, u64::from(NOW) + 5)], true)
        .unwrap();
    assert_eq!(directory.pulled(1), at(NOW + 5));
    assert!(pulls_since() < at(2).unwrap());
    journal.import(&[], false).unwrap();
    assert!(pulls_since() >= since);
}

#[test]
fn a_record_that_ended_begins_anew_with_what_is_known() {
    let directory = JournalDirectory::new();
    let path = directory.path("journal.redb");
    Journal::end(&path).unwrap();
    directory.pull(1, NOW);
    let journal = directory.journal();
    journal
        .pending
        .add(&name("a"), [&tag("v1")], None, UseTimes::pushed(NOW));
    journal.flush_at(NOW).unwrap();
    let pushed = || {
        directory
            .journal()
            .tag(&name("a"), &tag("v1"))
            .unwrap()
            .pushed
    };
    assert_eq!(pushed(), at(NOW));
    Journal::end(&path).unwrap();
    Journal::end(&path).unwrap();
    assert_eq!(directory.journal().recorded_since().unwrap(), None);
    directory.pull(2, NOW + 9);
    assert_eq!(directory.since(), Some(NOW + 9));
    assert_eq!(
        (directory.pulled(1), directory.pulled(2)),
        (at(NOW), at(NOW + 9))
    );
    // There may have been a later one that nobody has seen.
    assert_eq!(pushed(), None);
    // A process that has recorded all the time does not know what another has served.
    Journal::end(&path).unwrap();
    journal.flush_at(NOW + 20).unwrap();
    assert_eq!(directory.since(), Some(NOW + 20));
}

/// Damages a file in one of many ways, and returns whether it is another one then.
fn damage(path: &Path, way: u64) -> bool {
    let whole = fs::read(path).unwrap();
    let mut bytes = whole.clone();
    let mut state = (way + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 8).unwrap() % below
    };
    let byte = |n: usize| u8::try_from(n).unwrap();
    match way % 6 {
        0 => bytes.truncate(random(whole.len())),
        1 => bytes[random(whole.len())] ^= 1 << random(8),
        // In the header.
        2 => bytes[random(512)] ^= 1 << random(8),
        3 => bytes[random(whole.len() / 4096) * 4096..][..4096].fill(0),
        4 => {
            let from = random(whole.len());
            bytes[from..].fill_with(|| byte(random(256)));
        }
        _ => bytes.fill_with(|| byte(random(256))),
    }
    fs::write(path, &bytes).unwrap();
    bytes != whole
}

#[test]
fn no_damage_panics_or_passes_unnoticed() {
    let model = JournalDirectory::new();
    let journal = model.journal();
    for n in 0..2000 {
        let times = UseTimes::pulled(NOW - u32::try_from(n).unwrap());
        journal.pending.add(
            &name("a"),
            [&tag(&format!("v{n}"))],
            Some(&digest(n)),
            times,
        );
    }
    journal.flush_at(NOW).unwrap();
    let complete = journal.uses(&name("a"), NOW).unwrap().0;
    let mut noticed = 0;
    for way in 0..200 {
        let directory = JournalDirectory::new();
        for file in ["journal.redb", "journal.redb.previous"] {
            fs::copy(model.path(file), directory.path(file)).unwrap();
        }
        if !damage(&directory.path("journal.redb"), way) {
            continue;
        }
        // Every second time, the first to notice is a reader.
        let journal = directory.journal();
        if way % 2 == 0 {
            let uses = journal.uses(&name("a"), NOW + 5).unwrap().0;
            assert_eq!(
                (&uses.tags, &uses.manifests),
                (&complete.tags, &complete.manifests),
                "{way}"
            );
        }
        directory.pull_by(&journal, 5000, NOW + 5);
        let found = directory.journal().uses(&name("a"), NOW + 5).unwrap().0;
        assert_eq!(found.manifests.len(), complete.manifests.len() + 1, "{way}");
        assert_eq!(
            found.manifests[&digest(1999)],
            complete.manifests[&digest(1999)],
            "{way}"
        );
        let since = directory.since().unwrap();
        let is_aside = directory.path("journal.redb.damaged").exists();
        // Some bits mean nothing.
        assert_eq!(since, if is_aside { NOW + 5 } else { NOW }, "{way}");
        noticed += usize::from(is_aside);
    }
    assert!(noticed > 120, "{noticed}");
}

#[test]
fn with_a_damaged_copy_as_well_the_record_begins_empty() {
    let directory = JournalDirectory::new();
    directory.pull(1, NOW);
    for file in ["journal.redb", "journal.redb.previous"] {
        fs::write(directory.path(file), "neither").unwrap();
    }
    directory.pull(2, NOW + 5);
    assert_eq!(
        (directory.pulled(1), directory.pulled(2)),
        (None, at(NOW + 5))
    );
    assert_eq!(directory.since(), Some(NOW + 5));
    let aside = fs::read(directory.path("journal.redb.damaged")).unwrap();
    assert_eq!(aside, b"neither");
}

#[test]
fn a_process_that_is_killed_while_it_writes_damages_nothing() {
    let directory = JournalDirectory::new();
    let journal = directory.journal();
    directory.pull_by(&journal, 1, NOW);
    let path = directory.path("journal.redb");
    // What the file is like at some moments of a flush.
    let killed = JournalDirectory::new();
    let copies = std::cell::RefCell::new(Vec::new());
    let file = journal.file.lock().unwrap();
    file.write(NOW, |writing| {
        let copy = |n: usize| {
            let to = killed.path(&format!("{n}.redb"));
            fs::copy(&path, &to).unwrap();
            copies.borrow_mut().push(to);
        };
        copy(0);
        let mut uses = UsesByRepository::new();
        let known = uses.entry(name("a")).or_default();
        for n in 0..20_000 {
            known.manifests.insert(digest(n), UseTimes::pulled(NOW + 1));
        }
        writing.add(&uses, NOW + 1)?;
        copy(1);
        Ok(())
    })
    .unwrap();
    for path in copies.into_inner() {
        let journal = Journal::new(path.clone());
        let history = journal.history_at(&name("a"), NOW + 5).unwrap();
        assert_eq!(history.manifests.len(), 1, "{}", path.display());
        assert_eq!(journal.since(NOW + 5).unwrap().unwrap().all, NOW);
        journal
            .pending
            .add(&name("a"), [], Some(&digest(2)), UseTimes::pulled(NOW + 5));
        journal.flush_at(NOW + 5).unwrap();
        assert_eq!(journal.since(NOW + 5).unwrap().unwrap().all, NOW);
    }
}

#[test]
fn the_first_flush_hides_nothing_from_readers() {
    for _ in 0..20 {
        let directory = JournalDirectory::new();
        let journal = directory.journal();
        let times = UseTimes::pulled(NOW);
        let pending = &journal.pending;
        pending.add(&name("a"), [&tag("v1")], Some(&digest(1)), times);
        let is_flushed = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                journal.flush_at(NOW).unwrap();
                is_flushed.store(true, std::sync::atomic::Ordering::Release);
            });
            while !is_flushed.load(std::sync::atomic::Ordering::Acquire) {
                let history = journal.history_at(&name("a"), NOW).unwrap();
                assert_eq!(history.manifests[&digest(1)].pulled, at(NOW));
                assert_eq!(journal.tag(&name("a"), &tag("v1")).unwrap().pulled, at(NOW));
            }
        });
    }
}
