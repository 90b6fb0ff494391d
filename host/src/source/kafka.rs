//! Topics of a Kafka cluster, read as a member of a consumer group.
//!
//! Each lane is a member of its own. Its consumer is polled on a thread of its own (`poll.rs`), so heartbeats and
//! rebalances never wait for decoding or uploads; it talks to the lane over a bounded channel. Offsets are committed
//! from another thread, which librdkafka allows, also while a rebalance waits for the lane (`group.rs`).
//!
//! What the lane must do: commit and release on [`SourceEvent::Revoked`]; on [`SourceEvent::Lost`] end its
//! generation before it takes another batch, since the partition may come back at an earlier offset.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
};
use tokio::sync::mpsc;

use super::{Control, EVENTS_MAX, LaneContext, SourceControl, SourceStream};
use crate::{
    checkpoint::CheckpointDelta,
    config::{KafkaConfig, SourceConfig},
    error::PipelineError,
};

mod again;
mod begin;
mod client;
mod commit;
mod ends;
mod group;
mod others;
mod owed;
mod poll;
mod start;
mod topic_id;

pub(super) use again::read_again;
use group::{Group, Member};

/// How long `validate --connect` waits for an answer.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// Events looked at for the reason of a failed question: connection attempts of ten seconds, and librdkafka's log lines.
const EVENTS_HEARD_MAX: usize = 20;

/// How long one of them is waited for.
const EVENT_WAIT: Duration = Duration::from_millis(10);

/// What to do about a topic that was made anew.
const MADE_ANEW_ADVICE: &str =
    "To read the new one from its start, give the pipeline another `name` (a ledger of its own)";

/// How long leaving the group may take.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);

/// How often it is looked whether something is still owed.
const OWED_PAUSE: Duration = Duration::from_millis(500);

/// A lane's hold on its consumer.
#[derive(Clone)]
pub(super) struct KafkaControl {
    /// The consumer.
    consumer: Arc<BaseConsumer<Member>>,
    /// What is known of the group.
    group: Arc<Group>,
    /// The poll thread, until somebody waits for its end.
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl std::fmt::Debug for KafkaControl {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("KafkaControl").field("group", &self.group).finish_non_exhaustive()
    }
}

/// Joins the group and starts to read.
pub(super) fn start(
    kafka: &KafkaConfig,
    config: &SourceConfig,
    context: LaneContext,
) -> Result<SourceStream, PipelineError> {
    let (sender, events) = mpsc::channel(EVENTS_MAX);
    let group = Arc::new(Group::new(sender, &context, kafka));
    let member = Member::new(Arc::clone(&group), client::Listener::new(kafka)?);
    let consumer: BaseConsumer<Member> = client::consumer_config(kafka, &context)
        .create_with_context(member)
        .map_err(|error| client::refused(kafka, error))?;
    consumer.context().listener.attach(consumer.client());
    let topics: Vec<&str> = kafka.topics.iter().map(String::as_str).collect();
    consumer.subscribe(&topics).map_err(|error| {
        PipelineError::stop(format!("source.topics: cannot subscribe to {topics:?}")).because(error)
    })?;
    let consumer = Arc::new(consumer);
    let name = format!("kafka-{}", context.lane);
    let poller = poll::Poller::new(Arc::clone(&consumer), Arc::clone(&group), kafka.clone(), config, context);
    let thread = std::thread::Builder::new()
        .name(name)
        .spawn(move || poller.run())
        .map_err(|error| PipelineError::stop("cannot start a thread for the Kafka consumer").because(error))?;
    let control = KafkaControl { consumer, group, thread: Arc::new(Mutex::new(Some(thread))) };
    Ok(SourceStream { events, control: SourceControl(Control::Kafka(control)) })
}

impl KafkaControl {
    /// Commits offsets of the partitions that are still ours. What the broker does not take, since it is away or the group
    /// changes, stays owed (`owed.rs`): the run goes on, and at worst those rows come twice.
    pub(super) async fn committed(&self, delta: CheckpointDelta) -> Result<(), PipelineError> {
        self.group.owe(&delta);
        commit::commit(&self.consumer, &self.group).await
    }

