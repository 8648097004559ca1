//! Listeners at a reload: one that cannot be bound is reported and tried again.

use std::net::TcpListener;
use std::time::Duration;

use moorgate::internal::app::StartError;
use serde_json::Value;

use super::{LOGGED_IN, status_of, until};
use crate::harness::{Domain, Gateway, Setup};

fn unbound(status: &Value) -> Vec<&Value> {
    let listeners = status["listeners"].as_array().unwrap();
    listeners
        .iter()
        .filter(|listener| listener["bound"].is_null())
        .collect()
}

#[tokio::test]
async fn a_listener_that_cannot_be_had_is_reported_and_tried_again() {
    let gateway = Gateway::before("http://127.0.0.1:1").await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let main = std::fs::read_to_string(gateway.path("moorgate.toml")).unwrap();
    let more = format!("\"127.0.0.1:0\", \"{address}\"");
    std::fs::write(
        gateway.path("moorgate.toml"),
        main.replace("\"127.0.0.1:0\"", &more),
    )
    .unwrap();
    // The rest of the new configuration is in force.
    Setup::new()
        .domain(Domain::new("cache.test", "http://127.0.0.1:1"))
        .write_domains(gateway.directory.path());
    let Err(StartError::System(problems)) = gateway.app.reload().await else {
        panic!("the address is in use");
    };
    assert!(problems.to_string().contains(&address.to_string()));
    assert!(gateway.tls("cache.test", &["http/1.1"]).await.is_ok());
    assert_eq!(status_of(&gateway, "alice", "secret").await, LOGGED_IN);
    let status = gateway.status().await;
    let [listener] = unbound(&status)[..] else {
        panic!("{status}");
    };
    assert_eq!(listener["configured"], address.to_string());
    let problem = listener["problem"].as_str().unwrap();
    assert!(problem.contains("already in use"), "{problem}");
    drop(taken);
    until(async || unbound(&gateway.status().await).is_empty()).await;
    assert!(tokio::net::TcpStream::connect(address).await.is_ok());
    assert!(gateway.app.reload().await.is_ok());
}

#[tokio::test]
async fn a_configuration_without_an_https_listener_is_not_used() {
    let gateway = Gateway::before("http://127.0.0.1:1").await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let main = std::fs::read_to_string(gateway.path("moorgate.toml")).unwrap();
    std::fs::write(
        gateway.path("moorgate.toml"),
        main.replace("127.0.0.1:0", &address),
    )
    .unwrap();
    assert!(matches!(
        gateway.app.reload().await,
        Err(StartError::System(_))
    ));
    assert_eq!(gateway.app.listeners().len(), 3);
    assert_eq!(status_of(&gateway, "alice", "secret").await, LOGGED_IN);
    let status = gateway.status().await;
    let refused = status["configuration"]["refused"].as_str().unwrap();
    assert!(refused.contains(&address), "{refused}");
}

#[tokio::test]
async fn an_address_may_pass_to_a_listener_that_excludes_the_old_one() {
    let gateway = Gateway::before("http://127.0.0.1:1").await;
    // Ports of the system's choice exclude nothing: take one over by name.
    let unused = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let main = std::fs::read_to_string(gateway.path("moorgate.toml")).unwrap();
    let listening = |address: &str| main.replace("127.0.0.1:0", address);
    let everywhere = format!("0.0.0.0:{}", unused.port());
    for address in [unused.to_string(), everywhere, unused.to_string()] {
        std::fs::write(gateway.path("moorgate.toml"), listening(&address)).unwrap();
        gateway.app.reload().await.unwrap();
        let connected = tokio::net::TcpStream::connect(unused);
        let connected = tokio::time::timeout(Duration::from_secs(60), connected).await;
        assert!(connected.unwrap().is_ok(), "{address}");
    }
}
