//! The invariants of the code's layout, held to the source files: what `src/lib.rs` says of them
//! stays true.

use std::path::{Path, PathBuf};

use crate::harness::Domain;

/// A source file without its tests.
struct Source {
    /// Below `src/`, like `tls/handshake.rs`.
    path: String,
    lines: Vec<String>,
}

impl Source {
    /// The module at the top that it belongs to.
    fn module(&self) -> &str {
        self.path.split('/').next().unwrap().trim_end_matches(".rs")
    }

    /// Lines of code, without comments.
    fn code(&self) -> impl Iterator<Item = &str> {
        self.lines
            .iter()
            .map(String::as_str)
            .filter(|line| !line.trim_start().starts_with("//"))
    }

    fn says(&self, text: &str) -> bool {
        self.code().any(|line| line.contains(text))
    }

    fn is_one_of(&self, paths: &[(&str, &str)]) -> bool {
        paths.iter().any(|(path, _)| {
            self.path == *path || (path.ends_with('/') && self.path.starts_with(path))
        })
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push(path);
        }
    }
    all.sort();
    all
}

/// All sources but those that only exist for tests.
fn sources() -> Vec<Source> {
    let source = root().join("src");
    let all = files(&source).into_iter().map(|file| {
        let text = std::fs::read_to_string(&file).unwrap();
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        // `mod tests` stands last.
        let tests = lines
            .windows(2)
            .position(|w| w[0] == "#[cfg(test)]" && w[1] == "mod tests {");
        lines.truncate(tests.unwrap_or(lines.len()));
        Source {
            path: file.strip_prefix(&source).unwrap().display().to_string(),
            lines,
        }
    });
    let all: Vec<_> = all
        .filter(|s| !s.path.ends_with("/tests.rs") && !s.path.ends_with("/testing.rs"))
        .collect();
    assert!(all.len() > 50, "the sources were found");
    all
}

