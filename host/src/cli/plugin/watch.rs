//! Waits until something that a plugin is made of changes.
//!
//! It looks twice a second at lengths and times instead of asking the system to tell: that works on every file system, also on those
//! of containers and networks.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(500);
/// Files that are looked at.
const FILES_MAX: usize = 10_000;
/// Levels of folders.
const DEPTH_MAX: usize = 16;
/// Folders of what is built and fetched.
const LEFT_OUT: [&str; 4] = ["target", "node_modules", "__pycache__", "lake"];

/// Length and time of each file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Seen(BTreeMap<PathBuf, (u64, Option<SystemTime>)>);

impl Seen {
    /// Looks at files, and at all in folders but what is hidden, built or fetched.
    pub(super) fn look(paths: &[PathBuf]) -> Self {
        let mut seen = Self(BTreeMap::new());
        for path in paths {
            if path.is_dir() { seen.folder(path, 0) } else { seen.file(path) }
        }
        seen
    }

    /// Returns when something differs, and has stayed the same for a moment, so that whoever writes it is done.
    pub(super) async fn changed(self, paths: &[PathBuf]) {
        let mut before = self;
        let mut is_changed = false;
        loop {
            tokio::time::sleep(PAUSE).await;
            let now = Self::look(paths);
            if now != before {
                is_changed = true;
                before = now;
            } else if is_changed {
                return;
            }
        }
    }

    /// All files of a folder.
    fn folder(&mut self, folder: &Path, depth: usize) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            let is_left_out = name.starts_with('.') || LEFT_OUT.contains(&&*name) || name.contains(".wasm");
            if is_left_out || self.0.len() >= FILES_MAX {
                continue;
            }
            // Not through links, which may lead anywhere.
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && depth < DEPTH_MAX => self.folder(&path, depth + 1),
                Ok(kind) if kind.is_file() => self.file(&path),
                _ => {}
            }
        }
    }

    /// One file; one that is not there is seen too.
    fn file(&mut self, path: &Path) {
        let metadata = fs::metadata(path).ok();
        let seen = metadata.map_or((0, None), |metadata| (metadata.len(), metadata.modified().ok()));
        self.0.insert(path.to_owned(), seen);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_of_sources_are_seen_and_those_of_what_is_built_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let paths = [folder.path().to_owned()];
        let look = || Seen::look(&paths);
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
