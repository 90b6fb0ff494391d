//! `sink`: where rows go, and how Parquet is written.

use serde_json::{Map, Value, json};

use super::{duration, set};
use crate::config::{
    AzureConfig, AzureCredentials, Compression, Encoding, GcsConfig, GcsCredentials, HdfsConfig, HdfsProtocol,
    MergeConfig, MergePeriod, MergeVisibility, ParquetConfig, PartitionColumn, PartitionTransform, Secret, SinkConfig,
    SinkKind, SortColumn, Statistics,
};

/// The sink.
pub(super) fn sink(config: &SinkConfig) -> Value {
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
