use jsonwebtoken::{Algorithm, EncodingKey};
use proptest::prelude::*;

use super::*;
use crate::auth::cache::Expiring;
use crate::registry::name::RepositoryName;
use crate::registry::scope::{Resource, Right};

const MINUTE: Duration = Duration::from_secs(60);
const ONE: &str = "alice:$2y$04$EGdrhbKUv8Oc9vGiXX0HQOxSg445d458Muh7DAHskb6QbtCvdxcie\n";
const OTHER: &str = "alice:$2y$05$EGdrhbKUv8Oc9vGiXX0HQOxSg445d458Muh7DAHskb6QbtCvdxcie\n";

fn noon() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

struct TestTokens {
    tokens: Tokens,
    users: Htpasswd,
    directory: tempfile::TempDir,
}

impl TestTokens {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let tokens = Tokens::open(directory.path(), noon()).unwrap();
        Self {
            tokens,
            users: Htpasswd::parse(ONE.as_bytes()),
            directory,
        }
    }

    fn access() -> TokenAccess {
        let mut access = TokenAccess::default();
        access.add(
            Resource::Repository(RepositoryName::parse("a/b").unwrap()),
            Right::Pull.into(),
        );
        access
    }

    fn give(&self, domain: &str, user: Option<&str>) -> String {
        let user = user.map(|user| UserName::new(user).unwrap());
        let entry = user
            .as_ref()
            .map(|user| self.tokens.entry_tag(domain, user, &self.users));
        let bearer = Bearer {
            domain,
            user: user.as_ref().zip(entry.as_deref()),
        };
        self.tokens
            .issue(bearer, &Self::access(), 5 * MINUTE, noon())
            .unwrap()
    }

    fn verify(
        &self,
        token: &str,
        domain: &str,
        now: SystemTime,
    ) -> Result<Option<String>, InvalidToken> {
        let verified = self.tokens.verify(token, domain, &self.users, now)?;
        assert_eq!(*verified.access, Self::access());
        Ok(verified.user.map(|user| user.name.to_string()))
    }

    /// Signed by the real key, with other claims.
    fn forged(&self, change: impl Fn(&mut serde_json::Value)) -> String {
        let token = self.give("ci.test", Some("alice"));
        let payload = token.split('.').nth(1).unwrap();
        let mut claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
        change(&mut claims);
        let keys = self.tokens.keys.load();
        let key = keys.signing(noon());
        let mut header = Header::new(ALGORITHM);
        header.kid = Some(key.id.clone());
        encode(&header, &claims, &key.signing).unwrap()
    }
}

#[test]
fn a_token_identifies_its_user_for_its_lifetime_and_a_minute_around_it() {
    let fixture = TestTokens::new();
    let token = fixture.give("ci.test", Some("alice"));
    let alice = Ok(Some("alice".to_owned()));
    let second = Duration::from_secs(1);
    let end = noon() + 5 * MINUTE;
    // Twice: from the signature and from memory.
    for _ in 0..2 {
        for (now, expected) in [
            (noon() - MINUTE - second, Err(InvalidToken::Early)),
            (noon() - MINUTE, alice.clone()),
            (noon(), alice.clone()),
            (end, alice.clone()),
            (end + MINUTE - second, alice.clone()),
            (end + MINUTE, Err(InvalidToken::Expired)),
        ] {
            assert_eq!(fixture.verify(&token, "ci.test", now), expected);
        }
        assert_eq!(
            fixture.verify(&token, "other.test", noon()),
            Err(InvalidToken::Foreign)
        );
    }
    assert_eq!(
        fixture.verify(&fixture.give("ci.test", None), "ci.test", noon()),
        Ok(None)
    );
}

#[test]
fn the_cache_keeps_a_token_to_the_end_of_its_margin() {
    let fixture = TestTokens::new();
    let token = fixture.give("ci.test", Some("alice"));
    fixture.verify(&token, "ci.test", noon()).unwrap();
    let cache = &fixture.tokens.cache;
    let known = cache.get(&cache.tag(&token)).expect("it was verified");
    assert_eq!(known.expires(), seconds(noon() + 6 * MINUTE));
}

