//! Writes the rows of many small files into one.
//!
//! Comes in: visible files of one directory and one schema. Goes out: one file with all their rows, whole in our folder, where
//! no reader looks; nothing else is changed. That is for the commit room.
//!
//! Rows stay in the order of the files' names, or are sorted within each row group where `sort_by` says so. They are decoded and
//! encoded again, as the pipeline is configured, into row groups of the usual size; in memory are a few small inputs, or one row group of a large one, and one row group of the output. The
//! rows are counted against the footers. A file that cannot be read is named and is no failure: it is left alone.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use chrono::Utc;
use futures::{StreamExt as _, stream};
use sha2::{Digest as _, Sha256};

use super::{
    dataset::Dataset,
    name, provenance,
    waiting::Origin,
    writer::{NewFile, OpenFile},
};
use crate::{
    config::ParquetConfig,
    error::PipelineError,
    store::{Path, Store},
    telemetry::metrics::Metrics,
};

mod plan;
mod read;
#[cfg(test)]
mod tests;

pub use plan::{Group, MergeRules};
pub use read::Damage;
use read::InputFile;

/// Inputs that are fetched ahead; small ones whole, 1 MiB each at most.
const FETCH_CONCURRENCY: usize = 8;

/// Footers that are read side by side, 64 KiB each.
const LOOK_CONCURRENCY: usize = 16;

/// A merge must not take the memory that the lanes count on: row groups of its output end here at the latest.
const ROW_GROUP_BYTES_MAX: usize = 64 << 20;

/// Rows looked at before the file begins, so that each column gets the encoding that suits it.
const SAMPLE_ROWS: usize = 8_192;

/// The same in bytes.
const SAMPLE_BYTES: usize = 8 << 20;

/// A file that may be merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Where it is.
    pub path: Path,
    /// Its length.
    pub bytes: u64,
}

/// Tells schemas apart.
pub type SchemaId = [u8; 16];

/// What a look at a file's footer tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its columns.
    pub schema: SchemaId,
    /// Its rows.
    pub rows: u64,
}

/// A merged file in our folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergedFile {
    /// Where it is to be visible.
    pub path: Path,
    /// Its length.
    pub bytes: u64,
    /// Its rows.
    pub rows: u64,
    /// The files in it, in their order, with their rows.
    pub inputs: Vec<(Candidate, u64)>,
}

/// What came of merging.
#[derive(Debug)]
pub enum Outcome {
    /// It is done.
    Merged(MergedFile),
    /// This file cannot be read, so none was merged.
    Damaged(Path, Damage),
}

/// Merges files of one pipeline.
#[derive(Clone, Debug)]
pub struct Merger {
    /// Where they are.
    store: Store,
    /// How files are written.
    parquet: ParquetConfig,
    /// Named in the files, and wanted in those that are merged.
    pipeline: Arc<str>,
    /// Open files.
    metrics: Metrics,
}

/// Why a merge was not brought to its end.
enum Interrupted {
    /// By the store.
    Failed(PipelineError),
    /// By a file.
    Damaged(Path, Damage),
}

impl From<PipelineError> for Interrupted {
    fn from(error: PipelineError) -> Self {
        Self::Failed(error)
    }
}

impl Merger {
    /// A merger that writes as configured.
    #[must_use]
    pub fn new(store: Store, parquet: &ParquetConfig, pipeline: Arc<str>, metrics: Metrics) -> Self {
        let row_group_bytes = parquet.row_group_bytes.min(ROW_GROUP_BYTES_MAX);
        Self { store, parquet: ParquetConfig { row_group_bytes, ..parquet.clone() }, pipeline, metrics }
    }

    /// Looks at files' footers, in their order; for one that is not to be merged, why.
    pub async fn look(&self, files: Vec<Candidate>) -> Result<Vec<Result<Facts, Damage>>, PipelineError> {
        let looks: Vec<_> = files.into_iter().map(|file| self.look_at(file)).collect();
        let mut facts = Vec::with_capacity(looks.len());
        let mut looks = stream::iter(looks).buffered(LOOK_CONCURRENCY);
        while let Some(looked) = looks.next().await {
            facts.push(looked?);
        }
        Ok(facts)
    }

