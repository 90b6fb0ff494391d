//! From a tree to checked types: one function a section, pure but for asking whether plugin files are there.
//!
//! Every function goes on after a fault with a value that keeps the others readable, so that all faults come at once.

use std::{path::Path, sync::Arc, time::Duration};

use arrow_schema::{DataType, Field, Schema};

use super::{
    ColumnConfig, Compression, DeadLetterConfig, DecodeConfig, Delivery, Encoding, ErrorHandling, FileConfig,
    KafkaConfig, LocalConfig, LogFormat, MetadataColumn, OnNewField, OnReject, OnTrap, OnTypeChange, ParquetConfig,
    PartitionColumn, PartitionTransform, PipelineConfig, PluginConfig, PluginLimits, RunConfig, S3Config, Secret,
    SinkConfig, SinkKind, SourceConfig, SourceKind, Statistics, TelemetryConfig, ValueFormat,
    fault::nearest,
    node::{Node, Value},
    properties,
    reader::Section,
    schema::parse_type,
    value::{boolean, choice, count, duration, expected, positive_duration, size},
};

/// Most records of a batch: what one decode call works on.
const BATCH_ROWS_MAX: usize = 1_000_000;

/// One pipeline; paths are relative to `folder`.
pub(super) fn pipeline(top: &Section<'_>, name: &str, folder: &Path) -> Option<PipelineConfig> {
    let name = top.text("name").unwrap_or_else(|| name.to_owned());
    if name.is_empty()
        || !name.chars().all(|character| character.is_alphanumeric() || "-_.".contains(character))
        || name.starts_with('.')
    {
        top.fault(
            "name",
            format!("{name:?} names files and metrics: letters, digits, `-`, `_` and `.` only, not first a `.`"),
        );
    }
    let tenant = top.text("tenant").unwrap_or_else(|| "default".to_owned());
    let (source, format) = source(top.section("source"), folder);
    let decode = decode(top.section("schema"), format);
    let plugins: Vec<Arc<PluginConfig>> = top
        .sections("plugins")
        .into_iter()
        .enumerate()
        .filter_map(|(at, (key, section))| plugin(section, key, at, folder).map(Arc::new))
        .collect();
    if let Some(twice) =
        plugins.iter().enumerate().find(|(at, plugin)| plugins.iter().take(*at).any(|other| other.name == plugin.name))
    {
        top.fault("plugins", format!("two plugins are called {:?}; give each a name of its own", twice.1.name));
    }
    let sink = sink(top.section("sink"), folder, &decode, plugins.is_empty());
    let run = run(top.section("pipeline"));
    let dead_letter = dead_letter(top.section("dead_letter"));
    Some(PipelineConfig {
        name: name.into(),
        tenant: tenant.into(),
        source: source?,
        decode,
        plugins,
        sink: sink?,
        run,
        dead_letter,
    })
}

/// The source, and how its values are encoded.
fn source(section: Section<'_>, folder: &Path) -> (Option<SourceConfig>, ValueFormat) {
    if !section.is_there() {
        section.fault("", "the section `source` is missing: what is to be read?");
        return (None, ValueFormat::Json);
    }
    let batch_rows_max = section.get_or("batch_size", 8_192, count);
    if batch_rows_max > BATCH_ROWS_MAX {
        section.fault("batch_size", format!("at most {BATCH_ROWS_MAX}"));
    }
    let old_timeout = section.get("batch_timeout_seconds", positive_duration);
    let batch_timeout =
        section.get("batch_timeout", positive_duration).or(old_timeout).unwrap_or(Duration::from_millis(250));
    let format = section.get_or("value_format", ValueFormat::Json, |text| match text {
        "arrow_ipc" | "avro" | "protobuf" | "json_schema" => {
            Err(format!("this version does not serve {text}; it serves json and raw"))
        }
        _ => choice(text, &[("json", ValueFormat::Json), ("raw", ValueFormat::Raw)]),
    });
    let kind = match section.required_text("type").as_deref() {
        Some("kafka") => Some(SourceKind::Kafka(kafka(&section))),
        Some("file") => Some(SourceKind::File(files(&section, folder))),
        Some("redis") => {
            section.fault("type", "this version does not serve Redis sources; it serves kafka and file");
            return (None, format);
        }
        Some(other) => {
            section.fault("type", expected("one of kafka, file", other));
            return (None, format);
        }
        None => return (None, format),
    };
    section.finish();
    (kind.map(|kind| SourceConfig { kind, batch_rows_max, batch_timeout }), format)
}

