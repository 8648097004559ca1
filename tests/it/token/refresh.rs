//! Refresh tokens: for whom asks, bound to user and domain, listed and taken back.

use std::path::Path;

use serde_json::Value;

use super::fixture::{Kind, TokenFixture};
use crate::access::fixture::allow;
use crate::harness::{Clock, Domain, Setup, cli, jump, seconds};
use crate::store::image::sha256;

async fn refresh_token(fixture: &TokenFixture, user: &str) -> String {
    let query = "offline_token=true&client_id=docker&service=ci.test";
    let answer = fixture
        .get_token(Some((user, "secret")), query)
        .await
        .is(200)
        .json();
    answer["refresh_token"].as_str().unwrap().to_owned()
}

async fn redeemed(fixture: &TokenFixture, token: &str) -> u16 {
    fixture
        .post_form(&format!(
            "grant_type=refresh_token&service=ci.test&refresh_token={token}"
        ))
        .await
        .status
}

#[tokio::test]
async fn a_refresh_token_replaces_the_password() {
    let fixture = TokenFixture::new(&allow("own/**", "'pull', 'push'")).await;
    for answer in [
        fixture
            .get_token(Some(("alice", "secret")), "offline_token=true")
            .await,
        fixture
            .post_form("grant_type=password&username=alice&password=secret&access_type=offline")
            .await,
    ] {
        let refresh = answer.is(200).json()["refresh_token"]
            .as_str()
            .unwrap()
            .to_owned();
        let form = format!(
            "grant_type=refresh_token&service=ci.test&client_id=docker&refresh_token={refresh}\
             &scope=repository:own/a:pull,push repository:other:pull"
        );
        let answer = fixture
            .post_form(&form.replace(' ', "+"))
            .await
            .is(200)
            .json();
        assert_eq!(answer["scope"], "repository:own/a:pull,push");
        assert!(answer.get("refresh_token").is_none());
        fixture
            .client()
            .bearing(answer["token"].as_str().unwrap())
            .push_blob("own/a", b"x")
            .await;
        // It is for the endpoint alone.
        fixture
            .client()
            .bearing(&refresh)
            .get("/v2/")
            .await
            .refused(401, "UNAUTHORIZED");
        fixture
            .client()
            .ask_with(
                "GET",
                "/token",
                &[("authorization", &format!("Bearer {refresh}"))],
                "",
            )
            .await
            .is(401);
    }
    for query in ["", "offline_token=false", "offline_token="] {
        let answer = fixture
            .get_token(Some(("alice", "secret")), query)
            .await
            .is(200)
            .json();
        assert!(answer.get("refresh_token").is_none(), "{query}");
    }
}

#[tokio::test]
async fn the_state_directory_contains_no_usable_refresh_token() {
    let fixture = TokenFixture::new("").await;
    let token = refresh_token(&fixture, "alice").await;
    let text =
        std::fs::read_to_string(fixture.0.gateway.path("state/refresh-tokens.json")).unwrap();
    let random = token.strip_prefix("moorgate_").unwrap();
    assert!(!text.contains(random));
    let hash = serde_json::from_str::<Value>(&text).unwrap()["tokens"][0]["hash"]
        .as_str()
        .unwrap()
        .to_owned();
    for guess in [hash.clone(), format!("moorgate_{hash}"), random.to_owned()] {
        assert_eq!(redeemed(&fixture, &guess).await, 401);
    }
    assert_eq!(redeemed(&fixture, &token).await, 200);
}

#[tokio::test]
async fn a_refresh_token_ends_with_its_user_password_or_lifetime() {
    let fixture = TokenFixture::with(Kind::Store, "refresh_token_lifetime = '1d'", "").await;
    let token = refresh_token(&fixture, "alice").await;
    for _ in 0..3 {
        jump(seconds(86_000)).await;
        assert_eq!(
            redeemed(&fixture, &token).await,
            200,
            "it lives as long as it is used"
        );
    }
    jump(seconds(86_400)).await;
    assert_eq!(redeemed(&fixture, &token).await, 401);
    let token = refresh_token(&fixture, "alice").await;
    fixture.users(&["root", "bob"]).await;
    assert_eq!(redeemed(&fixture, &token).await, 401, "the user is gone");
    fixture.users(&["root", "alice"]).await;
    assert_eq!(redeemed(&fixture, &token).await, 401, "it is another entry");
}

