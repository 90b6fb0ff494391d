//! The records of the ledger as they lie in the store: one small JSON object each, written once, never changed.
//!
//! Comes in: bytes of a store that anyone may have written to. Goes out: a checked record, or words that say which object
//! is wrong and what to do. A record of a newer version is refused, since what it means is not known here. A record is
//! written with the oldest version that says all of it: a ledger without state of plugins stays readable for programs that
//! know of none, and one with state is refused by them, since they would go on without it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::states::PartitionState;
use crate::{
    checkpoint::{CheckpointDelta, OffsetRange, SourcePartition},
    config::MergeVisibility,
    error::PipelineError,
    store::{Path, StagedAt},
};

/// The version of most records.
pub const VERSION: u32 = 1;

/// The version of what tells of the state of plugins, and the newest that is read.
pub const VERSION_WITH_STATE: u32 = 2;

/// Longest record that is read: 100,000 files in one commit stay below it, and a wrong object does not fill the memory.
const RECORD_BYTES_MAX: usize = 256 << 20;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// See [`VERSION`].
    pub version: u32,
    /// Who wrote it: one lane of one process since it began.
    pub writer: String,
    /// Tells this record from every other, so that a writer who got no answer recognises its own.
    pub nonce: String,
    /// When, for people; nothing is decided by it.
    pub time: String,
    /// What it says.
    #[serde(flatten)]
    pub action: Action,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Action {
    /// From now on only this writer may commit these partitions.
    Claim {
        /// Which.
        partitions: Vec<Partition>,
        /// What tells their topics from others of the same name, where the source knows that.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        topic_ids: BTreeMap<String, String>,
    },
    /// These files and no others hold the rows of these ranges. This is the moment of commit.
    Commit {
        /// The offsets that are done with.
        ranges: Vec<Range>,
        /// Data files and dead letters; staged, to be made visible.
        files: Vec<RecordedFile>,
        /// Earlier commits, of any writer, whose files are all visible.
        published: Vec<u64>,
        /// The state of plugins from here on; a partition that is not named keeps the one that it has.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        states: Vec<PartitionState>,
    },
    /// The source has deleted these offsets before they were read: they are done with, and no file has them.
    Skip {
        /// Which.
        ranges: Vec<Range>,
    },
    /// A file of an earlier commit was lost before it became visible, and was written again.
    Repair {
        /// The commit.
        sequence: u64,
        /// The file as it is now; its path is the old one.
        file: RecordedFile,
    },
    /// The writer gives partitions back.
    Release {
        /// Which.
        partitions: Vec<Partition>,
        /// Earlier commits, of any writer, whose files are all visible.
        published: Vec<u64>,
    },
    /// From now on only this writer may merge files.
    CompactClaim {},
    /// The rows of these files are in one file now: it is to be made visible, and they are to be deleted.
    Compact(Merge),
    /// That is done.
    Compacted {
        /// The record of the merge.
        sequence: u64,
    },
    /// The merged file was lost before it became visible, and every file that was merged into it is there: they stay.
    CompactAbandoned {
        /// The record of the merge.
        sequence: u64,
        /// The merge, once more, since that record may be deleted by now.
        merge: Merge,
    },
    /// The writer has nothing left to merge.
    CompactRelease {},
}

/// Files that are merged into one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Merge {
    /// The files, in the order of their rows.
    pub inputs: Vec<FileEntry>,
    /// The file with all their rows, as it will be visible.
    pub file: FileEntry,
    /// Where it lies until then, below the store's root.
    pub staged: String,
    /// What comes first: the new file, or the end of the old ones.
    pub visibility: MergeVisibility,
}

/// A visible file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// From the store's root.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// Rows in it.
    pub rows: u64,
}

/// A source partition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Partition {
    /// Kafka topic, Redis key or path of a file.
    pub topic: String,
    /// Kafka partition number; 0 for the others.
    pub partition: i32,
}

