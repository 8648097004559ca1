//! The same in token mode, where a guess at refresh tokens costs no hash: all addresses and users
//! at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;

use super::{
    Asking, BESIEGERS, Guess, LASTING, MANIFEST, MOST_GUESSES, compare, logins, process_of,
};
use crate::harness::process::Process;
use crate::harness::{RawPeer, json};

type Client = RawPeer<TlsStream<TcpStream>>;

const TOKENS: &str = "/token?service=ci.test&scope=repository:base/app:pull";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guesses_from_many_addresses_take_bounded_memory_and_time() {
    let process = process_of((6, LASTING), "mode = 'token'").await;
    sweep(&process, 0..10_000).await;
    let before = process.memory();
    sweep(&process, 10_000..100_000).await;
    let grown = process.memory().saturating_sub(before);
    // The tables of who failed take 5.7 MiB when they are full.
    assert!(grown < 16 << 20, "{} MiB", grown >> 20);
    let logins = logins(&process).await;
    assert!(
        logins["memory_bytes"].as_u64().unwrap() < 6 << 20,
        "{logins}"
    );
    // All places are taken, or nearly: a set of them may be full before its neighbours.
    let count = |of: &str| logins[of].as_u64().unwrap();
    assert!(count("failed") >= 100_000, "{logins}");
    assert!(
        count("failing_addresses") > 62_000 && count("failing_users") > 15_500,
        "{logins}"
    );
    let mut client = RawPeer::new(process.tls().await);
    let first = |user: &str| Guess {
        from: "198.51.100.1".to_owned(),
        user: user.to_owned(),
        password: "secret".to_owned(),
    };
    assert_eq!(
        password(&mut client, &first("first0")).await.0,
        200,
        "who comes from elsewhere is heard"
    );
    // They go on with passwords, which do cost, while these tables are full.
    let (_, token) = password(&mut client, &first("alice")).await;
    let token = token["token"].as_str().unwrap();
    let good = format!(
        "GET {MANIFEST} HTTP/1.1\r\nHost: ci.test\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    compare(
        &process,
        &Asking {
            good,
            guesses: TOKENS,
        },
        |round, number, attempt| Guess::of(((round * 60 + number) * MOST_GUESSES + attempt) as u64),
    )
    .await;
}

/// A wrong refresh token from each of so many addresses, and a wrong password from every tenth,
/// with a name of its own, as fast as they are answered.
async fn sweep(process: &Arc<Process>, numbers: std::ops::Range<u64>) {
    let next = Arc::new(AtomicU64::new(numbers.start));
    let clients: Vec<JoinHandle<()>> = (0..BESIEGERS)
        .map(|_| {
            let (process, next) = (process.clone(), next.clone());
            tokio::spawn(async move {
                let mut client = RawPeer::new(process.tls().await);
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= numbers.end {
                        return;
                    }
                    assert_eq!(refresh(&mut client, number).await, 401);
                    if number % 10 == 0 {
                        let status = password(&mut client, &Guess::of(number / 10)).await.0;
                        assert!(matches!(status, 401 | 503), "{status}");
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
async fn refresh(client: &mut Client, number: u64) -> u16 {
    let form = format!("grant_type=refresh_token&service=ci.test&refresh_token=moorgate_{number}");
    let (from, length) = (Guess::of(number).from, form.len());
    let head = format!(
        "POST /token HTTP/1.1\r\nHost: ci.test\r\nX-Forwarded-For: {from}\r\nContent-Length: {length}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\n\r\n{form}"
    );
    client.send(head).await;
    client.answer().await.0.status()
}

/// Asks for a token with a password.
async fn password(client: &mut Client, guess: &Guess) -> (u16, serde_json::Value) {
    client.send(guess.request(TOKENS)).await;
    let (head, body) = client.answer().await;
    (head.status(), json(&body))
}
