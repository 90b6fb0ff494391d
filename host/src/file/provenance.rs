//! What a file says about where it comes from, in the key-value metadata of its footer.
//!
//! ```text
//! fs_data_sink.version        0.1.0
//! fs_data_sink.pipeline       orders
//! fs_data_sink.source_ranges  [{"topic":"orders","partition":3,"from":1200,"to":9400}]
//! ```
//!
//! All rows of the file come from records within these ranges (`to` is the next offset), which are those of the
//! generation so far: a plugin may hold rows back from batch to batch. Not all records within them are in the file: the
//! others are in other files, were rejected, or were left out by a plugin. Pure.

use std::collections::BTreeMap;

use parquet::file::metadata::KeyValue;
use serde_json::{Value, json};

use crate::checkpoint::CheckpointDelta;

/// The key of the pipeline's name.
pub(super) const PIPELINE: &str = "fs_data_sink.pipeline";

/// The key of the source ranges.
pub(super) const SOURCE_RANGES: &str = "fs_data_sink.source_ranges";

/// What is written into the footer.
pub(super) fn metadata(pipeline: &str, ranges: String) -> Vec<KeyValue> {
    vec![
        KeyValue::new("fs_data_sink.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        KeyValue::new(PIPELINE.to_owned(), pipeline.to_owned()),
        KeyValue::new(SOURCE_RANGES.to_owned(), ranges),
    ]
}

/// What a generation covered, as JSON. Where a source partition bears the dataset's name, only those that do can have
/// rows in it.
pub(super) fn source_ranges(dataset: &str, covered: &CheckpointDelta) -> String {
    let covered = covered.of_topic(dataset);
    let ranges = covered.iter().map(|(partition, range)| {
        json!({"topic": &*partition.topic, "partition": partition.partition, "from": range.from, "to": range.to})
    });
    ranges.collect::<Value>().to_string()
}

/// The ranges of several files together; what overlaps or follows without a gap becomes one.
pub(super) fn union<'text>(ranges: impl Iterator<Item = &'text str>) -> String {
    let mut all: BTreeMap<(String, i64), Vec<(i64, i64)>> = BTreeMap::new();
    for range in ranges.filter_map(|text| serde_json::from_str::<Vec<Value>>(text).ok()).flatten() {
        let number = |key: &str| range.get(key).and_then(Value::as_i64);
        let topic = range.get("topic").and_then(Value::as_str);
        if let (Some(topic), Some(partition), Some(from), Some(to)) =
            (topic, number("partition"), number("from"), number("to"))
        {
            all.entry((topic.to_owned(), partition)).or_default().push((from, to));
        }
    }
    let mut joined = Vec::new();
    for ((topic, partition), mut ranges) in all {
        ranges.sort_unstable();
        let mut whole: Vec<(i64, i64)> = Vec::new();
        for (from, to) in ranges {
            match whole.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(to),
                _ => whole.push((from, to)),
            }
        }
        let range = |(from, to)| json!({"topic": topic, "partition": partition, "from": from, "to": to});
        joined.extend(whole.into_iter().map(range));
    }
    Value::Array(joined).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::SourcePartition;

    /// Ranges of partitions.
    fn delta(ranges: &[(&str, i32, i64, i64)]) -> CheckpointDelta {
        let mut delta = CheckpointDelta::default();
        for (topic, partition, from, to) in ranges {
            delta.extend(&SourcePartition::new(*topic, *partition), *from, *to).unwrap();
        }
        delta
    }

    #[test]
    fn a_file_names_the_ranges_of_its_own_dataset() {
        let covered = delta(&[("orders", 0, 10, 30), ("orders", 2, 0, 4), ("clicks", 0, 0, 9)]);
        assert_eq!(
            source_ranges("orders", &covered),
            r#"[{"topic":"orders","partition":0,"from":10,"to":30},{"topic":"orders","partition":2,"from":0,"to":4}]"#
        );
    }

    #[test]
    fn ranges_of_several_files_are_joined_where_they_meet() {
        let one = r#"[{"topic":"a","partition":0,"from":0,"to":5},{"topic":"b","partition":1,"from":7,"to":9}]"#;
        let other = r#"[{"topic":"a","partition":0,"from":5,"to":8},{"topic":"a","partition":0,"from":10,"to":12}]"#;
        assert_eq!(
            union([other, "not ours", one, other].into_iter()),
            r#"[{"topic":"a","partition":0,"from":0,"to":8},{"topic":"a","partition":0,"from":10,"to":12},{"topic":"b","partition":1,"from":7,"to":9}]"#
        );
    }

    #[test]
    fn partitions_of_other_names_count_where_the_dataset_is_none_of_them() {
        assert_eq!(
            source_ranges("back-fill", &delta(&[("/data/a.jsonl", 0, 0, 4)])),
            r#"[{"topic":"/data/a.jsonl","partition":0,"from":0,"to":4}]"#
        );
    }
}
