use super::super::tests::{messages, with};

fn problems(more: &str) -> Vec<String> {
    let domain = with(
        "upstream",
        &format!("[upstream]\nurl = 'https://a.example.com'\n{more}"),
    );
    messages("", &[&domain])
}

#[test]
fn credentials_are_of_one_kind_and_whole() {
    let cases: &[(&str, &[&str])] = &[
        ("[upstream.login]\nusername = 'a'\npassword = 'b'", &[]),
        (
            "[upstream.login]\naccess_key_id = 'a'\nsecret_access_key = 'b'\nregion = 'eu-central-1'",
            &[],
        ),
        (
            "[upstream.login]\nrole = 'arn:aws:iam::1:role/r'\nweb_identity_token_file = '/token'",
            &[],
        ),
        ("[upstream.login]\nmetadata_server = true", &[]),
        (
            "[upstream.login]",
            &["`[upstream.login]` names no credentials"],
        ),
        (
            "[upstream.login]\ninstance_role = false",
            &["`upstream.login.instance_role = false` names no credentials"],
        ),
        (
            "[upstream.login]\nusername = 'a'",
            &["`upstream.login.username` has no `password`"],
        ),
        (
            "[upstream.login]\naccess_key_id = 'a'",
            &["`upstream.login.secret_access_key` is missing"],
        ),
        (
            "[upstream.login]\ntenant = 'a'\nclient_secret = 'b'",
            &["`upstream.login.client_id` is missing"],
        ),
        (
            "[upstream.login]\nusername = 'a'\npassword = 'b'\nprofile = 'c'",
            &["`[upstream.login]` holds `username` and `password` and `profile`"],
        ),
        (
            "username = 'a'\npassword = 'b'\n[upstream.login]\nprofile = 'c'",
            &["`[upstream.login]` and `username` with `password` in [upstream] exclude each other"],
        ),
        (
            "authorization = 'pass'\n[upstream.login]\nprofile = 'c'",
            &["`upstream.authorization` cannot be \"pass\" beside credentials of moorgate's own"],
        ),
        (
            "product = 'harbor'\n[upstream.login]\nprofile = 'c'",
            &["`[upstream.login]` holds `profile`, which the product \"harbor\" does not take"],
        ),
        (
            "product = 'ecr'\n[upstream.login]\nusername = 'AWS'\npassword = 'b'",
            &[
                "`[upstream.login]` holds `username` and `password`, which the product \"ecr\" does not take",
            ],
        ),
        ("[upstream.admin]\ntoken = 'a'", &[]),
        ("[upstream.admin]\nusername = 'a'\npassword = 'b'", &[]),
        (
            "[upstream.admin]\nusername = 'a'\npassword = 'b'\ntoken = 'c'",
            &["`[upstream.admin]` needs `token`, or `username` and `password`"],
        ),
        (
            "[upstream.admin]",
            &["`[upstream.admin]` needs `token`, or `username` and `password`"],
        ),
        (
            "[upstream.login]\ncolour = 'red'\nprofile = 'c'",
            &["unknown key `colour` in [upstream.login]"],
        ),
        (
            "product = 'nexus'",
            &["`upstream.product` is not a known value"],
        ),
        (
            "untag = 'never'",
            &["`upstream.untag` is not a known value"],
        ),
    ];
    for (more, expected) in cases {
        assert_eq!(problems(more), *expected, "{more}");
    }
}

#[test]
fn an_api_that_takes_signed_requests_or_tokens_has_no_second_credentials() {
    let aws = "access_key_id = 'a'\nsecret_access_key = 'b'";
    for (login, taken) in [
        (aws, "`access_key_id` and `secret_access_key`"),
        ("profile = 'c'", "`profile`"),
        (
            "role = 'arn:aws:iam::1:role/r'\nweb_identity_token_file = '/token'",
            "`role` and `web_identity_token_file`",
        ),
        ("instance_role = true", "`instance_role`"),
        ("service_account = 'a'", "`service_account`"),
        ("metadata_server = true", "`metadata_server`"),
    ] {
        for admin in ["token = 'a'", "username = 'a'\npassword = 'b'"] {
            let found = problems(&format!(
                "[upstream.login]\n{login}\n[upstream.admin]\n{admin}"
            ));
            let expected =
                format!("`[upstream.admin]` cannot stand beside {taken}: the API takes no other");
            assert_eq!(found, [expected], "{login} {admin}");
        }
    }
    let beside_ecr = "`[upstream.admin]` cannot stand beside the product \"ecr\", whose requests keys \
                      sign: the API takes no other";
    let admin = "[upstream.admin]\ntoken = 'a'";
    assert_eq!(problems(&format!("product = 'ecr'\n{admin}")), [beside_ecr]);
    let entra = "tenant = 'a'\nclient_id = 'b'\nclient_secret = 'c'";
    for allowed in [
        format!("[upstream.login]\n{entra}\n{admin}"),
        format!("product = 'gar'\nusername = '_json_key'\npassword = 'b'\n{admin}"),
    ] {
        assert_eq!(problems(&allowed), [""; 0], "{allowed}");
    }
}

