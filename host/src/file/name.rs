//! What a data file is called: `<dataset>/<directory>/<name>.parquet`.
//!
//! Comes in: dataset, directory, and who writes which file of which generation. Goes out: the path from the store's root.
//! Pure.
//!
//! ```text
//! orders/country=DE/20261123T140512Z-l00-g000012-f00003-p3-o1500-9f86d081.parquet
//!                   |                |   |       |      |  |     `- the writer: one lane of one process, random
//!                   |                |   |       |      |  `------- the first offset that it can hold of that partition
//!                   |                |   |       |      `---------- the first source partition of its first batch
//!                   |                |   |       `----------------- number of the file in its generation
//!                   |                |   `------------------------- number of the generation in its lane
//!                   |                `----------------------------- lane
//!                   `---------------------------------------------- when the generation began, UTC
//! ```
//!
//! Names of one lane sort in the order in which they are committed. No two processes make the same name. A store wants
//! the name before the last row is known, so it tells where a file begins; all partitions and offsets that it covers are
//! in its metadata (`fs_data_sink.source_ranges`) and in the ledger.
//!
//! A file that others were merged into is `20261123T140512Z-m00250-<random>.parquet`: the time of the first of them, and how
//! many they were.

use std::{fmt::Write as _, sync::Arc};

use chrono::{DateTime, NaiveDateTime, Utc};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{error::PipelineError, store::Path};

/// Longest folder name of a dataset; a file system takes 255 bytes, and a shortened name ends with a digest.
const DATASET_BYTES_MAX: usize = 200;

/// How the time is written.
const TIME: &str = "%Y%m%dT%H%M%SZ";

/// Who writes which file.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileName<'name> {
    /// When the generation began; see [`not_before`].
    pub(super) began: DateTime<Utc>,
    /// Lane.
    pub(super) lane: usize,
    /// Number of the generation in its lane.
    pub(super) generation: u64,
    /// Number of the file in its generation.
    pub(super) number: u32,
    /// Where it begins: source partition and offset; unknown for rows that come from no record.
    pub(super) begins_at: Option<(i32, i64)>,
    /// See [`writer_mark`].
    pub(super) writer: &'name str,
}

impl FileName<'_> {
    /// The path from the store's root. `folder` is from [`dataset_folder`], `directory` from the partitioner.
    pub(super) fn path(&self, folder: &str, directory: &str) -> Result<Path, PipelineError> {
        let Self { began, lane, generation, number, begins_at, writer } = self;
        let began = began.format(TIME);
        let position = begins_at.map(|(partition, offset)| format!("p{partition}-o{offset}-")).unwrap_or_default();
        let slash = if directory.is_empty() { "" } else { "/" };
        let path = format!(
            "{folder}/{directory}{slash}{began}-l{lane:02}-g{generation:06}-f{number:05}-{position}{writer}.parquet"
        );
        Path::parse(&path)
            .map_err(|error| PipelineError::stop(format!("`{path}` cannot be a path in the store")).because(error))
    }
}

/// When the generation of a file began, or that of the first file merged into it; `None` where the name is none of ours.
pub(super) fn began(file_name: &str) -> Option<DateTime<Utc>> {
    let (began, rest) = file_name.strip_suffix(".parquet")?.split_once('-')?;
    let is_ours = rest.starts_with(['l', 'm']) && rest.as_bytes().get(1).is_some_and(u8::is_ascii_digit);
    NaiveDateTime::parse_from_str(began, TIME).ok().filter(|_| is_ours).map(|time| time.and_utc())
}

/// Whether others were merged into a file of ours.
pub(super) fn is_merged(file_name: &str) -> bool {
    file_name.split_once('-').is_some_and(|(_, rest)| rest.starts_with('m'))
}

/// The path of a file that others are merged into: when the first of them began, how many they are, and a random number,
/// so that no name ever comes back.
pub(super) fn merged_path(directory: &str, began: DateTime<Utc>, files: usize) -> Result<Path, PipelineError> {
    let mut random = Uuid::new_v4().simple().to_string();
    random.truncate(16);
    let path = format!("{directory}/{}-m{files:05}-{random}.parquet", began.format(TIME));
    Path::parse(&path)
        .map_err(|error| PipelineError::stop(format!("`{path}` cannot be a path in the store")).because(error))
}

/// Tells the writers of all processes apart: 8 random hexadecimal digits. Only names of the same second, lane,
/// generation and file number could meet, and no store replaces a file when one is published.
#[must_use]
pub fn writer_mark() -> Arc<str> {
    let mut text = Uuid::new_v4().simple().to_string();
    text.truncate(8);
    text.into()
}

/// The clock, but never before `last`: a clock that was set back must not break the order of names.
pub(super) fn not_before(last: Option<DateTime<Utc>>, now: DateTime<Utc>) -> DateTime<Utc> {
    last.map_or(now, |last| last.max(now))
}

