//! Harbor.

use super::{Capabilities, Deletion, Dialect};
use crate::registry::product::Product;

pub(super) struct Harbor;

impl Dialect for Harbor {
    fn product(&self) -> Product {
        Product::Harbor
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            tag_deletion: Deletion::Api,
            creation: true,
            ..Capabilities::STANDARD
        }
    }
}