#[tokio::test]
async fn wrong_refresh_tokens_count_for_the_address_alone() {
    let fixture = TokenFixture::new("").await;
    // Tries come back with time.
    let _clock = Clock::stopped();
    let token = refresh_token(&fixture, "alice").await;
    for _ in 0..100 {
        assert_eq!(
            redeemed(&fixture, "moorgate_stale").await,
            401,
            "the same one counts once"
        );
    }
    let mut refused = 0;
    for number in 0..40 {
        match redeemed(&fixture, &format!("moorgate_{number}")).await {
            401 => {}
            429 => refused += 1,
            other => panic!("{other}"),
        }
    }
    assert_eq!(
        refused, 21,
        "20 are searched for, one of them the stale one"
    );
    assert_eq!(
        fixture.get_token(Some(("bob", "wrong")), "").await.status,
        429,
        "it is one budget"
    );
    assert_eq!(redeemed(&fixture, &token).await, 200);
    assert_eq!(
        fixture
            .post_form("grant_type=refresh_token&refresh_token=x")
            .await
            .header("retry-after"),
        "30"
    );
}

/// Puts a token into the file as another process would that shares the state directory.
fn made_elsewhere(fixture: &TokenFixture, token: &str) {
    let path = fixture.0.gateway.path("state/refresh-tokens.json");
    let mut file: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let mut entry = file["tokens"][0].clone();
    let hash = sha256(token.as_bytes());
    entry["hash"] = hash.strip_prefix("sha256:").unwrap().into();
    file["tokens"].as_array_mut().unwrap().push(entry);
    std::fs::write(&path, file.to_string()).unwrap();
}

#[tokio::test]
async fn unknown_refresh_tokens_read_the_disk_within_the_budget_alone() {
    let fixture = TokenFixture::new("").await;
    let ours = refresh_token(&fixture, "alice").await;
    // So that the watcher does not read the file meanwhile.
    let clock = Clock::stopped();
    made_elsewhere(&fixture, "moorgate_one");
    assert_eq!(
        redeemed(&fixture, "moorgate_one").await,
        200,
        "it is looked for"
    );
    for number in 0..20 {
        assert_eq!(
            redeemed(&fixture, &format!("moorgate_wrong_{number}")).await,
            401
        );
    }
    made_elsewhere(&fixture, "moorgate_two");
    for token in ["moorgate_two", "moorgate_wrong"] {
        assert_eq!(
            redeemed(&fixture, token).await,
            429,
            "whether it is there or not"
        );
    }
    for token in [&ours, "moorgate_one"] {
        assert_eq!(redeemed(&fixture, token).await, 200, "known by now");
    }
    fixture.0.gateway.app.refresh_files().await;
    assert_eq!(redeemed(&fixture, "moorgate_two").await, 200);
    drop(clock);
}

/// How often this process has a file open.
fn open_handles(path: &Path) -> usize {
    let open = std::fs::read_dir("/proc/self/fd").unwrap();
    open.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .filter(|target| target == path)
        .count()
}

