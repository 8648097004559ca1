//! Lists that a product's own API does not give, or gives as it should not.

use std::net::TcpListener;

use super::fixture::{LISTED_BY_API, ListsFixture, login, player, refused};
use crate::harness::played::{PLAYED_PRODUCTS, PlayedCatalog};
use crate::harness::{Clock, Domain, Setup, Upstream, request, seconds};

const MAP: &str = "[[upstream.map]]\nprefix = ''\nto = 'acme/'\n";

#[tokio::test]
async fn no_page_is_requested_at_an_address_that_an_answer_names() {
    for (product, _) in PLAYED_PRODUCTS {
        let thief = TcpListener::bind("127.0.0.1:0").unwrap();
        thief.set_nonblocking(true).unwrap();
        let target = format!("http://{}/v2/_catalog?page=2", thief.local_addr().unwrap());
        let played = player(product, |switches| {
            switches.next_page = Some(target);
            switches.pages.max = 100;
            switches.catalog = match switches.catalog {
                PlayedCatalog::Admins => PlayedCatalog::Everybody,
                other => other,
            };
        });
        let played = played.await;
        for n in 0..150 {
            played.make_repository(&format!("acme/app-{n:03}"));
        }
        let login = login(product, &played);
        let fixture = ListsFixture::before(played, &format!("{login}\n{MAP}")).await;
        let listed = fixture.get("/v2/_catalog").await;
        listed.expect(200);
        let count = listed.json()["repositories"].as_array().unwrap().len();
        let is_by_api = LISTED_BY_API.contains(&product);
        assert_eq!(count, if is_by_api { 150 } else { 100 }, "{product}");
        assert!(thief.accept().is_err(), "{product} was followed");
    }
}

#[tokio::test]
async fn a_throttled_api_says_when_to_come_again() {
    for product in LISTED_BY_API {
        let fixture = ListsFixture::new(product, MAP).await;
        fixture.played.make_repository("acme/app");
        fixture.played.set(|switches| switches.api_throttled = 1);
        let answer = fixture.get("/v2/_catalog").await;
        refused(&answer, 429, "TOOMANYREQUESTS");
        let seconds: u32 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=3600).contains(&seconds), "{product}: {seconds}");
        fixture.get("/v2/_catalog").await.expect(200);
    }
}

#[tokio::test]
async fn credentials_that_an_api_refuses_are_no_fault_of_the_client() {
    for product in LISTED_BY_API {
        let wrong = "[upstream.admin]\nusername = 'admin'\npassword = 'wrong-secret'\n";
        let fixture = ListsFixture::new(product, &format!("{wrong}{MAP}")).await;
        let answer = fixture.get("/v2/_catalog").await;
        let message = refused(&answer, 502, "UNAVAILABLE");
        assert!(
            message.contains("user admin in [upstream.admin]"),
            "{message}"
        );
        assert!(!message.contains("secret"), "{message}");
    }
}

#[tokio::test]
async fn a_token_of_the_api_that_has_ended_is_exchanged() {
    let fixture = ListsFixture::new("dockerhub", MAP).await;
    fixture.played.make_repository("acme/app");
    for _ in 0..2 {
        let listed = fixture.get("/v2/_catalog").await;
        listed.expect(200);
        assert_eq!(listed.json()["repositories"], serde_json::json!(["app"]));
        fixture.played.revoke_tokens();
    }
}

#[tokio::test]
async fn a_list_without_an_end_is_left() {
    for product in LISTED_BY_API {
        let fixture = ListsFixture::new(product, MAP).await;
        fixture.played.make_repository("acme/app");
        fixture
            .played
            .set(|switches| switches.has_endless_lists = true);
        let answer = fixture.get("/v2/_catalog").await;
        let message = refused(&answer, 502, "UNAVAILABLE");
        assert!(message.contains("more pages"), "{message}");
        let count = fixture.played.take().len();
        assert!((1000..1010).contains(&count), "{product}: {count}");
    }
}