#[test]
fn names_are_mapped_by_rules_that_keep_them_apart() {
    let rule =
        |prefix: &str, to: &str| format!("[[upstream.map]]\nprefix = '{prefix}'\nto = '{to}'\n");
    let cases: &[(String, &[&str])] = &[
        (rule("ci/", "acme/ci-") + "flatten = '--'", &[]),
        (rule("ci/", "acme/ci-") + &rule("", "other/"), &[]),
        (
            rule("ci", "acme/"),
            &["`prefix` must end with a slash, so that it names whole components"],
        ),
        (
            rule("ci/", "acme/ci-") + &rule("", "acme/"),
            &[
                "names of this rule and of the rule with the prefix `ci/` could meet at the registry: one `to` is the beginning of the other",
            ],
        ),
        (
            rule("", "acme/") + &rule("ci/", "other/"),
            &["no name reaches this rule: the prefix `` comes before it"],
        ),
        (
            "[[upstream.map]]\nprefix = 'ci/'".to_owned(),
            &["`upstream.map.to` is missing"],
        ),
    ];
    for (more, expected) in cases {
        assert_eq!(problems(more), *expected, "{more}");
    }
}

#[test]
fn a_directory_has_no_product() {
    let domain = with(
        "upstream",
        "[upstream]\ndirectory = 'ci'\nproduct = 'ecr'\n[upstream.login]\nprofile = 'c'\n",
    );
    assert_eq!(
        messages("", &[&domain]),
        [
            "`upstream.product` is for a registry at a `url`, and this one is a `directory`",
            "`upstream.login` is for a registry at a `url`, and this one is a `directory`",
        ]
    );
}

#[test]
fn replicas_differ_in_nothing_but_host_and_port() {
    let cases: &[(&str, &[&str])] = &[
        (
            "urls = ['http://a:5000/x', 'http://b/x', 'http://a/x']",
            &[],
        ),
        ("urls = ['http://a']", &[]),
        (
            "urls = ['http://a', 'http://b']\n[upstream.check]\ninterval = '1s'\npath = '/v2/_catalog?n=1'",
            &[],
        ),
        ("urls = []", &["`upstream.url` is missing"]),
        (
            "url = 'http://a'\nurls = ['http://a']",
            &["`upstream.url` and `upstream.urls` exclude each other"],
        ),
        (
            "directory = 'a'\nurls = ['http://a']",
            &[
                "`upstream.url` and `upstream.directory` exclude each other: a domain has one registry",
            ],
        ),
        (
            "urls = ['http://a', 'https://b', 'http://c/x']",
            &[
                "https://b differs from http://a in more than host and port",
                "http://c/x differs from http://a in more than host and port",
            ],
        ),
        (
            "urls = ['http://a', 'http://b', 'http://a:80']",
            &["http://a is written twice"],
        ),
        (
            "urls = ['http://a']\n[upstream.check]",
            &["`[upstream.check]` is for several `urls`"],
        ),
        (
            "url = 'http://a'\n[upstream.check]\ninterval = '5s'",
            &["`[upstream.check]` is for several `urls`"],
        ),
        (
            "urls = ['http://a', 'http://b']\n[upstream.check]\ninterval = '10ms'\npath = 'v2'",
            &[
                "`upstream.check.interval` is shorter than 1s",
                "`upstream.check.path` is no path",
            ],
        ),
        (
            "urls = ['http://a', 'http://b']\n[upstream.check]\ncolour = 'red'",
            &["unknown key `colour` in [upstream.check]"],
        ),
    ];
    for (keys, wanted) in cases {
        let domain = with("upstream", &format!("[upstream]\n{keys}"));
        assert_eq!(messages("", &[&domain]), *wanted, "{keys}");
    }
}
