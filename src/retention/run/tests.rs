//! Applying and undoing at a registry in memory: with failures at each step, other writers, and two
//! cleaners at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use super::applying::{ApplySummary, ShareLimit, apply};
use super::context::{RunContext, RunProgress};
use super::directory::RunDirectory;
use super::error::RunError;
use super::jobs::{RunRequest, perform};
use super::plan_file::{
    ManifestLine, PLAN_VERSION, PlanHeader, PlanLine, PlanTotals, PlanWriter, RepositoryLine,
    TagLine,
};
use super::plan_id::PlanId;
use super::records::{RunOutcome, RunRecords};
use super::report::RunReport;
use super::undoing::{UndoSummary, undo};
use crate::config::access::RuleLocation;
use crate::config::retention::{Grouping, Keep, RetentionRule, RetentionRuns, RetentionSettings};
use crate::registry::digest::Digest;
use crate::registry::host::HostName;
use crate::registry::pattern::{Pattern, RepositoryPattern};
use crate::retention::testing::{
    PlayedContent, PlayedRegistry, PlayedRepository, repository_name, tag_name,
};

/// A domain with a played registry, and its state directory.
struct RetainedFixture {
    state: tempfile::TempDir,
    registry: PlayedRegistry,
    settings: Arc<RetentionSettings>,
    made: Timestamp,
}

/// What a plan takes away of a repository.
#[derive(Clone, Default)]
struct Going {
    repository: &'static str,
    tags: Vec<String>,
    manifests: Vec<Digest>,
}

impl RetainedFixture {
    fn new(content: PlayedContent) -> Self {
        let runs = RetentionRuns::default();
        Self {
            state: tempfile::tempdir().expect("directory"),
            registry: PlayedRegistry::new(content),
            settings: Arc::new(RetentionSettings {
                rules: Vec::new(),
                runs,
            }),
            made: Timestamp::now(),
        }
    }

    fn domain() -> HostName {
        HostName::parse("ci.test").expect("a name")
    }

    fn directory(&self) -> RunDirectory {
        RunDirectory::new(self.state.path(), &Self::domain())
    }

    /// Writes the plan that takes this away.
    fn plan(&self, going: &[Going]) -> PlanId {
        let directory = self.directory();
        directory.create(&directory.plans()).expect("made");
        let id = PlanId::new(self.made).expect("randomness");
        let header = PlanHeader {
            version: PLAN_VERSION,
            id: id.to_string(),
            domain: "ci.test".to_owned(),
            registry: "played".to_owned(),
            made: self.made,
            rules: Vec::new(),
        };
        let mut writer = PlanWriter::new(directory.plan(&id), header).expect("begun");
        let mut totals = PlanTotals::default();
        let content = self.registry.content();
        for going in going {
            let lines = lines(
                &content.repositories[&repository_name(going.repository)],
                going,
            );
            for line in &lines {
                if let PlanLine::Repository(summary) = line {
                    totals.add(summary);
                }
                writer.line(line).expect("written");
            }
        }
        // Beside what is planned, so that no share is exceeded.
        totals.tags += 1000;
        writer.finish(totals).expect("finished");
        id
    }

    async fn apply(&self, id: &PlanId) -> (Result<(), RunError>, ApplySummary) {
        let mut summary = ApplySummary::default();
        let done = self
            .with(async |run| apply(&run, id, ShareLimit::Enforced, self.made, &mut summary).await)
            .await;
        (done, summary)
    }

    async fn undo(&self, id: &PlanId) -> (Result<(), RunError>, UndoSummary) {
        let mut summary = UndoSummary::default();
        let done = self
            .with(async |run| undo(&run, id, &mut summary).await)
            .await;
        (done, summary)
    }

