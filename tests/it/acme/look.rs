//! What is found out before an order is placed, and how long it is postponed for that.

use std::net::Ipv4Addr;

use serde_json::Value;
use tokio::net::TcpListener;

use super::{AcmeCa, failed, issued, renew, until};
use crate::harness::dns::Dns;
use crate::harness::{Domain, Gateway, RawPeer, Setup};

const NAME: &str = "ci.example.com";
/// Where the plain listener of a gateway is.
const HERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A gateway that serves nothing yet, so that its ports are known before a CA asks there.
struct Outside {
    gateway: Gateway,
    ca: AcmeCa,
    dns: Dns,
}

impl Outside {
    async fn new() -> Self {
        let domain = Domain::new(NAME, "http://127.0.0.1:9");
        let gateway = Setup::new().domain(domain).start().await;
        Self {
            gateway,
            ca: AcmeCa::new().await,
            dns: Dns::new().await,
        }
    }

    /// Begins to serve the domain with a certificate of the CA, which looks at this port for
    /// http-01.
    async fn serve(&self, kinds: &str, http_port: u16, more: &str) {
        let path = self.gateway.directory.path();
        let ca = self.ca.toml(path, "ca");
        let tls_port = self.gateway.https().port();
        let main = format!(
            "[acme]\nchallenges = {kinds}\nresolvers = [\"{}\"]\n{ca}public = true\nhttp_port = {http_port}\ntls_port = {tls_port}\n",
            self.dns.address()
        );
        let domain = Domain::new(NAME, "http://127.0.0.1:9")
            .tls("acme = true")
            .top(more);
        Setup::new().main(&main).domain(domain).write(path);
        self.gateway.app.reload().await.unwrap();
    }

    /// The same where all leads here.
    async fn serve_here(&self) {
        self.serve("[\"http-01\"]", self.gateway.http().port(), "")
            .await;
    }

    fn orders(&self) -> usize {
        self.ca.asked("order").len()
    }

    async fn postponed(&self) -> Value {
        let postponed = |shown: &Value| shown["acme"]["attempts"]["postponed"] == 1;
        until(&self.gateway, "postponed", postponed).await
    }

    /// Waits until the order is postponed, and returns the only finding.
    async fn finding(&self) -> String {
        let shown = self.postponed().await;
        assert_eq!(self.orders(), 0);
        let findings = shown["acme"]["findings"].as_array().unwrap();
        assert_eq!(findings.len(), 1, "{shown:#}");
        let finding = findings[0].as_str().unwrap().to_owned();
        assert_eq!(
            shown["acme"]["state"],
            format!("waiting: no order is placed yet: {finding}")
        );
        assert!(
            shown["acme"]["next_attempt"].is_string(),
            "it is looked at again: {shown:#}"
        );
        assert!(
            shown["acme"]["error"].is_null(),
            "nothing has failed: {shown:#}"
        );
        finding
    }
}

#[tokio::test]
async fn a_name_that_leads_here_is_ordered() {
    for kind in ["http-01", "tls-alpn-01"] {
        let outside = Outside::new().await;
        let address = if kind == "http-01" {
            HERE
        } else {
            Ipv4Addr::LOCALHOST
        };
        outside.dns.leads(NAME, address);
        let kinds = format!("[\"{kind}\"]");
        outside
            .serve(&kinds, outside.gateway.http().port(), "")
            .await;
        outside.ca.offers(&["http-01", "tls-alpn-01"]);
        issued(&outside.gateway).await;
    }
}

#[tokio::test]
async fn a_name_that_dns_does_not_know_costs_no_order_until_it_does() {
    let outside = Outside::new().await;
    outside.serve_here().await;
    let finding = outside.finding().await;
    assert_eq!(
        finding,
        "ci.example.com does not resolve: DNS knows no address for it"
    );
    outside.dns.leads(NAME, HERE);
    outside.dns.leads("alias.example.com", HERE);
    outside
        .serve(
            "[\"http-01\"]",
            outside.gateway.http().port(),
            "aliases = [\"alias.example.com\"]",
        )
        .await;
    issued(&outside.gateway).await;
}

