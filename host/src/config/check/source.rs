//! `source`: where records come from.

use std::{path::Path, time::Duration};

use chrono::DateTime;

use super::{
    decode::{self, Values},
    redis::{self, REDIS_KEYS},
};
use crate::config::{
    FileConfig, KafkaConfig, KafkaStart, Secret, SourceConfig, SourceKind, properties,
    reader::Section,
    topics,
    value::{choice, count_up_to, expected, positive_duration},
};

/// Most records of a batch: what one decode call works on.
const BATCH_ROWS_MAX: usize = 1_000_000;

/// Keys of a Kafka source.
const KAFKA_KEYS: [&str; 4] = ["bootstrap_servers", "topics", "group_id", "start_offsets"];

/// Keys of a file source.
const FILE_KEYS: [&str; 1] = ["paths"];

/// What a source is.
#[derive(Clone, Copy)]
enum Kind {
    /// Topics.
    Kafka,
    /// Streams and lists.
    Redis,
    /// Files.
    File,
}

/// The source, and how its values are encoded. The original has one of its keys in the section `pipeline`.
pub(super) fn read(section: Section<'_>, pipeline: &Section<'_>, folder: &Path) -> (Option<SourceConfig>, Values) {
    let old_timeout = pipeline.get("batch_timeout_seconds", positive_duration);
    if !section.is_there() {
        if section.node_is_missing() {
            section.fault("", "the section is missing: where do records come from?");
        }
        return (None, decode::values(&section));
    }
    let batch_rows_max = section.get_or("batch_size", 8_192, count_up_to(BATCH_ROWS_MAX));
    let batch_timeout = section
        .get("batch_timeout", positive_duration)
        .or(section.get("batch_timeout_seconds", positive_duration))
        .or(old_timeout)
        .unwrap_or(Duration::from_millis(250));
    let values = decode::values(&section);
    let _ = section.required_text("type", "kafka, redis or file");
    let kind = section
        .get("type", |text| choice(text, &[("kafka", Kind::Kafka), ("redis", Kind::Redis), ("file", Kind::File)]));
    let kind = match kind {
        Some(Kind::Kafka) => {
            let kafka = kafka(&section);
            section.only_with("type: file", &FILE_KEYS);
            section.only_with("type: redis", &REDIS_KEYS);
            SourceKind::Kafka(kafka)
        }
        Some(Kind::Redis) => {
            let redis = redis::read(&section, folder);
            section.only_with("type: file", &FILE_KEYS);
            section.only_with("type: kafka", &KAFKA_KEYS);
            SourceKind::Redis(Box::new(redis))
        }
        Some(Kind::File) => {
            let files = files(&section, folder);
            section.only_with("type: kafka", &KAFKA_KEYS);
            section.only_with("type: kafka", &["extra_config"]);
            section.only_with("type: kafka, type: redis", &["start"]);
            section.only_with("type: redis", &REDIS_KEYS);
            SourceKind::File(files)
        }
        // Which other keys it has depends on the type.
        None => return (None, values),
    };
    section.finish();
    (Some(SourceConfig { kind, batch_rows_max, batch_timeout }), values)
}

