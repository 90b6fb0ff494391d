//! What a plugin answers to a batch, and the rules that such an answer keeps.

use arrow_array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow_buffer::BooleanBufferBuilder;
use arrow_schema::{Field, Schema};

use crate::{Plugin, ProcessError};

/// Letters of a rejection's code; it becomes a metric label.
const CODE_LETTERS_MAX: usize = 64;

/// The schema of what comes out of a plugin.
#[derive(Clone, Debug, PartialEq)]
pub enum OutputSchema {
    /// The input's columns.
    Unchanged,
    /// The input's columns and these; one of the same name takes the place of the input's.
    Extend(Vec<Field>),
    /// Something else.
    Replace(Schema),
}

impl OutputSchema {
    /// The whole schema.
    #[must_use]
    pub fn resolve(&self, input: &Schema) -> Schema {
        match self {
            Self::Unchanged => input.clone(),
            Self::Replace(schema) => schema.clone(),
            Self::Extend(added) => {
                let mut fields: Vec<Field> = input.fields().iter().map(|field| field.as_ref().clone()).collect();
                for field in added {
                    match fields.iter_mut().find(|known| known.name() == field.name()) {
                        Some(known) => *known = field.clone(),
                        None => fields.push(field.clone()),
                    }
                }
                Schema::new(fields)
            }
        }
    }
}

/// Rows refused for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Row numbers of the batch.
    pub rows: Vec<u32>,
    /// Stable and of few values, for instance `bad-url`; becomes a metric label.
    pub code: String,
    /// For people.
    pub message: String,
}

/// What a plugin answers to a batch: which rows live on, with what, and which are refused.
///
/// ```
/// use fs_data_sink_plugin::prelude::*;
/// // A filter that also refuses one row and adds a column; one value for each row of the batch.
/// # use std::sync::Arc;
/// let lengths: ArrayRef = Arc::new(arrow_array::Int64Array::from(vec![1, 2, 3]));
/// let output = Output::keep([true, false, true])
///     .with_columns(vec![(Field::new("length", DataType::Int64, false), lengths)])
///     .reject(vec![2], "too-long", "longer than two");
/// ```
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// Which rows live on; `None` is all of them.
    pub(crate) keep: Option<BooleanArray>,
    /// What happens to them.
    pub(crate) payload: Payload,
    /// Rows that are refused; they do not live on, whatever `keep` says.
    pub(crate) rejections: Vec<Rejection>,
}

/// What happens to the rows that live on.
#[derive(Clone, Debug, Default)]
pub(crate) enum Payload {
    /// They go on as they are.
    #[default]
    Unchanged,
    /// With these columns.
    Extend(Vec<(Field, ArrayRef)>),
    /// These rows instead.
    Replace(Vec<RecordBatch>),
}

impl Output {
    /// All rows live on as they are.
    #[must_use]
    pub fn keep_all() -> Self {
        Self::default()
    }

    /// The rows with `true` live on as they are.
    #[must_use]
    pub fn keep(rows: impl IntoIterator<Item = bool>) -> Self {
        Self::keep_mask(BooleanArray::from(rows.into_iter().collect::<Vec<bool>>()))
    }

    /// The same for what Arrow's comparison kernels answer; null counts as false.
    #[must_use]
    pub fn keep_mask(rows: BooleanArray) -> Self {
        Self { keep: Some(rows), ..Self::default() }
    }

    /// All rows live on with these columns, one value for each row of the batch.
    #[must_use]
    pub fn extend(columns: Vec<(Field, ArrayRef)>) -> Self {
        Self::keep_all().with_columns(columns)
    }

    /// These rows take the place of the batch, in the schema that `output_schema` named. Records behind rows that are
    /// refused later cannot be shown any more, so prefer the others.
    #[must_use]
    pub fn replace(batches: Vec<RecordBatch>) -> Self {
        Self { payload: Payload::Replace(batches), ..Self::default() }
    }

    /// The rows that live on get these columns: one value for each row of the batch, or for each that lives on. A column
    /// of the same name is replaced.
    #[must_use]
    pub fn with_columns(mut self, columns: Vec<(Field, ArrayRef)>) -> Self {
        self.payload = Payload::Extend(columns);
        self
    }

    /// Refuses rows: they become dead letters with this code and message. The code is of `a`-`z`, `0`-`9`, `-`, `_`,
    /// `.`; a row is refused at most once.
    #[must_use]
    pub fn reject(mut self, rows: Vec<u32>, code: impl Into<String>, message: impl Into<String>) -> Self {
        if !rows.is_empty() {
            self.rejections.push(Rejection { rows, code: code.into(), message: message.into() });
        }
        self
    }

