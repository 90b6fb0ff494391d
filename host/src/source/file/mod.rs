//! Files and standard input: lines of records, Arrow, Parquet; lines and Arrow also packed by gzip or zstd.
//!
//! Each file is a source partition: its path, partition 0, and the number of the line or row, from 0, as offset. The
//! dataset is the pipeline's name. What a file holds is told by its first bytes, so files of different kinds may be read
//! together. Files end by themselves, so a file source always reads to the end. Under exactly once the ledger says
//! which lines and rows are done, and a restart goes on behind them; at least once a restart reads from the start. Where a
//! file cannot be read on, all that came before is committed, and then the run fails.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use arrow_array::RecordBatch;
use tokio::sync::{mpsc, oneshot};

use super::{Control, EVENTS_MAX, LaneContext, SourceControl, SourceEvent, SourceStream, envelope::EnvelopeBuilder};
use crate::{
    checkpoint::{CheckpointDelta, OffsetRange, SourcePartition},
    config::{Delivery, FileConfig, SourceConfig},
    error::PipelineError,
};
use kind::Content;

mod kind;
mod lines;
mod parquet;
mod rows;
mod stdin;
#[cfg(test)]
mod tests;

/// How often a waiting reader looks up.
const PAUSE: Duration = Duration::from_millis(5);

/// Asks the reader to stop.
#[derive(Clone, Debug, Default)]
pub(super) struct FileControl(Arc<AtomicBool>);

