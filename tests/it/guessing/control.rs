//! The control socket and the commands that speak to it, as the real program does.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use super::GuessingFixture;
use crate::harness::{Domain, Gateway, Origin, RawPeer, Setup, promptly};

/// How a command ends that has no data to print, and what it says.
async fn cli(directory: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let (code, printed, said) = crate::harness::cli(directory, arguments).await;
    assert_eq!(printed, "");
    (code, said)
}

#[tokio::test]
async fn unlocking_restores_the_tries() {
    let mut fixture = GuessingFixture::new(5, 5).await;
    let directory = fixture.gateway.directory.path().to_owned();
    fixture.guess_on("192.0.2.1", "alice", "wrong").await;
    for from in ["192.0.2.1", "192.0.2.2"] {
        fixture
            .guess_on(from, "alice", &format!("wrong from {from}"))
            .await;
    }
    assert_eq!(fixture.login("192.0.2.2", "alice", "secret").await, 429);
    let done = cli(&directory, &["unlock", "alice"]).await;
    assert_eq!(
        done,
        (Some(0), "alice has all tries again at ci.test\n".to_owned())
    );
    assert_eq!(fixture.login("192.0.2.2", "alice", "secret").await, 200);
    assert_eq!(
        fixture.login("192.0.2.1", "bob", "hunter2").await,
        429,
        "the address is another matter"
    );
    let done = cli(&directory, &["unlock", "192.0.2.1"]).await;
    assert_eq!(
        done,
        (Some(0), "192.0.2.1 has all its tries again\n".to_owned())
    );
    assert_eq!(fixture.login("192.0.2.1", "bob", "hunter2").await, 200);
    fixture.guess_on("192.0.2.9", "nobody", "wrong").await;
    assert_eq!(cli(&directory, &["unlock", "--all"]).await.0, Some(0));
    assert_eq!(fixture.login("192.0.2.9", "nobody", "wrong").await, 401);
}

#[tokio::test]
async fn unlocking_reports_what_it_reset() {
    let fixture = GuessingFixture::new(5, 5).await;
    let directory = fixture.gateway.directory.path().to_owned();
    for (arguments, code, said) in [
        (
            &["unlock", "carol"][..],
            0,
            "nothing was counted against carol\n",
        ),
        (
            &["unlock", "2001:db8::1"],
            0,
            "nothing was counted against 2001:db8::1\n",
        ),
        (
            &["unlock", "carol", "--domain", "ci.test"],
            0,
            "nothing was counted against carol\n",
        ),
        (
            &["unlock", "carol", "--domain", "x.test"],
            1,
            "there is no domain x.test; there are: ci.test, other.test\n",
        ),
        (
            &["unlock", "192.0.2.1", "--domain", "ci.test"],
            2,
            "a domain goes with a user only: addresses are counted for all domains together\n",
        ),
    ] {
        assert_eq!(
            cli(&directory, arguments).await,
            (Some(code), said.to_owned()),
            "{arguments:?}"
        );
    }
    for arguments in [&["unlock"][..], &["unlock", "alice", "--all"]] {
        assert_eq!(cli(&directory, arguments).await.0, Some(2), "{arguments:?}");
    }
}

#[tokio::test]
async fn a_failed_reload_prints_the_problems_and_changes_nothing() {
    let origin = Origin::new().await;
    let gateway = Gateway::before(&origin.url()).await;
    let directory = gateway.directory.path().to_owned();
    assert_eq!(
        cli(&directory, &["reload"]).await,
        (Some(0), "the configuration is reloaded\n".to_owned())
    );
    let file = gateway.path("conf.d/ci.test.toml");
    let good = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, good.replace("domain = ", "domian = ")).unwrap();
    let (code, said) = cli(&directory, &["reload"]).await;
    assert_eq!(code, Some(2));
    assert!(
        said.contains("unknown key `domian`") && said.contains("did you mean `domain`?"),
        "{said}"
    );
    assert!(gateway.tls("ci.test", &["http/1.1"]).await.is_ok());
    // Even with a main file that says nothing any more, it is found why.
    std::fs::write(&file, good).unwrap();
    std::fs::write(gateway.path("moorgate.toml"), "state = \n").unwrap();
    let (code, said) = cli(&directory, &["reload"]).await;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("moorgate.toml:1"), "{said}");
}

