//! The invariants of the code's layout, held against the parsed sources: what `src/lib.rs` says of
//! them stays true.

mod errors;
mod graph;
mod names;
mod sources;

use std::collections::{BTreeMap, BTreeSet};

use self::errors::repeated_sources;
use self::graph::{circles, file_graph, top_graph};
use self::names::{Kind, definitions, has_async, implemented, words};
use self::sources::{Modules, Source, files, paths, root, sources};
use crate::harness::Domain;

/// Fails with every place where something is wrong.
fn none(wrong: impl IntoIterator<Item = String>) {
    let wrong: Vec<_> = wrong.into_iter().collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Fails with what is wrong, and where.
fn nowhere(wrong: BTreeMap<String, BTreeSet<String>>) {
    none(
        wrong
            .into_iter()
            .map(|(name, places)| format!("{name}: {places:?}")),
    );
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
        .map(|source| source.top().to_owned())
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
    let all = sources();
    let modules = Modules::new(&all);
    let mut wrong: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in &all {
        let Some(own) = level(source.top()) else {
            continue;
        };
        for path in paths(&source.file) {
            let written = match path.segments.as_slice() {
                [first, module, ..] if first == "crate" => Some(module.clone()),
                _ => None,
            };
            let defined = modules.resolve(&source.module, &path.segments);
            let defined = defined.and_then(|module| module.first().cloned());
            for used in [written, defined].into_iter().flatten() {
                if used != source.top() && level(&used).is_none_or(|used| used >= own) {
                    let pair = format!("{} uses {used}", source.top());
                    wrong.entry(pair).or_default().insert(source.path.clone());
                }
            }
        }
    }
    nowhere(wrong);
}

#[test]
fn no_files_and_no_modules_use_each_other() {
    let all = sources();
    let files = file_graph(&all);
    assert!(files.len() > 100 && files.values().map(BTreeSet::len).sum::<usize>() > 300);
    let found = circles(&files).into_iter().chain(circles(&top_graph(&all)));
    let found = found.map(|circle| (circle[0].clone(), circle.into_iter().collect()));
    nowhere(found.collect());
}

/// Where a crate may be named: `path/` stands for all files below.
fn is_named_only_in(allowed: &[&str], is_crate: impl Fn(&str) -> bool) {
    let may = |path: &str| {
        allowed
            .iter()
            .any(|place| path == *place || place.ends_with('/') && path.starts_with(place))
    };
    let all = sources();
    let names = |source: &Source| {
        let written = paths(&source.file);
        written
            .iter()
            .any(|path| path.segments.iter().any(|name| is_crate(name)))
    };
    assert!(all.iter().any(|s| may(&s.path) && names(s)));
    none(
        all.iter()
            .filter(|s| !may(&s.path) && names(s))
            .map(|s| s.path.clone()),
    );
}

#[test]
fn only_one_module_names_the_acme_library() {
    is_named_only_in(&["certs/acme.rs", "certs/acme/"], |name| {
        name == "instant_acme"
    });
}

#[test]
fn only_tls_certificates_and_the_connector_name_rustls() {
    let allowed = [
        "tls/",
        "tls.rs",
        "certs/",
        "certs.rs",
        "upstream/connector.rs",
    ];
    is_named_only_in(&allowed, |name| name.contains("rustls"));
}

#[test]
fn pure_modules_contain_no_async() {
    let pure = |path: &str| {
        let places = [
            "registry",
            "config/resolve",
            "certs/renewal",
            "certs/orders/renewal",
            "certs/state/ledger",
            "retention/decisions",
            "retention/facts",
            "retention/graph",
            "retention/in_use",
            "retention/newest",
            "retention/plan",
            "retention/removal",
            "retention/rules",
        ];
        places.iter().any(|place| {
            path.strip_prefix(place)
                .is_some_and(|rest| rest.starts_with(['/', '.']))
        })
    };
    let all = sources();
    assert!(all.iter().filter(|source| pure(&source.path)).count() > 10);
    none(
        all.iter()
            .filter(|s| pure(&s.path) && has_async(&s.file))
            .map(|s| s.path.clone()),
    );
}

/// What resolves a path, and would follow a symbolic link that somebody has put into a store.
const RESOLVES_PATHS: &[&str] = &[
    "OpenOptions",
    "atomic_write",
    "canonicalize",
    "copy",
    "create_dir",
    "create_dir_all",
    "hard_link",
    "private_directory",
    "read_dir",
    "read_to_string",
    "remove_dir",
    "remove_dir_all",
    "remove_file",
    "rename",
    "set_permissions",
    "symlink_metadata",
    "tempfile",
    "write",
];

#[test]
fn one_file_of_the_store_resolves_paths() {
    let resolves = |segments: &[String]| {
        let segments: Vec<_> = segments.iter().map(String::as_str).collect();
        match segments.as_slice() {
            [.., "File", function] => *function != "metadata",
            [.., "fs", name] => {
                RESOLVES_PATHS.contains(name) || ["metadata", "read"].contains(name)
            }
            ["tempfile", ..] | [.., "state_file", "atomic_write" | "private_directory"] => true,
            ["atomic_write" | "private_directory" | "OpenOptions", ..] => true,
            _ => false,
        }
    };
    let all = sources();
    let uses = |source: &Source| {
        let written = paths(&source.file);
        written.iter().any(|path| resolves(&path.segments))
    };
    let files = "store/files.rs";
    assert!(
        all.iter()
            .any(|source| source.path == files && uses(source))
    );
    none(
        all.iter()
            .filter(|s| s.path == "store.rs" || s.path.starts_with("store/"))
            .filter(|s| s.path != files && uses(s))
            .map(|s| s.path.clone()),
    );
}

#[test]
fn a_type_name_exists_once() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in sources() {
        for found in definitions(&source.file) {
            if found.kind == Kind::Type {
                places
                    .entry(found.name)
                    .or_default()
                    .push(source.path.clone());
            }
        }
    }
    assert!(places.len() > 200);
    let repeated = places.into_iter().filter(|(_, places)| places.len() > 1);
    let repeated = repeated.map(|(name, places)| (name, places.into_iter().collect()));
    nowhere(repeated.collect());
}

