//! Membership in the consumer group: what is owned, and how partitions come and go.
//!
//! A rebalance runs in the poll thread, inside a callback of librdkafka. Before partitions are given away the batch under
//! construction goes to the lane, then the revocation, and the callback waits until the lane has committed. The
//! wait has a limit below `max.poll.interval.ms`, so that a lane that hangs loses its partitions rather than its
//! membership; what it had not committed is read again by the next owner.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext, Statistics, TopicPartitionList,
    consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance},
    error::{KafkaError, KafkaResult},
};
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot,
};

use super::{
    super::{LaneContext, SourceEvent, envelope::EnvelopeBuilder},
    client::Listener,
    owed::Owed,
};
use crate::checkpoint::{CheckpointDelta, SourcePartition};

/// How long a revocation waits for the lane: enough for an upload and a few tries, well below librdkafka's default
/// `max.poll.interval.ms` of five minutes.
const REVOKE_WAIT: Duration = Duration::from_secs(60);

/// How often a waiting thread looks up.
const PAUSE: Duration = Duration::from_millis(5);

/// What the poll thread, the callbacks and the commits share.
#[derive(Debug)]
pub(super) struct Group {
    /// The lane.
    pub(super) context: LaneContext,
    /// To the lane.
    events: mpsc::Sender<SourceEvent>,
    /// Events that the lane had no room for, in order. Nothing is read while there are some, so they are at most one
    /// batch per topic and the events of one rebalance. They are here, not in the poll thread, so that a rebalance
    /// during the wait comes behind them.
    waiting: Mutex<VecDeque<SourceEvent>>,
    /// Partitions that are ours.
    owned: Mutex<BTreeSet<SourcePartition>>,
    /// Offsets that the broker has not taken yet.
    pub(super) owed: Owed,
    /// Records on their way into batches, by topic.
    builders: Mutex<BTreeMap<Arc<str>, EnvelopeBuilder>>,
    /// For each partition, from the last statistics: where the next fetch begins.
    fetched_to: Mutex<BTreeMap<SourcePartition, i64>>,
    /// For each partition, from the records that were sent: the next offset to read.
    seen: Mutex<BTreeMap<SourcePartition, i64>>,
    /// When the group last gave this member an assignment, be it empty; and how many there were before.
    assigned_at: Mutex<Option<(Instant, u32)>>,
    /// Whether the poll thread should stop reading.
    stopped: AtomicBool,
    /// Whether the poll thread should end.
    closed: AtomicBool,
}

impl Group {
    /// Not yet a member.
    pub(super) fn new(events: mpsc::Sender<SourceEvent>, context: &LaneContext) -> Self {
        Self {
            context: context.clone(),
            events,
            waiting: Mutex::default(),
            owned: Mutex::default(),
            owed: Owed::default(),
            builders: Mutex::default(),
            fetched_to: Mutex::default(),
            seen: Mutex::default(),
            assigned_at: Mutex::default(),
            stopped: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }
    }

    /// The rows of these offsets are durable. Those of partitions that have gone are left out.
    pub(super) fn owe(&self, delta: &CheckpointDelta) {
        // Locked until it is noted, so that a partition that goes meanwhile takes its offset along.
        let owned = lock(&self.owned);
        for (partition, range) in delta.iter().filter(|(partition, _)| owned.contains(partition)) {
            self.owed.add(partition, range.to);
        }
    }

    /// All partitions that are ours.
    pub(super) fn owned(&self) -> BTreeSet<SourcePartition> {
        lock(&self.owned).clone()
    }

    /// For how long this member has had its assignment, be it empty, and how many it had before; `None` before the
    /// first one.
    pub(super) fn assigned_for(&self) -> Option<(Duration, u32)> {
        lock(&self.assigned_at).map(|(at, before)| (at.elapsed(), before))
    }