    /// Which rows of the batch live on, or why the answer breaks a rule that the host would not forgive either.
    pub(crate) fn living_rows(&self, rows: usize) -> Result<BooleanArray, ProcessError> {
        let mut lives = BooleanBufferBuilder::new(rows);
        match &self.keep {
            None => lives.append_n(rows, true),
            Some(keep) if keep.len() != rows => {
                let given = keep.len();
                return Err(ProcessError::failed(format!("the selection has {given} values for {rows} rows")));
            }
            Some(keep) => lives.append_buffer(&set_and_valid(keep)),
        }
        let mut refused = vec![false; if self.rejections.is_empty() { 0 } else { rows }];
        for Rejection { rows: numbers, code, .. } in &self.rejections {
            if !is_code(code) {
                return Err(ProcessError::failed(format!(
                    "code {code:?} of a rejection is not 1 to {CODE_LETTERS_MAX} of a-z, 0-9, \"-\", \"_\", \".\""
                )));
            }
            for row in numbers.iter().map(|row| *row as usize) {
                match refused.get_mut(row) {
                    Some(known) if !*known => *known = true,
                    Some(_) => return Err(ProcessError::failed(format!("row {row} is refused twice"))),
                    None => return Err(ProcessError::failed(format!("row {row} of {rows} rows is refused"))),
                }
                lives.set_bit(row, false);
            }
        }
        Ok(BooleanArray::new(lives.finish(), None))
    }
}

/// Added columns with one value for each row that lives on.
pub(crate) fn living_columns(columns: &[(Field, ArrayRef)], lives: &BooleanArray) -> Result<RecordBatch, ProcessError> {
    let (rows, living) = (lives.len(), lives.true_count());
    let fit = |(field, array): &(Field, ArrayRef)| match array.len() {
        length if length == living => Ok(ArrayRef::clone(array)),
        length if length == rows => Ok(arrow_select::filter::filter(array, lives)?),
        length => Err(ProcessError::failed(format!(
            "column {:?} has {length} values for {rows} rows, of which {living} live on",
            field.name()
        ))),
    };
    let arrays = columns.iter().map(fit).collect::<Result<Vec<_>, _>>()?;
    let schema = Schema::new(columns.iter().map(|(field, _)| field.clone()).collect::<Vec<_>>());
    let options = RecordBatchOptions::new().with_row_count(Some(living));
    Ok(RecordBatch::try_new_with_options(schema.into(), arrays, &options)?)
}

/// Only a plugin that says so may hold rows: the host must know, to lose none of them.
pub(crate) fn check_may_hold<P: Plugin>(flushed: &[RecordBatch]) -> Result<(), ProcessError> {
    if flushed.is_empty() || P::BUFFERS_ROWS {
        Ok(())
    } else {
        Err(ProcessError::failed("flush gave out rows, but the plugin does not say that it holds some: BUFFERS_ROWS"))
    }
}

/// The bits that are true; null counts as false.
pub(crate) fn set_and_valid(mask: &BooleanArray) -> arrow_buffer::BooleanBuffer {
    match arrow_array::Array::nulls(mask) {
        None => mask.values().clone(),
        Some(nulls) => mask.values() & nulls.inner(),
    }
}

/// Whether a code can be a metric label.
fn is_code(code: &str) -> bool {
    (1..=CODE_LETTERS_MAX).contains(&code.len())
        && code.bytes().all(|letter| matches!(letter, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::Int32Array;
    use arrow_schema::DataType;

    use super::*;

    #[test]
    fn rows_live_on_unless_left_out_null_or_refused() {
        let mask = BooleanArray::from(vec![Some(true), Some(false), None, Some(true), Some(true)]);
        let output = Output::keep_mask(mask).reject(vec![3], "bad", "why").reject(Vec::new(), "NOT A CODE", "");
        let lives: Vec<bool> = output.living_rows(5).unwrap().values().iter().collect();
        assert_eq!(lives, [true, false, false, false, true]);
    }

    #[test]
    fn answers_that_break_a_rule_are_told_apart() {
        let words = |output: Output| output.living_rows(3).unwrap_err().to_string();
        assert_eq!(words(Output::keep([true])), "the selection has 1 values for 3 rows");
        assert_eq!(words(Output::keep_all().reject(vec![3], "x", "")), "row 3 of 3 rows is refused");
        assert_eq!(words(Output::keep_all().reject(vec![1, 1], "x", "")), "row 1 is refused twice");
        assert!(words(Output::keep_all().reject(vec![1], "Bad Code", "")).starts_with("code \"Bad Code\""));
    }

    #[test]
    fn columns_have_a_value_for_each_row_or_for_each_that_lives_on() {
        let lives = BooleanArray::from(vec![true, false, true]);
        let column = |values: Vec<i32>| {
            let array: ArrayRef = Arc::new(Int32Array::from(values));
            [(Field::new("n", DataType::Int32, false), array)]
        };
        let whole = living_columns(&column(vec![1, 2, 3]), &lives).unwrap();
        assert_eq!(whole, living_columns(&column(vec![1, 3]), &lives).unwrap());
        let error = living_columns(&column(vec![1]), &lives).unwrap_err();
        assert_eq!(error.to_string(), "column \"n\" has 1 values for 3 rows, of which 2 live on");
    }
}
