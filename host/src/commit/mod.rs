//! Makes a generation durable and visible; the only place that says "durable".
//!
//! Comes in: a closed generation, whose files are on their way to the store. Goes out: the source offsets that may
//! now be committed. The steps, in their order:
//!
//! 1. **Stage**: wait until every byte of every file is in the store, where no reader looks.
//! 2. **Dead letters**: write the refused records of the same offsets; and the **state** of plugins behind them (`states.rs`).
//! 3. **Record**: for `exactly_once` a record of the files and the offsets is appended to the ledger, which is the moment
//!    of commit (`ledger/`). For `at_least_once` there is nothing to record: a kill before publish loses staged files
//!    whose offsets were never committed, and they are read again.
//! 4. **Publish**: make the files visible, each whole. They appear one by one, not as a group.
//! 5. **Acknowledge**: the caller commits the returned offsets at the source.
//!
//! At least once, a failure in any step returns before the next one; what is staged is given up, what is published stays,
//! and the offsets stay uncommitted. Exactly once, nothing staged is given up once it may have been recorded: whoever
//! claims the partitions next, this process or another, finds in the ledger what to do ([`Recovery`]).

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use futures::{StreamExt, TryStreamExt, stream};

use crate::{
    batch::{ClosedFile, ClosedGeneration, DeadLetter},
    checkpoint::{CheckpointDelta, SourcePartition},
    config::DeadLetterConfig,
    error::{PipelineError, Verdict},
    store::{Published, StagedFile, Store},
    telemetry::metrics::Metrics,
};

mod compaction;
mod dead_letter;
mod fail_point;
pub mod ledger;
mod leftovers;
mod recovery;
mod states;

pub use compaction::Compactor;
use dead_letter::kafka::LetterProducer;
pub use ledger::Ledger;
use ledger::record::{Range, RecordedFile};
pub use recovery::{Claim, LostFile, Recovery};

/// Files published side by side: hides the store's latency without a burst that it would answer with 503.
const PUBLISH_CONCURRENCY: usize = 8;

/// What a committer works with.
#[derive(Clone, Debug)]
pub struct CommitContext {
    /// Where files and dead letters go.
    pub store: Store,
    /// Name of the pipeline.
    pub pipeline: Arc<str>,
    /// Which lane this is.
    pub lane: usize,
    /// Who writes, in names of files.
    pub writer_mark: Arc<str>,
    /// Where refused records go.
    pub dead_letter: DeadLetterConfig,
    /// The metrics of the pipeline.
    pub metrics: Metrics,
}

/// The ledger, as one lane writes to it. Cheap to clone; the clones are one writer.
#[derive(Clone, Debug)]
pub struct LedgerWriter {
    /// The ledger of the pipeline.
    ledger: Ledger,
    /// This lane since it began.
    writer: Arc<str>,
    /// Commits that this lane has seen all files of, and has not told the ledger of.
    published: Arc<Mutex<Vec<u64>>>,
}

/// Commits the generations of one lane, one after the other.
#[derive(Debug)]
pub struct Committer {
    /// What it works with.
    context: CommitContext,
    /// For exactly once.
    ledger: Option<LedgerWriter>,
    /// Where dead letters go to a topic.
    letters: Option<LetterProducer>,
}

impl Committer {
    /// A committer of one lane; with a ledger each record is committed exactly once.
    #[must_use]
    pub fn new(context: CommitContext, ledger: Option<LedgerWriter>) -> Self {
        let letters = match &context.dead_letter {
            DeadLetterConfig::Kafka(config) => Some(LetterProducer::new(config.clone())),
            DeadLetterConfig::Store | DeadLetterConfig::None => None,
        };
        Self { context, ledger, letters }
    }

    /// Takes a generation through all steps and returns the offsets that are durable now.
    pub async fn commit(&mut self, generation: ClosedGeneration) -> Result<CheckpointDelta, PipelineError> {
        let started = Instant::now();
        let closed_at = generation.closed_at;
        let done = match self.ledger.clone() {
            Some(ledger) => self.commit_once(&ledger, generation).await?,
            None => self.commit_at_least_once(generation).await?,
        };
        self.report(&done, started);
        self.context.metrics.committed(closed_at.elapsed().as_secs_f64());
        Ok(done.delta)
    }

