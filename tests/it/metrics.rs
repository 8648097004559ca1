//! `/metrics`: what is counted and held, for Prometheus.

use std::collections::BTreeMap;

use tokio::net::TcpStream;

use crate::harness::acme_ca::{AcmeCa, Scripted};
use crate::harness::{
    Domain, Gateway, PATIENCE, ProxiedPair, RawPeer, Setup, basic, request, within,
};

/// What is shown now, by metric and labels.
pub async fn scrape(gateway: &Gateway) -> BTreeMap<String, f64> {
    let text = text(gateway).await;
    let series = text.lines().filter(|line| !line.starts_with('#'));
    let series = series.map(|line| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap())
    });
    series.collect()
}

async fn text(gateway: &Gateway) -> String {
    let (content_type, text) = metrics(gateway, "").await;
    assert_eq!(content_type, TEXT);
    text
}

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Content type and content for these header lines.
async fn metrics(gateway: &Gateway, lines: &str) -> (String, String) {
    let mut client = RawPeer::new(TcpStream::connect(gateway.admin()).await.unwrap());
    client
        .send(format!(
            "GET /metrics HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n"
        ))
        .await;
    let (head, body) = client.answer().await;
    assert_eq!(head.status(), 200);
    assert_eq!(head.get("vary"), Some("accept"));
    let content_type = head.get("content-type").unwrap().to_owned();
    (content_type, String::from_utf8(body).unwrap())
}

/// Waits until it is shown so: a request is counted when the last byte of its answer is gone.
async fn until(gateway: &Gateway, name: &str, value: f64) {
    let shown = within(PATIENCE, async {
        while scrape(gateway).await.get(name) != Some(&value) {
            tokio::task::yield_now().await;
        }
    });
    assert!(
        shown.await,
        "{name} is not {value}:\n{}",
        text(gateway).await
    );
}

