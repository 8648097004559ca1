//! The control socket and the commands that speak to it, as the real program does.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use super::GuessingFixture;
use crate::harness::{Clock, Domain, Gateway, Origin, RawPeer, Setup, promptly};

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
        (
            Some(0),
            "process PID (DIR): alice has all tries again at ci.test\n".to_owned()
        )
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
        (
            Some(0),
            "process PID (DIR): 192.0.2.1 has all its tries again\n".to_owned()
        )
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
            "process PID (DIR): nothing was counted against carol\n",
        ),
        (
            &["unlock", "2001:db8::1"],
            0,
            "process PID (DIR): nothing was counted against 2001:db8::1\n",
        ),
        (
            &["unlock", "carol", "--domain", "ci.test"],
            0,
            "process PID (DIR): nothing was counted against carol\n",
        ),
        (
            &["unlock", "carol", "--domain", "x.test"],
            1,
            "process PID (DIR): there is no domain x.test; there are: ci.test, other.test\n",
        ),
        (
            &["unlock", "192.0.2.1", "--domain", "ci.test"],
            2,
            "process PID (DIR): a domain goes with a user only: addresses are counted for all domains together\n",
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
        (
            Some(0),
            "process PID (DIR): the configuration is reloaded\n".to_owned()
        )
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
    let words = "moorgate: no moorgate runs here: nobody answers in DIR/state/control; \
                 is --config that of the running one?\n";
    for arguments in [&["reload"][..], &["unlock", "--all"]] {
        assert_eq!(
            cli(directory.path(), arguments).await,
            (Some(1), words.to_owned())
        );
    }
    // As after a process that was killed.
    let sockets = directory.path().join("state/control");
    std::fs::create_dir_all(&sockets).unwrap();
    drop(std::os::unix::net::UnixListener::bind(sockets.join("x.sock")).unwrap());
    assert_eq!(
        cli(directory.path(), &["reload"]).await,
        (Some(1), words.to_owned())
    );
}

#[tokio::test]
async fn the_control_socket_is_private_and_replaces_a_stale_one() {
    let gateway = Gateway::before("http://127.0.0.1:1").await;
    let socket = gateway.control_socket();
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
    let connect =
        async || RawPeer::new(UnixStream::connect(gateway.control_socket()).await.unwrap());
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
}

#[tokio::test]
async fn clients_that_send_no_command_do_not_delay_others() {
    let gateway = Gateway::before("http://127.0.0.1:1").await;
    let clock = Clock::stopped();
    let connect =
        async || RawPeer::new(UnixStream::connect(gateway.control_socket()).await.unwrap());
    let mut silent = Vec::new();
    for _ in 0..63 {
        let mut client = connect().await;
        client.send("{").await;
        silent.push(client);
    }
    let reload = b"{\"command\":\"reload\"}\n";
    let mut next = connect().await;
    next.io.write_all(reload).await.unwrap();
    let said = String::from_utf8(promptly(next.rest()).await).unwrap();
    assert!(said.contains("\"outcome\":\"done\""), "{said}");
    // At the bound, the next one waits for the time of one of them.
    silent.push(connect().await);
    let mut next = connect().await;
    next.io.write_all(reload).await.unwrap();
    next.silent().await;
    clock.jump(crate::harness::seconds(6)).await;
    let said = String::from_utf8(promptly(next.rest()).await).unwrap();
    assert!(said.contains("\"outcome\":\"done\""), "{said}");
}

/// A process of another configuration with the state of this one.
async fn second_process(first: &Gateway) -> Gateway {
    let directory = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(first.path("state"), directory.path().join("state")).unwrap();
    let domain = Domain::new("other.test", "http://127.0.0.1:1");
    let setup = Setup::new().domain(domain);
    setup.try_start_in(directory).await.unwrap()
}

#[tokio::test]
async fn a_command_reaches_the_process_of_its_configuration() {
    let first = Gateway::before("http://127.0.0.1:1").await;
    let second = second_process(&first).await;
    let pid = std::process::id();
    let (one, other) = (first.directory.path(), second.directory.path());
    for (directory, domain) in [(one, "ci.test"), (other, "other.test")] {
        // The problem is in the configuration of this process alone.
        let file = directory.join(format!("conf.d/{domain}.toml"));
        let good = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, "domian = ''").unwrap();
        let (code, said) = cli(directory, &["reload"]).await;
        assert_eq!(code, Some(2), "{said}");
        assert!(
            said.starts_with("process PID (DIR): the configuration is reloaded, but not all of it is in force:\nerror"),
            "{said}"
        );
        std::fs::write(&file, good).unwrap();
        let done = (
            Some(0),
            "process PID (DIR): the configuration is reloaded\n".to_owned(),
        );
        assert_eq!(cli(directory, &["reload"]).await, done);
    }
    let (code, said) = cli(one, &["unlock", "--all", "--all-processes"]).await;
    assert_eq!((code, said.lines().count()), (Some(0), 2), "{said}");
    assert!(said.contains(other.to_str().unwrap()), "{said}");
    // Each end leaves the other one reachable.
    assert!(first.stop().await);
    let other = other.to_owned();
    assert_eq!(cli(&other, &["unlock", "--all"]).await.0, Some(0));
    let (code, said) = cli(one, &["reload"]).await;
    let wanted = format!(
        "moorgate: no moorgate runs with the configuration DIR; with its state runs process PID ({}): \
         name that configuration by --config, or all by --all-processes\n",
        other.display()
    );
    assert_eq!((code, said), (Some(1), wanted), "{pid}");
}

#[tokio::test]
async fn a_reload_and_the_status_tell_what_is_wrong() {
    let gateway = Gateway::before("http://127.0.0.1:1").await;
    let directory = gateway.directory.path().to_owned();
    let status = async || gateway.status().await["configuration"].clone();
    let users = gateway.path("conf.d/ci.test.htpasswd");
    assert!(users.exists());
    std::fs::write(&users, "alice:secret\n").unwrap();
    let (code, said) = cli(&directory, &["reload"]).await;
    assert_eq!(code, Some(0));
    let warning = "the configuration is reloaded\nwarning: ci.test: the password file `DIR/conf.d/ci.test.htpasswd` has no usable entry";
    assert!(said.contains(warning), "{said}");
    let shown = status().await;
    assert_eq!(shown["refused"], serde_json::Value::Null);
    assert_eq!(shown["problems"][0]["domain"], "ci.test");
    let loaded = shown["loaded"].clone();

    let main = gateway.path("moorgate.toml");
    let text = std::fs::read_to_string(&main).unwrap();
    std::fs::write(&main, format!("stat = 'x'\n{text}")).unwrap();
    assert_eq!(cli(&directory, &["reload"]).await.0, Some(2));
    let shown = status().await;
    let refused = shown["refused"].as_str().unwrap();
    assert!(refused.contains("unknown key `stat`"), "{refused}");
    assert!(refused.contains("moorgate.toml"), "{refused}");
    // Anybody on this machine may read it, and the line may have a secret in it.
    assert!(!refused.contains("stat = 'x'"), "{refused}");
    assert_eq!(shown["loaded"], loaded, "of the one in force");
}
