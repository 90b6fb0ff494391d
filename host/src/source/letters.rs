//! The dead letters of a pipeline, once more.
//!
//! Comes in: the JSON lines in `_fs_data_sink/<pipeline>/dead_letters/` of the sink's store. Goes out: their records with the topic,
//! partition, offset, time, key and headers that they had. Each file of letters is a source partition of its own: its path,
//! partition 0, and the number of the line as offset; so the ledger says which letters were replayed, and a second run goes on
//! behind them. What is refused again becomes a letter in a new file, which is not read before the next run.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    Control, EVENTS_MAX, LaneContext, SourceControl, SourceEvent, SourceStream,
    envelope::{EnvelopeBuilder, Record},
};
use crate::{
    batch::{DeadLetter, OriginalRecord},
    checkpoint::{CheckpointDelta, OffsetRange, SourcePartition},
    config::{LettersConfig, SourceConfig},
    error::PipelineError,
    store::{HttpClients, Path, Store},
};

/// How often a reader that waits for memory looks up.
const PAUSE: Duration = Duration::from_millis(5);

/// Asks the reader to stop.
#[derive(Clone, Debug, Default)]
pub(super) struct LettersControl(CancellationToken);

impl LettersControl {
    /// Asks the reader to stop.
    pub(super) fn stop(&self) {
        self.0.cancel();
    }
}

/// The files of letters, in the order of their names.
pub(crate) async fn list(store: &Store) -> Result<Vec<Path>, PipelineError> {
    let files = store.list(&store.own_name("dead_letters")).await?;
    Ok(files.into_iter().map(|(path, _)| path).filter(|path| path.extension() == Some("jsonl")).collect())
}

/// The letters of a file. `None` where it is gone.
pub(crate) async fn read(store: &Store, path: &Path) -> Result<Option<Vec<DeadLetter>>, PipelineError> {
    let Some(bytes) = store.read(path).await? else { return Ok(None) };
    let mut letters = Vec::new();
    for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())) {
        letters.push(DeadLetter::read_line(line).map_err(|why| {
            PipelineError::stop(format!("{path}: line {number} is no dead letter of this program: {why}"))
        })?);
    }
    Ok(Some(letters))
}

/// Reads the letters of one lane.
pub(super) fn start(
    letters: &LettersConfig,
    config: &SourceConfig,
    context: LaneContext,
) -> Result<SourceStream, PipelineError> {
    let (sender, events) = mpsc::channel(EVENTS_MAX);
    let control = LettersControl::default();
    let reader = Reader::new(letters, config, context, sender, control.clone())?;
    tokio::spawn(reader.run(None));
    Ok(SourceStream { events, control: SourceControl(Control::Letters(control)) })
}

/// Reads recorded letters once more.
pub(super) fn read_again(
    letters: &LettersConfig,
    config: &SourceConfig,
    ranges: &CheckpointDelta,
    context: LaneContext,
) -> Result<mpsc::Receiver<SourceEvent>, PipelineError> {
    let (sender, events) = mpsc::channel(EVENTS_MAX);
    let reader = Reader::new(letters, config, context, sender, LettersControl::default())?;
    let ranges = ranges.iter().map(|(partition, range)| (partition.topic.to_string(), range)).collect();
    tokio::spawn(reader.run(Some(ranges)));
    Ok(events)
}

/// Reads files of letters one after the other.
struct Reader {
    /// Where they are.
    store: Store,
    /// Whether all records are of one dataset, which has the pipeline's name.
    is_one_dataset: bool,
    /// Most records in a batch.
    rows_max: usize,
    /// The lane.
    context: LaneContext,
    /// To the lane.
    sender: mpsc::Sender<SourceEvent>,
    /// From the lane.
    control: LettersControl,
}

impl Reader {
    /// Nothing is read yet.
    fn new(
        letters: &LettersConfig,
        config: &SourceConfig,
        context: LaneContext,
        sender: mpsc::Sender<SourceEvent>,
        control: LettersControl,
    ) -> Result<Self, PipelineError> {
        let io = tokio::runtime::Handle::current();
        let store =
            Store::open(&letters.sink, &context.pipeline, context.metrics.clone(), io, &HttpClients::default())?;
        let (is_one_dataset, rows_max) = (letters.is_one_dataset, config.batch_rows_max);
        Ok(Self { store, is_one_dataset, rows_max, context, sender, control })
    }

    /// Reads all letters, or those that are wanted, and says how it ended.
    async fn run(self, wanted: Option<BTreeMap<String, OffsetRange>>) {
        let ended = match wanted {
            Some(wanted) => self.read_all(&wanted).await,
            None => self.claim_and_read().await,
        };
        let last = ended.map_or_else(SourceEvent::Failed, |()| SourceEvent::End);
        // The lane may be gone already.
        let _ = self.sender.send(last).await;
    }