    /// Looks at one file's footer.
    async fn look_at(&self, file: Candidate) -> Result<Result<Facts, Damage>, PipelineError> {
        Ok(match InputFile::open(&self.store, file, false).await? {
            Err(damage) => Err(damage),
            Ok(file) if file.says(provenance::PIPELINE) != Some(&*self.pipeline) => {
                Err(Damage::Unreadable("another program or pipeline wrote it".to_owned()))
            }
            Ok(file) => Ok(Facts { schema: schema_id(&file.schema()), rows: file.rows() }),
        })
    }

    /// Writes the rows of files into one, at `staged` in our folder.
    pub async fn merge(&self, files: Vec<Candidate>, staged: &Path) -> Result<Outcome, PipelineError> {
        match self.try_merge(files, staged).await {
            Ok(merged) => Ok(Outcome::Merged(merged)),
            Err(Interrupted::Damaged(path, damage)) => Ok(Outcome::Damaged(path, damage)),
            Err(Interrupted::Failed(error)) => Err(error),
        }
    }

    /// The same; what was written of the output is given up by whoever drops it.
    async fn try_merge(&self, files: Vec<Candidate>, staged: &Path) -> Result<MergedFile, Interrupted> {
        let path = merged_path(&files)?;
        let mut output = Output::new(self, staged);
        let (mut inputs, mut ranges) = (Vec::with_capacity(files.len()), Vec::new());
        let fetches: Vec<_> = files
            .into_iter()
            .map(|file| async move {
                let path = file.path.clone();
                match InputFile::open(&self.store, file, true).await {
                    Ok(Ok(input)) => Ok(input),
                    Ok(Err(damage)) => Err(Interrupted::Damaged(path, damage)),
                    Err(error) => Err(Interrupted::Failed(error)),
                }
            })
            .collect();
        let mut fetches = stream::iter(fetches).buffered(FETCH_CONCURRENCY);
        while let Some(input) = fetches.next().await {
            let input = input?;
            let rows = self.copy_rows(&input, &mut output).await?;
            ranges.extend(input.says(provenance::SOURCE_RANGES).map(str::to_owned));
            inputs.push((input.candidate().clone(), rows));
        }
        let metadata = provenance::metadata(&self.pipeline, provenance::union(ranges.iter().map(String::as_str)));
        let (bytes, rows) = output.finish(metadata).await?;
        let read: u64 = inputs.iter().map(|(_, rows)| rows).sum();
        if read != rows {
            let message =
                format!("{rows} rows were written of {read} that were to be merged into {path}: they stay as they are");
            return Err(PipelineError::stop(message).into());
        }
        Ok(MergedFile { path, bytes, rows, inputs })
    }

    /// Copies all rows of a file; their number.
    async fn copy_rows(&self, input: &InputFile, output: &mut Output<'_>) -> Result<u64, Interrupted> {
        let path = &input.candidate().path;
        let damaged = |damage| Interrupted::Damaged(path.clone(), damage);
        let mut copied = 0;
        for number in 0..input.row_groups() {
            let mut group = input.row_group(&self.store, number).await?.map_err(damaged)?;
            while let Some(rows) = group.next().map_err(damaged)? {
                copied += rows.num_rows() as u64;
                output.write(&rows).await.map_err(Interrupted::Failed)?;
                // The lanes of a running pipeline come first.
                tokio::task::yield_now().await;
            }
        }
        if copied != input.rows() {
            let why = format!("it has {copied} rows, and its footer says {}", input.rows());
            return Err(damaged(Damage::Unreadable(why)));
        }
        Ok(copied)
    }
}

/// The file that is written.
struct Output<'merger> {
    /// Who writes it.
    merger: &'merger Merger,
    /// Where to.
    staged: Path,
    /// Knows how rows are best written.
    dataset: Dataset,
    /// Rows that come before the file begins.
    sample: Vec<RecordBatch>,
    /// How many.
    sample_rows: usize,
    /// Their bytes.
    sample_bytes: usize,
    /// The file, once it has begun.
    file: Option<OpenFile>,
}

