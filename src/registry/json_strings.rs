//! Replaces strings of a JSON document that arrives in pieces. Everything else stays byte for byte,
//! and of the document at most one string is in memory.

/// Which strings may be replaced. Names of members never are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Selected {
    /// The values of this member of the outermost object.
    Member(&'static str),
    /// The elements of the array that this member of the outermost object is.
    Elements(&'static str),
    /// All values.
    All,
}

/// What sees the selected strings.
pub(crate) trait StringVisitor {
    /// Another text for a string, or `None` if it stays.
    fn replaced(&mut self, text: &str) -> Option<String>;
}

impl<F: Fn(&str) -> Option<String>> StringVisitor for F {
    fn replaced(&mut self, text: &str) -> Option<String> {
        self(text)
    }
}

/// Replaces the strings of one document.
pub(crate) struct StringReplacer<R> {
    selected: Selected,
    visitor: R,
    /// Whether each open container is an object.
    open: Vec<bool>,
    /// Whether the next string is the name of a member.
    expects_name: bool,
    /// Whether the value of the selected member of the outermost object is next.
    is_member: bool,
    /// Whether the array is open that the selected member is.
    is_within_member: bool,
    /// The string so far, from its quotation mark on.
    string: Vec<u8>,
    is_escaped: bool,
    /// Whether the rest stays as it is.
    has_given_up: bool,
}

impl<R: StringVisitor> StringReplacer<R> {
    pub(crate) fn new(selected: Selected, visitor: R) -> Self {
        Self {
            selected,
            visitor,
            open: Vec::new(),
            expects_name: false,
            is_member: false,
            is_within_member: false,
            string: Vec::new(),
            is_escaped: false,
            has_given_up: false,
        }
    }

    /// The next piece of the document as it is to be sent; a string at its end waits for its rest.
    pub(crate) fn next(&mut self, piece: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(piece.len() + MAX_NAME_GROWTH);
        for (at, &byte) in piece.iter().enumerate() {
            if self.has_given_up {
                out.extend_from_slice(&piece[at..]);
                return out;
            }
            if self.string.is_empty() && byte != b'"' {
                self.structure(byte);
                out.push(byte);
                continue;
            }
            self.string.push(byte);
            if self.is_escaped {
                self.is_escaped = false;
            } else if byte == b'\\' {
                self.is_escaped = true;
            } else if byte == b'"' && self.string.len() > 1 {
                self.end_string(&mut out);
            }
            if self.string.len() > MAX_STRING_BYTES {
                self.has_given_up = true;
                out.append(&mut self.string);
            }
        }
        out
    }

    /// Whether a string waits for its rest.
    pub(crate) fn is_within_string(&self) -> bool {
        !self.string.is_empty()
    }

    /// What waits for a rest that does not come.
    pub(crate) fn end(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.string)
    }

    /// What has seen the strings; `None` if it did not see all of them.
    pub(crate) fn into_visitor(self) -> Option<R> {
        (!self.has_given_up).then_some(self.visitor)
    }

    fn structure(&mut self, byte: u8) {
        match byte {
            b'{' | b'[' => {
                let is_object = byte == b'{';
                self.is_within_member |= self.is_member && !is_object && self.open.len() == 1;
                self.has_given_up = self.open.len() == MAX_DEPTH;
                self.open.push(is_object);
                self.expects_name = is_object;
                self.is_member = false;
            }
            b'}' | b']' => {
                self.open.pop();
                self.is_within_member &= self.open.len() > 1;
                self.expects_name = false;
                self.is_member = false;
            }
            b',' => {
                self.expects_name = self.open.last() == Some(&true);
                self.is_member = false;
            }
            b':' => self.expects_name = false,
            _ => {}
        }
    }

    fn end_string(&mut self, out: &mut Vec<u8>) {
        let string = std::mem::take(&mut self.string);
        let text = || serde_json::from_slice::<String>(&string).ok();
        let is_outermost = self.open.len() == 1;
        match self.selected {
            Selected::Member(name) | Selected::Elements(name) if self.expects_name => {
                self.is_member = is_outermost && text().is_some_and(|text| text == name);
            }
            _ if self.expects_name => {}
            Selected::Member(_) if !(is_outermost && self.is_member) => {}
            Selected::Elements(_) if !(self.is_within_member && self.open.len() == 2) => {}
            Selected::Member(_) | Selected::Elements(_) | Selected::All => {
                if let Some(replaced) = text().and_then(|text| self.visitor.replaced(&text)) {
                    let encoded = serde_json::Value::String(replaced).to_string();
                    out.extend_from_slice(encoded.as_bytes());
                    return;
                }
            }
        }
        out.extend_from_slice(&string);
    }
}

