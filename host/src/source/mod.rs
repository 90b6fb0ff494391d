//! Where records come from.
//!
//! Comes in: a cluster of Kafka, a Redis, or files. Goes out: a stream of [`SourceEvent`]s per lane. Promises of every source:
//!
//! * records of one source partition come in order; a batch has records of one dataset;
//! * at the memory budget, or when the lane is behind, it stops reading without losing its place or its group;
//! * a position is committed only when [`SourceControl::committed`] was told of it, and only of partitions that are
//!   still owned;
//! * before it gives partitions away it lets the lane commit what was read of them, within a bounded time.
//!
//! The set of sources is closed: one `match` in [`start`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
};

use crate::{
    batch::RawBatch,
    checkpoint::{CheckpointDelta, SourcePartition},
    config::{Delivery, RunConfig, SourceConfig, SourceKind},
    error::PipelineError,
    memory::MemoryBudget,
    telemetry::metrics::Metrics,
};

mod envelope;
mod file;
mod kafka;
pub(crate) mod letters;
mod redis;

/// Events that may wait for a lane: two batches keep it busy while the next one fills.
const EVENTS_MAX: usize = 2;

/// What a source of one lane works with.
#[derive(Clone, Debug)]
pub struct LaneContext {
    /// Name of the pipeline.
    pub pipeline: Arc<str>,
    /// Which lane, from 0.
    pub lane: usize,
    /// How many there are.
    pub lanes: usize,
    /// When to stop, and how much may be in flight.
    pub run: RunConfig,
    /// Where the bytes of batches are counted.
    pub budget: MemoryBudget,
    /// The metrics of the pipeline.
    pub metrics: Metrics,
    /// Batches that may still be sent, over all lanes (`--max-batches`).
    pub batches_left: Arc<AtomicI64>,
    /// What the lanes of a pipeline tell each other about partitions on the move.
    pub moves: Arc<Moves>,
    /// For `--until-end`: that others have committed a partition to its end is not enough, since whoever has it gives out at the end
    /// what plugins keep of it. Its owner may be dead, and then it comes to a lane of this process within the session timeout.
    pub takes_over: bool,
    /// Where tasks of the source run that must not wait for lanes.
    pub io: Handle,
}

/// Partitions of the lanes of a pipeline, for `--until-end`: which are read to their ends, and whether some are on the move. A
/// lane that has read all it has does not end while another one still gives partitions away, which may take as long as
/// a commit: somebody has to take them.
#[derive(Debug, Default)]
pub struct Moves {
    /// Partitions read to their ends by the lane that has them.
    reached: Mutex<BTreeSet<SourcePartition>>,
    /// Lanes that are giving partitions away.
    giving: AtomicUsize,
    /// When partitions last came to a lane or had gone from it.
    last: Mutex<Option<Instant>>,
}

impl Moves {
    /// A lane begins to give partitions away. Whoever takes them has to read what was not committed.
    fn begin(&self, partitions: &[SourcePartition]) {
        self.giving.fetch_add(1, Ordering::AcqRel);
        let mut reached = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        for partition in partitions {
            reached.remove(partition);
        }
    }

    /// A lane has read these to their ends.
    fn reached(&self, partitions: &BTreeSet<SourcePartition>) {
        self.reached.lock().unwrap_or_else(PoisonError::into_inner).extend(partitions.iter().cloned());
    }

    /// Whether the lane that has a partition has read it to its end.
    fn has_reached(&self, partition: &SourcePartition) -> bool {
        self.reached.lock().unwrap_or_else(PoisonError::into_inner).contains(partition)
    }

    /// It has given them away.
    fn end(&self) {
        self.note();
        self.giving.fetch_sub(1, Ordering::AcqRel);
    }

