//! What one signal and two signals end, and the exit status.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

use super::fixture::{Service, has_ended, tls, until};
use super::handover::{finish, running, status_of, unfinished};
use crate::harness::{Domain, Setup};

/// Sends a second signal when the first one has arrived: two at once are one.
fn stop_twice(service: &Service) {
    kill_process(service.first(), Signal::TERM).unwrap();
    until("it is received", || {
        service.said().contains("a second signal ends them")
    });
    kill_process(service.first(), Signal::TERM).unwrap();
}

#[tokio::test]
async fn a_second_signal_ends_a_new_process_and_a_transfer() {
    let mut service = Service::start();
    let config = service.client_config("http/1.1");
    let upload = unfinished(&service, &config).await;
    running(&service, 1.0).await;
    let directory = service.path().display().to_string();
    service.replace_by(&format!(
        "#!/bin/sh\necho $$ >{directory}/pid\nexec sleep 1000\n"
    ));
    kill_process(service.first(), Signal::USR2).unwrap();
    let file = service.path().join("pid");
    until("it runs", || {
        fs::read_to_string(&file).is_ok_and(|text| text.ends_with('\n'))
    });
    let pid = fs::read_to_string(&file).unwrap().trim().parse().unwrap();
    stop_twice(&service);
    assert_eq!(service.ended().code(), Some(1), "{}", service.said());
    let pid = Pid::from_raw(pid).unwrap();
    until("the new process has ended", || has_ended(pid));
    drop(upload);
}

#[tokio::test]
async fn a_second_signal_ends_a_hash() {
    let setup = Setup::new().domain(Domain::store("ci.test", "ci"));
    let mut service = Service::with(setup);
    // Minutes of work.
    let entry = format!("alice:$2b$17${}\n", "a".repeat(53));
    fs::write(service.path().join("conf.d/ci.test.htpasswd"), entry).unwrap();
    assert!(service.cli(&["reload"]).status.success());
    let config = service.client_config("http/1.1");
    let mut stream = tls(service.https, &config).await.unwrap();
    let login = tokio::spawn(async move {
        let _ = status_of(&mut stream, "secret", "").await;
    });
    running(&service, 1.0).await;
    stop_twice(&service);
    assert_eq!(service.ended().code(), Some(1), "{}", service.said());
    login.abort();
}

#[tokio::test]
async fn a_stop_that_cuts_a_transfer_is_a_failure() {
    for is_upgraded in [false, true] {
        let mut service = Service::start();
        let config = service.client_config("http/1.1");
        let upload = unfinished(&service, &config).await;
        running(&service, 1.0).await;
        if is_upgraded {
            service.upgrade();
        }
        assert!(service.is_running());
        stop_twice(&service);
        assert_eq!(service.ended().code(), Some(1), "{}", service.said());
        drop(upload);
    }
}

#[tokio::test]
async fn a_drain_that_cuts_a_transfer_is_a_failure_and_one_that_does_not_is_none() {
    for (limit, status) in [("1s", 1), ("1h", 0)] {
        let mut service = Service::with(
            Setup::new()
                .main(&format!("[timeouts]\ndrain = \"{limit}\""))
                .domain(Domain::store("ci.test", "ci")),
        );
        let config = service.client_config("http/1.1");
        let upload = unfinished(&service, &config).await;
        running(&service, 1.0).await;
        kill_process(service.first(), Signal::TERM).unwrap();
        if status == 0 {
            finish(upload).await;
        }
        assert_eq!(service.ended().code(), Some(status), "{}", service.said());
    }
}
