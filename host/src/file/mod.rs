//! Writes rows to Parquet files, as generations.
//!
//! Comes in: rows of a dataset and a directory, then the source offsets that a batch covered. Goes out: a
//! [`ClosedGeneration`]: all files opened since the last one, finished together, with the offsets that they answer for.
//! Nothing of it is visible to a reader; that is for the commit room.
//!
//! A directory gets an open file once it has many rows, or much of a batch; until then, and while `open_files_max` files are
//! open, its rows wait in memory (`waiting.rs`), to be written to one file when the generation ends. So each directory has
//! one file in a generation, however many directories there are, unless its files are full before.
//!
//! What ends when:
//! * a row group at `row_group_rows` or `row_group_bytes`, or early when memory runs short; only then are its rows sorted, where
//!   `sort_by` says so (`sort.rs`);
//! * a file at `target_file_size` or `target_file_rows`, or at a change of its dataset's schema (a file has one schema);
//! * a generation at `commit_interval`, at so many batches or files, when memory runs short, and when the pipeline
//!   says so (revoke, shutdown).
//!
//! Losing source partitions throws the whole generation away ([`Generation::abandon`]), since its files hold rows of
//! several partitions; what belongs to partitions that are kept is read again.

use std::{collections::HashMap, sync::Arc, time::Instant};

use arrow_schema::SchemaRef;
use chrono::{DateTime, Utc};
use futures::{StreamExt as _, stream};
use tokio::{runtime::Handle, sync::Semaphore};

use self::{
    dataset::Dataset,
    roll::{Memory, Progress, RollRules},
    writer::OpenFile,
};
use crate::{
    batch::{ClosedFile, ClosedGeneration, DeadLetter},
    checkpoint::CheckpointDelta,
    config::{ParquetConfig, RunConfig, SinkConfig},
    error::PipelineError,
    memory::{MemoryBudget, MemoryGuard},
    store::{Path, Store},
    telemetry::metrics::Metrics,
    tenant::OpenFileGuard,
};

mod dataset;
mod dictionary;
mod leaf;
pub mod merge;
mod name;
mod properties;
mod provenance;
mod roll;
mod route;
mod sort;
mod waiting;
mod writer;

pub use name::{dataset_folder, writer_mark};

/// Files of one lane whose last parts are uploaded at once, after which the lane waits: enough to hide the latency of a
/// store, few enough to keep sockets and file handles few.
const FINISHING_MAX: usize = 32;

/// Datasets remembered while they have no open file. A topic each; when there are more, what is known of their columns
/// is found out again.
const DATASETS_MAX: usize = 1024;

/// What files are written with.
#[derive(Clone, Debug)]
pub struct FileContext {
    /// Where files go.
    pub store: Store,
    /// How they are written.
    pub sink: SinkConfig,
    /// When they end.
    pub run: RunConfig,
    /// Named in the files.
    pub pipeline: Arc<str>,
    /// The path of the one file that is written, where it is to be written once more; usually each gets its own.
    pub path: Option<Path>,
    /// Number of the lane.
    pub lane: usize,
    /// Who writes, in names of files: this lane of this process, and nobody else.
    pub writer_mark: Arc<str>,
    /// Encoded bytes are counted against it.
    pub budget: MemoryBudget,
    /// Open files and memory.
    pub metrics: Metrics,
    /// Uploads are finished here.
    pub io: Handle,
}