    /// Files, dead letters, publish.
    async fn commit_at_least_once(&self, generation: ClosedGeneration) -> Result<Done, PipelineError> {
        let ClosedGeneration { sequence, delta, files, dead_letters, memory, .. } = generation;
        let staged = self.stage(files).await?;
        let outcome = async {
            dead_letter::write(&self.context, sequence, &self.for_the_store(&dead_letters).await?).await?;
            self.publish(&staged).await
        }
        .await;
        if let Err(error) = outcome {
            self.give_up(&staged).await;
            return Err(error);
        }
        drop(memory);
        Ok(Done::new(sequence, delta, &staged, dead_letters.len()))
    }

    /// Files and dead letters, record, publish.
    async fn commit_once(&self, ledger: &LedgerWriter, generation: ClosedGeneration) -> Result<Done, PipelineError> {
        let ClosedGeneration { sequence, delta, files, dead_letters, states, memory, .. } = generation;
        let mut staged = self.stage(files).await?;
        match self.stage_letters(sequence, &dead_letters).await {
            Ok(file) => staged.extend(file.map(|file| Staged { file, rows: 0, sources: delta.clone() })),
            Err(error) => {
                self.give_up(&staged).await;
                return Err(error);
            }
        }
        let written = match states::write(&self.context, ledger, states).await {
            Ok(written) => written,
            Err(error) => {
                self.give_up(&staged).await;
                return Err(error);
            }
        };
        if delta.is_empty() && staged.is_empty() && written.states.is_empty() {
            return Ok(Done::new(sequence, delta, &staged, 0));
        }
        let files = staged.iter().map(Staged::recorded).collect::<Result<Vec<_>, _>>()?;
        fail_point::pass("staged");
        let recorded = ledger.commit(&delta, files, written.states.clone()).await;
        fail_point::pass("recorded");
        let number = match recorded {
            Ok(number) => number,
            Err(error) => {
                // Refused, so no record tells of these files; after any other failure one may.
                if ledger::is_refused(&error) {
                    self.give_up(&staged).await;
                    written.give_up(&self.context.store).await;
                }
                return Err(restart(error));
            }
        };
        drop(memory);
        let files: Vec<_> = staged.iter().map(|staged| self.publish_recorded(&staged.file)).collect();
        stream::iter(files).buffer_unordered(PUBLISH_CONCURRENCY).try_collect::<()>().await?;
        ledger.has_published(number);
        fail_point::pass("published");
        Ok(Done::new(sequence, delta, &staged, dead_letters.len()))
    }

    /// 2. Sends the letters of a generation to their topic, or stages them for the store.
    async fn stage_letters(&self, sequence: u64, letters: &[DeadLetter]) -> Result<Option<StagedFile>, PipelineError> {
        dead_letter::stage(&self.context, sequence, &self.for_the_store(letters).await?).await
    }