#[tokio::test]
async fn a_reload_applies_new_budgets_and_proxies() {
    let mut fixture = GuessingFixture::new(5, 100).await;
    assert_eq!(fixture.guess_on("192.0.2.1", "alice", "wrong").await, 5);
    let main = fixture.gateway.path("moorgate.toml");
    let text = std::fs::read_to_string(&main).unwrap();
    std::fs::write(
        &main,
        text.replace("address_failures = 5", "address_failures = 50"),
    )
    .unwrap();
    let directory = fixture.gateway.directory.path().to_owned();
    assert_eq!(cli(&directory, &["reload"]).await.0, Some(0));
    assert_eq!(fixture.guess_on("192.0.2.2", "alice", "wrong").await, 50);
    std::fs::write(&main, text.replace("\"127.0.0.1\"", "")).unwrap();
    assert_eq!(cli(&directory, &["reload"]).await.0, Some(0));
    fixture.origin.requests();
    assert_eq!(fixture.login("192.0.2.77", "bob", "hunter2").await, 200);
    assert_eq!(
        fixture.origin.requests()[0].head.get("x-forwarded-for"),
        Some("127.0.0.1"),
        "on the same connection"
    );
}

#[tokio::test]
async fn commands_report_that_no_process_runs() {
    let directory = tempfile::tempdir().unwrap();
    Setup::new()
        .domain(Domain::new("ci.test", "http://127.0.0.1:1"))
        .write(directory.path());
    let words = "moorgate: no moorgate runs here: nobody answers at DIR/state/control.sock; \
                 is --config that of the running one?\n";
    for arguments in [&["reload"][..], &["unlock", "--all"]] {
        assert_eq!(
            cli(directory.path(), arguments).await,
            (Some(1), words.to_owned())
        );
    }
    // As after a process that was killed.
    std::fs::create_dir_all(directory.path().join("state")).unwrap();
    drop(
        std::os::unix::net::UnixListener::bind(directory.path().join("state/control.sock"))
            .unwrap(),
    );
    assert_eq!(
        cli(directory.path(), &["reload"]).await,
        (Some(1), words.to_owned())
    );
}

#[tokio::test]
async fn the_control_socket_is_private_and_replaces_a_stale_one() {
    let gateway = Gateway::before("http://127.0.0.1:1").await;
    let socket = gateway.path("state/control.sock");
    assert_eq!(
        std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(gateway.stop().await);
    assert!(!socket.exists());
}

#[tokio::test]
async fn a_malformed_command_does_not_stop_the_next_one() {
    let gateway = Gateway::before("http://127.0.0.1:1").await;
    let connect = async || {
        RawPeer::new(
            UnixStream::connect(gateway.path("state/control.sock"))
                .await
                .unwrap(),
        )
    };
    let long = format!(
        "{{\"command\":\"reload\",\"x\":\"{}\"}}\n",
        "x".repeat(20_000)
    );
    for line in [
        "\n",
        "reload\n",
        "{\"command\":\"format\"}\n",
        "{\"command\":\"reload\",\"x\":1}\n",
        &long,
    ] {
        let mut client = connect().await;
        client.send(line).await;
        let said = String::from_utf8(promptly(client.rest()).await).unwrap();
        assert!(
            said.starts_with("{\"outcome\":\"refused\"") || line.len() > 16_384,
            "{said}"
        );
        assert!(!said.contains("done"), "{said}");
    }
    // A client that never ends its line does not delay the others for long.
    let mut silent = connect().await;
    silent.send("{").await;
    let mut next = connect().await;
    next.io
        .write_all(b"{\"command\":\"reload\"}\n")
        .await
        .unwrap();
    next.silent().await;
    crate::harness::jump(crate::harness::seconds(6)).await;
    let said = String::from_utf8(promptly(next.rest()).await).unwrap();
    assert!(said.contains("\"outcome\":\"done\""), "{said}");
}
