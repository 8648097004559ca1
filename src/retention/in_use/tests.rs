//! Lists as people and Kubernetes write them.

use proptest::prelude::*;

use super::*;

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn in_use(list: &str) -> Result<InUse, InvalidReferenceList> {
    let names = ["docker-ci.example.com", "ci.example.com", "::1"];
    let names = names.map(|name| HostName::parse(name).unwrap());
    let mut found = InUse::new(names);
    found.add("in-use.txt", list)?;
    Ok(found)
}

/// The references of the domain, as `repository reference`, in order.
fn names(found: &InUse) -> Vec<String> {
    let mut names: Vec<_> = found
        .references
        .iter()
        .flat_map(|(repository, named)| {
            named
                .keys()
                .map(move |reference| format!("{repository} {reference}"))
        })
        .chain(found.digests.keys().map(|digest| format!("* {digest}")))
        .collect();
    names.sort();
    names
}

#[test]
fn references_are_read_as_docker_reads_them() {
    let digest = format!("sha256:{HEX}");
    for (text, expected) in [
        ("docker-ci.example.com/app", "app latest"),
        ("docker-ci.example.com/app:1.0", "app 1.0"),
        ("ci.example.com/a/b/c:1", "a/b/c 1"),
        ("ci.example.com:8443/app:1", "app 1"),
        ("CI.Example.com/app", "app latest"),
        ("ci.example.com./app", "app latest"),
        ("[::1]:5000/app:2", "app 2"),
        (
            &format!("ci.example.com/app@{digest}"),
            &format!("app {digest}"),
        ),
        // A tag beside a digest is not followed, by Kubernetes neither.
        (
            &format!("ci.example.com/app:1.0@{digest}"),
            &format!("app {digest}"),
        ),
        (
            &format!("docker-pullable://ci.example.com/app@{digest}"),
            &format!("app {digest}"),
        ),
        (&digest, &format!("* {digest}")),
        (&format!("docker://{digest}"), &format!("* {digest}")),
    ] {
        assert_eq!(names(&in_use(text).unwrap()), [expected], "{text}");
    }
}

#[test]
fn references_of_other_hosts_are_left_out() {
    for text in [
        "nginx",
        "nginx:1.25",
        "library/nginx",
        "localhost:5000",
        "localhost/app",
        "index.docker.io/app",
        "quay.io/a/b:1",
        "other.example.com:5000/app",
        "example.com/app",
        // Without a dot or a port it is no host.
        "ci/app",
    ] {
        assert_eq!(names(&in_use(text).unwrap()), [""; 0], "{text}");
    }
}

#[test]
fn names_of_docker_hub_are_spelled_out() {
    let mut hub = InUse::new([HostName::parse("docker.io").unwrap()]);
    hub.add("list", "nginx\nindex.docker.io/a/b\ndocker.io/alpine:3\n")
        .unwrap();
    let expected = ["a/b latest", "library/alpine 3", "library/nginx latest"];
    assert_eq!(names(&hub), expected);
}

#[test]
fn what_is_no_reference_is_an_error_with_its_line() {
    for (text, expected) in [
        (
            "ci.example.com/app:1 2",
            "line 1: \"ci.example.com/app:1 2\" is no image reference: the tag is not valid",
        ),
        (
            "\n# c\nci.example.com/App",
            "line 3: \"ci.example.com/App\" is no image reference: the repository name is not valid",
        ),
        (
            "ci.example.com/app@sha256:12",
            "line 1: \"ci.example.com/app@sha256:12\" is no image reference: the digest is not valid",
        ),
        (
            "a\nci.example.com:x/app",
            "line 2: \"ci.example.com:x/app\" is no image reference: the host is not valid",
        ),
        (
            "quay.io/a//b",
            "line 1: \"quay.io/a//b\" is no image reference: the repository name is not valid",
        ),
        (
            "<html>",
            "line 1: \"<html>\" is no image reference: the repository name is not valid",
        ),
        (
            "[\"a\", \"ci.example.com/b:\"]",
            "entry 2 of the array: \"ci.example.com/b:\" is no image reference: the tag is not valid",
        ),
        (
            "[\"a\", \"\"]",
            "entry 2 of the array: \"\" is no image reference: the repository name is not valid",
        ),
        (
            "[\"a\",\n 1]",
            "line 2: not a JSON array of strings: invalid type: integer `1`, expected a string at line 2 column 2",
        ),
        (
            "[\"a\"",
            "line 1: not a JSON array of strings: EOF while parsing a list at line 1 column 4",
        ),
        (
            "{\"a\": 1}",
            "line 1: \"{\\\"a\\\": 1}\" is no image reference: the tag is not valid",
        ),
    ] {
        assert_eq!(in_use(text).unwrap_err().to_string(), expected);
    }
    let long = format!("ci.example.com/{}", "A".repeat(10_000));
    assert!(in_use(&long).unwrap_err().to_string().len() < 200);
}

#[test]
fn lists_have_comments_and_may_be_json() {
    let lines = "\u{feff}# in use\r\n\r\n  ci.example.com/a:1  # why\r\n#ci.example.com/b\r\nci.example.com/c\t#\r\n";
    assert_eq!(names(&in_use(lines).unwrap()), ["a 1", "c latest"]);
    let json = " [\"ci.example.com/a:1\",\n \"quay.io/b\", \"ci.example.com/c\"]\n";
    assert_eq!(names(&in_use(json).unwrap()), ["a 1", "c latest"]);
    for none in ["", "\n", "[]", "# nothing"] {
        assert_eq!(names(&in_use(none).unwrap()), [""; 0]);
    }
}

#[test]
fn the_first_source_that_names_an_image_is_shown() {
    let mut found = in_use("ci.example.com/a:1").unwrap();
    let digest = Digest::parse(&format!("sha256:{HEX}")).unwrap();
    found
        .add(
            "https://list",
            &format!("ci.example.com/a:1\n{digest}\nci.example.com/a:2"),
        )
        .unwrap();
    let a = RepositoryName::parse("a").unwrap();
    let other = RepositoryName::parse("other").unwrap();
    let tag = |repository, tag| {
        let at = found.of(repository).tag(&Tag::parse(tag).unwrap());
        at.map(|at| found.source(at))
    };
    assert_eq!(tag(&a, "1"), Some("in-use.txt"));
    assert_eq!(tag(&a, "2"), Some("https://list"));
    assert_eq!(tag(&a, "3"), None);
    assert_eq!(tag(&other, "1"), None);
    // A digest alone is in use in each repository.
    assert!(found.of(&other).digest(&digest).is_some());
    assert!(!found.of(&other).is_empty());
    assert!(InUse::default().of(&a).is_empty());
}

proptest! {
    #[test]
    fn no_list_panics(list in "(\\PC|[\n\\[\\]\",:/@#]){0,60}") {
        let _ = in_use(&list);
    }

    #[test]
    fn what_is_written_is_found(
        repository in "[a-z0-9]{1,3}(/[a-z0-9]{1,3}){0,3}",
        tag in "[A-Za-z0-9_][A-Za-z0-9._-]{0,10}",
        port in prop::option::of(1u16..),
    ) {
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        let found = in_use(&format!("ci.example.com{port}/{repository}:{tag}")).unwrap();
        prop_assert_eq!(names(&found), [format!("{repository} {tag}")]);
    }
}
