use super::*;

fn read<T>(toml: &str, read: impl Fn(&DeValue<'_>) -> Value<T>) -> Value<T> {
    let value = DeValue::parse(toml).expect("toml");
    read(value.get_ref())
}

fn message<T: std::fmt::Debug>(outcome: Value<T>) -> String {
    outcome.expect_err("refused").to_string()
}

#[test]
fn durations_have_units() {
    let cases = [
        ("500ms", 500),
        ("30s", 30_000),
        ("10min", 600_000),
        ("1h", 3_600_000),
        ("1h 30min", 5_400_000),
        ("1h30min", 5_400_000),
        (" 2 min ", 120_000),
        ("1min 1s 1ms", 61_001),
        ("1d", 86_400_000),
        ("23h 59min 59s 1000ms", 86_400_000),
        ("0h 007s", 7_000),
        ("1 h  30 min", 5_400_000),
        ("1h\t30min", 5_400_000),
    ];
    for (text, milliseconds) in cases {
        let duration = read(&format!("'{text}'"), |value| duration(value, DAY));
        assert_eq!(duration, Ok(Duration::from_millis(milliseconds)), "{text}");
    }
}

#[test]
fn other_durations_are_refused() {
    let refused = |toml: &str| message(read(toml, |value| duration(value, DAY)));
    for toml in [
        "''",
        "' '",
        "'s'",
        "'30'",
        "'30m'",
        "'30 sec'",
        "'-1s'",
        "'+1s'",
        "'1.5h'",
        "'1s 1h'",
        "'1s 1s'",
        "'1s,1ms'",
        "'1h, 30min'",
        "'1s ago'",
        "'- 1s'",
        "'PT1H'",
        "'pt1h'",
        "'P1D'",
        "'01:30:00'",
        "'1h 30'",
        "'1h min'",
        "'1m'",
        "'1M'",
        "'1mo'",
        "'1w'",
        "'1y'",
        "'1us'",
        "'1ns'",
        "'1 hour'",
        "'2 days'",
        "'1S'",
        "'1min 1h'",
        "'1ms1s'",
        "'99999999999999999999s'",
        "'9999999999999999999d'",
        "'١s'",
    ] {
        assert_eq!(refused(toml), "is not a duration", "{toml}");
    }
    assert_eq!(refused("'0s'"), "is zero");
    assert_eq!(refused("'0d 0ms'"), "is zero");
    assert_eq!(refused("'1d 1ms'"), "is too long");
    assert_eq!(refused("'3651d'"), "is too long");
    assert_eq!(refused("30"), "must be a string in quotes, not an integer");
}

#[test]
fn sizes_are_bytes_or_have_units() {
    let cases = [
        ("8192", 8192),
        ("0x10", 16),
        ("1_000", 1000),
        ("'8 MiB'", 8 << 20),
        ("'32KiB'", 32 << 10),
        ("'1GB'", 1_000_000_000),
        ("'1 kb'", 1000),
        ("'5 B'", 5),
    ];
    for (toml, bytes) in cases {
        assert_eq!(
            read(toml, |value| size(value, 0, u64::MAX)),
            Ok(bytes),
            "{toml}"
        );
    }
    for toml in [
        "''",
        "'8'",
        "'MiB'",
        "'8 M'",
        "'-1 B'",
        "-1",
        "'1.5 MiB'",
        "'99999999999 TiB'",
        "'1 MiB 1 B'",
    ] {
        assert_eq!(
            message(read(toml, |value| size(value, 0, u64::MAX))),
            "is not a size",
            "{toml}"
        );
    }
    assert_eq!(
        message(read("1.5", |value| size(value, 0, 1))),
        "must be a string in quotes, not a float"
    );
    assert_eq!(
        read("1", |value| size(value, KIB, GIB))
            .expect_err("small")
            .help,
        "write \"1 KiB\" or more"
    );
    assert_eq!(
        read("'2GiB'", |value| size(value, KIB, GIB))
            .expect_err("large")
            .help,
        "write \"1 GiB\" or less"
    );
}

#[test]
fn a_size_may_be_none_but_not_zero() {
    assert_eq!(read("'none'", size_or_none), Ok(None));
    assert_eq!(read("'1 GiB'", size_or_none), Ok(Some(GIB)));
    assert_eq!(message(read("0", size_or_none)), "would refuse every body");
}

#[test]
fn numbers_have_bounds() {
    assert_eq!(read("100", |value| number::<u32>(value, 1, 1000)), Ok(100));
    for toml in ["0", "-1", "1001", "99999999999999999999"] {
        assert_eq!(
            message(read(toml, |value| number::<u32>(value, 1, 1000))),
            "is out of bounds",
            "{toml}"
        );
    }
    assert_eq!(
        message(read("'1'", |value| number::<u32>(value, 1, 2))),
        "must be a whole number, not a string"
    );
}

#[test]
fn listen_addresses_are_addresses() {
    let cases = [
        (":443", "[::]:443", ":443"),
        ("[::]:443", "[::]:443", ":443"),
        (":0", "[::]:0", ":0"),
        ("0.0.0.0:443", "0.0.0.0:443", "0.0.0.0:443"),
        ("127.0.0.1:8443", "127.0.0.1:8443", "127.0.0.1:8443"),
        ("[::1]:8443", "[::1]:8443", "[::1]:8443"),
        (
            "[::ffff:127.0.0.1]:8443",
            "127.0.0.1:8443",
            "127.0.0.1:8443",
        ),
        ("[fe80::1%2]:8443", "[fe80::1%2]:8443", "[fe80::1%2]:8443"),
    ];
    for (text, address, shown) in cases {
        let listen = read(&format!("'{text}'"), listen_address).expect(text);
        assert_eq!(
            (listen.0.to_string().as_str(), listen.to_string().as_str()),
            (address, shown)
        );
    }
    for text in [
        "",
        ":",
        "443",
        ":65536",
        ":+1",
        ": 1",
        "*:443",
        "localhost:443",
        "127.0.0.1",
        "::1:443",
        "[::1]",
    ] {
        let outcome = read(&format!("'{text}'"), listen_address);
        assert_eq!(message(outcome), "is not an address to listen on", "{text}");
    }
}

#[test]
fn a_domain_is_a_name() {
    assert_eq!(
        read("'CI.Example.com.'", domain_name)
            .expect("name")
            .as_str(),
        "ci.example.com"
    );
    assert_eq!(
        read("'localhost'", domain_name).expect("name").as_str(),
        "localhost"
    );
    assert_eq!(
        message(read("'127.0.0.1'", domain_name)),
        "is an address, not a name"
    );
    assert_eq!(
        read("'127.0.0.1'", host_name).expect("alias").as_str(),
        "127.0.0.1"
    );
}

#[test]
fn what_is_no_name_is_told_by_what_it_is() {
    let told = |text: &str, read: fn(&DeValue<'_>) -> Result<String, InvalidValue>| {
        let error = super::tests::read(&format!("'{text}'"), read).expect_err(text);
        format!("{text} {error}; {}", error.help)
    };
    let domain = |value: &DeValue<'_>| domain_name(value).map(|name| name.to_string());
    let alias = |value: &DeValue<'_>| alias(value).map(|alias| alias.host.to_string());
    let lines = [
        told("ci.example.com:5000", domain),
        told("https://ci.example.com:5000/v2/", domain),
        told("ci.example.com/v2", alias),
        told("*.example.com", domain),
        told("*.example.com", alias),
        told("bücher.example", domain),
        told("Bücher.example.", alias),
        told("a b", domain),
        told("ü ü", domain),
    ];
    insta::assert_snapshot!(lines.join("\n"), @r#"
    ci.example.com:5000 has a port; write domain = "ci.example.com", and the port as an address to listen on: listen = [":5000"]
    https://ci.example.com:5000/v2/ is a URL, not a name; write the name alone: "ci.example.com"
    ci.example.com/v2 is a URL, not a name; write the name alone: "ci.example.com"
    *.example.com is a wildcard, which is no name of a domain; write each name: one in `domain`, the others in `aliases`; a certificate for all of them is asked for by `names` in [tls]
    *.example.com is a wildcard, which is no name of a domain; write each name: one in `domain`, the others in `aliases`; a certificate for all of them is asked for by `names` in [tls]
    bücher.example is not in ASCII; write it as DNS and certificates have it: "xn--bcher-kva.example"
    Bücher.example. is not in ASCII; write it as DNS and certificates have it: "xn--bcher-kva.example."
    a b is wrong: the host name is not valid; write a DNS name such as "docker-ci.example.com", without scheme, port and path
    ü ü is wrong: the host name is not valid; write a DNS name such as "docker-ci.example.com", without scheme, port and path
    "#);
}

#[test]
fn an_upstream_is_a_plain_url() {
    let cases = [
        ("http://registry:5000", "http://registry:5000"),
        ("HTTP://Registry/", "http://registry"),
        (
            "https://registry.example.com",
            "https://registry.example.com",
        ),
        ("https://registry:443", "https://registry"),
        (
            "http://[::1]:5000/base/path/",
            "http://[::1]:5000/base/path",
        ),
        ("http://10.0.0.1/a-b_c~d.e", "http://10.0.0.1/a-b_c~d.e"),
    ];
    for (text, shown) in cases {
        let url = read(&format!("'{text}'"), upstream_url).expect(text);
        assert_eq!(url.to_string(), shown, "{text}");
        assert_eq!(read(&format!("'{url}'"), upstream_url), Ok(url), "{text}");
    }
}

#[test]
fn other_upstreams_are_refused_without_showing_them() {
    let cases = [
        ("registry:5000", "does not begin with http:// or https://"),
        (
            "me:s3cret@registry",
            "does not begin with http:// or https://",
        ),
        ("ftp://registry", "does not begin with http:// or https://"),
        ("http://me:s3cret@registry", "holds credentials"),
        ("http://me@registry/", "holds credentials"),
        ("http://registry?a=b", "holds a query or a fragment"),
        ("http://registry/a#b", "holds a query or a fragment"),
        ("http://", "is wrong: the host is empty"),
        ("http:///a", "is wrong: the host is empty"),
        ("http://registry:", "is wrong: the port is not valid"),
        ("http://registry:0", "has port 0"),
        ("http://a b", "is wrong: the host name is not valid"),
        (
            "http://a/../b",
            "has an empty, `.` or `..` segment in its path",
        ),
        (
            "http://a/./b",
            "has an empty, `.` or `..` segment in its path",
        ),
        (
            "http://a//b",
            "has an empty, `.` or `..` segment in its path",
        ),
        (
            "http://a/b//",
            "has an empty, `.` or `..` segment in its path",
        ),
        (
            "http://a/%2e",
            "has a character in its path that is not plain",
        ),
        (
            "http://a/b c",
            "has a character in its path that is not plain",
        ),
        ("http://a\\b", "is wrong: the host name is not valid"),
        (
            "http://a/b\\c",
            "has a character in its path that is not plain",
        ),
        ("http://a/v2/", "ends with /v2"),
        ("http://a/b/v2", "ends with /v2"),
    ];
    for (text, expected) in cases {
        let error = read(&format!("'{text}'"), upstream_url).expect_err(text);
        assert_eq!(error.to_string(), expected, "{text}");
        assert!(!error.help.contains("s3cret"));
    }
}

#[test]
fn realms_and_user_names_need_no_escapes() {
    assert_eq!(
        read("'CI registry (ops)'", realm).as_deref(),
        Ok("CI registry (ops)")
    );
    for toml in ["''", "'a\"b'", "'a\\b'", "\"a\\nb\"", "'é'"] {
        assert_eq!(message(read(toml, realm)), "is not a realm", "{toml}");
    }
    assert_eq!(
        read("'robot$ci+push'", username).as_deref(),
        Ok("robot$ci+push")
    );
    for toml in ["''", "'a:b'", "\"a\\tb\""] {
        assert_eq!(
            message(read(toml, username)),
            "is not a user name",
            "{toml}"
        );
    }
}

#[test]
fn words_flags_and_paths() {
    let word = |toml| read(toml, |value| choice(value, &[("strip", 1), ("pass", 2)]));
    assert_eq!(word("'pass'"), Ok(2));
    assert_eq!(
        word("'Pass'").expect_err("unknown").help,
        "write \"strip\" or \"pass\""
    );
    assert_eq!(read("true", flag), Ok(true));
    assert_eq!(
        message(read("'true'", flag)),
        "must be a boolean, not a string"
    );
    assert_eq!(read("'../a'", path), Ok(PathBuf::from("../a")));
    assert_eq!(message(read("''", path)), "is not a path");
    assert_eq!(
        message(read("['a']", path)),
        "must be a string in quotes, not an array"
    );
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,40}") {
        let value = DeValue::String(text.into());
        let _ = (duration(&value, DAY), size(&value, 0, u64::MAX), listen_address(&value));
        let _ = (host_name(&value), realm(&value), username(&value), path(&value));
        if let Ok(url) = upstream_url(&value) {
            let again = DeValue::String(url.to_string().into());
            proptest::prop_assert_eq!(upstream_url(&again), Ok(url));
        }
    }

    #[test]
    fn a_written_duration_is_read_back(milliseconds in 1_u64..86_400_000) {
        let (hours, rest) = (milliseconds / 3_600_000, milliseconds % 3_600_000);
        let text = format!("{hours}h {}min {}s {}ms", rest / 60_000, rest / 1000 % 60, rest % 1000);
        let value = DeValue::String(text.into());
        proptest::prop_assert_eq!(duration(&value, DAY), Ok(Duration::from_millis(milliseconds)));
    }

    #[test]
    fn a_shown_listen_address_is_read_back(ip: std::net::IpAddr, port: u16) {
        let value = DeValue::String(SocketAddr::new(ip, port).to_string().into());
        let listen = listen_address(&value).expect("an address");
        let again = DeValue::String(listen.to_string().into());
        proptest::prop_assert_eq!(listen_address(&again), Ok(listen));
    }
}