impl<'merger> Output<'merger> {
    /// Nothing is written yet.
    fn new(merger: &'merger Merger, staged: &Path) -> Self {
        let dataset = Dataset::new("merged");
        Self {
            merger,
            staged: staged.clone(),
            dataset,
            sample: Vec::new(),
            sample_rows: 0,
            sample_bytes: 0,
            file: None,
        }
    }

    /// Appends rows.
    async fn write(&mut self, rows: &RecordBatch) -> Result<(), PipelineError> {
        let rows = self.dataset.prepare(&self.merger.parquet, &without_metadata(rows)?)?;
        if let Some(file) = &mut self.file {
            return file.write(&rows).await;
        }
        self.sample_rows += rows.num_rows();
        self.sample_bytes += rows.get_array_memory_size();
        self.sample.push(rows);
        if self.sample_rows >= SAMPLE_ROWS || self.sample_bytes >= SAMPLE_BYTES { self.begin().await } else { Ok(()) }
    }

    /// Begins the file with the rows that are waiting.
    async fn begin(&mut self) -> Result<(), PipelineError> {
        let Some(first) = self.sample.first() else {
            return Err(PipelineError::stop("files without rows are not merged"));
        };
        let new = NewFile {
            staging: self.merger.store.stage(self.staged.clone()),
            path: self.staged.clone(),
            number: 0,
            origin: Origin::default(),
            schema: first.schema(),
            properties: self.dataset.properties(&self.merger.parquet)?,
            sort: self.dataset.sort(),
        };
        let mut file = OpenFile::open(new, &self.merger.metrics)?;
        for rows in std::mem::take(&mut self.sample) {
            file.write(&rows).await?;
        }
        self.file = Some(file);
        Ok(())
    }

    /// Ends the file and makes it an object of our folder; its length and its rows.
    async fn finish(mut self, metadata: Vec<parquet::file::metadata::KeyValue>) -> Result<(u64, u64), PipelineError> {
        if self.file.is_none() {
            self.begin().await?;
        }
        let Some(file) = self.file.take() else { return Err(PipelineError::stop("a merged file never began")) };
        let encoded = file.finish(metadata).await?;
        let staged = encoded.staging.finish().await?;
        self.merger.store.publish(&staged).await?;
        Ok((encoded.bytes, encoded.rows))
    }
}

/// Whether others were merged into a file, by its name.
#[must_use]
pub fn is_merged(path: &Path) -> bool {
    path.filename().is_some_and(|file_name| name::began(file_name).is_some() && name::is_merged(file_name))
}

/// The place of the file that files are merged into: among them, with the time of the first.
fn merged_path(files: &[Candidate]) -> Result<Path, PipelineError> {
    let first = files.iter().map(|file| &file.path).min().map_or("", AsRef::as_ref);
    let (directory, file_name) = first.rsplit_once('/').unwrap_or(("", first));
    let began = name::began(file_name).unwrap_or_else(Utc::now);
    name::merged_path(directory, began, files.len())
}

/// Rows without what their file says about itself, so that files which differ in nothing else have one schema.
fn without_metadata(rows: &RecordBatch) -> Result<RecordBatch, PipelineError> {
    let schema: SchemaRef = Arc::new(arrow_schema::Schema::new(rows.schema_ref().fields().clone()));
    rows.clone()
        .with_schema(schema)
        .map_err(|error| PipelineError::stop("rows do not fit their own schema").because(error))
}

/// Tells schemas apart: by their columns, with names, types, nullability and annotations.
fn schema_id(schema: &SchemaRef) -> SchemaId {
    let digest = Sha256::digest(format!("{:?}", schema.fields()).as_bytes());
    let mut id = SchemaId::default();
    id.iter_mut().zip(digest.iter()).for_each(|(own, byte)| *own = *byte);
    id
}
