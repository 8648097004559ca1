//! Guessing at passwords: its cost, its lockouts, and who is not affected.

mod budgets;
mod control;
mod log;
mod proxies;

use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::harness::{Clock, Domain, Gateway, Head, Origin, RawPeer, Setup, basic};

/// A gateway that trusts this machine as a proxy.
struct GuessingFixture {
    gateway: Gateway,
    origin: Origin,
    client: RawPeer<TlsStream<TcpStream>>,
    /// Stopped, since tries are restored with time.
    clock: Clock,
}

impl GuessingFixture {
    /// With budgets for an address and for a user in ten minutes.
    async fn new(address: u32, user: u32) -> Self {
        let origin = Origin::new().await;
        let domain = Domain::new("ci.test", &origin.url()).user("bob", "hunter2");
        let other = Domain::new("other.test", &origin.url());
        let auth = format!("[auth]\naddress_failures = {address}\nuser_failures = {user}");
        let setup = Setup::new()
            .domain(domain)
            .domain(other)
            .top("trusted_proxies = [\"127.0.0.1\"]");
        let gateway = setup.main(&auth).start().await;
        let client = gateway.client().await;
        Self {
            gateway,
            origin,
            client,
            clock: Clock::stopped(),
        }
    }

    /// Logs in from an address.
    async fn answer(&mut self, from: &str, user: &str, password: &str) -> (Head, Vec<u8>) {
        let authorization = basic(user, password);
        let head = format!(
            "GET /v2/ HTTP/1.1\r\nHost: ci.test\r\nX-Forwarded-For: {from}\r\nAuthorization: {authorization}\r\n\r\n"
        );
        self.client.send(head).await;
        self.client.answer().await
    }

    async fn login(&mut self, from: &str, user: &str, password: &str) -> u16 {
        self.answer(from, user, password).await.0.status()
    }

    /// Guesses until the gateway answers 429. Returns the number of guesses before.
    async fn guess_on(&mut self, from: &str, user: &str, word: &str) -> u32 {
        for number in 0..200 {
            match self.login(from, user, &format!("{word} {number}")).await {
                401 => {}
                429 => return number,
                other => panic!("{other}"),
            }
        }
        panic!("it does not end")
    }

    fn hashes(&self) -> u64 {
        self.gateway.app.hashes()
    }
}
