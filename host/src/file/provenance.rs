//! What a file says about where it comes from, in the key-value metadata of its footer.
//!
//! ```text
//! fs_data_sink.version        0.1.0
//! fs_data_sink.pipeline       orders
//! fs_data_sink.source_ranges  [{"topic":"orders","partition":3,"from":1200,"to":9400}]
//! ```
//!
//! All rows of the file come from records within these ranges (`to` is the next offset). Not all records within them
//! are in the file: the others are in other directories' files, were rejected, or were left out by a plugin. The
//! ranges are missing where a file had to end in the middle of a batch, since too many were open. Pure.

use parquet::file::metadata::KeyValue;
use serde_json::json;

use crate::checkpoint::CheckpointDelta;

/// What is written into the footer.
pub(super) fn metadata(pipeline: &str, ranges: Option<String>) -> Vec<KeyValue> {
    let mut metadata = vec![
        KeyValue::new("fs_data_sink.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        KeyValue::new("fs_data_sink.pipeline".to_owned(), pipeline.to_owned()),
    ];
    metadata.extend(ranges.map(|ranges| KeyValue::new("fs_data_sink.source_ranges".to_owned(), ranges)));
    metadata
}

/// What was covered since a file was opened, as JSON. Where a source partition bears the dataset's name, only those
/// that do can have rows in it.
pub(super) fn source_ranges(dataset: &str, before: &CheckpointDelta, now: &CheckpointDelta) -> String {
    let named = now.iter().any(|(partition, _)| &*partition.topic == dataset);
    let ranges = now.iter().filter(|(partition, _)| !named || &*partition.topic == dataset);
    let ranges = ranges.filter_map(|(partition, range)| {
        let earlier = before.iter().find(|(known, _)| *known == partition).map(|(_, range)| range.to);
        let from = earlier.unwrap_or(range.from);
        (from < range.to).then(
            || json!({"topic": &*partition.topic, "partition": partition.partition, "from": from, "to": range.to}),
        )
    });
    serde_json::Value::from_iter(ranges).to_string()
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
    fn a_file_names_what_was_covered_since_it_was_opened() {
        let before = delta(&[("orders", 0, 10, 20), ("orders", 1, 5, 9)]);
        let now = delta(&[("orders", 0, 10, 30), ("orders", 1, 5, 9), ("orders", 2, 0, 4), ("clicks", 0, 0, 9)]);
        assert_eq!(
            source_ranges("orders", &before, &now),
            r#"[{"topic":"orders","partition":0,"from":20,"to":30},{"topic":"orders","partition":2,"from":0,"to":4}]"#
        );
    }

    #[test]
    fn partitions_of_other_names_count_where_the_dataset_is_none_of_them() {
        let now = delta(&[("/data/a.jsonl", 0, 0, 4)]);
        assert_eq!(
            source_ranges("back-fill", &CheckpointDelta::default(), &now),
            r#"[{"topic":"/data/a.jsonl","partition":0,"from":0,"to":4}]"#
        );
    }
}
