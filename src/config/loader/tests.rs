use super::*;

const DOMAIN: &str = "
[tls]
internal = true
[auth]
htpasswd = 'users'
[upstream]
url = 'http://127.0.0.1:5000'
";

struct LoadedFiles {
    directory: tempfile::TempDir,
    loader: Loader,
}

impl LoadedFiles {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("directory");
        std::fs::create_dir(directory.path().join("conf.d")).expect("made");
        let loader = Loader::new(directory.path().to_owned());
        let files = Self { directory, loader };
        files.write("moorgate.toml", "");
        files.write("conf.d/users", "alice:x");
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("written");
    }

    fn remove(&self, name: &str) {
        std::fs::remove_file(self.path(name)).expect("removed");
    }

    /// A file of this domain, with `top` above its tables.
    fn domain(&self, name: &str, domain: &str, top: &str) {
        let file = format!("conf.d/{name}.toml");
        self.write(&file, &format!("domain = '{domain}'\n{top}{DOMAIN}"));
    }

    /// Reads the files and takes what is valid into force.
    fn load(&mut self) -> Result<Selection, Problems> {
        let candidate = self.loader.read(&BTreeSet::new())?;
        let selection = self.loader.select(&candidate, &BTreeMap::new())?;
        self.loader.accept(&selection);
        Ok(selection)
    }

    /// The domains in force and the files that are refused.
    fn loaded(&mut self) -> (Vec<String>, Vec<String>) {
        let selection = self.load().expect("no problem of all");
        (self.served(&selection), refused(&selection))
    }

    fn hosts(&self, selection: &Selection) -> Vec<crate::config::vhost::SharedVirtualHost> {
        selection.snapshot(self.directory.path()).domains
    }

    fn served(&self, selection: &Selection) -> Vec<String> {
        let hosts = self.hosts(selection);
        let names = hosts.iter().map(|host| {
            let aliases = host.aliases.iter().map(|alias| format!("+{alias}"));
            format!("{}{}", host.domain, aliases.collect::<String>())
        });
        names.collect()
    }
}

fn refused(selection: &Selection) -> Vec<String> {
    let name = |file: &RefusedFile| {
        let name = file.file.file_name().expect("a name");
        name.to_string_lossy().into_owned()
    };
    selection.refused.iter().map(name).collect()
}

fn texts(all: &[&str]) -> Vec<String> {
    all.iter().map(ToString::to_string).collect()
}

#[test]
fn a_broken_file_stays_as_it_was_while_others_change() {
    let mut files = LoadedFiles::new();
    files.domain("a", "a.test", "");
    files.domain("b", "b.test", "");
    assert_eq!(files.loaded(), (texts(&["a.test", "b.test"]), vec![]));
    files.write("conf.d/a.toml", "domain = 5");
    files.domain("b", "b.test", "aliases = ['c.test']");
    let expected = texts(&["a.test", "b.test+c.test"]);
    assert_eq!(files.loaded(), (expected.clone(), texts(&["a.toml"])));
    let selection = files.load().expect("b.test is valid");
    let domain = selection.refused[0].domain.as_ref();
    assert_eq!(domain.map(HostName::as_str), Some("a.test"));
    assert_eq!(files.loaded(), (expected, texts(&["a.toml"])), "still");
    files.domain("a", "a.test", "aliases = ['d.test']");
    assert_eq!(
        files.loaded(),
        (texts(&["a.test+d.test", "b.test+c.test"]), vec![])
    );
    files.remove("conf.d/a.toml");
    assert_eq!(files.loaded(), (texts(&["b.test+c.test"]), vec![]));
}

#[test]
fn a_file_that_was_never_valid_is_not_served() {
    let mut files = LoadedFiles::new();
    files.domain("a", "a.test", "");
    files.domain("b", "b.test", "unknown = 1");
    let selection = files.load().expect("a.test can be served");
    assert_eq!(files.served(&selection), ["a.test"]);
    assert_eq!(selection.refused.len(), 1);
    assert!(!selection.refused[0].is_served);
    assert_eq!(
        selection.refused[0].domain.as_ref().map(HostName::as_str),
        Some("b.test")
    );
}

