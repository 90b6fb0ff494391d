//! The configuration in force as YAML: defaults, variables, environment and flags included, secrets masked.
//!
//! It is made from the checked types and can be loaded again, apart from the secrets.

use std::{fmt::Write as _, time::Duration};

use arrow_schema::{Field, FieldRef, Schema};
use chrono::{DateTime, SecondsFormat};
use serde_json::{Map, Value, json};

use super::{
    AzureConfig, AzureCredentials, ClientTls, Compression, Config, DeadLetterConfig, DecodeConfig, Delivery, Encoding,
    ErrorHandling, GcsConfig, GcsCredentials, HdfsConfig, HdfsProtocol, JsonHints, KafkaLetterConfig, KafkaStart,
    LogFormat, MergeConfig, MergePeriod, MergeVisibility, MetadataColumn, OnNewField, OnReject, OnTombstone,
    OnTypeChange, ParquetConfig, PartitionColumn, PartitionTransform, PipelineConfig, PluginConfig, PluginLimits,
    RedisAddress, RedisConfig, RedisConnection, RedisEntry, RedisListRead, RedisServers, RedisStart, RegistryConfig,
    RunConfig, SchemaSources, Secret, Signature, SinkConfig, SinkKind, SortColumn, SourceConfig, SourceKind,
    Statistics, TelemetryConfig, TenantConfig, ValueFormat,
    properties::is_secret,
    schema::{parse_type, type_text},
};

mod download;
mod grants;

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
    write(&mut text, &Value::Object(top), 0);
    text
}

