//! A server that answers each request by a function of the test, and keeps them all: the registry
//! and the API of a product at one address.

use std::sync::{Arc, Mutex};

use tokio::net::{TcpListener, TcpStream};

use crate::harness::wire::{self, Request};
use crate::harness::{Domain, Gateway, RawPeer, Setup};

/// What a test answers: status, further header lines, body.
pub type Reply = (u16, String, String);

/// Answers without further headers.
pub fn reply(status: u16, body: impl Into<String>) -> Reply {
    (status, String::new(), body.into())
}

/// An error as registries write it.
pub fn refusal(status: u16, code: &str, message: &str) -> Reply {
    let body = serde_json::json!({ "errors": [{ "code": code, "message": message }] });
    reply(status, body.to_string())
}

pub struct Answering {
    url: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Answering {
    pub async fn new(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::<Mutex<Vec<Request>>>::default();
        let (all, answer) = (seen.clone(), Arc::new(answer));
        tokio::spawn(async move {
            loop {
                let peer = RawPeer::new(listener.accept().await.unwrap().0);
                let (all, answer) = (all.clone(), answer.clone());
                tokio::spawn(async move { serve(peer, &*answer, &all).await });
            }
        });
        Self { url, seen }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Method and target of what came so far; from here on anew.
    pub fn take(&self) -> Vec<String> {
        let seen = std::mem::take(&mut *self.seen.lock().unwrap());
        let line = |request: &Request| format!("{} {}", request.method(), request.target());
        seen.iter().map(line).collect()
    }

    /// The value of a header of all requests so far.
    pub fn header(&self, name: &str) -> Vec<Option<String>> {
        let seen = self.seen.lock().unwrap();
        let value = |request: &Request| request.head.get(name).map(str::to_owned);
        seen.iter().map(value).collect()
    }

    /// A gateway in front of it, as this product.
    pub async fn gateway(&self, product: &str, keys: &str, tables: &str) -> Gateway {
        let keys = format!("product = '{product}'\n{keys}");
        let domain = Domain::new("ci.test", &self.url).upstream(&keys);
        let domain = domain.tables(tables).user("root", "secret");
        Setup::new().domain(domain).start().await
    }
}

async fn serve(
    mut peer: RawPeer<TcpStream>,
    answer: &(dyn Fn(&Request) -> Reply + Send + Sync),
    seen: &Mutex<Vec<Request>>,
) {
    loop {
        match wire::parse(&peer.buffer).unwrap() {
            Some((request, taken)) => {
                peer.buffer.drain(..taken);
                let (status, lines, body) = answer(&request);
                let is_head = request.method() == "HEAD";
                // How the registry wants a login, which others test.
                if request.target() != "/v2/" {
                    seen.lock().unwrap().push(request);
                }
                let length = body.len();
                let sent = if is_head { "" } else { &body };
                let text = format!(
                    "HTTP/1.1 {status} Played\r\nContent-Type: application/json\r\n\
                     Content-Length: {length}\r\n{lines}\r\n{sent}"
                );
                if peer.try_send(text).await.is_err() {
                    return;
                }
            }
            None if peer.more().await => {}
            None => return,
        }
    }
}