    async fn with<T>(&self, work: impl AsyncFnOnce(RunContext<'_, PlayedRegistry>) -> T) -> T {
        let (domain, directory) = (Self::domain(), self.directory());
        work(RunContext {
            domain: &domain,
            names: &[],
            registry: &self.registry,
            registry_name: "played",
            settings: &self.settings,
            directory: &directory,
            progress: &RunProgress::default(),
            stop: &CancellationToken::new(),
        })
        .await
    }
}

fn lines(content: &PlayedRepository, going: &Going) -> Vec<PlanLine> {
    let repository = going.repository.to_owned();
    let tags = content.tags.iter().map(|(tag, now)| {
        PlanLine::Tag(TagLine {
            repository: repository.clone(),
            tag: tag.to_string(),
            digest: now.digest.to_string(),
            stays: !going.tags.iter().any(|going| going == tag.as_str()),
            reasons: Vec::new(),
            rule: None,
            pushed: now.pushed,
            pulled: now.pulled,
            until: None,
        })
    });
    let manifests = going.manifests.iter().map(|digest| {
        PlanLine::Manifest(ManifestLine {
            repository: repository.clone(),
            digest: digest.to_string(),
            pulled: None,
        })
    });
    let summary = PlanLine::Repository(RepositoryLine {
        repository: repository.clone(),
        tags: content.tags.len() as u64,
        goes: going.tags.len() as u64,
        manifests: going.manifests.len() as u64,
        bytes: 1000,
        recorded_since: None,
    });
    tags.chain(manifests).chain([summary]).collect()
}

/// Two repositories, each with indexes that share children, of which every second one goes with its
/// signature.
fn indexes() -> (PlayedContent, Vec<Going>) {
    let at = Timestamp::now() - SignedDuration::from_hours(24 * 60);
    let mut content = PlayedContent::default();
    let mut all = Vec::new();
    for name in ["ci/app", "ci/base"] {
        let mut repository = PlayedRepository::default();
        let mut going = Going {
            repository: name,
            ..Going::default()
        };
        let shared = repository.push_image("shared", at);
        for number in 0..8 {
            let at = at + SignedDuration::from_hours(number);
            let own = repository.push_image(&format!("{name}{number}"), at);
            let index = repository.push_index(&[shared.clone(), own.clone()], None, at);
            let signature = repository.push_index(&[], Some(&index), at);
            repository.tag(&format!("v{number}"), &index, at);
            if number % 2 == 0 {
                going.tags.push(format!("v{number}"));
                going.manifests.extend([index, own, signature]);
            }
        }
        all.push(going);
        content
            .repositories
            .insert(repository_name(name), repository);
    }
    (content, all)
}

/// The newest tag of each repository stays.
fn newest_of_each() -> RetentionSettings {
    let rule = RetentionRule {
        repositories: vec![RepositoryPattern::parse("ci/**").expect("a pattern")],
        tags: vec![Pattern::new("*")],
        protect: Vec::new(),
        keep: Some(Keep {
            newest: Some(1),
            ..Keep::default()
        }),
        ttl: None,
        per: Grouping::Repository,
        expiry_label: None,
        location: RuleLocation {
            file: "conf.d/ci.toml".into(),
            line: 7,
        },
    };
    RetentionSettings {
        rules: vec![rule],
        runs: RetentionRuns {
            max_share: 100,
            min_age: Duration::ZERO,
            ..RetentionRuns::default()
        },
    }
}

impl RetainedFixture {
    /// With rules, and these records of runs.
    fn scheduled(records: &RunRecords) -> Self {
        let (content, _) = indexes();
        let mut fixture = Self::new(content);
        fixture.settings = Arc::new(newest_of_each());
        let directory = fixture.directory();
        let _lock = directory.lock().expect("free");
        records.write(&directory).expect("written");
        fixture
    }

    async fn perform(&self, request: RunRequest) -> RunReport {
        self.with(async |run| perform(&run, &request).await).await
    }

