//! Topics of Kafka: a source of that type, and what a topic for dead letters has in common with it.

use chrono::DateTime;

use crate::config::{
    KafkaConfig, KafkaStart, OauthConfig, Secret, fault::Place, properties, reader::Section, topics, value::expected,
};

/// Keys of a Kafka source that no other has.
pub(super) const KAFKA_KEYS: [&str; 4] = ["bootstrap_servers", "topics", "group_id", "start_offsets"];

/// A Kafka source.
pub(super) fn read(section: &Section<'_>) -> KafkaConfig {
    let bootstrap_servers = servers(section, section.required_texts("bootstrap_servers", "a list of host:port"));
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
    let extra_config = librdkafka(section, &[]);
    sasl(section, &extra_config);
    group_protocol(section, &extra_config);
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
    KafkaConfig {
        bootstrap_servers,
        topics: topics.into_iter().map(|(topic, _)| topic).collect(),
        group_id,
        extra_config,
        start,
        start_offsets,
        has_topic_ids: true,
    }
}

/// What members of a group do not say themselves where the broker assigns partitions (KIP-848); librdkafka refuses it when it starts.
fn group_protocol(section: &Section<'_>, extra_config: &[(String, Secret)]) {
    let is_consumer = |(name, value): &(String, Secret)| name == "group.protocol" && value.reveal() == "consumer";
    if !extra_config.iter().any(is_consumer) {
        return;
    }
    let brokers = [
        ("session.timeout.ms", "the broker's group.consumer.session.timeout.ms"),
        ("heartbeat.interval.ms", "the broker's group.consumer.heartbeat.interval.ms"),
        ("group.protocol.type", "nothing else; leave it out"),
    ];
    for (name, instead) in brokers.iter().filter(|(name, _)| extra_config.iter().any(|(given, _)| given == name)) {
        let message = format!("has no meaning beside `group.protocol: consumer`, in which it is {instead}");
        section.fault(&format!("extra_config.{name}"), message);
    }
}

/// Properties of SASL that only make sense together.
pub(super) fn sasl(section: &Section<'_>, extra_config: &[(String, Secret)]) {
    if let Err(message) = OauthConfig::of(extra_config) {
        section.fault("extra_config", message);
    }
    for (name, value) in extra_config.iter().filter(|(name, _)| name.starts_with("sasl.kerberos.")) {
        // librdkafka writes them into a command of a shell.
        let is_word = |character: char| character.is_alphanumeric() || "-_./@:".contains(character);
        if !value.reveal().chars().all(is_word) {
            section.fault("extra_config", format!("{name}: expected letters, digits and any of -_./@:"));
        }
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

/// `bootstrap_servers`, each held against what an address looks like.
pub(super) fn servers(section: &Section<'_>, servers: Vec<(String, Place)>) -> Vec<String> {
    for (server, place) in &servers {
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
    servers.into_iter().map(|(server, _)| server).collect()
}

/// `extra_config`: librdkafka's names and values. Those in `refused` are not the user's here, with the reason.
pub(super) fn librdkafka(section: &Section<'_>, refused: &[(&str, &str)]) -> Vec<(String, Secret)> {
    let mut found: Vec<(String, Secret)> = Vec::new();
    for (name, value, place) in section.pairs("extra_config") {
        let key = format!("extra_config.{name}");
        match properties::librdkafka_name(name, value) {
            Ok(known) if found.iter().any(|(other, _)| *other == known) => {
                section.fault_at(place, &key, format!("sets {known} a second time"));
            }
            Ok(known) => {
                if let Some((_, reason)) = refused.iter().find(|(refused, _)| *refused == known) {
                    section.fault_at(place, &key, format!("{known} cannot be set here: {reason}"));
                }
                found.push((known, Secret::new(value)));
            }
            Err(message) => section.fault_at(place, &key, message),
        }
    }
    found
}