/// A longer string is no name and no message about one.
const MAX_STRING_BYTES: usize = 64 * 1024;
/// serde_json's own limit.
const MAX_DEPTH: usize = 128;
/// So much longer a piece with one name often gets at most.
const MAX_NAME_GROWTH: usize = 256;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn replaced(selected: Selected, document: &str, pieces: usize) -> String {
        let replace = |text: &str| (text == "in/a").then(|| "\"out\"".to_owned());
        let mut replacer = StringReplacer::new(selected, replace);
        let mut out = Vec::new();
        for piece in document.as_bytes().chunks(pieces) {
            out.extend(replacer.next(piece));
        }
        out.extend(replacer.end());
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn only_the_selected_strings_change() {
        let document = r#" {"child":["in/a"], "m":{"name":"in/a","in/a":1e400},
            "name" : "in\/a", "tags":[ "name", "in/a" , {"name":"in/a"}]} "#;
        for pieces in [1, 2, 3, 7, 1000] {
            assert_eq!(
                replaced(Selected::Member("name"), document, pieces),
                document.replace(r#""in\/a""#, r#""\"out\"""#)
            );
            let all = document
                .replace(r#"in\/a"#, "in/a")
                .replace(r#""in/a""#, r#""\"out\"""#)
                .replace(r#""\"out\"":1e400"#, r#""in/a":1e400"#);
            assert_eq!(replaced(Selected::All, document, pieces), all);
        }
    }

    #[test]
    fn the_elements_of_a_member_are_seen() {
        let document = r#" {"child":["in/a"], "m":{"tags":["in/a"]}, "tags" : [ "in/a" ,
            ["in/a"], {"tags":["in/a"],"in/a":"in/a"}, "in\/a"], "other":["in/a"], "x":"in/a",
            "tags":"in/a"} "#;
        let expected = document
            .replace(r#"[ "in/a" ,"#, r#"[ "\"out\"" ,"#)
            .replace(r#""in\/a""#, r#""\"out\"""#);
        for pieces in [1, 2, 3, 7, 1000] {
            let found = replaced(Selected::Elements("tags"), document, pieces);
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn what_is_no_document_stays() {
        let deep = "[".repeat(10_000) + "\"in/a\"";
        let long = format!("[\"{}\",\"in/a\"]", "x".repeat(70_000));
        for text in [
            "",
            "\"",
            "\"in/a",
            "\"in/a\\\"",
            "{]}\"\\x\"",
            "<a b=\"c\">",
            &deep,
            &long,
        ] {
            assert_eq!(replaced(Selected::All, text, 5), text);
        }
    }

    fn documents() -> impl Strategy<Value = Value> {
        let text = prop::sample::select(vec!["in/a", "name", "in/a/b", "x\"\\\n\u{e9}"]);
        let leaf = prop_oneof![
            any::<i32>().prop_map(|number| json!(number)),
            text.clone().prop_map(|text| json!(text))
        ];
        leaf.prop_recursive(4, 32, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                prop::collection::vec((text.clone(), inner), 0..4).prop_map(|members| {
                    let members = members.into_iter();
                    Value::Object(
                        members
                            .map(|(name, value)| (name.to_owned(), value))
                            .collect(),
                    )
                }),
            ]
        })
    }

    fn with_values(value: Value) -> Value {
        match value {
            Value::String(text) if text == "in/a" => json!("\"out\""),
            Value::Array(values) => values.into_iter().map(with_values).collect(),
            Value::Object(members) => Value::Object(
                members
                    .into_iter()
                    .map(|(name, value)| (name, with_values(value)))
                    .collect(),
            ),
            other => other,
        }
    }

    proptest! {
        #[test]
        fn a_document_is_as_if_read_and_written(document in documents(), pieces in 1..40usize) {
            let text = replaced(Selected::All, &document.to_string(), pieces);
            prop_assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), with_values(document));
        }
    }
}
