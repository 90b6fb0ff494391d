//! Parquet files, row group by row group: in memory are the pages that are being read and one batch of rows.

use std::{
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
};

use ::parquet::{
    arrow::arrow_reader::{
        ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
    },
    errors::ParquetError,
    file::metadata::{ColumnChunkMetaData, RowGroupMetaData},
};
use arrow_array::RecordBatch;

use super::{Reader, rows::Rows};
use crate::{error::PipelineError, source::envelope::BATCH_BYTES_MAX};

/// A file being read.
struct ParquetRows {
    /// The file.
    file: File,
    /// Its footer.
    metadata: ArrowReaderMetadata,
    /// Most rows of a batch.
    rows_max: usize,
    /// The next row group.
    group: usize,
    /// Rows to leave out at its start.
    skip: usize,
    /// The row group that is being read.
    reader: Option<ParquetRecordBatchReader>,
    /// The number of the next row.
    number: i64,
}

impl Reader {
    /// Reads a Parquet file, from the row group on that has the first row that is wanted.
    pub(super) fn read_parquet(&mut self, name: &str, file: File) -> Result<bool, PipelineError> {
        let from = self.wanted(name).from;
        let words = |error: ParquetError| {
            PipelineError::stop(format!("{name}: the Parquet file cannot be read")).because(error)
        };
        let mut rows = guarded(|| ParquetRows::open(file, from, self.rows_max)).map_err(words)?;
        self.read_rows(name, rows.number, || match guarded(|| rows.next_rows()) {
            Ok(Some(read)) => Ok(Rows::Read(read)),
            Ok(None) => Ok(Rows::End),
            Err(error) => {
                let words = format!(
                    "{name}: from row {} on the Parquet file cannot be read; the rows before were",
                    rows.number
                );
                Err(PipelineError::stop(words).because(error))
            }
        })
    }
}

impl ParquetRows {
    /// Reads the footer, and passes over the rows before `from`.
    fn open(file: File, from: i64, rows_max: usize) -> Result<Self, ParquetError> {
        let metadata = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new())?;
        let (mut group, mut number) = (0, 0i64);
        for rows in metadata.metadata().row_groups().iter().map(RowGroupMetaData::num_rows) {
            if number.saturating_add(rows) > from {
                break;
            }
            number = number.saturating_add(rows);
            group += 1;
        }
        let is_there = group < metadata.metadata().num_row_groups();
        let skip = if is_there { usize::try_from(from - number).unwrap_or(0) } else { 0 };
        let number = number.saturating_add(i64::try_from(skip).unwrap_or(0));
        Ok(Self { file, metadata, rows_max, group, skip, reader: None, number })
    }

    /// The next rows; `None` at the end.
    fn next_rows(&mut self) -> Result<Option<RecordBatch>, ParquetError> {
        loop {
            if let Some(reader) = &mut self.reader {
                if let Some(rows) = reader.next().transpose()? {
                    self.number = self.number.saturating_add(i64::try_from(rows.num_rows()).unwrap_or(0));
                    return Ok(Some(rows));
                }
                self.reader = None;
            }
            let Some(group) = self.metadata.metadata().row_groups().get(self.group) else { return Ok(None) };
            let reader =
                ParquetRecordBatchReaderBuilder::new_with_metadata(self.file.try_clone()?, self.metadata.clone())
                    .with_row_groups(vec![self.group])
                    .with_batch_size(self.rows_max.min(rows_at_once(group)))
                    .with_offset(std::mem::take(&mut self.skip));
            self.reader = Some(reader.build()?);
            self.group += 1;
        }
    }
}

/// How many rows of a row group make a batch of the usual size, by what its footer says of them.
fn rows_at_once(group: &RowGroupMetaData) -> usize {
    let rows = usize::try_from(group.num_rows()).unwrap_or(0).max(1);
    // A dictionary repeats its values when it is unpacked; newer writers say how much that gives.
    let texts: i64 = group.columns().iter().filter_map(ColumnChunkMetaData::unencoded_byte_array_data_bytes).sum();
    let bytes = usize::try_from(group.total_byte_size().max(texts)).unwrap_or(0);
    (BATCH_BYTES_MAX / (bytes / rows).max(1)).max(1)
}

/// A file is somebody else's too: where the reader panics over one, that is an error of this file.
fn guarded<T>(read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, ParquetError> {
    catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(ParquetError::General("the decoder cannot cope with its bytes".to_owned())))
}
