//! `sink`: where rows go, and how their files are written.

use std::{path::Path, time::Duration};

use super::{cloud, columns::Columns, hdfs};
use crate::config::{
    ColumnConfig, Compression, Encoding, LocalConfig, MergeConfig, MergePeriod, MergeVisibility, ParquetConfig,
    PartitionColumn, PartitionTransform, S3Config, Secret, SinkConfig, SinkKind, SortColumn, Statistics,
    fault::Place,
    reader::Section,
    value::{boolean, choice, count, duration, expected, http_url, size},
};

/// Keys of an S3 sink.
const S3_KEYS: [&str; 6] =
    ["bucket", "prefix", "region_name", "endpoint_url", "aws_access_key_id", "aws_secret_access_key"];

/// Keys of a local sink.
const LOCAL_KEYS: [&str; 1] = ["base_path"];

/// Encodings by name.
const ENCODINGS: [(&str, Encoding); 5] = [
    ("plain", Encoding::Plain),
    ("delta_length_byte_array", Encoding::DeltaLengthByteArray),
    ("delta_byte_array", Encoding::DeltaByteArray),
    ("delta_binary_packed", Encoding::DeltaBinaryPacked),
    ("byte_stream_split", Encoding::ByteStreamSplit),
];

/// How much statistics, by name.
const STATISTICS: [(&str, Statistics); 3] =
    [("none", Statistics::None), ("chunk", Statistics::Chunk), ("page", Statistics::Page)];

/// The sink. `columns` are those of the rows, where they are known.
pub(super) fn read(section: Section<'_>, folder: &Path, columns: Option<&Columns>) -> Option<SinkConfig> {
    if !section.is_there() {
        if section.node_is_missing() {
            section.fault("", "the section is missing: where do rows go?");
        }
        return None;
    }
    let partition_by = partition_by(&section);
    let keep_partition_columns = section.get_or("keep_partition_columns", false, boolean);
    let parquet = parquet(&section);
    if let Some(columns) = columns {
        columns.check(&section, &partition_by, keep_partition_columns, &parquet);
    }
    let retry_timeout = section.get_or("retry_timeout", Duration::from_secs(600), duration);
    let merge = merge(&section);
    accept_what_is_empty(&section);
    let kind = kind(&section, folder).ok()?;
    section.finish();
    let partition_by = partition_by.into_iter().map(|(column, _)| column).collect();
    Some(SinkConfig { kind: kind?, partition_by, keep_partition_columns, parquet, retry_timeout, merge })
}

/// The type is missing or unknown, so nothing can be said about other keys.
struct UnknownType;

/// The store; `None` where one of its keys is at fault.
fn kind(section: &Section<'_>, folder: &Path) -> Result<Option<SinkKind>, UnknownType> {
    /// Types by name.
    const TYPES: [(&str, &str); 5] =
        [("s3", "s3"), ("hdfs", "hdfs"), ("local", "local"), ("gcs", "gcs"), ("azure", "azure")];
    let _ = section.required_text("type", "s3, hdfs, local, gcs or azure");
    let name = section.get("type", |text| choice(text, &TYPES));
    let name = name.ok_or(UnknownType)?;
    let kind = match name {
        "s3" => s3(section).map(SinkKind::S3),
        "hdfs" => hdfs::read(section, folder).map(SinkKind::Hdfs),
        "gcs" => cloud::gcs(section, folder).map(SinkKind::Gcs),
        "azure" => cloud::azure(section).map(SinkKind::Azure),
        _ => {
            let base_path = section.required_text("base_path", "the folder to write to");
            let place = section.node("base_path").map_or_else(|| section.place(), |node| &node.place);
            base_path.map(|path| SinkKind::Local(LocalConfig { base_path: Section::resolve(place, folder, &path) }))
        }
    };
    // What was asked for above is left alone.
    section.only_with("type: s3", &S3_KEYS);
    section.only_with("type: hdfs", &hdfs::HDFS_KEYS);
    section.only_with("type: local", &LOCAL_KEYS);
    section.only_with("type: gcs", &cloud::GCS_KEYS);
    section.only_with("type: azure", &cloud::AZURE_KEYS);
    Ok(kind)
}

