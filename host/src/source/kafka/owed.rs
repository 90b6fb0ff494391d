//! Offsets whose rows are durable and which the broker has not taken yet.
//!
//! A commit can fail while the group changes under it, with partitions that stay ours. Such offsets are kept: the next
//! commit takes them along, and the poll thread tries them again by itself, since a partition without new records
//! has no next commit. What is owed for a partition that goes is forgotten, or it would be committed after it came back
//! at an earlier offset.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::{Offset, TopicPartitionList, error::KafkaResult};

use crate::checkpoint::SourcePartition;

/// Pause before the poll thread tries again: a rebalance takes about as long.
const RETRY_PAUSE: Duration = Duration::from_secs(2);

/// At most one offset for each partition that is ours.
#[derive(Debug, Default)]
pub(super) struct Owed(Mutex<State>);

/// What is behind the lock.
#[derive(Debug, Default)]
struct State {
    /// The next offset to read of each partition.
    offsets: BTreeMap<SourcePartition, i64>,
    /// When the poll thread tries again; `None` while nothing has failed.
    retry_at: Option<Instant>,
}

impl Owed {
    /// The rows of a partition below this offset are durable.
    pub(super) fn add(&self, partition: &SourcePartition, next: i64) {
        let mut state = self.state();
        let offset = state.offsets.entry(partition.clone()).or_insert(next);
        *offset = next.max(*offset);
    }

    /// What there is to commit.
    pub(super) fn list(&self) -> KafkaResult<TopicPartitionList> {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in &self.state().offsets {
            list.add_partition_offset(&partition.topic, partition.partition, Offset::Offset(*offset))?;
        }
        Ok(list)
    }

    /// The broker has taken these.
    pub(super) fn taken(&self, list: &TopicPartitionList) {
        let mut state = self.state();
        for element in list.elements() {
            let partition = SourcePartition::new(element.topic(), element.partition());
            let Offset::Offset(offset) = element.offset() else { continue };
            if element.error().is_ok() && state.offsets.get(&partition).is_some_and(|owed| *owed <= offset) {
                state.offsets.remove(&partition);
            }
        }
        if state.offsets.is_empty() {
            state.retry_at = None;
        }
    }

    /// A commit failed and nobody tries it again but the poll thread.
    pub(super) fn failed(&self) {
        self.state().retry_at = Some(Instant::now() + RETRY_PAUSE);
    }

    /// Whether it is time to try again; sets the time of the next try.
    pub(super) fn is_due(&self) -> bool {
        let mut state = self.state();
        let now = Instant::now();
        let is_due = state.retry_at.is_some_and(|at| now >= at);
        if is_due {
            state.retry_at = Some(now + RETRY_PAUSE);
        }
        is_due
    }

    /// Forgets what is owed for these partitions; how many had something.
    pub(super) fn forget(&self, partitions: &[SourcePartition]) -> usize {
        let mut state = self.state();
        let forgotten = partitions.iter().filter(|partition| state.offsets.remove(*partition).is_some()).count();
        if state.offsets.is_empty() {
            state.retry_at = None;
        }
        forgotten
    }

    /// Whether nothing is owed.
    pub(super) fn is_empty(&self) -> bool {
        self.state().offsets.is_empty()
    }

    /// A lock that a panic elsewhere does not break.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantees: a later offset that came during a commit stays owed, and a partition that goes takes its offset along.
    #[test]
    fn only_what_was_taken_is_no_longer_owed() {
        let (owed, first, second) = (Owed::default(), SourcePartition::new("t", 0), SourcePartition::new("t", 1));
        owed.add(&first, 10);
        owed.add(&second, 5);
        let list = owed.list().unwrap();
        owed.add(&first, 12);
        owed.taken(&list);
        assert_eq!(owed.list().unwrap().count(), 1);
        assert_eq!(owed.forget(&[second]), 0);
        assert_eq!(owed.forget(&[first]), 1);
        assert!(owed.is_empty());
    }
}
