//! Content on the disk that is not what its name promises: reported once, when it is found, and
//! once more when it is right again.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The files that are known to be damaged.
#[derive(Clone, Debug, Default)]
pub(super) struct DamageReports {
    known: Arc<Mutex<HashSet<PathBuf>>>,
}

/// Beyond that many, only a restart reports further files.
const MAX_KNOWN: usize = 10_000;

impl DamageReports {
    pub(super) fn found(&self, path: &Path, what: &str) {
        let mut known = self.lock();
        if known.len() < MAX_KNOWN && known.insert(path.to_owned()) {
            let path = path.display();
            tracing::error!(%path, "stored content is damaged: {what}");
        }
    }

    /// The file was replaced.
    pub(super) fn mended(&self, path: &Path) {
        if self.lock().remove(path) {
            tracing::info!(path = %path.display(), "stored content is right again");
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct DamageLines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for DamageLines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn damage_is_one_line_when_it_is_found_and_one_when_it_is_mended() {
        let lines = DamageLines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let reports = DamageReports::default();
            for _ in 0..3 {
                reports.found(Path::new("/a"), "it has 1 bytes instead of 2");
                reports.clone().found(Path::new("/b"), "too");
            }
            reports.mended(Path::new("/a"));
            reports.mended(Path::new("/c"));
        });
        let lines = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(lines.lines().count(), 3, "{lines}");
    }
}
