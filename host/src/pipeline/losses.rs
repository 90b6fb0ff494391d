//! How often plugins lost what they held, so that a lane does not begin anew for ever.
//!
//! A plugin that keeps rows or state and traps has lost them: the lane begins anew from what is committed, and the plugin is given
//! the same records again. Where it traps at them again and again, only a person can help. Counted for each source partition
//! until a commit covers it: a lane whose other partitions go on would otherwise never come to the end.
//!
//! Comes in: failures of chains, and commits. Goes out: the failure, to begin anew or to stop.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    checkpoint::{CheckpointDelta, SourcePartition},
    error::{PipelineError, Verdict},
};

/// Times that a lane begins anew for the same partition without a commit of it: with the pauses between them about half a
/// minute, in which whatever is not the plugin's own fault should have passed.
const LOSSES_MAX: u32 = 5;

/// The count of one pipeline, shared by its lanes. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Losses {
    /// Whether what was read can be read again: files without a ledger begin at their start.
    can_read_again: bool,
    /// By partition; under no partition where what failed was not given records of a certain one.
    counts: Arc<Mutex<HashMap<Option<SourcePartition>, u32>>>,
}

impl Losses {
    /// None so far.
    pub(super) fn new(can_read_again: bool) -> Self {
        Self { can_read_again, counts: Arc::default() }
    }

    /// What a chain's failure means. Where the lane would begin anew, that is counted, and ends at some time.
    pub(super) fn judge(&self, partition: Option<&SourcePartition>, error: PipelineError) -> PipelineError {
        if error.verdict() != Verdict::Restart {
            return error;
        }
        if !self.can_read_again {
            return PipelineError::retry(error.full_message());
        }
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(partition.cloned()).or_default();
        *count += 1;
        if *count <= LOSSES_MAX {
            return error;
        }
        let place = partition.map(|partition| format!(" of {partition}")).unwrap_or_default();
        PipelineError::stop(format!(
            "{}. That was so {count} times in a row without a commit{place}: the records behind what is committed have to be looked \
             at, or the plugin",
            error.full_message()
        ))
    }

    /// What these offsets made the plugins hold is durable.
    pub(super) fn committed(&self, delta: &CheckpointDelta) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.remove(&None);
        for (partition, _) in delta.iter() {
            counts.remove(&Some(partition.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A loss.
    fn loss(losses: &Losses, partition: i32) -> Verdict {
        let partition = SourcePartition::new("orders", partition);
        losses.judge(Some(&partition), PipelineError::restart("it trapped")).verdict()
    }

    #[test]
    fn the_sixth_loss_without_a_commit_of_the_partition_stops_the_pipeline() {
        let losses = Losses::new(true);
        let mut other = CheckpointDelta::default();
        other.extend(&SourcePartition::new("orders", 7), 0, 1).unwrap();
        let mut own = CheckpointDelta::default();
        own.extend(&SourcePartition::new("orders", 3), 0, 1).unwrap();
        for _ in 0..LOSSES_MAX {
            assert_eq!(loss(&losses, 3), Verdict::Restart);
            losses.committed(&other);
        }
        losses.committed(&own);
        for _ in 0..LOSSES_MAX {
            assert_eq!(loss(&losses, 3), Verdict::Restart);
            losses.committed(&other);
        }
        assert_eq!(loss(&losses, 3), Verdict::Stop);
        assert_eq!(loss(&losses, 4), Verdict::Restart);
    }

    #[test]
    fn what_cannot_be_read_again_ends_the_pipeline_and_other_failures_stay_what_they_are() {
        assert_eq!(loss(&Losses::new(false), 3), Verdict::Retry);
        for _ in 0..=LOSSES_MAX {
            let error = Losses::new(true).judge(None, PipelineError::retry("the server is away"));
            assert_eq!(error.verdict(), Verdict::Retry);
        }
    }
}
