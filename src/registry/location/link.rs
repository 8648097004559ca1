//! `Link` headers (RFC 8288 §3): several links, each a reference in angle brackets and parameters.

use super::{ResponseKind, Rewriter, Rewritten};

impl Rewriter<'_> {
    /// The value of a `Link` header with each reference rewritten as a `Location` of the same
    /// answer would be. Parameters and spaces stay as they are. None if it is malformed or one of
    /// the references is refused: then the header is left out.
    pub fn link(&self, value: &str) -> Option<String> {
        if value.bytes().any(|b| b.is_ascii_control() && b != b'\t') {
            return None;
        }
        let mut result = String::with_capacity(value.len());
        let mut rest = value;
        loop {
            let link = rest.trim_start_matches([' ', '\t', ',']);
            let (separators, _) = rest.split_at(rest.len() - link.len());
            result.push_str(separators);
            if link.is_empty() {
                return Some(result);
            }
            let (reference, after) = link.strip_prefix('<')?.split_once('>')?;
            let rewritten = self.location(reference, ResponseKind::Other);
            let reference = match &rewritten {
                Rewritten::Unchanged | Rewritten::Foreign => reference,
                Rewritten::Path(path) => path,
                Rewritten::Refused => return None,
            };
            let (parameters, next) = after.split_at(parameters_length(after));
            result.extend(["<", reference, ">", parameters]);
            rest = next;
        }
    }
}

/// Up to the comma before the next link: one outside a quoted string (RFC 9110 §5.6.4).
fn parameters_length(text: &str) -> usize {
    let mut quoted = false;
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => return at,
            _ => {}
        }
    }
    text.len()
}
