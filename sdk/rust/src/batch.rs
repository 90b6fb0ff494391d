//! The rows that a plugin is given: read column by column, so that only what is needed crosses the boundary.

use std::cell::RefCell;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::Schema;

use crate::{ProcessError, no_column};

/// Reads columns by their positions; none means all.
pub(crate) type ReadColumns<'a> = dyn Fn(Option<&[u32]>) -> Result<RecordBatch, ProcessError> + 'a;

/// A batch. Columns are read when they are asked for, once.
pub struct Batch<'a> {
    /// The schema of all columns.
    schema: &'a Schema,
    /// Number of rows.
    rows: usize,
    /// Reads columns by their positions.
    read: &'a ReadColumns<'a>,
    /// Columns that were read.
    known: RefCell<Vec<Option<ArrayRef>>>,
}

impl std::fmt::Debug for Batch<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Batch").field("schema", self.schema).field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl<'a> Batch<'a> {
    /// A batch whose columns come from `read`.
    pub(crate) fn new(schema: &'a Schema, rows: usize, read: &'a ReadColumns<'a>) -> Self {
        Self { schema, rows, read, known: RefCell::new(vec![None; schema.fields().len()]) }
    }

    /// Number of rows.
    #[must_use]
    pub fn num_rows(&self) -> usize {
        self.rows
    }

    /// The columns that there are.
    #[must_use]
    pub fn schema(&self) -> &Schema {
        self.schema
    }

    /// One column.
    pub fn column(&self, name: &str) -> Result<ArrayRef, ProcessError> {
        let position = self.schema.index_of(name).map_err(|_| ProcessError::Failed(no_column(name, self.schema)))?;
        if let Some(Some(known)) = self.known.borrow().get(position) {
            return Ok(ArrayRef::clone(known));
        }
        let number = u32::try_from(position).map_err(|error| ProcessError::Failed(error.to_string()))?;
        let column = (self.read)(Some(&[number]))?
            .columns()
            .first()
            .cloned()
            .ok_or_else(|| ProcessError::Failed(format!("the host gave no column {name:?}")))?;
        if let Some(slot) = self.known.borrow_mut().get_mut(position) {
            *slot = Some(ArrayRef::clone(&column));
        }
        Ok(column)
    }

    /// All columns.
    pub fn to_record_batch(&self) -> Result<RecordBatch, ProcessError> {
        (self.read)(None)
    }
}
