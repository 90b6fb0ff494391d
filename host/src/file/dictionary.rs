//! Gives up dictionaries early on columns whose values are nearly unique.
//!
//! The Parquet writer would build a dictionary, find it useless and fall back: for web-shop events that is 40 % of the
//! time of encoding. So the first batch of a file's schema is looked at: where more than half of the values are distinct
//! the column is written without a dictionary, and text with its lengths apart. Only speed and size depend on this.

use std::collections::HashSet;

use arrow_array::{Array, RecordBatch, cast::AsArray};
use arrow_schema::{DataType, Field};
use parquet::schema::types::ColumnPath;

use super::properties::{is_scalar, leaf_path};

/// Fewer rows tell nothing.
const ROWS_MIN: usize = 512;

/// More rows tell no more.
const ROWS_MAX: usize = 4_096;

/// Columns that get no dictionary.
#[derive(Clone, Debug, Default)]
pub(super) struct UniqueColumns(HashSet<String>);

impl UniqueColumns {
    /// Looks at a batch; `None` when it is too small to tell.
    pub(super) fn look(rows: &RecordBatch) -> Option<Self> {
        if rows.num_rows() < ROWS_MIN {
            return None;
        }
        let rows = rows.slice(0, rows.num_rows().min(ROWS_MAX));
        let mut found = Self::default();
        for (field, column) in rows.schema_ref().fields().iter().zip(rows.columns()) {
            found.look_at(&mut Vec::new(), field, column.as_ref());
        }
        Some(found)
    }

    /// Whether a column gets no dictionary.
    pub(super) fn contains(&self, path: &ColumnPath) -> bool {
        self.0.contains(&path.string())
    }

    /// Looks at a column and the fields in it; lists and maps keep their dictionaries.
    fn look_at(&mut self, parents: &mut Vec<String>, field: &Field, column: &dyn Array) {
        if let DataType::Struct(fields) = field.data_type() {
            parents.push(field.name().clone());
            for (child, values) in fields.iter().zip(column.as_struct().columns()) {
                self.look_at(parents, child, values.as_ref());
            }
            parents.pop();
        } else if is_scalar(field.data_type()) && is_nearly_unique(column) {
            self.0.insert(leaf_path(parents, field.name()).string());
        }
    }
}

/// Whether more than half of the values that are there are distinct.
fn is_nearly_unique(column: &dyn Array) -> bool {
    let there = column.len() - column.null_count();
    if there < ROWS_MIN {
        return false;
    }
    let mut seen: HashSet<&[u8]> = HashSet::with_capacity(there);
    let valid = (0..column.len()).filter(|row| column.is_valid(*row));
    match column.data_type() {
        DataType::Utf8 => {
            let texts = column.as_string::<i32>();
            seen.extend(valid.map(|row| texts.value(row).as_bytes()));
        }
        DataType::Binary => {
            let values = column.as_binary::<i32>();
            seen.extend(valid.map(|row| values.value(row)));
        }
        data_type => {
            let Some(width) = data_type.primitive_width() else { return false };
            let data = column.to_data();
            let Some(buffer) = data.buffers().first().map(arrow_buffer::Buffer::as_slice) else { return false };
            let value = |row: usize| buffer.get((data.offset() + row) * width..(data.offset() + row + 1) * width);
            return valid.filter_map(value).collect::<HashSet<_>>().len() * 2 > there;
        }
    }
    seen.len() * 2 > there
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Int64Array, StringArray, StructArray};

    use super::*;

    #[test]
    fn unique_columns_lose_their_dictionary_and_repeated_ones_keep_it() {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1_000));
        let countries: ArrayRef =
            Arc::new(StringArray::from_iter_values((0..1_000).map(|row| format!("c{}", row % 9))));
        let urls: ArrayRef = Arc::new(StringArray::from_iter_values((0..1_000).map(|row| format!("/p/{row}"))));
        let page = StructArray::from(vec![(Arc::new(Field::new("url", DataType::Utf8, false)), urls)]);
        let rows =
            RecordBatch::try_from_iter([("id", ids), ("country", countries), ("page", Arc::new(page) as ArrayRef)])
                .unwrap();
        let unique = UniqueColumns::look(&rows).unwrap();
        let has =
            |parts: &[&str]| unique.contains(&ColumnPath::new(parts.iter().map(|part| (*part).to_owned()).collect()));
        assert!(has(&["id"]) && has(&["page", "url"]) && !has(&["country"]));
        assert!(UniqueColumns::look(&rows.slice(0, 100)).is_none());
    }
}