/// One pipeline.
fn pipeline(config: &PipelineConfig) -> Map<String, Value> {
    let PipelineConfig { name: _, tenant, source: from, decode, plugins, sink: to, run: when, dead_letter } = config;
    let plugins: Vec<_> = plugins.iter().map(|one| plugin(one)).collect();
    let sections = [
        ("tenant", json!(**tenant)),
        ("source", source(from, decode)),
        ("schema", schema(decode)),
        ("plugins", json!(plugins)),
        ("sink", sink(to)),
        ("pipeline", run(when)),
        ("dead_letter", letters(dead_letter)),
    ];
    sections.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// What a plugin may use.
fn plugin_limits(limits: &PluginLimits) -> Value {
    json!({
        "memory": limits.memory_bytes,
        "call_timeout": duration(limits.call_timeout),
        "output_rows": limits.output_rows,
        "output_bytes": limits.output_bytes,
        "output_logical_bytes": limits.output_logical_bytes,
        "rejections": limits.rejections,
        "rejected_rows": limits.rejected_rows,
        "state_bytes": limits.state_bytes,
        "log_bytes_per_second": limits.log_bytes_per_second,
        "host_calls": limits.host_calls,
        "host_call_bytes": limits.host_call_bytes,
        "instances": limits.instances,
        "component_bytes": limits.component_bytes,
        "compile_time": duration(limits.compile_time),
        "compile_memory": limits.compile_memory_bytes,
    })
}

/// Those that a tenant sets for each of its plugins.
fn set_limits(limits: &PluginLimits) -> Value {
    let (mut set, none) = (plugin_limits(limits), plugin_limits(&PluginLimits::NONE));
    if let Some(set) = set.as_object_mut() {
        set.retain(|key, value| none.get(key) != Some(value));
    }
    set
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
        "limits": config.plugin_limits.as_ref().map(set_limits),
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

/// The source.
fn source(config: &SourceConfig, decode: &DecodeConfig) -> Value {
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
fn redis_connection(value: &mut Value, config: &RedisConnection) {
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

/// The schema and what happens when records differ from it.
fn schema(config: &DecodeConfig) -> Value {
    let DecodeConfig { declared_schema, on_new_field, on_type_change, metadata_columns, .. } = config;
    let mut value = json!({"mode": if declared_schema.is_some() { "declared" } else { "infer" }});
    if let Some(schema) = declared_schema {
        set(&mut value, "fields", schema.fields().iter().map(|one| field(one)).collect());
    }
    let on_new_field = match on_new_field {
        OnNewField::Add => "add",
        OnNewField::Ignore => "ignore",
        OnNewField::Reject => "reject",
    };
    let on_type_change = match on_type_change {
        OnTypeChange::Widen => "widen",
        OnTypeChange::String => "string",
        OnTypeChange::Reject => "reject",
    };
    let columns: Vec<_> = metadata_columns
        .iter()
        .map(|column| match column {
            MetadataColumn::Topic => "topic",
            MetadataColumn::Partition => "partition",
            MetadataColumn::Offset => "offset",
            MetadataColumn::Timestamp => "timestamp",
            MetadataColumn::Key => "key",
        })
        .collect();
    set(&mut value, "on_new_field", json!(on_new_field));
    set(&mut value, "on_type_change", json!(on_type_change));
    set(&mut value, "metadata_columns", json!(columns));
    value
}

/// A schema as a `schema:` block that declares it. Fields of types that cannot be declared are comments in it.
#[must_use]
pub fn schema_yaml(schema: &Schema) -> String {
    let can_be_declared = |field: &&FieldRef| {
        let (text, fields) = type_text(field.data_type());
        parse_type(&text, fields.cloned()).is_ok_and(|parsed| parsed == *field.data_type())
    };
    let (declared, others): (Vec<_>, Vec<_>) = schema.fields().iter().partition(can_be_declared);
    let mut block = json!({"mode": "declared"});
    set(&mut block, "fields", declared.iter().map(|one| field(one)).collect());
    let mut text = String::new();
    write(&mut text, &json!({"schema": block}), 0);
    for field in others {
        let _ = writeln!(text, "    # {:?} of type {} cannot be declared", field.name(), field.data_type());
    }
    text
}

/// A declared field with those in it.
fn field(config: &Field) -> Value {
    let (text, fields) = type_text(config.data_type());
    let mut value = json!({"name": config.name(), "type": text, "nullable": config.is_nullable()});
    let (encoding, epoch) = JsonHints::of(config).names();
    for (key, name) in [("encoding", encoding), ("epoch", epoch)] {
        if let Some(name) = name {
            set(&mut value, key, json!(name));
        }
    }
    if let Some(fields) = fields {
        set(&mut value, "fields", fields.iter().map(|one| field(one)).collect());
    }
    value
}

/// A plugin.
fn plugin(config: &PluginConfig) -> Value {
    let PluginConfig {
        name,
        path,
        download,
        sha256,
        signature,
        config_json,
        config_places: _,
        grants,
        limits,
        on_reject,
        on_trap,
    } = config;
    let mut value = json!({"name": **name});
    match download {
        None => set(&mut value, "path", json!(path.display().to_string())),
        Some(download) => {
            set(&mut value, "url", json!(download.location.to_string()));
            set(&mut value, "download", download::download(download));
        }
    }
    if let Some(digest) = sha256 {
        set(&mut value, "sha256", json!(hexadecimal(digest)));
    }
    if let Some(Signature { public_key, path }) = signature {
        set(&mut value, "signature", json!({"public_key": public_key, "path": path.display().to_string()}));
    }
    let own: Value = serde_json::from_str(config_json).unwrap_or_default();
    set(&mut value, "config", masked(&own));
    if !grants.lines().is_empty() {
        set(&mut value, "grants", grants::grants(grants));
    }
    set(&mut value, "limits", plugin_limits(limits));
    set(&mut value, "on_reject", json!(reject(*on_reject)));
    let backoff = json!({"from": duration(on_trap.backoff_from), "to": duration(on_trap.backoff_to)});
    let mut trap = json!({"retries": on_trap.retries, "then": reject(on_trap.then), "bisect": on_trap.bisect});
    // With `fail` it says nothing, and may not be said.
    if on_trap.then != OnReject::Fail {
        set(&mut trap, "open_circuit_after", json!(on_trap.open_circuit_after));
    }
    set(&mut trap, "backoff", backoff);
    set(&mut value, "on_trap", trap);
    value
}

/// Bytes as digits.
fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What happens to refused rows.
fn reject(config: OnReject) -> &'static str {
    match config {
        OnReject::DeadLetter => "dead_letter",
        OnReject::Drop => "drop",
        OnReject::Fail => "fail",
    }
}

/// A plugin's own configuration: what its keys say is secret, and passwords in addresses, are masked.
fn masked(value: &Value) -> Value {
    match value {
        Value::Object(entries) => {
            let mask = |(key, value): (&String, &Value)| {
                (key.clone(), if is_secret(key) && !value.is_null() { json!(MASK) } else { masked(value) })
            };
            Value::Object(entries.iter().map(mask).collect())
        }
        Value::Array(list) => list.iter().map(masked).collect(),
        Value::String(text) => match (text.find("://"), text.rfind('@')) {
            (Some(scheme), Some(at)) if scheme < at => {
                let (scheme, host) = (text.get(..scheme).unwrap_or_default(), text.get(at..).unwrap_or_default());
                json!(format!("{scheme}://{MASK}{host}"))
            }
            _ => value.clone(),
        },
        other => other.clone(),
    }
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

/// The sink.
fn sink(config: &SinkConfig) -> Value {
    let SinkConfig { kind, partition_by, keep_partition_columns, parquet: format, retry_timeout, merge: merging } =
        config;
    let mut value = match kind {
        SinkKind::S3(s3) => json!({
            "type": "s3",
            "bucket": s3.bucket,
            "prefix": s3.prefix,
            "region_name": s3.region,
            "endpoint_url": s3.endpoint_url,
            "aws_access_key_id": s3.access_key_id,
            "aws_secret_access_key": s3.secret_access_key.as_ref().map(Secret::to_string),
        }),
        SinkKind::Hdfs(config) => hdfs(config),
        SinkKind::Local(local) => json!({"type": "local", "base_path": local.base_path.display().to_string()}),
        SinkKind::Gcs(config) => gcs(config),
        SinkKind::Azure(config) => azure(config),
    };
    let columns: Vec<_> = partition_by.iter().map(partition_column).collect();
    set(&mut value, "partition_by", json!(columns));
    set(&mut value, "keep_partition_columns", json!(keep_partition_columns));
    set(&mut value, "compression", json!(compression(format.compression)));
    set(&mut value, "parquet", parquet(format));
    set(&mut value, "retry_timeout", duration(*retry_timeout));
    merge(&mut value, *merging);
    value
}

/// Merging of small files.
fn merge(sink: &mut Value, config: MergeConfig) {
    let MergeConfig { is_enabled, period, files_min, on_flush, visibility } = config;
    let period = match period {
        MergePeriod::Hour => "hour",
        MergePeriod::Day => "day",
        MergePeriod::Week => "week",
        MergePeriod::Month => "month",
    };
    let visibility = match visibility {
        MergeVisibility::Doubled => "doubled",
        MergeVisibility::Missing => "missing",
    };
    set(sink, "merge_enabled", json!(is_enabled));
    set(sink, "merge_period", json!(period));
    set(sink, "merge_min_files", json!(files_min));
    set(sink, "merge_on_flush", json!(on_flush));
    set(sink, "merge_visibility", json!(visibility));
}

/// A GCS sink.
fn gcs(config: &GcsConfig) -> Value {
    let GcsConfig { bucket, prefix, endpoint_url, credentials } = config;
    let (file, key, anonymous) = match credentials {
        GcsCredentials::ApplicationDefault => (None, None, None),
        GcsCredentials::File(path) => (Some(path.display().to_string()), None, None),
        GcsCredentials::Key(key) => (None, Some(key.to_string()), None),
        GcsCredentials::Anonymous => (None, None, Some(true)),
    };
    json!({
        "type": "gcs",
        "bucket": bucket,
        "prefix": prefix,
        "endpoint_url": endpoint_url,
        "service_account_file": file,
        "service_account_key": key,
        "anonymous": anonymous,
    })
}

/// An Azure sink.
fn azure(config: &AzureConfig) -> Value {
    let AzureConfig { account, container, prefix, endpoint_url, credentials } = config;
    let (key, token, client_id) = match credentials {
        AzureCredentials::AccessKey(key) => (Some(key.to_string()), None, None),
        AzureCredentials::Sas(token) => (None, Some(token.to_string()), None),
        AzureCredentials::ManagedIdentity { client_id } => (None, None, client_id.clone()),
    };
    json!({
        "type": "azure",
        "account": account,
        "container": container,
        "prefix": prefix,
        "endpoint_url": endpoint_url,
        "access_key": key,
        "sas_token": token,
        "client_id": client_id,
    })
}

/// An HDFS sink.
fn hdfs(config: &HdfsConfig) -> Value {
    let HdfsConfig { protocol, base_path, user } = config;
    let path = |path: &Option<std::path::PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let (url, token, conf_dir, ca_file) = match protocol {
        HdfsProtocol::Native { url, conf_dir } => (url.clone(), None, path(conf_dir), None),
        HdfsProtocol::Web { urls, delegation_token, ca_file } => {
            (urls.join(";"), delegation_token.as_ref().map(Secret::to_string), None, path(ca_file))
        }
    };
    json!({
        "type": "hdfs",
        "url": url,
        "base_path": format!("/{base_path}"),
        "user": user,
        "delegation_token": token,
        "hadoop_conf_dir": conf_dir,
        "ca_file": ca_file,
    })
}

/// `column` or `day(column)`.
fn partition_column(config: &PartitionColumn) -> String {
    let PartitionColumn { column, transform } = config;
    match transform {
        PartitionTransform::Identity => column.clone(),
        PartitionTransform::Year => format!("year({column})"),
        PartitionTransform::Month => format!("month({column})"),
        PartitionTransform::Day => format!("day({column})"),
        PartitionTransform::Hour => format!("hour({column})"),
    }
}

/// How much statistics are written.
fn statistics(statistics: Statistics) -> &'static str {
    match statistics {
        Statistics::None => "none",
        Statistics::Chunk => "chunk",
        Statistics::Page => "page",
    }
}

/// A column that rows are sorted by.
fn sort_column(sort: &SortColumn) -> String {
    let SortColumn { column, descending, nulls_first } = sort;
    let order = if *descending { "desc" } else { "asc" };
    format!("{column} {order} nulls {}", if *nulls_first { "first" } else { "last" })
}

/// How Parquet is written.
fn parquet(config: &ParquetConfig) -> Value {
    let mut columns = Map::new();
    for (name, column) in &config.columns {
        let mut entries = Map::new();
        entries.extend(column.dictionary.map(|dictionary| ("dictionary".to_owned(), json!(dictionary))));
        entries.extend(column.encoding.map(|own| ("encoding".to_owned(), json!(encoding(own)))));
        entries.extend(column.compression.map(|own| ("compression".to_owned(), json!(compression(own)))));
        entries.extend(column.statistics.map(|own| ("statistics".to_owned(), json!(statistics(own)))));
        entries.extend(column.data_page_bytes.map(|bytes| ("data_page_bytes".to_owned(), json!(bytes))));
        columns.insert(name.clone(), Value::Object(entries));
    }
    json!({
        "row_group_rows": config.row_group_rows,
        "row_group_bytes": config.row_group_bytes,
        "data_page_bytes": config.data_page_bytes,
        "dictionary": config.dictionary,
        "statistics": statistics(config.statistics),
        "bloom_filter": config.bloom_filter,
        "sort_by": config.sort_by.iter().map(sort_column).collect::<Vec<_>>(),
        "columns": columns,
    })
}

/// An encoding's name.
fn encoding(config: Encoding) -> &'static str {
    match config {
        Encoding::Plain => "plain",
        Encoding::DeltaLengthByteArray => "delta_length_byte_array",
        Encoding::DeltaByteArray => "delta_byte_array",
        Encoding::DeltaBinaryPacked => "delta_binary_packed",
        Encoding::ByteStreamSplit => "byte_stream_split",
    }
}

/// A codec with its level.
fn compression(config: Compression) -> String {
    match config {
        Compression::None => "none".to_owned(),
        Compression::Snappy => "snappy".to_owned(),
        Compression::Lz4 => "lz4".to_owned(),
        Compression::Gzip(level) => format!("gzip({level})"),
        Compression::Brotli(level) => format!("brotli({level})"),
        Compression::Zstd(level) => format!("zstd({level})"),
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

/// One value as YAML at an indentation. Writing to a String cannot fail.
fn write(text: &mut String, value: &Value, indent: usize) {
    let pad = "  ".repeat(indent);
    match value {
        Value::Object(entries) => {
            for (key, inner) in entries {
                let _ = write!(text, "{pad}{}:", scalar(key));
                write_inner(text, inner, indent);
            }
        }
        Value::Array(list) => {
            for inner in list {
                let _ = write!(text, "{pad}-");
                write_inner(text, inner, indent);
            }
        }
        other => _ = writeln!(text, "{pad}{other}"),
    }
}

/// A value behind a key or a dash.
fn write_inner(text: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(entries) if entries.is_empty() => text.push_str(" {}\n"),
        Value::Array(list) if list.iter().all(|item| !item.is_object() && !item.is_array()) => {
            let items: Vec<_> =
                list.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), scalar)).collect();
            let _ = writeln!(text, " [{}]", items.join(", "));
        }
        Value::Object(_) | Value::Array(_) => {
            text.push('\n');
            write(text, value, indent + 1);
        }
        Value::String(own) => _ = writeln!(text, " {}", scalar(own)),
        other => _ = writeln!(text, " {other}"),
    }
}

