//! What is passed from room to room: raw records, typed rows, and rows that were refused.
//!
//! Each carries its own place in the stream, so that whoever ends up with it knows which source offsets it answers
//! for and can show the original bytes of a record that was refused.

use std::{
    sync::{Arc, LazyLock},
    time::{Instant, SystemTime},
};

use arrow_array::{
    Array, BinaryArray, Int32Array, Int64Array, ListArray, RecordBatch, StringArray, StructArray,
    TimestampMillisecondArray, UInt32Array, cast::AsArray,
};
use arrow_schema::{ArrowError, DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use tokio::task::JoinHandle;

use crate::{
    checkpoint::CheckpointDelta,
    error::PipelineError,
    memory::MemoryGuard,
    store::{Path, StagedFile},
};

mod letter;
mod state;

pub use letter::rfc3339;
pub use state::{ChainState, PluginState};

/// The fields of one Kafka header, or of one Redis entry field.
pub static HEADER_FIELDS: LazyLock<Fields> = LazyLock::new(|| {
    Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Binary, true)])
});

/// The schema of every [`RawBatch`]: `topic`, `partition`, `offset`, `timestamp`, `key`, `value`, `headers`.
pub static ENVELOPE_SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let header = Field::new("item", DataType::Struct(HEADER_FIELDS.clone()), false);
    Arc::new(Schema::new(vec![
        Field::new("topic", DataType::Utf8, false),
        Field::new("partition", DataType::Int32, false),
        Field::new("offset", DataType::Int64, false),
        Field::new("timestamp", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), true),
        Field::new("key", DataType::Binary, true),
        Field::new("value", DataType::Binary, true),
        Field::new("headers", DataType::List(Arc::new(header)), true),
    ]))
});

/// Records of one dataset as they came from the source. Several source partitions may be mixed; each is in order.
#[derive(Debug)]
pub struct RawBatch {
    /// Folder below the sink's root that the rows belong to: the topic, stream or list, or the pipeline for files.
    pub dataset: Arc<str>,
    /// The records themselves.
    pub envelope: Envelope,
    /// Their rows, where the source has typed ones (a Parquet file): one a record, whose value is null then.
    pub rows: Option<RecordBatch>,
    /// The source offsets that these records cover.
    pub delta: CheckpointDelta,
    /// Counts the records against the pipeline's memory budget.
    pub memory: MemoryGuard,
}

impl RawBatch {
    /// About how many bytes were read for it.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        match self.rows {
            // Slices share their buffers, so only the source knows what is theirs.
            Some(_) => self.memory.bytes(),
            None => self.envelope.as_record_batch().get_array_memory_size(),
        }
    }
}

/// Records in [`ENVELOPE_SCHEMA`], with typed access to its columns. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Envelope(RecordBatch);

impl Envelope {
    /// Wraps a batch that has exactly [`ENVELOPE_SCHEMA`]; otherwise an error.
    pub fn try_new(batch: RecordBatch) -> Result<Self, ArrowError> {
        if batch.schema_ref().fields() == ENVELOPE_SCHEMA.fields() {
            Ok(Self(batch))
        } else {
            Err(ArrowError::SchemaError(format!("not the envelope schema: {}", batch.schema_ref())))
        }
    }

    /// The same records as an ordinary batch.
    #[must_use]
    pub fn as_record_batch(&self) -> &RecordBatch {
        &self.0
    }

