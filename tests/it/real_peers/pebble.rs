//! Certificates from a real CA: every challenge, account bindings, wildcards, renewal, and a CA in
//! a bad mood.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use super::pebble_ca::{Acme, Mood, binding_key};
use super::process::until;

const ASKS: &str = "acme = \"ops@example.com\"";

/// A CA and a moorgate with one domain, which is served.
fn serving(mood: Mood, main: &str, ca: &str, tls: &str) -> Acme {
    let mut acme = Acme::new(mood);
    acme.configure(main, ca, &[("ci.test", tls)]);
    acme.serve();
    acme
}

#[test]
fn the_first_certificate_comes_by_itself_over_tls_alpn() {
    let acme = serving(Mood::default(), "", "", ASKS);
    acme.issued("ci.test");
    assert!(acme.is_trusted("ci.test", 0));
    let record = fs::read_to_string(&acme.kept("domains/ci.test.json")[0]).unwrap();
    assert!(
        record.contains("\"challenge\": \"tls-alpn-01\""),
        "{record}"
    );
    assert!(
        acme.kept("orders/ci.test.json").is_empty(),
        "the order is over"
    );
    let challenges = acme.path().join("state/acme/challenges");
    assert_eq!(
        fs::read_dir(challenges).unwrap().count(),
        0,
        "no answer is left behind"
    );
    for private in ["certificates/ci.test.pem", "/account.json", "/account.key"] {
        let mode = fs::metadata(&acme.kept(private)[0])
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{private}");
    }
}

#[test]
fn an_address_is_proved_like_a_name() {
    for kind in ["http-01", "tls-alpn-01"] {
        let mut acme = Acme::new(Mood::default());
        let tls = "acme = true\nnames = [\"ci.test\", \"127.0.0.1\"]";
        acme.configure(
            &format!("[acme]\nchallenges = [\"{kind}\"]"),
            "",
            &[("ci.test", tls)],
        );
        acme.serve();
        let names = acme.issued("ci.test")["names"].clone();
        assert_eq!(names, serde_json::json!(["ci.test", "127.0.0.1"]), "{kind}");
        assert!(acme.is_trusted("ci.test", 0), "{kind}");
    }
}

#[test]
fn http_01_is_answered_on_the_plain_listener() {
    let acme = serving(
        Mood::default(),
        "[acme]\nchallenges = [\"http-01\"]",
        "",
        ASKS,
    );
    acme.issued("ci.test");
    assert!(acme.is_trusted("ci.test", 0));
}

#[test]
fn a_wildcard_is_proved_by_the_administrator_s_dns_command() {
    let mut acme = Acme::new(Mood::default());
    acme.write_dns_command();
    let tls = "acme = true\nnames = [\"*.example.test\", \"example.test\"]";
    acme.configure(
        "[acme]\ndns_command = [\"./set-txt\"]\nchallenges = [\"dns-01\"]",
        "",
        &[("ci.example.test", tls)],
    );
    acme.serve();
    let certificate = acme.issued("ci.example.test");
    assert_eq!(
        certificate["names"],
        serde_json::json!(["*.example.test", "example.test"])
    );
    assert!(acme.is_trusted("ci.example.test", 0));
    let mut calls: Vec<_> = fs::read_to_string(acme.path().join("config/calls"))
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    calls.sort();
    // Both names are proved at the same place, by a record each.
    let both = ["cleanup", "cleanup", "present", "present"];
    assert_eq!(
        calls,
        both.map(|action| format!("{action} _acme-challenge.example.test"))
    );
}

#[test]
fn a_dns_command_that_fails_is_told_in_its_own_words() {
    let mut acme = Acme::new(Mood::default());
    let main = "[acme]\ndns_command = [\"/bin/sh\", \"-c\", \"echo 'no such zone' >&2; exit 1\"]\nchallenges = [\"dns-01\"]";
    acme.configure(main, "", &[("ci.test", ASKS)]);
    acme.serve();
    let waiting = acme.until_certificate("ci.test", "explained", |certificate| {
        certificate["acme"]["error"].is_string()
    });
    let error = waiting["acme"]["error"].as_str().unwrap();
    assert!(
        error.ends_with("`/bin/sh present` failed (exit status: 1): no such zone"),
        "{error}"
    );
    let listed = acme.cli(&["certs"]).succeeded();
    assert!(listed.contains("no such zone"), "{listed}");
}

#[test]
fn an_account_is_bound_to_an_external_one() {
    let keys: &'static str = Box::leak(
        format!(
            "\"externalAccountBindingRequired\": true, \"externalAccountMACKeys\": {{\"kid-1\": \"{}\"}}",
            binding_key()
        )
        .into_boxed_str(),
    );
    let binding = format!(
        "eab_key_id = \"kid-1\"\neab_hmac_key = \"{}\"",
        binding_key()
    );
    let acme = serving(
        Mood {
            keys,
            ..Mood::default()
        },
        "",
        &binding,
        ASKS,
    );
    acme.issued("ci.test");
}

