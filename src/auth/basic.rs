//! Basic credentials of an `Authorization` header (RFC 7617).

use std::fmt;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use secrecy::zeroize::Zeroizing;

/// A user name and a password as a client sent them, unchecked. The password is wiped on drop.
pub struct Credentials {
    /// `user:password`. One buffer, since this is made for every request.
    pair: Zeroizing<Vec<u8>>,
    /// The position of the first colon; the bytes before it are UTF-8.
    colon: usize,
}

/// Why a header value has no Basic credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BasicError {
    #[error("the authorization scheme is not Basic")]
    NotBasic,
    /// No scheme, bad base64, no colon, a control character, a user name that is not UTF-8, or too
    /// long.
    #[error("the Basic credentials cannot be read")]
    Malformed,
}

/// Parses a header value. The scheme is case-insensitive and the padding optional; all other
/// non-canonical base64 (RFC 4648 §3.5) is refused.
pub fn parse(value: &[u8]) -> Result<Credentials, BasicError> {
    let (scheme, rest) = match value.iter().position(|&b| b == b' ') {
        Some(space) => value.split_at(space),
        None => (value, &[][..]),
    };
    if scheme.is_empty() {
        return Err(BasicError::Malformed);
    }
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return Err(BasicError::NotBasic);
    }
    // RFC 9110 §11.4: one or more spaces.
    Credentials::decode(rest.trim_ascii_start()).ok_or(BasicError::Malformed)
}

impl Credentials {
    fn decode(encoded: &[u8]) -> Option<Self> {
        if encoded.len() > MAX_ENCODED {
            return None;
        }
        // Allocated at its maximum size: growing would leave a copy of the password in memory.
        let mut pair = Zeroizing::new(vec![0; base64::decoded_len_estimate(encoded.len())]);
        let length = BASE64.decode_slice(encoded, &mut pair).ok()?;
        pair.truncate(length);
        Self::from_pair(pair)
    }

    /// Makes credentials from the fields of a form. `None` for those that no header can carry.
    pub(crate) fn new(user: &str, password: &str) -> Option<Self> {
        if user.contains(':') || user.len() + password.len() > MAX_ENCODED / 4 * 3 {
            return None;
        }
        Self::from_pair(Zeroizing::new(
            [user.as_bytes(), b":", password.as_bytes()].concat(),
        ))
    }

    fn from_pair(pair: Zeroizing<Vec<u8>>) -> Option<Self> {
        let colon = pair.iter().position(|&b| b == b':')?;
        let (user, password) = pair.split_at(colon);
        // RFC 7617 §2: neither has control characters. Bcrypt also ends a password at a NUL.
        if std::str::from_utf8(user)
            .ok()?
            .chars()
            .any(char::is_control)
        {
            return None;
        }
        if password.iter().any(u8::is_ascii_control) {
            return None;
        }
        Some(Self { pair, colon })
    }

    /// The user name: everything before the first colon.
    pub fn user(&self) -> &str {
        let (user, _) = self.pair.split_at(self.colon);
        std::str::from_utf8(user).expect("checked when it was decoded")
    }

    /// The password. It may contain colons and need not be UTF-8.
    pub(crate) fn password(&self) -> &[u8] {
        let (_, password) = self.pair.split_at(self.colon);
        password.strip_prefix(b":").unwrap_or_default()
    }

    /// Whether user and password are empty: some clients send that in place of no header.
    pub fn is_empty(&self) -> bool {
        self.pair.as_slice() == b":"
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("user", &self.user())
            .finish_non_exhaustive()
    }
}

