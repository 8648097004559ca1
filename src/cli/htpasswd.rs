//! `moorgate htpasswd FILE USER`: adds, changes or deletes one entry of an htpasswd file.

use std::fs::File;
use std::io::{self, BufRead, IsTerminal};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use secrecy::zeroize::Zeroizing;

use crate::auth::htpasswd::{BYTE_ORDER_MARK, Htpasswd, Line};
use crate::auth::{BcryptHash, BcryptKey, Cost, UserName};
use crate::state_file::{Access, FileLock, LOCK_TIMEOUT, LockMode, atomic_write};

/// The options of the entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Args)]
pub struct HtpasswdOptions {
    /// Delete the user instead.
    #[arg(long, conflicts_with = "cost")]
    pub delete: bool,
    /// Cost of bcrypt: each step doubles the time of a login and of a guess.
    #[arg(long, default_value_t = DEFAULT_COST, value_parser = clap::value_parser!(u32).range(4..=17))]
    pub cost: u32,
}

/// Adds, changes or deletes the entry of a user. The password comes from two prompts at the terminal,
/// or else from the first line of standard input. The file is replaced atomically and keeps its
/// owner, group and mode.
pub fn run(file: &Path, user: &str, options: HtpasswdOptions) -> anyhow::Result<()> {
    let user = UserName::new(user)?;
    let HtpasswdOptions { delete, cost } = options;
    let entry = if delete {
        None
    } else {
        Some(new_entry(&user, cost)?)
    };
    let done = change(file, &user, entry.as_ref())?;
    eprintln!("{done} `{user}` in {}", file.display());
    Ok(())
}

fn new_entry(user: &UserName, cost: u32) -> anyhow::Result<BcryptHash> {
    let cost = Cost::new(cost).with_context(|| {
        format!(
            "the cost must be from {} to {}",
            Cost::LOWEST,
            Cost::HIGHEST
        )
    })?;
    let password = if io::stdin().is_terminal() {
        prompt_twice(&format!("New password for {user}"))?
    } else {
        first_line(io::stdin().lock())?
    };
    hash(&password, cost)
}

fn hash(password: &Password, cost: Cost) -> anyhow::Result<BcryptHash> {
    check(password)?;
    BcryptHash::generate(&BcryptKey::new(password), cost)
        .context("the system has no randomness for a salt")
}

/// Adds a user with a password, or changes it, at the default cost.
pub(super) fn add(file: &Path, user: &UserName, password: &Password) -> anyhow::Result<()> {
    let cost = Cost::new(DEFAULT_COST).expect("it is within the range");
    change(file, user, Some(&hash(password, cost)?)).map(drop)
}

pub(super) type Password = Zeroizing<Vec<u8>>;

pub(super) fn prompt_twice(question: &str) -> anyhow::Result<Password> {
    let prompt = |text: String| -> anyhow::Result<Password> {
        let answer = rpassword::prompt_password(text).context("cannot read the password")?;
        Ok(Zeroizing::new(answer.into_bytes()))
    };
    let password = prompt(format!("{question}: "))?;
    if password.is_empty() {
        return Ok(password);
    }
    ensure!(
        password == prompt("The same again: ".to_owned())?,
        "the two passwords differ: nothing was changed"
    );
    Ok(password)
}

pub(super) fn first_line(input: impl BufRead) -> anyhow::Result<Password> {
    // Allocated at its maximum size: growing would leave a copy of the password in memory.
    let mut line = Zeroizing::new(Vec::with_capacity(MAX_PASSWORD + 2));
    input
        .take(MAX_PASSWORD as u64 + 2)
        .read_until(b'\n', &mut line)
        .context("cannot read the password")?;
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(line)
}

/// Refuses passwords that no client can send (RFC 7617 §2) or that bcrypt would cut at a NUL.
fn check(password: &[u8]) -> anyhow::Result<()> {
    ensure!(
        !password.is_empty(),
        "the password is empty: nothing was changed"
    );
    ensure!(
        password.len() <= MAX_PASSWORD,
        "the password is longer than {MAX_PASSWORD} bytes, and bcrypt sees no more: whoever knows \
         these could log in. Nothing was changed"
    );
    ensure!(
        !password.contains(&0),
        "the password has a NUL, where bcrypt would end it"
    );
    ensure!(
        !password.iter().any(u8::is_ascii_control),
        "the password has a control character, which no client can send"
    );
    Ok(())
}

/// As `htpasswd -B` of newer versions, and about 50 ms.
const DEFAULT_COST: u32 = 10;
/// In bytes.
const MAX_PASSWORD: usize = BcryptKey::MAX;