    fn records(&self) -> RunRecords {
        RunRecords::read(&self.directory()).expect("read")
    }
}

#[tokio::test]
async fn of_two_processes_with_one_state_one_has_the_run_of_the_schedule() {
    let fixture = RetainedFixture::scheduled(&RunRecords {
        first_seen: Some(Timestamp::now() - SignedDuration::from_hours(25)),
        ..RunRecords::default()
    });
    let before = visible(&fixture.registry.content());
    let run = || fixture.perform(RunRequest::Scheduled { dry_run: false });
    let (one, other) = tokio::join!(run(), run());
    let third = run().await;
    let ran: Vec<_> = [one, other, third]
        .into_iter()
        .filter_map(|report| report.last)
        .collect();
    assert_eq!(ran.len(), 1, "{ran:?}");
    assert_eq!((ran[0].tags, ran[0].manifests), (14, 42));
    assert_eq!(fixture.records().last.as_ref(), Some(&ran[0]));
    assert!(is_whole(&fixture.registry.content()));
    let plan = ran[0].plan.as_deref().expect("one");
    let plan = PlanId::parse(plan).expect("a name");
    let undone = fixture.perform(RunRequest::Undo { plan }).await;
    assert!(!undone.failed, "{}", undone.text);
    assert_eq!(visible(&fixture.registry.content()), before);
}

#[tokio::test]
async fn a_run_of_the_schedule_that_was_killed_is_continued_by_the_next_one() {
    let fixture = RetainedFixture::scheduled(&RunRecords {
        first_seen: Some(Timestamp::now() - SignedDuration::from_hours(25)),
        ..RunRecords::default()
    });
    let run = || fixture.perform(RunRequest::Scheduled { dry_run: false });
    fixture.registry.fail_at(Some(30));
    let stopped = run().await;
    assert!(
        stopped.failed && stopped.text.contains("at ci/app: it answered 500"),
        "{}",
        stopped.text
    );
    let mut records = fixture.records();
    let plan = records.unfinished.clone().expect("unfinished");
    // Not again in the same minute.
    assert_eq!(run().await.last, None);
    // A process that was killed has not recorded the end of its run.
    records.scheduled_failed = false;
    records.write(&fixture.directory()).expect("written");
    fixture.registry.fail_at(None);
    let last = run().await.last.expect("a run");
    assert_eq!((last.outcome, last.plan), (RunOutcome::Applied, Some(plan)));
    assert_eq!(fixture.records().unfinished, None);
    let content = fixture.registry.content();
    assert!(
        content
            .repositories
            .values()
            .all(|repository| repository.tags.len() == 1)
    );
    assert!(is_whole(&content));
}

#[tokio::test]
async fn while_a_run_is_under_way_no_other_begins() {
    let fixture = RetainedFixture::scheduled(&RunRecords::default());
    let before = visible(&fixture.registry.content());
    let _lock = fixture.directory().lock().expect("free");
    let report = fixture
        .perform(RunRequest::Plan {
            beyond_limits: false,
        })
        .await;
    assert!(report.failed);
    insta::assert_snapshot!(report.text, @"another run of retention for ci.test is under way, perhaps in another process: try again when it has ended");
    assert_eq!(visible(&fixture.registry.content()), before);
}

/// What clients see: the manifests, and where the tags lead.
fn visible(content: &PlayedContent) -> BTreeMap<String, Vec<u8>> {
    let mut seen = BTreeMap::new();
    for (name, repository) in &content.repositories {
        for (tag, now) in &repository.tags {
            let leads_to = now.digest.to_string().into_bytes();
            seen.insert(format!("{name}:{tag}"), leads_to);
        }
        for (digest, manifest) in &repository.manifests {
            seen.insert(format!("{name}@{digest}"), manifest.bytes.to_vec());
        }
    }
    seen
}

fn is_whole(content: &PlayedContent) -> bool {
    content.repositories.values().all(|repository| {
        let mut tags = repository.tags.values();
        tags.all(|tag| repository.missing(&tag.digest).is_none())
    })
}

#[tokio::test]
async fn a_plan_takes_away_what_it_names_and_undoing_it_gives_all_back() {
    let (content, going) = indexes();
    let before = visible(&content);
    let fixture = RetainedFixture::new(content);
    let id = fixture.plan(&going);
    let (done, summary) = fixture.apply(&id).await;
    done.expect("applied");
    assert_eq!(
        (summary.tags, summary.manifests, summary.bytes),
        (8, 24, 2000)
    );
    assert_eq!((summary.checked.images, summary.changed_count), (8, 0));
    let after = fixture.registry.content();
    assert!(is_whole(&after));
    assert_eq!(visible(&after).len(), before.len() - 32);
    // Again changes nothing.
    fixture.apply(&id).await.0.expect("applied");
    assert_eq!(visible(&fixture.registry.content()), visible(&after));
    for _ in 0..2 {
        let (done, summary) = fixture.undo(&id).await;
        done.expect("undone");
        assert_eq!((summary.tags, summary.manifests), (8, 24));
        assert_eq!(visible(&fixture.registry.content()), before);
    }
}

#[tokio::test]
async fn a_run_that_ends_at_any_step_is_continued_to_the_same_end() {
    let (content, going) = indexes();
    let before = visible(&content);
    let whole = RetainedFixture::new(content.clone());
    let id = whole.plan(&going);
    whole.apply(&id).await.0.expect("applied");
    let expected = visible(&whole.registry.content());
    for step in 1..=60 {
        let fixture = RetainedFixture::new(content.clone());
        let id = fixture.plan(&going);
        fixture.registry.fail_at(Some(step));
        let (done, _) = fixture.apply(&id).await;
        assert!(
            fixture.registry.has_failed() && done.is_err(),
            "step {step}"
        );
        assert!(is_whole(&fixture.registry.content()), "step {step}");
        fixture.registry.fail_at(None);
        // Whoever changes his mind gets all back.
        if step % 2 == 0 && fixture.undo(&id).await.0.is_ok() {
            assert_eq!(visible(&fixture.registry.content()), before, "step {step}");
        }
        fixture.apply(&id).await.0.expect("continued");
        assert_eq!(
            visible(&fixture.registry.content()),
            expected,
            "step {step}"
        );
        // Undoing may fail in the middle too.
        fixture.registry.fail_at(Some(step.min(20)));
        assert!(fixture.undo(&id).await.0.is_err());
        assert!(is_whole(&fixture.registry.content()), "step {step}");
        fixture.registry.fail_at(None);
        fixture.undo(&id).await.0.expect("undone");
        assert_eq!(visible(&fixture.registry.content()), before, "step {step}");
    }
}

#[tokio::test]
async fn whatever_is_pushed_meanwhile_stays_and_is_not_overwritten_by_undoing() {
    let (content, going) = indexes();
    let fixture = RetainedFixture::new(content);
    let id = fixture.plan(&going);
    let app = repository_name("ci/app");
    let later = fixture.made + SignedDuration::from_hours(1);
    let of = app.clone();
    fixture.registry.before_steps(move |step, content| {
        let repository = content.repositories.get_mut(&of).expect("there");
        // While the manifests are being saved.
        if step == 3 {
            let new = repository.push_image("new", later);
            repository.tag("v0", &new, later);
            repository
                .tags
                .get_mut(&tag_name("v2"))
                .expect("there")
                .pulled = Some(later);
        }
    });
    let (done, summary) = fixture.apply(&id).await;
    done.expect("applied");
    // v0 and v2, and the manifests of v2.
    assert_eq!(summary.tags, 6);
    assert!(summary.changed_count >= 2, "{:?}", summary.changed);
    let after = fixture.registry.content();
    assert!(is_whole(&after));
    let moved = after.repositories[&app].tags[&tag_name("v0")].clone();
    assert!(after.repositories[&app].tags.contains_key(&tag_name("v2")));
    let (done, summary) = fixture.undo(&id).await;
    done.expect("undone");
    assert_eq!(summary.taken, ["ci/app:v0"]);
    let now = &fixture.registry.content().repositories[&app].tags[&tag_name("v0")];
    assert_eq!(*now, moved);
}

#[tokio::test]
async fn two_cleaners_at_once_lose_nothing() {
    let (content, going) = indexes();
    let whole = RetainedFixture::new(content.clone());
    let id = whole.plan(&going);
    whole.apply(&id).await.0.expect("applied");
    // Two domains with one store have a directory each, so that no lock keeps them apart.
    let fixture = RetainedFixture::new(content);
    let ids = [fixture.plan(&going), fixture.plan(&going)];
    let (one, other) = tokio::join!(fixture.apply(&ids[0]), fixture.apply(&ids[1]));
    one.0.expect("applied");
    other.0.expect("applied");
    let (now, expected) = (fixture.registry.content(), whole.registry.content());
    assert_eq!(visible(&now), visible(&expected));
}

#[tokio::test]
async fn what_cannot_be_put_back_is_named_and_the_others_come_back() {
    let (content, going) = indexes();
    let fixture = RetainedFixture::new(content);
    let id = fixture.plan(&going);
    fixture.apply(&id).await.0.expect("applied");
    let lost = going[0].manifests[1].clone();
    fixture.registry.change(|content| {
        let repository = content.repositories.get_mut(&repository_name("ci/app"));
        // The blob of v0, which a collection removed.
        let blob = crate::retention::testing::digest_of(b"ci/app0");
        repository.expect("there").blobs.remove(&blob);
    });
    let (done, summary) = fixture.undo(&id).await;
    done.expect("undone");
    assert_eq!((summary.tags, summary.manifests), (7, 22));
    // The image, and the index that lists it.
    assert_eq!(summary.lost.len(), 2, "{:?}", summary.lost);
    assert!(summary.lost[0].starts_with(&format!("ci/app@{lost}: ")));
    assert!(
        summary.lost[1].ends_with(" (tags v0)"),
        "{:?}",
        summary.lost
    );
    assert!(is_whole(&fixture.registry.content()));
}

#[tokio::test]
async fn a_plan_that_takes_too_much_is_stopped_and_can_be_undone() {
    let (content, mut going) = indexes();
    let before = visible(&content);
    let app = &content.repositories[&repository_name("ci/app")];
    let kept = &app.tags[&tag_name("v1")].digest;
    let child = app.manifests[kept].children[1].clone();
    going[0].manifests.push(child.clone());
    let fixture = RetainedFixture::new(content);
    fixture.registry.forget_references();
    let id = fixture.plan(&going);
    let error = fixture.apply(&id).await.0.expect_err("stopped");
    let named = format!("ci/app:v1 stays and lacks {child}, which this run took away");
    assert!(error.to_string().starts_with(&named), "{error}");
    fixture.undo(&id).await.0.expect("undone");
    assert_eq!(visible(&fixture.registry.content()), before);
}

#[tokio::test]
async fn a_share_beyond_the_limit_needs_a_word() {
    let (content, going) = indexes();
    let fixture = RetainedFixture::new(content);
    let id = fixture.plan(&going);
    let path = fixture.directory().plan(&id);
    let text = std::fs::read_to_string(&path).expect("read");
    let few = text.replace("\"tags\":1016", "\"tags\":15");
    assert_ne!(few, text);
    std::fs::write(&path, few).expect("written");
    let error = fixture.apply(&id).await.0.expect_err("refused");
    let text = error.to_string().replace(id.as_str(), "ID");
    insta::assert_snapshot!(text, @"8 of 15 tags would go, and max_share allows 50 %: read the plan ID, and apply it with --beyond-limits if it is right");
    let mut summary = ApplySummary::default();
    let lifted = ShareLimit::Lifted;
    let done = fixture
        .with(async |run| apply(&run, &id, lifted, fixture.made, &mut summary).await)
        .await;
    done.expect("applied");
    assert_eq!(summary.tags, 8);
}

#[tokio::test]
async fn plans_of_others_old_and_damaged_ones_are_refused() {
    let (content, going) = indexes();
    let mut fixture = RetainedFixture::new(content);
    let before = visible(&fixture.registry.content());
    let id = fixture.plan(&going);
    let path = fixture.directory().plan(&id);
    let text = std::fs::read_to_string(&path).expect("read");
    let refused = async |fixture: &RetainedFixture, from: &str, to: &str| {
        std::fs::write(&path, text.replacen(from, to, 1)).expect("written");
        let error = fixture.apply(&id).await.0.expect_err("refused");
        error.to_string().replace(id.as_str(), "ID")
    };
    let other = refused(&fixture, "\"ci.test\"", "\"cache.test\"").await;
    insta::assert_snapshot!(other, @"the plan ID is one for cache.test, not for ci.test");
    let other = refused(&fixture, "\"played\"", "\"/srv/store\"").await;
    insta::assert_snapshot!(other, @"the plan ID was made for the registry at /srv/store, and that of ci.test is at played now: make a new plan");
    let cut = text.lines().count();
    let last = text.lines().last().expect("one").to_owned();
    let damaged = refused(&fixture, &last, "{\"line\":").await;
    assert!(
        damaged.ends_with(&format!("line {cut}, is damaged: make a new plan")),
        "{damaged}"
    );
    std::fs::write(&path, &text).expect("written");
    fixture.made += SignedDuration::from_hours(24 * 7 + 1);
    let old = fixture.apply(&id).await.0.expect_err("refused");
    assert!(matches!(old, RunError::TooOld(_)), "{old}");
    assert_eq!(visible(&fixture.registry.content()), before);
    let unknown = PlanId::new(fixture.made).expect("randomness");
    let error = fixture.apply(&unknown).await.0.expect_err("refused");
    assert!(matches!(error, RunError::UnknownPlan { .. }), "{error}");
    let error = fixture.undo(&unknown).await.0.expect_err("refused");
    assert!(matches!(error, RunError::NothingSaved(_)), "{error}");
}
