//! Reads a Parquet file of the store row group by row group.
//!
//! Comes in: a path, and bytes that anybody may have written. Goes out: rows, or words that say why there are none: such a
//! [`Damage`] is no failure of the pipeline, and the file is left alone. A store that is away is a failure. Only what is
//! read at the moment is in memory: a small file, or one row group.

use std::{
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use arrow_array::RecordBatch;
use arrow_schema::{Schema, SchemaRef};
use bytes::{Buf as _, Bytes, buf::Reader};
use parquet::{
    arrow::arrow_reader::{
        ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
    },
    errors::ParquetError,
    file::{
        metadata::{ParquetMetaDataReader, RowGroupMetaData},
        reader::{ChunkReader, Length},
    },
};

use super::Candidate;
use crate::{error::PipelineError, store::Store};

/// A file up to this size is read in one request.
pub(super) const SMALL_BYTES: u64 = 1 << 20;

/// A file has its mark at both ends, and the length of its footer.
const LEAST_BYTES: u64 = 12;

/// What is read of the end of a larger file, or of one of which only the footer is wanted: most footers are shorter.
const FOOTER_BYTES: u64 = 64 << 10;

/// Most rows decoded at once, as many as come from a source at once.
const BATCH_ROWS: usize = 8_192;

/// About how many bytes of values are decoded at once.
const BATCH_BYTES: i64 = 8 << 20;

/// Why a file cannot be merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// It was there when files were listed, and is not now: another process has merged it.
    Gone,
    /// It is none of ours, or not what a Parquet file is, in words.
    Unreadable(String),
}

impl Damage {
    /// With the decoder's words.
    fn new(why: impl Into<String>) -> Self {
        Self::Unreadable(why.into())
    }

    /// Because of an error of the decoder.
    fn of(error: &ParquetError) -> Self {
        Self::Unreadable(error.to_string())
    }
}

/// What came of looking at a file: the failure is the store's, the damage is the file's.
pub(super) type Looked<T> = Result<Result<T, Damage>, PipelineError>;

/// A file whose footer is read.
#[derive(Debug)]
pub(super) struct InputFile {
    /// Which.
    candidate: Candidate,
    /// What the footer says.
    metadata: ArrowReaderMetadata,
    /// The end of the file, or all of it.
    tail: Bytes,
}

impl InputFile {
    /// Reads the footer, and all of a small file where its rows are wanted too.
    pub(super) async fn open(store: &Store, candidate: Candidate, wants_rows: bool) -> Looked<Self> {
        let bytes = candidate.bytes;
        if bytes < LEAST_BYTES {
            return Ok(Err(Damage::new(format!("it has {bytes} bytes, too few for a Parquet file"))));
        }
        let mut length = if wants_rows && bytes <= SMALL_BYTES { bytes } else { bytes.min(FOOTER_BYTES) };
        loop {
            let Some(tail) = store.read_range(&candidate.path, bytes - length..bytes).await? else {
                return Ok(Err(Damage::Gone));
            };
            match footer(&tail, bytes) {
                Ok(metadata) => return Ok(Ok(Self { candidate, metadata, tail })),
                Err(ParquetError::NeedMoreData(needed)) if needed as u64 > length && needed as u64 <= bytes => {
                    length = needed as u64;
                }
                Err(error) => return Ok(Err(Damage::of(&error))),
            }
        }
    }

    /// Which file it is.
    pub(super) fn candidate(&self) -> &Candidate {
        &self.candidate
    }

    /// Rows in it, as the footer says.
    pub(super) fn rows(&self) -> u64 {
        u64::try_from(self.metadata.metadata().file_metadata().num_rows()).unwrap_or_default()
    }

