//! One open Parquet file: rows in, bytes out to the store as early as the format allows.
//!
//! Parquet's writer is not asynchronous: it encodes on the lane's own task, into memory, and after each row group the
//! bytes are handed to the store, which uploads them in the background and lets the lane wait when too many are on
//! their way. Where rows are to be sorted, they wait for their row group to be full ([`Sorter`]). A file that is dropped
//! without being finished leaves nothing that a reader could see.

use std::{
    io::{self, Write},
    sync::Arc,
};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use bytes::Bytes;
use parquet::{
    arrow::ArrowWriter,
    file::{metadata::KeyValue, properties::WriterProperties},
};

use super::{
    sort::{SortPlan, Sorter},
    waiting::Origin,
};
use crate::{
    error::PipelineError,
    store::{Path, StagingWriter},
    telemetry::metrics::Metrics,
};

/// Encoded bytes are kept in pieces of this size, so that a large row group is never copied to grow a buffer.
const PIECE_BYTES: usize = 1 << 20;

/// A file that rows are being written to.
#[derive(Debug)]
pub(super) struct OpenFile {
    /// Encodes.
    writer: ArrowWriter<Outbox>,
    /// Rows that are to be sorted before.
    sorter: Option<Sorter>,
    /// Where the bytes go.
    staging: StagingWriter,
    /// Where the file will be visible.
    path: Path,
    /// The schema of its rows.
    schema: SchemaRef,
    /// Its number in the generation.
    pub(super) number: u32,
    /// Rows in it.
    rows: u64,
    /// Bytes handed to the store.
    sent_bytes: usize,
    /// Where its rows come from.
    pub(super) origin: Origin,
    /// See [`OpenFile::encoded_bytes`]; kept, since asking every column costs more than a look.
    encoded_bytes: usize,
    /// See [`OpenFile::held_bytes`].
    held_bytes: usize,
    /// Counts it among the open files.
    _count: OpenCount,
}

/// A file whose last byte is with the store's writer.
#[derive(Debug)]
pub(super) struct EncodedFile {
    /// Still to be finished.
    pub(super) staging: StagingWriter,
    /// Where the file will be visible.
    pub(super) path: Path,
    /// Rows in it.
    pub(super) rows: u64,
    /// Its length.
    pub(super) bytes: u64,
    /// Bytes of it that are still in memory.
    pub(super) held_bytes: usize,
}

/// Everything that a file begins with.
#[derive(Debug)]
pub(super) struct NewFile {
    /// Where its bytes go.
    pub(super) staging: StagingWriter,
    /// Where it will be visible.
    pub(super) path: Path,
    /// Its number in the generation.
    pub(super) number: u32,
    /// Where its first rows come from.
    pub(super) origin: Origin,
    /// The schema of its rows.
    pub(super) schema: SchemaRef,
    /// How it is written.
    pub(super) properties: WriterProperties,
    /// How its rows are sorted.
    pub(super) sort: Option<SortPlan>,
}

impl OpenFile {
    /// Opens a file. Nothing is sent yet.
    pub(super) fn open(new: NewFile, metrics: &Metrics) -> Result<Self, PipelineError> {
        let NewFile { staging, path, number, origin, schema, properties, sort } = new;
        let writer = ArrowWriter::try_new(Outbox::default(), Arc::clone(&schema), Some(properties));
        let writer = writer.map_err(|error| cannot_encode(&path, error))?;
        Ok(Self {
            writer,
            sorter: sort.map(Sorter::new),
            staging,
            path,
            schema,
            number,
            origin,
            rows: 0,
            sent_bytes: 0,
            encoded_bytes: 0,
            held_bytes: 0,
            _count: OpenCount::new(metrics),
        })
    }

    /// The schema of its rows.
    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Appends rows, which must have its schema.
    pub(super) async fn write(&mut self, rows: &RecordBatch) -> Result<(), PipelineError> {
        self.rows += u64::try_from(rows.num_rows()).unwrap_or(u64::MAX);
        if self.sorter.is_none() {
            self.writer.write(rows).map_err(|error| cannot_encode(&self.path, error))?;
            return self.send().await;
        }
        let mut rest = rows.clone();
        while let (Some(sorter), 1..) = (&mut self.sorter, rest.num_rows()) {
            let some = rest.slice(0, sorter.room_rows().min(rest.num_rows()));
            rest = rest.slice(some.num_rows(), rest.num_rows() - some.num_rows());
            if sorter.push(&some).map_err(|error| cannot_encode(&self.path, error.into()))? {
                self.end_row_group().await?;
            }
        }
        self.count();
        Ok(())
    }

    /// Ends the row group, so that its bytes can leave.
    pub(super) async fn end_row_group(&mut self) -> Result<(), PipelineError> {
        self.write_sorted().await?;
        self.writer.flush().map_err(|error| cannot_encode(&self.path, error))?;
        self.send().await
    }

