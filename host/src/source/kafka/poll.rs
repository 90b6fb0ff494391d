//! The thread that polls the consumer of a lane: records into batches, batches to the lane.
//!
//! It never waits long without polling: when the lane is behind or memory is short it pauses its partitions and
//! polls on, so that the group keeps it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rdkafka::{
    Message,
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, Headers},
};

use super::{
    super::{
        LaneContext, SourceEvent,
        envelope::{EnvelopeBuilder, Record},
    },
    client::{self, KeyFiles},
    ends::Ends,
    group::{Group, Member},
    others::{self, Others},
};
use crate::{
    config::{KafkaConfig, SourceConfig},
    error::PipelineError,
    telemetry::rate_limit::RateLimited,
};

/// One poll waits at most this long.
const POLL_WAIT: Duration = Duration::from_millis(50);

/// The same while there is nothing to look after: what comes ends a poll at once, so only the word to stop has to wait for it.
const IDLE_WAIT: Duration = Duration::from_millis(500);

/// A lane that is behind for longer has its partitions paused; below that the fetched records simply wait.
const PATIENCE: Duration = Duration::from_secs(1);

/// For `--until-end`: the others hear of a change of the group with their next heartbeat, which is 3 s away at most. A
/// group that does not change for so long after the session timeout has no dead members and nothing on the move.
const QUIET: Duration = Duration::from_secs(5);

/// How often a waiting thread looks up.
const PAUSE: Duration = Duration::from_millis(2);

/// A topic that is not there is told about, and asked for, at most this often.
const MISSING_TOPIC_INTERVAL: Duration = Duration::from_secs(15);

/// How long the thread waits for metadata; below the time after which a broker would miss it.
const METADATA_TIMEOUT: Duration = Duration::from_secs(5);

/// Records between two looks at the clock.
const RECORDS_PER_LOOK: usize = 256;

/// The state of the thread.
pub(super) struct Poller {
    /// The consumer.
    consumer: Arc<BaseConsumer<Member>>,
    /// What is shared with callbacks and commits.
    group: Arc<Group>,
    /// The source's configuration.
    kafka: KafkaConfig,
    /// Most records in a batch.
    rows_max: usize,
    /// A batch that is not full goes on after this.
    batch_timeout: Duration,
    /// The lane.
    context: LaneContext,
    /// For `--until-end`.
    ends: Ends,
    /// For `--until-end`: what the rest of the group has read.
    others: Others,
    /// When the oldest batch under construction began.
    began: Option<Instant>,
    /// Whether a topic was not there when it was last looked for.
    is_topic_missing: bool,
    /// What the consumer was made with.
    key_files: KeyFiles,
    /// Whether the broker has deleted records that were to be read next.
    is_offset_gone: bool,
    /// Keeps the log readable.
    missing_topic: RateLimited,
}

/// Why the thread stops reading.
enum Stop {
    /// The lane asked for it, or everything wanted was read.
    End,
    /// Nothing more can be read.
    Failed(PipelineError),
}

impl Poller {
    /// For a consumer that has subscribed.
    pub(super) fn new(
        consumer: Arc<BaseConsumer<Member>>,
        group: Arc<Group>,
        kafka: KafkaConfig,
        config: &SourceConfig,
        context: LaneContext,
    ) -> Self {
        let key_files = KeyFiles::of(&kafka);
        Self {
            consumer,
            group,
            kafka,
            rows_max: config.batch_rows_max,
            batch_timeout: config.batch_timeout,
            context,
            ends: Ends::default(),
            others: Others::default(),
            began: None,
            is_topic_missing: false,
            key_files,
            is_offset_gone: false,
            missing_topic: RateLimited::new(MISSING_TOPIC_INTERVAL),
        }
    }

    /// Reads until told to stop, then stays in the group until told to leave.
    pub(super) fn run(mut self) {
        let last = match self.read() {
            Stop::End => SourceEvent::End,
            Stop::Failed(error) => SourceEvent::Failed(error),
        };
        self.pause();
        self.group.push(last);
        while !self.group.is_closed() {
            self.group.send_waiting();
            self.commit_owed();
            // Serves rebalances; a record that still comes is not committed and will be read again.
            let _ = self.consumer.poll(POLL_WAIT);
        }
    }

