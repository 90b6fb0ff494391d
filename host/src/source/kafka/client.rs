//! From the configuration to librdkafka's properties, and what librdkafka says meanwhile.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rdkafka::{
    ClientConfig, ClientContext,
    config::RDKafkaLogLevel,
    consumer::ConsumerContext,
    error::{KafkaError, RDKafkaErrorCode},
};

use super::super::LaneContext;
use crate::{
    config::{Delivery, KafkaConfig},
    error::PipelineError,
    telemetry::rate_limit::RateLimited,
};

/// A broker that is away is told about at most this often.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// What every client of a pipeline has: servers, and what the user set.
pub(super) fn base_config(kafka: &KafkaConfig, client_id: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", kafka.bootstrap_servers.join(","))
        .set("client.id", client_id)
        .set("group.id", &kafka.group_id)
        .set_log_level(RDKafkaLogLevel::Warning);
    for (name, value) in &kafka.extra_config {
        config.set(name, value.reveal());
    }
    config
}

/// What the consumer of a lane has on top. The user's properties are set over these defaults; those that delivery
/// depends on were refused by the configuration and are set last.
pub(super) fn consumer_config(kafka: &KafkaConfig, context: &LaneContext) -> ClientConfig {
    // A quarter of the memory is librdkafka's, over all lanes; the floor keeps fetches efficient.
    let queue_kib = (context.run.memory_bytes / 4 / context.lanes.max(1) / 1024).clamp(4 * 1024, 64 * 1024);
    let mut config = ClientConfig::new();
    config
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed")
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("queued.max.messages.kbytes", queue_kib.to_string())
        .set("queued.min.messages", "50000")
        // By default a full queue is looked at again after a second, in which a lane has long emptied it.
        .set("fetch.queue.backoff.ms", "20")
        .set("fetch.wait.max.ms", "100")
        // A topic that appears later, or matches a pattern later, is found within this.
        .set("topic.metadata.refresh.interval.ms", "10000")
        .set("reconnect.backoff.max.ms", "5000")
        .set("statistics.interval.ms", if context.run.until_end { "500" } else { "5000" });
    let client_id = format!("fs-data-sink-{}-{}", context.pipeline, context.lane);
    // Not through `config_map`, which shows passwords only as a placeholder.
    config
        .set("bootstrap.servers", kafka.bootstrap_servers.join(","))
        .set("client.id", client_id)
        .set("group.id", &kafka.group_id);
    if kafka.topics.iter().any(|topic| topic.starts_with('^'))
        && !kafka.topics.iter().any(|topic| topic.starts_with("__"))
    {
        // Kafka's own topics are not meant by a pattern such as `^.*`.
        config.set("topic.blacklist", "^__.*");
    }
    for (name, value) in &kafka.extra_config {
        match name.as_str() {
            // Each lane is a member of its own.
            "group.instance.id" if context.lanes > 1 => {
                config.set(name, format!("{}-{}", value.reveal(), context.lane));
            }
            // The broker assigns then; librdkafka refuses a strategy beside it.
            "group.protocol" if value.reveal() == "consumer" => {
                config.remove("partition.assignment.strategy").set(name, value.reveal());
            }
            _ => {
                config.set(name, value.reveal());
            }
        }
    }
    config
        .set("allow.auto.create.topics", "false")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true")
        .set_log_level(RDKafkaLogLevel::Warning);
    if context.run.delivery == Delivery::ExactlyOnce {
        // Where reading begins is set for each partition (`begin.rs`). An offset that the broker has deleted meanwhile is told
        // of, so that what is missing is counted.
        config.set("auto.offset.reset", "error");
    }
    config
}

/// librdkafka did not take the properties.
pub(super) fn refused(kafka: &KafkaConfig, error: KafkaError) -> PipelineError {
    let names: Vec<_> = kafka.extra_config.iter().map(|(name, _)| name.as_str()).collect();
    let message = match &error {
        KafkaError::ClientConfig(_, reason, name, _) if !name.is_empty() => {
            return PipelineError::stop(format!("source.extra_config: librdkafka refuses {name}: {reason}"));
        }
        _ => format!("source: librdkafka refuses the configuration (extra_config has: {})", names.join(", ")),
    };
    PipelineError::stop(message).because(error)
}

/// Whether an error stays until a person acts, with the key to look at.
pub(super) fn for_a_person(code: RDKafkaErrorCode) -> Option<&'static str> {
    match code {
        RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed => {
            Some("the broker refuses the user or the password: see security.protocol and sasl.* in source.extra_config")
        }
        RDKafkaErrorCode::TopicAuthorizationFailed => Some("this user may not read the topics: see source.topics"),
        RDKafkaErrorCode::GroupAuthorizationFailed => Some("this user may not use the group: see source.group_id"),
        RDKafkaErrorCode::Fatal => Some("librdkafka cannot go on"),
        _ => None,
    }
}

/// Keeps the last error and logs errors at a bounded rate.
#[derive(Debug)]
pub(super) struct Listener {
    /// What librdkafka said last.
    last: Mutex<Option<String>>,
    /// The first error that stays until a person acts.
    fatal: Mutex<Option<String>>,
    /// Keeps the log readable.
    log: RateLimited,
}

impl Default for Listener {
    fn default() -> Self {
        Self { last: Mutex::default(), fatal: Mutex::default(), log: RateLimited::new(LOG_INTERVAL) }
    }
}

impl Listener {
    /// What librdkafka said last.
    pub(super) fn last_error(&self) -> Option<String> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The error that stays until a person acts, once.
    pub(super) fn take_fatal(&self) -> Option<String> {
        self.fatal.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Takes note of an error.
    pub(super) fn hear(&self, error: &KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        if code == Some(RDKafkaErrorCode::PartitionEOF) {
            return;
        }
        if let Some(advice) = code.and_then(for_a_person) {
            let message = format!("{advice}: {reason}");
            self.fatal.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(message);
        }
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
        if let Some(suppressed) = self.log.allow() {
            tracing::warn!(%error, reason, suppressed, "Kafka: librdkafka goes on trying");
        }
    }

    /// Logs what is tried again, at the same bounded rate.
    pub(super) fn tell(&self, reason: &str) {
        if let Some(suppressed) = self.log.allow() {
            tracing::warn!(reason, suppressed, "Kafka: trying again");
        }
    }
}

impl ClientContext for Listener {
    fn error(&self, error: KafkaError, reason: &str) {
        self.hear(&error, reason);
    }
}

impl ConsumerContext for Listener {}
