//! Turns what a plugin answered into the rows that go on and the rows that were refused.
//!
//! Comes in: the batch that the plugin was given and its answer, which may be anything. Goes out: batches in the
//! declared output schema, or a [`BadOutput`] and no rows at all.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array, cast::AsArray};
use arrow_buffer::{BooleanBuffer, BooleanBufferBuilder, Buffer};
use arrow_schema::{ArrowError, Field, Schema, SchemaRef};
use arrow_select::{
    concat::concat_batches,
    filter::{FilterBuilder, FilterPredicate},
};

use super::{
    bindings::types::{Column, Output, Payload, Selection},
    columns::read_columns,
    failure::{BadOutput, clean},
    ipc_check::{Caps, read_rows, too_many_bytes, too_many_logical_bytes, too_many_rows, unpacked_bytes},
    rejections::read_rejections,
};
use crate::batch::{DecodedBatch, Origin, Rejection};

/// Batches in one `replace`; a plugin answers one or a few.
const REPLACE_BATCHES_MAX: usize = 1024;

/// What a plugin is given and what it promised to answer.
#[derive(Debug)]
pub(super) struct Shape {
    /// Its name in the configuration.
    pub(super) plugin: Arc<str>,
    /// The schema of the rows it is given.
    pub(super) input: SchemaRef,
    /// The schema of the rows that leave it.
    pub(super) output: SchemaRef,
    /// What one answer may hold.
    pub(super) caps: Caps,
    /// Rejections in one answer.
    pub(super) rejections_max: usize,
    /// Rows that one answer may refuse.
    pub(super) rejected_rows_max: usize,
}

/// What became of a batch.
#[derive(Debug)]
pub(super) struct Applied {
    /// The rows that go on; no batch is empty.
    pub(super) batches: Vec<DecodedBatch>,
    /// The rows that were refused.
    pub(super) rejected: Vec<Rejection>,
    /// Rows that were neither kept nor refused.
    pub(super) filtered: usize,
}

/// Applies the answer to one batch.
pub(super) fn apply(answer: Output, batch: &DecodedBatch, shape: &Shape) -> Result<Applied, BadOutput> {
    guarded(|| apply_checked(answer, batch, shape))
}

/// The last line of defence: a kernel that panics on checked data is a fault of ours, but costs only this batch.
fn guarded<T>(apply: impl FnOnce() -> Result<T, BadOutput>) -> Result<T, BadOutput> {
    catch_unwind(AssertUnwindSafe(apply))
        .unwrap_or_else(|_| Err(BadOutput::new("answered something that the host cannot apply")))
}

/// The same without a net.
fn apply_checked(answer: Output, batch: &DecodedBatch, shape: &Shape) -> Result<Applied, BadOutput> {
    let rows = batch.rows.num_rows();
    let rejected = read_rejections(answer.rejected, rows, shape)?;
    let kept = Kept::read(&answer.keep, &rejected, rows)?;
    let rejected_rows: usize = rejected.iter().map(|rejection| rejection.rows.len()).sum();
    let filtered = rows - rejected_rows - kept.count;
    let batches = match answer.payload {
        Payload::Unchanged => kept.extend(batch, None, shape)?,
        Payload::Extend(stream) => {
            let columns = read_extension(stream, kept.count, shape)?;
            kept.extend(batch, Some(&columns), shape)?
        }
        Payload::ExtendColumns(columns) => {
            let accept = |schema: &Schema| accept_extension(schema, shape);
            let columns = read_columns(columns, shape.caps, accept)?;
            kept.extend(batch, Some(&columns), shape)?
        }
        Payload::Replace(streams) => replace(streams, shape)?,
        Payload::ReplaceColumns(batches) => replace_columns(batches, shape)?,
    };
    Ok(Applied { batches, rejected, filtered })
}

/// Applies the answer to a flush: there are no input rows, so only `replace` can hold any.
pub(super) fn apply_flush(answer: Payload, shape: &Shape) -> Result<Vec<DecodedBatch>, BadOutput> {
    guarded(|| match answer {
        Payload::Unchanged => Ok(Vec::new()),
        Payload::Replace(streams) => replace(streams, shape),
        Payload::ReplaceColumns(batches) => replace_columns(batches, shape),
        Payload::Extend(_) | Payload::ExtendColumns(_) => {
            Err(BadOutput::new("answered `extend` to `flush`, where only `replace` can hold rows"))
        }
    })
}

/// The input rows that live on.
struct Kept {
    /// Number of them.
    count: usize,
    /// `None` for all.
    predicate: Option<FilterPredicate>,
}

