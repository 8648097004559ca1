use std::os::unix::fs::symlink;

use super::*;

/// A directory with `outside/file`, and `store` beside it.
fn directories() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let root = std::fs::canonicalize(directory.path()).unwrap();
    for name in ["outside", "store", "store/own"] {
        std::fs::create_dir(root.join(name)).unwrap();
    }
    std::fs::write(root.join("outside/file"), "secret").unwrap();
    std::fs::write(root.join("store/own/file"), "own").unwrap();
    let (outside, store) = (root.join("outside"), root.join("store"));
    (directory, outside, store)
}

fn is_link<T>(opened: io::Result<T>, expected: &Path) {
    let Err(error) = opened else {
        panic!("it is followed");
    };
    let link = link_in(&error).unwrap_or_else(|| panic!("{error}"));
    assert!(link.is_at(expected), "{link}");
}

#[test]
fn no_link_is_followed_wherever_it_stands_in_a_path() {
    let (_directory, outside, store) = directories();
    symlink(outside.join("file"), store.join("file")).unwrap();
    symlink(&outside, store.join("directory")).unwrap();
    symlink("own", store.join("within")).unwrap();
    symlink("nothing", store.join("dangling")).unwrap();
    for (name, link) in [
        ("file", "file"),
        ("directory/file", "directory"),
        ("within/file", "within"),
        ("dangling", "dangling"),
    ] {
        let (path, link) = (store.join(name), store.join(link));
        is_link(open(&path), &link);
        is_link(open_to_write(&path), &link);
        is_link(create(&path), &link);
        is_link(metadata(&path), &link);
        is_link(read(&path), &link);
    }
    for name in ["directory", "within"] {
        let (path, file) = (store.join(name), store.join(name).join("file"));
        is_link(OpenDirectory::open(&path), &path);
        is_link(create_new(&file), &path);
        is_link(remove_file(&file), &path);
        is_link(replace(&file, b"changed"), &path);
        is_link(private_directory(&path.join("new")), &path);
        is_link(private_directory(&path), &path);
    }
    let own = OpenDirectory::open(&store).unwrap();
    is_link(own.file(OsStr::new("file")), &store.join("file"));
    assert!(own.status(OsStr::new("file")).unwrap().is_symbolic_link());
    assert_eq!(std::fs::read(outside.join("file")).unwrap(), b"secret");
    assert_eq!(std::fs::read(store.join("own/file")).unwrap(), b"own");
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
}

#[test]
fn the_steps_without_openat2_follow_no_link_either() {
    let (_directory, outside, store) = directories();
    symlink(outside.join("file"), store.join("file")).unwrap();
    symlink(&outside, store.join("directory")).unwrap();
    for flags in [
        OFlags::RDONLY,
        OFlags::WRONLY,
        OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC,
        OFlags::PATH,
        OFlags::RDONLY | OFlags::DIRECTORY,
    ] {
        for name in ["file", "directory", "directory/file"] {
            let path = store.join(name);
            let error = open_by_component(&path, flags, Mode::empty()).unwrap_err();
            assert!(link_in(&explain(&path, error)).is_some(), "{name} {error}");
        }
    }
    let opened = open_by_component(&store.join("own/file"), OFlags::RDONLY, Mode::empty());
    assert_eq!(read_all(&File::from(opened.unwrap()), 3).unwrap(), b"own");
    let missing = open_by_component(&store.join("none/file"), OFlags::RDONLY, Mode::empty());
    assert_eq!(missing.unwrap_err(), Errno::NOENT);
    assert!(open_by_component(Path::new("/"), OFlags::PATH, Mode::empty()).is_ok());
    assert_eq!(std::fs::read(outside.join("file")).unwrap(), b"secret");
}

#[test]
fn a_replaced_link_becomes_a_file_and_leaves_nothing_behind() {
    let (_directory, outside, store) = directories();
    let path = store.join("file");
    symlink(outside.join("file"), &path).unwrap();
    replace(&path, b"new").unwrap();
    assert_eq!(read(&path).unwrap(), b"new");
    assert_eq!(std::fs::read(outside.join("file")).unwrap(), b"secret");
    let directory = OpenDirectory::open(&store).unwrap();
    let failed = directory.replace_with(OsStr::new("file"), |_| Err(io::ErrorKind::Other.into()));
    assert!(failed.is_err());
    directory
        .replace_by_link(OsStr::new("file"), &directory, OsStr::new("file"))
        .unwrap();
    let mut names: Vec<_> = directory.names().unwrap().map(Result::unwrap).collect();
    names.sort();
    assert_eq!(names, ["file", "own"]);
}

#[test]
fn directories_are_made_with_their_parents_and_private() {
    let (_directory, _outside, store) = directories();
    let path = store.join("a/b/c");
    for _ in 0..2 {
        assert_eq!(private_directory(&path).unwrap().path(), path);
    }
    for directory in ["a", "a/b", "a/b/c"] {
        let mode = std::fs::metadata(store.join(directory)).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o700, "{directory}");
    }
    remove_directory(&path).unwrap();
    assert!(!exists(&path) && exists(&store.join("a/b")));
}