    /// Number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.num_rows()
    }

    /// Whether there is no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.num_rows() == 0
    }

    /// Topic, stream, list or file of each record.
    #[must_use]
    pub fn topics(&self) -> &StringArray {
        self.0.column(0).as_string()
    }

    /// Partition of each record.
    #[must_use]
    pub fn partitions(&self) -> &Int32Array {
        self.0.column(1).as_primitive()
    }

    /// Offset of each record in its partition.
    #[must_use]
    pub fn offsets(&self) -> &Int64Array {
        self.0.column(2).as_primitive()
    }

    /// Time of each record, where the source has one.
    #[must_use]
    pub fn timestamps(&self) -> &TimestampMillisecondArray {
        self.0.column(3).as_primitive()
    }

    /// Key of each record; null where there is none.
    #[must_use]
    pub fn keys(&self) -> &BinaryArray {
        self.0.column(4).as_binary()
    }

    /// Value of each record; null for a tombstone.
    #[must_use]
    pub fn values(&self) -> &BinaryArray {
        self.0.column(5).as_binary()
    }

    /// Headers of each record.
    #[must_use]
    pub fn headers(&self) -> &ListArray {
        self.0.column(6).as_list()
    }

    /// Headers of one record as a struct array of `key` and `value`; `None` where there are none.
    #[must_use]
    pub fn headers_of(&self, row: usize) -> Option<StructArray> {
        let headers = self.headers();
        (!headers.is_null(row)).then(|| headers.value(row).as_struct().clone())
    }
}

/// Typed rows on their way to a file.
#[derive(Clone, Debug)]
pub struct DecodedBatch {
    /// The rows.
    pub rows: RecordBatch,
    /// Which record each row came from.
    pub origin: Origin,
}

/// How rows lead back to the records they came from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// Row `i` came from record `rows[i]` of the envelope.
    Records {
        /// All records of the raw batch.
        envelope: Envelope,
        /// For each row the number of its record; never null, one entry a row.
        rows: UInt32Array,
    },
    /// A plugin replaced the rows, and nothing tells which came from where.
    Replaced,
}

/// Where a record was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Getting it from its source.
    Source,
    /// Turning its bytes into a typed row.
    Decode,
    /// In a plugin.
    Plugin,
    /// Finding its directory.
    Partition,
}

impl Stage {
    /// The name in dead letters and metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Decode => "decode",
            Self::Plugin => "plugin",
            Self::Partition => "partition",
        }
    }
}

/// Rows refused for one reason. The numbers are those of the batch that was given to the stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Row numbers in the batch that the stage was given, ascending.
    pub rows: Vec<u32>,
    /// Where.
    pub stage: Stage,
    /// The plugin's name in the configuration, for [`Stage::Plugin`].
    pub plugin: Option<Arc<str>>,
    /// Stable and of few values, for instance `bad-json`; becomes a metric label.
    pub code: String,
    /// For people.
    pub message: String,
}

/// A refused record with everything that is needed to look at it, mend it and send it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The record as it came; `None` where a plugin had replaced the rows before.
    pub record: Option<OriginalRecord>,
    /// Where it was refused.
    pub stage: Stage,
    /// By which plugin.
    pub plugin: Option<Arc<str>>,
    /// Stable and of few values.
    pub code: String,
    /// For people.
    pub message: String,
    /// When.
    pub time: SystemTime,
}

/// A record as it came from its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginalRecord {
    /// Topic, stream, list or file.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Offset in the partition.
    pub offset: i64,
    /// Milliseconds since 1970, where the source has a time.
    pub timestamp_ms: Option<i64>,
    /// Key bytes.
    pub key: Option<Vec<u8>>,
    /// Value bytes; `None` for a tombstone.
    pub value: Option<Vec<u8>>,
    /// Headers in their order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Envelope {
    /// One record, copied out; `None` past the end.
    #[must_use]
    pub fn record(&self, row: usize) -> Option<OriginalRecord> {
        (row < self.len()).then(|| OriginalRecord {
            topic: self.topics().value(row).to_owned(),
            partition: self.partitions().value(row),
            offset: self.offsets().value(row),
            timestamp_ms: self.timestamps().is_valid(row).then(|| self.timestamps().value(row)),
            key: bytes_at(self.keys(), row),
            value: bytes_at(self.values(), row),
            headers: self.headers_of(row).map(|headers| header_pairs(&headers)).unwrap_or_default(),
        })
    }

    /// The dead letters of rows of this envelope.
    #[must_use]
    pub fn dead_letters(&self, rejection: &Rejection) -> Vec<DeadLetter> {
        rejection.rows.iter().map(|row| dead_letter(self.record(*row as usize), rejection)).collect()
    }
}

