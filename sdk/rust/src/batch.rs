//! The rows that a plugin is given: read column by column, so that only what is needed crosses the boundary.

use std::cell::RefCell;

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::{Schema, SchemaRef};

use crate::{ProcessError, error::no_column};

/// Reads columns by their positions, in that order.
pub(crate) type ReadColumns<'a> = dyn Fn(&[u32]) -> Result<RecordBatch, ProcessError> + 'a;

/// A batch. A column is read when it is first asked for, and once.
pub struct Batch<'a> {
    /// The schema of all columns.
    schema: SchemaRef,
    /// Number of rows.
    rows: usize,
    /// Reads columns by their positions.
    read: &'a ReadColumns<'a>,
    /// Columns that were read.
    known: RefCell<Vec<Option<ArrayRef>>>,
}

impl std::fmt::Debug for Batch<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Batch").field("schema", &self.schema).field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl<'a> Batch<'a> {
    /// A batch whose columns come from `read`.
    pub(crate) fn new(schema: SchemaRef, rows: usize, read: &'a ReadColumns<'a>) -> Self {
        let known = RefCell::new(vec![None; schema.fields().len()]);
        Self { schema, rows, read, known }
    }

    /// Number of rows; never 0.
    #[must_use]
    pub fn num_rows(&self) -> usize {
        self.rows
    }

    /// The columns that there are; the schema that `open` was given.
    #[must_use]
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// One column.
    pub fn column(&self, name: &str) -> Result<ArrayRef, ProcessError> {
        let position = self.position(name)?;
        self.read_once(&[position])?;
        self.known(position)
    }

    /// Several columns in this order, read in one go: cheaper than one by one.
    pub fn columns(&self, names: &[&str]) -> Result<RecordBatch, ProcessError> {
        let positions = names.iter().map(|name| self.position(name)).collect::<Result<Vec<_>, _>>()?;
        self.record_batch(&positions)
    }

    /// All columns. A plugin that needs only some of them is faster with [`Self::columns`].
    pub fn to_record_batch(&self) -> Result<RecordBatch, ProcessError> {
        self.record_batch(&(0..self.schema.fields().len()).collect::<Vec<_>>())
    }

    /// Where a column is.
    fn position(&self, name: &str) -> Result<usize, ProcessError> {
        self.schema.index_of(name).map_err(|_| ProcessError::Failed(no_column(name, &self.schema)))
    }

    /// The columns at these positions.
    fn record_batch(&self, positions: &[usize]) -> Result<RecordBatch, ProcessError> {
        self.read_once(positions)?;
        let arrays = positions.iter().map(|position| self.known(*position)).collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        Ok(RecordBatch::try_new_with_options(self.schema.project(positions)?.into(), arrays, &options)?)
    }

    /// A column that was read.
    fn known(&self, position: usize) -> Result<ArrayRef, ProcessError> {
        let known = self.known.borrow();
        known.get(position).and_then(Option::as_ref).map(ArrayRef::clone).ok_or_else(|| not_given(position))
    }

    /// Reads those of the columns that were not read before.
    fn read_once(&self, positions: &[usize]) -> Result<(), ProcessError> {
        let mut missing: Vec<usize> = {
            let known = self.known.borrow();
            positions.iter().copied().filter(|position| known.get(*position).is_some_and(Option::is_none)).collect()
        };
        missing.sort_unstable();
        missing.dedup();
        if missing.is_empty() {
            return Ok(());
        }
        let numbers: Vec<u32> = missing.iter().filter_map(|position| u32::try_from(*position).ok()).collect();
        let given = (self.read)(&numbers)?;
        let mut known = self.known.borrow_mut();
        for (position, array) in missing.iter().zip(given.columns()) {
            if array.len() != self.rows {
                return Err(ProcessError::failed(format!("the host gave {} of {} rows", array.len(), self.rows)));
            }
            if let Some(slot) = known.get_mut(*position) {
                *slot = Some(ArrayRef::clone(array));
            }
        }
        Ok(())
    }
}

/// The host owes a column.
fn not_given(position: usize) -> ProcessError {
    ProcessError::failed(format!("the host did not give column {position}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{Int32Array, StringArray};

    use super::*;

    #[test]
    fn a_column_crosses_once_and_only_if_it_is_asked_for() {
        let numbers: ArrayRef = Arc::new(Int32Array::from(vec![1, 2]));
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
        let rows = RecordBatch::try_from_iter([("n", Arc::clone(&numbers)), ("t", texts), ("m", numbers)]).unwrap();
        let crossed = RefCell::new(Vec::new());
        let read = |columns: &[u32]| {
            crossed.borrow_mut().push(columns.to_vec());
            Ok(rows.project(&columns.iter().map(|column| *column as usize).collect::<Vec<_>>())?)
        };
        let batch = Batch::new(rows.schema(), rows.num_rows(), &read);
        assert_eq!(batch.num_rows(), 2);
        assert_eq!(&batch.column("t").unwrap(), rows.column(1));
        assert_eq!(&batch.column("t").unwrap(), rows.column(1));
        assert_eq!(batch.columns(&["m", "t"]).unwrap(), rows.project(&[2, 1]).unwrap());
        assert_eq!(batch.to_record_batch().unwrap(), rows);
        assert_eq!(*crossed.borrow(), [vec![1], vec![2], vec![0]]);
        let error = batch.column("x").unwrap_err().to_string();
        assert_eq!(error, "the rows have no column \"x\"; they have: n, t, m");
    }
}
