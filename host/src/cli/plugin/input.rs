//! The rows that a plugin is tried with: a file read as a pipeline would read it, with one schema from its first row to its last.

use std::{sync::Arc, time::Duration};

use arrow_schema::SchemaRef;

use super::{Ended, subject::SubjectArguments};
use crate::{
    batch::DecodedBatch,
    cli::reading::{Reading, Records, Refused},
    config::{DecodeConfig, FileConfig, SourceConfig, SourceKind},
    error::PipelineError,
};

/// Bytes of rows: a trial, and no pipeline.
const ROWS_BYTES_MAX: usize = 1 << 30;
/// Times that a file is read: once to learn its schema, once with it, and once more where that taught something.
const PASSES_MAX: usize = 3;

/// Rows in memory.
#[derive(Debug)]
pub(super) struct Input {
    /// Their schema.
    pub(super) schema: SchemaRef,
    /// The rows; no batch is empty.
    pub(super) batches: Vec<DecodedBatch>,
    /// Records that are no rows.
    pub(super) refused: Vec<Refused>,
    /// Number of records.
    pub(super) records: u64,
    /// Whether there are more that were not read.
    pub(super) is_cut: bool,
}

impl Input {
    /// Number of rows.
    pub(super) fn rows(&self) -> u64 {
        self.batches.iter().map(|batch| batch.rows.num_rows() as u64).sum()
    }

    /// Reads the file that the arguments name.
    pub(super) async fn read(arguments: &SubjectArguments, decode: &DecodeConfig) -> Result<Self, Ended> {
        let file = arguments.input()?;
        let path = file.display().to_string();
        if !file.is_file() {
            return Err(Ended::usage(format!("--input: {path} is not a file")));
        }
        let source = SourceConfig {
            kind: SourceKind::File(FileConfig { paths: vec![glob::Pattern::escape(&path)] }),
            batch_rows_max: arguments.batch_rows as usize,
            // Batches end by their rows, so that they are the same each time.
            batch_timeout: Duration::from_secs(24 * 3_600),
        };
        let limit = if arguments.records == 0 { u64::MAX } else { arguments.records };
        let mut reading = Reading::new(decode.clone())?;
        for _ in 0..PASSES_MAX {
            let input = Self::pass(&mut reading, &source, limit).await?;
            let known = reading.decoders.values().next().and_then(|decoder| decoder.schema());
            let Some(schema) = known else {
                let why = input.refused.first().map(|refused| format!(" ({}: {})", refused.code, refused.message));
                return Err(Ended::usage(format!("{path}: no record in it is a row{}", why.unwrap_or_default())));
            };
            if input.batches.iter().all(|batch| batch.rows.schema_ref() == schema) {
                return Ok(Self { schema: Arc::clone(schema), ..input });
            }
        }
        Err(PipelineError::stop(format!(
            "{path}: its records have no schema that stays: declare one under `schema:` of a pipeline"
        ))
        .into())
    }

    /// Reads the file once.
    async fn pass(reading: &mut Reading, source: &SourceConfig, limit: u64) -> Result<Self, PipelineError> {
        let (mut batches, mut refused, mut bytes, mut left, mut is_cut) =
            (Vec::new(), Vec::new(), 0_usize, limit, false);
        let take = |records: Records| {
            refused.extend(records.refused);
            let Some(DecodedBatch { mut rows, origin }) = records.batch else { return Ok(()) };
            let kept = usize::try_from(left).unwrap_or(usize::MAX).min(rows.num_rows());
            is_cut |= kept < rows.num_rows();
            left -= kept as u64;
            rows = rows.slice(0, kept);
            bytes = bytes.saturating_add(rows.get_array_memory_size());
            if bytes > ROWS_BYTES_MAX {
                return Err(PipelineError::stop("the rows take more than 1 GiB: take fewer with --records"));
            }
            if kept > 0 {
                batches.push(DecodedBatch { origin: first(origin, kept), rows });
            }
            Ok(())
        };
        let records = reading.read(source, limit, take).await?;
        let schema = Arc::new(arrow_schema::Schema::empty());
        Ok(Self { schema, batches, refused, records: records.min(limit), is_cut })
    }
}

/// The origin of the first rows.
fn first(origin: crate::batch::Origin, kept: usize) -> crate::batch::Origin {
    use crate::batch::Origin;
    match origin {
        Origin::Records { envelope, rows } => Origin::Records { envelope, rows: rows.slice(0, kept) },
        Origin::Replaced => Origin::Replaced,
    }
}
