//! Which columns are not worth a dictionary, found out from the first rows of a dataset.
//!
//! A Parquet writer tries a dictionary for every column and gives up when it has grown too large, having hashed every
//! value until then. For columns whose values hardly ever repeat (ids, times, URLs) that work is wasted: about 40 % of
//! the CPU time of writing events. So the first rows are looked at, and the answer is kept for all later files.
//!
//! Comes in: rows. Goes out: one [`Advice`] a leaf. Pure.

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
};

use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_row::{RowConverter, SortField};

use super::leaf;

/// Rows looked at.
const SAMPLE_ROWS: usize = 8192;

/// Strings of so many values or more are written without a dictionary: that of one row group would outgrow its page
/// anyway.
const MANY_STRINGS: usize = 40_000;

/// Numbers are short, so that dictionaries of them pay for longer.
const MANY_NUMBERS: usize = 80_000;

/// What to do with a column, where the user did not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Advice {
    /// As Parquet's writer does by itself.
    #[default]
    Dictionary,
    /// No dictionary, since values hardly repeat.
    Distinct,
}

/// Looks at the first rows of a dataset.
#[derive(Debug)]
pub(super) struct Sampler {
    /// Rows still to be looked at.
    rows_left: usize,
    /// What is known of each leaf.
    leaves: Vec<Sample>,
    /// The same for all leaves.
    hasher: RandomState,
}

/// What is known of a leaf.
#[derive(Debug, Default)]
struct Sample {
    /// Values that are not null.
    values: usize,
    /// Hashes of the distinct ones; at most one for each value looked at, eight bytes each.
    distinct: HashSet<u64>,
    /// Whether values are text or bytes.
    is_text: bool,
}

impl Sampler {
    /// Nothing is known yet.
    pub(super) fn new() -> Self {
        Self { rows_left: SAMPLE_ROWS, leaves: Vec::new(), hasher: RandomState::new() }
    }

    /// Looks at rows, as many as are still wanted.
    pub(super) fn look(&mut self, rows: &RecordBatch) {
        let rows = rows.slice(0, rows.num_rows().min(self.rows_left));
        self.rows_left -= rows.num_rows();
        for (number, values) in leaf::values(&rows).iter().enumerate() {
            if self.leaves.len() <= number {
                self.leaves.push(Sample::default());
            }
            if let Some(sample) = self.leaves.get_mut(number) {
                sample.look(values, &self.hasher);
            }
        }
    }

    /// Whether enough was seen.
    pub(super) fn is_done(&self) -> bool {
        self.rows_left == 0
    }

    /// What follows from what was seen so far.
    pub(super) fn advice(&self) -> Vec<Advice> {
        self.leaves.iter().map(Sample::advice).collect()
    }
}

impl Sample {
    /// Looks at values.
    fn look(&mut self, values: &ArrayRef, hasher: &RandomState) {
        // Long lists must not make the sample large.
        let values = values.slice(0, values.len().min((2 * SAMPLE_ROWS).saturating_sub(self.values)));
        self.is_text = is_text(values.data_type());
        let converter = RowConverter::new(vec![SortField::new(values.data_type().clone())]);
        // A type that cannot be compared keeps its dictionary.
        let Ok(keys) = converter.and_then(|converter| converter.convert_columns(std::slice::from_ref(&values))) else {
            return;
        };
        let nulls = values.logical_nulls();
        for (row, key) in keys.iter().enumerate() {
            if nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row)) {
                self.values += 1;
                self.distinct.insert(hasher.hash_one(key.data()));
            }
        }
    }

    /// What follows. Among `n` values drawn from `d` about `n * n / 2d` are repetitions (the birthday problem), so the
    /// repetitions seen tell how many values there are; one more is assumed, for samples in which there is none yet.
    fn advice(&self) -> Advice {
        let many = if self.is_text { MANY_STRINGS } else { MANY_NUMBERS };
        let repetitions = self.values - self.distinct.len();
        if (repetitions + 1) * 2 * many <= self.values * self.values { Advice::Distinct } else { Advice::Dictionary }
    }
}

/// Whether values are text or bytes of any length.
fn is_text(data_type: &arrow_schema::DataType) -> bool {
    use arrow_schema::DataType::{Binary, BinaryView, LargeBinary, LargeUtf8, Utf8, Utf8View};
    matches!(data_type, Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary | BinaryView)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{Int64Array, ListArray, StringArray, types::Int32Type};

    use super::*;

    /// Rows `from..to` of: a unique number, one of 100 countries, a unique text that is mostly null, and a list.
    fn rows(from: i64, to: i64) -> RecordBatch {
        let country = (from..to).map(|row| format!("c{}", row % 100));
        let rare = (from..to).map(|row| (row % 20 == 0).then(|| row.to_string()));
        let tags = (from..to).map(|row| Some(vec![Some(i32::try_from(row % 7).unwrap()), Some(1)]));
        RecordBatch::try_from_iter([
            ("id", Arc::new(Int64Array::from_iter_values(from..to)) as ArrayRef),
            ("country", Arc::new(StringArray::from_iter_values(country))),
            ("rare", Arc::new(rare.collect::<StringArray>())),
            ("tags", Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(tags))),
        ])
        .unwrap()
    }

    /// What follows from some rows.
    fn advice(parts: &[RecordBatch]) -> Vec<Advice> {
        let mut sampler = Sampler::new();
        for rows in parts {
            sampler.look(rows);
        }
        sampler.advice()
    }

    #[test]
    fn unique_columns_lose_their_dictionary_and_others_keep_it() {
        let expected = [Advice::Distinct, Advice::Dictionary, Advice::Distinct, Advice::Dictionary];
        assert_eq!(advice(&[rows(0, 10_000)]), expected);
    }

    #[test]
    fn a_few_hundred_rows_tell_unique_columns_already_and_fewer_do_not() {
        assert_eq!(advice(&[rows(0, 500)])[..3], [Advice::Distinct, Advice::Dictionary, Advice::Dictionary]);
        assert_eq!(advice(&[rows(0, 100)])[0], Advice::Dictionary);
    }

    #[test]
    fn small_slices_are_added_up() {
        let slices: Vec<_> = (0..50).map(|part| rows(part * 10, part * 10 + 10)).collect();
        assert_eq!(advice(&slices)[..2], [Advice::Distinct, Advice::Dictionary]);
    }

    #[test]
    fn a_column_that_repeats_only_from_batch_to_batch_keeps_its_dictionary() {
        assert_eq!(advice(&[rows(0, 4096), rows(0, 4096)])[0], Advice::Dictionary);
    }

    #[test]
    fn a_bounded_number_of_rows_is_looked_at() {
        let mut sampler = Sampler::new();
        sampler.look(&rows(0, 8191));
        assert!(!sampler.is_done());
        sampler.look(&rows(0, 8191));
        assert!(sampler.is_done());
        assert_eq!(sampler.leaves[0].values, SAMPLE_ROWS);
    }
}
