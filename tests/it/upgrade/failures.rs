//! A new process that cannot serve leaves the old one serving, and the command says why.

use std::fs;
use std::process::Command;

use rustix::process::{Signal, kill_process};
use rustls::HandshakeKind;

use super::fixture::{Service, tls, until};

/// The service answers, by the process that was started first.
async fn serves(service: &mut Service) {
    assert!(service.is_running(), "{}", service.said());
    assert!(service.cli(&["health"]).status.success());
    let config = service.client_config("http/1.1");
    let stream = tls(service.https, &config).await.unwrap();
    assert_eq!(
        stream.get_ref().1.handshake_kind(),
        Some(HandshakeKind::Full)
    );
}

#[tokio::test]
async fn a_binary_that_ends_at_once_changes_nothing() {
    let mut service = Service::start();
    service.replace_by("#!/bin/sh\nexit 7\n");
    let text = service.refused_upgrade();
    assert!(text.contains("the old process serves on"), "{text}");
    assert!(text.contains("exit status: 7"), "{text}");
    serves(&mut service).await;
    service.restore();
    service.upgrade();
    assert_eq!(service.ended().code(), Some(0));
}

#[tokio::test]
async fn what_is_no_program_changes_nothing() {
    let mut service = Service::start();
    service.replace_by("no program\n");
    let text = service.refused_upgrade();
    assert!(text.contains("cannot be started"), "{text}");
    fs::remove_file(service.path().join("moorgate")).unwrap();
    let text = service.refused_upgrade();
    assert!(text.contains("No such file"), "{text}");
    serves(&mut service).await;
}

#[tokio::test]
async fn a_wrong_configuration_changes_nothing_and_is_named() {
    let mut service = Service::start();
    let file = service.path().join("conf.d/ci.test.toml");
    let good = fs::read_to_string(&file).unwrap();
    fs::write(&file, good.replace("[auth]", "[auht]")).unwrap();
    let text = service.refused_upgrade();
    assert!(
        text.contains("auht") && text.contains("ci.test.toml"),
        "{text}"
    );
    serves(&mut service).await;
    fs::write(&file, good).unwrap();
    service.upgrade();
}

#[tokio::test]
async fn a_port_that_is_in_use_changes_nothing_and_is_named() {
    let mut service = Service::start();
    let other = std::net::TcpListener::bind("127.0.0.4:0").unwrap();
    let address = other.local_addr().unwrap();
    let file = service.path().join("moorgate.toml");
    let good = fs::read_to_string(&file).unwrap();
    let more = good.replace(
        "https = [\"127.0.0.1:0\"]",
        &format!("https = [\"127.0.0.1:0\", \"{address}\"]"),
    );
    assert_ne!(more, good);
    fs::write(&file, more).unwrap();
    let text = service.refused_upgrade();
    assert!(text.contains(&address.to_string()), "{text}");
    serves(&mut service).await;
}

/// Waits for what a script has written.
fn written(service: &Service, name: &str) -> String {
    let file = service.path().join(name);
    until(name, || {
        fs::read_to_string(&file).is_ok_and(|text| text.ends_with('\n'))
    });
    fs::read_to_string(&file).unwrap()
}

#[tokio::test]
async fn a_process_that_is_killed_halfway_changes_nothing_and_there_is_one_upgrade_at_a_time() {
    let mut service = Service::start();
    let directory = service.path().display().to_string();
    service.replace_by(&format!(
        "#!/bin/sh\nls -l /proc/$$/fd >{directory}/descriptors.new\nmv {directory}/descriptors.new \
         {directory}/descriptors\necho $$ >{directory}/pid\nexec sleep 1000\n"
    ));
    let upgrade = std::thread::spawn({
        let mut command = Command::new(super::fixture::binary());
        command.args(["upgrade", "--config"]).arg(service.path());
        move || command.output().unwrap()
    });
    let pid = written(&service, "pid").trim().parse().unwrap();
    let text = service.refused_upgrade();
    assert!(text.contains("an upgrade is under way"), "{text}");
    // Of the descriptors of the old process, it has the standard ones alone.
    let descriptors = fs::read_to_string(service.path().join("descriptors")).unwrap();
    let state = format!("{directory}/state");
    let mut sockets = 0;
    for (_, to) in descriptors
        .lines()
        .filter_map(|line| line.split_once(" -> "))
    {
        sockets += u32::from(to.starts_with("socket:"));
        let is_own = to.starts_with("anon_inode:") || to.starts_with(&state);
        assert!(!is_own, "{descriptors}");
    }
    assert_eq!(sockets, 1, "{descriptors}");
    kill_process(rustix::process::Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    let output = upgrade.join().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("signal: 9"), "{text}");
    serves(&mut service).await;
    // The next one works.
    service.restore();
    service.upgrade();
    assert_eq!(service.ended().code(), Some(0));
}

#[tokio::test]
async fn a_process_that_hangs_is_killed() {
    let mut service = Service::start();
    let directory = service.path().display().to_string();
    service.replace_by(&format!(
        "#!/bin/sh\necho $$ >{directory}/pid\nexec sleep 1000\n"
    ));
    let text = service.refused_upgrade();
    assert!(text.contains("did not serve within 25 s"), "{text}");
    let pid = written(&service, "pid");
    let process = std::path::Path::new("/proc").join(pid.trim());
    assert!(!process.exists(), "it still runs");
    serves(&mut service).await;
}

#[tokio::test]
async fn a_stop_ends_a_new_process_that_does_not_serve_yet() {
    let mut service = Service::start();
    let directory = service.path().display().to_string();
    service.replace_by(&format!(
        "#!/bin/sh\necho $$ >{directory}/pid\nexec sleep 1000\n"
    ));
    kill_process(service.first(), Signal::USR2).unwrap();
    let pid = written(&service, "pid");
    kill_process(service.first(), Signal::TERM).unwrap();
    assert_eq!(service.ended().code(), Some(0));
    let process = std::path::Path::new("/proc").join(pid.trim());
    until("the new process has ended", || !process.exists());
}