    /// Sends letters to their topic, where they have one; those that belong into the store.
    async fn for_the_store<'a>(&self, letters: &'a [DeadLetter]) -> Result<Cow<'a, [DeadLetter]>, PipelineError> {
        Ok(match (&self.letters, &self.context.dead_letter) {
            (Some(topic), _) => Cow::Owned(topic.send(&self.context, letters).await?),
            (None, DeadLetterConfig::Store) => Cow::Borrowed(letters),
            (None, _) => Cow::Borrowed(&[]),
        })
    }

    /// Gives up what is staged.
    async fn give_up(&self, staged: &[Staged]) {
        for Staged { file, .. } in staged {
            self.context.store.abort(file).await;
        }
    }

    /// 1. Waits for every file; when one fails, the others are given up.
    async fn stage(&self, files: Vec<ClosedFile>) -> Result<Vec<Staged>, PipelineError> {
        let mut staged = Vec::with_capacity(files.len());
        let mut failure = None;
        for ClosedFile { path, rows, sources, staged: task, bytes: _ } in files {
            let ended = task.await.unwrap_or_else(|error| {
                Err(PipelineError::retry(format!("the upload of {path} ended abnormally")).because(error))
            });
            match ended {
                Ok(file) => staged.push(Staged { file, rows, sources }),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        match failure {
            None => Ok(staged),
            Some(error) => {
                self.give_up(&staged).await;
                Err(error)
            }
        }
    }

    /// 4. Makes every file visible.
    async fn publish(&self, staged: &[Staged]) -> Result<(), PipelineError> {
        let files: Vec<_> = staged.iter().map(|staged| self.publish_one(&staged.file)).collect();
        stream::iter(files).buffer_unordered(PUBLISH_CONCURRENCY).try_collect::<()>().await
    }

    /// Makes one file visible that the ledger tells of.
    async fn publish_recorded(&self, file: &StagedFile) -> Result<(), PipelineError> {
        if self.context.store.publish_recorded(file).await.map_err(restart)? == Published::Lost {
            return Err(PipelineError::restart(format!("{} was lost between commit and publish", file.path)));
        }
        self.context.metrics.file_published(file.bytes);
        fail_point::pass("published_one");
        Ok(())
    }

    /// Makes one file visible.
    async fn publish_one(&self, file: &StagedFile) -> Result<(), PipelineError> {
        self.context.store.publish(file).await?;
        self.context.metrics.file_published(file.bytes);
        Ok(())
    }

    /// One line a generation.
    fn report(&self, done: &Done, started: Instant) {
        let Done { sequence, delta, files, rows, bytes, dead_letters } = done;
        let offsets: Vec<_> = delta
            .iter()
            .take(8)
            .map(|(partition, range)| format!("{partition} {}..{}", range.from, range.to))
            .collect();
        tracing::info!(
            pipeline = %self.context.pipeline, lane = self.context.lane, generation = sequence, files, rows, bytes,
            dead_letters, seconds = started.elapsed().as_secs_f64(), offsets = offsets.join(", "), "generation committed"
        );
    }
}

/// Asks whether the place for dead letters is there, where it is not the store.
pub async fn check_dead_letters(config: &DeadLetterConfig) -> Result<(), PipelineError> {
    match config {
        DeadLetterConfig::Kafka(config) => dead_letter::kafka::check(config.clone()).await,
        DeadLetterConfig::Store | DeadLetterConfig::None => Ok(()),
    }
}

/// A file of a generation, in the store.
#[derive(Debug)]
struct Staged {
    /// Where it is.
    file: StagedFile,
    /// Rows in it.
    rows: u64,
    /// What to read to write it once more.
    sources: CheckpointDelta,
}

impl Staged {
    /// As the ledger records it.
    fn recorded(&self) -> Result<RecordedFile, PipelineError> {
        let Self { file, rows, sources } = self;
        let staged = file
            .staged_at()
            .ok_or_else(|| PipelineError::stop(format!("{} is not in the store and cannot be recorded", file.path)))?;
        Ok(RecordedFile {
            path: file.path.to_string(),
            bytes: file.bytes,
            rows: *rows,
            staged,
            sources: Range::all(sources),
        })
    }
}

/// What was committed.
#[derive(Debug)]
struct Done {
    /// Number of the generation.
    sequence: u64,
    /// Offsets.
    delta: CheckpointDelta,
    /// Files.
    files: usize,
    /// Rows in them.
    rows: u64,
    /// Bytes of them.
    bytes: u64,
    /// Records refused.
    dead_letters: usize,
}

impl Done {
    /// Adds the files up.
    fn new(sequence: u64, delta: CheckpointDelta, staged: &[Staged], dead_letters: usize) -> Self {
        let rows = staged.iter().map(|staged| staged.rows).sum();
        let bytes = staged.iter().map(|staged| staged.file.bytes).sum();
        Self { sequence, delta, files: staged.len(), rows, bytes, dead_letters }
    }
}

/// After a record may be in the ledger, whatever fails is settled by claiming anew.
fn restart(error: PipelineError) -> PipelineError {
    match error.verdict() {
        Verdict::Retry => PipelineError::restart("the commit could not be brought to its end").because(error),
        Verdict::Stop | Verdict::Restart => error,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        batch::{DeadLetter, OriginalRecord, Stage},
        checkpoint::SourcePartition,
        memory::MemoryBudget,
        store::{Path, tests::in_folder},
    };

    /// A committer over a folder.
    fn committer(folder: &std::path::Path) -> Committer {
        let context = CommitContext {
            store: in_folder(folder),
            pipeline: "orders".into(),
            lane: 0,
            writer_mark: "9f86d081".into(),
            dead_letter: DeadLetterConfig::Store,
            metrics: Metrics::detached(),
        };
        Committer::new(context, None)
    }

    /// A file on its way.
    fn closed(committer: &Committer, path: &str, bytes: &'static [u8]) -> ClosedFile {
        let path = Path::parse(path).unwrap();
        let mut writer = committer.context.store.stage(path.clone());
        let staged = tokio::spawn(async move {
            writer.write(Bytes::from_static(bytes)).await?;
            writer.finish().await
        });
        ClosedFile { path, rows: 1, bytes: bytes.len() as u64, sources: CheckpointDelta::default(), staged }
    }

    /// A generation of these files and one dead letter.
    fn generation(files: Vec<ClosedFile>) -> ClosedGeneration {
        let mut delta = CheckpointDelta::default();
        delta.extend(&SourcePartition::new("orders", 1), 5, 9).unwrap();
        let record = OriginalRecord {
            topic: "orders".into(),
            partition: 1,
            offset: 7,
            timestamp_ms: Some(0),
            key: None,
            value: Some(b"{\xff".to_vec()),
            headers: vec![("trace".into(), Some(b"1".to_vec()))],
        };
        let letter = DeadLetter {
            record: Some(record),
            stage: Stage::Decode,
            plugin: None,
            code: "bad-json".into(),
            message: "why".into(),
            time: std::time::SystemTime::UNIX_EPOCH,
        };
        let memory = MemoryBudget::new(1 << 20).hold(0);
        ClosedGeneration {
            sequence: 3,
            delta,
            files,
            dead_letters: vec![letter],
            closed_at: Instant::now(),
            memory,
            states: Vec::new(),
        }
    }

    /// Everything below a folder.
    fn names(folder: &std::path::Path) -> Vec<String> {
        let mut found: Vec<_> = glob::glob(&format!("{}/**/*", folder.display()))
            .unwrap()
            .map(Result::unwrap)
            .filter(|path| path.is_file())
            .map(|path| path.strip_prefix(folder).unwrap().display().to_string())
            .collect();
        found.sort();
        found
    }

    /// Scenario: a generation of two files and a refused record is committed.
    /// Guarantees: files and dead letter are there before the offsets are returned; the original bytes are kept.
    #[tokio::test(flavor = "multi_thread")]
    async fn files_and_dead_letters_come_before_the_offsets() {
        let folder = tempfile::tempdir().unwrap();
        let mut committer = committer(folder.path());
        let files = vec![closed(&committer, "orders/a.parquet", b"a"), closed(&committer, "orders/b.parquet", b"b")];
        let delta = committer.commit(generation(files)).await.unwrap();
        assert_eq!(delta.iter().next().unwrap().1.to, 9);
        let found = names(folder.path());
        assert_eq!(found[1..], ["orders/a.parquet", "orders/b.parquet"]);
        assert!(found[0].starts_with("_fs_data_sink/orders/dead_letters/"), "{found:?}");
        let text = std::fs::read_to_string(folder.path().join(&found[0])).unwrap();
        let letter: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(letter["offset"], 7);
        assert_eq!(letter["value"], "e/8=");
        assert_eq!(letter["headers"][0]["key"], "trace");
        assert_eq!(letter["code"], "bad-json");
    }

    /// Scenario: one of two uploads fails.
    /// Guarantees: no file is visible, nothing is left in staging, and no offsets are returned.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_failed_upload_publishes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut committer = committer(folder.path());
        let mut files = vec![closed(&committer, "orders/a.parquet", b"a")];
        files.push(ClosedFile {
            path: Path::from("orders/b.parquet"),
            rows: 1,
            bytes: 1,
            sources: CheckpointDelta::default(),
            staged: tokio::spawn(async { Err(PipelineError::retry("the server is gone")) }),
        });
        let error = committer.commit(generation(files)).await.unwrap_err();
        assert_eq!(error.full_message(), "the server is gone");
        assert_eq!(names(folder.path()), Vec::<String>::new());
    }
}