#[test]
fn without_the_binding_the_ca_s_refusal_is_told() {
    let keys = "\"externalAccountBindingRequired\": true, \"externalAccountMACKeys\": {}";
    let acme = serving(
        Mood {
            keys,
            ..Mood::default()
        },
        "",
        "",
        ASKS,
    );
    let waiting = acme.until_certificate("ci.test", "explained", |certificate| {
        certificate["acme"]["error"].is_string()
    });
    let error = waiting["acme"]["error"].as_str().unwrap();
    assert!(error.contains("externalAccountRequired"), "{error}");
    assert!(waiting["acme"]["next_attempt"].is_string());
    assert!(acme.refuses("ci.test"));
}

#[test]
fn random_bad_nonces_and_a_sleepy_validator_change_nothing() {
    let environment = &[
        ("PEBBLE_WFE_NONCEREJECT", "30"),
        ("PEBBLE_VA_NOSLEEP", "0"),
        ("PEBBLE_VA_SLEEPTIME", "3"),
        ("PEBBLE_AUTHZREUSE", "50"),
    ];
    let mut acme = Acme::new(Mood {
        environment,
        ..Mood::default()
    });
    let names = ["a.test", "b.test", "c.test", "d.test"];
    acme.configure("", "", &names.map(|name| (name, ASKS)));
    acme.serve();
    for name in names {
        acme.issued(name);
        assert!(acme.is_trusted(name, 0), "{name}");
    }
}

#[test]
fn nine_of_ten_nonces_refused_delay_no_certificate() {
    let environment = &[("PEBBLE_WFE_NONCEREJECT", "90")];
    let mut acme = Acme::new(Mood {
        environment,
        ..Mood::default()
    });
    let names = ["a.test", "b.test", "c.test", "d.test", "e.test", "f.test"];
    acme.configure("", "", &names.map(|name| (name, ASKS)));
    acme.serve();
    for name in names {
        let shown = acme.issued(name);
        assert_eq!(shown["acme"]["attempts"]["failed"], 0, "{shown}");
        assert!(acme.is_trusted(name, 0), "{name}");
    }
    assert_eq!(acme.kept("/account.json").len(), 1);
}

#[test]
fn a_failed_validation_is_told_and_the_other_challenge_is_tried_next() {
    // Nobody can ask on port 443: only http-01 can work, and tls-alpn-01 is tried first.
    let mut acme = Acme::new(Mood {
        deaf_to_tls: true,
        ..Mood::default()
    });
    acme.configure("", "", &[("ci.test", ASKS)]);
    acme.serve();
    let waiting = acme.until_certificate("ci.test", "explained", |certificate| {
        certificate["acme"]["error"].is_string()
    });
    let error = waiting["acme"]["error"].as_str().unwrap();
    assert!(
        error.contains("ci.test was not validated by tls-alpn-01: "),
        "{error}"
    );
    acme.cli(&["certs", "renew", "ci.test"]).succeeded();
    acme.issued("ci.test");
    let record = fs::read_to_string(&acme.kept("domains/ci.test.json")[0]).unwrap();
    assert!(record.contains("\"challenge\": \"http-01\""), "{record}");
}

#[test]
fn certs_renew_replaces_a_certificate_that_is_not_due() {
    let acme = serving(Mood::default(), "", "", ASKS);
    let before = acme.issued("ci.test")["serial"].clone();
    acme.cli(&["certs", "renew", "ci.test"]).succeeded();
    acme.until_certificate("ci.test", "another", |certificate| {
        certificate["serial"] != before
    });
    assert!(acme.is_trusted("ci.test", 0));
    assert_eq!(acme.kept("/account.json").len(), 1);
}

#[test]
fn a_certificate_is_renewed_by_itself_when_half_of_its_life_is_over() {
    let keys = "\"externalAccountBindingRequired\": false, \"certificateValidityPeriod\": 60";
    let acme = serving(
        Mood {
            keys,
            ..Mood::default()
        },
        "",
        "",
        ASKS,
    );
    let first = acme.issued("ci.test");
    let second = acme.until_certificate("ci.test", "another", |certificate| {
        certificate["serial"] != first["serial"]
    });
    let moment = |of: &Value, key: &str| {
        of[key]
            .as_str()
            .unwrap()
            .parse::<jiff::Timestamp>()
            .unwrap()
    };
    let life = moment(&first, "not_after")
        .duration_since(moment(&first, "not_before"))
        .as_secs();
    assert!((55..=65).contains(&life), "{life}");
    let lived = moment(&second, "not_before")
        .duration_since(moment(&first, "not_before"))
        .as_secs();
    // Up to 1/25 of the life earlier; how much later is the machine's affair, as long as the first
    // one is good.
    assert!(
        (life * 23 / 50 - 1..life).contains(&lived),
        "{lived} of {life} s"
    );
    assert_eq!(acme.asked("POST /order-plz"), 2);
    assert!(acme.is_trusted("ci.test", 0), "{second}");
}

