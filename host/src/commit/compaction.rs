//! Merges of visible files, recorded and carried out so that a kill between any two steps loses no row and leaves none twice.
//!
//! Comes in: files, and the file that has all their rows, whole in our folder. Goes out: that file in their place. The steps:
//!
//! 1. **Claim** (once a pass): a record that makes this the one compactor of the pipeline. What an earlier one has recorded and
//!    not finished is finished first; what it staged and did not record is deleted.
//! 2. **Record** the merge. Whoever was taken for dead is refused here.
//! 3. `doubled`: the new file becomes visible, then the old ones are deleted. `missing`: the other way round.
//! 4. **Record** that it is finished.
//!
//! Steps 3 and 4 follow from the record alone and may be repeated by anyone. An input is deleted only after the new file was
//! seen in the store, whole, in our folder or in its place. A sleeper that repeats step 3 late finds nothing to move, since
//! nothing of a visible file stays in our folder, and deletes only names that never come back.

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    Ledger, fail_point,
    ledger::{
        self,
        record::{FileEntry, Merge},
    },
};
use crate::{
    config::MergeVisibility,
    error::PipelineError,
    store::{Path, Published, Store},
};

/// Files deleted side by side: hides the store's latency without a burst that it would answer with 503.
const DELETE_CONCURRENCY: usize = 16;

/// The folder of merged files that are not visible yet, in our own.
const FOLDER: &str = "merging";

/// One who merges files of a pipeline, from its claim on.
#[derive(Debug)]
pub struct Compactor {
    /// Where the files are.
    store: Store,
    /// Where merges are recorded.
    ledger: Ledger,
    /// Its name there.
    writer: String,
    /// The sequence of its claim.
    claim: u64,
}

impl Compactor {
    /// Claims the merging of a pipeline's files, and finishes what another one left.
    pub async fn claim(store: Store, ledger: Ledger) -> Result<Self, PipelineError> {
        let writer = uuid::Uuid::now_v7().to_string();
        let (claim, pending) = ledger.claim_compaction(&writer).await?;
        let compactor = Self { store, ledger, writer, claim };
        fail_point::pass("merge_claimed");
        compactor.sweep(pending.as_ref().map(|(_, merge)| merge.staged.as_str())).await?;
        if let Some((sequence, merge)) = pending {
            compactor.finish(sequence, &merge).await?;
            tracing::info!(sequence, file = merge.file.path, "a merge that was not finished is finished");
        }
        Ok(compactor)
    }

    /// Deletes what was staged under earlier claims and never recorded: whoever still means to record it is refused. What came
    /// under later claims is left alone, since this one may be a sleeper too.
    async fn sweep(&self, needed: Option<&str>) -> Result<(), PipelineError> {
        let staged = self.store.list(&self.store.own_name(FOLDER)).await?.into_iter().map(|(path, _)| path);
        let is_old = |path: &Path| {
            let claim = path.filename().and_then(|name| name.split_once('-')?.0.parse::<u64>().ok());
            needed != Some(path.as_ref()) && claim.is_some_and(|claim| claim < self.claim)
        };
        self.store.remove_all(&staged.filter(is_old).collect::<Vec<_>>()).await
    }

    /// A new place for a merged file, where no reader looks; named after the claim.
    #[must_use]
    pub fn staging_path(&self) -> Path {
        self.store.own_name(&format!("{FOLDER}/{:020}-{}", self.claim, uuid::Uuid::now_v7()))
    }

    /// Records a merge and carries it out.
    pub async fn merge(&self, merge: Merge) -> Result<(), PipelineError> {
        let rows: u64 = merge.inputs.iter().map(|file| file.rows).sum();
        if rows != merge.file.rows || merge.inputs.is_empty() {
            return Err(PipelineError::stop(format!(
                "{} has {} rows and the files merged into it have {rows}: they stay as they are",
                merge.file.path, merge.file.rows
            )));
        }
        self.expect_durable(&merge).await?;
        fail_point::pass("merge_staged");
        let sequence = self.ledger.compact(&self.writer, merge.clone()).await?;
        fail_point::pass("merge_recorded");
        self.finish(sequence, &merge).await
    }

