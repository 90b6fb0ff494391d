//! `source`: where records come from.

use std::{path::Path, time::Duration};

use super::{
    decode::{self, Values},
    kafka::{self, KAFKA_KEYS},
    redis::{self, REDIS_KEYS},
};
use crate::config::{
    FileConfig, SourceConfig, SourceKind,
    reader::Section,
    value::{choice, count_up_to, positive_duration},
};

/// Most records of a batch: what one decode call works on.
const BATCH_ROWS_MAX: usize = 1_000_000;

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
        return (None, decode::values(&section, folder));
    }
    let batch_rows_max = section.get_or("batch_size", 8_192, count_up_to(BATCH_ROWS_MAX));
    let batch_timeout = section
        .get("batch_timeout", positive_duration)
        .or(section.get("batch_timeout_seconds", positive_duration))
        .or(old_timeout)
        .unwrap_or(Duration::from_millis(250));
    let values = decode::values(&section, folder);
    let _ = section.required_text("type", "kafka, redis or file");
    let kind = section
        .get("type", |text| choice(text, &[("kafka", Kind::Kafka), ("redis", Kind::Redis), ("file", Kind::File)]));
    let kind = match kind {
        Some(Kind::Kafka) => {
            let kafka = kafka::read(&section);
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
            if let Some(name) = values.without_lines() {
                let message = format!(
                    "{name} is for records of Kafka and Redis; files hold lines of JSON, Arrow or Parquet, which is told by their bytes"
                );
                section.fault("value_format", message);
            }
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
