//! One open Parquet file: rows in, encoded bytes out to where no reader looks.

use std::{io, sync::Arc};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use bytes::Bytes;
use parquet::{
    arrow::ArrowWriter,
    errors::ParquetError,
    file::{metadata::KeyValue, properties::WriterProperties},
};
use tokio::runtime::Handle;

use crate::{
    batch::ClosedFile,
    error::PipelineError,
    store::{Path, StagingWriter},
};

/// Encoded bytes leave for the store once there are so many: large enough to be worth a message.
const HAND_OVER_BYTES: usize = 1 << 20;

/// An open file.
#[derive(Debug)]
pub(super) struct OpenFile {
    /// Where it will be visible.
    path: Path,
    /// All its rows have this schema.
    schema: SchemaRef,
    /// Encodes.
    encoder: ArrowWriter<Collected>,
    /// Takes what is encoded.
    staging: StagingWriter,
    /// Rows so far.
    rows: u64,
}

/// Collects what the encoder gives out.
#[derive(Debug, Default)]
struct Collected(Vec<u8>);

impl io::Write for Collected {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl OpenFile {
    /// Begins a file.
    pub(super) fn open(
        path: Path,
        schema: SchemaRef,
        properties: WriterProperties,
        staging: StagingWriter,
    ) -> Result<Self, PipelineError> {
        let encoder = ArrowWriter::try_new(Collected::default(), Arc::clone(&schema), Some(properties))
            .map_err(|error| failed(&path, error))?;
        Ok(Self { path, schema, encoder, staging, rows: 0 })
    }

    /// The schema of its rows.
    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Appends rows of its schema. Waits while the store is behind.
    pub(super) async fn write(&mut self, rows: &RecordBatch) -> Result<(), PipelineError> {
        self.encoder.write(rows).map_err(|error| failed(&self.path, error))?;
        self.rows += rows.num_rows() as u64;
        if self.encoder.inner().0.len() >= HAND_OVER_BYTES {
            self.hand_over().await?;
        }
        Ok(())
    }

    /// Ends the row group, so that its memory becomes bytes on their way.
    pub(super) async fn end_row_group(&mut self) -> Result<(), PipelineError> {
        self.encoder.flush().map_err(|error| failed(&self.path, error))?;
        self.hand_over().await
    }

    /// Encoded bytes so far, with an estimate for the row group that is open.
    pub(super) fn encoded_bytes(&self) -> usize {
        self.encoder.bytes_written() + self.encoder.in_progress_size()
    }

    /// Encoded bytes of the row group that is open, estimated.
    pub(super) fn row_group_bytes(&self) -> usize {
        self.encoder.in_progress_size()
    }

    /// What it holds in memory.
    pub(super) fn memory_bytes(&self) -> usize {
        self.encoder.memory_size() + self.encoder.inner().0.capacity() + self.staging.buffered_bytes()
    }

    /// Ends the file. The last bytes go to the store on `io`; the caller does not wait for them.
    pub(super) fn close(mut self, metadata: Vec<KeyValue>, io: &Handle) -> Result<ClosedFile, PipelineError> {
        for entry in metadata {
            self.encoder.append_key_value_metadata(entry);
        }
        self.encoder.finish().map_err(|error| failed(&self.path, error))?;
        let last = Bytes::from(std::mem::take(&mut self.encoder.inner_mut().0));
        let bytes = self.encoder.bytes_written() as u64;
        let Self { path, mut staging, rows, .. } = self;
        let staged = io.spawn(async move {
            staging.write(last).await?;
            staging.finish().await
        });
        Ok(ClosedFile { path, rows, bytes, staged })
    }

    /// Gives the file up.
    pub(super) async fn abandon(self) {
        self.staging.abort().await;
    }

    /// Hands encoded bytes to the store.
    async fn hand_over(&mut self) -> Result<(), PipelineError> {
        let bytes = std::mem::take(&mut self.encoder.inner_mut().0);
        self.staging.write(Bytes::from(bytes)).await
    }
}

/// The encoder failed.
fn failed(path: &Path, error: ParquetError) -> PipelineError {
    PipelineError::stop(format!("{path}: the rows cannot be written as Parquet")).because(error)
}
