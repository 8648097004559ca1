//! Upload sessions stay with the replica at which they were begun.

use super::fixture::{Replicas, UPLOADS, domain};
use crate::harness::Setup;
use crate::harness::registry_client::ClientAnswer;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// The one replica that has seen requests, and what it has seen.
fn only(replicas: &Replicas) -> (usize, Vec<String>) {
    let seen = replicas.all.iter().map(|replica| replica.seen());
    let mut seen = seen.enumerate().filter(|(_, seen)| !seen.is_empty());
    let found = seen.next().unwrap();
    assert!(seen.next().is_none(), "more than one replica");
    found
}

fn assert_unknown(answer: &ClientAnswer) {
    assert_eq!(answer.status, 404, "{answer:?}");
    let body = String::from_utf8_lossy(&answer.body);
    assert!(body.contains("BLOB_UPLOAD_UNKNOWN"), "{body}");
}

#[tokio::test]
async fn an_upload_stays_with_its_replica() {
    let replicas = Replicas::new(3).await;
    let client = replicas.client();
    let mut used = [false; 3];
    for _ in 0..9 {
        let begun = client.send("POST", UPLOADS, &[], b"").await;
        begun.expect(202);
        let (index, _) = only(&replicas);
        used[index] = true;
        let location = begun.location();
        for secret in ["127.94", &replicas.all[index].address.port().to_string()] {
            assert!(!location.contains(secret), "{location} tells {secret}");
        }
        let sent = client.send("PATCH", &location, &[], b"hello").await;
        sent.expect(202);
        let seen = only(&replicas);
        assert_eq!(
            seen,
            (index, vec![format!("PATCH {UPLOADS}s-{index}?_state=x")])
        );
        client.get(&sent.location()).await.expect(200);
        assert_eq!(only(&replicas).0, index);
        let target = format!("{}&digest={DIGEST}", sent.location());
        client.send("PUT", &target, &[], b"").await.expect(201);
        assert_eq!(only(&replicas).0, index);
    }
    assert_eq!(used, [true; 3]);
}

#[tokio::test]
async fn nobody_can_send_an_upload_to_another_replica() {
    let replicas = Replicas::new(2).await;
    let client = replicas.client();
    let locations = [
        client.send("POST", UPLOADS, &[], b"").await.location(),
        client.send("POST", UPLOADS, &[], b"").await.location(),
    ];
    // `~-REPLICA.SESSION~TAG`
    let replica = |location: &str| {
        let id = location.split("~-").nth(1).unwrap();
        id.split('.').next().unwrap().to_owned()
    };
    let [first, second] = locations.each_ref().map(|location| replica(location));
    assert_ne!(first, second);
    for replica in &replicas.all {
        replica.seen();
    }
    let forged = locations[0].replace(&first, &second);
    assert_unknown(&client.send("PATCH", &forged, &[], b"x").await);
    for replica in &replicas.all {
        assert_eq!(replica.seen(), [""; 0]);
    }
}

#[tokio::test]
async fn an_upload_survives_another_order_and_ends_with_its_replica() {
    let mut replicas = Replicas::new(3).await;
    let client = replicas.client();
    let begun = client.send("POST", UPLOADS, &[], b"").await;
    let (index, _) = only(&replicas);
    let turned = domain(replicas.all.iter().rev(), "", "");
    Setup::new()
        .domain(turned)
        .write(replicas.gateway.directory.path());
    replicas.gateway.app.reload().await.unwrap();
    let sent = client.send("PATCH", &begun.location(), &[], b"x").await;
    sent.expect(202);
    assert_eq!(only(&replicas).0, index);
    // Alone, it is still the same.
    let alone = domain(replicas.all[index..=index].iter(), "", "");
    Setup::new()
        .domain(alone)
        .write(replicas.gateway.directory.path());
    replicas.gateway.app.reload().await.unwrap();
    client
        .send("PATCH", &sent.location(), &[], b"x")
        .await
        .expect(202);
    assert_eq!(only(&replicas).0, index);
    replicas.all.remove(index);
    let others = domain(replicas.all.iter(), "", "");
    Setup::new()
        .domain(others)
        .write(replicas.gateway.directory.path());
    replicas.gateway.app.reload().await.unwrap();
    assert_unknown(&client.send("PATCH", &sent.location(), &[], b"x").await);
    assert!(replicas.all.iter().all(|replica| replica.seen().is_empty()));
}

#[tokio::test]
async fn an_upload_survives_a_restart() {
    let Replicas { gateway, all } = Replicas::new(3).await;
    let first = Replicas { gateway, all };
    let begun = first.client().send("POST", UPLOADS, &[], b"").await;
    let (index, _) = only(&first);
    assert!(first.gateway.stop().await);
    let Replicas { gateway, all } = first;
    let setup = Setup::new().domain(domain(all.iter(), "", ""));
    let gateway = setup.try_start_in(gateway.directory).await.unwrap();
    let again = Replicas { gateway, all };
    let sent = again
        .client()
        .send("PATCH", &begun.location(), &[], b"x")
        .await;
    sent.expect(202);
    assert_eq!(only(&again).0, index);
}

#[tokio::test]
async fn an_upload_at_a_replica_out_of_service_is_refused_clearly() {
    let replicas = Replicas::new(3).await;
    let client = replicas.client();
    let begun = client.send("POST", UPLOADS, &[], b"").await;
    let (index, _) = only(&replicas);
    replicas.all[index].kill().await;
    let sent = client.send("PATCH", &begun.location(), &[], b"x").await;
    assert_eq!(sent.status, 503, "not at another one: {sent:?}");
    replicas.answers(12).await;
    assert_eq!(replicas.states().await[index], "ejected");
    for replica in &replicas.all {
        replica.seen();
    }
    let sent = client.send("PATCH", &begun.location(), &[], b"x").await;
    assert_eq!(sent.status, 503, "{sent:?}");
    let retry = sent.headers["retry-after"].to_str().unwrap().parse::<u64>();
    assert!((1..=5).contains(&retry.unwrap()), "{sent:?}");
    let body = String::from_utf8_lossy(&sent.body);
    assert!(
        body.contains("UNAVAILABLE") && body.contains("begin the upload again"),
        "{body}"
    );
    assert!(replicas.all.iter().all(|replica| replica.seen().is_empty()));
}