#[tokio::test]
async fn a_locked_file_of_refresh_tokens_delays_no_revocation() {
    let fixture = TokenFixture::new("").await;
    let mut alice = fixture.bearer("alice", "").await;
    alice.get("/v2/").await.is(200);
    refresh_token(&fixture, "bob").await;
    let path = fixture.0.gateway.path("state/refresh-tokens.lock");
    let path = path.canonicalize().unwrap();
    let lock = std::fs::File::open(&path).unwrap();
    lock.lock().unwrap();
    // It waits for the lock as long as it may, and gives up before the watcher does, which begins
    // to wait after it.
    let waiting = fixture.get_token(Some(("bob", "secret")), "offline_token=true");
    let revoked = async {
        // This test, the request and the watcher.
        while open_handles(&path) < 3 {
            alice.get("/v2/").await.is(200);
        }
        let users = fixture.0.gateway.path("conf.d/ci.test.htpasswd");
        let text = std::fs::read_to_string(&users).unwrap();
        let others = text.lines().filter(|line| !line.starts_with("alice:"));
        std::fs::write(
            users,
            others.map(|line| format!("{line}\n")).collect::<String>(),
        )
        .unwrap();
        while alice.get("/v2/").await.status == 200 {}
        alice.get("/v2/").await.refused(401, "UNAUTHORIZED");
    };
    tokio::select! {
        biased;
        _ = waiting => panic!("alice is let in for as long as the lock is waited for"),
        () = revoked => {}
    }
}

#[tokio::test]
async fn refresh_tokens_of_changed_entries_are_listed_as_ended() {
    let fixture = TokenFixture::new("").await;
    let directory = fixture.0.gateway.directory.path().to_owned();
    for user in ["alice", "bob", "carol"] {
        refresh_token(&fixture, user).await;
    }
    let listed = async || {
        let (code, listed, said) = cli(&directory, &["tokens", "list"]).await;
        assert_eq!((code, said.as_str()), (Some(0), ""));
        let over = |user: &str| {
            let line = listed
                .lines()
                .find(|line| line.contains(&format!("  {user}  ")))
                .unwrap();
            line.ends_with("  no longer valid: the user or the password has changed, or the domain accepts none")
        };
        ["alice", "bob", "carol"].map(over)
    };
    assert_eq!(listed().await, [false, false, false]);
    let path = fixture.0.gateway.path("conf.d/ci.test.htpasswd");
    let users = std::fs::read_to_string(&path).unwrap();
    let other = Domain::htpasswd(&[("bob".to_owned(), "other".to_owned())]);
    let changed = users
        .lines()
        .filter(|line| !line.starts_with("bob:") && !line.starts_with("carol:"));
    std::fs::write(
        &path,
        changed.map(|line| format!("{line}\n")).collect::<String>() + &other,
    )
    .unwrap();
    assert_eq!(
        listed().await,
        [false, true, true],
        "another password, and gone"
    );
    let (_, json, _) = cli(&directory, &["tokens", "list", "--json"]).await;
    let json: Value = serde_json::from_str(&json).unwrap();
    let good = |user: &str| {
        json.as_array()
            .unwrap()
            .iter()
            .find(|t| t["user"] == user)
            .unwrap()["good"]
            .clone()
    };
    assert_eq!(
        [good("alice"), good("bob"), good("carol")],
        [true, false, false]
    );
    let file = fixture.0.gateway.path("conf.d/ci.test.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("mode = 'token'", "mode = 'basic'")).unwrap();
    assert_eq!(
        listed().await,
        [true, true, true],
        "the domain takes none any more"
    );
}

#[tokio::test]
async fn refresh_tokens_are_listed_and_revoked_at_once() {
    let fixture = TokenFixture::new("").await;
    let directory = fixture.0.gateway.directory.path().to_owned();
    let mut all = Vec::new();
    for user in ["alice", "alice", "bob"] {
        all.push(refresh_token(&fixture, user).await);
    }
    let (code, listed, said) = cli(&directory, &["tokens", "list"]).await;
    assert_eq!(
        (code, said.as_str(), listed.lines().count()),
        (Some(0), "", 3)
    );
    let mine: Vec<&str> = listed
        .lines()
        .filter(|line| line.contains("  alice  ci.test  docker  made "))
        .collect();
    assert_eq!(mine.len(), 2, "{listed}");
    assert!(all.iter().all(|token| !listed.contains(&token[9..])));
    let (_, json, _) = cli(&directory, &["tokens", "list", "--json"]).await;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (json[0]["client"].as_str(), json.as_array().unwrap().len()),
        (Some("docker"), 3)
    );
    let id = json
        .as_array()
        .unwrap()
        .iter()
        .find(|token| token["user"] == "bob")
        .unwrap()["id"]
        .as_str()
        .unwrap();
    let revoke = async |arguments: &[&str]| {
        let (code, out, said) = cli(&directory, &[&["tokens", "revoke"], arguments].concat()).await;
        assert_eq!(out, "");
        let said = said.strip_prefix("process PID (DIR): ").unwrap_or(&said);
        (code, said.to_owned())
    };
    assert_eq!(
        revoke(&[id]).await,
        (Some(0), "1 refresh token revoked\n".to_owned())
    );
    assert_eq!(redeemed(&fixture, &all[2]).await, 401);
    assert_eq!(redeemed(&fixture, &all[0]).await, 200);
    let said =
        format!("there is no refresh token with the id {id}; `moorgate tokens list` shows all\n");
    assert_eq!(revoke(&[id]).await, (Some(1), said));
    let said = "there is no domain x.test; there are: ci.test\n".to_owned();
    assert_eq!(
        revoke(&["--all", "--domain", "x.test"]).await,
        (Some(1), said)
    );
    assert_eq!(
        revoke(&["--user", "alice"]).await,
        (Some(0), "2 refresh tokens revoked\n".to_owned())
    );
    assert_eq!(redeemed(&fixture, &all[0]).await, 401);
    assert_eq!(
        revoke(&["--all"]).await,
        (Some(0), "there was no refresh token\n".to_owned())
    );
    for arguments in [&[][..], &[id, "--all"]] {
        assert_eq!(revoke(arguments).await.0, Some(2), "{arguments:?}");
    }
    let (_, listed, said) = cli(&directory, &["tokens", "list"]).await;
    assert_eq!(
        (listed.as_str(), said.as_str()),
        ("", "there are no refresh tokens\n")
    );
}

