//! Refused records to a Kafka topic, as Kafka Connect's dead letter queue has them.
//!
//! Comes in: the letters of a generation, before its offsets are committed. Goes out: the same records in the topic, acknowledged by all
//! replicas in sync. Key, value, headers and time are the record's own; `__connect.errors.*` headers say what Connect's say
//! (`ConnectHeaders` of its `DeadLetterQueueReporter`), and `fs_data_sink.*` what only we know. Promises: nothing returns before
//! every letter is in the topic. A kill in between sends them again: once more in the topic, never fewer.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures::future::join_all;
use rdkafka::{
    ClientConfig,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord, Producer as _},
    util::Timeout,
};

use crate::{
    batch::{DeadLetter, Stage, rfc3339},
    commit::CommitContext,
    config::{KafkaLetterConfig, librdkafka_properties as librdkafka},
    error::PipelineError,
    oauth::Tokens,
};

/// Letters on their way at a time: enough to fill librdkafka's batches.
const IN_FLIGHT_MAX: usize = 1_000;

/// What librdkafka may hold of them; a letter that finds no room waits.
const QUEUE_KIB: &str = "16384";

/// The longest timeout that librdkafka takes; none at all would be for ever.
const TIMEOUT_MS_MAX: u128 = i32::MAX.unsigned_abs() as u128;

/// How long `validate --connect` waits for an answer.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// What Connect's headers begin with. Those of an earlier round are replaced.
const CONNECT: &str = "__connect.errors.";

/// What ours begin with.
const OURS: &str = "fs_data_sink.";

/// Sends the letters of one lane.
pub(in crate::commit) struct LetterProducer {
    /// Where to.
    config: KafkaLetterConfig,
    /// Made with the first letter, and anew after a failure.
    producer: Mutex<Option<FutureProducer<Tokens>>>,
}

impl fmt::Debug for LetterProducer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("LetterProducer").field("topic", &self.config.topic).finish_non_exhaustive()
    }
}

impl LetterProducer {
    /// Nothing is connected yet.
    pub(in crate::commit) fn new(config: KafkaLetterConfig) -> Self {
        Self { config, producer: Mutex::new(None) }
    }

    /// Sends letters; gives back those that are too large for the topic.
    pub(in crate::commit) async fn send(
        &self,
        context: &CommitContext,
        letters: &[DeadLetter],
    ) -> Result<Vec<DeadLetter>, PipelineError> {
        if letters.is_empty() {
            return Ok(Vec::new());
        }
        let producer = self.producer()?;
        let (mut too_large, mut failure) = (Vec::new(), None);
        for some in letters.chunks(IN_FLIGHT_MAX) {
            let sent = some.iter().map(|letter| self.send_one(&producer, context, letter));
            let mut refused = Vec::new();
            for (letter, error) in some.iter().zip(join_all(sent).await) {
                match error {
                    Some(error) if is_too_large(&error) => refused.push(letter),
                    error => failure = error.or(failure),
                }
            }
            // The broker refuses a batch whole: only a letter that comes alone is told its own size.
            for letter in refused {
                match self.send_one(&producer, context, letter).await {
                    Some(error) if is_too_large(&error) => too_large.push(letter.clone()),
                    error => failure = error.or(failure),
                }
            }
            if failure.is_some() {
                break;
            }
        }
        if let Some(error) = failure {
            // A producer that has failed fatally stays so.
            *self.producer.lock().unwrap_or_else(PoisonError::into_inner) = None;
            return Err(self.failed(error));
        }
        if !too_large.is_empty() {
            tracing::warn!(pipeline = %context.pipeline, lane = context.lane, topic = self.config.topic, letters = too_large.len(),
                "dead letters are larger than the topic takes; they go to the store (raise the topic's max.message.bytes, and \
                 message.max.bytes in dead_letter.extra_config)");
        }
        Ok(too_large)
    }

