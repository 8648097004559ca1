//! The set of names of one certificate in a canonical spelling: two orders for the same set count
//! as duplicates at a CA, whatever the order and case in which the names are written.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// DNS names in lower case, whose first label may be `*`, and IP addresses; sorted, never empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "BTreeSet<String>", into = "BTreeSet<String>")]
pub struct NameSet(BTreeSet<String>);

/// The set is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a certificate needs at least one name")]
pub struct NoNames;

impl NameSet {
    /// Converts names to the canonical spelling.
    pub fn new<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> Result<Self, NoNames> {
        let names: BTreeSet<String> = names.into_iter().map(|name| spell(name.as_ref())).collect();
        if names.is_empty() {
            Err(NoNames)
        } else {
            Ok(Self(names))
        }
    }

    /// The names, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// The number of names; never 0.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the set contains the name, which must be in the canonical spelling.
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains(name)
    }
}

fn spell(name: &str) -> String {
    match name.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().to_string(),
        Err(_) => name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase(),
    }
}

impl TryFrom<BTreeSet<String>> for NameSet {
    type Error = NoNames;

    fn try_from(names: BTreeSet<String>) -> Result<Self, NoNames> {
        Self::new(names)
    }
}

impl From<NameSet> for BTreeSet<String> {
    fn from(NameSet(names): NameSet) -> Self {
        names
    }
}

/// The names separated by commas; of a long list the first three and the number of the others.
impl fmt::Display for NameSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, name) in self.iter().take(MAX_NAMES_SHOWN).enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{name}")?;
        }
        match self.len().saturating_sub(MAX_NAMES_SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

const MAX_NAMES_SHOWN: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_for_each_set() {
        let one =
            NameSet::new(["B.example.com.", "a.example.com", "2001:DB8::0:1"]).expect("names");
        let other = NameSet::new([
            "a.EXAMPLE.com",
            "2001:db8::1",
            "b.example.com",
            "b.example.com",
        ])
        .expect("names");
        assert_eq!(one, other);
        assert_eq!(one.to_string(), "2001:db8::1, a.example.com, b.example.com");
        assert_eq!(
            NameSet::new(["a", "b", "c", "d", "e"])
                .expect("names")
                .to_string(),
            "a, b, c and 2 more"
        );
        assert_eq!(NameSet::new([""; 0]), Err(NoNames));
    }

    #[test]
    fn a_file_without_names_is_refused() {
        assert!(serde_json::from_str::<NameSet>("[]").is_err());
        let read: NameSet = serde_json::from_str(r#"["B","a"]"#).expect("names");
        assert_eq!(serde_json::to_string(&read).expect("JSON"), r#"["a","b"]"#);
    }
}
