//! Files that may change: those of the configuration, and those of its plugins.
//!
//! Looked at every second rather than by notices of the system, which network file systems and mounted `ConfigMap`s do not
//! give. A change counts once it has stayed for a second, so that a file that is being written is not read in the middle.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::supervisor::look_at;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// What the files look like: name, time of the last change, length.
type Look = Vec<(PathBuf, Option<(SystemTime, u64)>)>;

/// Watches files and folders.
#[derive(Debug)]
pub(super) struct Watch {
    /// Files and folders of the configuration.
    paths: Vec<PathBuf>,
    /// Files of plugins.
    plugins: Vec<PathBuf>,
    /// What they looked like when they counted last.
    known: Look,
    /// What they looked like a moment ago, where that is something else.
    fresh: Option<Look>,
}

impl Watch {
    /// As they are now is no change.
    pub(super) fn new(paths: Vec<PathBuf>) -> Self {
        let known = look(&paths, &[]);
        Self { paths, plugins: Vec::new(), known, fresh: None }
    }

    /// Watches these files, too, in the place of those before.
    pub(super) fn also(&mut self, mut plugins: Vec<PathBuf>) {
        plugins.sort_unstable();
        plugins.dedup();
        if plugins != self.plugins {
            self.plugins = plugins;
            self.known = look(&self.paths, &self.plugins);
            self.fresh = None;
        }
    }

    /// Returns when something has changed. Cancel-safe.
    pub(super) async fn changed(&mut self) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            if self.has_changed() {
                return;
            }
        }
    }

    /// Whether something has changed before the last look, and not since.
    fn has_changed(&mut self) -> bool {
        let now = look(&self.paths, &self.plugins);
        if now == self.known {
            self.fresh = None;
        } else if self.fresh.as_ref() == Some(&now) {
            self.known = now;
            self.fresh = None;
            return true;
        } else {
            self.fresh = Some(now);
        }
        false
    }
}

/// What files, and the files in folders, look like.
fn look(paths: &[PathBuf], plugins: &[PathBuf]) -> Look {
    let mut look = Vec::new();
    for path in paths {
        match std::fs::read_dir(path) {
            Ok(entries) => look.extend(entries.filter_map(|entry| Some(entry.ok()?.path())).map(with_look)),
            Err(_) => look.push(with_look(path.clone())),
        }
    }
    look.extend(plugins.iter().cloned().map(with_look));
    look.sort_unstable();
    look
}

/// A file with what it looks like.
fn with_look(path: PathBuf) -> (PathBuf, Option<(SystemTime, u64)>) {
    let seen = look_at(Path::new(&path));
    (path, seen)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_change_counts_once_and_when_it_has_stayed() {
        let folder = tempfile::tempdir().unwrap();
        let (inside, plugin) = (folder.path().join("a.yaml"), folder.path().join("p.wasm"));
        fs::write(&inside, "a").unwrap();
        let mut watch = Watch::new(vec![folder.path().to_owned()]);
        assert!(!watch.has_changed());
        fs::write(&inside, "longer").unwrap();
        assert!(!watch.has_changed(), "it may still be written");
        fs::write(&inside, "longer still").unwrap();
        assert!(!watch.has_changed());
        assert!(watch.has_changed());
        assert!(!watch.has_changed());
        fs::remove_file(&inside).unwrap();
        assert!(!watch.has_changed());
        assert!(watch.has_changed());
        // A plugin elsewhere, which is not there yet.
        let elsewhere = tempfile::tempdir().unwrap();
        let mut watch = Watch::new(vec![folder.path().to_owned()]);
        watch.also(vec![elsewhere.path().join("p.wasm"), plugin]);
        fs::write(elsewhere.path().join("p.wasm"), "p").unwrap();
        assert!(!watch.has_changed());
        assert!(watch.has_changed());
    }
}