    /// Sends a letter; why it is not in the topic. Letters are looked at one by one, so they keep no order.
    async fn send_one(
        &self,
        producer: &FutureProducer<Tokens>,
        context: &CommitContext,
        letter: &DeadLetter,
    ) -> Option<KafkaError> {
        let record = letter.record.as_ref();
        let mut message = FutureRecord::<[u8], [u8]>::to(&self.config.topic).headers(headers(context, letter));
        message.key = record.and_then(|record| record.key.as_deref());
        message.payload = record.and_then(|record| record.value.as_deref());
        message.timestamp = record.and_then(|record| record.timestamp_ms);
        producer.send(message, Timeout::Never).await.err().map(|(error, _)| error)
    }

    /// The producer, made where there is none.
    fn producer(&self) -> Result<FutureProducer<Tokens>, PipelineError> {
        let mut producer = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(producer) = &*producer {
            return Ok(producer.clone());
        }
        let made = make(&self.config)?;
        *producer = Some(made.clone());
        Ok(made)
    }

    /// What a letter that could not be sent means.
    fn failed(&self, error: KafkaError) -> PipelineError {
        let KafkaLetterConfig { topic, bootstrap_servers, retry_timeout, .. } = &self.config;
        let servers = bootstrap_servers.join(",");
        let words = match error.rdkafka_error_code() {
            Some(
                RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownPartition,
            ) => return missing(&self.config).because(error),
            Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
                format!("dead_letter.topic: this user may not write to the topic {topic:?}")
            }
            Some(RDKafkaErrorCode::MessageTimedOut) => format!(
                "dead_letter: the topic {topic:?} on {servers} took no record for {} s (sink.retry_timeout)",
                retry_timeout.as_secs()
            ),
            // After a fatal error of the idempotent producer a new one begins anew.
            _ => {
                return PipelineError::restart(format!("dead_letter: cannot write to the topic {topic:?}"))
                    .because(error);
            }
        };
        PipelineError::stop(words).because(error)
    }
}

/// Asks whether the topic is there.
pub(in crate::commit) async fn check(config: KafkaLetterConfig) -> Result<(), PipelineError> {
    let asked = tokio::task::spawn_blocking(move || {
        let KafkaLetterConfig { topic, bootstrap_servers, .. } = &config;
        let servers = bootstrap_servers.join(",");
        let producer = make(&config)?;
        // Of all topics: asking for one by its name may make it.
        let metadata = producer.client().fetch_metadata(None, CHECK_TIMEOUT).map_err(|error| {
            PipelineError::stop(format!("dead_letter.bootstrap_servers: cannot reach Kafka at {servers}"))
                .because(error)
        })?;
        let is_there = metadata.topics().iter().any(|found| found.name() == topic && !found.partitions().is_empty());
        if is_there { Ok(()) } else { Err(missing(&config)) }
    });
    asked.await.map_err(|error| PipelineError::stop("asking Kafka ended abnormally").because(error))?
}

/// Whether the letter, or the batch that it was in, is larger than the topic or the client takes.
fn is_too_large(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize)
    )
}

/// The topic is not there.
fn missing(KafkaLetterConfig { topic, bootstrap_servers, .. }: &KafkaLetterConfig) -> PipelineError {
    let servers = bootstrap_servers.join(",");
    PipelineError::stop(format!("dead_letter.topic: the topic {topic:?} does not exist on {servers}; create it"))
}

/// A producer.
fn make(config: &KafkaLetterConfig) -> Result<FutureProducer<Tokens>, PipelineError> {
    let tokens = Tokens::new(&config.extra_config)?;
    let producer: FutureProducer<Tokens> =
        client_config(config).create_with_context(tokens.clone()).map_err(refused)?;
    tokens.attach(producer.client());
    Ok(producer)
}

/// What the producer is made with. What delivery depends on is set last.
fn client_config(config: &KafkaLetterConfig) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("client.id", "fs-data-sink-dead-letters").set("compression.type", "lz4").set("linger.ms", "5");
    for (name, value) in librdkafka(&config.extra_config) {
        client.set(name, value);
    }
    client
        .set("bootstrap.servers", config.bootstrap_servers.join(","))
        .set("enable.idempotence", "true")
        .set("queue.buffering.max.kbytes", QUEUE_KIB)
        .set("message.timeout.ms", config.retry_timeout.as_millis().clamp(1, TIMEOUT_MS_MAX).to_string())
        .set_log_level(RDKafkaLogLevel::Warning);
    client
}

