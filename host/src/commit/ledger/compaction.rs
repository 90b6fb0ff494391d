//! What a compactor writes into the ledger; what it means is decided in `state.rs`.

use super::{
    Ledger, PipelineError, load,
    record::{Action, Merge},
    state::State,
};

impl Ledger {
    /// Reads the ledger anew, beside whatever this process appends to it.
    pub async fn look(&self) -> Result<State, PipelineError> {
        load(&self.0.store).await
    }

    /// From now on only this writer may merge files; the sequence of the claim, and the merge that another one left unfinished.
    pub async fn claim_compaction(&self, writer: &str) -> Result<(u64, Option<(u64, Merge)>), PipelineError> {
        let (sequence, state) = self.append(writer, Action::CompactClaim {}).await?;
        Ok((sequence, state.compaction.pending))
    }

    /// These files are one file from now on; the sequence of the record.
    pub async fn compact(&self, writer: &str, merge: Merge) -> Result<u64, PipelineError> {
        let (sequence, _) = self.append(writer, Action::Compact(merge)).await?;
        Ok(sequence)
    }

    /// The merge is finished.
    pub async fn compacted(&self, writer: &str, sequence: u64) -> Result<(), PipelineError> {
        self.append(writer, Action::Compacted { sequence }).await.map(drop)
    }

    /// The merge is given up: its inputs stay.
    pub async fn abandon_compaction(&self, writer: &str, sequence: u64, merge: Merge) -> Result<(), PipelineError> {
        self.append(writer, Action::CompactAbandoned { sequence, merge }).await.map(drop)
    }

    /// There is nothing left to merge.
    pub async fn release_compaction(&self, writer: &str) -> Result<(), PipelineError> {
        self.append(writer, Action::CompactRelease {}).await.map(drop)
    }
}
