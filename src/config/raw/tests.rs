use std::path::PathBuf;

use super::*;
use crate::config::problem::Colour;
use crate::config::schema;

fn source(text: &str) -> Arc<Source> {
    Arc::new(Source::new(
        PathBuf::from("conf.d/ci.toml"),
        text.to_owned(),
    ))
}

fn problems_of_domain(text: &str) -> String {
    let mut problems = Problems::default();
    domain(&source(text), &mut problems);
    problems.sort();
    problems.render(Colour::Never)
}

#[test]
fn every_key_of_the_schema_is_read() {
    // A date is no value of any key, so each key that is read is refused once.
    for kind in [FileKind::Domain, FileKind::Main] {
        for table in schema::keys(kind, "").chain([""]) {
            for key in schema::keys(kind, table) {
                if table.is_empty() && schema::keys(kind, key).next().is_some() {
                    continue;
                }
                let header = if table.is_empty() {
                    String::new()
                } else {
                    format!("[{table}]\n")
                };
                let mut problems = Problems::default();
                let source = source(&format!("{header}{key} = 2000-01-01\n"));
                match kind {
                    FileKind::Domain => drop(domain(&source, &mut problems)),
                    FileKind::Main => drop(super::main(&source, &mut problems)),
                }
                assert_eq!(
                    problems.count(crate::config::problem::ProblemSeverity::Error),
                    1,
                    "{table} {key}"
                );
            }
        }
    }
}