fn change(
    file: &Path,
    user: &UserName,
    entry: Option<&BcryptHash>,
) -> anyhow::Result<&'static str> {
    // A linked file stays linked, and its directory is the one to lock.
    let target = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let directory = target
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
        .to_owned();
    let _lock = lock(&directory, LOCK_TIMEOUT)?;
    let old = read(&target).with_context(|| format!("cannot read {}", file.display()))?;
    let (new, done) = match (entry, without_user(&old, user)) {
        (Some(entry), Some(_)) => (with_entry(&old, user, entry), "changed"),
        (Some(entry), None) => (with_entry(&old, user, entry), "added"),
        (None, Some(without)) => (without, "deleted"),
        (None, None) => bail!("there is no user `{user}` in {}", file.display()),
    };
    let users = Htpasswd::parse(&new);
    let claim = users.claim(user.as_str());
    let read_back = claim.user.map(|_| claim.hash);
    ensure!(
        read_back == entry,
        "{} would not be read back as written: nothing was changed",
        file.display()
    );
    atomic_write(&target, &new, Access::Inherited)
        .with_context(|| format!("cannot write {}: nothing was changed", file.display()))?;
    Ok(done)
}

/// Sets the entry of a user: in place of the first line of the user, or at the end. Further lines of
/// the user are removed, since they never count. All other bytes stay.
fn with_entry(file: &[u8], user: &UserName, entry: &BcryptHash) -> Vec<u8> {
    let line = format!("{user}:{entry}");
    let mut placed = false;
    let mut new = rebuilt(file, user, |end, new| {
        if !std::mem::replace(&mut placed, true) {
            new.extend_from_slice(line.as_bytes());
            new.extend_from_slice(end);
        }
    });
    if placed {
        return new;
    }
    if !matches!(new.as_slice(), [] | [.., b'\n']) && new != BYTE_ORDER_MARK {
        new.push(b'\n');
    }
    new.extend_from_slice(line.as_bytes());
    new.push(b'\n');
    new
}

/// Removes the lines of a user; `None` if there are none.
fn without_user(file: &[u8], user: &UserName) -> Option<Vec<u8>> {
    let mut found = false;
    let new = rebuilt(file, user, |_, _| found = true);
    found.then_some(new)
}

/// Copies all lines but those of the user, for each of which it calls `with_line` with the line end.
fn rebuilt(
    file: &[u8],
    user: &UserName,
    mut with_line: impl FnMut(&[u8], &mut Vec<u8>),
) -> Vec<u8> {
    let mut new = Vec::with_capacity(file.len() + 256);
    let lines = match file.strip_prefix(BYTE_ORDER_MARK) {
        Some(lines) => {
            new.extend_from_slice(BYTE_ORDER_MARK);
            lines
        }
        None => file,
    };
    for line in lines.split_inclusive(|&b| b == b'\n') {
        match Line::parse(line) {
            Line::Entry { user: name, .. } if name == user.as_str().as_bytes() => {
                with_line(line_end(line), &mut new)
            }
            Line::Blank | Line::NoColon | Line::Entry { .. } => new.extend_from_slice(line),
        }
    }
    new
}

fn line_end(line: &[u8]) -> &[u8] {
    match line {
        [.., b'\r', b'\n'] => b"\r\n",
        [.., b'\n'] => b"\n",
        _ => b"",
    }
}

/// Locks the directory against other runs of this command until the file is replaced. The directory
/// needs no lock file, which would be left over or could belong to another user.
fn lock(directory: &Path, timeout: Duration) -> anyhow::Result<Option<FileLock>> {
    let open =
        File::open(directory).with_context(|| format!("cannot open {}", directory.display()))?;
    match FileLock::acquire_open(open, LockMode::Exclusive, timeout) {
        Ok(lock) => Ok(Some(lock)),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            bail!(
                "cannot lock {}: another command has held the lock for {} s, nothing was changed",
                directory.display(),
                timeout.as_secs()
            )
        }
        Err(error) => {
            // Some network file systems lock no directories.
            eprintln!(
                "warning: cannot lock {} ({error}): change its files one at a time",
                directory.display()
            );
            Ok(None)
        }
    }
}

