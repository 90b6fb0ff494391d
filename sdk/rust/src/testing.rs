//! Runs a plugin natively, for its unit tests: the same calls as in the host, without WebAssembly.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use arrow_schema::{ArrowError, Schema};

use crate::{Batch, OpenError, Output, Payload, Plugin, ProcessError, Rejection, parse_config};

/// A plugin that was opened.
#[derive(Debug)]
pub struct Harness<P> {
    /// The plugin.
    plugin: P,
    /// What it is given.
    input: Schema,
    /// What it says that comes out.
    output: Schema,
}

/// What came out of a batch.
#[derive(Clone, Debug)]
pub struct Processed {
    /// The rows, in the output schema.
    pub batches: Vec<RecordBatch>,
    /// What was refused.
    pub rejections: Vec<Rejection>,
}

impl<P: Plugin> Harness<P> {
    /// Opens a plugin with JSON for its configuration.
    pub fn open(config_json: &str, input: &Schema) -> Result<Self, OpenError> {
        let plugin = P::open(parse_config(config_json)?, input)?;
        let output = plugin.output_schema(input).resolve(input);
        Ok(Self { plugin, input: input.clone(), output })
    }

    /// What the plugin says that comes out.
    #[must_use]
    pub fn output_schema(&self) -> &Schema {
        &self.output
    }

    /// Gives the plugin a batch and applies its answer as the host does.
    pub fn process(&mut self, rows: &RecordBatch) -> Result<Processed, ProcessError> {
        let read = |columns: Option<&[u32]>| match columns {
            None => Ok(rows.clone()),
            Some(columns) => {
                let positions: Vec<usize> = columns.iter().map(|column| *column as usize).collect();
                Ok(rows.project(&positions)?)
            }
        };
        let output = self.plugin.process(&Batch::new(&self.input, rows.num_rows(), &read))?;
        let Output { keep, payload, rejections } = output;
        let kept = kept_rows(rows.num_rows(), keep.as_ref(), &rejections)?;
        let batches = match payload {
            Payload::Replace(batches) => batches,
            Payload::Unchanged => vec![self.with_columns(rows, &kept, &[])?],
            Payload::Extend(columns) => self
                .with_columns(
                    rows,
                    &kept,
                    &columns.into_iter().map(|(field, array)| (field.name().clone(), array)).collect::<Vec<_>>(),
                )
                .map(|batch| vec![batch])?,
        };
        Ok(Processed { batches, rejections })
    }

    /// What the plugin held back.
    pub fn flush(&mut self) -> Result<Vec<RecordBatch>, ProcessError> {
        self.plugin.flush()
    }

    /// The kept rows with added columns, in the output schema.
    fn with_columns(
        &self,
        rows: &RecordBatch,
        kept: &UInt32Array,
        added: &[(String, ArrayRef)],
    ) -> Result<RecordBatch, ProcessError> {
        let column = |name: &str| -> Result<ArrayRef, ProcessError> {
            let whole = added
                .iter()
                .find(|(added, _)| added == name)
                .map(|(_, array)| ArrayRef::clone(array))
                .or_else(|| rows.column_by_name(name).cloned())
                .ok_or_else(|| {
                    ProcessError::Failed(format!("the output schema has a column {name:?} that nobody gives"))
                })?;
            // An added column may have a value for each row, or for each row that lives on.
            if whole.len() == kept.len() && whole.len() != rows.num_rows() {
                return Ok(whole);
            }
            Ok(arrow_select::take::take(&whole, kept, None)?)
        };
        let columns = self.output.fields().iter().map(|field| column(field.name())).collect::<Result<Vec<_>, _>>()?;
        Ok(RecordBatch::try_new(Arc::new(self.output.clone()), columns)?)
    }
}

/// Numbers of the rows that live on.
pub(crate) fn kept_rows(
    rows: usize,
    keep: Option<&BooleanArray>,
    rejections: &[Rejection],
) -> Result<UInt32Array, ArrowError> {
    if let Some(keep) = keep.filter(|keep| keep.len() != rows) {
        return Err(ArrowError::InvalidArgumentError(format!(
            "the selection has {} values for {rows} rows",
            keep.len()
        )));
    }
    let rejected: std::collections::HashSet<u32> =
        rejections.iter().flat_map(|rejection| rejection.rows.iter().copied()).collect();
    let lives = |row: &u32| {
        let selected = keep.is_none_or(|keep| keep.is_valid(*row as usize) && keep.value(*row as usize));
        selected && !rejected.contains(row)
    };
    Ok(UInt32Array::from_iter_values((0..u32::try_from(rows).unwrap_or(u32::MAX)).filter(lives)))
}