    /// Reads until there is a reason to stop.
    fn read(&mut self) -> Stop {
        let mut since_look = 0;
        loop {
            if self.group.is_stopped() {
                return self.send_all().err().unwrap_or(Stop::End);
            }
            match self.take_record() {
                Ok(true) => {
                    since_look += 1;
                    if since_look < RECORDS_PER_LOOK && !self.is_any_full() {
                        continue;
                    }
                }
                Ok(false) => {}
                Err(error) => return Stop::Failed(error),
            }
            since_look = 0;
            if let Err(stop) = self.look_around() {
                return stop;
            }
        }
    }

    /// Takes one record from librdkafka; `false` when there is none just now.
    fn take_record(&mut self) -> Result<bool, PipelineError> {
        // Two holds of the consumer, so that the record does not borrow `self`.
        let consumer = Arc::clone(&self.consumer);
        match consumer.poll(if self.is_idle() { IDLE_WAIT } else { POLL_WAIT }) {
            None | Some(Err(KafkaError::PartitionEOF(_))) => Ok(false),
            Some(Ok(message)) => {
                append(&self.group, &message);
                self.began.get_or_insert_with(Instant::now);
                Ok(true)
            }
            Some(Err(error)) => self.heard(&error).map(|()| false),
        }
    }

    /// Whether nothing has to be looked after between two records.
    fn is_idle(&self) -> bool {
        let is_waiting = self.is_topic_missing || self.is_offset_gone || !self.group.owed.is_empty();
        self.began.is_none() && !is_waiting && !self.context.run.until_end
    }

    /// Whether a batch should end now.
    fn is_any_full(&self) -> bool {
        self.group.builders().values().any(|builder| builder.is_full(self.rows_max))
    }

    /// The failure that stays until a person acts.
    fn failed(&self, words: &str) -> PipelineError {
        let words = format!("Kafka: {words}");
        // Somebody has seen to it: a new client reads the new files.
        if self.key_files.have_changed() { PipelineError::restart(words) } else { PipelineError::stop(words) }
    }

    /// What is looked at every few records and whenever none comes.
    fn look_around(&mut self) -> Result<(), Stop> {
        if let Some(words) = self.consumer.context().listener.take_fatal() {
            return Err(Stop::Failed(self.failed(&words)));
        }
        self.commit_owed();
        if self.is_topic_missing {
            self.tell_missing_topics();
        }
        if self.is_offset_gone {
            self.is_offset_gone = !self.group.go_on_behind_deleted(&self.consumer).map_err(Stop::Failed)?;
            self.send_waiting();
        }
        let is_old = self.began.is_some_and(|began| began.elapsed() >= self.batch_timeout);
        if is_old {
            self.send_all()?;
        } else if self.is_any_full() {
            self.send_if(super::super::envelope::EnvelopeBuilder::is_full)?;
        }
        if self.context.run.until_end && self.is_at_end() {
            self.send_all()?;
            return Err(Stop::End);
        }
        Ok(())
    }

    /// Sends every batch under construction.
    fn send_all(&mut self) -> Result<(), Stop> {
        self.began = None;
        self.send_if(|_, _| true)
    }

    /// Sends the batches of some builders, once memory and the lane have room.
    fn send_if(&mut self, which: impl Fn(&EnvelopeBuilder, usize) -> bool) -> Result<(), Stop> {
        let topics: Vec<Arc<str>> = self
            .group
            .builders()
            .iter()
            .filter(|(_, builder)| !builder.is_empty() && which(builder, self.rows_max))
            .map(|(topic, _)| Arc::clone(topic))
            .collect();
        for topic in topics {
            self.wait_for_memory();
            // A rebalance may have taken the batch meanwhile.
            let batch = {
                let mut builders = self.group.builders();
                builders.get_mut(&topic).and_then(|builder| {
                    self.note_reached(builder);
                    self.group.finish_batch(builder)
                })
            };
            if let Some(batch) = batch {
                if !self.context.take_batch() {
                    return Err(Stop::End);
                }
                self.send(batch);
            }
        }
        Ok(())
    }

