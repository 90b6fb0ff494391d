//! Membership in the consumer group: what is owned, and how partitions come and go.
//!
//! Under exactly once the lane claims the partitions that come before the first record of them is fetched, and says where
//! they begin; the callback waits for that too.
//!
//! A rebalance runs in the poll thread, inside a callback of librdkafka. Before partitions are given away the batch under
//! construction goes to the lane, then the revocation, and the callback waits until the lane has committed. The
//! wait has a limit below `max.poll.interval.ms`, so that a lane that hangs loses its partitions rather than its
//! membership; what it had not committed is read again by the next owner.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    error::Error,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext, Offset, Statistics, TopicPartitionList,
    client::OAuthToken,
    consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol},
    error::{KafkaError, KafkaResult},
    types::RDKafkaRespErr,
};
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot,
};

use super::{
    super::{LaneContext, SourceEvent, envelope::EnvelopeBuilder},
    begin::{self, Begin},
    client::Listener,
    owed::Owed,
    start::Start,
    topic_id,
};
use crate::{
    checkpoint::{CheckpointDelta, SourcePartition},
    config::{Delivery, KafkaConfig},
    error::{PipelineError, Verdict},
};

/// How long a revocation waits for the lane: enough for an upload and a few tries, well below librdkafka's default
/// `max.poll.interval.ms` of five minutes.
const REVOKE_WAIT: Duration = Duration::from_secs(60);

/// How long an assignment waits for the lane to claim it: the store may be away for a while. Below librdkafka's default
/// `max.poll.interval.ms` of five minutes, after which the group would go on without this member.
const CLAIM_WAIT: Duration = Duration::from_secs(240);

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
    /// The ids of the topics that were claimed.
    topic_ids: Mutex<BTreeMap<Arc<str>, String>>,
    /// Whether the cluster is asked for such ids.
    has_topic_ids: bool,
    /// Where partitions begin that nobody knows.
    start: Start,
    /// With a ledger: up to where each partition that is ours was read. The next batch covers what comes from there on, so
    /// that batches follow each other without a gap, although a transaction's ends and what was compacted are no records.
    read_to: Mutex<BTreeMap<SourcePartition, i64>>,
    /// Offsets that the broker has not taken yet.
    pub(super) owed: Owed,
    /// Whether a commit of offsets is on its way.
    pub(super) is_committing: AtomicBool,
    /// Records on their way into batches, by topic.
    builders: Mutex<BTreeMap<Arc<str>, EnvelopeBuilder>>,
    /// For each partition, from the last statistics: where the next fetch begins.
    fetched_to: Mutex<BTreeMap<SourcePartition, i64>>,
    /// For each partition, from the records that were sent: the next offset to read.
    seen: Mutex<BTreeMap<SourcePartition, i64>>,
    /// When the group last gave this member an assignment, be it empty.
    assigned_at: Mutex<Option<Instant>>,
    /// Whether the poll thread should stop reading.
    stopped: AtomicBool,
    /// Whether the poll thread should end.
    closed: AtomicBool,
}

