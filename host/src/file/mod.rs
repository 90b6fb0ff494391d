//! Open files of a lane: a generation from its first row to its close.
//!
//! Comes in: rows per dataset and directory, the offsets that they cover, dead letters. Goes out: a closed generation,
//! whose last bytes are on their way to the store. Promises: a file has one schema; a file ends at `target_file_size`
//! of encoded bytes, the generation by age, batches or memory; at `open_files_max` the largest file is finished rather
//! than an error raised; dropping a generation leaves nothing that a reader could see.

use std::{collections::HashMap, sync::Arc, time::Instant};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use chrono::{DateTime, Utc};
use parquet::file::metadata::KeyValue;
use tokio::runtime::Handle;

use crate::{
    batch::{ClosedFile, ClosedGeneration, DeadLetter},
    checkpoint::CheckpointDelta,
    config::{RunConfig, SinkConfig},
    error::PipelineError,
    memory::{MemoryBudget, MemoryGuard},
    store::Store,
    telemetry::metrics::Metrics,
};

mod dictionary;
mod name;
mod properties;
mod roll;
mod writer;

use dictionary::UniqueColumns;
use name::FileName;
use roll::{RollRules, is_under_pressure};
use writer::OpenFile;

/// Under memory pressure a row group of at least this size is ended early; smaller ones would make poor files, so then
/// the generation ends instead.
const EARLY_ROW_GROUP_BYTES: usize = 8 << 20;

/// What a lane's files are made with.
#[derive(Clone, Debug)]
pub struct FileContext {
    /// Where they go.
    pub store: Store,
    /// How they are written.
    pub sink: SinkConfig,
    /// When they end.
    pub run: RunConfig,
    /// Name of the pipeline.
    pub pipeline: Arc<str>,
    /// Which lane.
    pub lane: usize,
    /// Where their memory is counted.
    pub budget: MemoryBudget,
    /// The metrics of the pipeline.
    pub metrics: Metrics,
    /// Where uploads run.
    pub io: Handle,
}

/// Dataset and directory.
type Place = (Arc<str>, Arc<str>);

/// All files that a lane opened since its last commit. After [`Generation::close`] it is the next, empty one.
#[derive(Debug)]
pub struct Generation {
    /// What files are made with.
    context: FileContext,
    /// Unique to this lane and process, in the names of files.
    writer: u32,
    /// Counts generations.
    sequence: u64,
    /// Counts the files of this generation.
    file_count: u64,
    /// When the first record came, on two clocks.
    began: Option<(Instant, DateTime<Utc>)>,
    /// Batches so far.
    batches: u64,
    /// One file a place.
    open: HashMap<Place, OpenFile>,
    /// Files that ended before the generation.
    closed: Vec<ClosedFile>,
    /// The offsets answered for.
    delta: CheckpointDelta,
    /// Refused records of the same offsets.
    dead_letters: Vec<DeadLetter>,
    /// Their bytes.
    dead_letter_bytes: usize,
    /// Counts what is held.
    memory: MemoryGuard,
    /// Per dataset: which schema was looked at, and what was found.
    unique: HashMap<Arc<str>, (SchemaRef, UniqueColumns)>,
}

impl Generation {
    /// The first generation of a lane.
    #[must_use]
    pub fn new(context: FileContext) -> Self {
        let memory = context.budget.hold(0);
        Self {
            writer: uuid::Uuid::new_v4().as_fields().0,
            context,
            sequence: 0,
            file_count: 0,
            began: None,
            batches: 0,
            open: HashMap::new(),
            closed: Vec::new(),
            delta: CheckpointDelta::default(),
            dead_letters: Vec::new(),
            dead_letter_bytes: 0,
            memory,
            unique: HashMap::new(),
        }
    }

