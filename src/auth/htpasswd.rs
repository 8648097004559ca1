//! The content of an htpasswd file: its users, and the lines that are skipped.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::hash::HashError;
use super::running::RunningRequests;
use super::{BcryptHash, Cost, KnownUser, UserName};

/// The users of a file. Immutable: a changed file is parsed to another value.
#[derive(Debug, PartialEq, Eq)]
pub struct Htpasswd {
    entries: HashMap<UserName, UserEntry>,
    /// The hash that unknown users are checked against. Its cost is the highest of the file.
    decoy: BcryptHash,
    skipped: Vec<Skipped>,
}

#[derive(Debug)]
struct UserEntry {
    hash: BcryptHash,
    running: Arc<RunningRequests>,
}

impl PartialEq for UserEntry {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
    }
}

impl Eq for UserEntry {}

impl Htpasswd {
    /// Parses a whole file. Lines without a usable bcrypt entry are skipped, each with its reason.
    /// The first line of a user counts, as with `htpasswd`, even if it cannot be used.
    pub fn parse(file: &[u8]) -> Self {
        let mut entries = HashMap::new();
        let mut skipped = Vec::new();
        let mut first_lines = HashMap::new();
        for (line, text) in (1..).zip(without_mark(file).split(|&b| b == b'\n')) {
            match parse_line(line, text, &mut first_lines) {
                Ok(Some((user, hash))) => {
                    let running = Arc::default();
                    entries.insert(user, UserEntry { hash, running });
                }
                Ok(None) => {}
                Err(error) => skipped.push(error),
            }
        }
        let highest = entries
            .values()
            .map(|entry| entry.hash.cost())
            .max()
            .unwrap_or(Cost::DEFAULT);
        Self {
            entries,
            decoy: BcryptHash::decoy(highest),
            skipped,
        }
    }

    /// The number of users that can log in.
    pub fn users(&self) -> usize {
        self.entries.len()
    }

    /// Whether a user of this name can log in.
    pub fn has(&self, user: &str) -> bool {
        self.entries.contains_key(user)
    }

    /// The users that can log in, in no order.
    pub fn names(&self) -> impl Iterator<Item = &UserName> {
        self.entries.keys()
    }

    /// Goes on counting the requests in flight of users that `before` had as well.
    pub(crate) fn continue_counts(&mut self, before: &Self) {
        for (user, entry) in &mut self.entries {
            if let Some(old) = before.entries.get(user) {
                entry.running = old.running.clone();
            }
        }
    }

    /// The requests in flight of each user: all, and those with a body.
    pub(crate) fn running(&self) -> impl Iterator<Item = (u32, u32)> {
        self.entries.values().map(|entry| entry.running.counts())
    }

    /// The lines without a usable entry, in the order of the file.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// The hash that a client who claims to be `user` is checked against.
    pub(crate) fn claim(&self, user: &str) -> Claim<'_> {
        let highest = self.decoy.cost();
        match self.entries.get_key_value(user) {
            Some((user, entry)) => Claim {
                user: Some(user),
                running: Some(&entry.running),
                hash: &entry.hash,
                highest,
            },
            None => Claim {
                user: None,
                running: None,
                hash: &self.decoy,
                highest,
            },
        }
    }
}

/// The hash that a login is checked against: the same work, whether the user exists or not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim<'a> {
    /// The user, if there is one.
    pub(crate) user: Option<&'a UserName>,
    running: Option<&'a Arc<RunningRequests>>,
    /// The user's entry, or the decoy.
    pub(crate) hash: &'a BcryptHash,
    /// The cost of a wrong password: the highest of the file.
    pub(crate) highest: Cost,
}

impl Claim<'_> {
    /// The user, if there is one.
    pub(crate) fn known(&self) -> Option<KnownUser> {
        Some(KnownUser {
            name: self.user?.clone(),
            running: self.running?.clone(),
        })
    }
}

/// A line without a usable entry. Its `Display` says what the problem is and what to do, and never
/// quotes the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Counted from 1.
    pub line: usize,
    /// The user, if the name is readable.
    pub user: Option<UserName>,
    pub reason: SkipReason,
}

/// Why a line is skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkipReason {
    /// Neither a comment nor `user:hash`.
    NoColon,
    /// Not UTF-8, empty, too long, or with characters that no client can send.
    UserName,
    /// An earlier line has the same user.
    Repeated { first: usize },
    /// Nothing after the colon.
    Empty,
    /// A malformed bcrypt hash, or `$2x$`.
    BrokenBcrypt,
    /// A bcrypt hash whose cost is outside of the bounds.
    Cost { cost: u32 },
    /// `$apr1$`.
    Md5,
    /// `{SHA}`.
    Sha1,
    /// `{SSHA}`.
    SaltedSha1,
    /// `$1$`, `$5$`, `$6$` and other forms of crypt(3).
    Crypt,
    /// 13 characters: the DES form of crypt(3).
    DesCrypt,
    /// Another scheme in braces.
    Unknown,
    /// Anything else is taken for a plain password.
    Plain,
}