impl Group {
    /// Not yet a member.
    pub(super) fn new(events: mpsc::Sender<SourceEvent>, context: &LaneContext, kafka: &KafkaConfig) -> Self {
        Self {
            context: context.clone(),
            events,
            waiting: Mutex::default(),
            owned: Mutex::default(),
            topic_ids: Mutex::default(),
            has_topic_ids: kafka.has_topic_ids,
            start: Start::of(kafka),
            read_to: Mutex::default(),
            owed: Owed::default(),
            is_committing: AtomicBool::new(false),
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

    /// For how long this member has had its assignment, be it empty; `None` before the first one.
    pub(super) fn assigned_for(&self) -> Option<Duration> {
        lock(&self.assigned_at).map(|at| at.elapsed())
    }

    /// For each partition, from the records that were sent: the next offset to read.
    pub(super) fn seen(&self) -> MutexGuard<'_, BTreeMap<SourcePartition, i64>> {
        lock(&self.seen)
    }

    /// Whether a ledger says what is committed, so that the group's offsets are a hint for others.
    pub(super) fn has_ledger(&self) -> bool {
        self.context.run.delivery == Delivery::ExactlyOnce
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
            Ok(mut batch) => {
                let read_to: Vec<_> =
                    batch.delta.iter().map(|(partition, range)| (partition.clone(), range.to)).collect();
                for (partition, to) in read_to {
                    if let Some(from) = lock(&self.read_to).get_mut(&partition) {
                        batch.delta.begin_at(&partition, *from);
                        *from = to;
                    }
                }
                SourceEvent::Batch(batch)
            }
            Err(error) => SourceEvent::Failed(error),
        })
    }

    /// Takes every batch under construction, as [`Group::push`] does.
    fn push_batches(&self) {
        let batches: Vec<_> = self.builders().values_mut().filter_map(|builder| self.finish_batch(builder)).collect();
        for batch in batches {
            self.push(batch);
        }
    }

    /// Partitions are being taken away: everything read of them goes to the lane, and the lane commits it.
    fn give_away(&self, partitions: Vec<SourcePartition>, is_lost: bool) {
        if self.is_closed() {
            // The lane has committed what it wanted and is gone: nobody would answer.
            self.disown(&partitions);
            return;
        }
        let deadline = Instant::now() + REVOKE_WAIT;
        self.push_batches();
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

    /// The ids of the topics of some offsets, as they were claimed; empty without a ledger.
    pub(super) fn claimed_ids(&self, delta: &CheckpointDelta) -> BTreeMap<Arc<str>, String> {
        let known = lock(&self.topic_ids);
        let topics = delta.iter().map(|(partition, _)| &partition.topic);
        topics.filter_map(|topic| Some((Arc::clone(topic), known.get(topic)?.clone()))).collect()
    }

    /// Asks which topics these are.
    fn identify(
        &self,
        consumer: &BaseConsumer<Member>,
        partitions: &[SourcePartition],
    ) -> Result<BTreeMap<Arc<str>, String>, PipelineError> {
        if !self.has_topic_ids {
            return Ok(BTreeMap::new());
        }
        let topics = partitions.iter().map(|partition| Arc::clone(&partition.topic)).collect();
        let ids = topic_id::topic_ids(consumer.client(), &topics).map_err(|error| {
            PipelineError::restart("Kafka: the broker did not say which topics these are").because(error)
        })?;
        lock(&self.topic_ids).extend(ids.iter().map(|(topic, id)| (Arc::clone(topic), id.clone())));
        Ok(ids)
    }

    /// With a ledger: has the lane claim partitions that come, and sets where they begin. `false` when that failed, and the
    /// source with it.
    fn begin(
        &self,
        consumer: &BaseConsumer<Member>,
        list: &mut TopicPartitionList,
        partitions: &[SourcePartition],
    ) -> Result<bool, PipelineError> {
        let Some(recorded) = self.claim(partitions, self.identify(consumer, partitions)?) else { return Ok(false) };
        let begins = begin::of_assigned(consumer, partitions, &recorded, &self.start)?;
        for (partition, Begin { at, .. }) in &begins {
            set_begin(list, partition, *at)?;
        }
        self.go_on(&begins)?;
        Ok(true)
    }

    /// Without a ledger: sets where partitions begin of which the group knows nothing and the user says something.
    fn begin_new(
        &self,
        consumer: &BaseConsumer<Member>,
        list: &mut TopicPartitionList,
        partitions: &[SourcePartition],
    ) -> Result<(), PipelineError> {
        if self.start.is_specific() {
            for (partition, at) in begin::of_new(consumer, partitions, &self.start)? {
                set_begin(list, &partition, at)?;
            }
        }
        Ok(())
    }

    /// Has the lane claim partitions that come; what it says of where they begin. `None` when it could not say; the source has
    /// failed then.
    fn claim(
        &self,
        partitions: &[SourcePartition],
        topic_ids: BTreeMap<Arc<str>, String>,
    ) -> Option<BTreeMap<SourcePartition, i64>> {
        let deadline = Instant::now() + CLAIM_WAIT;
        let waiting = Instant::now();
        let (begin, mut answer) = oneshot::channel();
        self.push(SourceEvent::Assigned { partitions: partitions.to_vec(), topic_ids, begin });
        let mut found = None;
        while found.is_none() && !self.is_closed() && Instant::now() < deadline {
            self.send_waiting();
            match answer.try_recv() {
                Ok(positions) => found = Some(positions),
                Err(oneshot::error::TryRecvError::Empty) => std::thread::sleep(PAUSE),
                // The lane has failed, and tells so itself.
                Err(oneshot::error::TryRecvError::Closed) => break,
            }
        }
        self.context.metrics.waited("claim", waiting.elapsed().as_secs_f64());
        if found.is_none() && !self.is_closed() && Instant::now() >= deadline {
            self.push(SourceEvent::Failed(PipelineError::restart(format!(
                "the ledger did not answer within {} s, so the partitions could not be claimed",
                CLAIM_WAIT.as_secs()
            ))));
        }
        found
    }

    /// Reading goes on here; what lies before and was not read is told to the lane.
    fn go_on(&self, begins: &BTreeMap<SourcePartition, Begin>) -> Result<(), PipelineError> {
        let mut missing = CheckpointDelta::default();
        for (partition, Begin { wanted, at }) in begins.iter().filter(|(_, begin)| begin.wanted < begin.at) {
            missing
                .extend(partition, *wanted, *at)
                .map_err(|error| PipelineError::stop(format!("{partition}: not a range of offsets")).because(error))?;
        }
        lock(&self.read_to).extend(begins.iter().map(|(partition, begin)| (partition.clone(), begin.at)));
        if !missing.is_empty() {
            self.push(SourceEvent::Missing(missing));
        }
        Ok(())
    }

    /// With a ledger: the broker has not the offset any more at which some partition was to be read on. Goes on at the first one
    /// that it has. `false`: the broker could not be asked; to be tried again.
    pub(super) fn go_on_behind_deleted(&self, consumer: &BaseConsumer<Member>) -> Result<bool, PipelineError> {
        // What was read comes before the gap.
        self.push_batches();
        let read_to = lock(&self.read_to).clone();
        let mut begins = match begin::of_owned(consumer, &read_to) {
            Err(error) if error.verdict() != Verdict::Stop => {
                consumer.context().listener.tell(&error.full_message());
                return Ok(false);
            }
            begins => begins?,
        };
        begins.retain(|_, begin| begin.wanted < begin.at);
        self.go_on(&begins)?;
        for (partition, Begin { at, .. }) in begins {
            consumer.seek(&partition.topic, partition.partition, Offset::Offset(at), begin::ANSWER_TIMEOUT).map_err(
                |error| PipelineError::restart(format!("{partition}: cannot go on at offset {at}")).because(error),
            )?;
        }
        Ok(true)
    }

    /// Offsets of these partitions are not committed any more.
    fn disown(&self, partitions: &[SourcePartition]) {
        let mut owned = lock(&self.owned);
        owned.retain(|owned| !partitions.contains(owned));
        lock(&self.read_to).retain(|owned, _| !partitions.contains(owned));
        let forgotten = self.owed.forget(partitions);
        if forgotten > 0 && !self.has_ledger() {
            tracing::warn!(pipeline = %self.context.pipeline, lane = self.context.lane, partitions = forgotten,
                "partitions went before the broker had taken their offsets; their last rows may come twice");
        }
    }
}