    /// Has the lane claim its files, and reads what was not replayed.
    async fn claim_and_read(&self) -> Result<(), PipelineError> {
        let files = list(&self.store).await?;
        let (lane, lanes) = (self.context.lane, self.context.lanes);
        let mine: Vec<String> =
            files.iter().enumerate().filter(|(at, _)| at % lanes == lane).map(|(_, path)| path.to_string()).collect();
        if mine.is_empty() {
            return Ok(());
        }
        let partitions = mine.iter().map(|path| SourcePartition::new(path.as_str(), 0)).collect();
        let (begin, answer) = oneshot::channel();
        let ended = || PipelineError::restart("the lane ended before the dead letters were claimed");
        let event = SourceEvent::Assigned { partitions, topic_ids: BTreeMap::new(), begin };
        self.sender.send(event).await.map_err(|_| ended())?;
        let positions = answer.await.map_err(|_| ended())?;
        let from = |path: &String| positions.get(&SourcePartition::new(path.as_str(), 0)).copied().unwrap_or(0);
        let wanted = mine.iter().map(|path| (path.clone(), OffsetRange { from: from(path), to: i64::MAX })).collect();
        self.read_all(&wanted).await
    }

    /// Reads files, of each the letters that are wanted.
    async fn read_all(&self, wanted: &BTreeMap<String, OffsetRange>) -> Result<(), PipelineError> {
        for (name, range) in wanted {
            let path =
                Path::parse(name).map_err(|error| PipelineError::stop(format!("{name} is no path")).because(error))?;
            // A file that somebody has removed meanwhile is one that nobody wants replayed.
            let letters = read(&self.store, &path).await?.unwrap_or_default();
            if !self.read_file(name, *range, letters).await? {
                break;
            }
        }
        Ok(())
    }

    /// Sends the letters of a file; `false` when the lane wants no more.
    async fn read_file(&self, name: &str, range: OffsetRange, letters: Vec<DeadLetter>) -> Result<bool, PipelineError> {
        let mut batch: Option<(Arc<str>, EnvelopeBuilder, i64)> = None;
        let (mut without_record, mut next) = (0_u64, range.from);
        for (line, letter) in (0..).zip(letters).skip_while(|(line, _)| *line < range.from) {
            if line >= range.to {
                break;
            }
            let Some(record) = letter.record else {
                without_record += 1;
                next = line + 1;
                continue;
            };
            let is_done = |(topic, builder, _): &mut (Arc<str>, EnvelopeBuilder, i64)| {
                **topic != *record.topic || builder.is_full(self.rows_max)
            };
            if let Some((_, builder, from)) = batch.take_if(is_done)
                && !self.send(name, builder, from..next).await?
            {
                return Ok(false);
            }
            let (_, builder, _) = batch.get_or_insert_with(|| {
                let topic: Arc<str> = record.topic.as_str().into();
                let dataset = if self.is_one_dataset { Arc::clone(&self.context.pipeline) } else { Arc::clone(&topic) };
                (Arc::clone(&topic), EnvelopeBuilder::new(topic, dataset), next)
            });
            push(builder, &record);
            next = line + 1;
        }
        if without_record > 0 {
            tracing::warn!(pipeline = %self.context.pipeline, file = name, letters = without_record,
                "letters without a record are passed over: a plugin had replaced the rows before they were refused");
        }
        match batch {
            Some((_, builder, from)) => self.send(name, builder, from..next).await,
            // Letters without a record alone: nothing to write, and nothing to note.
            None => Ok(true),
        }
    }

    /// Sends a batch that answers for lines of a file, once there is room for it; `false` when the lane wants no more.
    async fn send(
        &self,
        name: &str,
        mut builder: EnvelopeBuilder,
        lines: std::ops::Range<i64>,
    ) -> Result<bool, PipelineError> {
        while self.context.budget.is_exhausted() && !self.control.0.is_cancelled() {
            tokio::time::sleep(PAUSE).await;
        }
        if self.control.0.is_cancelled() || !self.context.take_batch() {
            return Ok(false);
        }
        let mut batch = builder.finish(&self.context.budget)?;
        batch.delta = CheckpointDelta::default();
        batch
            .delta
            .extend(&SourcePartition::new(name, 0), lines.start, lines.end)
            .map_err(|error| PipelineError::stop("lines of dead letters came twice").because(error))?;
        Ok(self.sender.send(SourceEvent::Batch(batch)).await.is_ok())
    }
}

/// Adds a record as it was.
fn push(builder: &mut EnvelopeBuilder, record: &OriginalRecord) {
    let OriginalRecord { partition, offset, timestamp_ms, key, value, headers, .. } = record;
    builder.push(Record {
        partition: *partition,
        offset: *offset,
        timestamp_ms: *timestamp_ms,
        key: key.as_deref(),
        value: value.as_deref(),
    });
    if !headers.is_empty() {
        builder.set_headers(headers.iter().map(|(key, value)| (key.as_str(), value.as_deref())));
    }
}