#[tokio::test]
async fn caa_records_that_forbid_the_ca_cost_no_order() {
    let outside = Outside::new().await;
    outside.ca.identities(&["ca.test", "other-name-of-ca.test"]);
    outside.dns.leads(NAME, HERE);
    outside.dns.allows("example.com", "another.test");
    outside.serve_here().await;
    assert_eq!(
        outside.finding().await,
        "the CAA records of example.com allow only another.test, not ca.test or other-name-of-ca.test"
    );
}

#[tokio::test]
async fn caa_records_are_looked_at_for_dns_challenges_too() {
    let outside = Outside::new().await;
    outside.ca.identities(&["ca.test"]);
    outside.dns.allows(NAME, "another.test");
    // It leads nowhere, which is nobody's business then.
    outside.serve("[\"dns-persist-01\"]", 1, "").await;
    let shown = outside.postponed().await;
    let findings = shown["acme"]["findings"].as_array().unwrap();
    assert_eq!(
        findings[0],
        "the CAA records of ci.example.com allow only another.test, not ca.test"
    );
    let missing =
        "set the TXT record _validation-persist.ci.example.com to \"ca.test; accounturi=https://";
    assert!(
        findings[1].as_str().unwrap().starts_with(missing),
        "{shown:#}"
    );
    assert_eq!((findings.len(), outside.orders()), (2, 0));
}

#[tokio::test]
async fn a_name_that_leads_to_somebody_else_costs_no_order() {
    let outside = Outside::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let other = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let mut peer = RawPeer::new(tcp);
            peer.head().await;
            peer.send(
                "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\nConnection: close\r\n\r\nnone",
            )
            .await;
        }
    });
    outside.dns.leads(NAME, Ipv4Addr::LOCALHOST);
    outside.serve("[\"http-01\"]", other.port(), "").await;
    let words =
        format!("ci.example.com does not lead here: another server answers at {other} (http-01)");
    assert_eq!(outside.finding().await, words);
}

#[tokio::test]
async fn what_cannot_be_seen_is_only_a_doubt() {
    let outside = Outside::new().await;
    outside.dns.break_down();
    outside.serve_here().await;
    let finding = outside.finding().await;
    assert_eq!(
        finding,
        "ci.example.com cannot be looked up: the DNS server answers with code 2"
    );
    let shown = outside.postponed().await;
    let wait =
        super::moment(&shown["acme"]["next_attempt"]).duration_since(std::time::SystemTime::now());
    assert!(wait.unwrap().as_secs() <= 60, "{shown:#}");

    let closed = Outside::new().await;
    closed.dns.leads(NAME, HERE);
    closed.serve("[\"http-01\"]", 1, "").await;
    let finding = closed.finding().await;
    let begins =
        "it cannot be seen whether ci.example.com leads here: no answer from 127.0.0.2:1: ";
    assert!(finding.starts_with(begins), "{finding}");
}

#[tokio::test]
async fn whoever_asks_for_an_order_gets_it_in_spite_of_findings() {
    let outside = Outside::new().await;
    outside.serve_here().await;
    outside.finding().await;
    renew(&outside.gateway, NAME).await;
    issued(&outside.gateway).await;
}

#[tokio::test]
async fn a_way_that_does_not_lead_here_is_not_the_first_to_be_tried() {
    let outside = Outside::new().await;
    // The plain listener is there, and nobody at the port of handshakes.
    outside.dns.leads(NAME, HERE);
    outside.ca.offers(&["tls-alpn-01", "http-01"]);
    outside
        .ca
        .once("challenge", super::Scripted::Refuse("connection", 400, &[]));
    outside
        .serve(
            "[\"tls-alpn-01\", \"http-01\"]",
            outside.gateway.http().port(),
            "",
        )
        .await;
    failed(&outside.gateway).await;
    let record = std::fs::read_to_string(
        outside
            .gateway
            .path("state/acme/domains/ci.example.com.json"),
    );
    assert!(
        record
            .unwrap()
            .contains("\"failed_challenges\": [\n    \"http-01\"\n  ]")
    );
}