/// A lock that a panic elsewhere does not break.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has a partition of librdkafka's list begin at an offset.
fn set_begin(list: &mut TopicPartitionList, partition: &SourcePartition, at: i64) -> Result<(), PipelineError> {
    list.set_partition_offset(&partition.topic, partition.partition, Offset::Offset(at))
        .map_err(|error| PipelineError::stop(format!("{partition}: not an offset: {at}")).because(error))
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
    pub(super) fn new(group: Arc<Group>, listener: Listener) -> Self {
        Self { group, listener }
    }
}

impl ClientContext for Member {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, config: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.listener.generate_oauth_token(config)
    }

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

    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let is_cooperative = matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
        let partitions = partitions_of(list);
        let is_assignment = event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if is_assignment {
            self.assigned(consumer, list, partitions);
        } else if event != RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS {
            let error = KafkaError::Rebalance(event.into());
            tracing::warn!(%error, "Kafka: a rebalance failed; librdkafka tries again");
        } else if !partitions.is_empty() {
            self.group.context.moves.begin(&partitions);
            self.group.give_away(partitions, consumer.assignment_lost());
            self.group.context.moves.end();
        }
        let done = match (is_assignment, is_cooperative) {
            (true, true) => consumer.incremental_assign(list),
            (true, false) => consumer.assign(list),
            (false, true) => consumer.incremental_unassign(list),
            (false, false) => consumer.unassign(),
        };
        if let Err(error) = done {
            self.listener.hear(&error, "carrying out a rebalance");
        }
    }
}

impl Member {
    /// Partitions come: claims them where that is wanted, and sets where they begin.
    fn assigned(&self, consumer: &BaseConsumer<Self>, list: &mut TopicPartitionList, partitions: Vec<SourcePartition>) {
        let group = &self.group;
        tracing::info!(pipeline = %group.context.pipeline, lane = group.context.lane,
            partitions = ?partitions.iter().map(ToString::to_string).collect::<Vec<_>>(), "partitions assigned");
        let is_ready = if partitions.is_empty() || group.is_closed() {
            Ok(true)
        } else if group.has_ledger() {
            group.begin(consumer, list, &partitions)
        } else {
            group.begin_new(consumer, list, &partitions).map(|()| true)
        };
        let is_ready = is_ready.unwrap_or_else(|error| {
            group.push(SourceEvent::Failed(error));
            false
        });
        if !is_ready {
            // Nothing may be read from a place that nobody claimed; the lane ends with the failure that was sent.
            group.stop();
        }
        lock(&group.owned).extend(partitions);
        group.context.moves.note();
        *lock(&group.assigned_at) = Some(Instant::now());
    }
}
