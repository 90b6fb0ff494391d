//! The batch that a plugin looks at: a host resource from which it reads only the columns that it wants.
//!
//! What goes in is cleaned first (`hygiene`), so that no byte of a row that the plugin was not given crosses over.

use std::sync::Arc;

use arrow_array::{Array, RecordBatch, RecordBatchOptions, make_array};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::ArrowError;

use super::{
    bindings::{batches::ReadError, types::Column},
    budget::{CallBudget, Spent},
    columns::raw_column,
    hygiene::only_given,
};

/// What a stream takes besides its values, about: a vector that has to grow copies all of them once more.
const STREAM_BYTES_SPARE: usize = 4 << 10;

/// Rows in the plain types of [`super::types::plain_schema`], for the time of one call.
#[derive(Debug)]
#[expect(unreachable_pub, reason = "the generated bindings export it again")]
pub struct BatchResource {
    /// The rows.
    rows: RecordBatch,
    /// What reading is taken from.
    budget: Arc<CallBudget>,
}

/// Why a read gives no answer: the plugin is told, or it traps.
#[derive(Debug)]
pub(super) enum ReadFailure {
    /// The plugin is told.
    Answer(ReadError),
    /// It traps.
    Trap(String),
}

impl From<ArrowError> for ReadFailure {
    fn from(error: ArrowError) -> Self {
        Self::Trap(format!("the host cannot encode the batch: {error}"))
    }
}

impl From<Spent> for ReadFailure {
    fn from(spent: Spent) -> Self {
        Self::Trap(spent.to_string())
    }
}

impl BatchResource {
    /// Rows to look at.
    pub(super) fn new(rows: RecordBatch, budget: Arc<CallBudget>) -> Self {
        Self { rows, budget }
    }

    /// Number of rows.
    pub(super) fn num_rows(&self) -> u32 {
        u32::try_from(self.rows.num_rows()).unwrap_or(u32::MAX)
    }

    /// Some columns, or all, as an uncompressed IPC stream.
    pub(super) fn read(&mut self, positions: Option<&[u32]>) -> Result<Vec<u8>, ReadFailure> {
        let rows = match positions {
            None => self.rows.clone(),
            Some(positions) => self.rows.project(&self.check(positions)?)?,
        };
        let columns = rows.columns().iter().map(|column| only_given(column.to_data()).map(make_array));
        let columns = columns.collect::<Result<_, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let rows = RecordBatch::try_new_with_options(rows.schema(), columns, &options)?;
        let bytes = Vec::with_capacity(rows.get_array_memory_size() + STREAM_BYTES_SPARE);
        let mut writer = StreamWriter::try_new(bytes, rows.schema_ref())?;
        writer.write(&rows)?;
        let stream = writer.into_inner()?;
        self.budget.copy(stream.len())?;
        Ok(stream)
    }

    /// The buffers of one column.
    pub(super) fn read_column(&mut self, position: u32) -> Result<Column, ReadFailure> {
        let missing = ReadFailure::Answer(ReadError::NoSuchColumn(position));
        let index = position as usize;
        let Some(array) = self.rows.columns().get(index) else {
            return Err(missing);
        };
        let name = self.rows.schema_ref().field(index).name();
        let column = raw_column(name, &only_given(array.to_data())?)
            .ok_or(ReadFailure::Answer(ReadError::NoRawForm(position)))?;
        self.budget.copy(column.data.len() + column.offsets.as_ref().map_or(0, Vec::len))?;
        Ok(column)
    }

