//! The budgets: 429 in place of a hash, and never for those who know.

use super::GuessingFixture;
use crate::harness::{Http2, json, no_body, seconds};

#[tokio::test]
async fn over_the_budget_there_is_429_and_no_hash() {
    let mut fixture = GuessingFixture::new(5, 20).await;
    assert_eq!(fixture.guess_on("192.0.2.1", "alice", "wrong").await, 5);
    let before = fixture.hashes();
    // Neither whether the user exists nor whether the password is right is revealed.
    let mut answers = Vec::new();
    for (user, password) in [
        ("alice", "wrong again"),
        ("bob", "hunter2"),
        ("nobody", "secret"),
        ("alice", "wrong 0"),
    ] {
        let (mut head, body) = fixture.answer("192.0.2.1", user, password).await;
        assert_eq!(head.status(), 429, "{user}");
        let wait: u64 = head.get("retry-after").unwrap().parse().unwrap();
        assert_eq!(wait, 120);
        assert_eq!(
            head.get("docker-distribution-api-version"),
            Some("registry/2.0")
        );
        assert_eq!(head.get("www-authenticate"), None);
        let error = &json(&body)["errors"][0];
        assert_eq!(error["code"], "TOOMANYREQUESTS");
        assert!(
            error["message"]
                .as_str()
                .unwrap()
                .contains(&format!("try again in {wait} s")),
            "{error}"
        );
        head.headers
            .retain(|(name, _)| name != "date" && name != "retry-after");
        answers.push((head, body.len()));
    }
    assert!(
        answers.iter().all(|answer| *answer == answers[0]),
        "{answers:?}"
    );
    assert_eq!(fixture.hashes(), before);
    // Elsewhere everything is as it was.
    assert_eq!(fixture.login("192.0.2.2", "bob", "hunter2").await, 200);
}

#[tokio::test]
async fn over_http2_it_is_the_same() {
    let mut fixture = GuessingFixture::new(5, 20).await;
    fixture.guess_on("192.0.2.1", "alice", "wrong").await;
    let mut client = Http2::connect(&fixture.gateway, "ci.test").await;
    let request = http::Request::get("https://ci.test/v2/")
        .header("authorization", crate::harness::basic("bob", "hunter2"))
        .header("x-forwarded-for", "192.0.2.1");
    let answer = client
        .begin(request.body(no_body()).unwrap())
        .await
        .unwrap();
    assert_eq!(answer.status(), 429);
    assert!(answer.headers().contains_key("retry-after"));
}

#[tokio::test]
async fn known_and_unknown_users_have_equal_budgets() {
    let mut fixture = GuessingFixture::new(5, 20).await;
    let known = fixture.guess_on("192.0.2.1", "alice", "wrong").await;
    let unknown = fixture.guess_on("192.0.2.2", "nobody", "wrong").await;
    assert_eq!((known, unknown), (5, 5));
    assert_eq!(fixture.hashes(), 10);
    fixture.origin.requests();
}

#[tokio::test]
async fn a_wrong_password_repeated_five_times_counts_once_and_costs_one_hash() {
    let mut fixture = GuessingFixture::new(5, 20).await;
    for (from, user) in [("192.0.2.1", "alice"), ("192.0.2.2", "nobody")] {
        let before = fixture.hashes();
        for _ in 0..5 {
            let (head, _) = fixture.answer(from, user, "mistyped").await;
            assert_eq!(
                (head.status(), head.get("www-authenticate").is_some()),
                (401, true)
            );
        }
        assert_eq!(fixture.hashes() - before, 1, "{user}");
        assert_eq!(fixture.guess_on(from, user, "other").await, 4, "{user}");
    }
}

#[tokio::test]
async fn a_password_that_was_wrong_and_becomes_right_is_right_at_once() {
    let mut fixture = GuessingFixture::new(5, 20).await;
    assert_eq!(fixture.login("192.0.2.1", "alice", "new").await, 401);
    assert_eq!(fixture.login("192.0.2.1", "alice", "new").await, 401);
    let entry = format!("alice:{}\n", bcrypt::hash("new", 4).unwrap());
    std::fs::write(fixture.gateway.path("conf.d/ci.test.htpasswd"), entry).unwrap();
    fixture.gateway.app.refresh_files().await;
    assert_eq!(fixture.login("192.0.2.1", "alice", "new").await, 200);
}

#[tokio::test]
async fn a_cached_password_is_accepted_from_any_address() {
    let mut fixture = GuessingFixture::new(5, 5).await;
    assert_eq!(fixture.login("10.0.0.1", "alice", "secret").await, 200);
    fixture.guess_on("192.0.2.1", "alice", "wrong").await;
    fixture.guess_on("10.0.0.1", "alice", "wrong").await;
    let before = fixture.hashes();
    for from in ["10.0.0.1", "192.0.2.1", "192.0.2.2"] {
        assert_eq!(fixture.login(from, "alice", "secret").await, 200, "{from}");
    }
    assert_eq!(fixture.hashes(), before);
    // Also an hour later, when it has to be verified again, with the guessing going on.
    fixture.clock.jump(seconds(3600)).await;
    fixture.client = fixture.gateway.client().await;
    fixture.guess_on("192.0.2.1", "alice", "still wrong").await;
    assert_eq!(fixture.login("192.0.2.1", "alice", "secret").await, 200);
}

