//! Writes rows to Parquet files, as generations.
//!
//! Comes in: rows of a dataset and a directory, then the source offsets that a batch covered. Goes out: a
//! [`ClosedGeneration`]: all files opened since the last one, finished together, with the offsets that they answer for.
//! Nothing of it is visible to a reader; that is for the commit room.
//!
//! What ends when:
//! * a row group at `row_group_rows` or `row_group_bytes`, or early when memory runs short;
//! * a file at `target_file_size`, at a change of its dataset's schema (a file has one schema), or when it is the largest
//!   of `open_files_max` and another has to be opened;
//! * a generation at `commit_interval`, at so many batches or files, when memory runs short, and when the pipeline
//!   says so (revoke, shutdown).
//!
//! Losing source partitions throws the whole generation away ([`Generation::abandon`]), since its files hold rows of
//! several partitions; what belongs to partitions that are kept is read again.

use std::{collections::HashMap, sync::Arc, time::Instant};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use chrono::{DateTime, Utc};
use futures::{StreamExt as _, stream};
use tokio::{runtime::Handle, sync::Semaphore};

use self::{
    dataset::Dataset,
    name::FileName,
    roll::{Memory, Progress, RollRules},
    writer::{EncodedFile, NewFile, OpenFile},
};
use crate::{
    batch::{ClosedFile, ClosedGeneration, DeadLetter},
    checkpoint::CheckpointDelta,
    config::{Delivery, ParquetConfig, RunConfig, SinkConfig},
    error::PipelineError,
    memory::{MemoryBudget, MemoryGuard},
    store::{Path, Store},
    telemetry::metrics::Metrics,
};