/// Base64 of 6 KiB, more than any password has.
const MAX_ENCODED: usize = 8 << 10;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose;
    use proptest::prelude::*;

    use super::*;

    fn pair(value: &str) -> Result<(String, Vec<u8>), BasicError> {
        parse(value.as_bytes()).map(|c| (c.user().to_owned(), c.password().to_vec()))
    }

    fn encoded(pair: &[u8]) -> String {
        format!("Basic {}", general_purpose::STANDARD.encode(pair))
    }

    #[test]
    fn the_example_of_the_rfc_is_read_in_any_case_and_padding() {
        let aladdin = Ok(("Aladdin".to_owned(), b"open sesame".to_vec()));
        for scheme in ["Basic", "basic", "BASIC", "bAsIc", "Basic  "] {
            assert_eq!(
                pair(&format!("{scheme} QWxhZGRpbjpvcGVuIHNlc2FtZQ==")),
                aladdin
            );
        }
        assert_eq!(pair("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ"), aladdin);
        assert_eq!(
            pair("Basic dGVzdDoxMjPCow=="),
            Ok(("test".to_owned(), "123£".as_bytes().to_vec()))
        );
    }

    #[test]
    fn the_first_colon_ends_the_user() {
        assert_eq!(
            pair(&encoded(b"a:b:c")),
            Ok(("a".to_owned(), b"b:c".to_vec()))
        );
        assert_eq!(pair(&encoded(b"a:")), Ok(("a".to_owned(), Vec::new())));
        assert_eq!(
            pair(&encoded(b"a:\xff")),
            Ok(("a".to_owned(), b"\xff".to_vec()))
        );
    }

    #[test]
    fn an_empty_pair_is_recognized() {
        assert!(
            parse(encoded(b":").as_bytes())
                .expect("readable")
                .is_empty()
        );
        for other in [&b"a:"[..], b":a", b"::"] {
            assert!(
                !parse(encoded(other).as_bytes())
                    .expect("readable")
                    .is_empty()
            );
        }
    }

    #[test]
    fn a_form_has_the_limits_of_a_header() {
        let from_form = |user: &str, password: &str| {
            Credentials::new(user, password).map(|c| (c.user().to_owned(), c.password().to_vec()))
        };
        assert_eq!(
            from_form("a", "b:c"),
            Some(("a".to_owned(), b"b:c".to_vec()))
        );
        assert_eq!(from_form("", ""), Some((String::new(), Vec::new())));
        assert_eq!(
            from_form("a:b", "c"),
            None,
            "a colon would make it the name of another user"
        );
        for (user, password) in [("a\0", "b"), ("a", "b\0c"), ("a", "b\n")] {
            assert_eq!(from_form(user, password), None);
        }
        assert_eq!(from_form("a", &"b".repeat(8 << 10)), None);
    }

    #[test]
    fn other_schemes_differ_from_malformed_values() {
        for value in ["Bearer abc", "Negotiate", "Basicx QTpi", "Digest a=b"] {
            assert_eq!(pair(value), Err(BasicError::NotBasic), "{value}");
        }
        let bad_base64 = [
            "Basic QTpi=",
            "Basic QTp_",
            "Basic QT pi",
            "Basic QTpiYh==",
            "Basic QTpiY",
            "Basic =",
            "Basic QTpi QTpi",
        ];
        for value in ["", " QTpi", "Basic", "Basic ", "basic   "]
            .into_iter()
            .chain(bad_base64)
        {
            assert_eq!(pair(value), Err(BasicError::Malformed), "{value}");
        }
        for bytes in [
            &b"no colon"[..],
            b"a:b\0c",
            b"a\0:b",
            b"a:b\n",
            b"a\x7f:b",
            b"\xff:b",
            "\u{85}:b".as_bytes(),
        ] {
            assert_eq!(
                pair(&encoded(bytes)),
                Err(BasicError::Malformed),
                "{bytes:?}"
            );
        }
        assert_eq!(
            pair(&encoded(format!("a:{}", "b".repeat(8 << 10)).as_bytes())),
            Err(BasicError::Malformed)
        );
    }

    #[test]
    fn the_password_is_never_shown() {
        let shown = format!("{:?}", parse(encoded(b"ci:s3cret").as_bytes()));
        assert!(
            shown.contains("ci") && !shown.contains("s3cret") && !shown.contains("115"),
            "{shown}"
        );
    }

    proptest! {
        #[test]
        fn nothing_panics(value: Vec<u8>) {
            let _ = parse(&value);
            let _ = parse(&[b"Basic ", &value[..]].concat());
            let _ = parse(encoded(&value).as_bytes());
        }

        #[test]
        fn encoded_credentials_are_decoded(user in "[^:\\p{Cc}]*", password in "\\P{Cc}*") {
            let (got_user, got_password) = pair(&encoded(format!("{user}:{password}").as_bytes())).expect("readable");
            prop_assert_eq!(got_user, user);
            prop_assert_eq!(got_password, password.into_bytes());
        }
    }
}
