//! Whose a file is, for messages about what this user may not do and its owner may.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The owner of a file, or of the nearest directory above it that this user can see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileOwner {
    pub(crate) uid: u32,
    /// In `/etc/passwd`.
    name: Option<String>,
}

impl FileOwner {
    /// `None` if this user can see nothing of the path.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let data = path
            .ancestors()
            .find_map(|path| std::fs::metadata(path).ok())?;
        let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let uid = data.uid();
        Some(Self {
            uid,
            name: user_name(&users, uid),
        })
    }

    /// How to begin a command that the owner is to run.
    pub(crate) fn sudo(&self) -> String {
        match &self.name {
            _ if self.uid == 0 => "sudo".to_owned(),
            Some(name) => format!("sudo -u {name}"),
            None => format!("sudo -u '#{}'", self.uid),
        }
    }
}

impl fmt::Display for FileOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => f.write_str(name),
            None => write!(f, "the user with the id {}", self.uid),
        }
    }
}

/// The name of a user in the text of passwd(5).
fn user_name(users: &str, uid: u32) -> Option<String> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, id) = (fields.next()?, fields.nth(1)?);
        (id.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_called_by_their_names_where_they_have_one() {
        let users = "root:x:0:0:root:/root:/bin/sh\nmoorgate:x:998:998::/:/x\nbroken:x\n";
        let owner = |uid| FileOwner {
            uid,
            name: user_name(users, uid),
        };
        let said = [0, 998, 5].map(|uid| format!("{}: {}", owner(uid), owner(uid).sudo()));
        assert_eq!(
            said,
            [
                "root: sudo",
                "moorgate: sudo -u moorgate",
                "the user with the id 5: sudo -u '#5'"
            ]
        );
    }

    #[test]
    fn what_cannot_be_seen_is_its_directory_s() {
        let directory = tempfile::tempdir().expect("directory");
        let own = FileOwner::of(directory.path()).expect("an owner");
        assert_eq!(FileOwner::of(&directory.path().join("a/b")), Some(own));
    }
}
