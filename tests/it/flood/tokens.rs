//! The same in token mode, where a guess costs no hash: refresh tokens that nobody has.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::Request;
use tokio::task::JoinHandle;

use super::{BESIEGERS, Guess, LASTING, logins, process_of};
use crate::harness::http2::Fed;
use crate::harness::process::Process;
use crate::harness::{Http2, basic, no_body};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_addresses_and_ten_thousand_users_take_no_memory() {
    let process = process_of((4, LASTING), "mode = 'token'", "h2").await;
    sweep(&process, 0..10_000).await;
    let before = process.memory();
    sweep(&process, 10_000..100_000).await;
    let grown = process.memory().saturating_sub(before);
    // The tables of who failed take 5.7 MiB when they are full.
    assert!(grown < 16 << 20, "{} MiB", grown >> 20);
    let logins = logins(&process).await;
    assert!(logins["memory_bytes"].as_u64().unwrap() < 6 << 20, "{logins}");
    // All places are taken, or nearly: a set of them may be full before its neighbours.
    let count = |of: &str| logins[of].as_u64().unwrap();
    assert!(count("failed") >= 100_000, "{logins}");
    assert!(count("failing_addresses") > 62_000 && count("failing_users") > 15_500, "{logins}");
    let first =
        Guess { from: "198.51.100.1".to_owned(), user: "first0".to_owned(), password: "secret".to_owned() };
    let mut client = Http2::over(process.tls().await).await;
    assert_eq!(password(&mut client, first).await, 200, "who comes from elsewhere is heard");
}

/// A wrong refresh token from each of so many addresses, and a wrong password from every tenth, with a name of its own, as
/// fast as they are answered.
async fn sweep(process: &Arc<Process>, numbers: std::ops::Range<u64>) {
    let next = Arc::new(AtomicU64::new(numbers.start));
    let clients: Vec<JoinHandle<()>> = (0..BESIEGERS)
        .map(|_| {
            let (process, next) = (process.clone(), next.clone());
            tokio::spawn(async move {
                let mut client = Http2::over(process.tls().await).await;
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= numbers.end {
                        return;
                    }
                    assert_eq!(refresh(&mut client, number).await, 401);
                    if number % 10 == 0 {
                        assert!(matches!(password(&mut client, Guess::of(number / 10)).await, 401 | 503));
                    }
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
}

/// A refresh token that nobody has, from an address of its own.
async fn refresh(client: &mut Http2, number: u64) -> u16 {
    let form = format!("grant_type=refresh_token&service=ci.test&refresh_token=moorgate_{number}");
    let request = Request::post("https://ci.test/token")
        .header("x-forwarded-for", Guess::of(number).from)
        .header("content-type", "application/x-www-form-urlencoded");
    let (feed, body) = Fed::new();
    feed.try_send(Ok(form.into())).unwrap();
    drop(feed);
    client.send(request.body(body).unwrap()).await.unwrap().0.status.as_u16()
}

/// Asks for a token with a password.
async fn password(client: &mut Http2, guess: Guess) -> u16 {
    let Guess { from, user, password } = guess;
    let request = Request::get("https://ci.test/token")
        .header("x-forwarded-for", from)
        .header("authorization", basic(&user, &password));
    client.send(request.body(no_body()).unwrap()).await.unwrap().0.status.as_u16()
}