#[tokio::test]
async fn refresh_tokens_are_listed_without_a_process_and_not_revoked() {
    let directory = tempfile::tempdir().unwrap();
    Setup::new()
        .domain(Domain::store("ci.test", "ci").auth("mode = 'token'"))
        .write(directory.path());
    assert_eq!(cli(directory.path(), &["tokens", "list"]).await.0, Some(0));
    let (code, _, said) = cli(directory.path(), &["tokens", "revoke", "--all"]).await;
    let words = "moorgate: no moorgate runs here: nobody answers in DIR/state/control; \
                 is --config that of the running one?\n";
    assert_eq!((code, said.as_str()), (Some(1), words));
    assert!(
        !directory.path().join("state/token-keys.json").exists(),
        "looking makes nothing"
    );
    assert_eq!(cli(directory.path(), &["check"]).await.0, Some(0));
    assert!(!directory.path().join("state").exists());
}

#[tokio::test]
async fn a_domain_without_tokens_has_none_to_revoke() {
    let gateway = Setup::new()
        .domain(Domain::store("ci.test", "ci"))
        .start()
        .await;
    let (code, _, said) = cli(gateway.directory.path(), &["tokens", "revoke", "--all"]).await;
    assert_eq!(
        (code, said.as_str()),
        (
            Some(1),
            "process PID (DIR): no domain gives tokens: none has mode = \"token\" in [auth]\n"
        )
    );
}

#[tokio::test]
async fn a_state_that_cannot_be_used_is_a_problem_of_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let setup = Setup::new().domain(Domain::store("ci.test", "ci").auth("mode = 'token'"));
    setup.write(directory.path());
    std::fs::create_dir(directory.path().join("state")).unwrap();
    std::fs::write(directory.path().join("state/token-keys.json"), "{}").unwrap();
    let options = moorgate::internal::app::StartOptions {
        directory: directory.path().to_owned(),
        workers: None,
        log_floor: None,
        logs: None,
        sockets: moorgate::internal::listen::InheritedSockets::default(),
        predecessor: None,
        strict: false,
    };
    let Err(moorgate::internal::app::StartError::Configuration(problems)) =
        moorgate::internal::app::App::start(options).await
    else {
        panic!("it started");
    };
    let problems = problems.render(moorgate::internal::config::Colour::Never);
    assert!(problems.contains("has no token keys"), "{problems}");
}
