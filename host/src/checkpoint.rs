//! Where a record stands in its source, and which stretch of each source partition some work covers.
//!
//! Comes in: one position per record. Goes out: a [`CheckpointDelta`], which travels with the rows it covers until
//! they are durable, and then goes back to the source. Pure values, no I/O.
//!
//! Ranges are half open, `from..to`: `from` is the first offset covered and `to` the next one to read, which is also
//! what Kafka stores as a committed offset.

use std::{collections::BTreeMap, fmt, sync::Arc};

/// One ordered stretch of a source: a Kafka topic-partition, a Redis stream (partition 0), or a file (partition 0).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourcePartition {
    /// Kafka topic, Redis key, or path of the file.
    pub topic: Arc<str>,
    /// Kafka partition number; 0 for the others.
    pub partition: i32,
}

impl SourcePartition {
    /// A partition of a topic.
    #[must_use]
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for SourcePartition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}[{}]", self.topic, self.partition)
    }
}

/// Offsets `from..to` of one source partition; never empty, never negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetRange {
    /// First offset covered.
    pub from: i64,
    /// Next offset to read.
    pub to: i64,
}

/// Two stretches of one partition that do not follow each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("offsets {from}..{to} of {partition} do not follow {known_from}..{known_to}: the partition was read twice")]
pub struct OverlapError {
    /// The partition that was read twice.
    pub partition: SourcePartition,
    /// First offset already covered.
    pub known_from: i64,
    /// Next offset that was expected, or a later one.
    pub known_to: i64,
    /// First offset that came instead.
    pub from: i64,
    /// End of the stretch that came.
    pub to: i64,
}

/// What some work covers, per source partition. Gaps are allowed (compaction, retention, aborted transactions);
/// going back is not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckpointDelta(BTreeMap<SourcePartition, OffsetRange>);

impl CheckpointDelta {
    /// Covers offsets `from..to` of a partition as well; it must lie behind all that is covered so far.
    pub fn extend(&mut self, partition: &SourcePartition, from: i64, to: i64) -> Result<(), OverlapError> {
        match self.0.get_mut(partition) {
            None => {
                self.0.insert(partition.clone(), OffsetRange { from, to });
                Ok(())
            }
            Some(known) if from >= known.to && to >= from => {
                known.to = to;
                Ok(())
            }
            Some(known) => {
                Err(OverlapError { partition: partition.clone(), known_from: known.from, known_to: known.to, from, to })
            }
        }
    }

    /// Covers a partition that is covered already from an earlier offset on: what lies between has no records.
    pub fn begin_at(&mut self, partition: &SourcePartition, from: i64) {
        if let Some(range) = self.0.get_mut(partition) {
            range.from = range.from.min(from);
        }
    }

    /// Covers all that a later delta covers.
    pub fn merge(&mut self, later: &Self) -> Result<(), OverlapError> {
        later.0.iter().try_for_each(|(partition, range)| self.extend(partition, range.from, range.to))
    }

    /// Each partition with its range, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&SourcePartition, OffsetRange)> {
        self.0.iter().map(|(partition, range)| (partition, *range))
    }

    /// What is covered here and was not yet in `earlier`, an older state of the same delta.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let rest = self.0.iter().filter_map(|(partition, range)| {
            let from = earlier.0.get(partition).map_or(range.from, |known| known.to);
            (from < range.to).then(|| (partition.clone(), OffsetRange { from, to: range.to }))
        });
        Self(rest.collect())
    }

    /// The partitions of one topic, where there are some; otherwise all.
    #[must_use]
    pub fn of_topic(&self, topic: &str) -> Self {
        let named: BTreeMap<_, _> = self
            .0
            .iter()
            .filter(|(partition, _)| &*partition.topic == topic)
            .map(|(partition, range)| (partition.clone(), *range))
            .collect();
        if named.is_empty() { self.clone() } else { Self(named) }
    }

    /// Whether nothing is covered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets a partition, for instance one that now belongs to another process.
    pub fn remove(&mut self, partition: &SourcePartition) {
        self.0.remove(partition);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn gaps_are_allowed_and_going_back_is_not() {
        let orders = SourcePartition::new("orders", 3);
        let mut delta = CheckpointDelta::default();
        delta.extend(&orders, 0, 10).unwrap();
        delta.extend(&orders, 12, 20).unwrap();
        assert_eq!(delta.iter().next().unwrap().1, OffsetRange { from: 0, to: 20 });
        let error = delta.extend(&orders, 19, 25).unwrap_err();
        assert!(error.to_string().contains("orders[3]"), "{error}");
        delta.begin_at(&SourcePartition::new("orders", 4), 7);
        let mut later = CheckpointDelta::default();
        later.extend(&orders, 25, 30).unwrap();
        later.begin_at(&orders, 20);
        delta.merge(&later).unwrap();
        assert_eq!(delta.iter().map(|(_, range)| range).collect::<Vec<_>>(), [OffsetRange { from: 0, to: 30 }]);
    }

    #[test]
    fn what_came_since_begins_where_the_earlier_state_ended() {
        let (orders, clicks) = (SourcePartition::new("orders", 3), SourcePartition::new("clicks", 0));
        let mut earlier = CheckpointDelta::default();
        earlier.extend(&orders, 5, 10).unwrap();
        let mut later = earlier.clone();
        assert!(later.since(&earlier).is_empty());
        later.extend(&orders, 12, 20).unwrap();
        later.extend(&clicks, 1, 2).unwrap();
        let since = later.since(&earlier);
        assert_eq!(since.iter().map(|(_, range)| (range.from, range.to)).collect::<Vec<_>>(), [(1, 2), (10, 20)]);
        assert_eq!(since.of_topic("orders").iter().count(), 1);
        assert_eq!(since.of_topic("back-fill"), since);
    }

    proptest! {
        #[test]
        fn merging_pieces_in_order_covers_the_whole(cuts in proptest::collection::vec(1i64..50, 1..20)) {
            let partition = SourcePartition::new("t", 0);
            let (mut whole, mut from) = (CheckpointDelta::default(), 0);
            for length in cuts {
                let mut piece = CheckpointDelta::default();
                piece.extend(&partition, from, from + length).unwrap();
                whole.merge(&piece).unwrap();
                from += length;
            }
            prop_assert_eq!(whole.iter().next().unwrap().1, OffsetRange { from: 0, to: from });
        }
    }
}
