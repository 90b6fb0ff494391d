//! The name of a data file: `<dataset>/<directories>/<time>-l<lane>-g<generation>-f<file>-<random>.parquet`.
//!
//! The time is that of the generation in UTC, to the second, so names sort in commit order within a lane; the random
//! part keeps processes that start in one second apart. For instance
//! `orders/country=DE/20261123T140512Z-l00-g000012-f003-5f0c9a1e.parquet`.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};

use crate::store::Path;

/// What tells one file from another.
#[derive(Clone, Debug)]
pub(super) struct FileName {
    /// When its generation began.
    pub(super) time: DateTime<Utc>,
    /// Which lane.
    pub(super) lane: usize,
    /// Which generation of the lane.
    pub(super) generation: u64,
    /// Which file of the generation.
    pub(super) file: u64,
    /// Unique to the process.
    pub(super) writer: u32,
}

impl FileName {
    /// The path below the store's root.
    pub(super) fn path(&self, dataset: &str, directory: &str) -> Path {
        let Self { time, lane, generation, file, writer } = self;
        let time = time.format("%Y%m%dT%H%M%SZ");
        let name = format!("{time}-l{lane:02}-g{generation:06}-f{file:03}-{writer:08x}.parquet");
        let dataset = dataset_folder(dataset);
        let whole =
            if directory.is_empty() { format!("{dataset}/{name}") } else { format!("{dataset}/{directory}/{name}") };
        // Both parts are escaped, so parsing keeps them as they are; the fallback escapes once more.
        Path::parse(&whole).unwrap_or_else(|_| Path::from(whole.as_str()))
    }
}

/// The folder of a dataset: the topic itself wherever it can be a folder. A Kafka topic always can.
fn dataset_folder(dataset: &str) -> String {
    let mut folder = String::with_capacity(dataset.len());
    for character in dataset.chars() {
        match character {
            '/' | '\\' | '%' | '*' | '?' | '"' | '#' | ':' | '=' | '{' | '[' | ']' | '^' | '\0'..='\x1f' | '\x7f' => {
                // Writing to a String cannot fail.
                let _ = write!(folder, "%{:02X}", u32::from(character));
            }
            other => folder.push(other),
        }
    }
    match folder.as_str() {
        "" | "." | ".." | "_fs_data_sink" => format!("dataset%3D{folder}"),
        _ => folder,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_in_commit_order_and_keep_hive_escapes() {
        let name = |generation, file| {
            FileName { time: DateTime::UNIX_EPOCH, lane: 1, generation, file, writer: 0xab }
                .path("orders", "country=D%2FE")
                .to_string()
        };
        assert_eq!(name(12, 3), "orders/country=D%2FE/19700101T000000Z-l01-g000012-f003-000000ab.parquet");
        assert!(name(9, 999) < name(10, 0) && name(10, 2) < name(10, 10));
    }

    #[test]
    fn a_dataset_cannot_leave_its_folder() {
        for (dataset, folder) in [
            ("a/../b", "a%2F..%2Fb"),
            ("..", "dataset%3D.."),
            ("_fs_data_sink", "dataset%3D_fs_data_sink"),
            ("", "dataset%3D"),
        ] {
            assert_eq!(dataset_folder(dataset), folder);
        }
    }
}
