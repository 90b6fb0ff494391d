//! What plugins keep of partitions that no lane had when the input was at its end.
//!
//! A lane has the plugins give out, at the end, what they keep of the partitions that it has. One that was on its way to another
//! lane just then belongs to neither: its owner has committed and released it, and whoever would have taken it has ended.
//!
//! Comes in: which partitions were claimed, and which are finished. Goes out: a last lane that claims those that are left and that
//! nobody has, reads nothing, and gives out what is kept of them. What another process has is its affair.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::Shared;
use crate::{
    checkpoint::SourcePartition,
    commit::ledger::{record::Partition, state::Position},
    plugin::keeps_state,
};

/// The partitions of one pipeline that lanes of this process have claimed and not finished. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Unfinished(Arc<Mutex<BTreeSet<SourcePartition>>>);

impl Unfinished {
    /// A lane goes on with these.
    pub(super) fn claimed(&self, partitions: &[SourcePartition]) {
        self.partitions().extend(partitions.iter().cloned());
    }

    /// What plugins kept of these was given out and committed.
    pub(super) fn given_out(&self, partitions: &BTreeSet<SourcePartition>) {
        self.partitions().retain(|partition| !partitions.contains(partition));
    }

    /// A lock that a panic elsewhere does not break.
    fn partitions(&self) -> MutexGuard<'_, BTreeSet<SourcePartition>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Partitions of which something is kept that nobody will give out, once all lanes have come to the end of the input.
pub(super) async fn left(shared: &Shared) -> Vec<SourcePartition> {
    let Shared { config, ledger, plugins, runtime, unfinished, .. } = shared;
    let Some(ledger) = ledger else { return Vec::new() };
    // More input comes later.
    if runtime.stop.is_cancelled() || config.run.batches_max.is_some() || !keeps_state(plugins) {
        return Vec::new();
    }
    let unfinished: Vec<_> = unfinished.partitions().iter().cloned().collect();
    if unfinished.is_empty() {
        return unfinished;
    }
    let state = ledger.state().await;
    let position = |partition: &SourcePartition| state.partitions.get(&Partition::from(partition));
    let is_kept = |position: &Position| position.state.iter().any(|state| state.bytes > 0);
    let kept = unfinished.into_iter().filter(|partition| position(partition).is_some_and(is_kept));
    let (others, left): (Vec<_>, Vec<_>) =
        kept.partition(|partition| position(partition).is_some_and(|position| position.owner.is_some()));
    if !others.is_empty() {
        tracing::info!(pipeline = %config.name, partitions = ?others,
            "another process has these partitions: what plugins keep of them comes out there");
    }
    left
}
