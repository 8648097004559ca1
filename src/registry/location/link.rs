//! The references of `Link` headers.

use super::{ResponseKind, Rewriter, Rewritten};
use crate::registry::link::links;

impl Rewriter<'_> {
    /// Rewrites each reference of a `Link` header as a `Location` of the same response. Parameters
    /// and spaces are not changed. `None`: the header is malformed or a reference is refused, and
    /// must be left out.
    pub fn link(&self, value: &str) -> Option<String> {
        self.link_with(value, Some)
    }

    /// The same with another path for each that leads to the registry. `None` for one: it must be
    /// left out, and the header with it.
    pub(crate) fn link_with(
        &self,
        value: &str,
        path_for_client: impl Fn(String) -> Option<String>,
    ) -> Option<String> {
        if value.bytes().any(|b| b.is_ascii_control() && b != b'\t') {
            return None;
        }
        let mut result = String::with_capacity(value.len());
        let mut copied = 0;
        for link in links(value) {
            let link = link.ok()?;
            let path = match self.location(link.target, ResponseKind::Other) {
                Rewritten::Foreign => continue,
                Rewritten::Path(path) | Rewritten::Beside(path) => path,
                Rewritten::Refused => return None,
            };
            result.push_str(value.get(copied..link.range.start)?);
            result.push_str(&path_for_client(path)?);
            copied = link.range.end;
        }
        result.push_str(value.get(copied..)?);
        Some(result)
    }
}
