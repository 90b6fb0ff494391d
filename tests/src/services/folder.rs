//! Temporary folders that survive a failure and nothing else.
//!
//! All lie under one folder per test process. What earlier processes left is removed when the first folder is made; a
//! folder whose test ended well is removed at once.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
};

use anyhow::Context as _;

/// A folder that goes away with this value unless the thread is panicking or the folder was kept.
#[derive(Debug)]
pub struct TestFolder {
    /// Where.
    path: PathBuf,
    /// Whether it stays.
    kept: bool,
}

impl TestFolder {
    /// A new, empty folder; `name` makes it easy to find.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        static SWEEP: Once = Once::new();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let all = std::env::temp_dir().join("fs-data-sink-tests");
        SWEEP.call_once(|| sweep(&all));
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = all.join(std::process::id().to_string()).join(format!("{name}-{number}"));
        fs::create_dir_all(&path).with_context(|| format!("cannot make the folder {}", path.display()))?;
        Ok(Self { path, kept: false })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves it on disk for whoever looks into a failure.
    pub fn keep(&mut self) {
        self.kept = true;
    }
}

impl Drop for TestFolder {
    fn drop(&mut self) {
        if !self.kept && !std::thread::panicking() {
            // A folder that cannot be removed is swept by a later run.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Removes the folders of test processes that no longer run.
fn sweep(all: &Path) {
    for entry in fs::read_dir(all).into_iter().flatten().flatten() {
        let alive = Path::new("/proc").join(entry.file_name()).exists();
        if !alive {
            // Another run may be sweeping it too.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