/// A Kafka source.
fn kafka(section: &Section<'_>) -> KafkaConfig {
    let bootstrap_servers = section.texts("bootstrap_servers");
    if bootstrap_servers.is_empty() {
        section.fault("bootstrap_servers", "is missing: a list of host:port");
    }
    let topics = section.texts("topics");
    if topics.is_empty() {
        section.fault("topics", "is missing: a list of topics, or of patterns that begin with ^");
    }
    for topic in topics.iter().filter(|topic| !topic.starts_with('^')) {
        let is_legal = |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
        if topic.is_empty() || topic.len() > 249 || !topic.chars().all(is_legal) {
            section.fault("topics", format!("{topic:?} cannot be a topic; a pattern begins with ^"));
        }
    }
    let mut extra_config = Vec::new();
    for (name, value, place) in section.pairs("extra_config") {
        match properties::librdkafka_name(&name) {
            Ok(known) => extra_config.push((known, Secret::new(value))),
            Err(message) => section.fault_at(&place, &format!("{}.{name}", section.path_of("extra_config")), message),
        }
    }
    let group_id = section.text("group_id").unwrap_or_else(|| "fs-data-sink-group".to_owned());
    KafkaConfig { bootstrap_servers, topics, group_id, extra_config }
}

/// A file source.
fn files(section: &Section<'_>, folder: &Path) -> FileConfig {
    let paths: Vec<String> = section
        .texts("paths")
        .into_iter()
        .map(|path| if path == "-" { path } else { folder.join(path).display().to_string() })
        .collect();
    if paths.is_empty() {
        section.fault("paths", "is missing: a list of files, patterns such as data/*.ndjson, or - for standard input");
    }
    FileConfig { paths }
}

/// How bytes become rows.
fn decode(section: Section<'_>, format: ValueFormat) -> DecodeConfig {
    let fields = fields(&section);
    let is_declared =
        section.get("mode", |text| choice(text, &[("declared", true), ("infer", false)])).unwrap_or(!fields.is_empty());
    if is_declared && fields.is_empty() {
        section.fault("fields", "is missing: a declared schema needs fields");
    }
    if !is_declared && !fields.is_empty() {
        section.fault(
            "mode",
            "the schema is inferred, so `fields` has no effect; write `mode: declared` or leave `fields` out",
        );
    }
    let default = if is_declared { OnNewField::Ignore } else { OnNewField::Add };
    let on_new_field = section.get_or("on_new_field", default, |text| {
        choice(text, &[("add", OnNewField::Add), ("ignore", OnNewField::Ignore), ("reject", OnNewField::Reject)])
    });
    let on_type_change = section.get_or("on_type_change", OnTypeChange::Widen, |text| {
        choice(
            text,
            &[("widen", OnTypeChange::Widen), ("string", OnTypeChange::String), ("reject", OnTypeChange::Reject)],
        )
    });
    let mut metadata_columns = Vec::new();
    for name in section.texts("metadata_columns") {
        let choices = [
            ("topic", MetadataColumn::Topic),
            ("partition", MetadataColumn::Partition),
            ("offset", MetadataColumn::Offset),
            ("timestamp", MetadataColumn::Timestamp),
            ("key", MetadataColumn::Key),
        ];
        match choice(&name, &choices) {
            Ok(column) if metadata_columns.contains(&column) => {
                section.fault("metadata_columns", format!("{name} is there twice"));
            }
            Ok(column) => metadata_columns.push(column),
            Err(message) => section.fault("metadata_columns", message),
        }
    }
    let declared_schema = (is_declared && format == ValueFormat::Json).then(|| Arc::new(Schema::new(fields)));
    section.finish();
    DecodeConfig { format, declared_schema, on_new_field, on_type_change, metadata_columns }
}