/// Offsets `from..to` of a source partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// Kafka topic, Redis key or path of a file.
    pub topic: String,
    /// Kafka partition number; 0 for the others.
    pub partition: i32,
    /// First offset.
    pub from: i64,
    /// Next offset to read.
    pub to: i64,
}

/// A file of a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedFile {
    /// Where it is visible once it is published, from the store's root.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// Rows in it; 0 for dead letters.
    pub rows: u64,
    /// Where its bytes are until then.
    pub staged: StagedAt,
    /// What to read to write it once more.
    pub sources: Vec<Range>,
}

impl Action {
    /// The version of a record that says it.
    #[must_use]
    pub fn version(&self) -> u32 {
        match self {
            Self::Commit { states, .. } if !states.is_empty() => VERSION_WITH_STATE,
            _ => VERSION,
        }
    }

    /// Whether it is about merging.
    #[must_use]
    pub fn is_of_compactor(&self) -> bool {
        match self {
            Self::CompactClaim {}
            | Self::Compact(_)
            | Self::Compacted { .. }
            | Self::CompactAbandoned { .. }
            | Self::CompactRelease {} => true,
            Self::Claim { .. }
            | Self::Commit { .. }
            | Self::Skip { .. }
            | Self::Repair { .. }
            | Self::Release { .. } => false,
        }
    }
}

impl Partition {
    /// The partition that it names.
    #[must_use]
    pub fn name(&self) -> SourcePartition {
        SourcePartition::new(self.topic.as_str(), self.partition)
    }
}

impl From<&SourcePartition> for Partition {
    fn from(partition: &SourcePartition) -> Self {
        Self { topic: partition.topic.to_string(), partition: partition.partition }
    }
}

impl Range {
    /// The partition that it is of.
    #[must_use]
    pub fn source(&self) -> SourcePartition {
        SourcePartition::new(self.topic.as_str(), self.partition)
    }

    /// The ranges of a delta.
    #[must_use]
    pub fn all(delta: &CheckpointDelta) -> Vec<Self> {
        let range = |(partition, OffsetRange { from, to }): (&SourcePartition, OffsetRange)| Self {
            topic: partition.topic.to_string(),
            partition: partition.partition,
            from,
            to,
        };
        delta.iter().map(range).collect()
    }
}

impl Record {
    /// The record as it is stored.
    pub fn to_bytes(&self) -> Result<Vec<u8>, PipelineError> {
        serde_json::to_vec(self)
            .map_err(|error| PipelineError::stop("a ledger record cannot be written as JSON").because(error))
    }

    /// Reads a record. `path` is for messages.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self, PipelineError> {
        check_version(path, bytes)?;
        let record: Self = serde_json::from_slice(bytes).map_err(|error| damaged(path).because(error))?;
        let (ranges, files): (&[Range], &[RecordedFile]) = match &record.action {
            Action::Commit { ranges, files, states, .. } => {
                if let Some(fault) = states.iter().find_map(PartitionState::fault) {
                    return Err(damaged(path).because(fault));
                }
                (ranges, files)
            }
            Action::Skip { ranges } => (ranges, &[]),
            Action::Repair { file, .. } => (&[], std::slice::from_ref(file)),
            _ => (&[], &[]),
        };
        for Range { topic, partition, from, to } in ranges.iter().chain(files.iter().flat_map(|file| &file.sources)) {
            if *from < 0 || from >= to {
                return Err(
                    damaged(path).because(format!("{topic}[{partition}]: {from}..{to} is not a range of offsets"))
                );
            }
        }
        Ok(record)
    }
}

