//! Signals: a reload that fails changes nothing, a stop lets transfers finish, a second one does
//! not.

use std::fs;
use std::net::TcpStream;
use std::path::Path;

use rustix::process::Signal;

use super::fixture::RegistriesFixture;
use super::process::{until, was_killed};
use super::transfer::{Blob, Upload};

impl RegistriesFixture {
    fn signal(&self, signal: Signal) {
        self.moorgate.signal(signal);
    }

    /// Waits for a line of the log.
    fn says(&self, what: &str) {
        until(&format!("the log says {what:?}"), || {
            self.moorgate.stderr().contains(what)
        });
    }

    fn refuses_connections(&self) {
        let port = self
            .ci
            .by_name()
            .rsplit(':')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        until("connections are refused", || {
            TcpStream::connect(("127.0.0.1", port)).is_err()
        });
    }

    /// An upload that has reached the registry and goes on.
    fn running_upload(&self) -> Upload {
        let url = self.start_upload(&self.ci, "--http1.1", "base/app");
        let mut upload = Upload::start(self.curl_as_user(&self.ci, "--http1.1"), "PATCH", &url);
        blob().each_block(|_, block| upload.write(block));
        let stored = self.path().join("registry-ci");
        until("the registry stores the upload", || holds_data(&stored));
        upload
    }
}

fn blob() -> Blob {
    Blob { seed: 3, blocks: 8 }
}

/// Whether a registry has stored a byte of an upload, in a file called `data`.
fn holds_data(directory: &Path) -> bool {
    let entries = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(Result::ok);
    entries.into_iter().any(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => holds_data(&entry.path()),
        _ => entry.file_name() == "data" && entry.metadata().is_ok_and(|data| data.len() > 0),
    })
}

#[test]
fn a_reload_with_a_broken_file_changes_nothing_and_is_reported() {
    let fixture = RegistriesFixture::new();
    let ci = &fixture.ci;
    let file = fixture.conf_d(ci, "toml");
    let good = fs::read_to_string(&file).unwrap();
    fs::write(&file, good.replace("[auth]", "[auht]")).unwrap();
    fixture.signal(Signal::HUP);
    fixture.says("the domain file has problems, its last valid version stays in force");
    fixture.says("auht");
    assert_eq!(
        fixture.login_status(&ci.by_name(), ci.user, ci.password),
        "200"
    );
    assert_eq!(
        fixture.login_status(&ci.by_port(), ci.user, ci.password),
        "200"
    );
    assert!(!fixture.moorgate.stderr().contains("configuration reloaded"));
}

#[test]
fn a_reload_takes_new_aliases_and_drops_none_of_the_rest() {
    let fixture = RegistriesFixture::new();
    let (ci, cache) = (&fixture.ci, &fixture.cache);
    let port = ci.by_name().rsplit(':').next().unwrap().to_owned();
    let new = format!("localhost:{port}");
    let file = fixture.conf_d(ci, "toml");
    let more = fs::read_to_string(&file)
        .unwrap()
        .replace("aliases = [", &format!("aliases = [\"{new}\", "));
    fs::write(&file, more).unwrap();
    let mut upload = fixture.running_upload();
    fixture.signal(Signal::HUP);
    fixture.says("configuration reloaded");
    until("the new alias is served", || {
        fixture.curl_succeeds(&format!("https://{new}/v2/"))
    });
    assert_eq!(fixture.login_status(&new, ci.user, ci.password), "200");
    assert_eq!(
        fixture.login_status(&cache.by_name(), cache.user, cache.password),
        "200"
    );
    blob().each_block(|_, block| upload.write(block));
    assert_eq!(upload.finish().as_deref(), Ok("202"));
}

#[test]
fn a_stop_lets_a_running_upload_finish_and_refuses_new_connections() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut fixture = RegistriesFixture::new();
        let mut upload = fixture.running_upload();
        fixture.signal(signal);
        fixture.says("draining: running transfers may finish");
        fixture.refuses_connections();
        blob().each_block(|_, block| upload.write(block));
        assert_eq!(upload.finish().as_deref(), Ok("202"));
        assert!(fixture.moorgate.ended().success());
        let chunk = fixture.logged(&["call=upload.chunk"]);
        let whole = format!(" bytes_in={} ", 2 * blob().size());
        assert!(
            chunk[0].contains(&whole) && chunk[0].ends_with(" end=complete"),
            "{chunk:?}"
        );
    }
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut fixture = RegistriesFixture::new();
    let upload = fixture.running_upload();
    fixture.signal(Signal::TERM);
    fixture.says("draining: running transfers may finish");
    fixture.signal(Signal::TERM);
    let status = fixture.moorgate.ended();
    assert!(!was_killed(status), "it ends by itself: {status}");
    fixture.says("second signal, closing connections");
    let error = upload.finish().expect_err("cut off");
    assert!(error.starts_with("curl: ("), "{error}");
}