/// The declared fields.
fn fields(section: &Section<'_>) -> Vec<Field> {
    let mut fields: Vec<Field> = Vec::new();
    for (_, field) in section.sections("fields") {
        let name = field.required_text("name");
        let data_type = if field.node("type").is_some() {
            field.get("type", parse_type)
        } else {
            field.fault("type", "is missing");
            None
        };
        let nullable = field.get_or("nullable", true, boolean);
        if let (Some(name), Some(data_type)) = (name, data_type) {
            if fields.iter().any(|known| *known.name() == name) {
                field.fault("name", format!("the field {name:?} is there twice"));
            }
            fields.push(Field::new(name, data_type, nullable));
        }
        field.finish();
    }
    fields
}

/// One plugin.
fn plugin(section: Section<'_>, key: Option<String>, at: usize, folder: &Path) -> Option<PluginConfig> {
    let path = section.required_text("path").map(|path| folder.join(path));
    if let Some(path) = path.as_ref().filter(|path| !path.is_file()) {
        section.fault("path", format!("the file {} does not exist", path.display()));
    }
    let stem = path.as_ref().and_then(|path| path.file_stem()).map(|stem| stem.to_string_lossy().into_owned());
    let name = section.text("name").or(key).or(stem).unwrap_or_else(|| format!("plugin-{at}"));
    let sha256 = section.get("sha256", sha256);
    let config_json = section.node("config").map_or_else(|| serde_json::json!({}), Node::to_json).to_string();
    if let Some(grants) = section.node("grants") {
        let grants_nothing = match &grants.value {
            Value::Map(entries) => entries.iter().all(|(_, grant)| match &grant.value {
                Value::Map(entries) => entries.is_empty(),
                Value::List(list) => list.is_empty(),
                Value::Null => true,
                Value::Scalar(..) => false,
            }),
            _ => false,
        };
        if !grants_nothing {
            section.fault("grants", "this version grants plugins nothing; leave it out");
        }
    }
    let reject_choices = [("dead_letter", OnReject::DeadLetter), ("drop", OnReject::Drop), ("fail", OnReject::Fail)];
    let on_reject = section.get_or("on_reject", OnReject::DeadLetter, |text| choice(text, &reject_choices));
    let limits = limits(section.section("limits"));
    let trap = section.section("on_trap");
    let defaults = OnTrap::default();
    let backoff = trap.section("backoff");
    let on_trap = OnTrap {
        retries: trap.get_or("retries", defaults.retries, |text| {
            text.parse().ok().filter(|retries| *retries <= 10).ok_or_else(|| expected("a number from 0 to 10", text))
        }),
        then: trap.get_or("then", defaults.then, |text| choice(text, &reject_choices)),
        backoff_from: backoff.get_or("from", defaults.backoff_from, duration),
        backoff_to: backoff.get_or("to", defaults.backoff_to, duration),
    };
    backoff.finish();
    trap.finish();
    section.finish();
    Some(PluginConfig { name: name.into(), path: path?, sha256, config_json, limits, on_reject, on_trap })
}

/// What a plugin may use.
fn limits(section: Section<'_>) -> PluginLimits {
    let defaults = PluginLimits::default();
    let limits = PluginLimits {
        memory_bytes: section.get_or("memory", defaults.memory_bytes, size),
        call_timeout: section.get_or("call_timeout", defaults.call_timeout, positive_duration),
        output_rows: section.get_or("output_rows", defaults.output_rows, count),
        output_bytes: section.get_or("output_bytes", defaults.output_bytes, size),
        log_bytes_per_second: section.get_or("log_bytes_per_second", defaults.log_bytes_per_second, size),
    };
    section.finish();
    limits
}

/// 64 hexadecimal digits.
fn sha256(text: &str) -> Result<[u8; 32], String> {
    let wrong = || expected("64 hexadecimal digits", text);
    let mut digest = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return Err(wrong());
    }
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = text.get(at * 2..at * 2 + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()).ok_or_else(wrong)?;
    }
    Ok(digest)
}