/// All files of a lane since its last commit. Lives as long as the lane: [`Generation::close`] empties it.
#[derive(Debug)]
pub struct Generation {
    /// What files are written with.
    context: FileContext,
    /// When they end.
    rules: RollRules,
    /// Number of this generation.
    sequence: u64,
    /// When it began, for file names; kept from generation to generation, so that it never goes back.
    began_utc: Option<DateTime<Utc>>,
    /// What it has done so far.
    progress: Progress,
    /// What it covers, the batch that is being written included.
    delta: CheckpointDelta,
    /// What it covered before that batch.
    delta_before: Arc<CheckpointDelta>,
    /// Datasets by name, with their open files.
    datasets: HashMap<Box<str>, Dataset>,
    /// One for each open file, in the count of the tenant.
    open_files: Vec<OpenFileGuard>,
    /// Number of the next file.
    next_file: u32,
    /// Finished files.
    files: Vec<ClosedFile>,
    /// Refused records.
    dead_letters: Vec<DeadLetter>,
    /// Bytes that stay in memory until the commit: dead letters, and small files where the store keeps them.
    kept_bytes: usize,
    /// Counts them.
    kept_memory: MemoryGuard,
    /// Bytes of the open files and of the rows that wait for one.
    file_bytes: usize,
    /// Counts them.
    memory: MemoryGuard,
    /// Bounds the uploads that are being finished.
    finishing: Arc<Semaphore>,
}

impl Generation {
    /// The first generation of a lane.
    #[must_use]
    pub fn new(context: FileContext) -> Self {
        Self {
            rules: RollRules::new(&context.run),
            sequence: 0,
            began_utc: None,
            progress: Progress::default(),
            delta: CheckpointDelta::default(),
            delta_before: Arc::default(),
            datasets: HashMap::new(),
            open_files: Vec::new(),
            next_file: 0,
            files: Vec::new(),
            dead_letters: Vec::new(),
            kept_bytes: 0,
            kept_memory: context.budget.hold(0),
            file_bytes: 0,
            memory: context.budget.hold(0),
            finishing: Arc::new(Semaphore::new(FINISHING_MAX)),
            context,
        }
    }

    /// Whether a file at this path holds rows of this dataset and directory.
    #[must_use]
    pub fn is_for(&self, dataset: &str, directory: &str, path: &Path) -> bool {
        let folder = name::dataset_folder(dataset);
        let inside = path.as_ref().strip_prefix(&folder).and_then(|rest| rest.strip_prefix('/'));
        inside.is_some_and(|rest| rest.rsplit_once('/').map_or("", |(found, _)| found) == directory)
    }

    /// Says which offsets the rows written until the next call come from; called before the rows of a batch, also for a
    /// batch without rows.
    pub fn cover(&mut self, delta: &CheckpointDelta) -> Result<(), PipelineError> {
        self.begin();
        self.progress.batches += 1;
        self.delta_before = Arc::new(self.delta.clone());
        self.delta.merge(delta).map_err(|error| {
            PipelineError::retry("records came twice from the source; starting again from what is committed")
                .because(error)
        })
    }

    /// Keeps refused records, to be committed with the files.
    pub fn add_dead_letters(&mut self, letters: Vec<DeadLetter>) {
        if letters.is_empty() {
            return;
        }
        self.begin();
        self.keep(letters.iter().map(DeadLetter::size_bytes).sum());
        self.dead_letters.extend(letters);
    }