    /// Column positions that exist, each once.
    fn check(&self, positions: &[u32]) -> Result<Vec<usize>, ReadFailure> {
        let mut seen = vec![false; self.rows.num_columns()];
        for position in positions {
            match seen.get_mut(*position as usize) {
                None => return Err(ReadFailure::Answer(ReadError::NoSuchColumn(*position))),
                Some(true) => return Err(ReadFailure::Trap(format!("asked for column {position} twice in one read"))),
                Some(seen) => *seen = true,
            }
        }
        Ok(positions.iter().map(|position| *position as usize).collect())
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::{ArrayRef, BooleanArray, Int64Array, StringArray};
    use arrow_ipc::reader::StreamReader;

    use super::*;
    use crate::config::PluginLimits;

    /// A batch that may be read until 64 KiB were.
    fn resource(rows: RecordBatch) -> BatchResource {
        let limits = PluginLimits { host_call_bytes: 64 << 10, ..PluginLimits::default() };
        BatchResource::new(rows, Arc::new(CallBudget::new(&limits)))
    }

    /// Eight rows, of which the plugin is given three.
    fn sliced() -> RecordBatch {
        let names = StringArray::from(vec!["secret-1", "a", "", "ccc", "secret-2", "s", "s", "secret-3"]);
        let numbers = Int64Array::from(vec![Some(7_777), Some(1), None, Some(3), Some(7_777), None, None, None]);
        let flags = BooleanArray::from(vec![true, false, true, false, true, true, true, true]);
        RecordBatch::try_from_iter([
            ("name", Arc::new(names) as ArrayRef),
            ("number", Arc::new(numbers) as ArrayRef),
            ("flag", Arc::new(flags) as ArrayRef),
        ])
        .unwrap()
        .slice(1, 3)
    }

    #[test]
    fn a_read_holds_the_rows_and_no_byte_of_their_neighbours() {
        let mut batch = resource(sliced());
        let stream = batch.read(None).unwrap();
        assert!(!stream.windows(6).any(|bytes| bytes == b"secret"));
        assert!(!stream.windows(8).any(|bytes| bytes == 7_777_i64.to_le_bytes()));
        let read = StreamReader::try_new(stream.as_slice(), None).unwrap().next().unwrap().unwrap();
        assert_eq!(read, sliced());
    }

    #[test]
    fn raw_columns_hold_the_rows_and_nothing_else() {
        let mut batch = resource(sliced());
        let name = batch.read_column(0).unwrap();
        assert_eq!((name.format.as_str(), name.length, name.null_count), ("u", 3, 0));
        assert_eq!(name.data, b"accc");
        assert_eq!(name.offsets.unwrap(), [0_i32, 1, 1, 4].map(i32::to_le_bytes).concat());
        let number = batch.read_column(1).unwrap();
        assert_eq!((number.format.as_str(), number.null_count), ("l", 1));
        assert_eq!(number.validity.unwrap(), [0b101]);
        assert_eq!(number.data.len(), 24);
        let flag = batch.read_column(2).unwrap();
        assert_eq!((flag.format.as_str(), flag.data), ("b", vec![0b010]));
        assert!(matches!(batch.read_column(3), Err(ReadFailure::Answer(ReadError::NoSuchColumn(3)))));
    }

    #[test]
    fn columns_are_read_by_position_and_each_once() {
        let mut batch = resource(sliced());
        let stream = batch.read(Some(&[2, 0])).unwrap();
        let read = StreamReader::try_new(stream.as_slice(), None).unwrap().next().unwrap().unwrap();
        assert_eq!(read, sliced().project(&[2, 0]).unwrap());
        assert!(matches!(batch.read(Some(&[0, 0])), Err(ReadFailure::Trap(_))));
        assert!(matches!(batch.read(Some(&[9])), Err(ReadFailure::Answer(ReadError::NoSuchColumn(9)))));
        let nothing = batch.read(Some(&[])).unwrap();
        let read = StreamReader::try_new(nothing.as_slice(), None).unwrap().next().unwrap().unwrap();
        assert_eq!((read.num_columns(), read.num_rows()), (0, 3));
    }

    #[test]
    fn endless_reading_ends_in_a_trap() {
        let rows = sliced();
        let mut batch = resource(rows);
        let trap = (0..1_000_000).find_map(|_| batch.read(None).err());
        assert!(
            matches!(trap, Some(ReadFailure::Trap(message)) if message == "made the host copy more than 65536 bytes (limits.host_call_bytes)")
        );
    }
}
