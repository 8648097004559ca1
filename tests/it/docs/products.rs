//! The sections about registry products: each has the same parts, and an example that is valid.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::markdown::Page;
use crate::harness::played::{PLAYED_PRODUCTS, PlayedRegistry};
use crate::harness::{Domain, Setup};

#[tokio::test]
async fn each_product_has_a_section_with_a_valid_example() {
    let page = Page::read("docs/upstreams.md");
    let (_, chapter) = page.text.split_once("\n## Product by product\n").unwrap();
    let sections: Vec<_> = chapter.split("\n### ").skip(1).collect();
    assert_eq!(sections.len(), PLAYED_PRODUCTS.len());
    let key = PlayedRegistry::gar().await.service_account_key();
    for section in sections {
        let title = section.lines().next().unwrap();
        for part in ["Prepare", "Least rights", "Works", "Cannot"] {
            let count = section.matches(&format!("\n**{part}**: ")).count();
            assert_eq!(count, 1, "{title}: {part}");
        }
        let (_, example) = section.split_once("```toml\n").unwrap();
        let (example, _) = example.split_once("```\n").unwrap();
        assert!(example.lines().count() <= 12, "{title}");
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().to_str().unwrap();
        let example = example.replace("/etc/moorgate", place);
        let domain = Domain::new("ci.test", "http://127.0.0.1:1");
        Setup::new().domain(domain).write(directory.path());
        let key_file = directory.path().join("google.json");
        std::fs::write(&key_file, &key).unwrap();
        std::fs::set_permissions(key_file, Permissions::from_mode(0o600)).unwrap();
        let file = directory.path().join("conf.d/ci.test.toml");
        let written = std::fs::read_to_string(&file).unwrap();
        let (own, rest) = written.split_once("[upstream]\n").unwrap();
        let rest = rest
            .split_once("\n[")
            .map_or(String::new(), |(_, rest)| format!("[{rest}"));
        std::fs::write(&file, format!("{own}{rest}\n{example}")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_moorgate"));
        command.args(["check", "--config", place]);
        for name in example.split("env = \"").skip(1) {
            command.env(name.split('"').next().unwrap(), "an-example-of-a-secret");
        }
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{title}: {said}");
        assert!(!said.contains("upstream"), "{title}: {said}");
    }
}
