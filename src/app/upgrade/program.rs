//! Which program a successor of this process runs, and with which arguments.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The program of this process, by the path that it was started by: another one may lie there when
/// it is replaced, or the path may be a link that leads to another one.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    pub(crate) arguments: Vec<OsString>,
}

impl Program {
    /// To be called at the start, while the working directory and the program are what they were.
    pub(crate) fn of_this_process() -> io::Result<Self> {
        let running = std::env::current_exe()?;
        let mut arguments = std::env::args_os();
        let name = arguments.next().unwrap_or_default();
        let search = std::env::var_os("PATH").unwrap_or_default();
        Ok(Self {
            path: find(&name, &search, &running).unwrap_or(running),
            arguments: arguments.collect(),
        })
    }
}

/// The path that a name stood for, as a shell finds it, if the program that runs lies there.
fn find(name: &OsStr, search: &OsStr, running: &Path) -> Option<PathBuf> {
    if name.is_empty() {
        return None;
    }
    let name = Path::new(name);
    if name.components().count() > 1 || name.is_absolute() {
        let path = std::path::absolute(name).ok()?;
        return is_same(&path, running).then_some(path);
    }
    let mut all = std::env::split_paths(search).map(|directory| directory.join(name));
    let path = all.find(|path| is_same(path, running))?;
    std::path::absolute(path).ok()
}

fn is_same(one: &Path, other: &Path) -> bool {
    let file = |path: &Path| path.metadata().ok().map(|data| (data.dev(), data.ino()));
    file(one).is_some_and(|of_one| file(other) == Some(of_one))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_by_the_path_that_it_was_started_by() {
        let directory = tempfile::tempdir().expect("directory");
        let [program, link, other] =
            ["program", "link", "other"].map(|name| directory.path().join(name));
        std::fs::write(&program, "1").expect("written");
        std::fs::write(&other, "2").expect("written");
        std::os::unix::fs::symlink(&program, &link).expect("linked");
        let search =
            std::env::join_paths([Path::new("/nowhere"), directory.path()]).expect("paths");
        let found = |name: &OsStr| find(name, &search, &program);
        // The link itself, which may lead elsewhere later.
        for (name, path) in [
            (link.as_os_str(), Some(&link)),
            (OsStr::new("link"), Some(&link)),
            (program.as_os_str(), Some(&program)),
            (other.as_os_str(), None),
            (OsStr::new("-program"), None),
            (OsStr::new(""), None),
        ] {
            assert_eq!(found(name).as_ref(), path, "{name:?}");
        }
    }
}
