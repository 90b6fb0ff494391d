//! What a pipeline has done so far, counted by its lanes and read by whoever shows progress.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tokio::sync::Notify;

use crate::batch::{ClosedGeneration, Rejection};

/// Most distinct codes kept apart in a summary; what a plugin invents above that is counted as `other`.
const CODES_MAX: usize = 64;

/// Running counts of one pipeline.
#[derive(Debug, Default)]
pub struct Totals {
    /// Records that came from the source.
    records_read: AtomicU64,
    /// Their bytes.
    bytes_read: AtomicU64,
    /// Rows given to files.
    rows_written: AtomicU64,
    /// Files made visible.
    files: AtomicU64,
    /// Their bytes.
    file_bytes: AtomicU64,
    /// Rows in them.
    rows_committed: AtomicU64,
    /// Refused records by code.
    rejected_by_code: Mutex<BTreeMap<String, u64>>,
    /// Whether there was a commit.
    has_committed: AtomicBool,
    /// Wakes one who waits for a commit.
    commits: Notify,
}

/// What a pipeline has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Records that came from the source.
    pub records_read: u64,
    /// Their bytes.
    pub bytes_read: u64,
    /// Rows in visible files.
    pub rows_written: u64,
    /// Records that became dead letters or were dropped as configured.
    pub records_rejected: u64,
    /// The same by code.
    pub rejected_by_code: BTreeMap<String, u64>,
    /// Records that are in no file since a plugin left them out.
    pub rows_filtered: u64,
    /// Visible files.
    pub files: u64,
    /// Their bytes.
    pub file_bytes: u64,
}

impl Totals {
    /// A batch came from the source.
    pub(super) fn read(&self, records: u64, bytes: u64) {
        self.records_read.fetch_add(records, Ordering::Relaxed);
        self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Rows were given to a file.
    pub(super) fn wrote(&self, rows: u64) {
        self.rows_written.fetch_add(rows, Ordering::Relaxed);
    }

    /// Records were refused.
    pub(super) fn rejected(&self, rejection: &Rejection) {
        let mut codes = self.rejected_by_code.lock().unwrap_or_else(PoisonError::into_inner);
        let known = codes.contains_key(&rejection.code) || codes.len() < CODES_MAX;
        let code = if known { rejection.code.clone() } else { "other".to_owned() };
        *codes.entry(code).or_default() += rejection.rows.len() as u64;
    }

    /// The files of a generation are about to be published.
    pub(super) fn committed(&self, files: u64, bytes: u64, rows: u64) {
        self.files.fetch_add(files, Ordering::Relaxed);
        self.file_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.rows_committed.fetch_add(rows, Ordering::Relaxed);
        self.has_committed.store(true, Ordering::Relaxed);
        self.commits.notify_one();
    }

    /// Waits for the next commit, or returns at once where there was one since the last time. For one task.
    pub(super) async fn next_commit(&self) {
        self.commits.notified().await;
    }

    /// Whether there was a commit.
    pub fn has_committed(&self) -> bool {
        self.has_committed.load(Ordering::Relaxed)
    }

    /// Records read so far.
    pub fn records_read(&self) -> u64 {
        self.records_read.load(Ordering::Relaxed)
    }

    /// Everything so far. What is neither written nor refused was left out by a plugin; the count is exact once the
    /// pipeline has ended and no plugin makes rows of its own.
    pub fn summary(&self) -> Summary {
        let rejected_by_code = self.rejected_by_code.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let records_rejected = rejected_by_code.values().sum();
        let (records_read, rows_given) = (self.records_read(), self.rows_written.load(Ordering::Relaxed));
        Summary {
            records_read,
            bytes_read: self.bytes_read.load(Ordering::Relaxed),
            rows_written: self.rows_committed.load(Ordering::Relaxed),
            records_rejected,
            rejected_by_code,
            rows_filtered: records_read.saturating_sub(rows_given).saturating_sub(records_rejected),
            files: self.files.load(Ordering::Relaxed),
            file_bytes: self.file_bytes.load(Ordering::Relaxed),
        }
    }
}

/// Files, bytes and rows of a generation.
pub(super) fn size(generation: &ClosedGeneration) -> (u64, u64, u64) {
    let bytes = generation.files.iter().map(|file| file.bytes).sum();
    let rows = generation.files.iter().map(|file| file.rows).sum();
    (generation.files.len() as u64, bytes, rows)
}