    /// The columns, without what the file says about itself.
    pub(super) fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(self.metadata.schema().fields().clone()))
    }

    /// A value of the footer's metadata.
    pub(super) fn says(&self, key: &str) -> Option<&str> {
        let pairs = self.metadata.metadata().file_metadata().key_value_metadata()?;
        pairs.iter().find(|pair| pair.key == key)?.value.as_deref()
    }

    /// How many row groups it has.
    pub(super) fn row_groups(&self) -> usize {
        self.metadata.metadata().num_row_groups()
    }

    /// Reads the bytes of a row group; its rows are decoded as they are asked for.
    pub(super) async fn row_group(&self, store: &Store, number: usize) -> Looked<RowGroup> {
        let Some(group) = self.metadata.metadata().row_groups().get(number) else {
            return Ok(Err(Damage::new(format!("it has no row group {number}"))));
        };
        let range = match stretch(group, self.candidate.bytes) {
            Ok(range) => range,
            Err(damage) => return Ok(Err(damage)),
        };
        let tail_from = self.candidate.bytes - self.tail.len() as u64;
        let bytes = match within(&self.tail, tail_from, &range) {
            Some(bytes) => bytes,
            None => match store.read_range(&self.candidate.path, range.clone()).await? {
                Some(bytes) => bytes,
                None => return Ok(Err(Damage::Gone)),
            },
        };
        let bytes = Stretch { from: range.start, bytes, length: self.candidate.bytes };
        let rows = batch_rows(group);
        Ok(guarded(|| {
            let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes, self.metadata.clone());
            reader.with_row_groups(vec![number]).with_batch_size(rows).build()
        })
        .map(RowGroup)
        .map_err(|error| Damage::of(&error)))
    }
}

/// The rows of a row group.
pub(super) struct RowGroup(ParquetRecordBatchReader);

impl RowGroup {
    /// The next rows; `None` after the last.
    pub(super) fn next(&mut self) -> Result<Option<RecordBatch>, Damage> {
        let rows = guarded(|| self.0.next().transpose().map_err(ParquetError::from));
        rows.map_err(|error| Damage::of(&error))
    }
}

/// The footer, from the end of a file of so many bytes.
fn footer(tail: &Bytes, bytes: u64) -> Result<ArrowReaderMetadata, ParquetError> {
    guarded(|| {
        let mut reader = ParquetMetaDataReader::new();
        reader.try_parse_sized(tail, bytes)?;
        ArrowReaderMetadata::try_new(Arc::new(reader.finish()?), ArrowReaderOptions::new())
    })
}

/// Runs a decoder over bytes that anybody may have written: where it panics, that is an answer too.
fn guarded<T>(decode: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, ParquetError> {
    catch_unwind(AssertUnwindSafe(decode))
        .unwrap_or_else(|_| Err(ParquetError::General("the decoder cannot cope with its bytes".to_owned())))
}

/// Where the bytes of a row group are in a file.
fn stretch(group: &RowGroupMetaData, file_bytes: u64) -> Result<Range<u64>, Damage> {
    let (mut from, mut to) = (file_bytes, 0);
    for column in group.columns() {
        let first =
            column.dictionary_page_offset().map_or(column.data_page_offset(), |at| at.min(column.data_page_offset()));
        let (Ok(first), Ok(length)) = (u64::try_from(first), u64::try_from(column.compressed_size())) else {
            return Err(Damage::new("its footer names negative positions"));
        };
        from = from.min(first);
        to = to.max(first.saturating_add(length));
    }
    if from < to && to <= file_bytes {
        Ok(from..to)
    } else {
        Err(Damage::new("its footer names positions behind its end"))
    }
}

/// How many rows to decode at once.
fn batch_rows(group: &RowGroupMetaData) -> usize {
    let row_bytes = (group.total_byte_size() / group.num_rows().max(1)).max(1);
    usize::try_from(BATCH_BYTES / row_bytes).unwrap_or(1).clamp(1, BATCH_ROWS)
}

/// A part of bytes that begin at a position; `None` where they do not have all of it.
fn within(bytes: &Bytes, from: u64, range: &Range<u64>) -> Option<Bytes> {
    let first = usize::try_from(range.start.checked_sub(from)?).ok()?;
    let last = usize::try_from(range.end.checked_sub(from)?).ok()?;
    (first <= last && last <= bytes.len()).then(|| bytes.slice(first..last))
}

/// The bytes of a file from one position to another, as its reader asks for them.
struct Stretch {
    /// Position of the first byte.
    from: u64,
    /// The bytes.
    bytes: Bytes,
    /// Length of the whole file.
    length: u64,
}

impl Stretch {
    /// The bytes from a position on.
    fn since(&self, start: u64) -> Result<Bytes, ParquetError> {
        let end = self.from + self.bytes.len() as u64;
        within(&self.bytes, self.from, &(start..end.max(start)))
            .ok_or_else(|| ParquetError::EOF(format!("position {start} is not in this row group")))
    }
}

impl Length for Stretch {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for Stretch {
    type T = Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(self.since(start)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let mut bytes = self.since(start)?;
        if bytes.len() < length {
            return Err(ParquetError::EOF(format!("{length} bytes from {start} on are not in this row group")));
        }
        bytes.truncate(length);
        Ok(bytes)
    }
}