/// The sink.
fn sink(section: Section<'_>, folder: &Path, decode: &DecodeConfig, without_plugins: bool) -> Option<SinkConfig> {
    if !section.is_there() {
        section.fault("", "the section `sink` is missing: where is it to be written?");
        return None;
    }
    let kind = match section.required_text("type").as_deref() {
        Some("s3") => s3(&section).map(SinkKind::S3),
        Some("local") => {
            section.required_text("base_path").map(|path| SinkKind::Local(LocalConfig { base_path: folder.join(path) }))
        }
        Some(later @ ("hdfs" | "gcs" | "azure")) => {
            section.fault("type", format!("this version does not serve {later} sinks; it serves s3 and local"));
            return None;
        }
        Some(other) => {
            section.fault("type", expected("one of s3, local", other));
            return None;
        }
        None => return None,
    };
    let partition_by = partition_by(&section, decode, without_plugins);
    let sink = SinkConfig {
        partition_by,
        keep_partition_columns: section.get_or("keep_partition_columns", false, boolean),
        parquet: parquet(&section),
        retry_timeout: section.get_or("retry_timeout", Duration::from_secs(600), duration),
        kind: if let Some(kind) = kind {
            kind
        } else {
            section.finish();
            return None;
        },
    };
    section.finish();
    Some(sink)
}

/// An S3 sink.
fn s3(section: &Section<'_>) -> Option<S3Config> {
    let bucket = section.required_text("bucket");
    let prefix = section.text("prefix").unwrap_or_default().trim_matches('/').to_owned();
    if prefix.split('/').any(|part| part == ".." || part == "." || (part.is_empty() && !prefix.is_empty())) {
        section.fault("prefix", format!("{prefix:?} is not a folder: no empty parts, `.` or `..`"));
    }
    let endpoint_url = section.get("endpoint_url", |text| match url::Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(text.to_owned()),
        _ => Err(expected("an address such as https://s3.example.com or http://127.0.0.1:9000", text)),
    });
    let access_key_id = section.text("aws_access_key_id").filter(|text| !text.is_empty());
    let secret_access_key = section.text("aws_secret_access_key").filter(|text| !text.is_empty()).map(Secret::new);
    if access_key_id.is_some() != secret_access_key.is_some() {
        let missing = if access_key_id.is_some() { "aws_secret_access_key" } else { "aws_access_key_id" };
        section.fault(missing, "is missing: key id and secret come together, or neither for the usual AWS chain");
    }
    let region = section.text("region_name").unwrap_or_else(|| "us-east-1".to_owned());
    Some(S3Config { bucket: bucket?, prefix, region, endpoint_url, access_key_id, secret_access_key })
}

/// `column`, or `year|month|day|hour(column)`.
fn partition_by(section: &Section<'_>, decode: &DecodeConfig, without_plugins: bool) -> Vec<PartitionColumn> {
    let mut columns: Vec<PartitionColumn> = Vec::new();
    for text in section.texts("partition_by") {
        let (column, transform) = match text.strip_suffix(')').and_then(|text| text.split_once('(')) {
            Some((word, column)) => match word.trim() {
                "year" => (column, PartitionTransform::Year),
                "month" => (column, PartitionTransform::Month),
                "day" => (column, PartitionTransform::Day),
                "hour" => (column, PartitionTransform::Hour),
                other => {
                    section.fault("partition_by", expected("year, month, day or hour before the parenthesis", other));
                    continue;
                }
            },
            None => (text.as_str(), PartitionTransform::Identity),
        };
        let column = PartitionColumn { column: column.trim().to_owned(), transform };
        if columns.contains(&column) {
            section.fault("partition_by", format!("{text:?} is there twice"));
        }
        if let Some(schema) = decode.declared_schema.as_ref().filter(|_| without_plugins) {
            check_partition_column(section, &column, schema, decode);
        }
        columns.push(column);
    }
    columns
}