#[test]
fn a_token_ends_with_the_entry_of_its_user() {
    let mut fixture = TestTokens::new();
    let token = fixture.give("ci.test", Some("alice"));
    for other in ["", OTHER, &ONE.replace("alice", "bob")] {
        fixture.users = Htpasswd::parse(other.as_bytes());
        assert_eq!(
            fixture.verify(&token, "ci.test", noon()),
            Err(InvalidToken::UserChanged),
            "{other}"
        );
    }
    fixture.users = Htpasswd::parse(format!("bob:x\n{ONE}").as_bytes());
    assert!(
        fixture.verify(&token, "ci.test", noon()).is_ok(),
        "others do not matter"
    );
}

#[test]
fn the_tag_of_an_entry_covers_its_domain_and_user() {
    let fixture = TestTokens::new();
    let entry = |domain: &str, user: &str| {
        let users = Htpasswd::parse(ONE.replace("alice", user).as_bytes());
        fixture
            .tokens
            .entry_tag(domain, &UserName::new(user).unwrap(), &users)
    };
    let all = [
        entry("ci", "alice"),
        entry("cia", "lice"),
        entry("ci", "bob"),
        entry("other", "alice"),
    ];
    for (at, one) in all.iter().enumerate() {
        assert!(!all[..at].contains(one));
    }
}

#[test]
fn processes_with_the_same_state_accept_a_token() {
    let mut fixture = TestTokens::new();
    let token = fixture.give("ci.test", Some("alice"));
    fixture.tokens = Tokens::open(fixture.directory.path(), noon()).unwrap();
    assert!(fixture.verify(&token, "ci.test", noon()).is_ok());
    let elsewhere = TestTokens::new();
    assert_eq!(
        elsewhere.verify(&token, "ci.test", noon()),
        Err(InvalidToken::Foreign)
    );
}

#[test]
fn tokens_survive_a_rotation_of_keys() {
    let fixture = TestTokens::new();
    let (month, hour) = (Duration::from_secs(30 * 86_400), 60 * MINUTE);
    let user = UserName::new("alice").unwrap();
    let entry = fixture.tokens.entry_tag("ci.test", &user, &fixture.users);
    let give = |now| {
        let bearer = Bearer {
            domain: "ci.test",
            user: Some((&user, &entry)),
        };
        let token = fixture
            .tokens
            .issue(bearer, &TestTokens::access(), 24 * hour, now)
            .unwrap();
        (decode_header(&token).unwrap().kid, token)
    };
    fixture.tokens.refresh(noon() + month);
    let (old_key, old) = give(noon() + month + hour - MINUTE);
    let (new_key, new) = give(noon() + month + hour);
    assert_ne!(old_key, new_key);
    let later = noon() + month + 24 * hour;
    for token in [&old, &new] {
        assert!(fixture.verify(token, "ci.test", later).is_ok());
    }
}

#[test]
fn the_claims_of_a_signed_token_are_checked() {
    let fixture = TestTokens::new();
    let verify = |token: String| fixture.verify(&token, "ci.test", noon()).err();
    assert_eq!(verify(fixture.forged(|_| {})), None);
    assert_eq!(
        verify(fixture.forged(|claims| claims["aud"] = "other.test".into())),
        Some(InvalidToken::Foreign)
    );
    assert_eq!(
        verify(fixture.forged(|claims| claims["iss"] = "other.test".into())),
        Some(InvalidToken::Foreign)
    );
    assert_eq!(
        verify(
            fixture.forged(|claims| claims["aud"] = serde_json::json!(["ci.test", "other.test"]))
        ),
        Some(InvalidToken::Foreign)
    );
    assert_eq!(
        verify(fixture.forged(|claims| claims["sub"] = "bob".into())),
        Some(InvalidToken::UserChanged)
    );
    assert_eq!(
        verify(fixture.forged(|claims| claims["exp"] = 1.into())),
        Some(InvalidToken::Expired)
    );
    assert_eq!(
        verify(fixture.forged(|claims| claims["nbf"] = 1_900_000_000.into())),
        Some(InvalidToken::Early)
    );
    for claim in [
        "iss", "sub", "aud", "exp", "nbf", "iat", "jti", "access", "entry",
    ] {
        let without = fixture.forged(|claims| drop(claims.as_object_mut().unwrap().remove(claim)));
        assert_eq!(verify(without), Some(InvalidToken::Foreign), "{claim}");
    }
}

