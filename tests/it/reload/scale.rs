//! A thousand domains: one broken file delays no other one, and a change costs little.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, KeyPair};
use serde_json::Value;

use crate::harness::{Domain, Gateway, Setup};

const DOMAINS: usize = 1000;

/// A domain file with rules, and an alias that says which version of the file it is.
fn domain_file(number: usize, version: usize) -> String {
    let mut text = format!(
        "domain = \"d{number}.test\"\naliases = [\"v{version}.d{number}.test\"]\n\
         [tls]\ncertificate = \"all.pem\"\nkey = \"all.key\"\n\
         [auth]\nhtpasswd = \"ci.test.htpasswd\"\n\
         [upstream]\nurl = \"http://127.0.0.1:{}\"\n",
        1 + number
    );
    for rule in 0..5 {
        write!(
            text,
            "[[access]]\nusers = [\"alice\"]\nrepositories = [\"team{rule}/**\"]\nactions = [\"all\"]\n"
        )
        .unwrap();
    }
    text
}

fn write(folder: &Path, number: usize, version: usize) {
    let file = folder.join(format!("d{number}.toml"));
    fs::write(file, domain_file(number, version)).unwrap();
}

/// The aliases of each domain in force.
async fn versions(gateway: &Gateway) -> (Vec<String>, Value) {
    let mut status = gateway.status().await;
    let domains = status["domains"].as_array().unwrap().iter();
    let aliases = domains.filter_map(|domain| domain["aliases"][0].as_str());
    let aliases = aliases.map(str::to_owned).collect();
    (aliases, status["configuration"].take())
}

async fn problems(gateway: &Gateway) -> Vec<Value> {
    let (_, configuration) = versions(gateway).await;
    let problems = configuration["problems"].as_array().unwrap().iter();
    problems
        .filter(|problem| problem["file"].is_string())
        .cloned()
        .collect()
}

/// Whether there is a certificate for a name, which nobody has to trust.
async fn is_served(gateway: &Gateway, name: &str) -> bool {
    let shaken = gateway.tls(name, &["http/1.1"]).await;
    shaken.is_err_and(|error| error.to_string().contains("certificate"))
}

/// Waits until something is so of a domain.
async fn eventually(number: usize, mut condition: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let done = tokio::time::timeout(Duration::from_secs(120), waiting).await;
    assert!(done.is_ok(), "d{number}.test");
}

async fn start() -> Gateway {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("conf.d");
    fs::create_dir(&folder).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["d1.test".to_owned()]).unwrap();
    let certificate = certificate.self_signed(&key).unwrap();
    fs::write(folder.join("all.key"), key.serialize_pem()).unwrap();
    fs::write(folder.join("all.pem"), certificate.pem()).unwrap();
    for number in 0..DOMAINS {
        write(&folder, number, 1);
    }
    let setup = Setup::new().domain(Domain::new("ci.test", "http://127.0.0.1:1"));
    setup.try_start_in(directory).await.unwrap()
}

#[tokio::test]
async fn one_broken_file_among_a_thousand_delays_no_other_one() {
    let gateway = start().await;
    let folder = gateway.path("conf.d");
    fs::write(folder.join("d0.toml"), "domain = 5").unwrap();
    for number in 1..DOMAINS {
        write(&folder, number, 2);
    }
    let written = Instant::now();
    // The whole status takes longer than the reload.
    for number in [1, 250, 500, 750, DOMAINS - 1] {
        eventually(number, async || {
            is_served(&gateway, &format!("v2.d{number}.test")).await
        })
        .await;
    }
    println!("in force {:?} after the last change", written.elapsed());
    eventually(0, async || !problems(&gateway).await.is_empty()).await;
    println!("the broken one reported after {:?}", written.elapsed());
    let (aliases, configuration) = versions(&gateway).await;
    let new = aliases.iter().filter(|alias| alias.starts_with("v2."));
    assert_eq!(new.count(), DOMAINS - 1);
    assert!(aliases.contains(&"v1.d0.test".to_owned()), "as it was");
    let problems = configuration["problems"].as_array().unwrap();
    let broken: Vec<_> = problems
        .iter()
        .filter(|problem| problem["file"].is_string())
        .collect();
    assert_eq!(broken.len(), 1, "{problems:?}");
    assert_eq!(broken[0]["domain"], "d0.test");
    let metrics = crate::metrics::scrape(&gateway).await;
    let series = format!(
        "moorgate_configuration_problem{{domain=\"d0.test\",file=\"{}\"}}",
        folder.join("d0.toml").display()
    );
    assert_eq!(metrics[&*series], 1.0);
}

#[tokio::test]
async fn a_change_of_one_among_a_thousand_costs_little() {
    let begun = Instant::now();
    let gateway = start().await;
    let started = begun.elapsed();
    let folder = gateway.path("conf.d");
    let mut fastest = Duration::MAX;
    // The fastest of several: other processes are busy too.
    for version in 2..7 {
        write(&folder, 500, version);
        let begun = Instant::now();
        gateway.app.reload().await.unwrap();
        fastest = fastest.min(begun.elapsed());
    }
    println!("start {started:?}, reload {fastest:?}");
    assert!(
        fastest * 4 < started,
        "start {started:?}, reload {fastest:?}"
    );
    let (aliases, _) = versions(&gateway).await;
    assert!(aliases.contains(&"v6.d500.test".to_owned()));
}
