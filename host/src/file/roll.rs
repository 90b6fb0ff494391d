//! When a file, a row group or a generation ends. Pure: whoever asks brings the clock.
//!
//! Comes in: the limits of a pipeline, what a generation has done, and the time. Goes out: whether it is due, and why.

use std::time::{Duration, Instant};

use crate::config::RunConfig;

/// At this share of the memory budget a generation ends early, so that the source, which waits at the whole of it, need
/// not wait for long: in percent.
const PRESSURE_DUE_PERCENT: usize = 80;

/// At this share a large row group ends early, which is milder than a small file: in percent.
const PRESSURE_ROW_GROUP_PERCENT: usize = 60;

/// A row group that holds less is not worth ending early: readers want them large.
pub(super) const ROW_GROUP_BYTES_MIN: usize = 8 << 20;

/// A generation that holds less than this share of the budget would free too little to end early for: a 64th.
const OWN_SHARE_MIN: usize = 64;

/// Most files of one generation: they are committed together, and each takes part in one record of the ledger, about 500
/// bytes each there. With more directories than this a generation ends before each of them has come by.
const FILES_MAX: usize = 16_384;

/// The limits of a pipeline.
#[derive(Clone, Copy, Debug)]
pub(super) struct RollRules {
    /// Longest age of a generation.
    interval: Duration,
    /// Most batches in a generation.
    batches_max: Option<u64>,
    /// A file is full at so many encoded bytes.
    file_bytes: usize,
    /// A file is full at so many rows.
    file_rows: u64,
    /// Most open files.
    open_files_max: usize,
}

/// What a generation has done so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    /// When it got its first rows or offsets.
    pub(super) began: Option<Instant>,
    /// Batches covered.
    pub(super) batches: u64,
    /// Files finished, open, and to be written of rows that wait.
    pub(super) files: usize,
    /// Bytes that ending it would give back.
    pub(super) held_bytes: usize,
}

/// The memory budget at a moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    /// Bytes in flight.
    pub(super) used_bytes: usize,
    /// The limit.
    pub(super) limit_bytes: usize,
}

/// Why a generation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// `commit_interval` has passed.
    Interval,
    /// `flush_interval_batches` are in it.
    Batches,
    /// The memory budget runs out.
    Memory,
    /// It has, or will have, very many files.
    Files,
}

impl RollRules {
    /// The rules of a pipeline.
    pub(super) fn new(run: &RunConfig) -> Self {
        Self {
            interval: run.commit_interval,
            batches_max: run.commit_interval_batches,
            file_bytes: run.target_file_size_bytes,
            file_rows: run.target_file_rows.unwrap_or(u64::MAX),
            open_files_max: run.open_files_max.max(1),
        }
    }

    /// When a generation ends at the latest.
    pub(super) fn deadline(&self, progress: &Progress) -> Option<Instant> {
        progress.began.and_then(|began| began.checked_add(self.interval))
    }

    /// Whether a generation ends now, and why.
    pub(super) fn due(&self, progress: &Progress, memory: Memory, now: Instant) -> Option<Due> {
        progress.began?;
        let own_share = progress.held_bytes >= memory.limit_bytes / OWN_SHARE_MIN && progress.held_bytes > 0;
        if self.deadline(progress).is_some_and(|deadline| now >= deadline) {
            Some(Due::Interval)
        } else if self.batches_max.is_some_and(|most| progress.batches >= most) {
            Some(Due::Batches)
        } else if own_share && memory.is_above(PRESSURE_DUE_PERCENT) {
            Some(Due::Memory)
        } else if progress.files >= FILES_MAX {
            Some(Due::Files)
        } else {
            None
        }
    }

    /// Whether a file of so many encoded bytes and rows is full.
    pub(super) fn is_full(&self, encoded_bytes: usize, rows: u64) -> bool {
        encoded_bytes >= self.file_bytes || rows >= self.file_rows
    }

    /// Whether one more file may be opened beside so many.
    pub(super) fn may_open(&self, open_files: usize) -> bool {
        open_files < self.open_files_max
    }
}

impl Memory {
    /// Whether more than a share of the budget is used.
    fn is_above(self, percent: usize) -> bool {
        self.used_bytes > self.limit_bytes / 100 * percent
    }

    /// Whether large row groups end early.
    pub(super) fn ends_row_groups(self) -> bool {
        self.is_above(PRESSURE_ROW_GROUP_PERCENT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A minute, two batches, 100 bytes a file, two files.
    const RULES: RollRules = RollRules {
        interval: Duration::from_mins(1),
        batches_max: Some(2),
        file_bytes: 100,
        file_rows: 50,
        open_files_max: 2,
    };

    /// Nothing in flight of 1 GB.
    const IDLE: Memory = Memory { used_bytes: 0, limit_bytes: 1_000_000_000 };

    #[test]
    fn an_empty_generation_is_never_due() {
        let later = Instant::now() + Duration::from_hours(1);
        assert_eq!(RULES.due(&Progress::default(), IDLE, later), None);
        assert_eq!(RULES.deadline(&Progress::default()), None);
    }

    #[test]
    fn a_generation_ends_at_its_age_or_number_of_batches() {
        let began = Instant::now();
        let progress = Progress { began: Some(began), ..Progress::default() };
        assert_eq!(RULES.due(&progress, IDLE, began + Duration::from_millis(59_999)), None);
        assert_eq!(RULES.due(&progress, IDLE, began + Duration::from_mins(1)), Some(Due::Interval));
        assert_eq!(RULES.deadline(&progress), Some(began + Duration::from_mins(1)));
        let progress = Progress { batches: 2, ..progress };
        assert_eq!(RULES.due(&progress, IDLE, began), Some(Due::Batches));
        assert_eq!(RollRules { batches_max: None, ..RULES }.due(&progress, IDLE, began), None);
    }

    #[test]
    fn memory_pressure_ends_a_generation_that_holds_some_of_it() {
        let began = Instant::now();
        let progress = Progress { began: Some(began), held_bytes: 20_000_000, ..Progress::default() };
        let memory = |used_bytes| Memory { used_bytes, ..IDLE };
        assert_eq!(RULES.due(&progress, memory(800_000_000), began), None);
        assert_eq!(RULES.due(&progress, memory(800_000_001), began), Some(Due::Memory));
        let little = Progress { held_bytes: 1_000_000, ..progress };
        assert_eq!(RULES.due(&little, memory(999_999_999), began), None, "it would free too little");
    }

    #[test]
    fn many_files_end_a_generation() {
        let began = Instant::now();
        let progress = Progress { began: Some(began), files: FILES_MAX, ..Progress::default() };
        assert_eq!(RULES.due(&progress, IDLE, began), Some(Due::Files));
    }

    #[test]
    fn files_and_row_groups_end_at_their_size() {
        assert!(!RULES.is_full(99, 49) && RULES.is_full(100, 1) && RULES.is_full(1, 50));
        assert!(RULES.may_open(1) && !RULES.may_open(2));
        let pressed = Memory { used_bytes: 700_000_000, ..IDLE };
        assert!(pressed.ends_row_groups() && !IDLE.ends_row_groups());
    }
}