mod dataset;
mod dictionary;
mod leaf;
pub mod merge;
mod name;
mod properties;
mod provenance;
mod roll;
mod writer;

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
    /// This lane of this process, in file names.
    writer_id: String,
    /// Number of this generation.
    sequence: u64,
    /// When it began, for file names; kept from generation to generation, so that it never goes back.
    began_utc: Option<DateTime<Utc>>,
    /// What it has done so far.
    progress: Progress,
    /// What it covers, the batch that is being written included.
    delta: CheckpointDelta,
    /// What it covered before that batch.
    delta_before: CheckpointDelta,
    /// Datasets by name, with their open files.
    datasets: HashMap<Box<str>, Dataset>,
    /// Number of open files.
    open_files: usize,
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
    /// Bytes of the open files.
    file_bytes: usize,
    /// Counts the open files.
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
            writer_id: name::writer_id(),
            sequence: 0,
            began_utc: None,
            progress: Progress::default(),
            delta: CheckpointDelta::default(),
            delta_before: CheckpointDelta::default(),
            datasets: HashMap::new(),
            open_files: 0,
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

    /// Appends rows to the file of their directory; ends and opens files as needed. Waits when the store is slower.
    pub async fn write(&mut self, dataset: &str, directory: &str, rows: &RecordBatch) -> Result<(), PipelineError> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        self.begin();
        self.remember(dataset);
        let Some(known) = self.datasets.get_mut(dataset) else { return Ok(()) };
        let rows = known.prepare(&self.context.sink.parquet, rows)?;
        let fits = known
            .open
            .get(directory)
            .map(|file| file.schema() == rows.schema_ref() && !self.rules.is_full(file.encoded_bytes()));
        if fits != Some(true) {
            if fits.is_some() {
                self.finish(dataset, directory).await?;
            }
            self.make_room().await?;
            self.open(dataset, directory, rows.schema_ref())?;
        }
        self.append(dataset, directory, &rows).await?;
        self.relieve().await
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
        self.delta_before.clone_from(&self.delta);
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
        let due = self.rules.due(&self.progress, self.budget(), Instant::now());
        if let Some(why) = due {
            tracing::debug!(lane = self.context.lane, generation = self.sequence, ?why, "generation ends");
        }
        due.is_some()
    }

    /// Finishes all files. Their last parts may still be on their way to the store. Afterwards this is the next
    /// generation, and empty.
    pub async fn close(&mut self) -> Result<ClosedGeneration, PipelineError> {
        let mut open: Vec<(u32, Box<str>, Box<str>)> = Vec::with_capacity(self.open_files);
        for (name, dataset) in &self.datasets {
            open.extend(dataset.open.iter().map(|(directory, file)| (file.number, name.clone(), directory.clone())));
        }
        open.sort_unstable();
        for (_, dataset, directory) in open {
            self.finish(&dataset, &directory).await?;
        }
        let memory = std::mem::replace(&mut self.kept_memory, self.context.budget.hold(0));
        self.delta_before = CheckpointDelta::default();
        let closed = ClosedGeneration {
            sequence: self.sequence,
            delta: std::mem::take(&mut self.delta),
            files: std::mem::take(&mut self.files),
            dead_letters: std::mem::take(&mut self.dead_letters),
            closed_at: Instant::now(),
            memory,
        };
        self.next();
        Ok(closed)
    }

    /// Throws away all files, dead letters and offsets, and ends their uploads. Afterwards this is the next generation,
    /// and empty.
    pub async fn abandon(&mut self) {
        let datasets = self.datasets.values_mut();
        let open: Vec<OpenFile> = datasets.flat_map(|known| std::mem::take(&mut known.open).into_values()).collect();
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
        self.delta_before = CheckpointDelta::default();
        self.next();
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
        self.open_files = 0;
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
            self.datasets.retain(|_, known| !known.open.is_empty());
        }
        self.datasets.insert(Box::from(dataset), Dataset::new(dataset));
    }

    /// Opens a file.
    fn open(&mut self, dataset: &str, directory: &str, schema: &SchemaRef) -> Result<(), PipelineError> {
        let Some(known) = self.datasets.get_mut(dataset) else { return Ok(()) };
        let number = self.next_file;
        let batch = self.delta.since(&self.delta_before).of_topic(dataset);
        let begins_at = batch.iter().next().map(|(source, range)| (source.partition, range.from));
        let name = FileName {
            began: self.began_utc.unwrap_or_default(),
            lane: self.context.lane,
            generation: self.sequence,
            number,
            begins_at,
            writer: &self.writer_id,
        };
        let path = name.path(&known.folder, directory)?;
        let path = self.context.path.clone().unwrap_or(path);
        let staging = match self.context.run.delivery {
            Delivery::ExactlyOnce => self.context.store.stage_durably(path.clone()),
            Delivery::AtLeastOnce => self.context.store.stage(path.clone()),
        };
        let new = NewFile {
            staging,
            path,
            number,
            begins_after: self.delta_before.clone(),
            schema: Arc::clone(schema),
            properties: known.properties(&self.context.sink.parquet)?,
        };
        known.open.insert(Box::from(directory), OpenFile::open(new, &self.context.metrics)?);
        self.next_file += 1;
        self.open_files += 1;
        Ok(())
    }

    /// Appends rows to an open file.
    async fn append(&mut self, dataset: &str, directory: &str, rows: &RecordBatch) -> Result<(), PipelineError> {
        let Some(file) = self.datasets.get_mut(dataset).and_then(|known| known.open.get_mut(directory)) else {
            return Ok(());
        };
        let before = file.held_bytes();
        file.write(rows).await?;
        file.last_batch = self.progress.batches;
        if self.rules.is_full(file.encoded_bytes()) {
            // It is ended with the next rows for it, since a plugin may give more for the same batch; until then it need
            // not stay in memory.
            file.end_row_group().await?;
        }
        let after = file.held_bytes();
        self.count_memory(before, after);
        Ok(())
    }

    /// Ends the largest row group early while memory is short.
    async fn relieve(&mut self) -> Result<(), PipelineError> {
        if !self.budget().ends_row_groups() {
            return Ok(());
        }
        let open = self.datasets.values_mut().flat_map(|dataset| dataset.open.values_mut());
        let Some(largest) = open.max_by_key(|file| file.row_group_bytes()) else { return Ok(()) };
        if largest.row_group_bytes() >= roll::ROW_GROUP_BYTES_MIN {
            let before = largest.held_bytes();
            largest.end_row_group().await?;
            let after = largest.held_bytes();
            self.count_memory(before, after);
        }
        Ok(())
    }

    /// Ends the largest open file if another may not be opened beside it.
    async fn make_room(&mut self) -> Result<(), PipelineError> {
        if self.rules.may_open(self.open_files) {
            return Ok(());
        }
        let files = self.datasets.iter().flat_map(|(dataset, known)| {
            known.open.iter().map(move |(directory, file)| (file.encoded_bytes(), dataset, directory))
        });
        let Some((bytes, dataset, directory)) = files.max() else { return Ok(()) };
        let (dataset, directory) = (dataset.clone(), directory.clone());
        tracing::debug!(%dataset, %directory, bytes, "ending a file early: pipeline.open_files_max is reached");
        self.finish(&dataset, &directory).await
    }

    /// Finishes one open file; its last parts are uploaded in the background.
    async fn finish(&mut self, dataset: &str, directory: &str) -> Result<(), PipelineError> {
        let Some(file) = self.datasets.get_mut(dataset).and_then(|known| known.open.remove(directory)) else {
            return Ok(());
        };
        self.open_files -= 1;
        self.count_memory(file.held_bytes(), 0);
        let covered = if file.last_batch < self.progress.batches { &self.delta_before } else { &self.delta };
        let sources = covered.since(&file.begins_after).of_topic(dataset);
        let ranges = provenance::source_ranges(dataset, covered);
        let encoded = file.finish(provenance::metadata(&self.context.pipeline, ranges)).await?;
        // Never closed, so that there is always a permit to wait for.
        let permit = Arc::clone(&self.finishing).acquire_owned().await.ok();
        let memory = if encoded.staging.stays_in_memory() {
            self.keep(encoded.held_bytes);
            None
        } else {
            Some(self.context.budget.hold(encoded.held_bytes))
        };
        let staging = encoded.staging;
        let staged = self.context.io.spawn(async move {
            let _until_staged = (permit, memory);
            staging.finish().await
        });
        let EncodedFile { path, rows, bytes, .. } = encoded;
        self.files.push(ClosedFile { path, rows, bytes, sources, staged });
        self.progress.files = self.files.len();
        Ok(())
    }

    /// Counts what an open file takes against the budget.
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
        Memory { used_bytes: self.context.budget.used_bytes(), limit_bytes: self.context.budget.limit_bytes() }
    }
}

/// Whether files of a schema can be written as configured: columns named that are not there, encodings for other types,
/// types that Parquet has not. Asked at start, where the schema is declared.
pub fn check(config: &ParquetConfig, schema: &SchemaRef) -> Result<(), PipelineError> {
    dataset::check(config, schema)
}

#[cfg(test)]
mod tests;
