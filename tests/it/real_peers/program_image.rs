//! Images made of programs of this machine, for containers that cannot be pulled.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::engine::Engine;
use super::process::{self, run, tool};

/// The root of an image's file system.
pub struct ProgramImage {
    root: PathBuf,
}

impl ProgramImage {
    /// Made in a directory of its own.
    pub fn new(root: PathBuf) -> Self {
        fs::create_dir(&root).unwrap();
        Self { root }
    }

    /// Adds a program, as this path, and the libraries that it needs.
    pub fn program(self, program: &Path, path: &str) -> Self {
        let mut libraries = process::command(&tool("ldd", "libc-bin"), &self.root);
        // It fails for programs that need none, and for scripts.
        let libraries = run(libraries.arg(program), "").stdout;
        for library in libraries.split_whitespace() {
            if library.starts_with('/') {
                fs::copy(library, self.place(library)).unwrap();
            }
        }
        fs::copy(program, self.place(path)).unwrap();
        self
    }

    /// Adds a file that may be executed.
    pub fn file(self, path: &str, content: &str) -> Self {
        let place = self.place(path);
        fs::write(&place, content).unwrap();
        fs::set_permissions(&place, PermissionsExt::from_mode(0o755)).unwrap();
        self
    }

    fn place(&self, path: &str) -> PathBuf {
        let place = self.root.join(path.trim_start_matches('/'));
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        place
    }

    /// Gives the image to an engine. `entrypoint` is JSON.
    pub fn import(self, engine: &Engine<'_>, name: &str, entrypoint: &str) {
        let archive = self.root.with_extension("tar");
        let mut tar = process::command(&tool("tar", "tar"), &self.root);
        run(tar.arg("--create").arg("--file").arg(&archive).arg("."), "").succeeded();
        let change = format!("ENTRYPOINT {entrypoint}");
        let archive = archive.to_str().unwrap();
        engine
            .docker(&["import", "--change", &change, archive, name])
            .succeeded();
    }
}
