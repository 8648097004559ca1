//! `moorgate retention plan`, `apply`, `undo` and `explain`.

use super::fixture::{NEWEST, RetentionFixture};
use crate::store::image::Image;

#[tokio::test]
async fn what_a_plan_takes_away_comes_back_as_it_was() {
    let mut fixture = RetentionFixture::new(NEWEST).await;
    let images = fixture.push_images("cache/app", 3).await;
    let shared = Image::small(100);
    let old = [shared.clone(), Image::small(101)];
    let new = [shared, Image::small(102)];
    let old_index = fixture.push_index("cache/multi", "old", &old).await;
    fixture.next_second().await;
    let new_index = fixture.push_index("cache/multi", "new", &new).await;
    fixture.push_images("ci/app", 2).await;
    fixture.grow_old().await;

    let (id, lines) = fixture.plan().await;
    let going = lines.iter().filter(|line| line["stays"] == false);
    let going: Vec<_> = going.map(|line| line["tag"].as_str().unwrap()).collect();
    assert_eq!(going, ["v1", "v2", "old"]);
    let totals = lines.last().unwrap();
    assert_eq!(totals["line"], "totals");
    assert_eq!(totals["manifests"], 4, "{totals}");
    assert!(totals["bytes"].as_u64().unwrap() > 6000, "{totals}");
    // A plan alone takes nothing away.
    assert_eq!(fixture.tags("cache/app").await, ["v1", "v2", "v3"]);

    let out = fixture.done(&["apply", &id]).await;
    assert!(out.starts_with("gone: 3 tags and 4 manifests; "), "{out}");
    assert!(out.contains("checked afterwards: 2 images whole"), "{out}");
    assert_eq!(fixture.tags("cache/app").await, ["v3"]);
    assert_eq!(fixture.tags("cache/multi").await, ["new"]);
    assert_eq!(fixture.tags("ci/app").await, ["v1", "v2"]);
    fixture.client.check("cache/app", "v3", &images[2]).await;
    for image in &new {
        fixture
            .client
            .check("cache/multi", &image.digest(), image)
            .await;
    }
    let gone = fixture.client.get("/v2/cache/multi/manifests/old").await;
    gone.refused(404, "MANIFEST_UNKNOWN");
    let again = fixture.done(&["apply", &id]).await;
    assert_eq!(again, out);

    for _ in 0..2 {
        let out = fixture.done(&["undo", &id]).await;
        assert!(
            out.starts_with("put back 3 tags and 4 manifests\n"),
            "{out}"
        );
        assert_eq!(fixture.tags("cache/app").await, ["v1", "v2", "v3"]);
        for (number, image) in images.iter().enumerate() {
            let tag = format!("v{}", number + 1);
            fixture.client.check("cache/app", &tag, image).await;
        }
        for (tag, index) in [("old", &old_index), ("new", &new_index)] {
            let target = format!("/v2/cache/multi/manifests/{tag}");
            assert_eq!(fixture.client.get(&target).await.is(200).body, index);
        }
        for image in &old {
            fixture
                .client
                .check("cache/multi", &image.digest(), image)
                .await;
        }
    }
    fixture.store.disk().is_sound();
}

#[tokio::test]
async fn what_was_used_after_the_plan_stays() {
    let mut fixture = RetentionFixture::new(NEWEST).await;
    fixture.push_images("cache/app", 4).await;
    fixture.grow_old().await;
    let (id, _) = fixture.plan().await;
    // What came in the second of the plan could be either.
    fixture.grow_old().await;
    fixture
        .client
        .get("/v2/cache/app/manifests/v1")
        .await
        .is(200);
    let other = Image::small(50);
    fixture.client.push("cache/app", "v2", &other).await;
    let out = fixture.done(&["apply", &id]).await;
    assert!(out.contains("used or changed since the plan: 4\n"), "{out}");
    assert_eq!(fixture.tags("cache/app").await, ["v1", "v2", "v4"]);
    let out = fixture.done(&["undo", &id]).await;
    assert!(
        out.contains("leading to another image now: 1\n  cache/app:v2\n"),
        "{out}"
    );
    fixture.client.check("cache/app", "v2", &other).await;
    assert_eq!(fixture.tags("cache/app").await, ["v1", "v2", "v3", "v4"]);
}

