//! Files that may change: those of the configuration and of its plugins, or those that a plugin is made of.
//!
//! Looked at twice a second rather than by notices of the system, which network file systems and mounted `ConfigMap`s do not
//! give. A change counts once it has stayed until the next look, so that a file that is being written is not read in the middle.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Time between two looks.
const INTERVAL: Duration = Duration::from_millis(500);
/// Files that are looked at; further ones are not, for a folder that was named by mistake may be a whole disk.
const FILES_MAX: usize = 10_000;
/// Levels of folders, where those below count.
const DEPTH_MAX: usize = 16;
/// Folders of what is built and fetched, which a plugin is not made of.
const LEFT_OUT: [&str; 4] = ["target", "node_modules", "__pycache__", "lake"];

/// Time of the last change and length of a file; none where it cannot be seen.
pub(super) type Seen = Option<(SystemTime, u64)>;

/// What a file looks like now.
pub(super) fn look_at(path: &Path) -> Seen {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// Which files of a folder count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// Those that are in it.
    Inside,
    /// Those below, too, but nothing that is hidden, built or fetched.
    Sources,
}

/// Watches files and folders.
#[derive(Debug)]
pub(super) struct Watch {
    /// Files and folders.
    paths: Vec<PathBuf>,
    /// Which files of folders.
    which: Which,
    /// More files.
    more: Vec<PathBuf>,
    /// What they looked like when they counted last.
    known: Look,
    /// What they looked like a moment ago, where that is something else.
    fresh: Option<Look>,
}

impl Watch {
    /// As they are now is no change.
    pub(super) fn new(paths: Vec<PathBuf>, which: Which) -> Self {
        let known = Look::of(&paths, which, &[]);
        Self { paths, which, more: Vec::new(), known, fresh: None }
    }

    /// Watches these files, too, in the place of those before.
    pub(super) fn also(&mut self, mut more: Vec<PathBuf>) {
        more.sort_unstable();
        more.dedup();
        if more != self.more {
            self.more = more;
            self.known = Look::of(&self.paths, self.which, &self.more);
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
        let now = Look::of(&self.paths, self.which, &self.more);
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

/// What files look like.
#[derive(Debug, PartialEq, Eq)]
struct Look(BTreeMap<PathBuf, Seen>);

impl Look {
    /// Of files, of those in folders, and of more files. One that is not there is seen too.
    fn of(paths: &[PathBuf], which: Which, more: &[PathBuf]) -> Self {
        let mut look = Self(BTreeMap::new());
        for path in paths {
            if path.is_dir() { look.folder(path, which, 0) } else { look.file(path) }
        }
        for path in more {
            look.file(path);
        }
        look
    }

    /// Files of a folder.
    fn folder(&mut self, folder: &Path, which: Which, depth: usize) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if self.0.len() >= FILES_MAX {
                return;
            }
            if which == Which::Inside {
                self.file(&entry.path());
                continue;
            }
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            if name.starts_with('.') || LEFT_OUT.contains(&&*name) || name.contains(".wasm") {
                continue;
            }
            // Not through links, which may lead anywhere.
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && depth < DEPTH_MAX => self.folder(&path, which, depth + 1),
                Ok(kind) if kind.is_file() => self.file(&path),
                _ => {}
            }
        }
    }

    /// One file.
    fn file(&mut self, path: &Path) {
        self.0.insert(path.to_owned(), look_at(path));
    }
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
        let mut watch = Watch::new(vec![folder.path().to_owned()], Which::Inside);
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
        let mut watch = Watch::new(vec![folder.path().to_owned()], Which::Inside);
        watch.also(vec![elsewhere.path().join("p.wasm"), plugin]);
        fs::write(elsewhere.path().join("p.wasm"), "p").unwrap();
        assert!(!watch.has_changed());
        assert!(watch.has_changed());
    }

    #[test]
    fn changes_of_sources_are_seen_and_those_of_what_is_built_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let paths = [folder.path().to_owned()];
        let look = || Look::of(&paths, Which::Sources, &[]);
        let before = look();
        for built in ["target/x", ".git/x", "plugin.wasm", "plugin.wasm.new", "node_modules/a/b"] {
            let path = folder.path().join(built);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
            assert_eq!(look(), before, "{built}");
        }
        fs::create_dir(folder.path().join("src")).unwrap();
        fs::write(folder.path().join("src/lib.rs"), "x").unwrap();
        let one = look();
        assert_ne!(one, before);
        fs::write(folder.path().join("src/lib.rs"), "xy").unwrap();
        assert_ne!(look(), one);
        fs::remove_file(folder.path().join("src/lib.rs")).unwrap();
        assert_eq!(look(), before);
    }
}
