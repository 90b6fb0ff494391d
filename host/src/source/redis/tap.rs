//! What streams of a group and lists have in common: when to ask, how much to ask for, and what comes.

use std::time::{Duration, Instant};

use super::{appetite::Appetite, reply::Entry};

/// Where nothing was new it is asked again after this, doubled each time.
const IDLE_MIN: Duration = Duration::from_millis(5);

/// It is asked at least this often: rows become visible with a commit, seconds later, and most of many streams are quiet.
const IDLE_MAX: Duration = Duration::from_secs(1);

/// When to ask, and how much.
#[derive(Debug)]
pub(super) struct Tap {
    /// When to ask again.
    pub(super) due: Instant,
    /// The pause when nothing is new.
    idle: Duration,
    /// How many to ask for.
    appetite: Appetite,
}

impl Tap {
    /// To be asked now.
    pub(super) fn new(rows_max: usize) -> Self {
        Self { due: Instant::now(), idle: Duration::ZERO, appetite: Appetite::new(rows_max) }
    }

    /// How many to ask for.
    pub(super) fn count(&self) -> usize {
        self.appetite.count()
    }

    /// So much came; `is_all` where there was no more.
    pub(super) fn ate(&mut self, count: usize, bytes: usize, is_all: bool) {
        self.appetite.ate(count, bytes);
        self.idle = match (count, is_all) {
            (0, _) => (self.idle * 2).clamp(IDLE_MIN, IDLE_MAX),
            (_, true) => IDLE_MIN,
            _ => Duration::ZERO,
        };
        self.due = Instant::now() + self.idle;
    }
}

/// What came.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    /// Entries of a stream with their numbers.
    pub(super) entries: Vec<(i64, Entry)>,
    /// Entries that were delivered too often; their numbers follow those of the others.
    pub(super) refused: Vec<(i64, Entry)>,
    /// Items of a list with their numbers.
    pub(super) items: Vec<(i64, Vec<u8>)>,
    /// How many entries were deleted before they were read.
    pub(super) deleted: u64,
}

impl Arrivals {
    /// Whether nothing came.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.refused.is_empty() && self.items.is_empty()
    }
}
