//! Makes a generation durable and visible; the only place that says "durable".
//!
//! Comes in: a closed generation, whose files are on their way to the store. Goes out: the source offsets that may
//! now be committed. The steps, in their order:
//!
//! 1. **Stage**: wait until every byte of every file is in the store, where no reader looks.
//! 2. **Dead letters**: write the refused records of the same offsets.
//! 3. **Record**: the place of the ledger. For `at_least_once` there is nothing to record: a kill before publish
//!    loses staged files whose offsets were never committed, and they are read again.
//! 4. **Publish**: make the files visible, each whole. They appear one by one, not as a group.
//! 5. **Acknowledge**: the caller commits the returned offsets at the source.
//!
//! A failure in any step returns before the next one; what is staged is given up, what is published stays (at least
//! once), and the offsets stay uncommitted.

use std::{sync::Arc, time::Instant};

use futures::{StreamExt, TryStreamExt, stream};

use crate::{
    batch::{ClosedFile, ClosedGeneration},
    checkpoint::CheckpointDelta,
    config::DeadLetterConfig,
    error::PipelineError,
    store::{StagedFile, Store},
    telemetry::metrics::Metrics,
};

mod dead_letter;

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
    /// Where refused records go.
    pub dead_letter: DeadLetterConfig,
    /// The metrics of the pipeline.
    pub metrics: Metrics,
}

/// Commits the generations of one lane, one after the other.
#[derive(Debug)]
pub struct Committer {
    /// What it works with.
    context: CommitContext,
}

impl Committer {
    /// A committer of one lane.
    #[must_use]
    pub fn new(context: CommitContext) -> Self {
        Self { context }
    }

    /// Takes a generation through all steps and returns the offsets that are durable now.
    pub async fn commit(&mut self, generation: ClosedGeneration) -> Result<CheckpointDelta, PipelineError> {
        let ClosedGeneration { sequence, delta, files, dead_letters, closed_at, memory } = generation;
        let started = Instant::now();
        let staged = self.stage(files).await?;
        let outcome = async {
            if self.context.dead_letter == DeadLetterConfig::Store {
                dead_letter::write(&self.context, sequence, &dead_letters).await?;
            }
            // 3. Record: nothing for at least once; exactly once appends its record here.
            self.publish(&staged).await
        }
        .await;
        if let Err(error) = outcome {
            for (file, _) in &staged {
                self.context.store.abort(file).await;
            }
            return Err(error);
        }
        drop(memory);
        self.report(sequence, &delta, &staged, dead_letters.len(), started);
        self.context.metrics.committed(closed_at.elapsed().as_secs_f64());
        Ok(delta)
    }

    /// 1. Waits for every file; when one fails, the others are given up.
    async fn stage(&self, files: Vec<ClosedFile>) -> Result<Vec<(StagedFile, u64)>, PipelineError> {
        let mut staged = Vec::with_capacity(files.len());
        let mut failure = None;
        for ClosedFile { path, rows, bytes: _, staged: task } in files {
            let ended = task.await.unwrap_or_else(|error| {
                Err(PipelineError::retry(format!("the upload of {path} ended abnormally")).because(error))
            });
            match ended {
                Ok(file) => staged.push((file, rows)),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        match failure {
            None => Ok(staged),
            Some(error) => {
                for (file, _) in &staged {
                    self.context.store.abort(file).await;
                }
                Err(error)
            }
        }
    }

    /// 4. Makes every file visible.
    async fn publish(&self, staged: &[(StagedFile, u64)]) -> Result<(), PipelineError> {
        let files: Vec<_> = staged.iter().map(|(file, _)| self.publish_one(file)).collect();
        stream::iter(files).buffer_unordered(PUBLISH_CONCURRENCY).try_collect::<()>().await
    }

    /// Makes one file visible.
    async fn publish_one(&self, file: &StagedFile) -> Result<(), PipelineError> {
        self.context.store.publish(file).await?;
        self.context.metrics.file_published(file.bytes);
        Ok(())
    }

    /// One line a generation.
    fn report(
        &self,
        sequence: u64,
        delta: &CheckpointDelta,
        staged: &[(StagedFile, u64)],
        dead_letters: usize,
        started: Instant,
    ) {
        let offsets: Vec<_> = delta
            .iter()
            .take(8)
            .map(|(partition, range)| format!("{partition} {}..{}", range.from, range.to))
            .collect();
        tracing::info!(
            pipeline = %self.context.pipeline, lane = self.context.lane, generation = sequence,
            files = staged.len(), rows = staged.iter().map(|(_, rows)| rows).sum::<u64>(),
            bytes = staged.iter().map(|(file, _)| file.bytes).sum::<u64>(), dead_letters,
            seconds = started.elapsed().as_secs_f64(), offsets = offsets.join(", "), "generation committed"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::{
        batch::{DeadLetter, OriginalRecord, Stage},
        checkpoint::SourcePartition,
        config::{LocalConfig, ParquetConfig, SinkConfig, SinkKind},
        memory::MemoryBudget,
        store::Path,
    };

    /// A committer over a folder.
    fn committer(folder: &std::path::Path) -> Committer {
        let sink = SinkConfig {
            kind: SinkKind::Local(LocalConfig { base_path: folder.to_owned() }),
            partition_by: Vec::new(),
            keep_partition_columns: false,
            parquet: ParquetConfig::default(),
            retry_timeout: Duration::from_millis(100),
        };
        let metrics = Metrics::detached();
        let store = Store::open(&sink, "orders", metrics.clone(), tokio::runtime::Handle::current()).unwrap();
        Committer::new(CommitContext {
            store,
            pipeline: "orders".into(),
            lane: 0,
            dead_letter: DeadLetterConfig::Store,
            metrics,
        })
    }

    /// A file on its way.
    fn closed(committer: &Committer, path: &str, bytes: &'static [u8]) -> ClosedFile {
        let path = Path::parse(path).unwrap();
        let mut writer = committer.context.store.stage(path.clone());
        let staged = tokio::spawn(async move {
            writer.write(Bytes::from_static(bytes)).await?;
            writer.finish().await
        });
        ClosedFile { path, rows: 1, bytes: bytes.len() as u64, staged }
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
        ClosedGeneration { sequence: 3, delta, files, dead_letters: vec![letter], closed_at: Instant::now(), memory }
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
            staged: tokio::spawn(async { Err(PipelineError::retry("the server is gone")) }),
        });
        let error = committer.commit(generation(files)).await.unwrap_err();
        assert_eq!(error.full_message(), "the server is gone");
        assert_eq!(names(folder.path()), Vec::<String>::new());
    }
}