/// Whether a declared schema has the column; plugins may add columns, so only without them.
fn check_partition_column(section: &Section<'_>, column: &PartitionColumn, schema: &Schema, decode: &DecodeConfig) {
    let is_metadata = !decode.metadata_columns.is_empty() && column.column.starts_with('_');
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let is_nested =
        |field: &Field| matches!(field.data_type(), DataType::Struct(_) | DataType::List(_) | DataType::Map(..));
    match schema.field_with_name(&column.column) {
        Ok(field) if is_nested(field) => {
            section.fault(
                "partition_by",
                format!("{:?} is of type {}, which cannot be a directory", column.column, field.data_type()),
            );
        }
        Ok(_) => {}
        Err(_) if is_metadata => {}
        Err(_) => {
            let hint = nearest(&column.column, names.iter().copied())
                .map(|near| format!(" did you mean {near:?}?"))
                .unwrap_or_default();
            let message = format!("the schema has no column {:?};{hint} it has: {}", column.column, names.join(", "));
            section.fault("partition_by", message);
        }
    }
}

/// How Parquet is written.
fn parquet(sink: &Section<'_>) -> ParquetConfig {
    let defaults = ParquetConfig::default();
    let compression = sink.get_or("compression", defaults.compression, compression);
    let section = sink.section("parquet");
    let mut columns = Vec::new();
    for (name, column) in section.sections("columns") {
        let config = ColumnConfig {
            dictionary: column.get("dictionary", boolean),
            encoding: column.get("encoding", |text| {
                let choices = [
                    ("plain", Encoding::Plain),
                    ("delta_length_byte_array", Encoding::DeltaLengthByteArray),
                    ("delta_byte_array", Encoding::DeltaByteArray),
                    ("delta_binary_packed", Encoding::DeltaBinaryPacked),
                    ("byte_stream_split", Encoding::ByteStreamSplit),
                ];
                choice(text, &choices)
            }),
            compression: column.get("compression", self::compression),
        };
        match name {
            Some(name) => columns.push((name, config)),
            None => column.fault("", "expected the column's name as key"),
        }
        column.finish();
    }
    let config = ParquetConfig {
        compression,
        row_group_rows: section.get_or("row_group_rows", defaults.row_group_rows, count),
        row_group_bytes: section.get_or("row_group_bytes", defaults.row_group_bytes, size),
        data_page_bytes: section.get_or("data_page_bytes", defaults.data_page_bytes, size),
        dictionary: section.get_or("dictionary", defaults.dictionary, boolean),
        statistics: section.get_or("statistics", defaults.statistics, |text| {
            choice(text, &[("none", Statistics::None), ("chunk", Statistics::Chunk), ("page", Statistics::Page)])
        }),
        bloom_filter: section.texts("bloom_filter"),
        columns,
    };
    section.finish();
    config
}

/// `zstd`, `zstd(3)`, `snappy` and so on.
fn compression(text: &str) -> Result<Compression, String> {
    let lower = text.trim().to_ascii_lowercase();
    let (name, level) = match lower.strip_suffix(')').and_then(|text| text.split_once('(')) {
        Some((name, level)) => {
            (name.trim(), Some(level.trim().parse::<u32>().map_err(|_| expected("a level such as zstd(3)", text))?))
        }
        None => (lower.as_str(), None),
    };
    let within = |least: u32, most: u32, default: u32| match level {
        Some(level) if !(least..=most).contains(&level) => {
            Err(format!("the level of {name} is from {least} to {most}, found {level}"))
        }
        level => Ok(level.unwrap_or(default)),
    };
    match (name, level) {
        ("gzip", _) => within(0, 9, 6).map(Compression::Gzip),
        ("brotli", _) => within(0, 11, 1).map(Compression::Brotli),
        ("zstd", _) => within(1, 22, 3).map(|level| Compression::Zstd(i32::try_from(level).unwrap_or(3))),
        ("none" | "uncompressed", None) => Ok(Compression::None),
        ("snappy", None) => Ok(Compression::Snappy),
        ("lz4", None) => Ok(Compression::Lz4),
        ("none" | "snappy" | "lz4", Some(_)) => Err(format!("{name} has no levels")),
        _ => Err(expected("one of snappy, gzip, brotli, zstd, zstd(3), lz4, none", text)),
    }
}