    /// Nothing is left to merge.
    pub async fn release(&self) -> Result<(), PipelineError> {
        self.ledger.release_compaction(&self.writer).await
    }

    /// Carries out a recorded merge.
    async fn finish(&self, sequence: u64, merge: &Merge) -> Result<(), PipelineError> {
        let (staged, path) = (parse(&merge.staged)?, parse(&merge.file.path)?);
        let is_safe = match merge.visibility {
            MergeVisibility::Doubled => {
                self.store.reveal(&staged, &path, merge.file.bytes).await? == Published::Visible
            }
            MergeVisibility::Missing => self.is_durable(merge).await?,
        };
        if !is_safe {
            return self.abandon(sequence, merge).await;
        }
        fail_point::pass("merge_safe");
        self.delete_inputs(merge).await?;
        fail_point::pass("merge_deleted");
        if self.store.reveal(&staged, &path, merge.file.bytes).await? == Published::Lost {
            return self.abandon(sequence, merge).await;
        }
        fail_point::pass("merge_visible");
        self.ledger.compacted(&self.writer, sequence).await?;
        fail_point::pass("merge_finished");
        Ok(())
    }

    /// Whether the merged file is in the store, whole, in our folder or in its place.
    async fn is_durable(&self, merge: &Merge) -> Result<bool, PipelineError> {
        for path in [&merge.staged, &merge.file.path] {
            if self.store.length(&parse(path)?).await? == Some(merge.file.bytes) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Refuses to record a merged file that is not whole.
    async fn expect_durable(&self, merge: &Merge) -> Result<(), PipelineError> {
        if self.is_durable(merge).await? {
            return Ok(());
        }
        if self.ledger.look().await?.compaction.owner.as_deref() != Some(&self.writer) {
            return Err(taken_over("another process merges files now, and has removed what was not recorded"));
        }
        Err(PipelineError::retry(format!("{} is not whole in the store after it was written", merge.staged)))
    }

    /// Deletes the files that are merged now.
    async fn delete_inputs(&self, merge: &Merge) -> Result<(), PipelineError> {
        let paths = merge.inputs.iter().map(|file| parse(&file.path)).collect::<Result<Vec<_>, _>>()?;
        let deletions: Vec<_> = paths
            .iter()
            .enumerate()
            .map(|(number, path)| async move {
                self.store.remove(path).await?;
                if number > 0 {
                    fail_point::pass("merge_deleted_one");
                }
                Ok(())
            })
            .collect();
        stream::iter(deletions).buffer_unordered(DELETE_CONCURRENCY).try_collect().await
    }

    /// The merged file is nowhere. Where all its inputs are there nothing is lost, and they stay.
    async fn abandon(&self, sequence: u64, merge: &Merge) -> Result<(), PipelineError> {
        let waiting = self.ledger.look().await?.compaction.pending.map(|(sequence, _)| sequence);
        if waiting != Some(sequence) {
            return Err(taken_over(&format!("merge {sequence} was finished by another process")));
        }
        for FileEntry { path, bytes, .. } in &merge.inputs {
            if self.store.length(&parse(path)?).await? != Some(*bytes) {
                return Err(PipelineError::stop(format!(
                    "merge {sequence}: neither {} nor {path}, which was merged into it, is in the store: something else deletes \
                     files there. Restore one of the two from a backup or a version of the bucket; until then nothing is merged",
                    merge.file.path
                )));
            }
        }
        tracing::warn!(
            sequence,
            file = merge.file.path,
            "a merged file was lost before it was visible: the old files stay"
        );
        self.ledger.abandon_compaction(&self.writer, sequence, merge.clone()).await
    }
}

/// The end of one that was taken for dead, in the words of the ledger.
fn taken_over(why: &str) -> PipelineError {
    PipelineError::restart(ledger::REFUSED).because(why)
}

/// A recorded path.
fn parse(path: &str) -> Result<Path, PipelineError> {
    Path::parse(path).map_err(|error| {
        PipelineError::stop(format!("the ledger names a file {path:?}, which is no path")).because(error)
    })
}

#[cfg(test)]
mod chaos;
#[cfg(test)]
mod tests;
