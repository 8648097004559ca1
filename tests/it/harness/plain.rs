//! A plain listener that answers http-01 and nothing else, for issuers without a gateway around
//! them.

use std::net::SocketAddr;
use std::sync::Arc;

use moorgate::internal::certs::Challenges;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Answers what this or another process has put in place, for as long as the runtime lives.
pub async fn answer_challenges(listen: SocketAddr, challenges: Arc<Challenges>) {
    let listener = TcpListener::bind(listen).await.unwrap();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let challenges = challenges.clone();
        tokio::spawn(async move {
            let mut head = vec![0; 4096];
            let length = stream.read(&mut head).await.unwrap_or_default();
            let head = String::from_utf8_lossy(&head[..length]).into_owned();
            let token = head.split(['/', ' ']).nth(4).unwrap_or_default();
            let answer = match challenges.find_http(token).await {
                Some(content) => format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{content}"),
                None => "HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n".to_owned(),
            };
            let _ = stream.write_all(answer.as_bytes()).await;
        });
    }
}
