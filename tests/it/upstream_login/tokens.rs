//! Which token each call gets, and how often one is exchanged.

use std::sync::Arc;

use super::played::{OWN, PlayedLogin, answer, ask, ask_with_body};
use crate::harness::{
    Clock, Domain, Events, Gateway, Http2, PATIENCE, Setup, basic, no_body, promptly, request2,
    seconds, settle,
};

const LIST: &str = "/v2/a/b/tags/list";
const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[tokio::test]
async fn each_call_gets_a_token_for_what_it_does() {
    let played = PlayedLogin::new().await;
    played.set(|state| {
        state.found = |seen| {
            let mut found = answer(http::StatusCode::ACCEPTED, "");
            if seen.method == "POST" {
                let session = "/v2/a/b/blobs/uploads/1".parse().unwrap();
                found.headers_mut().insert("location", session);
            }
            if seen.target.starts_with("/v2/_catalog") {
                found = answer(http::StatusCode::OK, "{\"repositories\":[]}");
            }
            found
        };
    });
    let domain = Domain::new("ci.test", &played.url)
        .upstream(OWN)
        .tables("[[access]]\nusers = ['alice']\nrepositories = ['**']\nactions = ['all']\n");
    let gateway = Setup::new().domain(domain).start().await;
    let mount = format!("/v2/a/b/blobs/uploads/?mount={DIGEST}&from=c/d");
    let delete = format!("/v2/a/b/manifests/{DIGEST}");
    let read = "&scope=repository:a/b:pull";
    let write = "&scope=repository:a/b:pull,push";
    for (method, target, scopes) in [
        ("GET", LIST, read),
        ("POST", "/v2/a/b/blobs/uploads/", write),
        (
            "POST",
            &mount,
            &format!("{write}&scope=repository:c/d:pull"),
        ),
        ("DELETE", &delete, "&scope=repository:a/b:pull,push,delete"),
        ("GET", "/v2/_catalog", "&scope=registry:catalog:*"),
        ("GET", "/v2/c/tags/list", "&scope=repository:c:pull"),
    ] {
        let (status, said) = ask(&gateway, method, target).await;
        assert!(status < 300, "{target}: {status} {said}");
        let expected = format!("/token?service=played{scopes}");
        assert_eq!(played.exchanges(), [expected], "{target}");
        // The next one costs nothing.
        ask(&gateway, method, target).await;
        assert_eq!(played.exchanges(), [""; 0], "{target}");
    }
    let status = ask_with_body(&gateway, "PATCH /v2/a/b/blobs/uploads/1", "blob").await;
    assert_eq!(status, 202);
    assert_eq!(played.exchanges(), [""; 0]);
    let ping = ask(&gateway, "GET", "/v2/").await;
    assert_eq!(ping.0, 202);
    assert_eq!(played.exchanges(), ["/token?service=played"]);
}

#[tokio::test]
async fn the_scheme_is_learned_once_and_not_for_each_connection() {
    let played = PlayedLogin::new().await;
    let gateway = played.gateway(OWN).await;
    for _ in 0..5 {
        assert_eq!(ask(&gateway, "GET", LIST).await.0, 200);
    }
    let seen = played.take(false);
    let authorizations: Vec<_> = seen
        .iter()
        .map(|seen| seen.authorization.as_str())
        .collect();
    let own = basic("gate", "inside");
    let (token, tokens) = ("Bearer token-1", ["Bearer token-1"; 4]);
    assert_eq!(authorizations[..2], [own.as_str(), token]);
    assert_eq!(authorizations[2..], tokens);
    let exchanges = played.take(true);
    assert_eq!(exchanges.len(), 1);
    assert_eq!(exchanges[0].authorization, basic("gate", "inside"));
}

#[tokio::test]
async fn a_body_that_cannot_be_sent_twice_is_not_tried_with() {
    let played = PlayedLogin::new().await;
    let gateway = played.gateway(OWN).await;
    let status = ask_with_body(&gateway, "PATCH /v2/a/b/blobs/uploads/1", "blob").await;
    assert_eq!(status, 200);
    let seen = played.take(false);
    let seen: Vec<_> = seen
        .iter()
        .map(|seen| (seen.method.as_str(), seen.body.as_str()))
        .collect();
    assert_eq!(seen, [("GET", ""), ("PATCH", "blob")]);
}

