//! Temporary folders that survive a failure and nothing else.
//!
//! All lie under one folder per test process. A folder whose test ended well is removed at once; the folders of servers
//! that serve until the process ends are removed then, unless something was kept. What earlier processes left is removed
//! when the first folder is made.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Once,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use anyhow::Context as _;

/// Whether any folder was kept: then the process leaves all that are still there.
static KEPT: AtomicBool = AtomicBool::new(false);

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
        let all = all_folders();
        SWEEP.call_once(|| {
            sweep(&all);
            at_exit();
        });
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
        KEPT.store(true, Ordering::SeqCst);
    }
}

impl Drop for TestFolder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.keep();
        }
        if !self.kept {
            // A folder that cannot be removed is swept by a later run.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Where all of them are.
fn all_folders() -> PathBuf {
    std::env::temp_dir().join("fs-data-sink-tests")
}

/// Removes what is left when this process ends well.
#[expect(unsafe_code, reason = "a test program has no other place for what comes last")]
fn at_exit() {
    /// Runs on the main thread after all tests.
    extern "C" fn remove() {
        if !KEPT.load(Ordering::SeqCst) {
            // Swept by a later run where it fails.
            let _ = fs::remove_dir_all(all_folders().join(std::process::id().to_string()));
        }
    }
    // SAFETY: the function touches no memory but its own and does not unwind: errors are ignored.
    let _ = unsafe { libc::atexit(remove) };
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
