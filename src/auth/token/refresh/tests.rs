use std::os::unix::fs::PermissionsExt;

use super::*;

const DAY: Duration = Duration::from_secs(86_400);

fn day(day: u32) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000) + DAY * day
}

struct TestRefreshTokens {
    directory: tempfile::TempDir,
    tokens: Arc<RefreshTokens>,
}

impl TestRefreshTokens {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let tokens = Arc::new(RefreshTokens::open(directory.path()).unwrap());
        Self { directory, tokens }
    }

    fn another(&self) -> Arc<RefreshTokens> {
        Arc::new(RefreshTokens::open(self.directory.path()).unwrap())
    }

    fn file(&self) -> String {
        std::fs::read_to_string(file::path(self.directory.path())).unwrap()
    }
}

async fn issue(tokens: &Arc<RefreshTokens>, user: &str, now: SystemTime) -> String {
    let user = UserName::new(user).unwrap();
    let holder = Holder {
        domain: "ci.test",
        user: &user,
        entry: "e",
        client: "doc\nker",
        lifetime: 90 * DAY,
    };
    tokens.issue(&holder, now).await.unwrap().to_string()
}

fn known(tokens: &RefreshTokens, token: &str, now: SystemTime) -> Option<String> {
    Some(tokens.redeem(token, "ci.test", 90 * DAY, now)?.user.clone())
}

async fn user(tokens: &Arc<RefreshTokens>, token: &str, now: SystemTime) -> Option<String> {
    if known(tokens, token, now).is_none() {
        tokens.catch_up(now).await;
    }
    known(tokens, token, now)
}

#[tokio::test]
async fn a_token_counts_at_its_domain_as_long_as_it_is_used() {
    let fixture = TestRefreshTokens::new();
    let token = issue(&fixture.tokens, "alice", day(0)).await;
    assert_eq!(token.len(), "moorgate_".len() + 43);
    assert!(
        !fixture.file().contains(&token["moorgate_".len()..]),
        "its hash is kept, and nothing else"
    );
    let mode = std::fs::metadata(file::path(fixture.directory.path()))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(
        fixture
            .tokens
            .lock()
            .records
            .iter()
            .next()
            .unwrap()
            .1
            .client,
        "docker"
    );
    assert!(
        fixture
            .tokens
            .redeem(&token, "other.test", 90 * DAY, day(1))
            .is_none()
    );
    assert!(user(&fixture.tokens, "moorgate_x", day(1)).await.is_none());
    for at in [80, 160, 240] {
        assert_eq!(
            user(&fixture.tokens, &token, day(at)).await.as_deref(),
            Some("alice"),
            "{at}"
        );
    }
    assert!(
        fixture
            .tokens
            .redeem(&token, "ci.test", 7 * DAY, day(248))
            .is_none(),
        "shorter now"
    );
    assert!(user(&fixture.tokens, &token, day(330)).await.is_none());
}

#[tokio::test]
async fn processes_share_the_file() {
    let fixture = TestRefreshTokens::new();
    let other = fixture.another();
    let ours = issue(&fixture.tokens, "alice", day(0)).await;
    let theirs = issue(&other, "bob", day(0)).await;
    assert_eq!(
        known(&fixture.tokens, &theirs, day(1)),
        None,
        "without a look at the disk"
    );
    assert_eq!(
        user(&fixture.tokens, &theirs, day(1)).await.as_deref(),
        Some("bob")
    );
    assert_eq!(user(&other, &ours, day(1)).await.as_deref(), Some("alice"));
    assert_eq!(
        other
            .revoke(&Revoked::User("alice"), None, day(1))
            .await
            .unwrap(),
        1
    );
    fixture.tokens.refresh(day(1));
    assert!(user(&fixture.tokens, &ours, day(1)).await.is_none());
    // What was used meanwhile does not bring back what was revoked.
    fixture.tokens.refresh(day(2));
    assert!(user(&fixture.another(), &ours, day(2)).await.is_none());
    assert_eq!(
        user(&fixture.another(), &theirs, day(2)).await.as_deref(),
        Some("bob")
    );
}