    /// Partitions came or went.
    fn note(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// For how long nothing has moved; `None` while something does.
    fn quiet_for(&self) -> Option<Duration> {
        if self.giving.load(Ordering::Acquire) > 0 {
            return None;
        }
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        Some(last.map_or(Duration::MAX, |last| last.elapsed()))
    }
}

impl LaneContext {
    /// Takes one of the batches that may still be sent; `false` when there is none left.
    fn take_batch(&self) -> bool {
        self.batches_left.fetch_sub(1, Ordering::Relaxed) > 0
    }
}

/// The source of one lane.
#[derive(Debug)]
pub struct SourceStream {
    /// What happens, in order.
    pub events: mpsc::Receiver<SourceEvent>,
    /// The way back.
    pub control: SourceControl,
}

/// What happens in a source.
#[derive(Debug)]
pub enum SourceEvent {
    /// Records.
    Batch(RawBatch),
    /// Partitions are ours now, under exactly once. The source waits, within a limit, until it is told where they begin; one
    /// that the answer leaves out begins where the source itself would.
    Assigned {
        /// Which.
        partitions: Vec<SourcePartition>,
        /// What tells their topics from others that had or will have the same name, where the source knows that.
        topic_ids: BTreeMap<Arc<str>, String>,
        /// The next offset to read of each that the ledger knows.
        begin: oneshot::Sender<BTreeMap<SourcePartition, i64>>,
    },
    /// The source has deleted these offsets before they were read, under exactly once; it goes on behind them.
    Missing(CheckpointDelta),
    /// Records that the source itself refuses, whole: each is a dead letter.
    Refused {
        /// The records.
        raw: RawBatch,
        /// Stable and of few values.
        code: &'static str,
        /// For people.
        message: String,
    },
    /// Partitions are being taken away: commit what was read, then send `release`. The source waits, within a limit.
    Revoked {
        /// Which.
        partitions: Vec<SourcePartition>,
        /// To be sent once everything is committed.
        release: oneshot::Sender<()>,
    },
    /// Partitions are gone already. Their positions will not be committed any more.
    Lost {
        /// Which.
        partitions: Vec<SourcePartition>,
    },
    /// Nothing more will come, and everything was sent.
    End,
    /// Nothing more can come.
    Failed(PipelineError),
}

/// The way back from a lane to its source. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SourceControl(Control);

/// One for each source.
#[derive(Clone, Debug)]
enum Control {
    /// A member of a consumer group.
    Kafka(kafka::KafkaControl),
    /// Files have no positions to commit.
    File(file::FileControl),
    /// Streams and lists.
    Redis(redis::RedisControl),
    /// Dead letters have no positions to commit.
    Letters(letters::LettersControl),
    /// There is nothing to read.
    Nothing,
}

impl SourceControl {
    /// The rows of these offsets are durable: commits them. Partitions that are no longer owned are left out.
    pub async fn committed(&self, delta: CheckpointDelta) -> Result<(), PipelineError> {
        match &self.0 {
            Control::Kafka(kafka) => kafka.committed(delta).await,
            Control::File(_) | Control::Letters(_) | Control::Nothing => Ok(()),
            Control::Redis(redis) => {
                redis.committed(&delta);
                Ok(())
            }
        }
    }

    /// Whether offsets that were read are still those of the topics that were claimed: a topic that was deleted and made anew
    /// meanwhile gave records of its own under the offsets of the old one. To be asked before they are recorded.
    pub async fn confirm(&self, delta: &CheckpointDelta) -> Result<(), PipelineError> {
        match &self.0 {
            Control::Kafka(kafka) => kafka.confirm(delta).await,
            Control::File(_) | Control::Redis(_) | Control::Letters(_) | Control::Nothing => Ok(()),
        }
    }

    /// Asks the source to stop reading; `End` follows. Positions can be committed afterwards.
    pub fn stop(&self) {
        match &self.0 {
            Control::Kafka(kafka) => kafka.stop(),
            Control::File(file) => file.stop(),
            Control::Redis(redis) => redis.stop(),
            Control::Letters(letters) => letters.stop(),
            Control::Nothing => {}
        }
    }

