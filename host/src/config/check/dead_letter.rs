//! `dead_letter`: where refused records go.

use std::time::Duration;

use regex::Regex;

use super::kafka;
use crate::config::{DeadLetterConfig, KafkaConfig, KafkaLetterConfig, Secret, reader::Section, topics, value::choice};

/// Keys of a topic for dead letters.
const KAFKA_KEYS: [&str; 3] = ["topic", "bootstrap_servers", "extra_config"];

/// Properties of the source that are about the connection, by how they begin: a topic on the same brokers needs them too.
const CONNECTION: [&str; 8] =
    ["security.", "sasl.", "ssl.", "enable.ssl.", "https.", "broker.address.", "client.dns.", "socket."];

/// Properties that delivery depends on, with the reason.
const REFUSED: [(&str, &str); 7] = [
    ("acks", ACKS),
    ("request.required.acks", ACKS),
    ("enable.idempotence", ACKS),
    ("transactional.id", "letters are sent without transactions"),
    ("message.timeout.ms", "use sink.retry_timeout"),
    ("delivery.timeout.ms", "use sink.retry_timeout"),
    ("queue.buffering.max.kbytes", "it is bounded, so that letters do not take the pipeline's memory"),
];

/// Why acknowledgements are not the user's.
const ACKS: &str = "offsets are committed only after all replicas in sync have the letters";

/// What kind of place it is.
#[derive(Clone, Copy)]
enum Kind {
    /// The sink's store.
    Store,
    /// A topic.
    Kafka,
    /// None.
    None,
}

/// Where refused records go. A Kafka source gives what a topic beside it needs.
pub(super) fn read(section: Section<'_>, source: Option<&KafkaConfig>, retry_timeout: Duration) -> DeadLetterConfig {
    let kinds = [("store", Kind::Store), ("kafka", Kind::Kafka), ("none", Kind::None)];
    let kind = section.get("type", |text| choice(text, &kinds));
    // With a wrong type it is not known which keys belong to it.
    let is_wrong = kind.is_none() && section.has("type");
    let config = match kind.unwrap_or(Kind::Store) {
        Kind::Kafka => topic(&section, source, retry_timeout),
        kind => {
            if !is_wrong {
                section.only_with("type: kafka", &KAFKA_KEYS);
            }
            if matches!(kind, Kind::None) { DeadLetterConfig::None } else { DeadLetterConfig::Store }
        }
    };
    if !is_wrong {
        section.finish();
    }
    config
}

/// Whether a topic of the source, or a pattern of topics, is or names this one.
fn reads(read: &str, topic: &str) -> bool {
    // librdkafka's patterns are POSIX's, of which these are a part.
    read == topic || read.starts_with('^') && Regex::new(read).is_ok_and(|pattern| pattern.is_match(topic))
}

/// A topic.
fn topic(section: &Section<'_>, source: Option<&KafkaConfig>, retry_timeout: Duration) -> DeadLetterConfig {
    let topic = section.required_text("topic", "the name of a topic").unwrap_or_default();
    if !topic.is_empty() {
        let checked = if topic.starts_with('^') {
            Err("letters go to one topic; a pattern is none".to_owned())
        } else {
            topics::check(&topic)
        };
        if let Err(message) = checked {
            section.fault("topic", message);
        }
        if source.is_some_and(|source| source.topics.iter().any(|read| reads(read, &topic))) {
            section.fault("topic", "is read by this pipeline's own source: refused records would come back for ever");
        }
    }
    let own = kafka::servers(section, section.texts("bootstrap_servers"));
    let bootstrap_servers = match source {
        _ if !own.is_empty() => own,
        Some(source) => source.bootstrap_servers.clone(),
        None => {
            section.fault("bootstrap_servers", "is missing: the source is not Kafka, so say host:port");
            Vec::new()
        }
    };
    let is_connection = |name: &str| CONNECTION.iter().any(|start| name.starts_with(start));
    let mut extra_config: Vec<(String, Secret)> = source
        .filter(|source| source.bootstrap_servers == bootstrap_servers)
        .map(|source| source.extra_config.iter().filter(|(name, _)| is_connection(name)).cloned().collect())
        .unwrap_or_default();
    let own = kafka::librdkafka(section, &REFUSED);
    extra_config.retain(|(inherited, _)| !own.iter().any(|(name, _)| name == inherited));
    let is_new = !own.is_empty();
    extra_config.extend(own);
    if is_new {
        kafka::sasl(section, &extra_config);
    }
    DeadLetterConfig::Kafka(KafkaLetterConfig { bootstrap_servers, topic, extra_config, retry_timeout })
}
