//! Typed rows of Arrow and Parquet files: each is a record, with the number of the row, from 0, as offset. They need no
//! decoding of bytes, so they travel beside an envelope without values.

use std::{io, sync::Arc};

use arrow_array::{Array as _, RecordBatch};

use super::{Reader, wrong_end};
use crate::{
    error::PipelineError,
    ipc::{BatchReader, ReadError},
    source::envelope::{BATCH_BYTES_MAX, EnvelopeBuilder, Record},
};

/// Most bytes of one record batch of an Arrow file, as written or unpacked: it is in memory as a whole.
const ARROW_BATCH_BYTES_MAX: usize = 256 << 20;

/// What a look for more rows gave.
pub(super) enum Rows {
    /// Some.
    Read(RecordBatch),
    /// None so far; more may come.
    NoneYet,
    /// No more.
    End,
}

impl Reader {
    /// Reads typed rows, of which the first has the number `first`; `false` when the lane wants no more.
    pub(super) fn read_rows(
        &mut self,
        file: &str,
        first: i64,
        mut next: impl FnMut() -> Result<Rows, PipelineError>,
    ) -> Result<bool, PipelineError> {
        let wanted = self.wanted(file);
        let mut number = first;
        while number < wanted.to {
            if self.control.is_stopped() {
                return Ok(false);
            }
            let rows = match next()? {
                Rows::End => break,
                Rows::NoneYet => continue,
                Rows::Read(rows) => rows,
            };
            let count = i64::try_from(rows.num_rows()).unwrap_or(i64::MAX);
            let from = (wanted.from - number).clamp(0, count);
            let to = wanted.to.saturating_sub(number).clamp(from, count);
            if !self.send_rows(file, &rows, number, from..to)? {
                return Ok(false);
            }
            number += count;
        }
        if number < wanted.from {
            return Err(wrong_end(file, "row", wanted.from, number));
        }
        Ok(true)
    }

    /// Sends some rows of a batch whose first row has the number `number`, in slices that are no larger than other batches.
    fn send_rows(
        &mut self,
        file: &str,
        rows: &RecordBatch,
        number: i64,
        range: std::ops::Range<i64>,
    ) -> Result<bool, PipelineError> {
        let row_bytes = bytes_of(rows).div_ceil(rows.num_rows().max(1)).max(1);
        let most = self.rows_max.min(BATCH_BYTES_MAX / row_bytes).max(1);
        let mut builder = EnvelopeBuilder::new(file.into(), Arc::clone(&self.context.pipeline));
        let mut at = range.start;
        while at < range.end {
            let end = at.saturating_add(i64::try_from(most).unwrap_or(i64::MAX)).min(range.end);
            for row in at..end {
                let offset = number + row;
                builder.push(Record { partition: 0, offset, timestamp_ms: None, key: None, value: None });
            }
            let (Ok(from), Ok(length)) = (usize::try_from(at), usize::try_from(end - at)) else { break };
            if !self.send_with(&mut builder, Some((rows.slice(from, length), length * row_bytes)))? {
                return Ok(false);
            }
            at = end;
        }
        Ok(true)
    }

    /// Reads an Arrow stream or file.
    pub(super) fn read_arrow(&mut self, file: &str, input: impl io::Read) -> Result<bool, PipelineError> {
        let mut batches = open_arrow(file, input)?;
        let mut number = 0;
        self.read_rows(file, 0, || next_of_arrow(file, &mut batches, &mut number))
    }
}

/// Opens an Arrow stream or file.
pub(super) fn open_arrow<R: io::Read>(file: &str, input: R) -> Result<BatchReader<R>, PipelineError> {
    BatchReader::new(input, ARROW_BATCH_BYTES_MAX).map_err(|error| unreadable(file, 0, error))
}

/// The next rows of an Arrow stream or file; `number` is that of the next row.
pub(super) fn next_of_arrow<R: io::Read>(
    file: &str,
    batches: &mut BatchReader<R>,
    number: &mut i64,
) -> Result<Rows, PipelineError> {
    match batches.next_batch() {
        Ok(None) => Ok(Rows::End),
        Ok(Some(rows)) => {
            *number += i64::try_from(rows.num_rows()).unwrap_or(i64::MAX);
            Ok(Rows::Read(rows))
        }
        Err(error) => Err(unreadable(file, *number, error)),
    }
}

/// The words for an Arrow stream that cannot be read on.
fn unreadable(file: &str, row: i64, error: ReadError) -> PipelineError {
    let words = format!("{file}: from row {row} on the Arrow data cannot be read; the rows before were");
    match error {
        ReadError::Io(error) => PipelineError::stop(words).because(error),
        ReadError::Refused(refused) => PipelineError::stop(format!("{words}: expected Arrow IPC, found {refused}")),
    }
}

/// About how many bytes rows hold, those of slices not counted twice.
fn bytes_of(rows: &RecordBatch) -> usize {
    let bytes = rows.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or(0));
    bytes.fold(0, usize::saturating_add)
}
