//! The groups of `[groups]`, or of a file with lines like `devs: alice bob`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::RuleFile;
use crate::config::access::UserReference;
use crate::config::problem::{Problem, Problems};
use crate::config::source::{Source, Span};
use crate::config::values::access::{group_name, is_user};
use crate::registry::pattern::Pattern;

/// The groups of a file.
#[derive(Debug)]
pub(super) struct Groups {
    groups: BTreeMap<String, Group>,
    /// Whether all groups are valid.
    is_complete: bool,
    source: Arc<Source>,
}

#[derive(Debug)]
struct Group {
    members: Arc<[Box<str>]>,
    /// The position of each member.
    spans: Vec<Span>,
    /// Of the name, or of the line in a file of groups.
    span: Span,
}

impl Group {
    fn new(members: Vec<(Box<str>, Span)>, span: Span) -> Self {
        let (members, spans): (Vec<_>, _) = members.into_iter().unzip();
        Self {
            members: members.into(),
            spans,
            span,
        }
    }
}

/// The groups that the rules of a file may name.
#[derive(Clone, Copy)]
pub(super) struct KnownGroups<'a> {
    /// Those of the file itself.
    pub(super) own: &'a Groups,
    /// Those of `moorgate.toml`, for a domain file that inherits them.
    pub(super) inherited: Option<&'a Groups>,
}

impl<'a> KnownGroups<'a> {
    fn files(self) -> impl Iterator<Item = &'a Groups> {
        self.inherited.into_iter().chain([self.own])
    }

    /// The members of a group.
    pub(super) fn members(self, name: &str) -> Option<Arc<[Box<str>]>> {
        let group = self.files().find_map(|file| file.groups.get(name))?;
        Some(group.members.clone())
    }

    /// The members of all groups, by the name of the group.
    pub(super) fn all(self) -> BTreeMap<Box<str>, Arc<[Box<str>]>> {
        let groups = self.files().flat_map(|file| &file.groups);
        groups
            .map(|(name, group)| (name.as_str().into(), group.members.clone()))
            .collect()
    }

    /// Whether all groups are valid, so that a missing group does not exist.
    pub(super) fn are_complete(self) -> bool {
        self.files().all(|file| file.is_complete)
    }

    /// The help for an unknown group.
    pub(super) fn help(self) -> String {
        let names: BTreeSet<_> = self.files().flat_map(|file| file.groups.keys()).collect();
        let names: Vec<_> = names.iter().map(|name| format!("`@{name}`")).collect();
        if names.is_empty() {
            return "write the group in [groups], as devs = [\"alice\", \"bob\"]".to_owned();
        }
        format!("there are {}", names.join(", "))
    }

    /// Reports groups of the file that are inherited as well: of two groups with one name, a rule
    /// could mean either.
    pub(super) fn report_doubles(self, problems: &mut Problems) {
        let Some(inherited) = self.inherited else {
            return;
        };
        for (name, group) in &self.own.groups {
            let Some(other) = inherited.groups.get(name) else {
                continue;
            };
            let (line, _) = inherited.source.position(other.span.start);
            let place = format!("{}:{line}", inherited.source.path().display());
            let message = format!("the group `{name}` is at {place} as well");
            let help = "give it another name: both files' groups hold for this domain, unless it says `inherit = false`";
            problems.push(Problem::at(&self.own.source, &group.span, message, help));
        }
    }
}

impl Groups {
    /// The position of the first group.
    pub(super) fn first(&self) -> Option<(Arc<Source>, Span)> {
        let spans = self.groups.values().map(|group| &group.span);
        let first = spans.min_by_key(|span| span.start)?;
        Some((self.source.clone(), first.clone()))
    }

    /// All members, to be compared with htpasswd files.
    pub(super) fn user_references(&self) -> Vec<UserReference> {
        let members = self
            .groups
            .values()
            .flat_map(|group| group.members.iter().zip(&group.spans));
        let named = members.map(|(name, span)| UserReference {
            name: Pattern::new(name),
            file: self.source.path().to_owned(),
            span: span.clone(),
        });
        named.collect()
    }

    /// Groups without members, with their positions.
    pub(super) fn empty(&self) -> impl Iterator<Item = (&Arc<Source>, &Span, &str)> {
        let empty = self
            .groups
            .iter()
            .filter(|(_, group)| group.members.is_empty());
        empty.map(|(name, group)| (&self.source, &group.span, name.as_str()))
    }
}

