//! `check --live`: what only the registry, DNS and the ports can say.

use std::fs;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::check;
use crate::harness::{Domain, Setup};
use crate::upstream_login::played::{OWN, PlayedLogin};

/// A registry that answers every request with this head, and no body.
async fn registry(head: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut request = [0; 4096];
                while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                    let answer = format!("HTTP/1.1 {head}\r\nContent-Length: 0\r\n\r\n");
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    });
    url
}

/// The first lines of what is said of a registry, without its address.
async fn said_of(url: &str, upstream: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let domain = Domain::new("ci.localhost", url).upstream(upstream);
    Setup::new().domain(domain).write(directory.path());
    let file = directory.path().join("conf.d/ci.localhost.toml");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(file, mode).unwrap();
    let (status, said) = check(directory.path(), &["--live"]).await;
    assert_eq!(status, 0, "{said}");
    assert_eq!(check(directory.path(), &[]).await, (0, String::new()));
    let strict = check(directory.path(), &["--live", "--strict"]).await;
    assert_eq!(strict.0, i32::from(!said.is_empty()));
    let lines = said.lines().filter_map(|line| {
        let help = line.trim_start().strip_prefix("= ");
        help.or_else(|| line.strip_prefix("warning: "))
    });
    lines.collect::<Vec<_>>().join("\n").replace(url, "URL")
}

#[tokio::test]
async fn a_registry_is_asked_as_clients_will_ask_it() {
    const LOGIN: &str = "401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"r\"";
    const TOKEN: &str = "401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"https://r\"";
    const OWN: &str = "username = \"me\"\npassword = \"secret\"";
    for (head, upstream) in [
        ("200 OK", ""),
        ("200 OK", OWN),
        (LOGIN, "authorization = \"pass\""),
    ] {
        assert_eq!(said_of(&registry(head).await, upstream).await, "");
    }
    let down = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let plain = registry("200 OK").await.replace("http:", "https:");
    let cases = [
        (down, ""),
        (plain, ""),
        (registry(LOGIN).await, ""),
        (registry(LOGIN).await, OWN),
        (registry(TOKEN).await, OWN),
        (registry(TOKEN).await, ""),
        (registry(TOKEN).await, "authorization = \"pass\""),
        (registry("404 Not Found").await, ""),
    ];
    let mut all = Vec::new();
    for (url, upstream) in cases {
        all.push(said_of(&url, upstream).await);
    }
    insta::assert_snapshot!(all.join("\n\n"), @r#"
    URL: the upstream cannot be reached: the connection was refused
    help: start the server there, or correct host and port in its `url`

    URL: the upstream cannot be reached: the server answers in plain HTTP
    help: write http:// in its `url`, or give it TLS

    URL: this registry demands a login (401 Unauthorized)
    help: set `username` and `password` in [upstream], or authorization = "pass"

    URL: the upstream registry refused user `me`, the username and password in [upstream]: its administrator has to correct them, or the rights that they have there
    help: correct it and check again

    URL: the upstream registry wants a token of https://r, which is not among its hosts, for user `me`, the username and password in [upstream]: if it belongs to the registry, its administrator has to write hosts = ["r"] in [upstream]
    help: correct it and check again

    URL: this registry demands a login (401 Unauthorized)
    help: set `username` and `password` in [upstream], or authorization = "pass"

    URL: this registry wants tokens, which clients cannot get through moorgate
    help: set `username` and `password` in [upstream], with which moorgate gets them

    URL: no registry answers there: 404 Not Found to a request of /v2/
    help: name the registry itself, with the path before /v2/ if it has one
    "#);
}

#[tokio::test]
async fn names_are_looked_up() {
    let directory = tempfile::tempdir().unwrap();
    let domain =
        Domain::store("nowhere.invalid", "s").top("aliases = [\"localhost\", \"127.0.0.1\"]");
    Setup::new().domain(domain).write(directory.path());
    let (status, said) = check(directory.path(), &["--live"]).await;
    assert_eq!(status, 0, "{said}");
    assert!(
        said.starts_with("warning: nowhere.invalid cannot be looked up: "),
        "{said}"
    );
    assert!(
        said.contains("conf.d/nowhere.invalid.toml:1:10\n"),
        "{said}"
    );
    assert!(said.ends_with("\n1 warning\n"), "{said}");
}

#[tokio::test]
async fn a_registry_that_wants_tokens_is_logged_in_at() {
    let played = PlayedLogin::new().await;
    assert_eq!(said_of(&played.url, OWN).await, "");
    assert!(!played.exchanges().is_empty());
    played.set(|state| state.password = "another".to_owned());
    let said = said_of(&played.url, OWN).await;
    assert!(said.contains("refused user `gate`"), "{said}");
    assert!(!said.contains("inside"), "{said}");
}
