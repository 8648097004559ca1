//! The exact text of each file below `state`. Earlier versions wrote the same.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ledger::Ledger;
use super::paths::StoredAccount;
use super::pending_order::OpenOrder;
use super::storage::{DomainRecord, Txt};

/// Checks that `text` is read, and that what was read is written as the same text.
fn assert_format<T: Serialize + DeserializeOwned>(text: &str) {
    let value: T = serde_json::from_str(text).expect("valid");
    assert_eq!(serde_json::to_string_pretty(&value).expect("JSON"), text);
}

#[test]
fn the_ledger_keeps_its_format() {
    assert_format::<Ledger>(
        r#"{
  "founded": "2027-01-15T08:00:00Z",
  "confirmed": [
    "a.example.com"
  ],
  "cas": {
    "https://ca.example/directory": {
      "accounts": [
        "2027-01-15T08:00:00.5Z",
        "1969-12-31T23:59:59.999999999Z"
      ],
      "attempts": [
        {
          "account": "https://ca.example/account/1",
          "names": [
            "a.example.com",
            "b.example.com"
          ],
          "kind": "new",
          "placed": "2027-01-15T08:00:01.123456789Z",
          "moved": "2027-01-15T08:00:02Z",
          "stage": "finalizing"
        }
      ],
      "backoffs": [
        [
          [
            "a.example.com",
            "b.example.com"
          ],
          {
            "times": 2,
            "at": "2027-01-15T08:00:02.000000001Z",
            "last": "the CA has not finished",
            "bound": "unfinished",
            "jitter": 999,
            "retry_at": "2027-01-15T09:00:00Z"
          }
        ],
        [
          [
            "c.example.com"
          ],
          {
            "times": 1,
            "at": "2027-01-15T08:00:03Z",
            "last": "the CA refuses: no",
            "bound": "usual",
            "jitter": 0,
            "retry_at": null
          }
        ]
      ],
      "streaks": [
        {
          "account": "https://ca.example/account/1",
          "name": "a.example.com",
          "times": 3,
          "at": "2027-01-15T08:00:02Z"
        }
      ],
      "closed": [
        {
          "account": null,
          "until": "2027-01-15T20:00:00Z",
          "words": "too many new orders recently"
        }
      ]
    }
  }
}"#,
    );
}

#[test]
fn an_order_in_the_ledger_names_what_has_not_failed() {
    assert_format::<Ledger>(
        r#"{
  "founded": "2027-01-15T08:00:00Z",
  "confirmed": [],
  "cas": {
    "https://ca.example/directory": {
      "accounts": [],
      "attempts": [
        {
          "account": "https://ca.example/account/1",
          "names": [
            "a.example.com",
            "b.example.com"
          ],
          "kind": "new",
          "placed": "2027-01-15T08:00:01Z",
          "moved": "2027-01-15T08:00:02Z",
          "stage": "ended",
          "not_failed": [
            "b.example.com"
          ]
        }
      ],
      "backoffs": [],
      "streaks": [],
      "closed": []
    }
  }
}"#,
    );
}

#[test]
fn a_pending_order_keeps_its_format() {
    assert_format::<OpenOrder>(
        r#"{
  "ca": "https://ca.example/directory",
  "account": "https://ca.example/account/1",
  "url": "https://ca.example/order/1",
  "names": [
    "*.example.com",
    "192.0.2.1"
  ],
  "kind": "replacement",
  "placed": "2027-01-15T08:00:00.123456Z"
}"#,
    );
}

#[test]
fn the_record_of_a_domain_keeps_its_format() {
    assert_format::<DomainRecord>("{}");
    assert_format::<DomainRecord>(
        r#"{
  "challenge": "http-01",
  "failed_challenges": [
    "tls-alpn-01"
  ],
  "advice": {
    "serial": "0a:0b",
    "window": [
      {
        "secs_since_epoch": 1800000000,
        "nanos_since_epoch": 0
      },
      {
        "secs_since_epoch": 1800003600,
        "nanos_since_epoch": 5
      }
    ],
    "ask_again": {
      "secs_since_epoch": 1800000100,
      "nanos_since_epoch": 0
    },
    "failures": 1
  },
  "serial": "0a:0b",
  "profile": "shortlived",
  "error": "the CA refuses: no",
  "findings": [
    "a.example.com does not resolve"
  ],
  "held": {
    "why": "no certificate is ordered yet",
    "until": {
      "secs_since_epoch": 1800007200,
      "nanos_since_epoch": 0
    }
  },
  "postponed": {
    "https://ca.example/directory": {
      "since": "2027-01-15T08:00:00Z",
      "times": 4
    }
  }
}"#,
    );
}

#[test]
fn an_account_keeps_its_format() {
    assert_format::<StoredAccount>(
        r#"{
  "directory": "https://ca.example/directory",
  "url": "https://ca.example/account/1",
  "contacts": [
    "mailto:ops@example.com"
  ],
  "identities": [
    "ca.example"
  ]
}"#,
    );
}

#[test]
fn the_list_of_txt_records_keeps_its_format() {
    assert_format::<Vec<Txt>>(
        r#"[
  {
    "name": "_acme-challenge.a.example.com",
    "value": "digest"
  }
]"#,
    );
}
