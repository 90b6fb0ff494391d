//! `source`: where records come from, and how their values are encoded.

use chrono::{DateTime, SecondsFormat};
use serde_json::{Map, Value, json};

use super::{client_tls, duration, librdkafka, set};
use crate::config::{
    ClientTls, DecodeConfig, KafkaStart, OnTombstone, RedisAddress, RedisConfig, RedisConnection, RedisEntry,
    RedisListRead, RedisServers, RedisStart, RegistryConfig, SchemaSources, Secret, SourceConfig, SourceKind,
    ValueFormat,
};

/// The source.
pub(super) fn source(config: &SourceConfig, decode: &DecodeConfig) -> Value {
    let SourceConfig { kind, batch_rows_max, batch_timeout } = config;
    let mut value = match kind {
        SourceKind::Kafka(kafka) => {
            let start = kafka.start.map(|start| match start {
                KafkaStart::Earliest => "earliest".to_owned(),
                KafkaStart::Latest => "latest".to_owned(),
                KafkaStart::At(time_ms) => DateTime::from_timestamp_millis(time_ms)
                    .map(|time| time.to_rfc3339_opts(SecondsFormat::AutoSi, true))
                    .unwrap_or_default(),
            });
            let offset =
                |(topic, partition, offset): &(String, i32, i64)| (format!("{topic}[{partition}]"), json!(offset));
            let mut value = json!({
                "type": "kafka",
                "bootstrap_servers": kafka.bootstrap_servers,
                "topics": kafka.topics,
                "group_id": kafka.group_id,
                "extra_config": librdkafka(&kafka.extra_config),
            });
            set(&mut value, "start", json!(start));
            if !kafka.start_offsets.is_empty() {
                let offsets: Map<_, _> = kafka.start_offsets.iter().map(offset).collect();
                set(&mut value, "start_offsets", Value::Object(offsets));
            }
            value
        }
        SourceKind::File(file) => json!({"type": "file", "paths": file.paths}),
        SourceKind::Redis(config) => redis(config),
        SourceKind::Letters(_) => json!({"type": kind.as_str()}),
    };
    let format = match decode.format {
        ValueFormat::Json => "json",
        ValueFormat::ArrowIpc => "arrow_ipc",
        ValueFormat::Avro => "avro",
        ValueFormat::Protobuf => "protobuf",
        ValueFormat::JsonSchema => "json_schema",
        ValueFormat::Raw => "raw",
    };
    set(&mut value, "value_format", json!(format));
    schemas(&mut value, &decode.schemas);
    if decode.format == ValueFormat::Json {
        let step = |step: &String| format!("/{}", step.replace('~', "~0").replace('/', "~1"));
        let pointer: String = decode.payload_pointer.iter().map(step).collect();
        set(&mut value, "payload_pointer", json!(Some(pointer).filter(|pointer| !pointer.is_empty())));
    }
    if decode.format != ValueFormat::Raw {
        let on_tombstone = match decode.on_tombstone {
            OnTombstone::Skip => "skip",
            OnTombstone::NullRow => "null_row",
            OnTombstone::Reject => "reject",
        };
        set(&mut value, "on_tombstone", json!(on_tombstone));
    }
    set(&mut value, "batch_size", json!(batch_rows_max));
    set(&mut value, "batch_timeout", duration(*batch_timeout));
    value
}

/// Where schemas come from that values are written with.
fn schemas(source: &mut Value, schemas: &SchemaSources) {
    let SchemaSources { registry, avro_file, protobuf_file } = schemas;
    if let Some(file) = avro_file {
        set(source, "avro", json!({"schema_file": file.display().to_string()}));
    }
    if let Some((file, message)) = protobuf_file {
        set(source, "protobuf", json!({"descriptor_file": file.display().to_string(), "message": message}));
    }
    let Some(RegistryConfig { urls, username, password, bearer_token, tls, timeout }) = registry else {
        return;
    };
    let mut registry = json!({
        "url": urls,
        "username": username,
        "password": password.as_ref().map(Secret::to_string),
        "bearer_token": bearer_token.as_ref().map(Secret::to_string),
    });
    if *tls != ClientTls::default() {
        set(&mut registry, "tls", client_tls(Some(tls)));
    }
    set(&mut registry, "timeout", duration(*timeout));
    set(source, "schema_registry", registry);
}

/// A Redis source. What a `url` said is in the other keys.
fn redis(config: &RedisConfig) -> Value {
    let RedisConfig {
        connection,
        stream_keys,
        list_keys,
        list_read,
        consumer_group,
        consumer_name,
        is_continuous,
        entry,
        start,
        session_timeout,
        claim_idle,
        deliveries_max,
        scope: _,
    } = config;
    let mut value = json!({"type": "redis"});
    redis_connection(&mut value, connection);
    for (key, keys) in [("stream_keys", stream_keys), ("list_keys", list_keys)] {
        if !keys.is_empty() {
            set(&mut value, key, json!(keys));
        }
    }
    if *list_read == RedisListRead::Pop {
        set(&mut value, "list_read", json!("pop"));
    }
    set(&mut value, "consumer_group", json!(consumer_group));
    set(&mut value, "consumer_name", json!(consumer_name));
    set(&mut value, "continuous", json!(is_continuous));
    match entry {
        RedisEntry::Field(field) => set(&mut value, "payload_field", json!(field)),
        RedisEntry::Record => set(&mut value, "entry", json!("record")),
    }
    let start = match start {
        RedisStart::Earliest => "earliest",
        RedisStart::Latest => "latest",
    };
    set(&mut value, "start", json!(start));
    set(&mut value, "session_timeout", duration(*session_timeout));
    set(&mut value, "claim_idle", duration(*claim_idle));
    set(&mut value, "deliveries_max", json!(deliveries_max));
    value
}

/// Where a Redis is, and who we are.
pub(super) fn redis_connection(value: &mut Value, config: &RedisConnection) {
    let RedisConnection { servers, username, password, db, tls } = config;
    let texts = |nodes: &[RedisAddress]| nodes.iter().map(ToString::to_string).collect::<Vec<_>>();
    match servers {
        RedisServers::Single(RedisAddress { host, port }) => {
            set(value, "host", json!(host));
            set(value, "port", json!(port));
        }
        RedisServers::Cluster(nodes) => {
            set(value, "cluster", json!(true));
            set(value, "nodes", json!(texts(nodes)));
        }
        RedisServers::Sentinel { master_name, nodes, username, password } => {
            let password = password.as_ref().map(Secret::to_string);
            let sentinel =
                json!({"master_name": master_name, "nodes": texts(nodes), "username": username, "password": password});
            set(value, "sentinel", sentinel);
        }
    }
    set(value, "db", json!(db));
    set(value, "username", json!(username));
    set(value, "password", json!(password.as_ref().map(Secret::to_string)));
    set(value, "tls", client_tls(tls.as_ref()));
}
