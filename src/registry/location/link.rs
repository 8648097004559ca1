//! The references of `Link` headers.

use super::{ResponseKind, Rewriter, Rewritten};
use crate::registry::link::links;

impl Rewriter<'_> {
    /// The value of a `Link` header with each reference rewritten as a `Location` of the same
    /// answer would be. Parameters and spaces stay as they are. None if it is malformed or one of
    /// the references is refused: then the header is left out.
    pub fn link(&self, value: &str) -> Option<String> {
        if value.bytes().any(|b| b.is_ascii_control() && b != b'\t') {
            return None;
        }
        let mut result = String::with_capacity(value.len());
        let mut copied = 0;
        for link in links(value) {
            let link = link.ok()?;
            let path = match self.location(link.target, ResponseKind::Other) {
                Rewritten::Unchanged | Rewritten::Foreign => continue,
                Rewritten::Path(path) => path,
                Rewritten::Refused => return None,
            };
            result.push_str(value.get(copied..link.range.start)?);
            result.push_str(&path);
            copied = link.range.end;
        }
        result.push_str(value.get(copied..)?);
        Some(result)
    }
}