#[test]
fn a_missing_file_that_a_domain_names_is_its_problem_alone() {
    let mut files = LoadedFiles::new();
    files.domain("a", "a.test", "");
    files.domain("b", "b.test", "");
    let of_b = std::fs::read_to_string(files.path("conf.d/b.toml")).expect("read");
    files.write("conf.d/b.toml", &of_b.replace("'users'", "'others'"));
    files.write("conf.d/others", "bob:x");
    files.load().expect("valid");
    assert!(files.loader.files().contains(&files.path("conf.d/others")));
    files.remove("conf.d/others");
    assert_eq!(
        files.loaded(),
        (texts(&["a.test", "b.test"]), texts(&["b.toml"]))
    );
    files.write("conf.d/others", "bob:x");
    assert_eq!(files.loaded(), (texts(&["a.test", "b.test"]), vec![]));
}

#[test]
fn of_two_files_with_a_name_the_one_that_changed_is_at_fault() {
    let mut files = LoadedFiles::new();
    files.domain("b", "b.test", "");
    files.load().expect("valid");
    files.domain("a", "b.test", "");
    assert_eq!(files.loaded(), (texts(&["b.test"]), texts(&["a.toml"])));
    files.remove("conf.d/b.toml");
    assert_eq!(files.loaded(), (texts(&["b.test"]), vec![]), "renamed");
    // An alias of a file that changed, although it is first by name.
    files.domain("c", "c.test", "");
    files.load().expect("valid");
    files.domain("a", "b.test", "aliases = ['c.test']");
    assert_eq!(
        files.loaded(),
        (texts(&["b.test", "c.test"]), texts(&["a.toml"]))
    );
}

#[test]
fn names_may_be_exchanged_at_once() {
    let mut files = LoadedFiles::new();
    files.domain("a", "a.test", "");
    files.domain("b", "b.test", "");
    files.load().expect("valid");
    files.domain("a", "b.test", "");
    files.domain("b", "a.test", "");
    assert_eq!(files.loaded(), (texts(&["b.test", "a.test"]), vec![]));
}

#[test]
fn at_the_start_neither_of_two_files_with_a_name_is_served() {
    // One of them may be an old copy that allows more.
    let mut files = LoadedFiles::new();
    files.domain("a", "a.test", "");
    files.domain("b", "b.test", "");
    files.domain("old", "b.test", "");
    let expected = (texts(&["a.test"]), texts(&["b.toml", "old.toml"]));
    assert_eq!(files.loaded(), expected);
}

#[test]
fn two_files_that_change_into_a_conflict_stay_as_they_were() {
    let mut files = LoadedFiles::new();
    files.domain("a", "a.test", "");
    files.domain("b", "b.test", "");
    files.load().expect("valid");
    files.domain("a", "a.test", "aliases = ['c.test']");
    files.domain("b", "b.test", "aliases = ['c.test']");
    let expected = (texts(&["a.test", "b.test"]), texts(&["a.toml", "b.toml"]));
    assert_eq!(files.loaded(), expected);
}