/// librdkafka did not take the properties.
fn refused(error: KafkaError) -> PipelineError {
    let words = match &error {
        KafkaError::ClientConfig(_, reason, name, _) if !name.is_empty() => {
            format!("dead_letter.extra_config: librdkafka refuses {name}: {reason}")
        }
        _ => "dead_letter: librdkafka refuses the configuration".to_owned(),
    };
    PipelineError::stop(words).because(error)
}

/// The headers of a letter: the record's own, Connect's, and ours.
fn headers(context: &CommitContext, letter: &DeadLetter) -> OwnedHeaders {
    let record = letter.record.as_ref();
    let own = record.map(|record| record.headers.as_slice()).unwrap_or_default();
    let mut headers = OwnedHeaders::new_with_capacity(own.len() + 12);
    for (key, value) in own.iter().filter(|(key, _)| !key.starts_with(CONNECT) && !key.starts_with(OURS)) {
        headers = headers.insert(Header { key, value: value.as_deref() });
    }
    for (key, value) in words(&context.pipeline, context.lane, letter) {
        headers = headers.insert(Header { key: &key, value: Some(value.as_bytes()) });
    }
    headers
}

/// What is said about a letter.
fn words(pipeline: &str, lane: usize, letter: &DeadLetter) -> Vec<(String, String)> {
    let DeadLetter { record, stage, plugin, code, message, time } = letter;
    // Connect's names of its stages.
    let connect_stage = match stage {
        Stage::Source => "TASK_POLL",
        Stage::Decode => "VALUE_CONVERTER",
        Stage::Plugin => "TRANSFORMATION",
        Stage::Partition => "TASK_PUT",
    };
    let place = plugin.as_deref().unwrap_or_else(|| stage.as_str());
    let mut words = Vec::with_capacity(12);
    let mut say = |prefix: &str, key: &str, value: String| words.push((format!("{prefix}{key}"), value));
    if let Some(record) = record {
        say(CONNECT, "topic", record.topic.clone());
        say(CONNECT, "partition", record.partition.to_string());
        say(CONNECT, "offset", record.offset.to_string());
    }
    say(CONNECT, "connector.name", pipeline.to_owned());
    say(CONNECT, "task.id", lane.to_string());
    say(CONNECT, "stage", connect_stage.to_owned());
    say(CONNECT, "class.name", place.to_owned());
    say(CONNECT, "exception.class.name", code.clone());
    say(CONNECT, "exception.message", message.clone());
    say(OURS, "stage", stage.as_str().to_owned());
    if let Some(plugin) = plugin {
        say(OURS, "plugin", plugin.to_string());
    }
    say(OURS, "time", rfc3339(*time));
    words
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::batch::OriginalRecord;

    #[test]
    fn a_letter_says_what_connects_say() {
        let record = OriginalRecord {
            topic: "orders".to_owned(),
            partition: 3,
            offset: 7,
            timestamp_ms: None,
            key: None,
            value: None,
            headers: Vec::new(),
        };
        let letter = DeadLetter {
            record: Some(record),
            stage: Stage::Decode,
            plugin: None,
            code: "bad-json".to_owned(),
            message: "no object".to_owned(),
            time: SystemTime::UNIX_EPOCH,
        };
        let said = words("lake", 1, &letter);
        let said: Vec<_> = said.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(
            said,
            [
                "__connect.errors.topic=orders",
                "__connect.errors.partition=3",
                "__connect.errors.offset=7",
                "__connect.errors.connector.name=lake",
                "__connect.errors.task.id=1",
                "__connect.errors.stage=VALUE_CONVERTER",
                "__connect.errors.class.name=decode",
                "__connect.errors.exception.class.name=bad-json",
                "__connect.errors.exception.message=no object",
                "fs_data_sink.stage=decode",
                "fs_data_sink.time=1970-01-01T00:00:00.000Z",
            ]
        );
    }
}
