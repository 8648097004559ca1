//! The checks before an order, and how long their findings postpone it.

use std::net::Ipv4Addr;

use serde_json::Value;
use tokio::net::TcpListener;

use super::{AcmeCa, failed, issued, renew, until};
use crate::harness::dns::Dns;
use crate::harness::{Domain, Gateway, RawPeer, Setup};

const NAME: &str = "ci.example.com";
/// The address of the plain listener of a gateway.
const GATEWAY_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A CA, a DNS server, and a gateway without certificates, so that its ports are known to the CA.
struct PreflightFixture {
    gateway: Gateway,
    ca: AcmeCa,
    dns: Dns,
}

impl PreflightFixture {
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

    /// Serves the domain with ports at which the gateway answers.
    async fn serve_reachable(&self) {
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
async fn a_name_that_resolves_to_the_gateway_is_ordered() {
    for kind in ["http-01", "tls-alpn-01"] {
        let fixture = PreflightFixture::new().await;
        let address = if kind == "http-01" {
            GATEWAY_ADDRESS
        } else {
            Ipv4Addr::LOCALHOST
        };
        fixture.dns.leads(NAME, address);
        let kinds = format!("[\"{kind}\"]");
        fixture
            .serve(&kinds, fixture.gateway.http().port(), "")
            .await;
        fixture.ca.offers(&["http-01", "tls-alpn-01"]);
        issued(&fixture.gateway).await;
    }
}

#[tokio::test]
async fn a_name_that_does_not_resolve_costs_no_order_until_it_does() {
    let fixture = PreflightFixture::new().await;
    fixture.serve_reachable().await;
    let finding = fixture.finding().await;
    assert_eq!(
        finding,
        "ci.example.com does not resolve: DNS knows no address for it"
    );
    fixture.dns.leads(NAME, GATEWAY_ADDRESS);
    fixture.dns.leads("alias.example.com", GATEWAY_ADDRESS);
    fixture
        .serve(
            "[\"http-01\"]",
            fixture.gateway.http().port(),
            "aliases = [\"alias.example.com\"]",
        )
        .await;
    issued(&fixture.gateway).await;
}

#[tokio::test]
async fn caa_records_that_forbid_the_ca_cost_no_order() {
    let fixture = PreflightFixture::new().await;
    fixture.ca.identities(&["ca.test", "other-name-of-ca.test"]);
    fixture.dns.leads(NAME, GATEWAY_ADDRESS);
    fixture.dns.allows("example.com", "another.test");
    fixture.serve_reachable().await;
    assert_eq!(
        fixture.finding().await,
        "the CAA records of example.com allow only another.test, not ca.test or other-name-of-ca.test"
    );
}

#[tokio::test]
async fn caa_records_are_checked_for_dns_challenges_too() {
    let fixture = PreflightFixture::new().await;
    fixture.ca.identities(&["ca.test"]);
    fixture.dns.allows(NAME, "another.test");
    // It leads nowhere, which is nobody's business then.
    fixture.serve("[\"dns-persist-01\"]", 1, "").await;
    let shown = fixture.postponed().await;
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
    assert_eq!((findings.len(), fixture.orders()), (2, 0));
}

#[tokio::test]
async fn a_name_that_resolves_to_another_server_costs_no_order() {
    let fixture = PreflightFixture::new().await;
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
    fixture.dns.leads(NAME, Ipv4Addr::LOCALHOST);
    fixture.serve("[\"http-01\"]", other.port(), "").await;
    let words = format!(
        "ci.example.com does not point to this server: another server answers at {other} (http-01)"
    );
    assert_eq!(fixture.finding().await, words);
}

#[tokio::test]
async fn a_check_that_cannot_be_made_postpones_for_minutes_only() {
    let fixture = PreflightFixture::new().await;
    fixture.dns.break_down();
    fixture.serve_reachable().await;
    let finding = fixture.finding().await;
    assert_eq!(
        finding,
        "ci.example.com cannot be looked up: the DNS server answers SERVFAIL: the name servers of the domain do not answer it, or DNSSEC fails"
    );
    let shown = fixture.postponed().await;
    let wait = super::timestamp(&shown["acme"]["next_attempt"])
        .duration_since(std::time::SystemTime::now());
    assert!(wait.unwrap().as_secs() <= 60, "{shown:#}");

    let closed = PreflightFixture::new().await;
    closed.dns.leads(NAME, GATEWAY_ADDRESS);
    closed.serve("[\"http-01\"]", 1, "").await;
    let finding = closed.finding().await;
    let begins =
        "cannot check whether ci.example.com points to this server: no answer from 127.0.0.2:1: ";
    assert!(finding.starts_with(begins), "{finding}");
}

#[tokio::test]
async fn a_requested_order_is_placed_in_spite_of_findings() {
    let fixture = PreflightFixture::new().await;
    fixture.serve_reachable().await;
    fixture.finding().await;
    renew(&fixture.gateway, NAME).await;
    issued(&fixture.gateway).await;
}

#[tokio::test]
async fn a_challenge_that_would_fail_is_not_tried_first() {
    let fixture = PreflightFixture::new().await;
    // The plain listener is there, and nobody at the port of handshakes.
    fixture.dns.leads(NAME, GATEWAY_ADDRESS);
    fixture.ca.offers(&["tls-alpn-01", "http-01"]);
    fixture
        .ca
        .once("challenge", super::Scripted::Refuse("connection", 400, &[]));
    fixture
        .serve(
            "[\"tls-alpn-01\", \"http-01\"]",
            fixture.gateway.http().port(),
            "",
        )
        .await;
    failed(&fixture.gateway).await;
    let record = std::fs::read_to_string(
        fixture
            .gateway
            .path("state/acme/domains/ci.example.com.json"),
    );
    assert!(
        record
            .unwrap()
            .contains("\"failed_challenges\": [\n    \"http-01\"\n  ]")
    );
}