#[test]
fn a_problem_of_the_main_file_changes_nothing() {
    let mut files = LoadedFiles::new();
    files.write("moorgate.toml", "[groups]\ndevs = ['alice']");
    let rule = |group: &str| {
        format!("[[access]]\nusers = ['@{group}']\nrepositories = ['**']\nactions = ['all']\n")
    };
    files.write(
        "conf.d/a.toml",
        &format!("domain = 'a.test'{DOMAIN}{}", rule("devs")),
    );
    files.domain("b", "b.test", "");
    files.load().expect("valid");
    files.domain("b", "b.test", "aliases = ['c.test']");
    for broken in ["[groups", "[groups]\nothers = ['bob']", "unknown = 1"] {
        files.write("moorgate.toml", broken);
        assert!(files.load().is_err(), "{broken}");
    }
    files.write("moorgate.toml", "[groups]\ndevs = ['alice', 'bob']");
    assert_eq!(files.loaded().0, ["a.test", "b.test+c.test"]);
    // Where both change together, it is the domain file that names what is not there.
    files.write(
        "moorgate.toml",
        "[groups]\ndevs = ['alice']\nothers = ['bob']",
    );
    files.write(
        "conf.d/a.toml",
        &format!("domain = 'a.test'{DOMAIN}{}", rule("third")),
    );
    assert_eq!(files.loaded().1, ["a.toml"]);
}

#[test]
fn a_directory_without_domains_changes_nothing() {
    let mut files = LoadedFiles::new();
    files.domain("a", "a.test", "");
    files.load().expect("valid");
    std::fs::rename(files.path("conf.d"), files.path("old")).expect("renamed");
    assert!(files.load().is_err());
    std::fs::create_dir(files.path("conf.d")).expect("made");
    assert!(files.load().is_err());
}

#[test]
fn what_is_being_written_is_taken_as_it_was() {
    let mut files = LoadedFiles::new();
    files.domain("a", "a.test", "");
    files.domain("b", "b.test", "");
    files.load().expect("valid");
    files.write("conf.d/a.toml", "domain = 'half");
    files.remove("conf.d/b.toml");
    files.write("conf.d/c.toml", "");
    let unsettled = ["a", "b", "c"].map(|name| files.path(&format!("conf.d/{name}.toml")));
    let candidate = files.loader.read(&unsettled.into_iter().collect());
    let candidate = candidate.expect("read");
    let selection = files.loader.select(&candidate, &BTreeMap::new());
    let selection = selection.expect("valid");
    assert_eq!(files.served(&selection), ["a.test", "b.test"]);
    assert!(selection.refused.is_empty());
}

#[test]
fn an_unchanged_domain_stays_the_same_object() {
    let mut files = LoadedFiles::new();
    files.domain("a", "a.test", "");
    files.domain("b", "b.test", "");
    let before = files.load().expect("valid");
    let before = files.hosts(&before);
    files.domain("b", "b.test", "aliases = ['c.test']");
    // A comment, and a setting that concerns no domain.
    files.domain("a", "a.test", "# the first");
    files.write("moorgate.toml", "[log]\nlevel = 'debug'");
    let after = files.load().expect("valid");
    let after = files.hosts(&after);
    assert!(Arc::ptr_eq(&before[0], &after[0]));
    assert!(!Arc::ptr_eq(&before[1], &after[1]));
    // A default of domains concerns all of them.
    files.write("moorgate.toml", "[timeouts]\nstall = '1min'");
    let last = files.load().expect("valid");
    assert!(!Arc::ptr_eq(&after[0], &files.hosts(&last)[0]));
}

#[test]
fn a_file_without_which_nothing_can_be_built_is_refused() {
    let mut files = LoadedFiles::new();
    files.domain("a", "a.test", "");
    files.domain("b", "b.test", "");
    files.load().expect("valid");
    files.domain("a", "a.test", "aliases = ['c.test']");
    files.domain("b", "b.test", "aliases = ['d.test']");
    let candidate = files.loader.read(&BTreeSet::new()).expect("read");
    let mut problems = Problems::default();
    let file = files.path("conf.d/a.toml");
    problems.push(super::super::problem::Problem::in_file(
        &file, "no roots", "",
    ));
    let unusable = BTreeMap::from([(file, problems)]);
    let selection = files
        .loader
        .select(&candidate, &unusable)
        .expect("b is valid");
    assert_eq!(files.served(&selection), ["a.test", "b.test+d.test"]);
    assert_eq!(refused(&selection), ["a.toml"]);
}