impl DecodedBatch {
    /// The dead letters of rows of this batch; the original records where they are known. Rows of one record have one
    /// letter together.
    #[must_use]
    pub fn dead_letters(&self, rejection: &Rejection) -> Vec<DeadLetter> {
        match &self.origin {
            Origin::Records { envelope, rows } => {
                let record = |row: &u32| rows.values().get(*row as usize).copied();
                let mut records: Vec<Option<u32>> = rejection.rows.iter().map(record).collect();
                records.dedup();
                let original = |record: Option<u32>| record.and_then(|record| envelope.record(record as usize));
                records.into_iter().map(|record| dead_letter(original(record), rejection)).collect()
            }
            Origin::Replaced => rejection.rows.iter().map(|_| dead_letter(None, rejection)).collect(),
        }
    }
}

impl DeadLetter {
    /// About how many bytes it holds.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let record = self.record.as_ref().map_or(0, |record| {
            record.topic.len()
                + record.key.as_ref().map_or(0, Vec::len)
                + record.value.as_ref().map_or(0, Vec::len)
                + record
                    .headers
                    .iter()
                    .map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len))
                    .sum::<usize>()
        });
        size_of::<Self>() + record + self.code.len() + self.message.len()
    }
}

/// One refused record.
fn dead_letter(record: Option<OriginalRecord>, rejection: &Rejection) -> DeadLetter {
    let Rejection { rows: _, stage, plugin, code, message } = rejection;
    DeadLetter {
        record,
        stage: *stage,
        plugin: plugin.clone(),
        code: code.clone(),
        message: message.clone(),
        time: SystemTime::now(),
    }
}

/// The bytes of one slot; `None` for null.
fn bytes_at(array: &BinaryArray, row: usize) -> Option<Vec<u8>> {
    array.is_valid(row).then(|| array.value(row).to_vec())
}

/// Headers as pairs.
fn header_pairs(headers: &StructArray) -> Vec<(String, Option<Vec<u8>>)> {
    let (keys, values) = (headers.column(0).as_string::<i32>(), headers.column(1).as_binary::<i32>());
    (0..headers.len()).map(|row| (keys.value(row).to_owned(), bytes_at(values, row))).collect()
}

/// All files that a lane opened since its last commit, closed together, with the offsets that they answer for.
/// Nothing in it is visible yet.
#[derive(Debug)]
pub struct ClosedGeneration {
    /// Counts the generations of a lane from 0.
    pub sequence: u64,
    /// The source offsets whose records are all in `files`, in `dead_letters`, or were left out by a plugin.
    pub delta: CheckpointDelta,
    /// The files, in the order in which they were closed.
    pub files: Vec<ClosedFile>,
    /// Refused records of the same offsets.
    pub dead_letters: Vec<DeadLetter>,
    /// The state of plugins behind the last of these offsets, where they keep some.
    pub states: Vec<ChainState>,
    /// When it was closed.
    pub closed_at: Instant,
    /// Counts what it still holds against the memory budget.
    pub memory: MemoryGuard,
}

/// A finished Parquet file on its way to the store; no reader can see it yet.
#[derive(Debug)]
pub struct ClosedFile {
    /// Where it will be visible, from the store's root.
    pub path: Path,
    /// Rows in it.
    pub rows: u64,
    /// Its length.
    pub bytes: u64,
    /// The offsets of the batches whose rows for its directory it holds: what to read to write it once more.
    pub sources: CheckpointDelta,
    /// Ends when its last byte is in the store.
    pub staged: JoinHandle<Result<StagedFile, PipelineError>>,
}
