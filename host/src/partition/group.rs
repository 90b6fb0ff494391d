//! Which rows belong together.
//!
//! Comes in: the keys of each level. Goes out: for each row the number of its group, in the order in which the groups
//! were first seen. Pure. One column is compared as it is; several are made comparable by `arrow-row`.

use std::{collections::HashMap, hash::Hash};

use arrow_array::Array;
use arrow_row::{RowConverter, SortField};
use arrow_schema::ArrowError;

use super::level::Keys;

/// Rows by group.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// The group of each row.
    pub(super) of_row: Vec<usize>,
    /// One row of each group.
    pub(super) first_row: Vec<usize>,
}

impl Groups {
    /// Groups rows by the keys of all levels.
    pub(super) fn new(levels: &[Keys], rows: usize) -> Result<Self, ArrowError> {
        match levels {
            [Keys::Text(keys)] => Ok(Self::by(rows, |row| keys.is_valid(row).then(|| keys.value(row)))),
            [Keys::Number(keys)] => Ok(Self::by(rows, |row| keys.is_valid(row).then(|| keys.value(row)))),
            _ => {
                let arrays: Vec<_> = levels.iter().map(Keys::to_array).collect();
                let fields = arrays.iter().map(|array| SortField::new(array.data_type().clone())).collect();
                let keys = RowConverter::new(fields)?.convert_columns(&arrays)?;
                Ok(Self::by(rows, |row| keys.row(row)))
            }
        }
    }

    /// Groups rows by a key.
    fn by<K: Copy + Eq + Hash>(rows: usize, key: impl Fn(usize) -> K) -> Self {
        let mut groups = Self { of_row: Vec::with_capacity(rows), first_row: Vec::new() };
        let mut numbers = HashMap::new();
        let mut last = None;
        for row in 0..rows {
            let key = key(row);
            let number = match last {
                // Neighbours are often alike, and comparing costs less than hashing.
                Some((last_key, number)) if last_key == key => number,
                _ => *numbers.entry(key).or_insert_with(|| {
                    groups.first_row.push(row);
                    groups.first_row.len() - 1
                }),
            };
            groups.of_row.push(number);
            last = Some((key, number));
        }
        groups
    }
}
