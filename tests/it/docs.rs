//! The documentation, held against what it describes: settings, commands, log fields and metrics
//! are documented if and only if they exist, and links between pages lead somewhere.

mod markdown;
mod products;
mod retention;

use std::collections::{BTreeMap, BTreeSet};

use tokio::net::TcpStream;

use self::markdown::{Page, Section};
use crate::harness::{Domain, ProxiedPair, RawPeer, Setup, Upstream, log_lines, request, settle};

/// Fails with what is on one side only.
fn assert_documented(page: &str, documented: &BTreeSet<String>, existing: &BTreeSet<String>) {
    assert!(!existing.is_empty());
    let missing: Vec<_> = existing.difference(documented).collect();
    let unknown: Vec<_> = documented.difference(existing).collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "{page} lacks {missing:?}, and documents {unknown:?}, which do not exist"
    );
}

#[test]
fn links_between_pages_lead_somewhere() {
    let pages: BTreeMap<_, _> = Page::all()
        .into_iter()
        .map(|page| (page.path.clone(), page))
        .collect();
    let mut broken = Vec::new();
    for page in pages.values() {
        for link in page.links() {
            if link.contains("://") {
                continue;
            }
            let (target, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let path = page.resolve(target);
            let is_broken = match pages.get(&path) {
                Some(target) => {
                    !anchor.is_empty() && !target.anchors().contains(&anchor.to_owned())
                }
                None => !anchor.is_empty() || !markdown::root().join(&path).exists(),
            };
            if is_broken {
                broken.push(format!("{}: {link}", page.path));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn the_readme_is_short_and_links_every_page() {
    let readme = Page::read("README.md");
    assert!(readme.text.len() < 8192, "{} bytes", readme.text.len());
    let links: BTreeSet<_> = readme.links().into_iter().collect();
    let pages: BTreeSet<_> = Page::all().into_iter().map(|page| page.path).collect();
    let unlinked: Vec<_> = pages
        .iter()
        .filter(|page| *page != "README.md" && !links.contains(*page))
        .collect();
    assert!(unlinked.is_empty(), "{unlinked:?}");
}

#[test]
fn every_setting_is_documented() {
    let page = Page::read("docs/configuration.md");
    let mut documented = BTreeSet::new();
    for section in page.sections() {
        let Section { parent, title, .. } = &section;
        let table = title.trim_matches(['`', '[', ']']);
        let table = if title.starts_with("Top level") {
            ""
        } else {
            table
        };
        for row in section.rows("key") {
            let files = match (parent.as_str(), row[1].as_str()) {
                ("Domain file", _) => &["domain"][..],
                ("moorgate.toml", _) | ("Both files", "moorgate.toml") => &["main"][..],
                ("Both files", "both") => &["domain", "main"][..],
                other => panic!("{title}: {other:?}"),
            };
            for (file, key) in files
                .iter()
                .flat_map(|file| markdown::code(&row[0]).map(move |key| (file, key)))
            {
                documented.insert(format!("{file} [{table}] {key}"));
            }
        }
    }
    let existing = moorgate::internal::config::settings()
        .map(|setting| {
            let file = if setting.is_of_domain {
                "domain"
            } else {
                "main"
            };
            format!("{file} [{}] {}", setting.table, setting.key)
        })
        .collect();
    assert_documented(&page.path, &documented, &existing);
}

/// The options and arguments of a command, as `moorgate NAME --option` and `moorgate NAME
/// ARGUMENT`. Those that every command has are the root's.
fn arguments(name: &str, command: &clap::Command) -> BTreeSet<String> {
    let common = ["help", "version", "config"];
    let is_root = !name.contains(' ');
    let own = command
        .get_arguments()
        .filter(|argument| is_root || !common.contains(&argument.get_id().as_str()));
    own.map(|argument| match argument.get_long() {
        Some(long) => format!("{name} --{long}"),
        None => {
            let names = argument.get_value_names().unwrap_or_default();
            let value = names.first().map_or_else(
                || argument.get_id().as_str().to_uppercase(),
                ToString::to_string,
            );
            format!("{name} {value}")
        }
    })
    .collect()
}

/// All commands that can be run, with their options and arguments.
fn commands(name: &str, command: &clap::Command, all: &mut BTreeSet<String>) {
    all.extend(arguments(name, command));
    if !command.is_subcommand_required_set() {
        all.insert(name.to_owned());
    }
    for sub in command
        .get_subcommands()
        .filter(|sub| sub.get_name() != "help")
    {
        commands(&format!("{name} {}", sub.get_name()), sub, all);
    }
}

#[test]
fn every_command_is_documented() {
    let mut command = moorgate::internal::cli::command();
    command.build();
    let mut existing = BTreeSet::new();
    commands("moorgate", &command, &mut existing);

    let page = Page::read("docs/operations.md");
    let mut documented = BTreeSet::new();
    for section in page.sections() {
        let name = section.title.trim_matches('`');
        if section.title.starts_with('`') && name.starts_with("moorgate ") {
            documented.insert(name.to_owned());
        }
        let own = section.rows("argument").into_iter().map(|row| (name, row));
        let common = section.rows("option of every command").into_iter();
        for (name, row) in own.chain(common.map(|row| ("moorgate", row))) {
            let argument = markdown::code(&row[0]).next().unwrap();
            let argument = match argument.strip_prefix("--") {
                Some(option) => format!("--{}", option.split(' ').next().unwrap()),
                None => argument.replace("\\|", "|"),
            };
            documented.insert(format!("{name} {argument}"));
        }
    }
    assert_documented(&page.path, &documented, &existing);
}

#[tokio::test]
async fn every_log_field_is_documented() {
    let upstream = Upstream::new().await;
    let gateway = Setup::new()
        .domain(Domain::new("ci.test", &upstream.url()))
        .main("[log]\nformat = \"json\"")
        .start()
        .await;
    let (lines, _) = log_lines(&gateway);
    let mut client = gateway.client().await;
    client
        .send("GET /v2/ HTTP/1.1\r\nHost: ci.test\r\n\r\n")
        .await;
    assert_eq!(client.answer().await.0.status(), 401);
    let line = loop {
        settle().await;
        // The log is written by another thread.
        tokio::task::spawn_blocking(std::thread::yield_now)
            .await
            .unwrap();
        if let Ok(line) = lines.try_recv() {
            break line;
        }
    };
    let line: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&line).unwrap();
    let existing = line.keys().cloned().collect();

    let page = Page::read("docs/operations.md");
    let documented = page
        .rows("field")
        .iter()
        .flat_map(|row| markdown::code(&row[0]))
        .collect();
    assert_documented(&page.path, &documented, &existing);
}

#[tokio::test]
async fn every_metric_is_documented() {
    let mut between = ProxiedPair::new().await;
    between
        .passed(request(
            "PUT",
            "/v2/a/manifests/v1",
            "Content-Length: 0\r\n",
        ))
        .await;
    let admin = TcpStream::connect(between.gateway.admin()).await.unwrap();
    let mut admin = RawPeer::new(admin);
    admin
        .send("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    let (_, body) = admin.answer().await;
    let scrape = String::from_utf8(body).unwrap();

    let types = scrape
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let existing: BTreeSet<String> = types.map(|(name, kind)| format!("{name} {kind}")).collect();

    let page = Page::read("docs/operations.md");
    let mut documented = BTreeSet::new();
    for row in page.rows("metric") {
        for metric in markdown::code(&row[0]) {
            let (name, labels) = metric.split_once('{').unwrap_or((&metric, "}"));
            documented.insert(format!("{name} {}", row[1]));
            let labels: Vec<_> = labels
                .trim_end_matches('}')
                .split(',')
                .filter(|label| !label.is_empty())
                .collect();
            // Some metrics have no series in this process.
            if let Some(series) = labels_of(&scrape, name) {
                assert_eq!(series, labels, "{name}");
            }
        }
    }
    assert_documented(&page.path, &documented, &existing);
}

/// The labels of the first series of a metric.
fn labels_of<'s>(scrape: &'s str, name: &str) -> Option<Vec<&'s str>> {
    let series = scrape.lines().find_map(|line| {
        let rest = line.strip_prefix(name)?;
        rest.strip_prefix("_count")
            .unwrap_or(rest)
            .split_once(' ')
            .filter(|(labels, _)| labels.is_empty() || labels.starts_with('{'))
    });
    let (labels, _) = series?;
    let labels = labels.trim_matches(['{', '}']).split(',');
    Some(
        labels
            .filter_map(|label| Some(label.split_once('=')?.0))
            .collect(),
    )
}
