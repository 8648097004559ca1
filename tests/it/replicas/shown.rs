//! What the administrator sees of replicas: in the metrics, and by `moorgate check --live`.

use tokio::net::TcpStream;

use super::fixture::{Mode, Replicas};
use crate::harness::{RawPeer, cli};

/// The series of replicas, with the index of each in place of its address.
async fn series(replicas: &Replicas) -> Vec<String> {
    let admin = replicas.gateway.admin();
    let mut client = RawPeer::new(TcpStream::connect(admin).await.unwrap());
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {admin}\r\n\r\n");
    client.send(request).await;
    let text = String::from_utf8(client.answer().await.1).unwrap();
    let lines = text
        .lines()
        .filter(|line| line.starts_with("moorgate_upstream_replica_"));
    let named = |line: &str| {
        let all = replicas.all.iter().enumerate();
        all.fold(line.to_owned(), |line, (index, replica)| {
            line.replace(&replica.url(), &index.to_string())
        })
    };
    lines.map(named).collect()
}

#[tokio::test]
async fn the_metrics_have_each_replica() {
    let replicas = Replicas::new(3).await;
    replicas.all[1].set(Mode::Unavailable);
    replicas.answers(15).await;
    insta::assert_snapshot!(series(&replicas).await.join("\n"), @r#"
    moorgate_upstream_replica_in_service{domain="ci.test",upstream="0"} 1
    moorgate_upstream_replica_in_service{domain="ci.test",upstream="1"} 0
    moorgate_upstream_replica_in_service{domain="ci.test",upstream="2"} 1
    moorgate_upstream_replica_requests_in_flight{domain="ci.test",upstream="0"} 0
    moorgate_upstream_replica_requests_in_flight{domain="ci.test",upstream="1"} 0
    moorgate_upstream_replica_requests_in_flight{domain="ci.test",upstream="2"} 0
    moorgate_upstream_replica_ejections_total{domain="ci.test",upstream="0"} 0
    moorgate_upstream_replica_ejections_total{domain="ci.test",upstream="1"} 1
    moorgate_upstream_replica_ejections_total{domain="ci.test",upstream="2"} 0
    "#);
}

#[tokio::test]
async fn check_live_asks_each_replica() {
    let replicas = Replicas::new(3).await;
    let check = async || {
        let directory = replicas.gateway.directory.path();
        cli(directory, &["check", "--live"]).await.2
    };
    let said = check().await;
    for replica in &replicas.all {
        assert!(!said.contains(&replica.url()), "{said}");
        assert!(replica.seen().contains(&"GET /v2/".to_owned()));
    }
    replicas.all[1].set(Mode::Unavailable);
    replicas.all[2].kill().await;
    let said = check().await;
    let cause = |index: usize, cause: &str| format!("{}: {cause}", replicas.all[index].url());
    assert!(!said.contains(&cause(0, "")), "{said}");
    assert!(said.contains(&cause(1, "it answers 503")), "{said}");
    assert!(
        said.contains(&cause(
            2,
            "the upstream cannot be reached: the connection was refused"
        )),
        "{said}"
    );
}