/// Fails with every place where something is wrong.
fn none(wrong: impl IntoIterator<Item = String>) {
    let wrong: Vec<_> = wrong.into_iter().collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// The layers as the documentation of the library says them, lowest first.
fn layers() -> Vec<Vec<String>> {
    let map = std::fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let (_, after) = map.split_once("# Layers").unwrap();
    let documented: Vec<&str> = after
        .lines()
        .map_while(|line| line.strip_prefix("//!").or(line.is_empty().then_some("")))
        .collect();
    let text = documented.join(" ");
    let quoted: Vec<_> = text.split('`').skip(1).step_by(2).collect();
    quoted
        .iter()
        .map(|layer| layer.split(' ').map(str::to_owned).collect())
        .collect()
}

#[test]
fn every_module_has_a_layer_in_the_map() {
    let layers = layers();
    let known = |module: &str| layers.iter().flatten().any(|name| name == module);
    let modules: Vec<_> = sources()
        .iter()
        .map(|source| source.module().to_owned())
        .collect();
    none(
        modules
            .iter()
            .filter(|m| !known(m) && *m != "lib" && *m != "main")
            .cloned(),
    );
    none(
        layers
            .iter()
            .flatten()
            .filter(|layer| !modules.contains(layer))
            .map(|layer| format!("no such module: {layer}")),
    );
}

#[test]
fn a_module_uses_only_layers_below_it() {
    let layers = layers();
    let level = |module: &str| {
        layers
            .iter()
            .position(|layer| layer.iter().any(|name| name == module))
    };
    let mut wrong = Vec::new();
    for source in sources() {
        let Some(own) = level(source.module()) else {
            continue;
        };
        for line in source.code() {
            assert!(
                !line.contains("crate::{"),
                "{}: one path for each use, so that this test can read it",
                source.path
            );
            for used in line.split("crate::").skip(1) {
                let used = used
                    .split(|c: char| !c.is_alphanumeric() && c != '_')
                    .next()
                    .unwrap();
                if level(used).is_none_or(|used| used > own) {
                    wrong.push(format!("{} uses {used}", source.path));
                }
            }
        }
    }
    none(wrong);
}

#[test]
fn only_one_module_names_the_acme_library() {
    let allowed = [("certs/acme.rs", ""), ("certs/acme/", "")];
    none(
        sources()
            .iter()
            .filter(|s| s.says("instant_acme") && !s.is_one_of(&allowed))
            .map(|s| s.path.clone()),
    );
}

#[test]
fn only_tls_certificates_and_the_connector_name_rustls() {
    let allowed = [
        ("tls/", ""),
        ("tls.rs", ""),
        ("certs/", ""),
        ("certs.rs", ""),
        ("upstream/connector.rs", ""),
    ];
    none(
        sources()
            .iter()
            .filter(|s| s.says("rustls") && !s.is_one_of(&allowed))
            .map(|s| s.path.clone()),
    );
}

/// What else on the way of a request may refuse, and why it does not by a `Rejection`.
const REFUSING: [(&str, &str); 3] = [
    (
        "request/plain.rs",
        "plain listeners have no line: they redirect or refuse",
    ),
    (
        "tls/plain_http.rs",
        "no HTTP connection exists yet, only its bytes",
    ),
    ("admin.rs", "another service, for another reader"),
];

/// An `ErrorStatus` cannot be made outside its module. Responses of the line begin with 200, and
/// what sets another status has it from one, from an upstream, or names one below 400.
#[test]
fn only_one_module_makes_error_statuses() {
    let all = sources();
    let rejection = all.iter().find(|s| s.path == "request/rejection.rs");
    assert!(
        rejection.is_some_and(|s| s.says("pub(crate) struct ErrorStatus(StatusCode);")),
        "its field is private"
    );
    let sets_a_number = |line: &str| {
        line.contains("StatusCode::from_u16")
            || line.contains("HTTP/1.1 4")
            || line.contains("HTTP/1.1 5")
    };
    none(
        all.iter()
            .filter(|s| !s.is_one_of(&REFUSING) && s.code().any(sets_a_number))
            .map(|s| s.path.clone()),
    );
}

#[test]
fn pure_modules_contain_no_async() {
    let pure = |path: &str| {
        let places = [
            "registry",
            "config/resolve",
            "certs/renewal",
            "certs/state/ledger",
        ];
        places.iter().any(|place| path.starts_with(place))
    };
    let all = sources();
    assert!(all.iter().filter(|source| pure(&source.path)).count() > 10);
    none(
        all.iter()
            .filter(|s| pure(&s.path) && (s.says("async ") || s.says(".await")))
            .map(|s| s.path.clone()),
    );
}

#[test]
fn nothing_unwraps_and_nothing_is_unsafe() {
    let bad = [
        ".unwrap()",
        "unsafe {",
        "unsafe fn",
        "unsafe impl",
        "todo!(",
        "dbg!(",
        "#[allow(",
    ];
    let places = |source: &Source| {
        let lines = source
            .code()
            .filter(|line| bad.iter().any(|bad| line.contains(bad)));
        lines
            .map(|line| format!("{}: {line}", source.path))
            .collect::<Vec<_>>()
    };
    none(sources().iter().flat_map(places));
}

/// Who starts tasks and threads. What each of them ends with is written where it is started.
const SPAWNING: [(&str, &str); 13] = [
    (
        "app.rs",
        "the composition root; tracked, ends on the drain token",
    ),
    (
        "app/listeners.rs",
        "one task for each listener; tracked, ends with its listener",
    ),
    (
        "app/build.rs",
        "waits for the disk on a blocking thread, awaited at once",
    ),
    (
        "certs/orders.rs",
        "steps towards certificates; end with the task that waits for them",
    ),
    (
        "workers.rs",
        "the threads that serve, and their connections; tracked",
    ),
    (
        "connection.rs",
        "the streams of HTTP/2; end with their connection",
    ),
    (
        "request/answer/tag_write.rs",
        "a write to a tag goes on when its client leaves; ends by the exchange's limits",
    ),
    (
        "store/work.rs",
        "waits for the disk on blocking threads; ends with the work",
    ),
    (
        "store/content.rs",
        "one read of a file that is not in memory; ends with it",
    ),
    (
        "upstream.rs",
        "the driver of a connection; ends with its lease",
    ),
    (
        "auth/token/refresh.rs",
        "waits for the disk on a blocking thread, awaited at once",
    ),
    (
        "auth/verify.rs",
        "the threads that hash; end with their queue",
    ),
    (
        "cli/run.rs",
        "the thread that writes the access log; ends when it is closed",
    ),
];

#[test]
fn tasks_and_threads_are_started_in_few_places() {
    let spawns = |source: &Source| {
        ["spawn(", "spawn_blocking(", "spawn_local(", "spawn_on("]
            .iter()
            .any(|call| source.says(call))
    };
    let all = sources();
    none(
        all.iter()
            .filter(|s| spawns(s) && !s.is_one_of(&SPAWNING))
            .map(|s| s.path.clone()),
    );
    for (path, _) in SPAWNING {
        assert!(
            all.iter().any(|s| s.path == path && spawns(s)),
            "{path} no longer starts anything"
        );
    }
}

#[test]
fn files_have_one_job_and_say_which() {
    let test_files = files(&root().join("tests/it"));
    let opens = |text: &str| text.starts_with("//! ");
    none(
        sources()
            .iter()
            .filter(|s| s.path != "lib.rs")
            .filter_map(|source| {
                let header = source
                    .lines
                    .iter()
                    .take_while(|line| line.starts_with("//!"))
                    .count();
                (!(1..=5).contains(&header))
                    .then(|| format!("{} opens with {header} lines of //!", source.path))
            }),
    );
    none(
        test_files
            .iter()
            .filter(|f| !opens(&std::fs::read_to_string(f).unwrap()))
            .map(|f| f.display().to_string()),
    );
}

#[test]
fn files_and_functions_stay_small() {
    let mut wrong = Vec::new();
    for source in sources() {
        if source.lines.len() > 400 {
            wrong.push(format!("{} has {} lines", source.path, source.lines.len()));
        }
        wrong.extend(long_functions(&source));
    }
    none(wrong);
}

/// Functions of more than 50 lines. The layout is rustfmt's: a function ends with a brace below its
/// start.
fn long_functions(source: &Source) -> Vec<String> {
    let mut long = Vec::new();
    for (start, line) in source.lines.iter().enumerate() {
        let code = line.trim_start();
        let words = code.split('(').next().unwrap_or_default();
        let is_function = words.split(' ').any(|word| word == "fn")
            && !code.starts_with("//")
            && !code.ends_with('}');
        if !is_function {
            continue;
        }
        let indent = &line[..line.len() - code.len()];
        let end = source
            .lines
            .iter()
            .skip(start)
            .position(|l| *l == format!("{indent}}}"));
        if let Some(length) = end.filter(|length| *length + 1 > 50) {
            long.push(format!("{}: {} lines: {code}", source.path, length + 1));
        }
    }
    long
}

#[test]
fn the_sample_domains_load() {
    // A copy, because the first start makes the password files below `state`.
    let directory = tempfile::tempdir().unwrap();
    let at = |path: &str| directory.path().join(path);
    std::fs::create_dir_all(at("conf.d")).unwrap();
    std::fs::create_dir_all(at("state/credentials")).unwrap();
    for file in [
        "moorgate.toml",
        "conf.d/docker-ci.toml",
        "conf.d/docker-cache.toml",
    ] {
        std::fs::copy(root().join(file), at(file)).unwrap();
    }
    for users in ["registry-ci", "registry-cache"] {
        let users = at(&format!("state/credentials/{users}.htpasswd"));
        std::fs::write(
            users,
            Domain::htpasswd(&[("ci".to_owned(), "secret".to_owned())]),
        )
        .unwrap();
    }
    let loaded = moorgate::config::load(directory.path()).unwrap_or_else(|problems| {
        panic!(
            "{}",
            problems.render(moorgate::config::problem::Colour::Never)
        )
    });
    assert!(
        loaded.warnings.is_empty(),
        "{}",
        loaded
            .warnings
            .render(moorgate::config::problem::Colour::Never)
    );
    let mut domains: Vec<_> = loaded
        .snapshot
        .domains
        .iter()
        .map(|host| host.domain.to_string())
        .collect();
    domains.sort();
    assert_eq!(
        domains.len(),
        std::fs::read_dir(root().join("conf.d")).unwrap().count(),
        "{domains:?}"
    );
    assert!(
        domains[0].starts_with("docker-cache") && domains[1].starts_with("docker-ci"),
        "{domains:?}"
    );
}
