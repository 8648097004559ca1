//! An upstream that answers by itself and keeps what it saw: every request must be one that the
//! strict reader accepts, and its answer names it, so that a test sees whose answer a client got.

use std::sync::{Arc, Mutex};

use tokio::net::{TcpListener, TcpStream};

use super::raw_peer::RawPeer;
use super::wire::{self, Request};

/// Dropped, it stops listening.
pub struct Origin {
    url: String,
    seen: Arc<Mutex<Seen>>,
    listening: tokio::task::JoinHandle<()>,
}

/// What all connections together brought.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub whole: Vec<Request>,
    /// Ends of connections in the middle of a request: no registry takes that for one.
    pub cut: Vec<Vec<u8>>,
    /// What no registry should ever have to read.
    pub malformed: Vec<String>,
    pub connections: usize,
}

impl Origin {
    pub async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::<Mutex<Seen>>::default();
        let all = seen.clone();
        let listening = tokio::spawn(async move {
            loop {
                let peer = RawPeer::new(listener.accept().await.unwrap().0);
                all.lock().unwrap().connections += 1;
                tokio::spawn(answer(peer, all.clone()));
            }
        });
        Self {
            url,
            seen,
            listening,
        }
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// What came so far, and from here on starts anew.
    pub fn take(&self) -> Seen {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }

    /// The requests that came since the last look; nothing else may have come.
    pub fn requests(&self) -> Vec<Request> {
        let seen = self.take();
        assert!(seen.malformed.is_empty() && seen.cut.is_empty(), "{seen:?}");
        seen.whole
    }

    /// What the answer to a request says.
    pub fn says(request: &Request) -> String {
        format!("{} {}", request.method(), request.target())
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn answer(mut peer: RawPeer<TcpStream>, seen: Arc<Mutex<Seen>>) {
    loop {
        match wire::parse(&peer.buffer) {
            Ok(Some((request, taken))) => {
                peer.buffer.drain(..taken);
                let says = Origin::says(&request);
                let body = if request.method() == "HEAD" {
                    ""
                } else {
                    &says
                };
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n", says.len());
                seen.lock().unwrap().whole.push(request);
                if peer
                    .try_send(format!("{head}X-Says: {says}\r\n\r\n{body}"))
                    .await
                    .is_err()
                {
                    return;
                }
            }
            Ok(None) => {
                if !peer.more().await {
                    break;
                }
            }
            Err(why) => {
                let rest = String::from_utf8_lossy(&peer.buffer).into_owned();
                return seen
                    .lock()
                    .unwrap()
                    .malformed
                    .push(format!("{why}: {rest:?}"));
            }
        }
    }
    if !peer.buffer.is_empty() {
        seen.lock().unwrap().cut.push(peer.buffer);
    }
}