/// Refuses what a newer program wrote, and what is no object of ours.
pub fn check_version(path: &Path, bytes: &[u8]) -> Result<(), PipelineError> {
    /// All that is known of an unknown version.
    #[derive(Deserialize)]
    struct Versioned {
        /// See [`VERSION`].
        version: u32,
    }
    if bytes.len() > RECORD_BYTES_MAX {
        return Err(damaged(path).because(format!("it has {} bytes", bytes.len())));
    }
    let Versioned { version } = serde_json::from_slice(bytes).map_err(|error| damaged(path).because(error))?;
    if version > VERSION_WITH_STATE {
        return Err(PipelineError::stop(format!(
            "the ledger object {path} has version {version}, and this program reads up to {VERSION_WITH_STATE}: a newer fs-data-sink \
             has written to this pipeline; run that one"
        )));
    }
    Ok(())
}

/// The error for an object that is not what it should be.
#[must_use]
pub fn damaged(path: &Path) -> PipelineError {
    PipelineError::stop(format!(
        "the ledger object {path} is damaged, so what was committed is not known. Restore it from a backup or a version of the \
         bucket; nothing is written until then. A pipeline with another `name` starts a new ledger and reads from its start"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Record, String> {
        Record::parse(&Path::from("ledger/7.json"), text.as_bytes()).map_err(|error| error.full_message())
    }

    #[test]
    fn what_is_written_is_read_back_and_unknown_fields_of_this_version_are_passed_over() {
        let text = r#"{"version":1,"writer":"w","nonce":"n","time":"t","new":{"x":1},"action":"commit",
            "ranges":[{"topic":"orders","partition":3,"from":0,"to":10}],"published":[4],
            "files":[{"path":"orders/a.parquet","bytes":12,"rows":10,"staged":{"upload":{"id":"u","parts":["e1"]}},
                      "sources":[{"topic":"orders","partition":3,"from":0,"to":10}]}]}"#;
        let record = parse(text).unwrap();
        let again = parse(std::str::from_utf8(&record.to_bytes().unwrap()).unwrap()).unwrap();
        assert_eq!(again, record);
    }

    /// Guarantees: a program that knows of no state refuses a record that tells of some, and reads all others.
    #[test]
    fn only_a_record_that_tells_of_state_is_of_the_second_version() {
        let commit = |states: &str| {
            let text = format!(
                r#"{{"version":2,"writer":"w","nonce":"n","time":"t","action":"commit","ranges":[],"published":[],"files":[],
                "states":[{states}]}}"#
            );
            parse(&text)
        };
        let state = |object: &str| {
            format!(
                r#"{{"topic":"orders","partition":3,"plugins":[{{"dataset":"orders","plugin":"windows","component":"ab",
                "object":"{object}","object_bytes":9,"from":2,"bytes":7,"sha256":"cd"}}]}}"#
            )
        };
        let record = commit(&state("a.bin")).unwrap();
        assert_eq!(record.action.version(), VERSION_WITH_STATE);
        assert_eq!(parse(std::str::from_utf8(&record.to_bytes().unwrap()).unwrap()).unwrap(), record);
        assert_eq!(commit("").unwrap().action.version(), VERSION);
        let error = commit(&state("../a.bin")).unwrap_err();
        assert!(error.contains("the state of plugin windows is at no place that can be"), "{error}");
    }

    #[test]
    fn what_is_not_a_record_names_the_object_and_what_to_do() {
        for wrong in ["", "{", "null", "{}", r#"{"version":1}"#, r#"{"version":-1}"#] {
            assert!(parse(wrong).unwrap_err().starts_with("the ledger object ledger/7.json is damaged"), "{wrong}");
        }
        let range = r#"{"version":1,"writer":"w","nonce":"n","time":"t","action":"commit","files":[],"published":[],
            "ranges":[{"topic":"orders","partition":3,"from":10,"to":10}]}"#;
        assert!(parse(range).unwrap_err().ends_with("orders[3]: 10..10 is not a range of offsets"));
        let newer = parse(r#"{"version":3,"action":"unheard of"}"#).unwrap_err();
        assert!(newer.contains("has version 3") && newer.contains("run that one"), "{newer}");
    }
}