/// When files are finished, and what may be in flight.
fn run(section: Section<'_>) -> RunConfig {
    let interval = section.get("commit_interval", positive_duration);
    let old_interval = section.get("flush_interval_seconds", positive_duration);
    if let (Some(new), Some(old)) = (interval, old_interval)
        && new != old
    {
        section.fault(
            "flush_interval_seconds",
            "means the same as commit_interval and says something else; leave one out",
        );
    }
    let commit_interval = interval.or(old_interval).unwrap_or(Duration::from_secs(60));
    if commit_interval >= Duration::from_secs(24 * 3600) {
        section.fault("commit_interval", "must be less than a day");
    }
    let delivery = section.get_or("delivery", Delivery::AtLeastOnce, |text| match text {
        "exactly_once" => Err("this version serves at_least_once only".to_owned()),
        _ => choice(text, &[("at_least_once", Delivery::AtLeastOnce)]),
    });
    let choices = [("log", ErrorHandling::Log), ("raise", ErrorHandling::Raise), ("ignore", ErrorHandling::Ignore)];
    let run = RunConfig {
        delivery,
        commit_interval,
        commit_interval_batches: section.get("flush_interval_batches", count).map(|batches| batches as u64),
        target_file_size_bytes: section.get_or("target_file_size", 128 << 20, size),
        open_files_max: section.get_or("open_files_max", 256, count),
        memory_bytes: section.get_or("memory", 512 << 20, |text| {
            size(text).and_then(|bytes| if bytes < 32 << 20 { Err("at least 32MiB".to_owned()) } else { Ok(bytes) })
        }),
        lanes: section
            .get("lanes", |text| {
                if text == "auto" {
                    Ok(None)
                } else {
                    count(text)
                        .and_then(|lanes| if lanes > 256 { Err("at most 256".to_owned()) } else { Ok(Some(lanes)) })
                }
            })
            .flatten(),
        error_handling: section.get_or("error_handling", ErrorHandling::Log, |text| choice(text, &choices)),
        batches_max: section.get("max_batches", count).map(|batches| batches as u64),
        until_end: false,
        shutdown_timeout: section.get_or("shutdown_timeout", Duration::from_secs(30), positive_duration),
    };
    // The original read this key here; it means how long a batch may wait.
    let _ = section.get("batch_timeout_seconds", positive_duration);
    section.finish();
    run
}

/// Where refused records go.
fn dead_letter(section: Section<'_>) -> DeadLetterConfig {
    let config = section.get_or("type", DeadLetterConfig::Store, |text| match text {
        "kafka" => {
            Err("this version does not serve a Kafka topic for dead letters; it serves store and none".to_owned())
        }
        _ => choice(text, &[("store", DeadLetterConfig::Store), ("none", DeadLetterConfig::None)]),
    });
    section.finish();
    config
}

/// Logs, metrics and traces.
pub(super) fn telemetry(section: Section<'_>) -> TelemetryConfig {
    let listen = section.get_or("listen", Some(([127, 0, 0, 1], 9464).into()), |text| match text {
        "none" | "off" | "false" => Ok(None),
        _ => text.parse().map(Some).map_err(|_| expected("an address such as 127.0.0.1:9464, or none", text)),
    });
    let config = TelemetryConfig {
        log_level: section.text("log_level").unwrap_or_else(|| "INFO".to_owned()),
        log_format: section.get_or("log_format", LogFormat::Json, |text| {
            choice(text, &[("json", LogFormat::Json), ("text", LogFormat::Text)])
        }),
        enabled: section.get_or("enabled", false, boolean),
        service_name: section.text("service_name").unwrap_or_else(|| "fs-data-sink".to_owned()),
        otlp_endpoint: section.text("otlp_endpoint"),
        trace_enabled: section.get_or("trace_enabled", true, boolean),
        metrics_enabled: section.get_or("metrics_enabled", true, boolean),
        listen,
    };
    section.finish();
    config
}