impl FileControl {
    /// Asks the reader to stop.
    pub(super) fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was asked to.
    fn is_stopped(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The files of a configuration, each once, in order.
pub(super) fn list(config: &FileConfig) -> Result<Vec<String>, PipelineError> {
    let mut files = Vec::new();
    for pattern in &config.paths {
        if pattern == "-" {
            files.push(pattern.clone());
            continue;
        }
        let found = glob::glob(pattern).map_err(|error| {
            PipelineError::stop(format!("source.paths: {pattern:?} is not a pattern")).because(error)
        })?;
        let before = files.len();
        for path in found {
            let path = path.map_err(|error| {
                PipelineError::stop(format!("source.paths: {pattern:?}: a folder cannot be read")).because(error)
            })?;
            if path.is_file() {
                files.push(path.display().to_string());
            }
        }
        if files.len() == before {
            return Err(PipelineError::stop(format!("source.paths: no file matches {pattern:?}")));
        }
    }
    files.sort();
    files.dedup();
    Ok(files)
}

/// Reads the files of one lane on a thread of its own.
pub(super) fn start(
    files: &FileConfig,
    config: &SourceConfig,
    context: LaneContext,
) -> Result<SourceStream, PipelineError> {
    let mine: Vec<String> = list(files)?
        .into_iter()
        .enumerate()
        .filter(|(at, _)| at % context.lanes == context.lane)
        .map(|(_, file)| file)
        .collect();
    let (sender, events) = mpsc::channel(EVENTS_MAX);
    let control = FileControl::default();
    let reader = Reader {
        rows_max: config.batch_rows_max,
        batch_timeout: config.batch_timeout,
        context,
        sender,
        control: control.clone(),
        ranges: BTreeMap::new(),
    };
    reader.spawn(mine, true);
    Ok(SourceStream { events, control: SourceControl(Control::File(control)) })
}

/// Reads recorded lines and rows once more.
pub(super) fn read_again(
    config: &SourceConfig,
    ranges: &CheckpointDelta,
    context: LaneContext,
) -> mpsc::Receiver<SourceEvent> {
    let (sender, events) = mpsc::channel(EVENTS_MAX);
    let files = ranges.iter().map(|(partition, _)| partition.topic.to_string()).collect();
    let reader = Reader {
        rows_max: config.batch_rows_max,
        batch_timeout: config.batch_timeout,
        context,
        sender,
        control: FileControl::default(),
        ranges: ranges.iter().map(|(partition, range)| (partition.topic.to_string(), range)).collect(),
    };
    reader.spawn(files, false);
    events
}

/// Reads files one after the other.
struct Reader {
    /// Most records in a batch.
    rows_max: usize,
    /// A batch that is not full goes on after this.
    batch_timeout: Duration,
    /// The lane.
    context: LaneContext,
    /// To the lane.
    sender: mpsc::Sender<SourceEvent>,
    /// From the lane.
    control: FileControl,
    /// The lines or rows that are wanted of each file; all where nothing is said.
    ranges: BTreeMap<String, OffsetRange>,
}

impl Reader {
    /// Reads files on a thread of its own.
    fn spawn(mut self, files: Vec<String>, are_claimed: bool) {
        tokio::task::spawn_blocking(move || {
            let result = if are_claimed { self.claim(&files) } else { Ok(()) };
            let last = match result.and_then(|()| self.read_all(&files)) {
                Ok(()) => SourceEvent::End,
                Err(error) => {
                    if are_claimed {
                        self.have_it_committed();
                    }
                    SourceEvent::Failed(error)
                }
            };
            // The lane may be gone already.
            let _ = self.sender.blocking_send(last);
        });
    }

    /// Under exactly once: has the lane claim the files, and passes over what is done.
    fn claim(&mut self, files: &[String]) -> Result<(), PipelineError> {
        if self.context.run.delivery != Delivery::ExactlyOnce || files.is_empty() {
            return Ok(());
        }
        let partitions = files.iter().map(|file| SourcePartition::new(file.as_str(), 0)).collect();
        let (begin, answer) = oneshot::channel();
        let ended = || PipelineError::restart("the lane ended before the files were claimed");
        self.sender
            .blocking_send(SourceEvent::Assigned { partitions, topic_ids: BTreeMap::new(), begin })
            .map_err(|_| ended())?;
        let positions = answer.blocking_recv().map_err(|_| ended())?;
        self.ranges = positions
            .into_iter()
            .map(|(partition, from)| (partition.topic.to_string(), OffsetRange { from, to: i64::MAX }))
            .collect();
        Ok(())
    }

    /// Has the lane commit what it was sent. The next run would meet the same end of the file, and get no further.
    fn have_it_committed(&self) {
        let (release, released) = oneshot::channel();
        let event = SourceEvent::Revoked { partitions: Vec::new(), release };
        if self.sender.blocking_send(event).is_ok() {
            // Where the lane ends instead, there is nothing to wait for.
            let _ = released.blocking_recv();
        }
    }

    /// Reads every file to its end.
    fn read_all(&mut self, files: &[String]) -> Result<(), PipelineError> {
        for file in files {
            let go_on = if file == "-" {
                self.read_standard_input(file)?
            } else {
                match kind::open(file)? {
                    Content::Lines(mut input) => self.read_lines(file, |line| lines::next_line(&mut input, line))?,
                    Content::Arrow(input) => self.read_arrow(file, input)?,
                    Content::Parquet(input) => self.read_parquet(file, input)?,
                }
            };
            if !go_on {
                break;
            }
        }
        Ok(())
    }

    /// The lines or rows that are wanted of a file.
    fn wanted(&self, file: &str) -> OffsetRange {
        self.ranges.get(file).copied().unwrap_or(OffsetRange { from: 0, to: i64::MAX })
    }

    /// Sends a batch once there is room for it; `false` when the lane wants no more.
    fn send(&self, builder: &mut EnvelopeBuilder) -> Result<bool, PipelineError> {
        self.send_with(builder, None)
    }

    /// The same with typed rows and their bytes.
    fn send_with(
        &self,
        builder: &mut EnvelopeBuilder,
        rows: Option<(RecordBatch, usize)>,
    ) -> Result<bool, PipelineError> {
        let (waiting, reason) = (Instant::now(), self.context.budget.begin_wait());
        while self.context.budget.is_exhausted() && !self.control.is_stopped() {
            std::thread::sleep(PAUSE);
        }
        if waiting.elapsed() > PAUSE {
            self.context.metrics.waited(reason, waiting.elapsed().as_secs_f64());
        }
        if self.control.is_stopped() || !self.context.take_batch() {
            return Ok(false);
        }
        let mut batch = builder.finish(&self.context.budget)?;
        if let Some((rows, bytes)) = rows {
            batch.rows = Some(rows);
            self.context.budget.tenant().note_read(bytes);
            batch.memory.grow(bytes);
        }
        Ok(self.sender.blocking_send(SourceEvent::Batch(batch)).is_ok())
    }
}

/// The words for a file that ends before what the ledger says was read of it.
fn wrong_end(file: &str, what: &str, recorded: i64, end: i64) -> PipelineError {
    PipelineError::stop(format!(
        "{file}: the ledger is at {what} {recorded} and the file ends at {what} {end}: it was replaced or cut. To read it from \
         the start, give it another name, or the pipeline another `name` (a ledger of its own)"
    ))
}