    /// Leaves the group.
    pub async fn close(self) {
        match self.0 {
            Control::Kafka(kafka) => kafka.close().await,
            Control::File(file) => file.stop(),
            Control::Redis(redis) => redis.close().await,
            Control::Letters(letters) => letters.stop(),
            Control::Nothing => {}
        }
    }
}

/// Reads recorded offsets once more, beside the lanes and outside any group: batches in order, then `End` or `Failed`. Offsets
/// that the source does not have any more are a failure. Inside a tokio runtime.
pub fn read_again(
    config: &SourceConfig,
    ranges: CheckpointDelta,
    context: LaneContext,
) -> Result<mpsc::Receiver<SourceEvent>, PipelineError> {
    match &config.kind {
        SourceKind::Kafka(kafka) => kafka::read_again(kafka, config, ranges, context),
        SourceKind::File(_) => Ok(file::read_again(config, &ranges, context)),
        SourceKind::Redis(redis) => Ok(redis::read_again(redis, config, ranges, context)),
        SourceKind::Letters(letters) => letters::read_again(letters, config, &ranges, context),
    }
}

/// Partitions that were read to their ends: their lane claims them, reads nothing and ends.
pub fn at_end(partitions: Vec<SourcePartition>) -> Result<SourceStream, PipelineError> {
    let (sender, events) = mpsc::channel(EVENTS_MAX);
    let assigned = SourceEvent::Assigned { partitions, topic_ids: BTreeMap::new(), begin: oneshot::channel().0 };
    for event in [assigned, SourceEvent::End] {
        sender.try_send(event).map_err(|_| PipelineError::stop("two events do not fit into a lane's queue"))?;
    }
    Ok(SourceStream { events, control: SourceControl(Control::Nothing) })
}

/// Whether what was read and not committed is read again when a lane begins anew without a ledger.
#[must_use]
pub fn can_read_again(config: &SourceConfig) -> bool {
    match &config.kind {
        SourceKind::Kafka(_) | SourceKind::Redis(_) => true,
        SourceKind::File(_) | SourceKind::Letters(_) => false,
    }
}

/// Starts the source of one lane. Inside a tokio runtime.
pub fn start(config: &SourceConfig, context: LaneContext) -> Result<SourceStream, PipelineError> {
    match &config.kind {
        SourceKind::Kafka(kafka) => kafka::start(kafka, config, context),
        SourceKind::File(files) => file::start(files, config, context),
        SourceKind::Redis(redis) => redis::start(redis, config, context),
        SourceKind::Letters(letters) => letters::start(letters, config, context),
    }
}

/// What `validate --connect` asks: is the cluster there with its topics, are the files there.
pub async fn check(config: &SourceConfig) -> Result<(), PipelineError> {
    match &config.kind {
        SourceKind::Kafka(kafka) => kafka::check(kafka.clone()).await,
        SourceKind::File(files) => file::list(files).map(|_| ()),
        SourceKind::Redis(redis) => redis::check(redis).await,
        // The sink is asked anyway.
        SourceKind::Letters(_) => Ok(()),
    }
}

/// How many lanes a pipeline has: one per core, or as many as asked for, and no more than there are files, or streams that have
/// one reader each.
#[must_use]
pub fn lane_count(config: &SourceConfig, run: &RunConfig) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let wanted = run.lanes.unwrap_or(cores).max(1);
    match &config.kind {
        SourceKind::File(files) => file::list(files).map_or(1, |files| wanted.min(files.len().max(1))),
        SourceKind::Redis(redis) if run.delivery == Delivery::ExactlyOnce => wanted.min(redis.stream_keys.len().max(1)),
        SourceKind::Kafka(_) | SourceKind::Redis(_) => wanted,
        // There are few.
        SourceKind::Letters(_) => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_quiet_while_a_lane_gives_partitions_away() {
        let moves = Moves::default();
        assert_eq!(moves.quiet_for(), Some(Duration::MAX));
        moves.begin(&[]);
        assert_eq!(moves.quiet_for(), None);
        moves.end();
        assert!(moves.quiet_for().is_some_and(|quiet| quiet < Duration::from_secs(60)));
    }
}