#[tokio::test]
async fn use_is_written_after_a_minute() {
    let fixture = TestRefreshTokens::new();
    let token = issue(&fixture.tokens, "alice", day(0)).await;
    user(&fixture.tokens, &token, day(1)).await.unwrap();
    let before = fixture.file();
    fixture.tokens.refresh(day(1) + Duration::from_secs(59));
    assert_eq!(fixture.file(), before);
    fixture.tokens.refresh(day(1) + Duration::from_secs(60));
    let listed = list(fixture.directory.path(), day(2)).unwrap();
    assert_eq!(listed[0].1.used, seconds(day(1)));
    assert_eq!(listed[0].0, TokenHash::from_token(&token).id());
}

#[tokio::test]
async fn uses_are_recorded_once_a_second() {
    let fixture = TestRefreshTokens::new();
    let token = issue(&fixture.tokens, "alice", day(0)).await;
    for _ in 0..100 {
        user(&fixture.tokens, &token, day(1)).await.unwrap();
    }
    assert_eq!(fixture.tokens.lock().pending.len(), 1);
}

#[tokio::test]
async fn revoking_removes_the_selected_tokens() {
    let fixture = TestRefreshTokens::new();
    let mut all = Vec::new();
    for name in ["alice", "alice", "bob", "carol"] {
        all.push(issue(&fixture.tokens, name, day(0)).await);
    }
    let revoke = async |which: Revoked<'_>, domain| {
        fixture.tokens.revoke(&which, domain, day(1)).await.unwrap()
    };
    assert_eq!(revoke(Revoked::User("alice"), Some("other.test")).await, 0);
    assert_eq!(
        revoke(Revoked::Id(&TokenHash::from_token(&all[0]).id()), None).await,
        1
    );
    assert!(user(&fixture.tokens, &all[0], day(1)).await.is_none());
    assert!(user(&fixture.tokens, &all[1], day(1)).await.is_some());
    assert_eq!(revoke(Revoked::User("alice"), Some("ci.test")).await, 1);
    assert_eq!(revoke(Revoked::Id(""), None).await, 0);
    assert_eq!(revoke(Revoked::All, None).await, 2);
    assert_eq!(list(fixture.directory.path(), day(1)).unwrap(), []);
}

#[tokio::test]
async fn a_damaged_file_is_kept_and_no_token_is_issued() {
    let fixture = TestRefreshTokens::new();
    issue(&fixture.tokens, "alice", day(0)).await;
    let path = file::path(fixture.directory.path());
    std::fs::write(&path, "{").unwrap();
    assert!(RefreshTokens::open(fixture.directory.path()).is_err());
    let bob = UserName::new("bob").unwrap();
    let holder = Holder {
        domain: "ci.test",
        user: &bob,
        entry: "e",
        client: "",
        lifetime: DAY,
    };
    assert!(fixture.tokens.issue(&holder, day(0)).await.is_err());
    fixture.tokens.refresh(day(0));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "{");
}

#[test]
fn logins_that_wait_for_a_locked_file_take_one_thread() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2)
        .build()
        .unwrap();
    runtime.block_on(async {
        let fixture = TestRefreshTokens::new();
        let path = file::path(fixture.directory.path());
        let lock = FileLock::acquire_beside(&path, Duration::ZERO).unwrap();
        let mut logins = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let tokens = fixture.tokens.clone();
            logins.spawn(async move { issue(&tokens, "alice", day(0)).await });
        }
        tokio::task::yield_now().await;
        tokio::select! {
            () = run_blocking(|| ()) => {}
            ended = logins.join_next() => panic!("a login ended before other work began: {ended:?}"),
        }
        drop(lock);
        assert_eq!(logins.join_all().await.len(), 8);
    });
}

#[tokio::test]
async fn nothing_grows_while_the_file_cannot_be_written() {
    let fixture = TestRefreshTokens::new();
    let token = issue(&fixture.tokens, "alice", day(0)).await;
    std::fs::write(file::path(fixture.directory.path()), "{").unwrap();
    let bob = UserName::new("bob").unwrap();
    let holder = Holder {
        domain: "ci.test",
        user: &bob,
        entry: "e",
        client: "",
        lifetime: DAY,
    };
    for second in 0..200 {
        let now = day(1) + Duration::from_secs(second);
        known(&fixture.tokens, &token, now).unwrap();
        assert!(fixture.tokens.issue(&holder, now).await.is_err());
        fixture.tokens.refresh(now);
    }
    let known = fixture.tokens.lock();
    assert_eq!((known.pending.len(), known.records.iter().count()), (1, 1));
}