/// A key of the original that says what is so anyway: no further options.
fn accept_what_is_empty(section: &Section<'_>) {
    if section.is_empty("extra_config") {
        let _ = section.node("extra_config");
    }
}

/// Merging of small files.
fn merge(section: &Section<'_>) -> MergeConfig {
    let defaults = MergeConfig::default();
    let periods = [
        ("hour", MergePeriod::Hour),
        ("day", MergePeriod::Day),
        ("week", MergePeriod::Week),
        ("month", MergePeriod::Month),
    ];
    let visibilities = [("doubled", MergeVisibility::Doubled), ("missing", MergeVisibility::Missing)];
    let files_min = |text: &str| match count(text)? {
        1 => Err("must be at least 2: one file alone has nothing to be merged with".to_owned()),
        number => Ok(number),
    };
    MergeConfig {
        is_enabled: section.get_or("merge_enabled", defaults.is_enabled, boolean),
        period: section.get_or("merge_period", defaults.period, |text| choice(text, &periods)),
        files_min: section.get_or("merge_min_files", defaults.files_min, files_min),
        on_flush: section.get_or("merge_on_flush", defaults.on_flush, boolean),
        visibility: section.get_or("merge_visibility", defaults.visibility, |text| choice(text, &visibilities)),
    }
}

/// An S3 sink.
fn s3(section: &Section<'_>) -> Option<S3Config> {
    let bucket = cloud::name(section, "bucket", "the bucket's name");
    let prefix = cloud::prefix(section);
    let endpoint_url =
        section.get("endpoint_url", |text| http_url(text, "https://s3.example.com or http://127.0.0.1:9000"));
    let access_key_id = section.text("aws_access_key_id").filter(|text| !text.is_empty());
    let secret_access_key = section.text("aws_secret_access_key").filter(|text| !text.is_empty()).map(Secret::new);
    let missing = match (&access_key_id, &secret_access_key) {
        (Some(_), None) => Some("aws_secret_access_key"),
        (None, Some(_)) => Some("aws_access_key_id"),
        _ => None,
    };
    if let Some(missing) = missing.filter(|missing| section.node(missing).is_none()) {
        section.fault(missing, "is missing: key id and secret come together, or neither for the usual AWS chain");
    }
    let region = section.text("region_name").filter(|text| !text.is_empty()).unwrap_or_else(|| "us-east-1".to_owned());
    Some(S3Config { bucket: bucket?, prefix, region, endpoint_url, access_key_id, secret_access_key })
}

/// `column`, or `year|month|day|hour(column)`, with their places.
fn partition_by(section: &Section<'_>) -> Vec<(PartitionColumn, Place)> {
    let mut columns: Vec<(PartitionColumn, Place)> = Vec::new();
    for (text, place) in section.texts("partition_by") {
        let column = match partition_column(&text) {
            Ok(column) => column,
            Err(message) => {
                section.fault_at(&place, "partition_by", message);
                continue;
            }
        };
        let name = column.directory_name();
        if columns.iter().any(|(other, _)| other.directory_name().eq_ignore_ascii_case(&name)) {
            section.fault_at(&place, "partition_by", format!("a second level would be called {name:?}"));
        }
        columns.push((column, place));
    }
    columns
}

/// One level of directories.
fn partition_column(text: &str) -> Result<PartitionColumn, String> {
    let (column, transform) = match text.split_once('(') {
        None => (text, PartitionTransform::Identity),
        Some((word, rest)) => {
            let choices = [
                ("year", PartitionTransform::Year),
                ("month", PartitionTransform::Month),
                ("day", PartitionTransform::Day),
                ("hour", PartitionTransform::Hour),
            ];
            let column = rest.strip_suffix(')').ok_or_else(|| expected("a column, or such as day(ts)", text))?;
            (column, choice(word.trim(), &choices)?)
        }
    };
    let column = column.trim();
    if column.is_empty() || column.contains(['(', ')']) {
        return Err(expected("a column, or such as day(ts)", text));
    }
    Ok(PartitionColumn { column: column.to_owned(), transform })
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
            encoding: column.get("encoding", |text| choice(text, &ENCODINGS)),
            compression: column.get("compression", self::compression),
            statistics: column.get("statistics", |text| choice(text, &STATISTICS)),
            data_page_bytes: column.get("data_page_bytes", size),
        };
        match name {
            Some(name) => columns.push((name.to_owned(), config)),
            None => column.fault("", "expected the column's name as key, such as url: {dictionary: false}"),
        }
        column.finish();
    }
    let config = ParquetConfig {
        compression,
        row_group_rows: section.get_or("row_group_rows", defaults.row_group_rows, count),
        row_group_bytes: section.get_or("row_group_bytes", defaults.row_group_bytes, size),
        data_page_bytes: section.get_or("data_page_bytes", defaults.data_page_bytes, size),
        dictionary: section.get_or("dictionary", defaults.dictionary, boolean),
        statistics: section.get_or("statistics", defaults.statistics, |text| choice(text, &STATISTICS)),
        bloom_filter: section.texts("bloom_filter").into_iter().map(|(text, _)| text).collect(),
        sort_by: sort_by(&section),
        columns,
    };
    section.finish();
    config
}