/// The content of the file; empty if there is none.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        content => content,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use proptest::prelude::*;

    use super::*;

    fn user(name: &str) -> UserName {
        UserName::new(name).expect("a name")
    }

    fn entry(password: &str) -> BcryptHash {
        BcryptHash::generate(
            &BcryptKey::new(password.as_bytes()),
            Cost::new(4).expect("allowed"),
        )
        .expect("randomness")
    }

    fn edited(file: &str, entry: &BcryptHash) -> String {
        String::from_utf8(with_entry(file.as_bytes(), &user("ci"), entry)).expect("as before")
    }

    #[test]
    fn other_lines_stay_as_they_are() {
        let entry = entry("a");
        for (before, after) in [
            ("", "ci:H\n"),
            ("\u{feff}", "\u{feff}ci:H\n"),
            ("a:x", "a:x\nci:H\n"),
            ("a:x\r\n\n# ci:y\nb:z\n", "a:x\r\n\n# ci:y\nb:z\nci:H\n"),
            ("a:x\n ci:old \r\nb:y", "a:x\nci:H\r\nb:y"),
            ("ci:old", "ci:H"),
            ("\u{feff}ci:old\n", "\u{feff}ci:H\n"),
            ("ci:one\na:x\nci:two\n", "ci:H\na:x\n"),
            (
                "cis:x\nCI:y\nnothing\nci\n",
                "cis:x\nCI:y\nnothing\nci\nci:H\n",
            ),
        ] {
            assert_eq!(
                edited(before, &entry),
                after.replace('H', &entry.to_string()),
                "{before:?}"
            );
        }
        let bytes = with_entry(b"\xff\xfe:x\nci:y\n", &user("ci"), &entry);
        assert_eq!(
            bytes,
            [b"\xff\xfe:x\nci:", entry.to_string().as_bytes(), b"\n"].concat()
        );
    }

    #[test]
    fn deleting_a_user_removes_all_its_lines() {
        let without = |file: &str| without_user(file.as_bytes(), &user("ci"));
        assert_eq!(
            without("a:x\nci:y\nb:z\nci:w"),
            Some(b"a:x\nb:z\n".to_vec())
        );
        assert_eq!(without("a:x\n#ci:y\n"), None);
    }

    #[test]
    fn a_file_keeps_its_permissions_and_a_new_one_is_private() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("users");
        let mode = |path: &Path| std::fs::metadata(path).expect("metadata").mode() & 0o777;
        assert_eq!(
            change(&path, &user("ci"), Some(&entry("a"))).expect("added"),
            "added"
        );
        assert_eq!(mode(&path), 0o600);
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("set");
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("users", &link).expect("linked");
        assert_eq!(
            change(&link, &user("ci"), Some(&entry("b"))).expect("changed"),
            "changed"
        );
        assert_eq!(mode(&path), 0o640);
        assert!(
            std::fs::symlink_metadata(&link)
                .expect("metadata")
                .is_symlink()
        );
        assert_eq!(
            change(&path, &user("ci"), None).expect("deleted"),
            "deleted"
        );
        assert!(change(&path, &user("ci"), None).is_err());
        assert_eq!(std::fs::read(&path).expect("read"), b"");
        assert_eq!(
            std::fs::read_dir(directory.path()).expect("listed").count(),
            2,
            "nothing is left over"
        );
    }

    #[test]
    fn a_lock_that_is_never_released_ends_the_command() {
        let directory = tempfile::tempdir().expect("directory");
        let held = lock(directory.path(), Duration::ZERO).expect("free");
        assert!(held.is_some());
        let error = lock(directory.path(), Duration::from_millis(20)).expect_err("held");
        let text = error.to_string();
        assert!(
            text.starts_with("cannot lock") && text.ends_with("nothing was changed"),
            "{text}"
        );
    }

    #[test]
    fn concurrent_runs_lose_no_entry() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("users");
        std::thread::scope(|scope| {
            for n in 0..16 {
                let path = &path;
                scope.spawn(move || {
                    change(path, &user(&format!("user-{n}")), Some(&entry("a"))).expect("added")
                });
            }
        });
        assert_eq!(
            Htpasswd::parse(&std::fs::read(&path).expect("read")).users(),
            16
        );
    }

    #[test]
    fn the_password_is_the_first_line() {
        let line = |text: &str| first_line(text.as_bytes()).expect("read").to_vec();
        for text in ["a b:c", "a b:c\n", "a b:c\r\nmore\n"] {
            assert_eq!(line(text), b"a b:c");
        }
        assert!(check(&line("\nlater\n")).is_err(), "empty");
        assert!(check(&line("a\0b\n")).is_err());
        assert!(check(&line("a\tb\n")).is_err());
        for (end, length) in [("", 72), ("\n", 72), ("\r\n", 72)] {
            let longest = "a".repeat(length);
            assert!(check(&line(&format!("{longest}{end}"))).is_ok());
            for more in ["a", "aa", &"a".repeat(1000), "\u{e9}"] {
                let refused = check(&line(&format!("{longest}{more}{end}")));
                let said = refused.expect_err("too long").to_string();
                assert!(
                    said.starts_with("the password is longer than 72 bytes"),
                    "{said}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(file: Vec<u8>, name in "\\PC{1,20}") {
            let Ok(user) = UserName::new(&name) else { return Ok(()) };
            let entry = BcryptHash::decoy(Cost::DEFAULT);
            let new = with_entry(&file, &user, &entry);
            let claimed = Htpasswd::parse(&new);
            prop_assert_eq!(claimed.claim(&name).user, Some(&user));
            prop_assert_eq!(claimed.claim(&name).hash, &entry);
            prop_assert!(Htpasswd::parse(&without_user(&new, &user).expect("there")).claim(&name).user.is_none());
        }
    }
}