/// Sends as many requests at once, and returns how many got 200.
async fn many(gateway: &Gateway, count: usize) -> usize {
    let mut answers = Vec::new();
    for first in (0..count).step_by(100) {
        let mut client = Http2::connect(gateway, "ci.test").await;
        for _ in first..count.min(first + 100) {
            let request = request2("GET", LIST).body(no_body()).unwrap();
            answers.push(tokio::spawn(client.send(request)));
        }
    }
    let mut found = 0;
    for answer in answers {
        let (parts, body) = answer.await.unwrap().unwrap();
        assert!(parts.status == 200, "{} {body:?}", parts.status);
        found += 1;
    }
    found
}

#[tokio::test]
async fn a_thousand_requests_with_a_token_that_has_ended_make_one_exchange() {
    let played = PlayedLogin::new().await;
    let gateway = played.gateway(OWN).await;
    assert_eq!(ask(&gateway, "GET", LIST).await.0, 200);
    assert_eq!(played.exchanges().len(), 1);
    // By its own time.
    let clock = Clock::stopped();
    clock.jump(seconds(301)).await;
    played.set(|state| state.revoke());
    assert_eq!(many(&gateway, 1000).await, 1000);
    assert_eq!(played.exchanges().len(), 1);
    // Before its time, as the registry alone knows.
    played.set(|state| state.revoke());
    assert_eq!(many(&gateway, 1000).await, 1000);
    assert_eq!(played.exchanges().len(), 1);
}