#[tokio::test]
async fn requests_are_counted_by_domain_call_and_status() {
    let mut between = ProxiedPair::new().await;
    between
        .client
        .send("GET /v2/ HTTP/1.1\r\nHost: ci.test\r\n\r\n")
        .await;
    assert_eq!(between.client.answer().await.0.status(), 401);
    between
        .passed(request(
            "PUT",
            "/v2/a/manifests/v1",
            "Content-Length: 0\r\n",
        ))
        .await;
    between
        .forwarded(request("GET", "/v2/a/manifests/v1", ""))
        .await;
    between
        .answered("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        .await;
    between
        .forwarded(request("GET", "/v2/a/manifests/v1", ""))
        .await;
    between
        .answered("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        .await;
    between
        .client
        .send("GET / HTTP/1.1\r\nHost: elsewhere.test\r\n\r\n")
        .await;
    assert_eq!(between.client.answer().await.0.status(), 404);
    let gateway = &between.gateway;
    until(
        gateway,
        r#"moorgate_requests_total{domain="",call="",status="404"}"#,
        1.0,
    )
    .await;
    let shown = scrape(gateway).await;
    let one = |call: &str, status: &str| {
        let series = format!(
            r#"moorgate_requests_total{{domain="ci.test",call="{call}",status="{status}"}}"#
        );
        shown.get(&series).copied()
    };
    assert_eq!(one("ping", "401"), Some(1.0));
    assert_eq!(one("manifest.write", "200"), Some(1.0));
    assert_eq!(one("manifest.read", "200"), Some(1.0));
    assert_eq!(one("manifest.read", "404"), Some(1.0));
    assert_eq!(one("blob.read", "200"), None);
    assert_eq!(
        shown[r#"moorgate_request_duration_seconds_count{domain="ci.test"}"#],
        4.0
    );
    assert_eq!(
        shown[r#"moorgate_request_duration_seconds_bucket{le="+Inf",domain="ci.test"}"#],
        4.0
    );
    assert_eq!(
        shown[r#"moorgate_upstream_response_seconds_count{domain="ci.test"}"#],
        3.0
    );
    assert_eq!(
        shown[r#"moorgate_requests_in_flight{domain="ci.test"}"#],
        0.0
    );
    assert!(shown[r#"moorgate_sent_bytes_total{domain="ci.test"}"#] >= 5.0);
}

#[tokio::test]
async fn running_and_interrupted_requests_are_shown() {
    let mut between = ProxiedPair::new().await;
    let open = r#"moorgate_requests_in_flight{domain="ci.test"}"#;
    between
        .forwarded(request("PATCH", "/v2/a/blobs/uploads/1", "Content-Length: 9\r\n") + "1234")
        .await;
    assert_eq!(scrape(&between.gateway).await[open], 1.0);
    let ProxiedPair {
        gateway, client, ..
    } = between;
    drop(client);
    until(&gateway, open, 0.0).await;
    let shown = scrape(&gateway).await;
    assert_eq!(
        shown[r#"moorgate_interrupted_total{domain="ci.test",by="client"}"#],
        1.0
    );
    assert_eq!(
        shown[r#"moorgate_interrupted_total{domain="ci.test",by="upstream"}"#],
        0.0
    );
    assert_eq!(
        shown[r#"moorgate_received_bytes_total{domain="ci.test"}"#],
        4.0
    );
    assert_eq!(
        shown[r#"moorgate_requests_total{domain="ci.test",call="upload.chunk",status="400"}"#],
        1.0
    );
}

#[tokio::test]
async fn counts_survive_a_reload_and_a_rejected_one_is_shown() {
    let mut between = ProxiedPair::new().await;
    between.passed(request("GET", "/v2/", "")).await;
    let series = r#"moorgate_requests_total{domain="ci.test",call="ping",status="200"}"#;
    until(&between.gateway, series, 1.0).await;
    let domain = |tables: &str| Domain::new("ci.test", &between.upstream.url()).tables(tables);
    Setup::new()
        .domain(domain("[limits]\nmanifest = \"1KiB\""))
        .write(between.gateway.directory.path());
    between.gateway.app.reload().await.unwrap();
    let before = scrape(&between.gateway).await;
    assert_eq!(
        (before[series], before["moorgate_configuration_ok"]),
        (1.0, 1.0)
    );
    Setup::new()
        .domain(domain("[limits]\nmanifest = \"much\""))
        .write(between.gateway.directory.path());
    assert!(between.gateway.app.reload().await.is_err());
    let after = scrape(&between.gateway).await;
    assert_eq!(after["moorgate_configuration_ok"], 0.0);
    let loaded = "moorgate_configuration_loaded_timestamp_seconds";
    assert_eq!(after[loaded], before[loaded]);
}

#[tokio::test]
async fn wrong_passwords_and_refused_logins_are_counted() {
    let auth = "[auth]\naddress_failures = 5";
    let gateway = Setup::new()
        .domain(Domain::new("ci.test", "http://127.0.0.1:9"))
        .main(auth)
        .start()
        .await;
    let mut client = gateway.client().await;
    for (password, status) in [
        ("a", 401),
        ("a", 401),
        ("b", 401),
        ("c", 401),
        ("d", 401),
        ("e", 401),
        ("f", 429),
        ("g", 429),
    ] {
        let login = basic("alice", password);
        client
            .send(format!(
                "GET /v2/ HTTP/1.1\r\nHost: ci.test\r\nAuthorization: {login}\r\n\r\n"
            ))
            .await;
        assert_eq!(client.answer().await.0.status(), status, "{password}");
    }
    let shown = scrape(&gateway).await;
    let logins = shown
        .iter()
        .filter(|(name, _)| name.contains("_login") || name.contains("_password"));
    let logins: Vec<String> = logins
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    insta::assert_snapshot!(logins.join("\n"), @r#"
    moorgate_logins_failed_total 5
    moorgate_logins_failing{kind="address"} 1
    moorgate_logins_failing{kind="user"} 1
    moorgate_logins_known_wrong_total 1
    moorgate_logins_refused_total{budget="address"} 2
    moorgate_logins_refused_total{budget="network"} 0
    moorgate_logins_refused_total{budget="user at address"} 0
    moorgate_logins_refused_total{budget="user"} 0
    moorgate_password_hashes_total 5
    moorgate_passwords_remembered 0
    moorgate_passwords_waiting 0
    "#);
}

#[tokio::test]
async fn certificate_attempts_and_remaining_limits_are_shown() {
    let ca = AcmeCa::new().await;
    ca.once("challenge", Scripted::Unmet);
    let files = tempfile::tempdir().unwrap();
    let main = format!(
        "[acme]\nchallenges = [\"http-01\"]\n{}",
        ca.toml(files.path(), "0")
    );
    let domain = Domain::new("ci.test", "http://127.0.0.1:9").tls("acme = true");
    let gateway = Setup::new().main(&main).domain(domain).start().await;
    until(
        &gateway,
        r#"moorgate_certificate_attempts_total{domain="ci.test",outcome="failed"}"#,
        1.0,
    )
    .await;
    let shown = scrape(&gateway).await;
    assert_eq!(shown[r#"moorgate_certificate_ok{domain="ci.test"}"#], 0.0);
    let left = |limit: &str| {
        let mut all = shown
            .iter()
            .filter(|(name, _)| name.starts_with("moorgate_acme_budget_left"));
        all.find(|(name, _)| name.contains(limit))
            .map(|(_, left)| *left)
    };
    assert_eq!(left("limit=\"orders\""), Some(299.0), "{shown:#?}");
    let next = r#"moorgate_certificate_next_attempt_timestamp_seconds{domain="ci.test"}"#;
    assert!(shown[next] > shown["process_start_time_seconds"]);
}

#[tokio::test]
async fn the_metrics_have_names_units_and_meanings_and_no_secrets() {
    let ci = Domain::new("ci.test", "http://127.0.0.1:9").user("bob", "hush");
    let gateway = Setup::new().domain(ci).start().await;
    let mut client = RawPeer::new(gateway.tls_from("127.95.0.1").await.unwrap());
    client
        .send(request("GET", "/v2/private/name/manifests/v1?hidden=1", ""))
        .await;
    assert_eq!(client.answer().await.0.status(), 503);
    let open_metrics = "Accept: application/openmetrics-text\r\n";
    let (_, text) = metrics(&gateway, open_metrics).await;
    for secret in [
        "secret",
        "hush",
        "bob",
        "alice",
        "private",
        "hidden",
        "127.95.0.1",
    ] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
    let about: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("# HELP"))
        .collect();
    insta::assert_snapshot!(about.join("\n").replace("# HELP ", ""), @r#"
    moorgate_build_info Always 1
    moorgate_connections Open connections
    moorgate_connections_evicted Idle connections closed for new ones because of the limit
    moorgate_resource_used Use of a limited resource
    moorgate_resource_limit Limit of a resource
    moorgate_resource_refused Connections, requests and uploads refused because of the limit of a resource
    moorgate_log_lines_lost Lines that were dropped or could not be written
    moorgate_configuration_ok 1 if the newest configuration is in force
    moorgate_configuration_loaded_timestamp_seconds When the configuration in force was read, in Unix time
    moorgate_configuration_problem 1 for each file that cannot be used as it is
    moorgate_listener_up 1 if the listener accepts
    process_start_time_seconds When the process was started, in Unix time
    process_cpu_seconds CPU time
    process_resident_memory_bytes Resident memory
    process_open_fds Open files and sockets
    process_max_fds Maximum number of open files and sockets
    moorgate_requests Finished requests
    moorgate_requests_in_flight Requests in flight
    moorgate_request_duration_seconds From the head of a request to the end of its response
    moorgate_upstream_response_seconds From forwarding a request to the response head of the upstream
    moorgate_received_bytes Request body bytes of finished requests
    moorgate_sent_bytes Response body bytes of finished requests
    moorgate_interrupted Interrupted requests, by the side that interrupted them
    moorgate_upstream_up 1 if the last requests to the upstream succeeded, 0 if it fails; none before the first one
    moorgate_upstream_failures Requests to which the upstream gave no usable response, by reason
    moorgate_upstream_replica_in_service 1 if the replica gets requests, 0 if it is ejected
    moorgate_upstream_replica_requests_in_flight Requests at the replica whose response has not ended
    moorgate_upstream_replica_ejections How often the replica was ejected
    moorgate_quota_areas Areas of a quota that have content
    moorgate_quota_size_bytes What each area of a quota may hold
    moorgate_quota_fullest_bytes What the fullest area of a quota holds
    moorgate_password_hashes Hashed passwords
    moorgate_passwords_waiting Passwords waiting for a hash
    moorgate_passwords_remembered Cached logins, which need no hash
    moorgate_logins_failed Wrong passwords that count against a limit
    moorgate_logins_known_wrong Passwords known to be wrong: no hash, not counted
    moorgate_logins_refused Logins refused without a hash, by the exhausted limit
    moorgate_logins_failing Users and addresses with wrong passwords that still count
    moorgate_certificate_expiry_timestamp_seconds Expiry of the certificate, in Unix time
    moorgate_certificate_ok 1 if the certificate is usable
    moorgate_certificate_next_attempt_timestamp_seconds When the certificate is ordered or renewed next, in Unix time
    moorgate_certificate_attempts Attempts to issue a certificate, by outcome
    moorgate_acme_budget_left Remaining requests of the domain within a limit of the CA
    moorgate_retention_tags_removed Tags that retention took away since the start of the process
    moorgate_retention_manifests_removed Manifests that retention took away since the start of the process
    moorgate_retention_failed_runs Runs of retention that stopped early, or would have taken away more than max_share
    moorgate_retention_last_run_timestamp_seconds When the last run of retention ended; none before the first one
    moorgate_retention_last_run_failed 1 if the last run of retention stopped early, or would have taken away more than max_share
    "#);
}

#[tokio::test]
async fn lines_that_nobody_reads_are_counted() {
    let between = ProxiedPair::new().await;
    let (gateway, mut client) = (between.gateway, between.client);
    let lost = r#"moorgate_log_lines_lost_total{log="access"}"#;
    assert_eq!(scrape(&gateway).await[lost], 0.0);
    let (name, tag) = ("n".repeat(200), "t".repeat(128));
    let head = format!("GET /v2/{name}/manifests/{tag} HTTP/1.1\r\nHost: ci.test\r\n\r\n");
    // Four mebibytes of lines wait to be read, and no more.
    for _ in 0..4 * 1024 * 1024 / (name.len() + tag.len()) {
        client.send(&head).await;
        assert_eq!(client.answer().await.0.status(), 401);
    }
    let counted = scrape(&gateway).await;
    assert!(counted[lost] > 0.0, "{counted:?}");
    assert_eq!(
        counted[r#"moorgate_log_lines_lost_total{log="events"}"#],
        0.0
    );
}

/// The names of the series of a metric, by its type. OpenMetrics describes a counter without
/// `_total`.
fn series_of(name: &str, kind: &str, is_open_metrics: bool) -> Vec<String> {
    let all = |suffixes: &[&str]| suffixes.iter().map(|s| format!("{name}{s}")).collect();
    match kind {
        "counter" if is_open_metrics => all(&["_total"]),
        "counter" => {
            assert!(name.ends_with("_total"), "{name}");
            all(&[""])
        }
        "gauge" => all(&[""]),
        "histogram" => all(&["_bucket", "_sum", "_count"]),
        other => panic!("{name} is a {other}"),
    }
}

/// Asserts that all of it is as the format says: each metric has its help, its type, and its series
/// after them and together. Returns the series.
fn series(text: &str, is_open_metrics: bool) -> Vec<String> {
    let mut described: Vec<(String, Vec<String>)> = Vec::new();
    let mut found = Vec::new();
    let mut lines = text.lines().peekable();
    assert!(text.ends_with('\n'));
    while let Some(line) = lines.next() {
        if line == "# EOF" {
            assert!(is_open_metrics && lines.next().is_none(), "the end");
            return found;
        }
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            assert!(!help.is_empty(), "{line}");
            assert!(described.iter().all(|(other, _)| other != name), "{line}");
            let kind = lines.next().unwrap();
            let kind = kind.strip_prefix(&format!("# TYPE {name} ")).expect(kind);
            if let Some(unit) = lines.peek().and_then(|line| line.strip_prefix("# UNIT ")) {
                let (of, unit) = unit.split_once(' ').unwrap();
                assert!(
                    is_open_metrics && of == name && name.ends_with(unit),
                    "{name}"
                );
                lines.next();
            }
            described.push((name.to_owned(), series_of(name, kind, is_open_metrics)));
            continue;
        }
        assert!(!line.starts_with('#'), "{line}");
        let (identity, value) = line.rsplit_once(' ').unwrap();
        value.parse::<f64>().expect(line);
        let name = identity.split('{').next().unwrap();
        let (_, names) = described.last().expect("described before");
        assert!(names.iter().any(|other| other == name), "{line}");
        assert!(
            !found.contains(&identity.to_owned()),
            "{line} is there twice"
        );
        found.push(identity.to_owned());
    }
    assert!(!is_open_metrics, "there is no end");
    found
}

#[tokio::test]
async fn a_scraper_gets_the_format_that_it_asks_for() {
    let mut between = ProxiedPair::new().await;
    between
        .passed(request(
            "PUT",
            "/v2/a/manifests/v1",
            "Content-Length: 0\r\n",
        ))
        .await;
    let gateway = &between.gateway;
    // Those of Prometheus 2, Prometheus 3, promtool and curl, and of a client that says nothing.
    let prometheus2 = "Accept: application/openmetrics-text; version=1.0.0,application/openmetrics-text; version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1\r\n";
    let prometheus3 = "Accept: application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1\r\n";
    let (_, expected) = metrics(gateway, "").await;
    let expected = series(&expected, false);
    assert!(expected.len() > 50, "{expected:?}");
    for (accept, content_type) in [
        (prometheus2, OPEN_METRICS),
        (prometheus3, OPEN_METRICS),
        ("Accept: text/plain;version=0.0.4\r\n", TEXT),
        ("Accept: */*\r\n", TEXT),
        ("Accept: application/openmetrics-text;q=0\r\n", TEXT),
        ("", TEXT),
    ] {
        let (got, text) = metrics(gateway, accept).await;
        assert_eq!(got, content_type, "{accept}");
        assert_eq!(series(&text, got == OPEN_METRICS), expected, "{accept}");
    }
    // The same head without the content, and errors are text for people.
    for (head, status, content_type) in [
        ("HEAD /metrics", 200, OPEN_METRICS),
        ("POST /metrics", 405, "text/plain; charset=utf-8"),
        ("HEAD /metricsx", 404, "text/plain; charset=utf-8"),
    ] {
        let mut client = RawPeer::new(TcpStream::connect(gateway.admin()).await.unwrap());
        let rest = "Content-Length: 0\r\nConnection: close\r\n\r\n";
        let request = format!("{head} HTTP/1.1\r\nHost: localhost\r\n{prometheus3}{rest}");
        client.send(request).await;
        let answer = client.head().await;
        assert_eq!(answer.status(), status, "{head}");
        assert_eq!(answer.get("content-type"), Some(content_type), "{head}");
    }
}