impl Kept {
    /// Reads a selection and leaves the refused rows out.
    fn read(keep: &Selection, rejected: &[Rejection], rows: usize) -> Result<Self, BadOutput> {
        let mut bits = match keep {
            Selection::None => return Ok(Self { count: 0, predicate: None }),
            Selection::All if rejected.is_empty() => return Ok(Self { count: rows, predicate: None }),
            Selection::All => {
                let mut bits = BooleanBufferBuilder::new(rows);
                bits.append_n(rows, true);
                bits
            }
            Selection::Bitmap(bitmap) => {
                check_bitmap(bitmap, rows)?;
                let mut bits = BooleanBufferBuilder::new(rows);
                bits.append_buffer(&BooleanBuffer::new(Buffer::from(bitmap.as_slice()), 0, rows));
                bits
            }
        };
        for row in rejected.iter().flat_map(|rejection| &rejection.rows) {
            bits.set_bit(*row as usize, false);
        }
        let selected = BooleanArray::new(bits.finish(), None);
        let count = selected.true_count();
        let predicate = (count < rows).then(|| FilterBuilder::new(&selected).optimize().build());
        Ok(Self { count, predicate })
    }

    /// The kept rows in the output schema, with the answered columns among them.
    fn extend(
        &self,
        batch: &DecodedBatch,
        columns: Option<&RecordBatch>,
        shape: &Shape,
    ) -> Result<Vec<DecodedBatch>, BadOutput> {
        if let Some(columns) = columns.filter(|columns| columns.num_rows() != self.count) {
            let answered = columns.num_rows();
            return Err(BadOutput::new(format!("answered `extend` with {answered} rows for {} kept rows", self.count)));
        }
        let arrays = shape
            .output
            .fields()
            .iter()
            .map(|field| self.column(field, batch, columns))
            .collect::<Result<Vec<_>, _>>()?;
        if self.count == 0 {
            return Ok(Vec::new());
        }
        let options = RecordBatchOptions::new().with_row_count(Some(self.count));
        let rows = RecordBatch::try_new_with_options(Arc::clone(&shape.output), arrays, &options)
            .map_err(|error| BadOutput::new(format!("answered columns that do not fit its output schema: {error}")))?;
        let origin = self.origin(&batch.origin)?;
        Ok(vec![DecodedBatch { rows, origin }])
    }

    /// One column of the output: answered by the plugin, or taken from the input.
    fn column(
        &self,
        field: &Field,
        batch: &DecodedBatch,
        columns: Option<&RecordBatch>,
    ) -> Result<ArrayRef, BadOutput> {
        if let Some(column) = columns.and_then(|columns| columns.column_by_name(field.name())) {
            return Ok(Arc::clone(column));
        }
        let (position, input) = batch.rows.schema_ref().column_with_name(field.name()).ok_or_else(|| {
            BadOutput::new(format!("declared column `{}` in its output schema and did not answer it", field.name()))
        })?;
        if input.data_type() != field.data_type() {
            let (declared, given) = (field.data_type(), input.data_type());
            return Err(BadOutput::new(format!(
                "declared column `{}` as {declared} and did not answer it; the input has {given}",
                field.name()
            )));
        }
        self.filter(batch.rows.column(position))
    }

    /// The kept rows of one array.
    fn filter(&self, array: &ArrayRef) -> Result<ArrayRef, BadOutput> {
        match &self.predicate {
            None if self.count == 0 => Ok(array.slice(0, 0)),
            None => Ok(Arc::clone(array)),
            Some(predicate) => predicate.filter(array).map_err(|error| kernel_words(&error)),
        }
    }

    /// Where the kept rows came from.
    fn origin(&self, origin: &Origin) -> Result<Origin, BadOutput> {
        match origin {
            Origin::Replaced => Ok(Origin::Replaced),
            Origin::Records { envelope, rows } => {
                let rows: ArrayRef = Arc::new(rows.clone());
                let rows: UInt32Array = self.filter(&rows)?.as_primitive().clone();
                Ok(Origin::Records { envelope: envelope.clone(), rows })
            }
        }
    }
}

/// The words for a failure of our own kernels.
fn kernel_words(error: &ArrowError) -> BadOutput {
    BadOutput::new(format!("answered a selection that cannot be applied: {error}"))
}

/// A bitmap has one bit a row and nothing behind the last.
fn check_bitmap(bitmap: &[u8], rows: usize) -> Result<(), BadOutput> {
    let wanted = rows.div_ceil(8);
    if bitmap.len() != wanted {
        return Err(BadOutput::new(format!(
            "answered a selection bitmap of {} bytes for {rows} rows; it must have {wanted}",
            bitmap.len()
        )));
    }
    let spare = rows % 8;
    if spare > 0 && bitmap.last().is_some_and(|last| last >> spare != 0) {
        return Err(BadOutput::new(format!("answered a selection bitmap with bits set behind row {rows}")));
    }
    Ok(())
}

/// Columns answered by `extend`, as one batch.
fn read_extension(stream: Vec<u8>, kept: usize, shape: &Shape) -> Result<RecordBatch, BadOutput> {
    let mut answered = None;
    let batches = read_rows(stream, shape.caps, |schema| {
        accept_extension(schema, shape)?;
        answered = Some(Arc::new(schema.clone()));
        Ok(())
    })?;
    match (batches.as_slice(), answered) {
        ([batch], _) => Ok(batch.clone()),
        ([], Some(schema)) if kept == 0 => Ok(RecordBatch::new_empty(schema)),
        ([], _) => Err(BadOutput::new(format!("answered `extend` with 0 rows for {kept} kept rows"))),
        ([first, ..], _) => concat_batches(&first.schema(), &batches).map_err(|error| kernel_words(&error)),
    }
}