#[tokio::test]
async fn a_token_that_ends_under_load_is_renewed_before_and_delays_nobody() {
    let played = PlayedLogin::new().await;
    let gateway = played.gateway(OWN).await;
    assert_eq!(ask(&gateway, "GET", LIST).await.0, 200);
    assert_eq!(played.exchanges().len(), 1);
    let clock = Clock::stopped();
    // At 239 s of 300 it is not yet due.
    clock.jump(seconds(239)).await;
    assert_eq!(ask(&gateway, "GET", LIST).await.0, 200);
    assert_eq!(played.exchanges().len(), 0);
    clock.jump(seconds(2)).await;
    // The token service is slow, which no request notices.
    played.set(|state| state.silent = true);
    for _ in 0..20 {
        let answer = promptly(ask(&gateway, "GET", LIST)).await;
        assert_eq!(answer.0, 200);
    }
    assert_eq!(played.exchanges().len(), 1);
    // It gave no answer in time, and once it does the token is new before the old one ends.
    clock.jump(seconds(16)).await;
    played.set(|state| state.silent = false);
    clock.jump(seconds(6)).await;
    assert_eq!(ask(&gateway, "GET", LIST).await.0, 200);
    settle().await;
    crate::harness::within(PATIENCE, async {
        while played
            .state
            .lock()
            .unwrap()
            .seen
            .iter()
            .all(|s| !s.target.starts_with("/token"))
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
    played.take(false);
    clock.jump(seconds(40)).await;
    assert_eq!(ask(&gateway, "GET", LIST).await.0, 200);
    let seen = played.take(false);
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!(seen[0].authorization, "Bearer token-2");
}

#[tokio::test]
async fn no_request_fails_or_waits_while_tokens_come_to_their_end() {
    let played = PlayedLogin::new().await;
    played.set(|state| {
        state.members = "\"expires_in\":10".to_owned();
        state.life = seconds(10);
    });
    let gateway = played.gateway(OWN).await;
    assert_eq!(ask(&gateway, "GET", LIST).await.0, 200);
    assert_eq!(played.exchanges().len(), 1);
    let clock = Clock::stopped();
    for _ in 0..80 {
        // What is exchanged now takes longer than every request.
        played.set(|state| state.silent = true);
        assert_eq!(promptly(Box::pin(many(&gateway, 20))).await, 20);
        played.set(|state| state.silent = false);
        clock.jump(seconds(1) / 2).await;
    }
    // Each at 8 of 10 s.
    let exchanges = played.exchanges().len();
    assert!((4..=5).contains(&exchanges), "{exchanges}");
    let refused = played.take(false);
    let first = refused
        .iter()
        .filter(|seen| !seen.authorization.starts_with("Bearer "));
    assert_eq!(first.count(), 1);
}

#[tokio::test]
async fn a_token_without_a_sensible_life_is_used_for_a_minute() {
    for members in [
        "",
        "\"expires_in\":0",
        "\"expires_in\":-300",
        "\"expires_in\":1e300",
        "\"expires_in\":\"soon\"",
        "\"expires_in\":null",
        "\"expires_in\":[]",
    ] {
        let played = PlayedLogin::new().await;
        played.set(|state| state.members = members.to_owned());
        let gateway = played.gateway(OWN).await;
        assert_eq!(ask(&gateway, "GET", LIST).await.0, 200, "{members}");
        let clock = Clock::stopped();
        clock.jump(seconds(40)).await;
        assert_eq!(ask(&gateway, "GET", LIST).await.0, 200, "{members}");
        assert_eq!(played.exchanges().len(), 1, "{members}");
        clock.jump(seconds(20)).await;
        assert_eq!(ask(&gateway, "GET", LIST).await.0, 200, "{members}");
        assert_eq!(played.exchanges().len(), 1, "{members}");
        tokio::time::resume();
    }
}

#[tokio::test]
async fn a_token_for_centuries_is_used_for_a_day() {
    let played = PlayedLogin::new().await;
    played.set(|state| state.members = "\"expires_in\":9e18".to_owned());
    let gateway = played.gateway(OWN).await;
    assert_eq!(ask(&gateway, "GET", LIST).await.0, 200);
    let clock = Clock::stopped();
    clock.jump(seconds(19 * 3600)).await;
    assert_eq!(ask(&gateway, "GET", LIST).await.0, 200);
    assert_eq!(played.exchanges().len(), 1);
    clock.jump(seconds(3 * 3600)).await;
    assert_eq!(ask(&gateway, "GET", LIST).await.0, 200);
    assert_eq!(played.exchanges().len(), 1);
}

#[tokio::test]
async fn a_revoked_credential_is_a_502_at_once_and_one_line() {
    let events = Events::kept();
    let played = PlayedLogin::new().await;
    let gateway = Arc::new(played.gateway(OWN).await);
    assert_eq!(ask(&gateway, "GET", LIST).await.0, 200);
    played.set(|state| {
        state.password = "another".to_owned();
        state.revoke();
    });
    played.take(true);
    played.take(false);
    // Nothing that takes time may be waited for: none passes.
    let clock = Clock::stopped();
    let (status, said) = promptly(ask(&gateway, "GET", LIST)).await;
    assert_eq!(status, 502);
    assert!(
        said.contains("does not accept this proxy's own login"),
        "{said}"
    );
    // The registry refuses the token, the token service the password.
    assert_eq!((played.take(false).len(), played.take(true).len()), (1, 1));
    for _ in 0..50 {
        assert_eq!(promptly(ask(&gateway, "GET", LIST)).await.0, 502);
    }
    // A failed exchange is remembered.
    assert_eq!((played.take(false).len(), played.take(true).len()), (0, 0));
    let lines = events.with("upstream fails");
    assert_eq!(lines.len(), 1, "{lines:#?}");
    for part in [
        "reason=\"credentials\"",
        "user `gate`",
        "refused",
        "401 Unauthorized",
    ] {
        assert!(lines[0].contains(part), "{part}: {lines:#?}");
    }
    assert!(!events.all().contains("inside"), "{}", events.all());
    // What is mended works again.
    played.set(|state| state.password = "inside".to_owned());
    clock.jump(seconds(6)).await;
    assert_eq!(ask(&gateway, "GET", LIST).await.0, 200);
}

#[tokio::test]
async fn a_credential_revoked_under_load_makes_one_exchange() {
    let played = PlayedLogin::new().await;
    let gateway = played.gateway(OWN).await;
    assert_eq!(ask(&gateway, "GET", LIST).await.0, 200);
    played.set(|state| {
        state.password = "another".to_owned();
        state.revoke();
    });
    played.take(true);
    played.take(false);
    let _clock = Clock::stopped();
    let mut client = Http2::connect(&gateway, "ci.test").await;
    let mut answers = Vec::new();
    for _ in 0..100 {
        let request = request2("GET", LIST).body(no_body()).unwrap();
        answers.push(tokio::spawn(client.send(request)));
    }
    for answer in answers {
        let (parts, _) = promptly(answer).await.unwrap().unwrap();
        assert_eq!(parts.status, 502);
    }
    assert_eq!(played.take(true).len(), 1);
    let sent = played.take(false).len();
    assert!(sent <= 100, "each is sent once at most: {sent}");
}

#[tokio::test]
async fn a_revoked_password_is_sent_once_for_each_request() {
    let events = Events::kept();
    let played = PlayedLogin::new().await;
    played.set(|state| state.takes_passwords = true);
    let gateway = played.gateway(OWN).await;
    assert_eq!(ask(&gateway, "GET", LIST).await.0, 200);
    played.set(|state| state.password = "another".to_owned());
    played.take(false);
    let _clock = Clock::stopped();
    for _ in 0..5 {
        assert_eq!(promptly(ask(&gateway, "GET", LIST)).await.0, 502);
        assert_eq!(played.take(false).len(), 1);
    }
    let lines = events.with("upstream fails");
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].contains("refused user `gate`"), "{lines:#?}");
    assert!(!events.all().contains("inside"), "{}", events.all());
}