#[tokio::test]
async fn explanations_say_why_and_what_would_help() {
    let mut fixture = RetentionFixture::new(NEWEST).await;
    fixture.push_images("cache/app", 2).await;
    let image = Image::small(9);
    fixture.client.push("cache/app", "latest", &image).await;
    fixture.grow_old().await;
    let explain = async |tag: &str| {
        let out = fixture.done(&["explain", "ci.test", tag]).await;
        let lines = out.lines().filter(|line| !line.contains("ed  "));
        lines.collect::<Vec<_>>().join("\n").replace("sha256:", "")
    };
    let latest = explain("cache/app:latest").await;
    let digest = image.digest().replace("sha256:", "");
    let latest = latest.replace(&digest, "DIGEST");
    insta::assert_snapshot!(latest, @r#"
    cache/app:latest stays (DIGEST)
      rule    conf.d/ci.test.toml:12
      reason  `protect` names it with "latest"
      it stays as long as that is so
    "#);
    let first = explain("ci.test/cache/app:v1").await;
    let digest = Image::small(1).digest().replace("sha256:", "");
    insta::assert_snapshot!(first.replace(&digest, "DIGEST"), @"
    cache/app:v1 goes (DIGEST)
      rule    conf.d/ci.test.toml:12
      reason  nothing in its rule keeps it
      it goes with the next run
      a push before that keeps it for 1 second
      a push before that makes it the newest of its group
    ");
    let none = explain("ci/app:v1").await;
    insta::assert_snapshot!(none, @"ci/app:v1 stays: no rule names the repository ci/app");
}

#[tokio::test]
async fn tags_that_a_list_names_stay_and_a_list_that_cannot_be_read_stops_all() {
    let tables = format!("{NEWEST}in_use = [\"in-use.txt\"]\n");
    let mut fixture = RetentionFixture::new(&tables).await;
    fixture.push_images("cache/app", 3).await;
    fixture.grow_old().await;
    let (code, _, error) = fixture.command(&["plan", "ci.test"]).await;
    assert_eq!(code, Some(1), "{error}");
    assert!(
        error.contains("in-use.txt cannot be read, so nothing is taken away: "),
        "{error}"
    );
    let list = fixture.store.gateway.path("conf.d/in-use.txt");
    std::fs::write(&list, "# cluster\nci.test/cache/app:v1\n").unwrap();
    let (id, lines) = fixture.plan().await;
    let going = lines.iter().filter(|line| line["stays"] == false);
    assert_eq!(going.count(), 1);
    // It may say more when the plan is applied.
    std::fs::write(&list, "ci.test/cache/app:v1\nci.test/cache/app:v2\n").unwrap();
    let out = fixture.done(&["apply", &id]).await;
    assert!(out.starts_with("gone: 0 tags"), "{out}");
    assert_eq!(fixture.tags("cache/app").await, ["v1", "v2", "v3"]);
}

#[tokio::test]
async fn a_plan_beyond_the_share_needs_a_word() {
    let tables = NEWEST.replace("100%", "50%");
    let mut fixture = RetentionFixture::new(&tables).await;
    fixture.push_images("cache/app", 3).await;
    fixture.grow_old().await;
    let out = fixture.done(&["plan", "ci.test"]).await;
    assert!(out.ends_with(" --beyond-limits\n"), "{out}");
    let (id, _) = fixture.plan().await;
    let (code, _, error) = fixture.command(&["apply", &id]).await;
    assert_eq!(code, Some(1));
    assert!(
        error.contains("2 of 3 tags would go, and max_share allows 50 %"),
        "{error}"
    );
    let path = fixture.state(&format!("plans/{id}.jsonl"));
    let path = path.to_str().unwrap();
    fixture.done(&["apply", path, "--beyond-limits"]).await;
    assert_eq!(fixture.tags("cache/app").await, ["v3"]);
}

#[tokio::test]
async fn a_plan_for_people_names_the_rule_and_the_next_command() {
    let mut fixture = RetentionFixture::new(NEWEST).await;
    fixture.push_images("cache/app", 2).await;
    fixture.grow_old().await;
    let out = fixture.done(&["plan", "ci.test", "--all"]).await;
    let id = out.trim_end().rsplit(' ').next().unwrap().to_owned();
    let lines = out.replace(&id, "ID");
    let lines = lines
        .lines()
        .map(|line| match line.split_once("  (pushed ") {
            Some((line, _)) => line,
            None => line.split(" since ").next().unwrap(),
        });
    let text: Vec<_> = lines.collect();
    insta::assert_snapshot!(text.join("\n"), @"
    goes   cache/app:v1  conf.d/ci.test.toml:12  nothing in its rule keeps it
    stays  cache/app:v2  conf.d/ci.test.toml:12  the newest of its group
    1 of 2 tags in 1 repository would go, with 1 manifest: 2.3 KiB come free
      stays  newest: 1
    pulls have been recorded
    plan ID; within 7 days:
      moorgate retention apply ID
    ");
}

#[tokio::test]
async fn wrong_usages_say_what_is_right() {
    let fixture = RetentionFixture::new(NEWEST).await;
    let case = async |arguments: &[&str]| {
        let (code, _, error) = fixture.command(arguments).await;
        format!("{} {error}", code.unwrap())
    };
    let mut cases = Vec::new();
    for arguments in [
        &["plan", "cache.test"][..],
        &["apply", "no-plan"],
        &["undo", "20260131t040500z-0a1b2c3d"],
        &["apply", "/etc/hostname"],
        &["explain", "ci.test", "cache/app"],
        &["explain", "ci.test", "cache/app:v1"],
    ] {
        cases.push(case(arguments).await);
    }
    insta::assert_snapshot!(cases.concat(), @"
    2 moorgate: there is no domain cache.test; there are: ci.test
    2 moorgate: no-plan: no plan has this name; they are named as 20260131t040500z-0a1b2c3d
    1 moorgate: there is no plan 20260131t040500z-0a1b2c3d of a domain with retention: plans are below DIR/state/retention for 30 days; `moorgate retention plan DOMAIN` makes one
    1 moorgate: /etc/hostname is not among the plans below DIR/state/retention: only those that moorgate stored there are applied and undone
    2 moorgate: cache/app is no image of a repository: write it as base/app:v1, without the domain
    1 moorgate: there is no tag cache/app:v1 at DIR/state/store/ci
    ");
    fixture.store.gateway.stop().await;
    let stopped = case(&["plan", "ci.test"]).await;
    assert!(
        stopped.starts_with("1 moorgate: no moorgate runs here"),
        "{stopped}"
    );
}

#[tokio::test]
async fn two_cleaners_at_once_lose_nothing() {
    let mut fixture = RetentionFixture::new(NEWEST).await;
    fixture.push_images("cache/app", 6).await;
    fixture.grow_old().await;
    let (one, _) = fixture.plan().await;
    let (other, _) = fixture.plan().await;
    let apply = async |id: &str| fixture.command(&["apply", id]).await;
    let results = tokio::join!(apply(&one), apply(&other), apply(&one));
    let mut done = 0;
    for (code, _, error) in [results.0, results.1, results.2] {
        match code {
            Some(0) => done += 1,
            _ => assert!(
                error.contains("another run of retention for ci.test is under way"),
                "{error}"
            ),
        }
    }
    assert!(done >= 1);
    assert_eq!(fixture.tags("cache/app").await, ["v6"]);
    for id in [&one, &other] {
        let (code, _, error) = fixture.command(&["undo", id]).await;
        // That of a run that did not begin.
        assert!(
            code == Some(0) || error.contains("nothing was saved"),
            "{error}"
        );
    }
    assert_eq!(fixture.tags("cache/app").await.len(), 6);
    fixture.store.disk().is_sound();
}
