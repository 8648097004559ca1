//! A first order waits for a confirmation while another server has a certificate for the domain.

use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use super::{AcmeCa, issued, renew, until};
use crate::harness::dns::Dns;
use crate::harness::{Domain, Setup, tls_server};

const NAME: &str = "ci.example.com";

/// A server with a certificate for the name that is older than the state directory. Returns its port,
/// its root in PEM, and a handle to stop it.
async fn another_server() -> (u16, String, AbortHandle) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "another root");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([NAME.to_owned()]).unwrap();
    params.not_before = (SystemTime::now() - Duration::from_secs(86_400)).into();
    params.not_after = (SystemTime::now() + Duration::from_secs(60 * 86_400)).into();
    let tls = tls_server(&params.signed_by(&key, &issuer).unwrap(), &key);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let tls = tls.clone();
            tokio::spawn(async move { tls.accept(tcp).await.map(drop) });
        }
    });
    (port, root, server.abort_handle())
}

#[tokio::test]
async fn a_domain_that_is_served_elsewhere_is_ordered_after_confirmation() {
    let (ca, dns) = (AcmeCa::new().await, Dns::new().await);
    let (port, root, server) = another_server().await;
    dns.leads(NAME, Ipv4Addr::LOCALHOST);
    let beside = tempfile::tempdir().unwrap();
    let table = ca.toml(beside.path(), "ca");
    let roots = beside.path().join("ca.pem");
    let both = format!("{}{root}", std::fs::read_to_string(&roots).unwrap());
    std::fs::write(roots, both).unwrap();
    let main = format!(
        "[acme]\nchallenges = [\"http-01\"]\nresolvers = [\"{}\"]\n{table}public = true\nhttp_port = 1\ntls_port = {port}\n",
        dns.address()
    );
    let domain = Domain::new(NAME, "http://127.0.0.1:9").tls("acme = true");
    let gateway = Setup::new().main(&main).domain(domain).start().await;
    let held = until(&gateway, "held", |shown| {
        shown["acme"]["state"]
            .as_str()
            .is_some_and(|state| state.starts_with("waiting for the administrator: "))
    })
    .await;
    let state = held["acme"]["state"].as_str().unwrap();
    let begins = "waiting for the administrator: no certificate is ordered yet: ci.example.com is being served with one by CN=another root of 20";
    assert!(state.starts_with(begins), "{state}");
    assert!(
        state.ends_with("run `moorgate certs renew ci.example.com`"),
        "{state}"
    );
    assert_eq!(held["acme"]["attempts"]["postponed"], 1);
    assert!(
        ca.asked("account").is_empty() && ca.asked("order").is_empty(),
        "the CA is left alone"
    );
    // The other server stops, and the domain is checked again.
    server.abort();
    let path = gateway.path("conf.d/ci.example.com.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(
        path,
        text.replace("acme = true", "acme = true\nfallback = \"internal\""),
    )
    .unwrap();
    gateway.app.reload().await.unwrap();
    let still = until(&gateway, "looked at again", |shown| {
        shown["acme"]["attempts"]["postponed"] == 2
    })
    .await;
    assert_eq!(still["acme"]["state"], held["acme"]["state"]);
    assert!(
        ca.asked("account").is_empty() && ca.asked("order").is_empty(),
        "the CA is left alone"
    );
    renew(&gateway, NAME).await;
    issued(&gateway).await;
}
