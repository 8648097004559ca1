//! What a reload leaves alone: the login of a registry whose settings are the same.

use http::StatusCode;

use super::played::{AUTO, OWN, PlayedLogin, answer, ask, replace};
use crate::harness::{Domain, Gateway, Setup, settle};

const LIST: &str = "/v2/a/tags/list";

/// Writes the domain with these keys of `[upstream]` and these tables, and reloads.
async fn reload(gateway: &Gateway, url: &str, keys: &str, tables: &str) {
    let domain = Domain::new("ci.test", url).upstream(keys).tables(tables);
    Setup::new().domain(domain).write(gateway.directory.path());
    gateway.app.reload().await.unwrap();
}

#[tokio::test]
async fn tokens_survive_a_reload_that_does_not_concern_them() {
    let played = PlayedLogin::new().await;
    let gateway = played.gateway(OWN).await;
    assert_eq!(ask(&gateway, "GET", LIST).await.0, 200);
    assert_eq!(played.exchanges().len(), 1);
    let own = |keys: &str| format!("{OWN}\n{keys}");
    for (keys, tables) in [
        (OWN.to_owned(), ""),
        (own("create = true"), ""),
        (own("untag = \"off\""), "[limits]\nmanifest = \"1MiB\""),
        (own("redirects = \"follow\""), ""),
        (
            OWN.to_owned(),
            "[[access]]\nusers = ['alice']\nrepositories = ['**']\nactions = ['all']\n\
             [timeouts]\nupstream_head = \"1min\"",
        ),
        (
            OWN.to_owned(),
            "[upstream.admin]\nusername = 'a'\npassword = 'b'",
        ),
    ] {
        reload(&gateway, &played.url, &keys, tables).await;
        for _ in 0..3 {
            assert_eq!(ask(&gateway, "GET", LIST).await.0, 200, "{keys} {tables}");
        }
        assert_eq!(played.exchanges(), [""; 0], "{keys} {tables}");
    }
    let seen = played.take(false);
    let unauthorized = |seen: &&super::played::Seen| !seen.authorization.starts_with("Bearer ");
    // The first request of all alone was sent with the password.
    assert_eq!(seen.iter().filter(unauthorized).count(), 1, "{seen:#?}");
}

#[tokio::test]
async fn a_changed_setting_of_the_login_exchanges_anew() {
    let played = PlayedLogin::new().await;
    let other = PlayedLogin::new().await;
    other.set(|state| state.password = "changed".to_owned());
    let gateway = played.gateway(OWN).await;
    let own = |keys: &str| format!("{OWN}\n{keys}");
    for (url, keys, tables) in [
        (&played.url, OWN.to_owned(), ""),
        (
            &played.url,
            OWN.to_owned(),
            "[timeouts]\nupstream_connect = \"3s\"",
        ),
        (&played.url, own("hosts = [\"auth.test\"]"), ""),
        (&played.url, own("api = \"http://127.0.0.1:1\""), ""),
        (&played.url, OWN.replace("distribution", "gitlab"), ""),
        (&other.url, OWN.replace("inside", "changed"), ""),
    ] {
        reload(&gateway, url, &keys, tables).await;
        assert_eq!(ask(&gateway, "GET", LIST).await.0, 200, "{keys} {tables}");
        let exchanges = played.exchanges().len() + other.exchanges().len();
        assert_eq!(exchanges, 1, "{url} {keys} {tables}");
    }
    // The password alone.
    played.set(|state| state.password = "changed".to_owned());
    reload(&gateway, &played.url, OWN, "").await;
    assert_eq!(ask(&gateway, "GET", LIST).await.0, 502);
    played.take(true);
    reload(&gateway, &played.url, &OWN.replace("inside", "changed"), "").await;
    assert_eq!(ask(&gateway, "GET", LIST).await.0, 200);
    assert_eq!(played.exchanges().len(), 1);
}

#[tokio::test]
async fn a_file_with_another_secret_is_another_setting() {
    let played = PlayedLogin::new().await;
    let keys =
        "product = \"distribution\"\nusername = \"gate\"\npassword = { file = \"password\" }";
    let directory = tempfile::tempdir().unwrap();
    crate::harness::gateway::write_session_key(&directory.path().join("state"));
    std::fs::create_dir_all(directory.path().join("conf.d")).unwrap();
    std::fs::write(directory.path().join("conf.d/password"), "inside\n").unwrap();
    let domain = Domain::new("ci.test", &played.url).upstream(keys);
    let started = Setup::new().domain(domain).try_start_in(directory).await;
    let gateway = started.map_err(|_| "it starts").unwrap();
    assert_eq!(ask(&gateway, "GET", LIST).await.0, 200);
    assert_eq!(played.exchanges().len(), 1);
    reload(&gateway, &played.url, keys, "").await;
    assert_eq!(ask(&gateway, "GET", LIST).await.0, 200);
    assert_eq!(played.exchanges().len(), 0);
    played.set(|state| state.password = "rotated".to_owned());
    replace(&gateway.path("conf.d/password"), "rotated\n");
    reload(&gateway, &played.url, keys, "").await;
    assert_eq!(ask(&gateway, "GET", LIST).await.0, 200);
    let exchanges = played.take(true);
    assert_eq!(exchanges.len(), 1);
    let rotated = crate::harness::basic("gate", "rotated");
    assert_eq!(exchanges[0].authorization, rotated);
}

#[tokio::test]
async fn a_known_product_survives_a_reload() {
    let played = PlayedLogin::new().await;
    played.set(|state| {
        state.pinged = Some(|| {
            let mut refused = answer(StatusCode::UNAUTHORIZED, "");
            let challenge = "Basic realm=\"harbor\"".parse().unwrap();
            refused.headers_mut().insert("www-authenticate", challenge);
            refused
        });
        state.takes_passwords = true;
    });
    let gateway = played.gateway(AUTO).await;
    for _ in 0..3 {
        assert_eq!(ask(&gateway, "GET", LIST).await.0, 200);
        settle().await;
        reload(&gateway, &played.url, AUTO, "").await;
    }
    assert_eq!(played.pings(), 1);
    let status = gateway.status().await;
    let product = &status["domains"][0]["upstream_product"];
    assert_eq!(product["name"], "harbor");
    assert_eq!(product["known_by"], "challenge");
}
