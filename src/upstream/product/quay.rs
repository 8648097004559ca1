//! Quay.

use super::{Capabilities, Dialect, TokenNeed};

pub(super) struct Quay;

impl Dialect for Quay {
    /// A scope with `delete` is refused as a whole; who may push may delete.
    fn token_actions(&self, need: TokenNeed) -> &'static str {
        match need {
            TokenNeed::Read => "pull",
            TokenNeed::Write | TokenNeed::Delete => "pull,push",
        }
    }

    fn wants_tokens(&self) -> bool {
        true
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            immutable_tags: true,
            own_refusals: true,
            ..Capabilities::STANDARD
        }
    }
}