#[test]
fn all_problems_of_a_file_are_noted_at_once() {
    let text = "domain = 5\naliases = ['a b', 'ok.example.com', 7]\nlisten = ':443'\nacme = true\ntls = 1\n\
        [auth]\nhtpaswd = 'x'\n[upstream]\nurl = 'registry:5000'\nredirects = 'maybe'\n\
        [limits]\nhead = '64 KiB'\nbody = 0\n[timeouts]\nstall = 120\nupstream_head = '2d'\n";
    insta::assert_snapshot!(problems_of_domain(text), @r#"
    error: `domain` must be a string in quotes, not an integer
     --> conf.d/ci.toml:1:10
      |
    1 | domain = 5
      |          ^
      |
      = help: write a DNS name such as "docker-ci.example.com", without scheme, port and path

    error: `aliases` is wrong: the host name is not valid
     --> conf.d/ci.toml:2:12
      |
    2 | aliases = ['a b', 'ok.example.com', 7]
      |            ^^^^^
      |
      = help: write a DNS name such as "registry.example.com", or "localhost:5001" for one port only

    error: `aliases` must be a string in quotes, not an integer
     --> conf.d/ci.toml:2:37
      |
    2 | aliases = ['a b', 'ok.example.com', 7]
      |                                     ^
      |
      = help: write a DNS name such as "registry.example.com", or "localhost:5001" for one port only

    error: `listen` must be a list, not a string
     --> conf.d/ci.toml:3:10
      |
    3 | listen = ':443'
      |          ^^^^^^
      |
      = help: write ["…", "…"]

    error: unknown key `acme`
     --> conf.d/ci.toml:4:1
      |
    4 | acme = true
      | ^^^^
      |
      = help: `acme` belongs in [tls], or at the top of moorgate.toml, for all domains

    error: `tls` must be a table, not an integer
     --> conf.d/ci.toml:5:7
      |
    5 | tls = 1
      |       ^
      |
      = help: write [tls] on a line of its own, and its keys below

    error: unknown key `htpaswd` in [auth]
     --> conf.d/ci.toml:7:1
      |
    7 | htpaswd = …
      | ^^^^^^^
      |
      = help: did you mean `htpasswd`?

    error: `upstream.url` does not begin with http:// or https://
     --> conf.d/ci.toml:9:7
      |
    9 | url = 'registry:5000'
      |       ^^^^^^^^^^^^^^^
      |
      = help: write a URL such as "http://registry:5000"

    error: `upstream.redirects` is not a known value
      --> conf.d/ci.toml:10:13
       |
    10 | redirects = 'maybe'
       |             ^^^^^^^
       |
       = help: write "pass" or "follow"

    error: unknown key `head` in [limits]
      --> conf.d/ci.toml:12:1
       |
    12 | head = '64 KiB'
       | ^^^^
       |
       = help: `head` belongs in [limits] of moorgate.toml, for all domains

    error: `limits.body` would refuse every body
      --> conf.d/ci.toml:13:8
       |
    13 | body = 0
       |        ^
       |
       = help: write "none" for no limit

    error: `timeouts.stall` must be a string in quotes, not an integer
      --> conf.d/ci.toml:15:9
       |
    15 | stall = 120
       |         ^^^
       |
       = help: write a number with a unit such as "30s" or "1h 30min" (d, h, min, s, ms)

    error: `timeouts.upstream_head` is too long
      --> conf.d/ci.toml:16:17
       |
    16 | upstream_head = '2d'
       |                 ^^^^
       |
       = help: write "24h" or less
    "#);
}

#[test]
fn secrets_are_hidden_wherever_the_problem_is() {
    let cases = [
        "[upstream]\npasword = 's3cret'\n",
        "[upstream]\npassword = ['s3cret']\n",
        "[upstream]\npassword = { value = 's3cret' }\n",
        "upstream = { password = 's3cret', foo = 1 }\n",
        "upstream = { pasword = 's3cret' }\nfoo = 1",
        "upstream.password = { env = 's3', file = 's3cret' }\nupstream.url = 'http://ci:s3cret@registry'\n",
        "[upstream]\nurl = 'ci:s3cret@registry'\n",
        "[upstream]\npassword = 's3cret\n",
        "[upstream]\npassword = s3cret\n",
        "[upstream\npassword = 's3cret'\n",
        "[upstraem]\nkey = 's3cret'\n",
        "password = 's3cret'\n",
    ];
    for text in cases {
        let shown = problems_of_domain(text);
        assert!(shown.contains("error"), "{text}");
        // The name of a file is shown: it says where to look.
        let is_file = text.contains("file = 's3cret'");
        assert!(is_file || !shown.contains("s3cret"), "{shown}");
    }
}

#[test]
fn broken_syntax_is_one_problem() {
    insta::assert_snapshot!(problems_of_domain("domain = docker-ci.example.com\n[tls\n"), @"
    error: unclosed table, expected `]`
     --> conf.d/ci.toml:2:5
      |
    2 | [tls
      |     ^
      |
      = help: correct the TOML syntax here; strings stand in quotes, tables in [brackets]
    ");
    insta::assert_snapshot!(problems_of_domain("[upstream]\npassword = s3cret\n"), @r"
    error: string values must be quoted, expected literal string
     --> conf.d/ci.toml:2:12
      |
    2 | password = …
      |            ^
      |
      = help: correct the TOML syntax here; strings stand in quotes, tables in [brackets]
    ");
}

#[test]
fn bounds_of_the_process() {
    let cases = [
        ("[limits]\nhead = '2 KiB'", "`limits.head` is too small"),
        ("[limits]\nhead = '1 MiB'", "`limits.head` is too large"),
        (
            "[limits]\nhead_lines = 0",
            "`limits.head_lines` is out of bounds",
        ),
        (
            "[limits]\nh2_streams = '100'",
            "`limits.h2_streams` must be a whole number, not a string",
        ),
        (
            "[limits]\nconnections = -1",
            "`limits.connections` is out of bounds",
        ),
        ("[limits]\nmanifest = 0", "`limits.manifest` is too small"),
        ("[timeouts]\nidle = '25h'", "`timeouts.idle` is too long"),
        (
            "[timeouts]\nhandshake = '0s'",
            "`timeouts.handshake` is zero",
        ),
        ("[timeouts]\ndrain = '0s'", "`timeouts.drain` is zero"),
        ("[timeouts]\ndrain = '366d'", "`timeouts.drain` is too long"),
        ("[log]\nlevel = 'loud'", "`log.level` is not a known value"),
        (
            "[log]\naccess = 1",
            "`log.access` must be a boolean, not an integer",
        ),
        (
            "trusted_proxies = ['proxy']",
            "`trusted_proxies` is not a network",
        ),
        (
            "trusted_proxies = '10.0.0.0/8'",
            "`trusted_proxies` must be a list, not a string",
        ),
        (
            "trusted_proxies = ['10.1.0.0/8']",
            "`trusted_proxies` is an address within a network: is it the network `10.0.0.0/8` or the address alone?",
        ),
        (
            "[auth]\naddress_failures = 4",
            "`auth.address_failures` is out of bounds",
        ),
        (
            "[auth]\nuser_failures = 'none'",
            "`auth.user_failures` must be a whole number, not a string",
        ),
        (
            "[auth]\nfailure_window = '25h'",
            "`auth.failure_window` is too long",
        ),
        ("[auth]\nhtpasswd = 'a'", "unknown key `htpasswd` in [auth]"),
        (
            "https = [443]",
            "`https` must be a string in quotes, not an integer",
        ),
        (
            "[[admin]]\nlisten = ':1'",
            "`admin` must be a table, not an array",
        ),
    ];
    for (text, message) in cases {
        let mut problems = Problems::default();
        super::main(&source(text), &mut problems);
        let messages: Vec<_> = problems.iter().map(Problem::message).collect();
        assert_eq!(messages, [message], "{text}");
    }
    let mut problems = Problems::default();
    super::main(
        &source("[timeouts]\ndrain = '2d'\nidle = '1d'"),
        &mut problems,
    );
    assert!(problems.is_empty(), "{problems}");
}

proptest::proptest! {
    #[test]
    fn no_text_panics_and_every_problem_can_be_shown(text in "(\\[?(tls|upstream|limits|url|password|listen|x)\\]?|=|'|\"|\n|,|\\[|\\]|\\{|\\}|1|é| |\\.|@){0,40}") {
        let source = source(&text);
        let mut problems = Problems::default();
        domain(&source, &mut problems);
        super::main(&source, &mut problems);
        problems.render(Colour::Never);
    }
}
