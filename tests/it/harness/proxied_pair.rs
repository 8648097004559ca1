//! One client and one upstream with a gateway between them: a request goes through and its answer
//! comes back, whichever connection the gateway takes for it.

use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::{Domain, Gateway, Head, RawPeer, Setup, Upstream};

/// Both ends of a gateway.
pub struct ProxiedPair {
    pub gateway: Gateway,
    pub upstream: Upstream,
    pub client: RawPeer<TlsStream<TcpStream>>,
    /// The connection over which the last request came to the upstream.
    pub registry: Option<RawPeer<TcpStream>>,
}

impl ProxiedPair {
    /// Before the domain `ci.test` as it is by default.
    pub async fn new() -> Self {
        Self::with(|domain| domain).await
    }

    /// Before the domain `ci.test` with further settings.
    pub async fn with(settings: impl FnOnce(Domain) -> Domain) -> Self {
        let upstream = Upstream::new().await;
        let domain = settings(Domain::new("ci.test", &upstream.url()));
        let gateway = Setup::new().domain(domain).start().await;
        let client = gateway.client().await;
        Self {
            gateway,
            upstream,
            client,
            registry: None,
        }
    }

    /// Sends a request and returns its head as the upstream sees it.
    pub async fn forwarded(&mut self, request: impl AsRef<[u8]>) -> Head {
        self.client.send(request).await;
        self.asked().await
    }

    /// The next head at the upstream, over the connection before or a new one.
    pub async fn asked(&mut self) -> Head {
        let Some(registry) = &mut self.registry else {
            self.registry = Some(self.upstream.accept().await);
            return self.registry().head().await;
        };
        let mut fresh = tokio::select! {
            // What was read stays in the peer's buffer, so losing this branch loses nothing.
            head = registry.try_head() => match head {
                Some(head) => return head,
                None => self.upstream.accept().await,
            },
            fresh = self.upstream.accept() => fresh,
        };
        let head = fresh.head().await;
        self.registry = Some(fresh);
        head
    }

    /// The upstream's end of the current connection.
    pub fn registry(&mut self) -> &mut RawPeer<TcpStream> {
        self.registry.as_mut().expect("a request came before")
    }

    /// The upstream answers; returns what the client gets.
    pub async fn answered(&mut self, answer: impl AsRef<[u8]>) -> (Head, Vec<u8>) {
        self.registry().send(answer).await;
        self.client.answer().await
    }

    /// The same for answers without a body.
    pub async fn answered_head(&mut self, answer: impl AsRef<[u8]>) -> Head {
        self.registry().send(answer).await;
        self.client.head().await
    }

    /// A request, the upstream's empty 200 to it, and the head that the upstream saw.
    pub async fn passed(&mut self, request: impl AsRef<[u8]>) -> Head {
        let asked = self.forwarded(request).await;
        let (head, _) = self
            .answered("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            .await;
        assert_eq!(head.status(), 200);
        asked
    }

    /// Sends a request that the gateway answers itself.
    pub async fn own_answer(&mut self, request: impl AsRef<[u8]>) -> (Head, Vec<u8>) {
        self.client.send(request).await;
        unforwarded(&self.upstream, &mut self.client).await
    }

    /// Asks with a connection of its own, so that an answer with `Connection: close` ends nothing
    /// else.
    pub async fn own_answer_apart(&self, request: impl AsRef<[u8]>) -> (Head, Vec<u8>) {
        let mut client = self.gateway.client().await;
        client.send(request).await;
        unforwarded(&self.upstream, &mut client).await
    }
}

async fn unforwarded(
    upstream: &Upstream,
    client: &mut RawPeer<TlsStream<TcpStream>>,
) -> (Head, Vec<u8>) {
    let answer = tokio::select! {
        answer = client.answer() => answer,
        _ = upstream.accept() => panic!("it was forwarded"),
    };
    upstream.untouched().await;
    answer
}