/// Every answered column must be one of the declared output schema.
fn accept_extension(schema: &Schema, shape: &Shape) -> Result<(), BadOutput> {
    for field in schema.fields() {
        let Some((_, declared)) = shape.output.column_with_name(field.name()) else {
            return Err(BadOutput::new(format!(
                "answered column `{}`, which its output schema does not have",
                field.name()
            )));
        };
        check_type(field, declared)?;
    }
    Ok(())
}

/// `replace` answers exactly the declared output schema.
fn accept_replacement(schema: &Schema, shape: &Shape) -> Result<(), BadOutput> {
    let declared = shape.output.fields();
    let same_names = schema.fields().len() == declared.len()
        && schema.fields().iter().zip(declared).all(|(field, declared)| field.name() == declared.name());
    if !same_names {
        let names = |schema: &Schema| schema.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
        let (answered, declared) = (names(schema).join(", "), names(&shape.output).join(", "));
        return Err(BadOutput::new(clean(&format!(
            "answered columns ({answered}) where it declared ({declared}) as its output schema"
        ))));
    }
    schema.fields().iter().zip(declared).try_for_each(|(field, declared)| check_type(field, declared))
}

/// One answered column against its declaration; nulls are checked against the data later.
fn check_type(field: &Field, declared: &Field) -> Result<(), BadOutput> {
    if field.data_type().equals_datatype(declared.data_type()) {
        Ok(())
    } else {
        let (answered, declared) = (field.data_type(), declared.data_type());
        Err(BadOutput::new(format!("answered column `{}` as {answered}; it declared {declared}", field.name())))
    }
}

/// New rows from IPC streams.
fn replace(streams: Vec<Vec<u8>>, shape: &Shape) -> Result<Vec<DecodedBatch>, BadOutput> {
    let mut made = Made::new(streams.len(), shape)?;
    for stream in streams {
        made.spend_bytes(stream.len())?;
        let batches = read_rows(stream, shape.caps, |schema| accept_replacement(schema, shape))?;
        made.spend_logical_bytes(unpacked_bytes(&batches))?;
        for rows in batches {
            made.push(rows)?;
        }
    }
    Ok(made.batches)
}

/// New rows from raw columns.
fn replace_columns(batches: Vec<Vec<Column>>, shape: &Shape) -> Result<Vec<DecodedBatch>, BadOutput> {
    let mut made = Made::new(batches.len(), shape)?;
    for columns in batches {
        made.spend_bytes(columns.iter().map(|column| column.data.len()).sum())?;
        made.push(read_columns(columns, shape.caps, |schema| accept_replacement(schema, shape))?)?;
    }
    Ok(made.batches)
}

/// Rows that a plugin made, counted over all batches of one answer.
struct Made<'a> {
    /// What it promised.
    shape: &'a Shape,
    /// What may still come.
    left: Caps,
    /// What came.
    batches: Vec<DecodedBatch>,
}

impl<'a> Made<'a> {
    /// Nothing yet.
    fn new(batches: usize, shape: &'a Shape) -> Result<Self, BadOutput> {
        if batches > REPLACE_BATCHES_MAX {
            return Err(BadOutput::new(format!("answered more than {REPLACE_BATCHES_MAX} batches")));
        }
        Ok(Self { shape, left: shape.caps, batches: Vec::new() })
    }

    /// Counts the bytes of all batches together.
    fn spend_bytes(&mut self, bytes: usize) -> Result<(), BadOutput> {
        self.left.bytes = self.left.bytes.checked_sub(bytes).ok_or_else(|| too_many_bytes(self.shape.caps))?;
        Ok(())
    }

    /// The same for what dictionaries stand for.
    fn spend_logical_bytes(&mut self, bytes: usize) -> Result<(), BadOutput> {
        let left = self.left.logical_bytes.checked_sub(bytes);
        self.left.logical_bytes = left.ok_or_else(|| too_many_logical_bytes(self.shape.caps))?;
        Ok(())
    }

    /// Adds rows under the declared schema.
    fn push(&mut self, rows: RecordBatch) -> Result<(), BadOutput> {
        let count = rows.num_rows();
        self.left.rows = self.left.rows.checked_sub(count).ok_or_else(|| too_many_rows(self.shape.caps))?;
        if count == 0 {
            return Ok(());
        }
        let (_, columns, _) = rows.into_parts();
        let rows = RecordBatch::try_new(Arc::clone(&self.shape.output), columns)
            .map_err(|error| BadOutput::new(format!("answered rows that do not fit its output schema: {error}")))?;
        self.batches.push(DecodedBatch { rows, origin: Origin::Replaced });
        Ok(())
    }
}