#[test]
fn the_impl_blocks_of_a_type_are_in_at_most_three_files() {
    let all = sources();
    let modules = Modules::new(&all);
    let mut places: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
    for source in &all {
        for written in implemented(&source.file) {
            if let (Some(module), Some(name)) =
                (modules.resolve(&source.module, &written), written.last())
            {
                let of_type = places.entry((module, name.clone())).or_default();
                of_type.insert(source.path.clone());
            }
        }
    }
    assert!(places.len() > 200);
    let spread = places.into_iter().filter(|(_, places)| places.len() > 3);
    let spread = spread.map(|((module, name), places)| {
        let path = [module, vec![name]].concat();
        (path.join("::"), places)
    });
    nowhere(spread.collect());
}

#[test]
fn an_error_either_displays_its_source_or_hands_it_out() {
    let all = sources();
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    // What prints those of certificates compares each text with the one before.
    for source in all.iter().filter(|source| source.top() != "certs") {
        for name in repeated_sources(&source.file) {
            found.entry(name).or_default().insert(source.path.clone());
        }
    }
    nowhere(found);
    let twice = "enum E { #[error(\"no file: {source}\")] A { source: io::Error }, \
                 #[error(\"no: {0}\")] B(#[from] X), #[error(\"no\")] C(#[source] X), #[error(\"{0}\")] D(X) }";
    let twice = syn::parse_file(twice).unwrap();
    assert_eq!(repeated_sources(&twice), ["A", "B"]);
}

/// Metaphors and private words, for which the field has names: as a whole word of a name.
const BANNED: &[&str] = &[
    "adopt",
    "asked",
    "asker",
    "asking",
    "blame",
    "deaf",
    "flew",
    "fly",
    "forgive",
    "guilty",
    "judge",
    "keep",
    "keeps",
    "land",
    "look",
    "looked",
    "looks",
    "mend",
    "mends",
    "moment",
    "moments",
    "note",
    "notes",
    "offender",
    "offenders",
    "patience",
    "piece",
    "pieces",
    "prover",
    "room",
    "rooms",
    "sight",
    "spur",
    "spurs",
    "stage",
    "stages",
    "stands",
    "stranger",
    "strangers",
    "tell",
    "tells",
    "told",
    "turn",
    "turns",
    "wall",
    "wish",
    "wished",
    "wishes",
    "words",
];
/// The same for types alone.
const BANNED_IN_TYPES: &[&str] = &["held", "hold"];
/// The same for constants alone.
const BANNED_IN_CONSTANTS: &[&str] = &["few", "longest", "most"];

#[test]
fn names_are_words_of_the_field() {
    let is_banned = |kind: Kind, word: &str| {
        BANNED.contains(&word)
            || kind == Kind::Type && BANNED_IN_TYPES.contains(&word)
            || kind == Kind::Constant && BANNED_IN_CONSTANTS.contains(&word)
    };
    let mut wrong: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources() {
        for found in definitions(&source.file) {
            // HTTP's own name (RFC 9112 §9.3).
            let name = found.name.to_lowercase().replace("keep_alive", "keepalive");
            let cased = if name.contains("keepalive") {
                &name
            } else {
                &found.name
            };
            // The name of a setting.
            let is_setting = name == "keep" && source.path.starts_with("config/");
            if !is_setting && words(cased).iter().any(|word| is_banned(found.kind, word)) {
                let places = wrong.entry(found.name.clone()).or_default();
                places.insert(source.path.clone());
            }
        }
    }
    nowhere(wrong);
}

#[test]
fn the_words_of_a_name_are_told_apart() {
    for (name, expected) in [
        ("MAX_REDIRECTS", "max redirects"),
        ("MaxRedirects", "max redirects"),
        ("max_redirects2", "max redirects2"),
        ("_permit", "permit"),
        ("X509Names", "x509 names"),
    ] {
        assert_eq!(words(name).join(" "), expected);
    }
}

#[test]
fn files_have_one_job_and_say_which() {
    none(
        sources()
            .iter()
            .filter(|source| source.path != "lib.rs")
            .filter_map(|source| {
                let header = source.text.lines();
                let header = header.take_while(|line| line.starts_with("//!")).count();
                (!(1..=5).contains(&header))
                    .then(|| format!("{} opens with {header} lines of //!", source.path))
            }),
    );
    let opens = |text: &str| text.starts_with("//! ");
    none(
        files(&root().join("tests/it"))
            .iter()
            .filter(|file| !opens(&std::fs::read_to_string(file).unwrap()))
            .map(|file| file.display().to_string()),
    );
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
    let loaded = moorgate::internal::config::load(directory.path()).unwrap_or_else(|problems| {
        panic!(
            "{}",
            problems.render(moorgate::internal::config::Colour::Never)
        )
    });
    assert!(
        loaded.warnings.is_empty(),
        "{}",
        loaded
            .warnings
            .render(moorgate::internal::config::Colour::Never)
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