    /// Whether nothing came since the last commit.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.progress.began.is_none()
    }

    /// When it has to be closed at the latest; `None` while it is empty.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.rules.deadline(&self.progress)
    }

    /// Whether it has to be closed now.
    #[must_use]
    pub fn is_due(&self) -> bool {
        let waiting: usize = self.datasets.values().map(|known| known.waiting.len()).sum();
        let progress = Progress { files: self.files.len() + self.open_files.len() + waiting, ..self.progress };
        let due = self.rules.due(&progress, self.budget(), Instant::now());
        if let Some(why) = due {
            tracing::debug!(lane = self.context.lane, generation = self.sequence, ?why, "generation ends");
        }
        due.is_some()
    }

    /// Finishes all files. Their last parts may still be on their way to the store. Afterwards this is the next
    /// generation, and empty.
    pub async fn close(&mut self) -> Result<ClosedGeneration, PipelineError> {
        self.finish_all().await?;
        let memory = std::mem::replace(&mut self.kept_memory, self.context.budget.hold(0));
        self.delta_before = Arc::default();
        let closed = ClosedGeneration {
            sequence: self.sequence,
            delta: std::mem::take(&mut self.delta),
            files: std::mem::take(&mut self.files),
            dead_letters: std::mem::take(&mut self.dead_letters),
            states: Vec::new(),
            closed_at: Instant::now(),
            memory,
        };
        self.next();
        Ok(closed)
    }

    /// Throws away all files, dead letters and offsets, and ends their uploads. Afterwards this is the next generation,
    /// and empty.
    pub async fn abandon(&mut self) {
        let mut open: Vec<OpenFile> = Vec::new();
        for known in self.datasets.values_mut() {
            open.extend(std::mem::take(&mut known.open).into_values());
            known.waiting.clear();
        }
        let closed = std::mem::take(&mut self.files);
        let files = open.len() + closed.len();
        stream::iter(open).for_each_concurrent(FINISHING_MAX, OpenFile::abort).await;
        let store = &self.context.store;
        stream::iter(closed)
            .for_each_concurrent(FINISHING_MAX, |file| async move {
                match file.staged.await {
                    Ok(Ok(staged)) => store.abort(&staged).await,
                    Ok(Err(error)) => tracing::debug!(path = %file.path, %error, "an abandoned file had failed anyway"),
                    Err(error) => tracing::warn!(path = %file.path, %error, "an abandoned upload did not end properly"),
                }
            })
            .await;
        tracing::info!(
            lane = self.context.lane,
            generation = self.sequence,
            files,
            "files that were not committed are thrown away; their records are read again"
        );
        self.dead_letters.clear();
        self.kept_memory.resize(0);
        self.delta = CheckpointDelta::default();
        self.delta_before = Arc::default();
        self.next();
    }

    /// Whether one more file may be opened now: of this lane, and of its tenant, whose lanes may have one each whatever it has.
    fn may_open(&self) -> bool {
        let open = self.open_files.len();
        self.rules.may_open(open) && (open == 0 || self.context.budget.tenant().may_open_file())
    }

    /// Notes that there is something now.
    fn begin(&mut self) {
        if self.progress.began.is_none() {
            self.progress.began = Some(Instant::now());
            self.began_utc = Some(name::not_before(self.began_utc, Utc::now()));
        }
    }

    /// Starts counting anew.
    fn next(&mut self) {
        self.sequence += 1;
        self.progress = Progress::default();
        self.next_file = 0;
        self.open_files.clear();
        self.kept_bytes = 0;
        self.file_bytes = 0;
        self.memory.resize(0);
    }

    /// Makes a dataset known.
    fn remember(&mut self, dataset: &str) {
        if self.datasets.contains_key(dataset) {
            return;
        }
        if self.datasets.len() >= DATASETS_MAX {
            self.datasets.retain(|_, known| !known.open.is_empty() || !known.waiting.is_empty());
        }
        self.datasets.insert(Box::from(dataset), Dataset::new(dataset));
    }

    /// Counts what open files and waiting rows take against the budget.
    fn count_memory(&mut self, before: usize, after: usize) {
        self.file_bytes = self.file_bytes.saturating_sub(before) + after;
        self.memory.resize(self.file_bytes);
        self.progress.held_bytes = self.file_bytes + self.kept_bytes;
    }

    /// Counts bytes that stay in memory until the commit.
    fn keep(&mut self, bytes: usize) {
        self.kept_bytes += bytes;
        self.kept_memory.resize(self.kept_bytes);
        self.progress.held_bytes = self.file_bytes + self.kept_bytes;
    }

    /// The memory budget now.
    fn budget(&self) -> Memory {
        let (used_bytes, limit_bytes) = self.context.budget.pressure();
        Memory { used_bytes, limit_bytes }
    }
}

/// Whether files of a schema can be written as configured: columns named that are not there, encodings for other types,
/// types that Parquet has not. Asked at start, where the schema is declared.
pub fn check(config: &ParquetConfig, schema: &SchemaRef) -> Result<(), PipelineError> {
    dataset::check(config, schema)
}

#[cfg(test)]
mod tests;