/// `column`, `column desc`, `column asc nulls first` and so on.
fn sort_by(section: &Section<'_>) -> Vec<SortColumn> {
    let mut columns: Vec<SortColumn> = Vec::new();
    for (text, place) in section.texts("sort_by") {
        let column = sort_column(&text);
        if column.column.is_empty() {
            let message = expected("a column, or such as `ts desc` or `ts desc nulls first`", &text);
            section.fault_at(&place, "sort_by", message);
        } else if columns.iter().any(|other| other.column == column.column) {
            section.fault_at(&place, "sort_by", format!("names the column {:?} twice", column.column));
        } else {
            columns.push(column);
        }
    }
    columns
}

/// A column to sort by, with its order behind it.
pub(super) fn sort_column(text: &str) -> SortColumn {
    let (column, nulls_first) = match (without(text, &["nulls", "first"]), without(text, &["nulls", "last"])) {
        (Some(rest), _) => (rest, true),
        (None, Some(rest)) => (rest, false),
        (None, None) => (text, false),
    };
    let (column, descending) = match (without(column, &["desc"]), without(column, &["asc"])) {
        (Some(rest), _) => (rest, true),
        (None, Some(rest)) => (rest, false),
        (None, None) => (column, false),
    };
    SortColumn { column: column.trim().to_owned(), descending, nulls_first }
}

/// What stands ahead of these words at the end of a text; `None` where they do not, or nothing is ahead of them.
fn without<'text>(text: &'text str, words: &[&str]) -> Option<&'text str> {
    words.iter().rev().try_fold(text, |text, word| {
        let (rest, last) = text.trim_end().rsplit_once(char::is_whitespace)?;
        (last.eq_ignore_ascii_case(word) && !rest.trim().is_empty()).then_some(rest)
    })
}

/// `zstd`, `zstd(3)`, `snappy` and so on.
fn compression(text: &str) -> Result<Compression, String> {
    let lower = text.trim().to_ascii_lowercase();
    let (name, level) = match lower.strip_suffix(')').and_then(|text| text.split_once('(')) {
        Some((name, level)) => {
            let level = level.trim().parse::<u32>().map_err(|_| expected("a level such as zstd(3)", text))?;
            (name.trim(), Some(level))
        }
        None => (lower.as_str(), None),
    };
    let choices =
        [("snappy", 0), ("gzip", 1), ("brotli", 2), ("zstd", 3), ("lz4", 4), ("none", 5), ("uncompressed", 5)];
    let codec = choice(name, &choices)?;
    let within = |least: u32, most: u32, default: u32| match level {
        Some(level) if !(least..=most).contains(&level) => {
            Err(format!("the level of {name} is from {least} to {most}, found {level}"))
        }
        level => Ok(level.unwrap_or(default)),
    };
    match (codec, level) {
        (1, _) => within(0, 9, 6).map(Compression::Gzip),
        (2, _) => within(0, 11, 1).map(Compression::Brotli),
        (3, _) => within(1, 22, 3).map(|level| Compression::Zstd(i32::try_from(level).unwrap_or(3))),
        (_, Some(_)) => Err(format!("{name} has no levels")),
        (0, None) => Ok(Compression::Snappy),
        (4, None) => Ok(Compression::Lz4),
        (_, None) => Ok(Compression::None),
    }
}
