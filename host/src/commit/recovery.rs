//! What a lane does when it claims partitions: finishes what others committed and did not make visible.
//!
//! Comes in: partitions. Goes out: where each goes on, once every committed file of them is visible. A file whose staged
//! bytes are gone (an upload that a bucket's rule has aborted) is a [`LostFile`]: the pipeline writes it again from the
//! recorded offsets, and hands it back to be recorded and published.

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    BTreeMap, CheckpointDelta, Ledger, LedgerWriter, Mutex, PipelineError, PoisonError, Published, RecordedFile,
    SourcePartition, StagedFile, Store,
    ledger::{
        record::Range,
        state::Pending,
        states::{PartitionState, StateRef},
    },
};
use crate::{batch::DeadLetter, store::Path};

impl LedgerWriter {
    /// A writer of its own for one lane, from now until it ends or begins anew.
    #[must_use]
    pub fn new(ledger: Ledger) -> Self {
        let writer = uuid::Uuid::now_v7().to_string().into();
        Self { ledger, writer, published: std::sync::Arc::new(Mutex::default()) }
    }

    /// Who it is, in names of files.
    #[must_use]
    pub fn mark(&self) -> &str {
        super::leftovers::mark(&self.writer)
    }

    /// Appends a commit.
    pub(super) async fn commit(
        &self,
        delta: &CheckpointDelta,
        files: Vec<RecordedFile>,
        states: Vec<PartitionState>,
    ) -> Result<u64, PipelineError> {
        let published = std::mem::take(&mut *self.published());
        let appended = self.ledger.commit(&self.writer, delta, files, published.clone(), states).await;
        if appended.is_err() {
            // Told again with the next record; twice does no harm.
            self.published().extend(published);
        }
        appended
    }

    /// The state of the plugins of a partition that is ours, as it was recorded last.
    pub(super) async fn state_of(&self, partition: &SourcePartition) -> Vec<StateRef> {
        self.ledger.state_of(partition).await
    }

    /// Records that the source has deleted offsets before they were read.
    pub async fn skip(&self, missing: &CheckpointDelta) -> Result<(), PipelineError> {
        self.ledger.skip(&self.writer, missing).await
    }

    /// All files of a commit are visible; the next record says so.
    pub(super) fn has_published(&self, sequence: u64) {
        self.published().push(sequence);
    }

    /// Gives partitions back.
    pub async fn release(&self, partitions: &[SourcePartition]) -> Result<(), PipelineError> {
        let published = std::mem::take(&mut *self.published());
        self.ledger.release(&self.writer, partitions, published).await
    }

    /// A lock that a panic elsewhere does not break.
    fn published(&self) -> std::sync::MutexGuard<'_, Vec<u64>> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A committed file that is not visible and whose staged bytes are gone.
#[derive(Clone, Debug)]
pub struct LostFile {
    /// The commit.
    sequence: u64,
    /// Where it is to be visible.
    pub path: Path,
    /// What to read to write it once more. Where plugins have state, all that its commit covers.
    pub sources: CheckpointDelta,
    /// Rows that it had.
    pub rows: u64,
    /// The state of plugins before its commit; none where no plugin has any.
    pub before: Vec<PartitionState>,
}

/// What a claim found.
#[derive(Debug)]
pub struct Claim {
    /// The next offset to read of each partition that was ever committed.
    pub positions: BTreeMap<SourcePartition, i64>,
    /// The state of plugins there, of each partition that has some.
    pub states: BTreeMap<SourcePartition, Vec<StateRef>>,
    /// Files that were lost before they became visible.
    pub lost: Vec<LostFile>,
}

impl LostFile {
    /// Whether it holds dead letters and no rows.
    #[must_use]
    pub fn is_dead_letters(&self) -> bool {
        self.path.as_ref().starts_with("_fs_data_sink/")
    }

    /// The state of plugins before its commit, of each partition that has some.
    #[must_use]
    pub fn states_before(&self) -> BTreeMap<SourcePartition, Vec<StateRef>> {
        let states = self.before.iter().filter(|state| !state.plugins.is_empty());
        states.map(|state| (state.key().name(), state.plugins.clone())).collect()
    }
}

/// Claims partitions of one lane. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Recovery {
    /// The lane's hold on the ledger.
    pub(super) writer: LedgerWriter,
    /// Where the files are.
    pub(super) store: Store,
    /// Whether plugins of the pipeline have state, so that objects of it may be left.
    pub(super) keeps_state: bool,
}