    /// Encodes the rows that waited to be sorted.
    async fn write_sorted(&mut self) -> Result<(), PipelineError> {
        let Some(sorter) = &mut self.sorter else { return Ok(()) };
        if !sorter.has_sorted() {
            // So far it was a guess, and one that is too large.
            self.encoded_bytes = 0;
        }
        for rows in sorter.take().map_err(|error| cannot_encode(&self.path, error.into()))? {
            let rows = rows.map_err(|error| cannot_encode(&self.path, error.into()))?;
            self.writer.write(&rows).map_err(|error| cannot_encode(&self.path, error))?;
            // Other tasks come in between, as they do between batches.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Rows in it.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// About how long the file is so far.
    pub(super) fn encoded_bytes(&self) -> usize {
        self.encoded_bytes
    }

    /// About how many bytes ending the row group would let go.
    pub(super) fn row_group_bytes(&self) -> usize {
        self.writer.memory_size() + self.sorter.as_ref().map_or(0, Sorter::bytes)
    }

    /// About how many bytes of memory it takes.
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Writes the footer, with `metadata` in it, and hands the last bytes to the store.
    pub(super) async fn finish(mut self, metadata: Vec<KeyValue>) -> Result<EncodedFile, PipelineError> {
        self.write_sorted().await?;
        for pair in metadata {
            self.writer.append_key_value_metadata(pair);
        }
        self.writer.finish().map_err(|error| cannot_encode(&self.path, error))?;
        self.send().await?;
        Ok(EncodedFile {
            held_bytes: self.staging.buffered_bytes(),
            bytes: u64::try_from(self.sent_bytes).unwrap_or(u64::MAX),
            staging: self.staging,
            path: self.path,
            rows: self.rows,
        })
    }

    /// Throws the file away.
    pub(super) async fn abort(self) {
        self.staging.abort().await;
    }

    /// Hands what is encoded to the store; waits while too many bytes are on their way.
    async fn send(&mut self) -> Result<(), PipelineError> {
        for piece in self.writer.inner_mut().take() {
            self.sent_bytes += piece.len();
            self.staging.write(piece).await?;
        }
        self.count();
        Ok(())
    }

    /// Looks up how much there is.
    fn count(&mut self) {
        let encoded = self.writer.bytes_written() + self.writer.in_progress_size();
        let waiting = self.sorter.as_ref().map_or(0, |sorter| sorter.encoded_bytes(encoded));
        // What was taken for full stays full, though its rows became smaller than it seemed.
        self.encoded_bytes = self.encoded_bytes.max(encoded + waiting);
        self.held_bytes = self.row_group_bytes() + self.staging.buffered_bytes();
    }
}

/// The error for rows that do not become Parquet.
fn cannot_encode(path: &Path, error: parquet::errors::ParquetError) -> PipelineError {
    PipelineError::stop(format!("cannot write Parquet for {path}")).because(error)
}

/// Encoded bytes that wait to be sent; at most one row group.
#[derive(Debug, Default)]
struct Outbox {
    /// All full but the last.
    pieces: Vec<Vec<u8>>,
}

impl Outbox {
    /// Takes what is there.
    fn take(&mut self) -> Vec<Bytes> {
        self.pieces.drain(..).map(Bytes::from).collect()
    }
}

impl Write for Outbox {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = self.pieces.last().map_or(0, |piece| PIECE_BYTES.saturating_sub(piece.len()));
            if room == 0 {
                // The first stays as small as a small file needs it.
                let capacity = if self.pieces.is_empty() { rest.len().min(PIECE_BYTES) } else { PIECE_BYTES };
                self.pieces.push(Vec::with_capacity(capacity));
                continue;
            }
            let (now, later) = rest.split_at(room.min(rest.len()));
            if let Some(piece) = self.pieces.last_mut() {
                piece.extend_from_slice(now);
            }
            rest = later;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One open file in the metrics, until it is dropped.
#[derive(Debug)]
struct OpenCount(Metrics);

impl OpenCount {
    /// One more.
    fn new(metrics: &Metrics) -> Self {
        metrics.open_files_changed(1);
        Self(metrics.clone())
    }
}

impl Drop for OpenCount {
    fn drop(&mut self) {
        self.0.open_files_changed(-1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outbox_gives_back_what_was_put_in_in_pieces_of_bounded_size() {
        let mut outbox = Outbox::default();
        let bytes: Vec<u8> = (0..3 * PIECE_BYTES + 5).map(|at| u8::try_from(at % 251).unwrap()).collect();
        for part in bytes.chunks(300_000) {
            outbox.write_all(part).unwrap();
        }
        let pieces = outbox.take();
        assert!(pieces.iter().all(|piece| piece.len() <= PIECE_BYTES));
        assert_eq!(pieces.concat(), bytes);
        assert!(outbox.take().is_empty());
    }
}