/// A Kafka source.
fn kafka(section: &Section<'_>) -> KafkaConfig {
    let bootstrap_servers = section.required_texts("bootstrap_servers", "a list of host:port");
    for (server, place) in &bootstrap_servers {
        let is_right = match server.rsplit_once(':') {
            Some((host, port)) => {
                !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok_and(|port| port > 0)
            }
            None => !server.is_empty() && !server.contains('/'),
        };
        if !is_right || server.contains(char::is_whitespace) {
            section.fault_at(place, "bootstrap_servers", format!("expected host:port, found {server:?}"));
        }
    }
    let topics = section.required_texts("topics", "a list of topics, or of patterns that begin with ^");
    for (topic, place) in &topics {
        if let Err(message) = topics::check(topic) {
            section.fault_at(place, "topics", message);
        }
    }
    let group_id = section.text("group_id").unwrap_or_else(|| "fs-data-sink-group".to_owned());
    if group_id.is_empty() {
        section.fault("group_id", "must not be empty; leave it out for fs-data-sink-group");
    }
    let mut extra_config: Vec<(String, Secret)> = Vec::new();
    for (name, value, place) in section.pairs("extra_config") {
        let key = format!("extra_config.{name}");
        match properties::librdkafka_name(name, value) {
            Ok(known) if extra_config.iter().any(|(other, _)| *other == known) => {
                section.fault_at(place, &key, format!("sets {known} a second time"));
            }
            Ok(known) => extra_config.push((known, Secret::new(value))),
            Err(message) => section.fault_at(place, &key, message),
        }
    }
    let start = section.get("start", kafka_start);
    if matches!(start, Some(KafkaStart::Earliest | KafkaStart::Latest))
        && extra_config.iter().any(|(name, _)| name == "auto.offset.reset")
    {
        section.fault("start", "stands beside extra_config.auto.offset.reset, which says the same; leave one out");
    }
    let mut start_offsets: Vec<(String, i32, i64)> = Vec::new();
    for (name, value, place) in section.pairs("start_offsets") {
        let key = format!("start_offsets.{name}");
        match start_offset(name, value) {
            Ok((topic, partition, _)) if start_offsets.iter().any(|one| (&one.0, one.1) == (&topic, partition)) => {
                section.fault_at(place, &key, "says the same partition a second time");
            }
            Ok(offset) => start_offsets.push(offset),
            Err(message) => section.fault_at(place, &key, message),
        }
    }
    let texts = |list: Vec<(String, _)>| list.into_iter().map(|(text, _)| text).collect();
    KafkaConfig {
        bootstrap_servers: texts(bootstrap_servers),
        topics: texts(topics),
        group_id,
        extra_config,
        start,
        start_offsets,
        has_topic_ids: true,
    }
}

/// `start` of a Kafka source.
fn kafka_start(text: &str) -> Result<KafkaStart, String> {
    match text {
        "earliest" => Ok(KafkaStart::Earliest),
        "latest" => Ok(KafkaStart::Latest),
        _ => match DateTime::parse_from_rfc3339(text) {
            Ok(time) if time.timestamp_millis() >= 0 => Ok(KafkaStart::At(time.timestamp_millis())),
            _ => Err(expected("earliest, latest, or a time since 1970 such as 2026-01-31T12:00:00Z", text)),
        },
    }
}

/// One of `start_offsets`: `topic[partition]` and an offset.
fn start_offset(name: &str, value: &str) -> Result<(String, i32, i64), String> {
    let parts = name.strip_suffix(']').and_then(|name| name.rsplit_once('['));
    let Some((topic, Ok(partition))) = parts.map(|(topic, number)| (topic, number.parse::<i32>())) else {
        return Err("expected a partition such as \"orders[0]\" as the key".to_owned());
    };
    match value.parse() {
        Ok(offset) if offset >= 0 && partition >= 0 && !topic.is_empty() => Ok((topic.to_owned(), partition, offset)),
        _ => Err(expected("a partition such as \"orders[0]\", and an offset from 0 on", value)),
    }
}

/// A file source.
fn files(section: &Section<'_>, folder: &Path) -> FileConfig {
    let what = "a list of files, patterns such as data/*.ndjson, or - for standard input";
    let mut paths = Vec::new();
    for (path, place) in section.required_texts("paths", what) {
        if let Err(error) = glob::Pattern::new(&path) {
            section.fault_at(&place, "paths", format!("the pattern {path:?} cannot be used: {}", error.msg));
        }
        let is_input = path == "-";
        paths.push(if is_input { path } else { Section::resolve(&place, folder, &path).display().to_string() });
    }
    FileConfig { paths }
}
