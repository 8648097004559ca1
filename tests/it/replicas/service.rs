//! Which replica gets a request, when one is taken out of service, and how it comes back.

use std::time::Duration;

use super::fixture::{LIST, Mode, Replicas, UPLOADS};
use crate::harness::{Events, jump, promptly};

const MANIFEST: &str = "/v2/a/manifests/v1";
const TYPE: &str = "content-type: application/vnd.oci.image.manifest.v1+json";

/// Waits until the states are these.
async fn becomes(replicas: &Replicas, wanted: [&str; 3]) {
    promptly(async {
        while replicas.states().await != wanted {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn equal_replicas_take_turns() {
    let replicas = Replicas::new(3).await;
    assert_eq!(replicas.answers(9).await, [3, 3, 3]);
}

#[tokio::test]
async fn the_replica_with_the_fewest_requests_in_flight_is_next() {
    let replicas = Replicas::new(3).await;
    // Bodies, which are not given up for another replica.
    replicas.all[0].set(Mode::Silent);
    let push = async || {
        replicas
            .client()
            .send("PUT", MANIFEST, &[TYPE], b"{}")
            .await;
    };
    let held = async {
        tokio::join!(push(), push(), push());
    };
    tokio::select! {
        () = held => panic!("a replica has answered that does not"),
        () = async {
            while replicas.status().await[0]["requests_in_flight"] != 1 {
                tokio::task::yield_now().await;
            }
            let answers = replicas.answers(8).await;
            assert_eq!(answers[0], 0);
            assert!((3..=5).contains(&answers[1]), "{answers:?}");
        } => {}
    }
}

#[tokio::test]
async fn a_killed_replica_is_ejected_and_comes_back() {
    let events = Events::kept();
    let replicas = Replicas::new(3).await;
    replicas.all[1].kill().await;
    let answers = replicas.answers(12).await;
    assert_eq!((answers[1], answers.iter().sum()), (0, 12));
    becomes(&replicas, ["in-service", "ejected", "in-service"]).await;
    let status = &replicas.status().await[1];
    assert_eq!(
        (&status["ejections"], &status["ejected"]["reason"]),
        (&1.into(), &"refused".into())
    );
    assert!(status["ejected"]["since"].is_string() && status["ejected"]["error"].is_string());
    // It is not asked before its time, nor does it come back while it does not answer.
    jump(Duration::from_secs(6)).await;
    replicas.answers(3).await;
    jump(Duration::from_secs(1)).await;
    becomes(&replicas, ["in-service", "ejected", "in-service"]).await;
    replicas.all[1].restart().await;
    jump(Duration::from_secs(11)).await;
    replicas.answers(1).await;
    becomes(&replicas, ["in-service"; 3]).await;
    assert_eq!(replicas.all[1].seen(), ["GET /v2/"], "one request decides");
    let answers = replicas.answers(9).await;
    assert_eq!(answers, [3, 3, 3]);
    let url = replicas.all[1].url();
    let lines = events.with("replica").join("\n").replace(&url, "URL");
    insta::assert_snapshot!(lines, @r#"
    WARN moorgate::upstream::replica_group: replica ejected domain="ci.test" upstream="URL" reason="refused" error="the upstream cannot be reached: the connection was refused: start the server there, or correct host and port in its `url`"
    INFO moorgate::upstream::replica_check: replica is back in service domain="ci.test" upstream="URL" ejected_s=0
    "#);
}

#[tokio::test]
async fn five_503_eject_and_requests_without_a_body_see_none_of_them() {
    let replicas = Replicas::new(3).await;
    replicas.all[2].set(Mode::Unavailable);
    replicas.answers(15).await;
    assert_eq!(
        replicas.states().await,
        ["in-service", "in-service", "ejected"]
    );
    assert_eq!(replicas.all[2].seen().len(), 5);
    assert_eq!(replicas.status().await[2]["ejected"]["reason"], "status");
}

#[tokio::test]
async fn a_body_is_sent_once_and_only_what_was_not_sent_goes_to_another() {
    let replicas = Replicas::new(2).await;
    let client = replicas.client();
    replicas.all[0].set(Mode::Closing);
    let mut statuses = Vec::new();
    for _ in 0..2 {
        statuses.push(client.send("PUT", MANIFEST, &[TYPE], b"{}").await.status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 502]);
    assert_eq!([0, 1].map(|index| replicas.all[index].seen().len()), [1, 1]);
    let delete =
        "/v2/a/blobs/sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let mut statuses = Vec::new();
    for _ in 0..2 {
        statuses.push(client.send("DELETE", delete, &[], b"").await.status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [202, 502], "it may have been deleted");
    for replica in &replicas.all {
        replica.seen();
    }
    // Nothing was sent where nobody listens.
    replicas.all[0].kill().await;
    for _ in 0..4 {
        client
            .send("PUT", MANIFEST, &[TYPE], b"{}")
            .await
            .expect(201);
        client.send("DELETE", delete, &[], b"").await.expect(202);
        client.send("POST", UPLOADS, &[], b"").await.expect(202);
    }
}

#[tokio::test]
async fn a_request_that_a_stopped_replica_holds_goes_to_another() {
    let replicas = Replicas::new(3).await;
    replicas.all[0].set(Mode::Silent);
    let ask = async || replicas.client().get(LIST).await.status;
    // All of them, well before `upstream_head`: 2 min.
    let limit = Duration::from_secs(60);
    let asked = async { tokio::join!(ask(), ask(), ask()) };
    let statuses = tokio::time::timeout(limit, asked).await;
    assert_eq!(statuses.unwrap(), (200, 200, 200));
    assert_eq!(
        replicas.states().await,
        ["ejected", "in-service", "in-service"]
    );
    assert_eq!(replicas.status().await[0]["ejected"]["reason"], "timeout");
}

#[tokio::test]
async fn a_check_finds_a_replica_that_does_not_answer_without_a_request() {
    let keys = "[upstream.check]\ninterval = \"1s\"\npath = \"/v2/_catalog\"";
    let replicas = Replicas::with(3, keys, "").await;
    replicas.all[1].set(Mode::Unavailable);
    becomes(&replicas, ["in-service", "ejected", "in-service"]).await;
    let seen = replicas.all[1].seen();
    assert!(
        seen.iter().all(|request| request == "GET /v2/_catalog"),
        "{seen:?}"
    );
    replicas.all[1].set(Mode::Good);
    becomes(&replicas, ["in-service"; 3]).await;
}

#[tokio::test]
async fn at_most_half_are_ejected_and_a_recovered_one_is_found_at_once() {
    let replicas = Replicas::new(2).await;
    let client = replicas.client();
    for replica in &replicas.all {
        replica.kill().await;
    }
    for _ in 0..10 {
        let answer = client.get(LIST).await;
        assert_eq!(answer.status, 503);
        assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
    }
    let states = replicas.states().await;
    let ejected = states.iter().position(|state| state == "ejected").unwrap();
    assert_eq!(states[1 - ejected], "in-service");
    replicas.all[ejected].restart().await;
    promptly(async {
        while client.get(LIST).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}