/// The folder of a dataset: ASCII other than letters, digits, `.`, `_` and `-` as `%` and two hexadecimal digits. So it
/// is one segment of a path, no reader takes it for a partition, and two datasets never share one.
#[must_use]
pub fn dataset_folder(dataset: &str) -> String {
    let mut folder = String::with_capacity(dataset.len());
    for character in dataset.chars() {
        if character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-') || !character.is_ascii() {
            folder.push(character);
        } else {
            // Writing to a string cannot fail.
            let _ = write!(folder, "%{:02X}", u32::from(character));
        }
    }
    match folder.as_str() {
        // A `%` of the dataset itself would have digits behind it.
        "" => folder.push('%'),
        "." => "%2E".clone_into(&mut folder),
        ".." => "%2E%2E".clone_into(&mut folder),
        // What belongs to this program and not to a dataset.
        "_fs_data_sink" => "%5Ffs_data_sink".clone_into(&mut folder),
        _ => {}
    }
    if folder.len() > DATASET_BYTES_MAX {
        let digest = Sha256::digest(dataset.as_bytes());
        let mut end = DATASET_BYTES_MAX - 17;
        while !folder.is_char_boundary(end) {
            end -= 1;
        }
        folder.truncate(end);
        folder.push('-');
        for byte in digest.iter().take(8) {
            let _ = write!(folder, "{byte:02x}");
        }
    }
    folder
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A name with little in it.
    fn name(seconds: i64, generation: u64, number: u32) -> FileName<'static> {
        let began = DateTime::from_timestamp(1_795_443_912 + seconds, 0).unwrap();
        FileName { began, lane: 0, generation, number, begins_at: Some((3, 1500)), writer: "9f86d081" }
    }

    #[test]
    fn a_name_tells_time_lane_generation_file_partition_and_offset() {
        let path = FileName { lane: 3, ..name(0, 12, 4) }.path("orders", "country=DE/day=2026-11-23").unwrap();
        assert_eq!(
            path.as_ref(),
            "orders/country=DE/day=2026-11-23/20261123T142512Z-l03-g000012-f00004-p3-o1500-9f86d081.parquet"
        );
        let path = FileName { begins_at: None, ..name(0, 0, 0) }.path("orders", "").unwrap();
        assert_eq!(path.as_ref(), "orders/20261123T142512Z-l00-g000000-f00000-9f86d081.parquet");
    }

    #[test]
    fn the_time_is_read_back_from_names_of_ours() {
        let began_at = name(0, 0, 0).began;
        let own = |path: Path| began(path.filename().unwrap());
        assert_eq!(own(name(0, 12, 4).path("orders", "day=1").unwrap()), Some(began_at));
        let merged = merged_path("orders/day=1", began_at, 250).unwrap();
        assert!(merged.as_ref().starts_with("orders/day=1/20261123T142512Z-m00250-"), "{merged}");
        assert!(is_merged(merged.filename().unwrap()) && !is_merged("20261123T142512Z-l00-g000000-f00000-m0.parquet"));
        assert_eq!(own(merged), Some(began_at));
        for strange in
            ["part-0.parquet", "20261123T142512Z.parquet", "20261323T142512Z-l00.parquet", "20261123T142512Z-l00"]
        {
            assert_eq!(began(strange), None, "{strange}");
        }
    }

    #[test]
    fn escapes_of_the_partitioner_are_not_escaped_again() {
        let path = name(0, 0, 0).path("orders", "at=14%3A05").unwrap();
        assert!(path.as_ref().starts_with("orders/at=14%3A05/"), "{path}");
    }

    #[test]
    fn a_clock_that_goes_back_does_not_break_the_order() {
        let (early, late) = (name(0, 0, 0).began, name(9, 0, 0).began);
        assert_eq!(not_before(None, early), early);
        assert_eq!(not_before(Some(late), early), late);
        assert_eq!(not_before(Some(early), late), late);
    }

    #[test]
    fn datasets_get_folders_of_their_own() {
        assert_eq!(dataset_folder("orders.v2-eu_1"), "orders.v2-eu_1");
        assert_eq!(dataset_folder("shop:orders/new"), "shop%3Aorders%2Fnew");
        assert_eq!(dataset_folder("day=1"), "day%3D1");
        assert_eq!(dataset_folder(".."), "%2E%2E");
        assert_eq!(dataset_folder("_fs_data_sink"), "%5Ffs_data_sink");
        let (one, other) = (dataset_folder(&"ü".repeat(200)), dataset_folder(&"ü".repeat(201)));
        assert_ne!(one, other);
        assert!(one.len() <= DATASET_BYTES_MAX);
    }

    proptest! {
        #[test]
        fn names_sort_as_they_are_committed(
            one in (0_i64..3, 0_u64..2000, 0_u32..20_000),
            other in (0_i64..3, 0_u64..2000, 0_u32..20_000),
        ) {
            // Within a lane generations follow time, so only such pairs occur.
            prop_assume!(one.0.cmp(&other.0) == one.1.cmp(&other.1) || one.0 == other.0);
            let path = |(seconds, generation, number)| name(seconds, generation, number).path("d", "").unwrap();
            prop_assert_eq!((one.1, one.2).cmp(&(other.1, other.2)), path(one).as_ref().cmp(path(other).as_ref()));
        }

        #[test]
        fn any_dataset_is_one_segment_and_no_two_are_the_same(one in any::<String>(), other in any::<String>()) {
            let folder = dataset_folder(&one);
            prop_assert_eq!(Path::parse(&folder).unwrap().parts_count(), 1);
            prop_assert!(folder.len() <= DATASET_BYTES_MAX && !folder.contains('='));
            prop_assert_eq!(one == other, folder == dataset_folder(&other));
        }
    }
}