impl Recovery {
    /// For a lane.
    #[must_use]
    pub fn new(writer: LedgerWriter, store: Store, keeps_state: bool) -> Self {
        Self { writer, store, keeps_state }
    }

    /// Claims partitions and publishes what is pending of them: where each goes on and with what, and the files that were lost.
    pub async fn claim(
        &self,
        partitions: &[SourcePartition],
        topic_ids: &BTreeMap<std::sync::Arc<str>, String>,
    ) -> Result<Claim, PipelineError> {
        let claimed = self.writer.ledger.claim(&self.writer.writer, partitions, topic_ids).await?;
        super::fail_point::pass("claimed");
        self.leave_note().await?;
        let mut lost = Vec::new();
        for (sequence, pending) in claimed.pending {
            let files = pending.files.len();
            let gone = self.publish(sequence, pending).await?;
            if gone.is_empty() {
                self.writer.has_published(sequence);
            }
            tracing::info!(
                sequence,
                files,
                lost = gone.len(),
                "a commit that was not known to be visible was published"
            );
            lost.extend(gone);
        }
        Ok(Claim { positions: claimed.positions, states: claimed.states, lost })
    }

    /// Publishes the files of a commit; those that are lost.
    async fn publish(&self, sequence: u64, pending: Pending) -> Result<Vec<LostFile>, PipelineError> {
        let Pending { ranges, files, before } = pending;
        let files: Vec<_> = files.into_iter().map(|file| self.publish_one(sequence, file)).collect();
        let lost = stream::iter(files).buffered(super::PUBLISH_CONCURRENCY).try_collect::<Vec<_>>().await?;
        let mut lost: Vec<LostFile> = lost.into_iter().flatten().collect();
        if !before.is_empty() {
            // A plugin with state gives out rows that come from all records since the state was taken.
            let sources = delta_of(&ranges)?;
            for file in &mut lost {
                (file.sources, file.before) = (sources.clone(), before.clone());
            }
        }
        Ok(lost)
    }

    /// Publishes a file of a commit; tells of it if it is lost.
    async fn publish_one(&self, sequence: u64, file: RecordedFile) -> Result<Option<LostFile>, PipelineError> {
        let RecordedFile { path, bytes, rows, staged, sources } = file;
        let file = StagedFile::recorded(&path, bytes, &staged)
            .ok_or_else(|| PipelineError::stop(format!("the ledger names a file {path:?}, which is no path")))?;
        Ok(match self.store.publish_recorded(&file).await? {
            Published::Visible => None,
            Published::Lost => {
                Some(LostFile { sequence, path: file.path, sources: delta_of(&sources)?, rows, before: Vec::new() })
            }
        })
    }

    /// Stages dead letters once more that were lost.
    pub async fn stage_dead_letters(
        &self,
        lost: &LostFile,
        letters: &[DeadLetter],
    ) -> Result<StagedFile, PipelineError> {
        let mut staging = self.store.stage_durably(lost.path.clone());
        staging.write(super::dead_letter::encode(letters)?.unwrap_or_default()).await?;
        staging.finish().await
    }

    /// A lost file was staged again: records and publishes it.
    pub async fn restore(&self, lost: &LostFile, file: &StagedFile, rows: u64) -> Result<(), PipelineError> {
        let staged = super::Staged { file: file.clone(), rows, sources: lost.sources.clone() };
        self.writer.ledger.repair(&self.writer.writer, lost.sequence, staged.recorded()?).await?;
        super::fail_point::pass("repaired");
        match self.store.publish_recorded(file).await? {
            Published::Visible => Ok(()),
            Published::Lost => Err(PipelineError::restart(format!("{} was lost once more", file.path))),
        }
    }

    /// All lost files of a commit were restored.
    pub fn has_restored(&self, lost: &[LostFile]) {
        let mut sequences: Vec<_> = lost.iter().map(|file| file.sequence).collect();
        sequences.dedup();
        for sequence in sequences {
            self.writer.has_published(sequence);
        }
    }
}

/// Recorded ranges as a delta.
fn delta_of(ranges: &[Range]) -> Result<CheckpointDelta, PipelineError> {
    let mut delta = CheckpointDelta::default();
    for range in ranges {
        delta
            .extend(&range.source(), range.from, range.to)
            .map_err(|error| PipelineError::stop("the ledger names overlapping offsets of a file").because(error))?;
    }
    Ok(delta)
}