#[tokio::test]
async fn a_fresh_token_that_is_refused_is_exchanged_no_more() {
    let played = PlayedLogin::new().await;
    played.set(|state| {
        state.found = |seen| {
            let mut refused = answer(http::StatusCode::UNAUTHORIZED, "{}");
            if seen.target.starts_with("/v2/open") {
                refused = answer(http::StatusCode::OK, "{}");
            }
            refused
        };
    });
    let gateway = played.gateway(OWN).await;
    assert_eq!(ask(&gateway, "GET", LIST).await.0, 502);
    assert_eq!(played.exchanges().len(), 1);
    assert_eq!(played.take(false).len(), 2);
    for _ in 0..10 {
        assert_eq!(ask(&gateway, "GET", LIST).await.0, 502);
    }
    assert_eq!((played.exchanges().len(), played.take(false).len()), (0, 0));
    // Nor where the scheme is known, and the first token of a repository is refused.
    assert_eq!(ask(&gateway, "GET", "/v2/c/tags/list").await.0, 502);
    assert_eq!((played.exchanges().len(), played.take(false).len()), (1, 1));
    // Other repositories are not concerned.
    assert_eq!(ask(&gateway, "GET", "/v2/open/tags/list").await.0, 200);
}

#[tokio::test]
async fn a_token_without_the_right_is_a_denial_and_no_failure() {
    let events = Events::kept();
    let played = PlayedLogin::new().await;
    played.set(|state| state.denied = Some("/v2/a/b/"));
    let gateway = played.gateway(OWN).await;
    for _ in 0..2 {
        let (status, said) = ask(&gateway, "GET", LIST).await;
        assert_eq!(status, 403, "{said}");
        assert!(said.contains("\"DENIED\""), "{said}");
        assert!(!said.contains("gate"), "{said}");
    }
    assert_eq!(played.exchanges().len(), 1, "a refusal is remembered");
    assert_eq!(ask(&gateway, "GET", "/v2/c/tags/list").await.0, 200);
    // It had the right until now.
    played.set(|state| state.denied = Some("/v2/c/"));
    assert_eq!(ask(&gateway, "GET", "/v2/c/tags/list").await.0, 403);
    assert_eq!(events.with("upstream fails"), [""; 0]);
    let status = gateway.status().await;
    assert_eq!(
        status["domains"][0]["upstream_health"]["state"], "healthy",
        "{status}"
    );
}

#[tokio::test]
async fn domains_with_other_credentials_never_share_a_token() {
    let played = PlayedLogin::new().await;
    let other = "username = \"other\"\npassword = \"inside\"";
    let gateway = Setup::new()
        .domain(Domain::new("ci.test", &played.url).upstream(OWN))
        .domain(Domain::new("other.test", &played.url).upstream(other))
        .start()
        .await;
    assert_eq!(ask(&gateway, "GET", LIST).await.0, 200);
    played.take(false);
    let io = gateway.tls("other.test", &["http/1.1"]).await.unwrap();
    let mut client = crate::harness::RawPeer::new(io);
    let request = crate::harness::request("GET", LIST, "");
    client.send(request.replace("ci.test", "other.test")).await;
    assert_eq!(client.answer().await.0.status(), 502);
    for seen in played.take(false) {
        assert!(!seen.authorization.contains("token-1"), "{seen:?}");
    }
}