#[tokio::test]
async fn tries_are_restored_evenly_over_the_window() {
    let mut fixture = GuessingFixture::new(5, 20).await;
    fixture.guess_on("192.0.2.1", "alice", "wrong").await;
    // A fifth of ten minutes each.
    fixture.clock.jump(seconds(115)).await;
    assert_eq!(fixture.login("192.0.2.1", "bob", "hunter2").await, 429);
    fixture.clock.jump(seconds(6)).await;
    assert_eq!(fixture.guess_on("192.0.2.1", "alice", "later").await, 1);
    fixture.clock.jump(seconds(601)).await;
    fixture.client = fixture.gateway.client().await;
    assert_eq!(
        fixture.guess_on("192.0.2.1", "alice", "much later").await,
        5
    );
}

#[tokio::test]
async fn guessing_from_many_addresses_locks_out_nobody() {
    let mut fixture = GuessingFixture::new(20, 5).await;
    for machine in 0..5 {
        assert_eq!(
            fixture
                .login(
                    &format!("192.0.2.{machine}"),
                    "alice",
                    &format!("wrong {machine}")
                )
                .await,
            401
        );
    }
    // Who has guessed is out for this name, and not for others.
    assert_eq!(fixture.login("192.0.2.1", "alice", "secret").await, 429);
    assert_eq!(fixture.login("192.0.2.1", "bob", "hunter2").await, 200);
    // Who has not is heard, never seen before as it is, and is at home there from now on.
    assert_eq!(fixture.guess_on("192.0.2.100", "alice", "wrong").await, 1);
    assert_eq!(fixture.login("10.0.0.1", "alice", "secret").await, 200);
    assert_eq!(fixture.guess_on("10.0.0.1", "alice", "wrong").await, 5);
}

#[tokio::test]
async fn an_ipv6_network_is_one_client() {
    let mut fixture = GuessingFixture::new(5, 20).await;
    for host in 0..5 {
        let from = format!("2001:db8:0:1::{host}");
        assert_eq!(
            fixture
                .login(&from, "alice", &format!("wrong {host}"))
                .await,
            401
        );
    }
    assert_eq!(
        fixture
            .login("2001:db8:0:1:aaaa::1", "bob", "hunter2")
            .await,
        429
    );
    assert_eq!(
        fixture.login("2001:db8:0:2::1", "bob", "hunter2").await,
        200
    );
}

#[tokio::test]
async fn the_ipv6_networks_of_one_customer_are_stopped_together() {
    let mut fixture = GuessingFixture::new(5, 20).await;
    // One try from each /64, as is left when a user's budget is used up.
    let mut refused = 0;
    for network in 0..1000 {
        let from = format!("2001:db8:1:{network:x}::1");
        match fixture
            .login(&from, "alice", &format!("wrong {network}"))
            .await
        {
            401 => assert_eq!(refused, 0, "{network}"),
            429 => refused += 1,
            other => panic!("{other}"),
        }
    }
    assert_eq!(refused, 920);
    assert_eq!(fixture.hashes(), 80, "sixteen times five");
    assert_eq!(fixture.login("2001:db8:2::1", "alice", "secret").await, 200);
    // Now it is remembered.
    assert_eq!(
        fixture.login("2001:db8:1:ffff::1", "alice", "secret").await,
        200
    );
    assert_eq!(
        fixture.login("2001:db8:1:ffff::1", "bob", "hunter2").await,
        429
    );
}

#[tokio::test]
async fn a_flood_from_one_address_costs_its_budget_in_hashes() {
    let mut fixture = GuessingFixture::new(5, 20).await;
    let mut flood = Vec::new();
    for number in 0..50 {
        let mut client = fixture.gateway.client().await;
        let authorization = crate::harness::basic("alice", &format!("wrong {number}"));
        let lines = format!("X-Forwarded-For: 192.0.2.1\r\nAuthorization: {authorization}\r\n");
        client
            .send(format!("GET /v2/ HTTP/1.1\r\nHost: ci.test\r\n{lines}\r\n"))
            .await;
        flood.push(client);
    }
    let mut statuses = Vec::new();
    for client in &mut flood {
        statuses.push(client.answer().await.0.status());
    }
    assert_eq!(
        statuses.iter().filter(|status| **status == 401).count(),
        5,
        "{statuses:?}"
    );
    assert_eq!(
        statuses.iter().filter(|status| **status == 429).count(),
        45,
        "{statuses:?}"
    );
    assert_eq!(fixture.hashes(), 5);
    assert_eq!(fixture.login("192.0.2.2", "bob", "hunter2").await, 200);
}
