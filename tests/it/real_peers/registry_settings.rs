//! docker-registry with settings that change how it answers.

use std::process::Command;

use serde_json::Value;

use super::fixture::RegistriesFixture;
use super::process::run;

impl RegistriesFixture {
    /// Status and JSON of a GET, as the first domain's user.
    pub(super) fn ask(&self, target: &str) -> (String, Value) {
        let mut curl: Command = self.curl();
        let user = format!("{}:{}", self.ci.user, self.ci.password);
        curl.args(["--user", &user, "--write-out", "\n%{http_code}"])
            .arg(format!("https://{}{target}", self.ci.by_name()));
        let answer = run(&mut curl, "").succeeded();
        let (body, status) = answer.rsplit_once('\n').unwrap();
        let body = serde_json::from_str(body).unwrap_or(Value::Null);
        (status.to_owned(), body)
    }
}

#[test]
fn a_list_may_be_longer_than_the_registry_gives_at_once() {
    let fixture = RegistriesFixture::new();
    let authority = fixture.ci.by_name();
    fixture.logged_in(&fixture.ci, &authority);
    let (_, image) = fixture.image(1);
    fixture.push(&image, &format!("docker://{authority}/base/app:v1"));
    let (status, names) = fixture.ask("/v2/_catalog?n=10000");
    assert_eq!(status, "200", "{names}");
    assert_eq!(names["repositories"][0], "base/app");
    let (status, tags) = fixture.ask("/v2/base/app/tags/list?n=10000");
    assert_eq!((status.as_str(), &tags["tags"][0]), ("200", &"v1".into()));
}

#[test]
fn a_registry_with_tokens_of_its_own_is_said_to_want_them() {
    let fixture = RegistriesFixture::wanting_tokens();
    for (keys, wants) in [
        ("", "this registry wants tokens: its administrator"),
        (
            "authorization = \"pass\"\n",
            "this registry wants tokens, which moorgate gets only with a username and password",
        ),
        // Its token service is on a host that nobody has named.
        (
            "username = \"gate\"\npassword = \"inside\"\n",
            "the upstream registry does not accept this proxy's own login",
        ),
    ] {
        let file = fixture.conf_d(&fixture.ci, "toml");
        let toml = std::fs::read_to_string(&file).unwrap();
        let (before, url) = toml.split_once("[upstream]\n").unwrap();
        let url = url.lines().find(|line| line.starts_with("url")).unwrap();
        std::fs::write(&file, format!("{before}[upstream]\n{url}\n{keys}")).unwrap();
        fixture.cli(&["reload"]).succeeded();
        let (status, answer) = fixture.ask("/v2/base/app/tags/list");
        assert_eq!(status, "502", "{keys} {answer}");
        let message = answer["errors"][0]["message"].as_str().unwrap().to_owned();
        assert!(message.starts_with(wants), "{keys} {message}");
        let login =
            fixture.skopeo_login(&fixture.ci.by_name(), fixture.ci.user, fixture.ci.password);
        let said = login.failed();
        assert!(said.contains("502"), "{said}");
    }
    let said = fixture.moorgate.stderr();
    assert!(said.contains("wants tokens"), "{said}");
}
