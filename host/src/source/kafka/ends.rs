//! Whether a bounded read is done: `--until-end` reads to what was there at start.
//!
//! Pure bookkeeping: which partition ends where, and how far each has come.

use std::collections::{BTreeMap, BTreeSet};

use crate::checkpoint::SourcePartition;

/// The ends at start, and what was reached.
#[derive(Debug, Default)]
pub(super) struct Ends {
    /// High watermark of each partition when it was first asked for.
    ends: BTreeMap<SourcePartition, i64>,
    /// Partitions read to there.
    done: BTreeSet<SourcePartition>,
}

impl Ends {
    /// Whether the end of a partition is known.
    pub(super) fn knows(&self, partition: &SourcePartition) -> bool {
        self.ends.contains_key(partition)
    }

    /// Notes the watermarks of a partition. The first answer counts; a partition without records is done.
    pub(super) fn set_end(&mut self, partition: SourcePartition, low: i64, high: i64) {
        if !self.ends.contains_key(&partition) {
            if high <= low {
                self.done.insert(partition.clone());
            }
            self.ends.insert(partition, high);
        }
    }

    /// The next offset to read of a partition is this, or later.
    pub(super) fn reached(&mut self, partition: &SourcePartition, next: i64) {
        if self.ends.get(partition).is_some_and(|end| next >= *end) && !self.done.contains(partition) {
            self.done.insert(partition.clone());
        }
    }

    /// Whether all these partitions are read to their ends.
    pub(super) fn are_reached<'a>(&self, mut partitions: impl Iterator<Item = &'a SourcePartition>) -> bool {
        partitions.all(|partition| self.done.contains(partition))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn done_at_the_end_that_was_there_first() {
        let (a, b) = (SourcePartition::new("t", 0), SourcePartition::new("t", 1));
        let mut ends = Ends::default();
        ends.set_end(a.clone(), 0, 10);
        ends.set_end(b.clone(), 5, 5);
        ends.set_end(a.clone(), 0, 20);
        assert!(!ends.are_reached([&a, &b].into_iter()) && ends.are_reached([&b].into_iter()));
        ends.reached(&a, 9);
        assert!(!ends.are_reached([&a].into_iter()));
        ends.reached(&a, 10);
        assert!(ends.are_reached([&a, &b].into_iter()));
        assert!(!ends.are_reached([&SourcePartition::new("t", 2)].into_iter()), "an unknown partition is not done");
    }
}
