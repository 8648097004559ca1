//! What a user of the machine gets of commands who is neither root nor moorgate's user.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::harness::{Domain, Gateway, PATIENCE, Setup};
use crate::real_peers::ports::free_port;

const MOORGATE: u32 = 65_534;
const OTHER: u32 = 65_533;

/// The program as a user who may run it wherever it was built, and enter the directory.
fn as_user(directory: &Path, user: u32) -> Command {
    assert!(rustix::process::geteuid().is_root(), "run this as root");
    let own = directory.join("moorgate");
    if !own.exists() {
        fs::copy(env!("CARGO_BIN_EXE_moorgate"), &own).unwrap();
    }
    for path in [directory, &own] {
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = Command::new("setpriv");
    command
        .arg(format!("--reuid={user}"))
        .arg(format!("--regid={user}"))
        .arg("--clear-groups")
        .arg(own);
    command
}

/// How a command ends, and what it prints and says.
async fn ran(directory: &Path, user: u32, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = as_user(directory, user);
    command.args(arguments).arg("--config").arg(directory);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    let text = |bytes| {
        let text = String::from_utf8(bytes).unwrap();
        text.replace(directory.to_str().unwrap(), "DIR")
    };
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn setup() -> Setup {
    Setup::new().domain(Domain::new("ci.test", "http://127.0.0.1:9"))
}

/// Lets `moorgate.toml` name the address of an admin listener, or none.
fn names_admin(directory: &Path, address: Option<&str>) {
    let file = directory.join("moorgate.toml");
    let text = fs::read_to_string(&file).unwrap();
    let admin = address.map_or(String::new(), |address| {
        format!("[admin]\nlisten = \"{address}\"")
    });
    fs::write(
        file,
        text.replace("[admin]\nlisten = \"127.0.0.3:0\"", &admin),
    )
    .unwrap();
}

fn certificate(directory: &Path) -> String {
    fs::read_to_string(directory.join("state/internal-ca/ca.pem")).unwrap()
}

#[tokio::test]
async fn everybody_gets_the_certificate_of_the_ca_from_the_admin_listener() {
    // Commands find it by the port in the configuration.
    let address = format!("127.0.0.1:{}", free_port());
    let gateway: Gateway = setup().admin(&address).start().await;
    let directory = gateway.directory.path();
    // The passwords and keys of domains are none of theirs either.
    let closed = directory.join("conf.d");
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
    let (status, printed, said) = ran(directory, OTHER, &["certs", "ca"]).await;
    assert_eq!((status, said.as_str()), (Some(0), ""));
    assert_eq!(printed, certificate(directory));
}

#[tokio::test]
async fn without_a_process_to_ask_the_command_that_works_is_said() {
    let gateway = setup().start().await;
    // It would listen where its configuration says.
    assert!(gateway.stop().await);
    let directory = gateway.directory.path();
    let state = directory.join("state");
    chown(&state, Some(MOORGATE), None).unwrap();
    let free = format!("127.0.0.1:{}", free_port());
    names_admin(directory, Some(&free));
    let (status, printed, said) = ran(directory, OTHER, &["certs", "ca"]).await;
    assert_eq!((status, printed.as_str()), (Some(1), ""));
    insta::assert_snapshot!(said.replace(&free, "ADMIN"), @"moorgate: cannot read DIR/state/internal-ca/ca.pem: Permission denied (os error 13); the directory belongs to nobody: run `sudo -u nobody moorgate certs ca --config DIR`, or ask again while moorgate runs, which hands it out at http://ADMIN/ca.pem (nobody listens there)");
    let main = directory.join("moorgate.toml");
    let text = fs::read_to_string(&main).unwrap();
    let without = text.replace(&format!("[admin]\nlisten = \"{free}\""), "");
    fs::write(main, without).unwrap();
    let (_, _, said) = ran(directory, OTHER, &["certs", "ca"]).await;
    insta::assert_snapshot!(said, @"moorgate: cannot read DIR/state/internal-ca/ca.pem: Permission denied (os error 13); the directory belongs to nobody: run `sudo -u nobody moorgate certs ca --config DIR`, or set `listen` in [admin]: the running moorgate hands it out there, at /ca.pem");
    // The same of what only the control socket can do.
    let (status, _, said) = ran(directory, OTHER, &["reload"]).await;
    assert_eq!(status, Some(1));
    insta::assert_snapshot!(said, @"moorgate: DIR/state/control may only be opened by root and by the user that moorgate runs as: begin the command with `sudo -u nobody`");
}

#[tokio::test]
async fn a_store_that_this_user_may_not_see_is_not_said_to_be_missing() {
    let domain = Domain::store("ci.test", "ci");
    let gateway = Setup::new().domain(domain).start().await;
    let directory = gateway.directory.path();
    for command in [&["gc", "ci.test"][..], &["store", "verify"]] {
        let (status, _, said) = ran(directory, OTHER, command).await;
        assert_eq!(status, Some(1), "{said}");
        assert_eq!(
            said,
            "moorgate: cannot read DIR/state/store/ci: Permission denied (os error 13): begin the command with `sudo`\n"
        );
    }
}

/// A moorgate that runs as another user, until this is dropped.
struct Foreign(Child);

impl Drop for Foreign {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test]
async fn the_certificate_of_another_user_s_ca_is_not_taken_for_ours() {
    let gateway = setup().start().await;
    let directory = gateway.directory.path();
    let theirs = tempfile::tempdir().unwrap();
    setup().write(theirs.path());
    let address = format!("127.0.0.1:{}", free_port());
    names_admin(theirs.path(), Some(&address));
    let mut command = as_user(theirs.path(), MOORGATE);
    let owned = Command::new("chown")
        .args(["-R", "65534:65534"])
        .arg(theirs.path())
        .status();
    assert!(owned.unwrap().success());
    command.args(["run", "--config"]).arg(theirs.path());
    let _foreign = Foreign(
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let begun = Instant::now();
    while std::net::TcpStream::connect(&address).is_err() {
        assert!(begun.elapsed() < PATIENCE, "it does not listen");
        std::thread::yield_now();
    }
    names_admin(directory, Some(&address));
    let (status, printed, said) = ran(directory, OTHER, &["certs", "ca"]).await;
    assert_eq!((status, printed.as_str()), (Some(1), ""));
    assert!(
        said.contains("it is another user's program that listens there"),
        "{said}"
    );
}
