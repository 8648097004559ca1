//! Passwords that nobody can log in with, directories that cannot be written, and ports that are
//! taken.

use std::fs;
use std::net::TcpListener;

use tokio::net::TcpStream;

use super::{check, masked};
use crate::harness::{Domain, Setup, cli, promptly};

/// A domain with nothing wrong in front of a registry that nobody asks.
fn domain() -> Domain {
    Domain::new("ci.test", "http://127.0.0.1:1")
}

#[tokio::test]
async fn entries_that_are_not_bcrypt_are_warned_of_beside_good_ones() {
    let directory = tempfile::tempdir().unwrap();
    Setup::new().domain(domain()).write(directory.path());
    let file = directory.path().join("conf.d/ci.test.htpasswd");
    let good = fs::read_to_string(&file).unwrap();
    let bad = "bob:$apr1$x$y\nplain:secret\nnothing\nalice:$2y$05$x\n";
    fs::write(&file, format!("{good}{bad}")).unwrap();
    let (status, said) = check(directory.path(), &[]).await;
    assert_eq!(status, 0, "{said}");
    insta::assert_snapshot!(said, @r#"
    warning: line 2 of DIR/conf.d/ci.test.htpasswd: `bob` has an MD5 password ($apr1$), only bcrypt is accepted
     --> DIR/conf.d/ci.test.toml:6:12
      |
    6 | htpasswd = "ci.test.htpasswd"
      |            ^^^^^^^^^^^^^^^^^^
      |
      = help: run `moorgate htpasswd DIR/conf.d/ci.test.htpasswd bob` or `htpasswd -B DIR/conf.d/ci.test.htpasswd bob`

    warning: line 3 of DIR/conf.d/ci.test.htpasswd: `plain` has a plain password, only bcrypt is accepted
     --> DIR/conf.d/ci.test.toml:6:12
      |
    6 | htpasswd = "ci.test.htpasswd"
      |            ^^^^^^^^^^^^^^^^^^
      |
      = help: run `moorgate htpasswd DIR/conf.d/ci.test.htpasswd plain` or `htpasswd -B DIR/conf.d/ci.test.htpasswd plain`

    warning: line 4 of DIR/conf.d/ci.test.htpasswd: is not `user:hash`, and not a comment either
     --> DIR/conf.d/ci.test.toml:6:12
      |
    6 | htpasswd = "ci.test.htpasswd"
      |            ^^^^^^^^^^^^^^^^^^
      |
      = help: correct or delete the line

    warning: line 5 of DIR/conf.d/ci.test.htpasswd: `alice` is already on line 1, which is the one that counts
     --> DIR/conf.d/ci.test.toml:6:12
      |
    6 | htpasswd = "ci.test.htpasswd"
      |            ^^^^^^^^^^^^^^^^^^
      |
      = help: delete one of them

    4 warnings
    "#);
    assert_eq!(check(directory.path(), &["--strict"]).await, (1, said));
}

#[tokio::test]
async fn a_check_creates_nothing_and_has_nothing_to_say_of_what_is_right() {
    let directory = tempfile::tempdir().unwrap();
    let setup = Setup::new().domain(domain());
    let setup = setup.domain(Domain::store("store.test", "s").auth("mode = \"token\""));
    setup.write(directory.path());
    for arguments in [&[][..], &["--strict"], &["--json"]] {
        let said = check(directory.path(), arguments).await;
        assert_eq!(said, (0, String::new()));
    }
    assert!(!directory.path().join("state").exists());
}

#[tokio::test]
async fn a_state_directory_that_cannot_be_written_is_one_problem_where_it_is_named() {
    let rules = "[[access]]\nusers = [\"alice\"]\nrepositories = [\"**\"]\nactions = [\"pull\"]";
    let directory = tempfile::tempdir().unwrap();
    let setup = |tables: &str| {
        let setup = Setup::new().domain(domain().tables(tables));
        setup.write(directory.path());
        fs::write(directory.path().join("state"), "a file").unwrap();
    };
    setup(rules);
    let (status, said) = check(directory.path(), &[]).await;
    assert_eq!(status, 2, "{said}");
    let user = format!("id {}", rustix::process::geteuid().as_raw());
    insta::assert_snapshot!(said.replace(&user, "id USER"), @r#"
    error: the state directory DIR/state cannot be written: not a directory
     --> DIR/moorgate.toml:3:9
      |
    3 | state = "state"
      |         ^^^^^^^
      |
      = help: make it writable for the user that runs moorgate (this one has the id USER), or name another directory in `state`

    1 error
    "#);
    // Without rules, tokens and a store of its own, moorgate serves without it.
    setup("");
    let (status, said) = check(directory.path(), &[]).await;
    assert_eq!((status, said.starts_with("warning: ")), (0, true), "{said}");
}

#[tokio::test]
async fn a_start_says_the_same_as_a_check_and_names_the_cause_once() {
    let rules = "[[access]]\nusers = [\"alice\"]\nrepositories = [\"**\"]\nactions = [\"pull\"]";
    let directory = tempfile::tempdir().unwrap();
    let setup = Setup::new().domain(domain().tables(rules));
    setup.write(directory.path());
    fs::write(directory.path().join("state"), "a file").unwrap();
    let (_, checked) = check(directory.path(), &[]).await;
    let (status, _, said) = cli(directory.path(), &["run"]).await;
    assert_eq!((status, said), (Some(1), checked));
    // The domain without rules is served: only what needs the directory fails.
    let tokens = domain().auth("mode = \"token\"");
    Setup::new().domain(tokens).write(directory.path());
    fs::remove_file(directory.path().join("state")).unwrap();
    fs::create_dir_all(directory.path().join("state/refresh-tokens.json")).unwrap();
    for command in ["run", "check"] {
        let (_, _, said) = cli(directory.path(), &[command]).await;
        assert_eq!(
            said.matches("Is a directory (os error 21)").count(),
            1,
            "{said}"
        );
    }
    let (status, _, said) = cli(directory.path(), &["tokens", "list"]).await;
    let cause = "the refresh tokens in DIR/state/refresh-tokens.json cannot be used: Is a directory (os error 21)";
    assert_eq!((status, said), (Some(1), format!("moorgate: {cause}\n")));
}

#[tokio::test]
async fn a_reload_that_lacks_an_address_shows_where_it_is_named() {
    let gateway = Setup::new().domain(domain()).start().await;
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap();
    let main = fs::read_to_string(gateway.path("moorgate.toml")).unwrap();
    let main = main.replace("\"127.0.0.3:0\"", &format!("\"{taken}\""));
    fs::write(gateway.path("moorgate.toml"), main).unwrap();
    let (status, _, said) = cli(gateway.directory.path(), &["reload"]).await;
    let port = taken.port().to_string();
    let said = masked(said).replace(&port, &"P".repeat(port.len()));
    assert_eq!(status, Some(1), "{said}");
    insta::assert_snapshot!(said, @r#"
    process PID (DIR): the configuration is reloaded, but not all of it is in force:
    error: cannot listen on 127.0.0.1:PPPPP: already in use by NAME (pid PID)
     --> DIR/moorgate.toml:6:10
      |
    6 | listen = "127.0.0.1:PPPPP"
      |          ^^^^^^^^^^^^^^^^^
      |
      = help: stop what uses it, or write another address
    "#);
}

#[tokio::test]
async fn damaged_keys_in_the_state_directory_are_found() {
    let rules = "[[access]]\nusers = [\"alice\"]\nrepositories = [\"**\"]\nactions = [\"pull\"]";
    let directory = tempfile::tempdir().unwrap();
    let domain = domain().tables(rules).auth("mode = \"token\"");
    Setup::new().domain(domain).write(directory.path());
    let state = directory.path().join("state");
    fs::create_dir(&state).unwrap();
    for file in ["upload-sessions.key", "token-keys.json"] {
        fs::write(state.join(file), "damaged").unwrap();
    }
    let (status, said) = check(directory.path(), &[]).await;
    assert_eq!(status, 2, "{said}");
    insta::assert_snapshot!(said, @r#"
    error: the key that binds uploads to their users, DIR/state/upload-sessions.key, cannot be used: the file is not a key
     --> DIR/moorgate.toml:3:9
      |
    3 | state = "state"
      |         ^^^^^^^
      |
      = help: delete the file: a new one is made, and uploads that are under way begin again

    error: DIR/state/token-keys.json has no token keys; without the file new ones are generated, and all users have to log in again
     --> DIR/conf.d/ci.test.toml:7:8
      |
    7 | mode = "token"
      |        ^^^^^^^
      |
      = help: make the file readable and the state directory writable for moorgate's user; a damaged file can be taken away

    2 errors
    "#);
}

#[tokio::test]
async fn a_port_of_another_process_is_an_error_at_its_place() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap();
    let listen = format!("listen = [\"127.0.0.1:0\", \"{taken}\", \"192.0.2.1:0\"]");
    let directory = tempfile::tempdir().unwrap();
    let setup = Setup::new().domain(domain().top(&listen));
    setup.write(directory.path());
    let (status, said) = check(directory.path(), &[]).await;
    assert_eq!(status, 2, "{said}");
    let port = taken.port().to_string();
    let shown = said.replace(&port, &"P".repeat(port.len()));
    insta::assert_snapshot!(shown, @r#"
    error: cannot listen on 127.0.0.1:PPPPP: already in use by NAME (pid PID)
     --> DIR/conf.d/ci.test.toml:2:26
      |
    2 | listen = ["127.0.0.1:0", "127.0.0.1:PPPPP", "192.0.2.1:0"]
      |                          ^^^^^^^^^^^^^^^^^
      |
      = help: stop what uses it, or write another address

    error: cannot listen on 192.0.2.1:0: this machine does not have the address
     --> DIR/conf.d/ci.test.toml:2:45
      |
    2 | listen = ["127.0.0.1:0", "127.0.0.1:PPPPP", "192.0.2.1:0"]
      |                                             ^^^^^^^^^^^^^
      |
      = help: write an address of this machine, as `ip address` lists them, or ":PORT" for all of them

    2 errors
    "#);
    drop(other);
    let (_, said) = check(directory.path(), &[]).await;
    assert!(!said.contains("in use"), "{said}");
}

#[tokio::test]
async fn ports_of_the_moorgate_that_runs_here_are_no_problem() {
    let gateway = Setup::new().domain(domain()).start().await;
    let (https, http, admin) = (gateway.https(), gateway.http(), gateway.admin());
    let main = fs::read_to_string(gateway.path("moorgate.toml")).unwrap();
    let main = main
        .replace("127.0.0.1:0", &https.to_string())
        .replace("127.0.0.2:0", &http.to_string())
        .replace("127.0.0.3:0", &admin.to_string());
    fs::write(gateway.path("moorgate.toml"), &main).unwrap();
    // The running process follows the change, and opens the addresses anew.
    gateway.app.reload().await.unwrap();
    for address in [https, http, admin] {
        promptly(async {
            while TcpStream::connect(address).await.is_err() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    let said = check(gateway.directory.path(), &[]).await;
    assert_eq!(said, (0, String::new()));
    // With another state directory it would be another moorgate.
    let other = tempfile::tempdir().unwrap();
    Setup::new().domain(domain()).write(other.path());
    fs::write(other.path().join("moorgate.toml"), main).unwrap();
    let (status, said) = check(other.path(), &[]).await;
    assert_eq!((status, said.matches("already in use").count()), (2, 3));
}