impl Skipped {
    /// Why it cannot be used, without the line's number.
    pub fn cause(&self) -> String {
        let user = UserOf(self);
        let kind = match self.reason {
            SkipReason::NoColon => {
                return "is not `user:hash`, and not a comment either".to_owned();
            }
            SkipReason::UserName => {
                return "has a user name that is empty, too long or holds characters that cannot be sent".to_owned();
            }
            SkipReason::Repeated { first } => {
                return format!("{user} is already on line {first}, which is the one that counts");
            }
            SkipReason::Empty => "an empty password",
            SkipReason::BrokenBcrypt => "a damaged bcrypt hash",
            SkipReason::Cost { cost } => {
                let (lowest, highest) = (Cost::LOWEST, Cost::HIGHEST);
                return format!(
                    "{user} has a bcrypt hash of cost {cost}, not {lowest} to {highest}"
                );
            }
            SkipReason::Md5 => "an MD5 password ($apr1$)",
            SkipReason::Sha1 => "a SHA-1 password ({SHA})",
            SkipReason::SaltedSha1 => "a SHA-1 password ({SSHA})",
            SkipReason::Crypt => "a crypt password",
            SkipReason::DesCrypt => "a crypt password (DES)",
            SkipReason::Unknown => "a password of an unknown kind",
            SkipReason::Plain => "a plain password",
        };
        format!("{user} has {kind}, only bcrypt is accepted")
    }

    /// What to do about it; `None` where the cause says it.
    pub fn remedy(&self, file: &str) -> Option<String> {
        match self.reason {
            SkipReason::NoColon | SkipReason::UserName => None,
            SkipReason::Repeated { .. } => Some("delete one of them".to_owned()),
            _ => Some(self.command(file)),
        }
    }

    fn command(&self, file: &str) -> String {
        // A name with characters that a shell interprets is replaced by `USER`.
        let plain = |name: &&str| {
            name.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._@+-".contains(&b))
        };
        let user = self.user.as_ref().map(UserName::as_str);
        let user = user.filter(plain).unwrap_or("USER");
        format!("run `moorgate htpasswd {file} {user}` or `htpasswd -B {file} {user}`")
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.cause())?;
        match self.remedy("FILE") {
            Some(remedy) => write!(f, ": {remedy}"),
            None => Ok(()),
        }
    }
}

struct UserOf<'a>(&'a Skipped);

impl fmt::Display for UserOf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.user {
            Some(user) => write!(f, "`{user}`"),
            None => f.write_str("the user"),
        }
    }
}

/// Parses one line; `None` for an empty line or a comment. `first_lines` has the number of the first
/// line of each user so far.
fn parse_line(
    line: usize,
    text: &[u8],
    first_lines: &mut HashMap<UserName, usize>,
) -> Result<Option<(UserName, BcryptHash)>, Skipped> {
    let skipped = |user, reason| Skipped { line, user, reason };
    let (user, hash) = match Line::parse(text) {
        Line::Blank => return Ok(None),
        Line::NoColon => return Err(skipped(None, SkipReason::NoColon)),
        Line::Entry { user, hash } => (user, hash),
    };
    let user = std::str::from_utf8(user)
        .ok()
        .and_then(|name| UserName::new(name).ok())
        .ok_or_else(|| skipped(None, SkipReason::UserName))?;
    let first = *first_lines.entry(user.clone()).or_insert(line);
    let hash = if first == line {
        parse_hash(hash)
    } else {
        Err(SkipReason::Repeated { first })
    };
    match hash {
        Ok(hash) => Ok(Some((user, hash))),
        Err(reason) => Err(skipped(Some(user), reason)),
    }
}

fn parse_hash(hash: &[u8]) -> Result<BcryptHash, SkipReason> {
    if hash.starts_with(b"$2") {
        return BcryptHash::parse(hash).map_err(|error| match error {
            HashError::Broken => SkipReason::BrokenBcrypt,
            HashError::Cost(cost) => SkipReason::Cost { cost },
        });
    }
    Err(kind(hash))
}

/// The kind of a password field that is not bcrypt.
fn kind(hash: &[u8]) -> SkipReason {
    let is_crypt = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'/');
    match hash {
        [] => SkipReason::Empty,
        [b'$', b'a', b'p', b'r', b'1', b'$', ..] => SkipReason::Md5,
        [b'{', b'S', b'H', b'A', b'}', ..] => SkipReason::Sha1,
        [b'{', b'S', b'S', b'H', b'A', b'}', ..] => SkipReason::SaltedSha1,
        [b'{', rest @ ..] if rest.contains(&b'}') => SkipReason::Unknown,
        [b'$', rest @ ..] if rest.contains(&b'$') => SkipReason::Crypt,
        _ if hash.len() == 13 && hash.iter().all(is_crypt) => SkipReason::DesCrypt,
        _ => SkipReason::Plain,
    }
}

/// A line as Apache parses it: white space around it is ignored, and the hash ends at a second
/// colon.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    /// An empty line or a comment.
    Blank,
    /// A line that is not `user:hash`.
    NoColon,
    /// `user:hash`, both unchecked.
    Entry { user: &'a [u8], hash: &'a [u8] },
}

impl<'a> Line<'a> {
    /// Parses a line, with or without its line end.
    pub(crate) fn parse(line: &'a [u8]) -> Self {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            return Self::Blank;
        }
        let mut fields = line.split(|&b| b == b':');
        match (fields.next(), fields.next()) {
            (Some(user), Some(hash)) => Self::Entry { user, hash },
            _ => Self::NoColon,
        }
    }
}

/// The UTF-8 byte order mark that some editors write before the first line.
pub(crate) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

fn without_mark(file: &[u8]) -> &[u8] {
    file.strip_prefix(BYTE_ORDER_MARK).unwrap_or(file)
}

#[cfg(test)]
mod tests;