    /// Appends rows to the file of their place; opens, rolls and closes files as needed.
    pub async fn write(
        &mut self,
        dataset: &Arc<str>,
        directory: &Arc<str>,
        rows: &RecordBatch,
    ) -> Result<(), PipelineError> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        self.begin();
        let place = (Arc::clone(dataset), Arc::clone(directory));
        if self.open.get(&place).is_some_and(|file| file.schema() != rows.schema_ref()) {
            self.close_file(&place)?;
        }
        if !self.open.contains_key(&place) {
            self.open_file(place.clone(), rows)?;
        }
        let Some(file) = self.open.get_mut(&place) else { return Ok(()) };
        file.write(rows).await?;
        if file.encoded_bytes() >= self.context.run.target_file_size_bytes {
            self.close_file(&place)?;
        }
        self.relieve_memory().await
    }

    /// Answers for these offsets too; once a batch, after its rows were written.
    pub fn cover(&mut self, delta: &CheckpointDelta) -> Result<(), PipelineError> {
        self.begin();
        self.batches += 1;
        self.delta
            .merge(delta)
            .map_err(|error| PipelineError::stop("the source gave records twice within one generation").because(error))
    }

    /// Keeps refused records until the commit.
    pub fn add_dead_letters(&mut self, letters: Vec<DeadLetter>) {
        if !letters.is_empty() {
            self.begin();
            self.dead_letter_bytes += letters.iter().map(DeadLetter::size_bytes).sum::<usize>();
            self.dead_letters.extend(letters);
            self.count_memory();
        }
    }

    /// Whether there is nothing to commit.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.began.is_none()
    }

    /// When it is due by age.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.rules().deadline(self.began.map(|(instant, _)| instant))
    }

    /// Whether it should end now: age, batches, or memory.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.rules().is_due(self.began.map(|(instant, _)| instant), Instant::now(), self.batches)
            || (self.is_under_pressure() && self.largest_row_group().is_none())
    }

    /// Ends all files. The generation is then the next, empty one.
    pub fn close(&mut self) -> Result<ClosedGeneration, PipelineError> {
        let mut places: Vec<Place> = self.open.keys().cloned().collect();
        places.sort();
        for place in &places {
            self.close_file(place)?;
        }
        self.began = None;
        self.batches = 0;
        self.file_count = 0;
        self.dead_letter_bytes = 0;
        let sequence = self.sequence;
        self.sequence += 1;
        Ok(ClosedGeneration {
            sequence,
            delta: std::mem::take(&mut self.delta),
            files: std::mem::take(&mut self.closed),
            dead_letters: std::mem::take(&mut self.dead_letters),
            closed_at: Instant::now(),
            memory: std::mem::replace(&mut self.memory, self.context.budget.hold(0)),
        })
    }

    /// Gives everything up that is not yet handed over to a commit.
    pub async fn abandon(&mut self) {
        let open: Vec<_> = self.open.drain().collect();
        self.context.metrics.open_files_changed(-i64::try_from(open.len()).unwrap_or(0));
        for (_, file) in open {
            file.abandon().await;
        }
        for file in self.closed.drain(..) {
            if let Ok(Ok(staged)) = file.staged.await {
                self.context.store.abort(&staged).await;
            }
        }
        self.delta = CheckpointDelta::default();
        self.dead_letters.clear();
        self.began = None;
    }

    /// Marks the first record.
    fn begin(&mut self) {
        self.began.get_or_insert_with(|| (Instant::now(), Utc::now()));
    }

    /// When it ends.
    fn rules(&self) -> RollRules {
        let RunConfig { commit_interval, commit_interval_batches, .. } = &self.context.run;
        RollRules { interval: *commit_interval, batches_max: *commit_interval_batches }
    }

    /// Opens a file for rows of this schema, after making room for it.
    fn open_file(&mut self, place: Place, rows: &RecordBatch) -> Result<(), PipelineError> {
        if self.open.len() >= self.context.run.open_files_max {
            let largest = self.open.iter().max_by_key(|(_, file)| file.encoded_bytes()).map(|(place, _)| place.clone());
            if let Some(largest) = largest {
                tracing::debug!(pipeline = %self.context.pipeline, lane = self.context.lane,
                    "pipeline.open_files_max reached: finishing the largest file");
                self.close_file(&largest)?;
            }
        }
        let unique = self.unique_columns(&place.0, rows);
        let properties = properties::writer_properties(&self.context.sink.parquet, rows.schema_ref(), &unique)?;
        let time = self.began.map_or_else(Utc::now, |(_, time)| time);
        let name = FileName {
            time,
            lane: self.context.lane,
            generation: self.sequence,
            file: self.file_count,
            writer: self.writer,
        };
        let path = name.path(&place.0, &place.1);
        let staging = self.context.store.stage(path.clone());
        let file = OpenFile::open(path, Arc::clone(rows.schema_ref()), properties, staging)?;
        self.file_count += 1;
        self.context.metrics.open_files_changed(1);
        self.open.insert(place, file);
        Ok(())
    }

    /// What is known of the columns of a dataset; looked at again when the schema has changed.
    fn unique_columns(&mut self, dataset: &Arc<str>, rows: &RecordBatch) -> UniqueColumns {
        if let Some((schema, unique)) = self.unique.get(dataset)
            && schema == rows.schema_ref()
        {
            return unique.clone();
        }
        match UniqueColumns::look(rows) {
            Some(unique) => {
                let known = (Arc::clone(rows.schema_ref()), unique.clone());
                self.unique.insert(Arc::clone(dataset), known);
                unique
            }
            None => UniqueColumns::default(),
        }
    }

    /// Ends one file; its last bytes leave beside the lane.
    fn close_file(&mut self, place: &Place) -> Result<(), PipelineError> {
        if let Some(file) = self.open.remove(place) {
            self.context.metrics.open_files_changed(-1);
            let closed = file.close(self.metadata(), &self.context.io)?;
            self.closed.push(closed);
            self.count_memory();
        }
        Ok(())
    }

    /// What a file tells about itself: program version, pipeline, and the source offsets of its generation so far.
    fn metadata(&self) -> Vec<KeyValue> {
        let ranges: Vec<_> = self
            .delta
            .iter()
            .map(|(partition, range)| {
                serde_json::json!({
                    "topic": &*partition.topic, "partition": partition.partition, "from": range.from, "to": range.to
                })
            })
            .collect();
        vec![
            KeyValue::new("fs_data_sink.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            KeyValue::new("fs_data_sink.pipeline".to_owned(), self.context.pipeline.to_string()),
            KeyValue::new("fs_data_sink.source_ranges".to_owned(), serde_json::Value::from(ranges).to_string()),
        ]
    }

    /// What is held in memory, now.
    fn own_bytes(&self) -> usize {
        self.dead_letter_bytes + self.open.values().map(OpenFile::memory_bytes).sum::<usize>()
    }

    /// Tells the budget what is held.
    fn count_memory(&mut self) {
        let bytes = self.own_bytes();
        self.memory.resize(bytes);
    }

    /// Whether memory is short, in part through these files.
    fn is_under_pressure(&self) -> bool {
        let budget = &self.context.budget;
        is_under_pressure(budget.used_bytes(), budget.limit_bytes(), self.own_bytes())
    }

    /// The open row group that is worth ending early.
    fn largest_row_group(&self) -> Option<Place> {
        let (place, file) = self.open.iter().max_by_key(|(_, file)| file.row_group_bytes())?;
        (file.row_group_bytes() >= EARLY_ROW_GROUP_BYTES).then(|| place.clone())
    }

    /// Ends the largest row group when memory is short, so that it becomes bytes on their way.
    async fn relieve_memory(&mut self) -> Result<(), PipelineError> {
        self.count_memory();
        if self.is_under_pressure()
            && let Some(place) = self.largest_row_group()
            && let Some(file) = self.open.get_mut(&place)
        {
            file.end_row_group().await?;
            self.count_memory();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, time::Duration};

    use arrow_array::{ArrayRef, Int64Array, StringArray};
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::*;
    use crate::{
        checkpoint::SourcePartition,
        config::{Delivery, ErrorHandling, LocalConfig, ParquetConfig, SinkKind},
    };

    /// A generation that writes to a folder.
    fn generation(folder: &Path, open_files_max: usize, target_file_size_bytes: usize) -> Generation {
        let sink = SinkConfig {
            kind: SinkKind::Local(LocalConfig { base_path: folder.to_owned() }),
            partition_by: Vec::new(),
            keep_partition_columns: false,
            parquet: ParquetConfig::default(),
            retry_timeout: Duration::ZERO,
        };
        let run = RunConfig {
            delivery: Delivery::AtLeastOnce,
            commit_interval: Duration::from_secs(60),
            commit_interval_batches: Some(3),
            target_file_size_bytes,
            open_files_max,
            memory_bytes: 1 << 30,
            lanes: None,
            error_handling: ErrorHandling::Log,
            batches_max: None,
            until_end: true,
            shutdown_timeout: Duration::from_secs(1),
        };
        let (metrics, io) = (Metrics::detached(), Handle::current());
        let store = Store::open(&sink, "orders", metrics.clone(), io.clone()).unwrap();
        let budget = MemoryBudget::new(1 << 30);
        Generation::new(FileContext { store, sink, run, pipeline: "orders".into(), lane: 0, budget, metrics, io })
    }

    /// Rows with so many ids.
    fn rows(ids: std::ops::Range<i64>) -> RecordBatch {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(ids));
        RecordBatch::try_from_iter([("id", ids)]).unwrap()
    }

    /// Publishes a generation and reads every file back: rows by path.
    async fn publish_and_read(store: &Store, closed: ClosedGeneration, folder: &Path) -> Vec<(String, usize)> {
        let mut found = Vec::new();
        for file in closed.files {
            let staged = file.staged.await.unwrap().unwrap();
            store.publish(&staged).await.unwrap();
            let path = folder.join(file.path.as_ref());
            assert_eq!(std::fs::metadata(&path).unwrap().len(), file.bytes, "the recorded length is the file's");
            let reader = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(&path).unwrap()).unwrap();
            let count: usize = reader.build().unwrap().map(|batch| batch.unwrap().num_rows()).sum();
            assert_eq!(count as u64, file.rows);
            found.push((file.path.to_string(), count));
        }
        found
    }

    /// Scenario: rows of two directories and of two schemas, then a close; then a second generation.
    /// Guarantees: one file a place and schema, all rows in them, the next generation starts empty.
    #[tokio::test(flavor = "multi_thread")]
    async fn one_file_for_each_place_and_schema() {
        let folder = tempfile::tempdir().unwrap();
        let mut generation = generation(folder.path(), 10, 1 << 30);
        let dataset: Arc<str> = "orders".into();
        for directory in ["c=A", "c=B", "c=A"] {
            generation.write(&dataset, &directory.into(), &rows(0..100)).await.unwrap();
        }
        let other: ArrayRef = Arc::new(StringArray::from(vec!["x"]));
        let other = RecordBatch::try_from_iter([("name", other)]).unwrap();
        generation.write(&dataset, &"c=A".into(), &other).await.unwrap();
        let mut delta = CheckpointDelta::default();
        delta.extend(&SourcePartition::new("orders", 0), 0, 301).unwrap();
        generation.cover(&delta).unwrap();
        assert!(!generation.is_empty() && generation.deadline().is_some() && !generation.is_due());
        let closed = generation.close().unwrap();
        assert_eq!((closed.sequence, &closed.delta), (0, &delta));
        let mut counts: Vec<_> = publish_and_read(&generation.context.store, closed, folder.path())
            .await
            .into_iter()
            .map(|(_, count)| count)
            .collect();
        counts.sort_unstable();
        assert_eq!(counts, [1, 100, 200]);
        assert!(generation.is_empty() && generation.deadline().is_none());
        assert_eq!(generation.close().unwrap().sequence, 1);
    }

    /// Scenario: a small target size and two open files at most, for five directories.
    /// Guarantees: files roll and the largest is finished; no row is lost.
    #[tokio::test(flavor = "multi_thread")]
    async fn files_roll_by_size_and_the_largest_is_finished_at_the_cap() {
        let folder = tempfile::tempdir().unwrap();
        let mut generation = generation(folder.path(), 2, 20_000);
        let dataset: Arc<str> = "orders".into();
        for round in 0..4 {
            for directory in 0..5 {
                let rows = rows(round * 1_000..(round + 1) * 1_000);
                generation.write(&dataset, &format!("c={directory}").into(), &rows).await.unwrap();
                assert!(generation.open.len() <= 2);
            }
        }
        let closed = generation.close().unwrap();
        let files = publish_and_read(&generation.context.store, closed, folder.path()).await;
        assert_eq!(files.iter().map(|(_, count)| count).sum::<usize>(), 20_000);
        assert!(files.len() >= 5, "{files:?}");
    }

    /// Scenario: a generation is abandoned. Guarantees: no file appears and nothing stays in staging.
    #[tokio::test(flavor = "multi_thread")]
    async fn abandoned_files_leave_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut generation = generation(folder.path(), 10, 1);
        for directory in ["c=A", "c=B"] {
            generation.write(&"orders".into(), &directory.into(), &rows(0..10)).await.unwrap();
        }
        generation.abandon().await;
        assert!(generation.is_empty());
        let left: Vec<_> = glob::glob(&format!("{}/**/*", folder.path().display()))
            .unwrap()
            .filter_map(Result::ok)
            .filter(|path| path.is_file())
            .collect();
        assert_eq!(left, Vec::<std::path::PathBuf>::new());
    }
}
