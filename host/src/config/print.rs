//! The configuration in force as YAML: defaults, variables, environment and flags included, secrets masked.
//!
//! It is made from the checked types and can be loaded again, apart from the secrets.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{
    ClientTls, Config, DeadLetterConfig, Delivery, ErrorHandling, KafkaLetterConfig, LogFormat, PipelineConfig,
    RunConfig, Secret, TelemetryConfig, TenantConfig, properties::is_secret,
};

mod download;
mod grants;
mod plugin;
mod schema;
mod sink;
mod source;
mod text;

pub use schema::schema_yaml;

/// What stands in the place of a secret.
const MASK: &str = "***";

/// The whole as YAML.
pub(super) fn yaml(config: &Config) -> String {
    let mut top = match config.pipelines.as_slice() {
        [only] => {
            let mut top = Map::from_iter([("name".to_owned(), json!(*only.name))]);
            top.extend(pipeline(only));
            top
        }
        several => {
            let pipelines: Map<_, _> =
                several.iter().map(|one| (one.name.to_string(), Value::Object(pipeline(one)))).collect();
            Map::from_iter([("pipelines".to_owned(), Value::Object(pipelines))])
        }
    };
    if !config.tenants.is_empty() {
        let tenants: Map<_, _> = config.tenants.iter().map(|(name, one)| (name.to_string(), tenant(one))).collect();
        top.insert("tenants".to_owned(), Value::Object(tenants));
    }
    top.insert("telemetry".to_owned(), telemetry(&config.telemetry));
    let mut text = "# Relative paths begin at the working folder.\n".to_owned();
    text::write(&mut text, &Value::Object(top), 0);
    text
}

/// One pipeline.
fn pipeline(config: &PipelineConfig) -> Map<String, Value> {
    let PipelineConfig { name: _, tenant, source: from, decode, plugins, sink: to, run: when, dead_letter } = config;
    let plugins: Vec<_> = plugins.iter().map(|one| plugin::plugin(one)).collect();
    let sections = [
        ("tenant", json!(**tenant)),
        ("source", source::source(from, decode)),
        ("schema", schema::schema(decode)),
        ("plugins", json!(plugins)),
        ("sink", sink::sink(to)),
        ("pipeline", run(when)),
        ("dead_letter", letters(dead_letter)),
    ];
    sections.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// The budgets of a tenant.
fn tenant(config: &TenantConfig) -> Value {
    json!({
        "memory": config.memory_bytes,
        "open_files": config.open_files,
        "plugin_instances": config.plugin_instances,
        "cpu_share": config.cpu_share,
        "bytes_per_second": config.bytes_per_second,
        "egress_bytes_per_second": config.egress_bytes_per_second,
        "limits": config.plugin_limits.map(plugin::set_limits),
        "untrusted": config.is_untrusted,
    })
}

/// The place for refused records.
fn letters(config: &DeadLetterConfig) -> Value {
    match config {
        DeadLetterConfig::Store => json!({"type": "store"}),
        DeadLetterConfig::None => json!({"type": "none"}),
        DeadLetterConfig::Kafka(KafkaLetterConfig { bootstrap_servers, topic, extra_config, retry_timeout: _ }) => {
            json!({
                "type": "kafka",
                "topic": topic,
                "bootstrap_servers": bootstrap_servers,
                "extra_config": librdkafka(extra_config),
            })
        }
    }
}

/// librdkafka's properties, without secrets.
fn librdkafka(properties: &[(String, Secret)]) -> Map<String, Value> {
    let shown =
        |(name, value): &(String, Secret)| (name.clone(), json!(if is_secret(name) { MASK } else { value.reveal() }));
    properties.iter().map(shown).collect()
}

/// TLS of a Redis source.
fn client_tls(config: Option<&ClientTls>) -> Value {
    match config {
        None => json!(false),
        Some(tls) if tls.ca_file.is_none() && tls.identity.is_none() => json!(true),
        Some(tls) => {
            let path = |path: &std::path::PathBuf| path.display().to_string();
            json!({
                "ca_file": tls.ca_file.as_ref().map(path),
                "cert_file": tls.identity.as_ref().map(|(cert, _)| path(cert)),
                "key_file": tls.identity.as_ref().map(|(_, key)| path(key)),
            })
        }
    }
}

/// When files are finished, and what may be in flight.
fn run(config: &RunConfig) -> Value {
    let delivery = match config.delivery {
        Delivery::AtLeastOnce => "at_least_once",
        Delivery::ExactlyOnce => "exactly_once",
    };
    let error_handling = match config.error_handling {
        ErrorHandling::Log => "log",
        ErrorHandling::Raise => "raise",
        ErrorHandling::Ignore => "ignore",
    };
    json!({
        "delivery": delivery,
        "commit_interval": duration(config.commit_interval),
        "flush_interval_batches": config.commit_interval_batches,
        "target_file_size": config.target_file_size_bytes,
        "target_file_rows": config.target_file_rows,
        "open_files_max": config.open_files_max,
        "memory": config.memory_bytes,
        "lanes": config.lanes.map_or_else(|| json!("auto"), |lanes| json!(lanes)),
        "error_handling": error_handling,
        "max_batches": config.batches_max,
        "shutdown_timeout": duration(config.shutdown_timeout),
    })
}

/// Logs, metrics and traces.
fn telemetry(config: &TelemetryConfig) -> Value {
    let log_format = match config.log_format {
        LogFormat::Json => "json",
        LogFormat::Text => "text",
    };
    json!({
        "log_level": config.log_level,
        "log_format": log_format,
        "enabled": config.enabled,
        "service_name": config.service_name,
        "otlp_endpoint": config.otlp_endpoint,
        "trace_enabled": config.trace_enabled,
        "metrics_enabled": config.metrics_enabled,
        "listen": config.listen.map_or_else(|| "none".to_owned(), |listen| listen.to_string()),
    })
}

/// `60s`, or milliseconds where seconds are too coarse.
fn duration(config: Duration) -> Value {
    if config.subsec_nanos() == 0 {
        return json!(format!("{}s", config.as_secs()));
    }
    json!(format!("{}ms", config.as_secs_f64() * 1_000.0))
}

/// Adds a key to a map.
fn set(value: &mut Value, key: &str, inner: Value) {
    if let Value::Object(entries) = value {
        entries.insert(key.to_owned(), inner);
    }
}