    /// Fails where a topic is not the one that was claimed. A broker that does not answer has not been asked for records
    /// either: then nothing is said.
    pub(super) async fn confirm(&self, delta: &CheckpointDelta) -> Result<(), PipelineError> {
        let claimed = self.group.claimed_ids(delta);
        if claimed.is_empty() {
            return Ok(());
        }
        let consumer = Arc::clone(&self.consumer);
        let topics = claimed.keys().map(Arc::clone).collect();
        let answer = tokio::task::spawn_blocking(move || topic_id::topic_ids(consumer.client(), &topics))
            .await
            .map_err(|error| PipelineError::retry("asking for the topics' ids ended abnormally").because(error))?;
        let found = answer.unwrap_or_else(|error| {
            tracing::debug!(%error, "Kafka: the broker did not say whether the topics are still the same");
            BTreeMap::new()
        });
        match claimed.iter().find(|(topic, id)| found.get(*topic).is_some_and(|found| found != *id)) {
            None => Ok(()),
            Some((topic, id)) => Err(PipelineError::stop(format!(
                "{topic}: the topic was deleted and made anew while it was read (its id was {id} and is {}), so what was read \
                 last cannot be told from records of the new one, and is not committed. {MADE_ANEW_ADVICE}",
                found.get(topic).map_or("unknown", String::as_str)
            ))),
        }
    }

    /// Asks the poll thread to end.
    pub(super) fn stop(&self) {
        self.group.stop();
    }

    /// Leaves the group, so that the others need not wait for the session to expire; gives up after a while.
    pub(super) async fn close(self) {
        // A commit that failed in a rebalance succeeds once the poll thread has carried the rebalance out. Where a ledger is the
        // truth, it is not worth waiting for.
        let patience = if self.group.has_ledger() { Duration::ZERO } else { LEAVE_TIMEOUT };
        let deadline = Instant::now() + patience;
        while !self.group.owed.is_empty() && Instant::now() < deadline {
            tokio::time::sleep(OWED_PAUSE).await;
        }
        self.group.close();
        let Self { consumer, group: _, thread } = self;
        let left = tokio::task::spawn_blocking(move || {
            let thread = thread.lock().unwrap_or_else(PoisonError::into_inner).take();
            // A thread that panicked has told so; there is nothing else to do about it here.
            let _ = thread.map(JoinHandle::join);
            drop(consumer);
        });
        if tokio::time::timeout(LEAVE_TIMEOUT, left).await.is_err() {
            tracing::warn!("the consumer could not leave its group in time; the others wait for its session to expire");
        }
    }
}

/// Asks the cluster whether it and the topics are there.
pub(super) async fn check(kafka: KafkaConfig) -> Result<(), PipelineError> {
    tokio::task::spawn_blocking(move || check_now(&kafka))
        .await
        .map_err(|error| PipelineError::retry("asking Kafka ended abnormally").because(error))?
}

/// The same, blocking.
fn check_now(kafka: &KafkaConfig) -> Result<(), PipelineError> {
    let servers = kafka.bootstrap_servers.join(",");
    let config: ClientConfig = client::base_config(kafka, "fs-data-sink-check");
    let context = client::Listener::new(kafka)?;
    let consumer: BaseConsumer<client::Listener> =
        config.create_with_context(context).map_err(|error| client::refused(kafka, error))?;
    consumer.context().attach(consumer.client());
    // Where a token is needed, it is asked for in a poll.
    let _ = consumer.poll(EVENT_WAIT);
    let metadata = consumer.fetch_metadata(None, CHECK_TIMEOUT).map_err(|error| {
        // Errors are heard only in a poll.
        for _ in 0..EVENTS_HEARD_MAX {
            let _ = consumer.poll(EVENT_WAIT);
        }
        let heard = consumer.context();
        let mut reason = heard.take_fatal().or_else(|| heard.last_error()).unwrap_or_else(|| "no answer".to_owned());
        // A listener of another protocol takes the connection and breaks it, of which librdkafka says no more than this.
        if reason.ends_with("brokers are down") {
            reason.push_str("; is security.protocol in source.extra_config the one of this listener?");
        }
        PipelineError::stop(format!("source.bootstrap_servers: cannot reach Kafka at {servers}: {reason}"))
            .because(error)
    })?;
    let known: Vec<&str> = metadata
        .topics()
        .iter()
        .map(rdkafka::metadata::MetadataTopic::name)
        .filter(|name| !name.starts_with("__"))
        .collect();
    for topic in kafka.topics.iter().filter(|topic| !topic.starts_with('^')) {
        if !known.contains(&topic.as_str()) {
            let some: Vec<_> = known.iter().take(20).copied().collect();
            return Err(PipelineError::stop(format!(
                "source.topics: the topic {topic:?} does not exist on {servers}; there are: {}",
                if some.is_empty() { "none".to_owned() } else { some.join(", ") }
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
