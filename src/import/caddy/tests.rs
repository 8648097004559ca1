//! The grammar of both versions, imports, and the small translations.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::expansion::{ExpandedFile, ReadContext, read};
use super::files::{self, Volume, Volumes};
use super::lexer::{CaddyVersion, lex};
use super::parser::{Statement, parse};
use super::scope::{RegistryScope, of_pattern, of_prefix};
use super::site::ImportedPassword;
use super::variables::Variables;
use super::{is_understood, users, values};

use CaddyVersion::{V1, V2};

fn tokens(text: &str, version: CaddyVersion) -> Vec<String> {
    let mut variables = Variables::new([("NAME".to_owned(), "a b".to_owned())]);
    let file: Arc<Path> = Path::new("Caddyfile").into();
    let tokens = lex(text, &file, version, &mut variables).expect("tokens");
    tokens.into_iter().map(|token| token.text).collect()
}

#[test]
fn version_1_has_comments_inside_tokens_and_escapes_quotes_only() {
    for (text, expected) in [
        ("a b\tc", &["a", "b", "c"][..]),
        ("password ab#cd", &["password", "ab"]),
        (r#"a "b \" c" d"#, &["a", "b \" c", "d"]),
        (r#"a "b\nc""#, &["a", r"b\nc"]),
        ("a \\\nb", &["a", "\\", "b"]),
        ("a `b c`", &["a", "`b", "c`"]),
        ("\u{feff}a", &["a"]),
        ("{$NAME} {%NAME%} {$OTHER}x", &["a b", "a b", "x"]),
        ("{$NAME:c}", &[""]),
    ] {
        assert_eq!(tokens(text, V1), expected, "{text}");
    }
}

#[test]
fn version_2_has_continued_lines_back_quotes_heredocs_and_defaults() {
    for (text, expected) in [
        ("ab#cd #e", &["ab#cd"][..]),
        ("a \\\n  b", &["a", "b"]),
        ("a `b \"c\" \\d`", &["a", "b \"c\" \\d"]),
        (
            "respond <<HTML\n  <p>\n    x\n  HTML 200",
            &["respond", "<p>\n  x", "200"],
        ),
        ("a << b", &["a", "<<", "b"]),
        ("{$NAME} {$OTHER:c d}", &["a", "b", "c", "d"]),
        (r#"a "b \" c""#, &["a", "b \" c"]),
        (r#"\"a"#, &["\"a"]),
    ] {
        assert_eq!(tokens(text, V2), expected, "{text}");
    }
    let file: Arc<Path> = Path::new("Caddyfile").into();
    for text in [
        "respond <<A\n  x\n",
        "respond <<A\nx\n  A",
        "respond <<a+b\nx\na+b",
    ] {
        let error = lex(text, &file, V2, &mut Variables::default()).expect_err("no heredoc");
        assert!(error.to_string().starts_with("Caddyfile:1:9: "), "{error}");
    }
}

fn statements(text: &str, version: CaddyVersion) -> Result<Vec<Statement>, String> {
    let file: Arc<Path> = Path::new("Caddyfile").into();
    let tokens = lex(text, &file, version, &mut Variables::default());
    let parsed = tokens.and_then(|tokens| parse(&tokens));
    parsed.map_err(|error| error.to_string())
}

#[test]
fn addresses_go_on_after_a_comma_and_braces_must_match() {
    let parsed = statements("a.com,\nb.com\n{\n  tls {\n    x y\n  }\n}\n", V1).expect("parsed");
    assert_eq!(parsed.len(), 1);
    assert_eq!(parsed[0].tokens.len(), 2);
    assert_eq!(parsed[0].children()[0].children()[0].arguments(), ["y"]);
    assert_eq!(
        statements("a {\n  b {\n}\n", V2),
        Err("Caddyfile:1:3: this brace is never closed".to_owned())
    );
    assert_eq!(
        statements("a {\n}\n}\n", V2),
        Err("Caddyfile:3:1: this brace closes nothing: no block is open here".to_owned())
    );
    let deep = "a {\n".repeat(1000);
    assert_eq!(
        statements(&deep, V2),
        Err("Caddyfile:34:1: the blocks are nested too deeply".to_owned())
    );
}

/// A directory with files, and what a Caddyfile in it becomes.
fn expanded(files: &[(&str, &str)], version: CaddyVersion) -> Result<ExpandedFile, String> {
    let directory = tempfile::tempdir().expect("directory");
    for (name, text) in files {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().expect("parent")).expect("made");
        std::fs::write(path, text).expect("written");
    }
    let mut variables = Variables::default();
    let container = directory.path().join("conf.d");
    let volumes = Volumes(vec![Volume {
        host: container,
        container: "/etc/caddy/conf.d".into(),
    }]);
    let context = ReadContext {
        version,
        variables: &mut variables,
        volumes: &volumes,
        follows_imports: true,
    };
    let prefix = format!("{}/", directory.path().display());
    read(&directory.path().join("Caddyfile"), context)
        .map_err(|error| error.to_string().replace(&prefix, ""))
}

/// Sites as lines, for comparison.
fn shown(file: &ExpandedFile) -> Vec<String> {
    fn line(statement: &Statement) -> String {
        let tokens = statement.tokens.iter().map(|token| token.text.as_str());
        let tokens = tokens.collect::<Vec<_>>().join(" ");
        let inner: Vec<_> = statement.children().iter().map(line).collect();
        if inner.is_empty() {
            return tokens;
        }
        format!("{tokens} {{ {} }}", inner.join("; "))
    }
    let sites = file.sites.iter().map(|site| {
        let addresses: Vec<_> = site
            .addresses
            .iter()
            .map(|token| token.text.as_str())
            .collect();
        let directives: Vec<_> = site.directives.iter().map(line).collect();
        format!("{}: {}", addresses.join(" "), directives.join("; "))
    });
    sites.collect()
}

#[test]
fn imports_of_files_patterns_and_snippets_are_replaced() {
    let files = [
        (
            "Caddyfile",
            "import conf.d/*.conf\nimport none/*.conf\nimport /etc/caddy/conf.d/c.other\n",
        ),
        ("conf.d/b.conf", "b.com {\n  import ../common\n}\n"),
        ("conf.d/a.conf", "a.com\ngzip\n"),
        ("conf.d/c.other", "c.com {\n}\n"),
        ("conf.d/.hidden.conf", "hidden.com {\n}\n"),
        ("common", "tls ops@example.com\n"),
    ];
    // A site without braces takes all that follows, even the sites of the next file.
    let mut files_of_v1 = files;
    files_of_v1[2].1 = "a.com {\n  gzip\n}\n";
    let file = expanded(&files_of_v1, V1).expect("expanded");
    assert_eq!(
        shown(&file),
        ["a.com: gzip", "b.com: tls ops@example.com", "c.com: "]
    );
    assert_eq!(file.empty_imports.len(), 1);
    assert_eq!(file.files.len(), 5);

    let file = expanded(
        &[(
            "Caddyfile",
            "(site) {\n  {args[0]} {\n    reverse_proxy {args[1]}\n    import users {args[2:]}\n  }\n}\n\
             (users) {\n  basic_auth {\n    {args[:]}\n    {block}\n  }\n}\n\
             import site a.com registry:5000 bob hash\n\
             b.com {\n  import users alice other {\n    carol third\n  }\n}\n",
        )],
        V2,
    );
    assert_eq!(
        shown(&file.expect("expanded")),
        [
            "a.com: reverse_proxy registry:5000; basic_auth { bob hash }",
            "b.com: basic_auth { alice other; carol third }"
        ]
    );
}

#[test]
fn imports_that_lead_nowhere_or_back_are_errors() {
    for (text, expected) in [
        (
            "import missing\n",
            "Caddyfile:1:1: missing cannot be read: No such file or directory (os error 2)",
        ),
        (
            "import Caddyfile\n",
            "Caddyfile:1:1: the imports lead back to themselves",
        ),
        (
            "(a) {\n  import a\n}\nb.com {\n  import a\n}\n",
            "Caddyfile:2:3: the imports lead back to themselves",
        ),
        (
            "a.com {\n  import\n}\n",
            "Caddyfile:2:3: `import` names nothing",
        ),
    ] {
        assert_eq!(
            expanded(&[("Caddyfile", text)], V2).expect_err(text),
            expected
        );
    }
    let twice = |n: usize| format!("(a{n}) {{\n  import a{0}\n  import a{0}\n}}\n", n - 1);
    let snippets = format!(
        "(a0) {{\n  x.com {{\n  }}\n}}\n{}",
        (1..19).map(twice).collect::<String>()
    );
    for end in ["b.com {\n  import a18\n}\n", "import a18\n"] {
        let error =
            expanded(&[("Caddyfile", &format!("{snippets}{end}"))], V2).expect_err("too many");
        assert!(
            error.ends_with("the imports make more than 100,000 lines"),
            "{error}"
        );
    }
}

#[test]
fn paths_are_parts_of_the_registry() {
    let repositories = |patterns: &[&str]| {
        RegistryScope::Repositories(patterns.iter().map(ToString::to_string).collect())
    };
    for (prefix, expected) in [
        ("", RegistryScope::Whole),
        ("/", RegistryScope::Whole),
        ("/v", RegistryScope::Whole),
        ("/V2", RegistryScope::Whole),
        ("/v2/", RegistryScope::Whole),
        ("/v2/team", repositories(&["team*", "team*/**"])),
        ("/v2/team/", repositories(&["team", "team/**"])),
        ("/v2/team/man", RegistryScope::Unknown),
        ("/v2/team/manifests/", RegistryScope::Unknown),
        ("/v2/_catalog", RegistryScope::Catalog),
        ("/v2/_", RegistryScope::Unknown),
        ("/v2x", RegistryScope::Outside),
        ("/ui", RegistryScope::Outside),
    ] {
        assert_eq!(of_prefix(prefix), expected, "{prefix}");
    }
    for (pattern, expected) in [
        ("*", RegistryScope::Whole),
        ("/*", RegistryScope::Whole),
        ("/v2*", RegistryScope::Whole),
        ("/V2/*", RegistryScope::Whole),
        ("/v2", RegistryScope::Outside),
        ("/v2/", RegistryScope::Unknown),
        ("/v2/_catalog", RegistryScope::Catalog),
        ("/v2/team/*", repositories(&["team", "team/**"])),
        ("/v2/*/blobs/*", RegistryScope::Unknown),
        ("*.html", RegistryScope::Unknown),
        ("/ui/*", RegistryScope::Outside),
    ] {
        assert_eq!(of_pattern(pattern), expected, "{pattern}");
    }
}

#[test]
fn durations_sizes_and_addresses_are_translated() {
    for (text, expected) in [
        ("30m", Some("30min")),
        ("1m30s", Some("90s")),
        ("1.5h", Some("90min")),
        ("250ms", Some("250ms")),
        ("48h", Some("2d")),
        ("0", None),
        ("0s", None),
        ("5", None),
        ("99999999999999999999h", None),
        ("9999999999999999h9999999999999999h", None),
        ("é", None),
    ] {
        assert_eq!(values::duration(text).as_deref(), expected, "{text}");
    }
    assert_eq!(values::binary_size("10MB"), Some(10 << 20));
    assert_eq!(values::decimal_size("2GB"), Some(2_000_000_000));
    assert_eq!(values::decimal_size("2GiB"), Some(2 << 30));
    for (text, expected) in [
        ("registry:5000", Ok("http://registry:5000")),
        (":5000", Ok("http://localhost:5000")),
        ("https://a:b@registry/x/", Ok("https://registry/x")),
        ("registry:443", Ok("https://registry:443")),
        ("h2c://registry:5000", Ok("http://registry:5000")),
    ] {
        assert_eq!(values::upstream_url(text).as_deref(), expected, "{text}");
    }
    for text in [
        "unix//run/x.sock",
        "srv://x",
        "registry:5000-5005",
        "{$X}",
        "quic://x",
    ] {
        assert!(values::upstream_url(text).is_err(), "{text}");
    }
}

#[test]
fn passwords_of_all_forms_are_known() {
    const HASH: &str = "$2y$04$EGdrhbKUv8Oc9vGiXX0HQOxSg445d458Muh7DAHskb6QbtCvdxcie";
    let base64 = data_encoding::BASE64.encode(HASH.as_bytes());
    for written in [HASH, &base64, &HASH.replace('$', "$$")] {
        assert!(
            matches!(users::hashed(written), ImportedPassword::Bcrypt(hash) if hash == HASH),
            "{written}"
        );
    }
    for (written, kind) in [
        (
            "$argon2id$v=19$m=47104,t=1,p=1$c2FsdA$aGFzaA",
            "an argon2 hash",
        ),
        ("$2a$99$x", "a damaged bcrypt hash"),
        ("plain", "no bcrypt hash"),
    ] {
        assert!(
            matches!(users::hashed(written), ImportedPassword::Unusable(found) if found == kind),
            "{written}"
        );
    }
    for (written, kind) in [
        ("", "an empty password"),
        ("a\u{1}", "a password with a control character"),
    ] {
        assert!(
            matches!(users::plain(written), ImportedPassword::Unusable(found) if found == kind)
        );
    }
    assert!(matches!(
        users::plain(&"x".repeat(73)),
        ImportedPassword::Unusable(_)
    ));
    assert!(matches!(
        users::of_file_entry("plain"),
        ImportedPassword::Plain(_)
    ));
    assert!(matches!(
        users::of_file_entry("$apr1$a$b"),
        ImportedPassword::Unusable(_)
    ));
}

#[test]
fn patterns_match_as_in_a_shell() {
    let matches = |pattern: &str, name: &str| {
        files::matches(
            &pattern.chars().collect::<Vec<_>>(),
            &name.chars().collect::<Vec<_>>(),
        )
    };
    for (pattern, name, expected) in [
        ("*.conf", "a.conf", true),
        ("*.conf", "a.conf.off", false),
        ("a?c*", "abcdef", true),
        ("[a-c]x", "bx", true),
        ("[^a-c]x", "bx", false),
        ("[a", "[a", false),
        ("**", "", true),
    ] {
        assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
    }
    assert!(!matches(&"*a".repeat(50), &"a".repeat(49)));
}

/// Statements as text, for every token in quotes.
fn printed(statements: &[Statement], text: &mut String) {
    for statement in statements {
        for token in &statement.tokens {
            text.push_str(&format!("\"{}\" ", token.text.replace('"', "\\\"")));
        }
        if let Some(block) = &statement.block {
            text.push_str("{\n");
            printed(block, text);
            text.push('}');
        }
        text.push('\n');
    }
}

/// The texts of a tree, without positions.
fn texts(statements: &[Statement]) -> Vec<(Vec<String>, Option<usize>)> {
    let mut all = Vec::new();
    for statement in statements {
        let tokens = statement.tokens.iter().map(|token| token.text.clone());
        all.push((tokens.collect(), statement.block.as_ref().map(Vec::len)));
        all.extend(texts(statement.children()));
    }
    all
}

proptest! {
    #[test]
    fn nothing_makes_the_import_panic(text in "\\PC*", lines in proptest::collection::vec("(import|tls|proxy|basicauth|basic_auth|reverse_proxy|handle|respond|redir|header|log|limits|[a-z/*@.:{}$]*) [-a-z0-9/*@.:{}$%#\"`<\\\\ ]*[{}]?", 0..20)) {
        for version in [V1, V2] {
            let _ = is_understood(&text, version);
            let _ = is_understood(&lines.join("\n"), version);
            let _ = is_understood(&format!("a.com {{\n{}\n}}", lines.join("\n")), version);
        }
    }

    #[test]
    fn print_then_parse_is_the_identity(text in "([a-z]{1,5} ?[{}\n]?|\"[a-z {}\n]*\" |\n)*", is_v1: bool) {
        let version = if is_v1 { V1 } else { V2 };
        // Quoted braces are braces for nobody here; a comma joins lines only outside of blocks.
        if let Ok(parsed) = statements(&text, version) {
            let mut again = String::new();
            printed(&parsed, &mut again);
            let reparsed = statements(&again, version).expect("printed");
            prop_assert_eq!(texts(&parsed), texts(&reparsed), "{}", again);
        }
    }
}