#[test]
fn the_header_does_not_choose_the_algorithm() {
    let fixture = TestTokens::new();
    let token = fixture.give("ci.test", Some("alice"));
    let (id, public) = {
        let keys = fixture.tokens.keys.load();
        (keys.signing(noon()).id.clone(), keys.public()[0].clone())
    };
    let [header, payload, signature] = token.split('.').collect::<Vec<_>>()[..] else {
        panic!("{token}")
    };
    let encoded = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let verify = |token: &str| fixture.verify(token, "ci.test", noon()).err();
    let none = encoded(&format!(r#"{{"typ":"JWT","alg":"none","kid":"{id}"}}"#));
    let claims: serde_json::Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
    let point = serde_json::to_value(&public).unwrap();
    let secrets = [
        point["x"].as_str().unwrap().as_bytes().to_vec(),
        fixture.tokens.public_keys().into_bytes(),
        serde_json::to_vec(&public).unwrap(),
        fixture
            .tokens
            .keys
            .load()
            .signing(noon())
            .verifying
            .try_get_as_bytes()
            .unwrap()
            .to_vec(),
    ];
    for secret in secrets {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(id.clone());
        let token = encode(&header, &claims, &EncodingKey::from_secret(&secret)).unwrap();
        assert_eq!(verify(&token), Some(InvalidToken::Foreign));
    }
    for forged in [
        format!("{none}.{payload}."),
        format!("{none}.{payload}.{signature}"),
        format!(
            "{}.{payload}.{signature}",
            encoded(r#"{"typ":"JWT","alg":"ES256"}"#)
        ),
        format!(
            "{}.{payload}.{signature}",
            encoded(r#"{"typ":"JWT","alg":"ES256","kid":"../../key"}"#)
        ),
        format!("{header}.{payload}"),
        format!("{header}.{payload}."),
        format!("{header}.{payload}.{signature}.{signature}"),
        format!("{header}..{signature}"),
        format!("{header}.{payload}.{}", "A".repeat(86)),
        String::new(),
        "..".to_owned(),
    ] {
        assert_eq!(verify(&forged), Some(InvalidToken::Foreign), "{forged}");
    }
    let mut critical = Header::new(ALGORITHM);
    critical.kid = Some(id);
    critical.crit = Some(vec!["exp".to_owned()]);
    let token = encode(
        &critical,
        &claims,
        &fixture.tokens.keys.load().signing(noon()).signing,
    )
    .unwrap();
    assert_eq!(verify(&token), Some(InvalidToken::Foreign));
}

#[test]
fn the_cache_of_tokens_is_bounded() {
    let fixture = TestTokens::new();
    let token = fixture.give("ci.test", Some("alice"));
    fixture.verify(&token, "ci.test", noon()).unwrap();
    assert!(
        fixture
            .tokens
            .cache
            .get(&fixture.tokens.cache.tag(&token))
            .is_some()
    );
    let access = || Claims {
        iss: String::new(),
        sub: String::new(),
        aud: String::new(),
        exp: 10,
        nbf: 0,
        iat: 0,
        jti: String::new(),
        access: Vec::new(),
        access_list: None,
        entry: String::new(),
    };
    let insert = |number: u32, bytes| {
        let tag = fixture.tokens.cache.tag(&number.to_string());
        fixture
            .tokens
            .cache
            .insert(tag, bytes, CachedToken::from_claims(access()), 0);
        fixture.tokens.cache.get(&tag).is_some()
    };
    for number in 0..10_000 {
        assert!(insert(number, 100));
        assert!(fixture.tokens.cache.count() <= 4096);
    }
    assert!(!insert(20_000, 4096), "long ones are not kept");
}

proptest! {
    #[test]
    fn no_other_text_is_a_token(at in 0usize..400, byte in 0u8..=255, cut in 0usize..400) {
        let fixture = TestTokens::new();
        let token = fixture.give("ci.test", Some("alice"));
        let mut bytes = token.clone().into_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(changed) = String::from_utf8(bytes) && changed != token {
            prop_assert_eq!(fixture.verify(&changed, "ci.test", noon()), Err(InvalidToken::Foreign));
        }
        let cut = cut % token.len();
        prop_assert_eq!(fixture.verify(&token[..cut], "ci.test", noon()), Err(InvalidToken::Foreign));
    }
}