    /// For each partition, from the records that were sent: the next offset to read.
    pub(super) fn seen(&self) -> MutexGuard<'_, BTreeMap<SourcePartition, i64>> {
        lock(&self.seen)
    }

    /// Asks the poll thread to stop reading.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
    }

    /// Whether it was asked to.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire) || self.is_closed()
    }

    /// Asks the poll thread to end.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Whether it was asked to, or nobody listens any more.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire) || self.events.is_closed()
    }

    /// The records on their way into batches.
    pub(super) fn builders(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, EnvelopeBuilder>> {
        lock(&self.builders)
    }

    /// Where the next fetch of each partition begins, by the last statistics; taken, so that each is looked at once.
    pub(super) fn take_fetched_to(&self) -> BTreeMap<SourcePartition, i64> {
        std::mem::take(&mut lock(&self.fetched_to))
    }

    /// Takes an event, which is sent behind those that wait.
    pub(super) fn push(&self, event: SourceEvent) {
        lock(&self.waiting).push_back(event);
        self.send_waiting();
    }

    /// Sends what there is room for; whether nothing waits any more. Events for a lane that is gone are dropped.
    pub(super) fn send_waiting(&self) -> bool {
        let mut waiting = lock(&self.waiting);
        while let Some(event) = waiting.pop_front() {
            if let Err(TrySendError::Full(event)) = self.events.try_send(event) {
                waiting.push_front(event);
                return false;
            }
        }
        true
    }

    /// Sends everything that waits, until a deadline; `false` when there was no room until then. What is left stays
    /// for later: a batch may hold records of partitions that are still ours, so none may be dropped.
    fn send_waiting_until(&self, deadline: Instant) -> bool {
        while !self.send_waiting() {
            if Instant::now() >= deadline || self.is_closed() {
                return false;
            }
            std::thread::sleep(PAUSE);
        }
        true
    }

    /// Ends the batch of one builder, where it has records.
    pub(super) fn finish_batch(&self, builder: &mut EnvelopeBuilder) -> Option<SourceEvent> {
        if builder.is_empty() {
            return None;
        }
        Some(match builder.finish(&self.context.budget) {
            Ok(batch) => SourceEvent::Batch(batch),
            Err(error) => SourceEvent::Failed(error),
        })
    }

    /// Partitions are being taken away: everything read of them goes to the lane, and the lane commits it.
    fn give_away(&self, partitions: Vec<SourcePartition>, is_lost: bool) {
        if self.is_closed() {
            // The lane has committed what it wanted and is gone: nobody would answer.
            self.disown(&partitions);
            return;
        }
        let deadline = Instant::now() + REVOKE_WAIT;
        let batches: Vec<_> = self.builders().values_mut().filter_map(|builder| self.finish_batch(builder)).collect();
        for batch in batches {
            self.push(batch);
        }
        if is_lost {
            tracing::warn!(pipeline = %self.context.pipeline, lane = self.context.lane, partitions = partitions.len(),
                "partitions were lost (the session expired): what was not committed of them is read again");
            self.disown(&partitions);
            self.push(SourceEvent::Lost { partitions });
            return;
        }
        let (release, mut released) = oneshot::channel();
        let waiting = Instant::now();
        self.push(SourceEvent::Revoked { partitions: partitions.clone(), release });
        let mut is_late = !self.send_waiting_until(deadline);
        if !is_late {
            while let Err(oneshot::error::TryRecvError::Empty) = released.try_recv() {
                if self.is_closed() {
                    break;
                }
                if Instant::now() >= deadline {
                    is_late = true;
                    break;
                }
                std::thread::sleep(PAUSE);
            }
        }
        self.context.metrics.waited("revoke", waiting.elapsed().as_secs_f64());
        self.disown(&partitions);
        if is_late && !self.is_closed() {
            tracing::warn!(pipeline = %self.context.pipeline, lane = self.context.lane,
                "the lane could not commit before its partitions went; their last rows may come twice");
            // The partitions may come back at an earlier offset.
            self.push(SourceEvent::Lost { partitions });
        }
    }

    /// Offsets of these partitions are not committed any more.
    fn disown(&self, partitions: &[SourcePartition]) {
        let mut owned = lock(&self.owned);
        owned.retain(|owned| !partitions.contains(owned));
        let forgotten = self.owed.forget(partitions);
        if forgotten > 0 {
            tracing::warn!(pipeline = %self.context.pipeline, lane = self.context.lane, partitions = forgotten,
                "partitions went before the broker had taken their offsets; their last rows may come twice");
        }
    }
}

/// A lock that a panic elsewhere does not break.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The partitions of a list of librdkafka.
fn partitions_of(list: &TopicPartitionList) -> Vec<SourcePartition> {
    list.elements().iter().map(|element| SourcePartition::new(element.topic(), element.partition())).collect()
}

/// What librdkafka calls back.
#[derive(Debug)]
pub(super) struct Member {
    /// What is shared.
    group: Arc<Group>,
    /// Errors.
    pub(super) listener: Listener,
}

impl Member {
    /// For a consumer.
    pub(super) fn new(group: Arc<Group>) -> Self {
        Self { group, listener: Listener::default() }
    }
}

impl ClientContext for Member {
    fn error(&self, error: KafkaError, reason: &str) {
        self.listener.hear(&error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        let mut fetched_to = lock(&self.group.fetched_to);
        for (topic, facts) in &statistics.topics {
            for (number, partition) in facts.partitions.iter().filter(|(number, _)| **number >= 0) {
                if partition.consumer_lag >= 0 {
                    let lag = u64::try_from(partition.consumer_lag).unwrap_or(0);
                    self.group.context.metrics.consumer_lag(topic, *number, lag);
                }
                if partition.fetchq_cnt == 0 && partition.eof_offset >= 0 {
                    fetched_to.insert(SourcePartition::new(topic.as_str(), *number), partition.eof_offset);
                }
            }
        }
    }
}

impl ConsumerContext for Member {
    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        match result {
            Ok(()) => self.group.owed.taken(offsets),
            Err(error) => tracing::debug!(%error, "Kafka: owed offsets were not taken"),
        }
    }

    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Revoke(list) => {
                let partitions = partitions_of(list);
                if !partitions.is_empty() {
                    self.group.give_away(partitions, consumer.assignment_lost());
                }
            }
            Rebalance::Assign(list) => {
                let partitions = partitions_of(list);
                tracing::info!(pipeline = %self.group.context.pipeline, lane = self.group.context.lane,
                    partitions = ?partitions.iter().map(ToString::to_string).collect::<Vec<_>>(), "partitions assigned");
                lock(&self.group.owned).extend(partitions);
                let mut assigned_at = lock(&self.group.assigned_at);
                *assigned_at = Some((Instant::now(), assigned_at.map_or(0, |(_, before)| before + 1)));
            }
            Rebalance::Error(error) => tracing::warn!(%error, "Kafka: a rebalance failed; librdkafka tries again"),
        }
    }
}