/// A text as a YAML scalar: plain where it can only be read as a text, else in JSON's quotes, which are YAML's.
fn scalar(text: &str) -> String {
    let is_plain = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/' || first == '_')
        && text.chars().all(|character| character.is_ascii_alphanumeric() || "_-./()".contains(character))
        && !matches!(
            text.to_ascii_lowercase().as_str(),
            "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n"
        );
    if is_plain {
        return text.to_owned();
    }
    // A dollar is doubled, since `${` would be filled in again.
    json!(text.replace("${", "$${")).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_keeps_its_secrets() {
        let config = json!({"api_key": "a", "nested": [{"password": 1, "url": "http://u:p@h/x", "column": "key"}], "token": null});
        let expected = json!({"api_key": MASK, "nested": [{"password": MASK, "url": "http://***@h/x", "column": "key"}], "token": null});
        assert_eq!(masked(&config), expected);
    }

    #[test]
    fn texts_that_look_like_something_else_are_quoted() {
        assert_eq!(scalar("zstd(3)"), "zstd(3)");
        assert_eq!(scalar("no"), "\"no\"");
        assert_eq!(scalar("12"), "\"12\"");
        assert_eq!(scalar("a: \"b\"\n"), "\"a: \\\"b\\\"\\n\"");
        assert_eq!(scalar("${A}"), "\"$${A}\"");
    }
}