#[tokio::test]
async fn a_list_that_takes_too_long_is_no_part_of_one() {
    let clock = Clock::stopped();
    let upstream = Upstream::new().await;
    let url = upstream.url();
    let keys =
        format!("product = \"harbor\"\napi = \"{url}\"\nusername = 'robot'\npassword = 'secret'");
    let tables = format!("[timeouts]\nupstream_head = \"10 s\"\n{MAP}");
    let domain = Domain::new("ci.test", &url).upstream(&keys).tables(&tables);
    let gateway = Setup::new().domain(domain).start().await;
    let mut alice = gateway.client().await;
    alice.send(request("GET", "/v2/_catalog?n=1", "")).await;
    let mut api = upstream.accept().await;
    let head = api.head().await;
    let target = "/api/v2.0/projects/acme/repositories?page=1&page_size=100";
    assert_eq!(head.first, format!("GET {target} HTTP/1.1"));
    let body = "[{\"name\":\"acme/z\"}]";
    let length = body.len();
    let link = "</api/v2.0/projects/acme/repositories?page=2>; rel=\"next\"";
    api.send(format!(
        "HTTP/1.1 200 OK\r\nLink: {link}\r\nContent-Length: {length}\r\n\r\n{body}"
    ))
    .await;
    api.head().await;
    clock.jump(seconds(11)).await;
    assert_eq!(alice.answer().await.0.status(), 504);
}

#[tokio::test]
async fn a_list_that_cannot_be_is_refused_in_words() {
    for product in ["dockerhub", "ghcr"] {
        // Nobody's name, and no namespace.
        let nobody = "[upstream.login]\nusername = 'me@example.com'\npassword = 'secret'\n";
        for (tables, words) in [
            (nobody, "[[upstream.map]]"),
            ("", "[upstream] username and password"),
        ] {
            let played = player(product, |_| {}).await;
            let fixture = ListsFixture::before(played, tables).await;
            let answer = fixture.get("/v2/_catalog").await;
            let message = refused(&answer, 405, "UNSUPPORTED");
            assert!(message.contains(words), "{message}");
            assert_eq!(fixture.played.take_lines(), [""; 0]);
        }
    }
}

#[tokio::test]
async fn a_catalog_for_administrators_is_denied() {
    for (product, rules) in [
        ("gitlab", ""),
        ("acr", ""),
        (
            "acr",
            "[[access]]\nusers = ['alice']\nrepositories = ['**']\nactions = ['all']\n",
        ),
    ] {
        let played = player(product, |switches| {
            switches.catalog = PlayedCatalog::Admins;
            switches.takes_basic = false;
        });
        let played = played.await;
        let login = login(product, &played);
        let fixture = ListsFixture::before(played, &format!("{login}\n{rules}")).await;
        let answer = fixture.get("/v2/_catalog").await;
        let message = refused(&answer, 403, "DENIED");
        assert!(message.contains("administrators"), "{product}: {message}");
    }
}

#[tokio::test]
async fn a_project_without_the_right_to_list_it_is_denied() {
    let played = player("harbor", |switches| switches.closed_projects = vec!["acme"]).await;
    played.make_repository("acme/app");
    let login = login("harbor", &played);
    for map in ["", MAP] {
        let (addresses, switches) = (played.api_url(), played.switches());
        assert!(addresses.starts_with("http://") && switches.product == "harbor");
        let domain = Domain::new("ci.test", &played.url())
            .upstream(&format!("product = \"harbor\"\napi = \"{addresses}\""))
            .tables(&format!("{login}\n{map}"));
        let gateway = Setup::new().domain(domain).start().await;
        let alice = crate::harness::RegistryClient::through(&gateway);
        let message = refused(&alice.get("/v2/_catalog").await, 403, "DENIED");
        assert_eq!(message, "forbidden", "{map}");
    }
}
