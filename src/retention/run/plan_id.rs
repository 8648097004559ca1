//! The name of a plan.

use std::fmt;

use jiff::Timestamp;

use crate::crypto::{NoRandomness, hex, random};

/// The name of a plan: when it was made, and four random bytes. Names in order are plans in the order
/// of their making.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PlanId(Box<str>);

/// A text is not the name of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no plan has this name; they are named as 20260131t040500z-0a1b2c3d")]
pub(crate) struct InvalidPlanId;

impl PlanId {
    pub(crate) fn new(made: Timestamp) -> Result<Self, NoRandomness> {
        let made = made.strftime("%Y%m%dt%H%M%Sz");
        let random = hex(&random::<4>()?);
        Ok(Self(format!("{made}-{random}").into()))
    }

    /// A name of this form alone is safe as the name of a file.
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidPlanId> {
        let is_allowed = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_lowercase();
        let mut parts = text.split('-');
        let (made, random) = (parts.next(), parts.next());
        let is_part = |part: Option<&str>, length| {
            part.is_some_and(|part| part.len() == length && part.bytes().all(is_allowed))
        };
        if !is_part(made, 16) || !is_part(random, 8) || parts.next().is_some() {
            return Err(InvalidPlanId);
        }
        Ok(Self(text.into()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn names_are_read_back_and_nothing_else_is(second in 0i64..4_000_000_000, text in ".{0,30}") {
            let made = Timestamp::from_second(second).expect("in range");
            let id = PlanId::new(made).expect("randomness");
            prop_assert_eq!(PlanId::parse(id.as_str()), Ok(id));
            if let Ok(id) = PlanId::parse(&text) {
                prop_assert!(!id.as_str().contains(['/', '.']));
            }
        }
    }

    #[test]
    fn what_leads_elsewhere_is_no_name() {
        for text in [
            "",
            "..",
            "20260131t040500z-../../xx",
            "20260131t040500z-0a1b2c3d/",
            "20260131t040500z",
        ] {
            assert_eq!(PlanId::parse(text), Err(InvalidPlanId), "{text}");
        }
    }
}