/// Reads the groups of a file or of its `groups_file`.
pub(super) fn groups(file: RuleFile<'_>, problems: &mut Problems) -> Groups {
    let raw = file.raw;
    if let Some(span) = raw.groups_file.span().filter(|_| !raw.groups.is_absent()) {
        let message = "`groups_file` and [groups] are both written";
        let help = "leave one of them out: groups stand in one place";
        problems.push(Problem::at(file.source, span, message, help));
    }
    match file.groups_file {
        Some(source) => from_file(source, problems),
        None => Groups {
            is_complete: raw.groups_file.is_absent()
                && (raw.groups.is_absent() || raw.groups.given().is_some()),
            groups: from_table(file, problems),
            source: file.source.clone(),
        },
    }
}

fn from_table(file: RuleFile<'_>, problems: &mut Problems) -> BTreeMap<String, Group> {
    let mut groups = BTreeMap::new();
    for group in file.raw.groups.given().into_iter().flatten() {
        let mut members = Vec::new();
        for member in group.members.given().into_iter().flatten() {
            let name = member.get_ref();
            if name.literal().is_none() {
                let message = format!("`groups.{}` has a pattern in it", group.name.get_ref());
                let help = "write the names of users; `*` is for `users` in [[access]]";
                problems.push(Problem::at(file.source, &member.span(), message, help));
            }
            members.push((name.as_str().into(), member.span()));
        }
        let name = group.name.get_ref().clone();
        groups.insert(name, Group::new(members, group.name.span()));
    }
    groups
}

/// Reads lines of a name, a colon, and users separated by white space; `#` begins a comment.
fn from_file(source: &Arc<Source>, problems: &mut Problems) -> Groups {
    let mut reader = GroupsFileReader {
        source,
        groups: BTreeMap::new(),
        is_complete: true,
        problems,
    };
    let mut start = 0;
    for line in source.text().split_inclusive('\n') {
        let text = line.trim();
        if !text.is_empty() && !text.starts_with('#') {
            let indent = line.len() - line.trim_start().len();
            reader.read_line(text, start + indent);
        }
        start += line.len();
    }
    Groups {
        groups: reader.groups,
        is_complete: reader.is_complete,
        source: source.clone(),
    }
}

struct GroupsFileReader<'a> {
    source: &'a Arc<Source>,
    groups: BTreeMap<String, Group>,
    /// Whether every line so far is valid.
    is_complete: bool,
    problems: &'a mut Problems,
}

impl GroupsFileReader<'_> {
    /// Reads a line, without the white space around it, that begins at the byte `start`.
    fn read_line(&mut self, line: &str, start: usize) {
        let span = start..start + line.len();
        let Some((name, users)) = line.split_once(':') else {
            let message = "this line is not a group".to_owned();
            self.report(&span, message, "write a line like `devs: alice bob`");
            return;
        };
        let name = name.trim();
        match group_name(name) {
            Err(error) => self.report(&span, format!("`{name}` {error}"), &error.help),
            Ok(_) if self.groups.contains_key(name) => {
                let message = format!("the group `{name}` is defined twice");
                self.report(&span, message, "write all of its users on one line");
            }
            Ok(name) => {
                let members = self.read_members(&name, users, span.end - users.len());
                self.groups.insert(name, Group::new(members, span));
            }
        }
    }

    /// The valid members in `users`, which begins at the byte `start`.
    fn read_members(&mut self, group: &str, users: &str, start: usize) -> Vec<(Box<str>, Span)> {
        let mut members = Vec::new();
        for (offset, user) in split_with_offsets(users) {
            let at = start + offset;
            let span = at..at + user.len();
            if is_user(user) && !user.contains('*') {
                members.push((user.into(), span));
            } else {
                let message = format!("`{user}` in the group `{group}` is not a user name");
                let help = "write the names of users in the htpasswd file";
                self.report(&span, message, help);
            }
        }
        members
    }

    fn report(&mut self, span: &Span, message: String, help: &str) {
        self.problems
            .push(Problem::at(self.source, span, message, help));
        self.is_complete = false;
    }
}

/// Splits at white space; each part comes with its offset in bytes.
fn split_with_offsets(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut end = 0;
    text.split_whitespace().map(move |word| {
        let start = end
            + text
                .get(end..)
                .and_then(|rest| rest.find(word))
                .unwrap_or_default();
        end = start + word.len();
        (start, word)
    })
}