    /// Sends an event, polling on while the lane is behind.
    fn send(&self, event: SourceEvent) {
        self.group.push(event);
        self.send_waiting();
    }

    /// Sends every event that waits, polling on while the lane is behind.
    fn send_waiting(&self) {
        let (mut is_paused, waiting) = (false, Instant::now());
        while !self.group.send_waiting() && !self.group.is_closed() {
            if is_paused {
                self.poll_paused();
            } else if waiting.elapsed() > PATIENCE {
                self.pause();
                is_paused = true;
            } else {
                std::thread::sleep(PAUSE);
            }
        }
        if waiting.elapsed() > PAUSE {
            self.context.metrics.waited("lane", waiting.elapsed().as_secs_f64());
        }
        if is_paused {
            self.resume();
        }
    }

    /// Waits, with the partitions paused, until there is memory again.
    fn wait_for_memory(&self) {
        if !self.context.budget.is_exhausted() {
            return;
        }
        let (waiting, reason) = (Instant::now(), self.context.budget.begin_wait());
        let mut is_paused = false;
        while self.context.budget.is_exhausted() && !self.group.is_stopped() {
            if is_paused {
                self.poll_paused();
            } else if waiting.elapsed() > PATIENCE {
                self.pause();
                is_paused = true;
            } else {
                std::thread::sleep(PAUSE);
            }
        }
        self.context.metrics.waited(reason, waiting.elapsed().as_secs_f64());
        if is_paused {
            self.resume();
        }
    }

    /// Polls while everything is paused: rebalances are served, and partitions that come are paused too. A record
    /// that slips through belongs to a partition that was assigned just now; it is kept.
    fn poll_paused(&self) {
        if let Some(Ok(message)) = self.consumer.poll(POLL_WAIT) {
            append(&self.group, &message);
            self.pause();
        }
    }

    /// Pauses every partition that is ours.
    fn pause(&self) {
        let paused = self.consumer.assignment().and_then(|all| self.consumer.pause(&all));
        if let Err(error) = paused {
            tracing::debug!(%error, "Kafka: partitions could not be paused");
        }
    }

    /// The opposite.
    fn resume(&self) {
        let resumed = self.consumer.assignment().and_then(|all| self.consumer.resume(&all));
        if let Err(error) = resumed {
            tracing::warn!(%error, "Kafka: partitions could not be resumed");
        }
    }

