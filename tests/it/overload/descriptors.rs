//! The limit of open files, into which the connections must fit.

use moorgate::internal::app::StartError;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::harness::{Domain, Events, Setup};

/// Lowers the limit of open files of this process, which is the test's own.
fn limit_files(max: u64) {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let lowered = Rlimit {
        current: Some(max),
        maximum,
    };
    setrlimit(Resource::Nofile, lowered).unwrap();
}

fn setup(limits: &str) -> Setup {
    let setup = Setup::new().domain(Domain::new("ci.test", "http://127.0.0.1:9"));
    setup.main(&format!("[limits]\n{limits}"))
}

#[tokio::test]
async fn connections_that_do_not_fit_into_the_open_files_are_fewer() {
    let events = Events::kept();
    limit_files(1024);
    let gateway = setup("connections = 500").start().await;
    let said = events.with("the limit of open files is too low");
    assert!(
        said.len() == 1
            && said[0].contains("configured=500 connections=384 max_files=1024 needed=1256"),
        "{said:?}"
    );
    assert_eq!(gateway.status().await["resources"][0]["limit"], 384);
    // It is known.
    gateway.app.reload().await.unwrap();
    assert_eq!(gateway.status().await["resources"][0]["limit"], 384);
    assert_eq!(events.with("the limit of open files is too low").len(), 1);
    let gateway = setup("connections = 384").start().await;
    assert_eq!(gateway.status().await["resources"][0]["limit"], 384);
    assert_eq!(events.with("the limit of open files is too low").len(), 1);
}

#[tokio::test]
async fn too_few_open_files_to_serve_with_are_refused() {
    limit_files(300);
    let Err(StartError::System(problems)) = setup("connections = 500").try_start().await else {
        panic!("it starts");
    };
    let text = problems.to_string();
    assert!(
        text.contains("at most 300 files and sockets may be open, fewer than the 384"),
        "{text}"
    );
}
