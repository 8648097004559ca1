//! What each client does for a row, and how it shows a refusal. Where it has no command, there is
//! nothing to see.

use serde_json::Value;

use super::Act::{self, Catalog, Delete, DeleteTag, List, Pull, Push};
use crate::real_peers::clients::{Containerd, Tool, only_tells_of_its_pipe};
use crate::real_peers::engine::Engine;
use crate::real_peers::fixture::RegistriesFixture;
use crate::real_peers::process::{Output, run};

/// A client that shows who asks each time, or logs in first.
pub trait Client {
    fn name(&self) -> &'static str;

    /// What it says, or nothing if it has no command for it.
    fn act(&self, user: &str, act: Act, what: &str) -> Option<Output>;

    /// What it shows of a refusal with these words.
    fn shown(&self, _act: Act, words: &str) -> String {
        words.to_owned()
    }

    /// Whether it may have kept a refusal's words to itself.
    fn is_silent(&self, _message: &str) -> bool {
        false
    }

    /// What it shows where a repository does not exist.
    fn unknown(&self, act: Act) -> &'static str {
        if matches!(act, List(_)) {
            "404 (Not Found)"
        } else {
            "unknown"
        }
    }
}

pub struct Docker<'a>(pub &'a RegistriesFixture, pub Engine<'a>);

impl Client for Docker<'_> {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn act(&self, user: &str, act: Act, what: &str) -> Option<Output> {
        let Self(fixture, engine) = self;
        let name = fixture.named(what);
        let command = match act {
            Pull(_) => "pull",
            Push(image, _) => {
                engine
                    .docker(&["tag", &fixture.named(&format!("lib/{image}:v1")), &name])
                    .succeeded();
                "push"
            }
            // `docker search` asks for an API of before 2015.
            List(_) | Catalog | Delete(_) | DeleteTag(_) => return None,
        };
        engine
            .login(&fixture.ci.by_name(), user, fixture.password(user))
            .succeeded();
        Some(engine.docker(&[command, "--quiet", &name]))
    }

    fn unknown(&self, _act: Act) -> &'static str {
        "not found"
    }
}

pub struct Podman<'a>(pub &'a RegistriesFixture, pub Tool<'a>);

impl Client for Podman<'_> {
    fn name(&self) -> &'static str {
        "podman"
    }

    fn act(&self, user: &str, act: Act, what: &str) -> Option<Output> {
        let Self(fixture, podman) = self;
        match act {
            Pull(_) | Push(..) => {
                return pull_or_push(fixture, podman, &["pull"], (user, act, what));
            }
            List(_) | Catalog => {}
            Delete(_) | DeleteTag(_) => return None,
        }
        podman.login(user).succeeded();
        let tags: &[&str] = if matches!(act, List(_)) {
            &["--list-tags"]
        } else {
            &[]
        };
        Some(podman.run(&[&["search"], tags, &[&fixture.named(what)]].concat()))
    }

    fn shown(&self, act: Act, words: &str) -> String {
        if matches!(act, Catalog) {
            "403 (Forbidden)".to_owned()
        } else {
            words.to_owned()
        }
    }
}

pub struct Buildah<'a>(pub &'a RegistriesFixture, pub Tool<'a>);

impl Client for Buildah<'_> {
    fn name(&self) -> &'static str {
        "buildah"
    }

    fn act(&self, user: &str, act: Act, what: &str) -> Option<Output> {
        match act {
            // Unless it is told to ask, it is content with what it has.
            Pull(_) | Push(..) => pull_or_push(
                self.0,
                &self.1,
                &["pull", "--policy", "always"],
                (user, act, what),
            ),
            List(_) | Catalog | Delete(_) | DeleteTag(_) => None,
        }
    }
}