    /// An error from a poll: most pass by themselves.
    fn heard(&mut self, error: &KafkaError) -> Result<(), PipelineError> {
        let code = error.rdkafka_error_code();
        match code {
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                // librdkafka says so once; it is told until the topics are there.
                self.is_topic_missing = true;
            }
            Some(RDKafkaErrorCode::AutoOffsetReset) if self.group.has_ledger() => self.is_offset_gone = true,
            Some(code) => {
                let listener = &self.consumer.context().listener;
                if let Some(words) = listener.take_fatal() {
                    return Err(self.failed(&words));
                }
                // The listener has heard of it with librdkafka's words, and they tell more than the code.
                if code == RDKafkaErrorCode::Authentication {
                    return Ok(());
                }
                if let Some(advice) = client::for_a_person(code, &error.to_string()) {
                    return Err(PipelineError::stop(format!("Kafka: {advice}")).because(error.clone()));
                }
                listener.hear(error, "while reading");
            }
            None => self.consumer.context().listener.hear(error, "while reading"),
        }
        self.context.metrics.error("source");
        Ok(())
    }

    /// Tries again to commit what the broker has not taken. The answer comes by a callback.
    fn commit_owed(&self) {
        if self.group.owed.is_due() {
            self.context.metrics.retried("commit_offsets");
            let sent = self.group.owed.list().and_then(|offsets| match offsets.count() {
                0 => Ok(()),
                _ => self.consumer.commit(&offsets, CommitMode::Async),
            });
            if let Err(error) = sent {
                tracing::debug!(%error, "Kafka: owed offsets could not be sent");
            }
        }
    }

    /// Says which topics are not there.
    fn tell_missing_topics(&mut self) {
        let Some(suppressed) = self.missing_topic.allow() else { return };
        let Ok(metadata) = self.consumer.fetch_metadata(None, METADATA_TIMEOUT) else { return };
        let known: Vec<&str> = metadata.topics().iter().map(rdkafka::metadata::MetadataTopic::name).collect();
        self.is_topic_missing = false;
        for topic in
            self.kafka.topics.iter().filter(|topic| !topic.starts_with('^') && !known.contains(&topic.as_str()))
        {
            self.is_topic_missing = true;
            tracing::warn!(
                pipeline = %self.context.pipeline, topic, servers = self.kafka.bootstrap_servers.join(","), suppressed,
                "the topic does not exist (yet): waiting for it"
            );
        }
    }

    /// Notes how far the batch under construction has come.
    fn note_reached(&self, builder: &EnvelopeBuilder) {
        if self.context.run.until_end {
            self.group.seen().extend(builder.reached());
        }
    }

    /// Whether every partition of the topics was read to what was there at start, by whomever.
    fn is_at_end(&mut self) -> bool {
        let owned = self.group.owned();
        for partition in &owned {
            if !self.ends.knows(partition) {
                let answer = self.consumer.fetch_watermarks(&partition.topic, partition.partition, METADATA_TIMEOUT);
                match answer {
                    Ok((low, high)) => self.ends.set_end(partition.clone(), low, high),
                    Err(error) => {
                        self.consumer.context().listener.hear(&error, "asking where a partition ends");
                        return false;
                    }
                }
            }
        }
        for (partition, next) in self.group.take_fetched_to() {
            self.ends.reached(&partition, next);
        }
        for (partition, next) in self.group.seen().iter() {
            self.ends.reached(partition, *next);
        }
        for builder in self.group.builders().values() {
            for (partition, next) in builder.reached() {
                self.ends.reached(&partition, next);
            }
        }
        let Some(time) = self.group.assigned_for() else { return false };
        if !self.ends.are_reached(owned.iter()) {
            return false;
        }
        self.context.moves.reached(&owned);
        let done = self.others.are_done(&self.consumer, &self.kafka, &owned, &self.context, METADATA_TIMEOUT);
        if done.unwrap_or_else(|error| {
            self.consumer.context().listener.hear(&error, "asking how far the group is");
            false
        }) {
            return true;
        }
        // A partition that nobody commits (a member that only looks on) must not keep us for ever.
        let patience = others::session_timeout(&self.kafka) + QUIET;
        time >= patience && self.context.moves.quiet_for().is_some_and(|quiet| quiet >= patience)
    }
}

/// Appends a record to the batch of its topic. When partitions come or go while records are taken, librdkafka may fetch anew from a
/// place that it noted just before the last record was handed out, and hand that one out again. Where the first one is in an
/// earlier batch, the generation or the ledger refuses the second.
fn append(group: &Group, message: &BorrowedMessage<'_>) {
    let record = Record {
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis(),
        key: message.key(),
        value: message.payload(),
    };
    let mut builders = group.builders();
    if !builders.contains_key(message.topic()) {
        let topic: Arc<str> = message.topic().into();
        builders.insert(Arc::clone(&topic), EnvelopeBuilder::new(Arc::clone(&topic), topic));
    }
    if let Some(builder) = builders.get_mut(message.topic()) {
        if !builder.push_new(record) {
            tracing::debug!(
                topic = message.topic(),
                partition = record.partition,
                offset = record.offset,
                "librdkafka gave a record twice; the second one is passed over"
            );
            return;
        }
        if let Some(headers) = message.headers() {
            builder.set_headers(headers.iter().map(|header| (header.key, header.value)));
        }
    }
}
