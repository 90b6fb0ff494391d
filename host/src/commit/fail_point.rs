//! Moments at which a test ends the process, between two steps of a commit.
//!
//! `FS_DATA_SINK_FAIL_POINT=recorded:3` ends it when the point `recorded` is passed the third time. Only in builds with the
//! feature `fail-points`, which the tests' crate turns on; in others nothing is left of it.

/// Exit code of a process that ended at a point.
#[cfg(feature = "fail-points")]
const EXIT_CODE: i32 = 86;

/// Passes a point.
#[cfg(feature = "fail-points")]
pub(super) fn pass(point: &str) {
    use std::sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    };
    /// The point, and how often it is passed before it ends the process.
    static WANTED: LazyLock<Option<(String, AtomicU64)>> = LazyLock::new(|| {
        let text = std::env::var("FS_DATA_SINK_FAIL_POINT").ok()?;
        let (name, times) = text.split_once(':').unwrap_or((&text, "1"));
        Some((name.to_owned(), AtomicU64::new(times.parse().ok()?)))
    });
    if let Some((name, left)) = &*WANTED
        && name == point
        && left.fetch_sub(1, Ordering::SeqCst) == 1
    {
        std::process::exit(EXIT_CODE);
    }
}

/// Nothing.
#[cfg(not(feature = "fail-points"))]
pub(super) fn pass(_point: &str) {}
