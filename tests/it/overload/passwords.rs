//! More passwords at once than may wait to be hashed.

use super::{HttpsClient, counts};
use crate::harness::{Domain, Setup, basic};

const USERS: usize = 12;
/// So slow that all of them come while the first ones are hashed.
const COST: u32 = 11;

async fn send(client: &mut HttpsClient, user: &str) {
    let authorization = basic(user, "secret");
    client
        .send(format!(
            "GET /v2/ HTTP/1.1\r\nHost: ci.test\r\nAuthorization: {authorization}\r\n\r\n"
        ))
        .await;
}

/// The status, and whether it says when to come again.
async fn answer(client: &mut HttpsClient) -> (u16, bool) {
    let (head, _) = client.answer().await;
    (head.status(), head.get("retry-after").is_some())
}

#[tokio::test]
async fn logins_beyond_the_passwords_that_may_wait_are_told_to_come_again() {
    let gateway = Setup::new()
        .main("[limits]\npasswords_waiting = 1")
        .domain(Domain::store("ci.test", "ci"))
        .start()
        .await;
    let hash = bcrypt::hash("secret", COST).unwrap();
    let users: Vec<_> = (0..USERS).map(|number| format!("user{number}")).collect();
    let lines: String = users
        .iter()
        .map(|user| format!("{user}:{hash}\n"))
        .collect();
    std::fs::write(gateway.path("conf.d/ci.test.htpasswd"), lines).unwrap();
    gateway.app.refresh_files().await;
    let mut clients = Vec::new();
    for _ in &users {
        clients.push(gateway.client().await);
    }
    for (client, user) in clients.iter_mut().zip(&users) {
        send(client, user).await;
    }
    let mut answers = Vec::new();
    for client in &mut clients {
        answers.push(answer(client).await);
    }
    let refused = answers.iter().filter(|(status, _)| *status == 503).count();
    assert!(
        answers
            .iter()
            .all(|(status, retry)| matches!((status, retry), (200, false) | (503, true))),
        "{answers:?}"
    );
    assert!((1..USERS).contains(&refused), "{answers:?}");
    let shown = counts(&gateway, "passwords_waiting").await;
    assert_eq!(shown, [0, 1, refused as u64]);
    for user in &users {
        let mut client = gateway.client().await;
        send(&mut client, user).await;
        assert_eq!(answer(&mut client).await, (200, false), "{user}");
    }
}