fn pull_or_push(
    fixture: &RegistriesFixture,
    tool: &Tool<'_>,
    pull: &[&str],
    (user, act, what): (&str, Act, &str),
) -> Option<Output> {
    tool.login(user).succeeded();
    Some(match act {
        Push(image, _) => tool.push(&fixture.named(&format!("lib/{image}:v1")), what),
        _ => tool.run(&[pull, &[&fixture.named(what)]].concat()),
    })
}

pub struct Ctr<'a>(pub &'a RegistriesFixture, pub Containerd<'a>);

impl Client for Ctr<'_> {
    fn name(&self) -> &'static str {
        "ctr"
    }

    fn act(&self, user: &str, act: Act, what: &str) -> Option<Output> {
        let Self(fixture, ctr) = self;
        let (name, login) = (
            fixture.named(what),
            format!("{user}:{}", fixture.password(user)),
        );
        match act {
            Pull(_) => Some(ctr.pull(Some(&login), &name)),
            Push(image, _) => {
                ctr.tag(&fixture.named(&format!("lib/{image}:v1")), &name)
                    .succeeded();
                Some(ctr.push(Some(&login), &name))
            }
            List(_) | Catalog | Delete(_) | DeleteTag(_) => None,
        }
    }

    /// No sentence of any registry.
    fn shown(&self, _act: Act, _words: &str) -> String {
        "403 Forbidden".to_owned()
    }

    fn is_silent(&self, message: &str) -> bool {
        only_tells_of_its_pipe(message)
    }

    fn unknown(&self, _act: Act) -> &'static str {
        "not found"
    }
}

pub struct Skopeo<'a>(pub &'a RegistriesFixture);

impl Client for Skopeo<'_> {
    fn name(&self) -> &'static str {
        "skopeo"
    }

    fn act(&self, user: &str, act: Act, what: &str) -> Option<Output> {
        let fixture = self.0;
        let login = format!("{user}:{}", fixture.password(user));
        let remote = format!("docker://{}", fixture.named(what));
        let command = match act {
            Push(image, _) => return Some(fixture.copied(user, &fixture.image_of(image), what)),
            Pull(_) => {
                let to = format!("dir:{}", fixture.path().join("skopeo-pulled").display());
                return Some(fixture.skopeo(&["copy", "--src-creds", &login, &remote, &to]));
            }
            List(_) => "list-tags",
            Delete(_) => "delete",
            // It takes out a tag by the digest behind it, with all other tags of that.
            Catalog | DeleteTag(_) => return None,
        };
        Some(fixture.skopeo(&[command, "--creds", &login, &remote]))
    }
}

/// For the one call that no other client makes.
pub struct Curl<'a> {
    pub fixture: &'a RegistriesFixture,
    pub tokens: bool,
}

impl Client for Curl<'_> {
    fn name(&self) -> &'static str {
        "curl"
    }

    fn act(&self, user: &str, act: Act, what: &str) -> Option<Output> {
        let fixture = self.fixture;
        let (repository, tag) = what.rsplit_once(':')?;
        match act {
            DeleteTag(_) => {}
            // So that there is something to delete.
            Push(image, _) => return Some(fixture.copied(user, &fixture.image_of(image), what)),
            Pull(_) | List(_) | Catalog | Delete(_) => return None,
        }
        let login = format!("{user}:{}", fixture.password(user));
        let at = format!("https://{}", fixture.ci.by_name());
        let mut curl = fixture.curl();
        if self.tokens {
            let token = format!("{at}/token?scope=repository:{repository}:delete");
            let answer = run(fixture.curl().args(["--user", &login, &token]), "").succeeded();
            let answer: Value = serde_json::from_str(&answer).unwrap();
            curl.args([
                "--header",
                &format!(
                    "Authorization: Bearer {}",
                    answer["token"].as_str().unwrap()
                ),
            ]);
        } else {
            curl.args(["--user", &login]);
        }
        let manifest = format!("{at}/v2/{repository}/manifests/{tag}");
        Some(run(curl.args(["--request", "DELETE", &manifest]), ""))
    }
}