#[test]
fn the_chain_below_the_wanted_root_is_served() {
    let environment = &[("PEBBLE_ALTERNATE_ROOTS", "2")];
    let mut acme = Acme::new(Mood {
        environment,
        ..Mood::default()
    });
    let root = acme.root_name(2);
    acme.configure("", &format!("chain = \"{root}\""), &[("ci.test", ASKS)]);
    acme.serve();
    acme.issued("ci.test");
    assert!(acme.is_trusted("ci.test", 2));
    assert!(!acme.is_trusted("ci.test", 0));
}

#[test]
fn a_restart_orders_nothing_and_serves_at_once() {
    let mut acme = serving(Mood::default(), "", "", ASKS);
    let before = acme.issued("ci.test")["serial"].clone();
    acme.stop();
    let orders = acme.asked("POST /order-plz");
    assert_eq!(orders, 1);
    acme.serve();
    assert!(acme.is_trusted("ci.test", 0));
    acme.until_certificate("ci.test", "looked after", |certificate| {
        certificate["acme"]["next_attempt"].is_string()
    });
    assert_eq!(acme.certificate("ci.test")["serial"], before);
    assert_eq!(acme.asked("POST /order-plz"), orders);
}

#[test]
fn a_ca_that_has_forgotten_the_account_gets_a_new_one() {
    let mut acme = serving(Mood::default(), "", "", ASKS);
    let before = acme.issued("ci.test")["serial"].clone();
    let account = fs::read_to_string(&acme.kept("/account.json")[0]).unwrap();
    acme.restart_ca(Mood::default());
    acme.cli(&["certs", "renew", "ci.test"]).succeeded();
    acme.until_certificate("ci.test", "another", |certificate| {
        certificate["serial"] != before
    });
    assert!(acme.is_trusted("ci.test", 0));
    assert_ne!(
        fs::read_to_string(&acme.kept("/account.json")[0]).unwrap(),
        account
    );
}

#[test]
fn a_start_never_waits_for_a_ca_and_other_domains_are_served() {
    let mut acme = Acme::new(Mood::default());
    acme.stop_ca();
    let fallback = "acme = true\nfallback = \"internal\"";
    acme.configure(
        "",
        "",
        &[
            ("ci.test", ASKS),
            ("own.test", "internal = true"),
            ("both.test", fallback),
        ],
    );
    acme.serve();
    assert!(acme.refuses("ci.test"));
    for served in ["own.test", "both.test"] {
        assert!(!acme.refuses(served), "{served}");
    }
    let waiting = acme.until_certificate("ci.test", "explained", |certificate| {
        certificate["acme"]["error"].is_string()
    });
    assert!(
        waiting["acme"]["error"]
            .as_str()
            .unwrap()
            .contains("cannot be reached"),
        "{waiting}"
    );
    acme.restart_ca(Mood::default());
    for name in ["ci.test", "both.test"] {
        acme.cli(&["certs", "renew", name]).succeeded();
        acme.issued(name);
        assert!(acme.is_trusted(name, 0), "{name}");
    }
}

#[test]
fn two_processes_on_one_state_directory_order_once() {
    let mut acme = Acme::new(Mood::default());
    acme.write_dns_command();
    let command = acme.path().join("config/set-txt").display().to_string();
    let main = format!("[acme]\ndns_command = [\"{command}\"]\nchallenges = [\"dns-01\"]");
    acme.configure(&main, "", &[("ci.test", ASKS)]);
    let [hold, calls] = ["hold", "calls"].map(|file| acme.path().join("config").join(file));
    fs::write(&hold, "").unwrap();
    acme.serve();
    until("the order is in flight", || calls.exists());
    let other = acme.serve_elsewhere(&[("ci.test", ASKS)]);
    until("the other one sees that", || {
        other.certificate("ci.test")["acme"]["state"] == "another process is ordering"
    });
    fs::remove_file(&hold).unwrap();
    acme.issued("ci.test");
    other.has("ci.test");
    assert_eq!(acme.asked("POST /order-plz"), 1);
}

#[test]
fn a_process_answers_for_another_one_on_its_state_directory() {
    for kind in ["tls-alpn-01", "http-01"] {
        let mut acme = Acme::new(Mood::default());
        acme.configure(
            &format!("[acme]\nchallenges = [\"{kind}\"]"),
            "",
            &[("own.test", "internal = true")],
        );
        acme.serve();
        // The CA never finds this one: what it puts in place must reach the first through the
        // directory.
        acme.serve_elsewhere(&[("ci.test", ASKS)]).has("ci.test");
    }
}
