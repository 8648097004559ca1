//! What token services answer: what is usable, and what is not.

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;

use super::played::{OWN, PlayedLogin, answer, ask};
use crate::harness::{Clock, Events, seconds};

const LIST: &str = "/v2/a/tags/list";

async fn said(exchanged: fn() -> Response<Full<Bytes>>) -> (u16, String) {
    let events = Events::kept();
    let played = PlayedLogin::new().await;
    played.set(|state| state.exchanged = Some(exchanged));
    let gateway = played.gateway(OWN).await;
    let (status, _) = ask(&gateway, "GET", LIST).await;
    let line = events.with("upstream fails").join("\n");
    let error = line.split("error=\"").nth(1).unwrap_or_default();
    let error = error.split("\" failures").next().unwrap();
    (status, error.replace(&played.url, "URL"))
}

#[tokio::test]
async fn an_answer_that_is_no_token_is_said_to_be_none() {
    let mut all = Vec::new();
    for exchanged in [
        || answer(StatusCode::OK, "<html>"),
        || answer(StatusCode::OK, "{}"),
        || answer(StatusCode::OK, "{\"token\":\"a\\nb\"}"),
        || answer(StatusCode::OK, vec![b'x'; 1 << 20]),
        || answer(StatusCode::FOUND, ""),
        || answer(StatusCode::FORBIDDEN, "no"),
        || answer(StatusCode::BAD_REQUEST, "no"),
        || answer(StatusCode::TOO_MANY_REQUESTS, "no"),
        || answer(StatusCode::BAD_GATEWAY, "no"),
    ] as [fn() -> Response<Full<Bytes>>; 9]
    {
        let (status, error) = said(exchanged).await;
        all.push(format!("{status} {error}"));
    }
    insta::assert_snapshot!(all.join("\n"), @r"
    502 URL, which exchanges moorgate's credentials, gave an unusable answer: it is no JSON with a token
    502 URL, which exchanges moorgate's credentials, gave an unusable answer: it has no token
    502 URL, which exchanges moorgate's credentials, gave an unusable answer: its token does not fit into a header
    502 URL, which exchanges moorgate's credentials, gave an unusable answer: it is cut off or larger than 128 KiB
    502 URL, which exchanges moorgate's credentials, gave an unusable answer: a redirect, and none is followed with credentials
    502 URL refused user `gate`, the username and password in [upstream] (403 Forbidden): its administrator has to correct them, or the rights that they have there
    502 URL refused user `gate`, the username and password in [upstream] (400 Bad Request): its administrator has to correct them, or the rights that they have there
    429 
    503 
    ");
}

#[tokio::test]
async fn a_service_that_does_not_answer_is_waited_for_so_long_and_no_longer() {
    let events = Events::kept();
    let played = PlayedLogin::new().await;
    played.set(|state| state.silent = true);
    let gateway = std::sync::Arc::new(played.gateway(OWN).await);
    let asking = tokio::spawn({
        let gateway = gateway.clone();
        async move { ask(&gateway, "GET", LIST).await }
    });
    while played.state.lock().unwrap().seen.len() < 2 {
        tokio::task::yield_now().await;
    }
    let clock = Clock::stopped();
    clock.jump(seconds(16)).await;
    assert_eq!(asking.await.unwrap().0, 503);
    let lines = events.with("upstream fails");
    assert!(lines[0].contains("did not answer in time"), "{lines:#?}");
    assert!(lines[0].contains("reason=\"timeout\""), "{lines:#?}");
}

#[tokio::test]
async fn a_service_that_knows_no_get_is_posted_to() {
    let played = PlayedLogin::new().await;
    played.set(|state| state.exchanged = Some(|| answer(StatusCode::METHOD_NOT_ALLOWED, "")));
    let gateway = std::sync::Arc::new(played.gateway(OWN).await);
    // The first answer refuses GET; the form that follows it gets a token.
    assert_eq!(ask(&gateway, "GET", LIST).await.0, 502);
    let methods: Vec<_> = played
        .take(true)
        .into_iter()
        .map(|seen| seen.method)
        .collect();
    assert_eq!(methods, ["GET", "POST"]);
    played.set(|state| state.exchanged = None);
    let clock = Clock::stopped();
    clock.jump(seconds(6)).await;
    played.set(|state| state.only_post = true);
    assert_eq!(ask(&gateway, "GET", LIST).await.0, 200);
    let seen = played.take(true);
    let methods: Vec<_> = seen.iter().map(|seen| seen.method.as_str()).collect();
    assert_eq!(methods, ["GET", "POST"]);
    let form = "grant_type=password&client_id=moorgate&username=gate&password=inside\
                &service=played&scope=repository:a:pull";
    assert_eq!(seen[1].body, form);
    assert_eq!(seen[1].authorization, "");
    // Which is remembered.
    assert_eq!(ask(&gateway, "GET", "/v2/b/tags/list").await.0, 200);
    assert_eq!(played.take(true).len(), 1);
}
