//! Sorts the rows of each row group, as `sink.parquet.sort_by` says.
//!
//! Comes in: rows as they come. Goes out: the rows of a whole row group in order, in batches that are not large. Rows that are equal in
//! all columns named stay in the order in which they came. Until their row group is full, rows are in memory as they are, not
//! encoded: that is what sorting costs.

use std::sync::Arc;

use arrow_array::{Array as _, ArrayRef, RecordBatch, StructArray, make_array};
use arrow_buffer::NullBuffer;
use arrow_row::{RowConverter, SortField};
use arrow_schema::{ArrowError, DataType, Fields, Schema, SortOptions};
use arrow_select::{interleave::interleave_record_batch, take::take_record_batch};
use parquet::file::metadata::SortingColumn;

use super::{leaf::Leaf, properties::check_names};
use crate::{
    config::{ParquetConfig, SortColumn},
    error::PipelineError,
};

/// A row group is sorted and written at so many bytes at the latest, whatever is configured: columns of texts end at 2 GiB.
const BYTES_MAX: usize = 1 << 30;

/// Most rows that are handed to the encoder at once, as many as come from a source at once.
const BATCH_ROWS: usize = 8_192;

/// About how many bytes of rows are handed to the encoder at once.
const BATCH_BYTES: usize = 8 << 20;

/// What rows of one schema are sorted by.
#[derive(Clone, Debug)]
pub(super) struct SortPlan {
    /// The columns, the first one first.
    keys: Arc<[Key]>,
    /// A row group ends at so many rows.
    rows_max: usize,
    /// A row group ends at so many bytes of rows that are not encoded.
    bytes_max: usize,
}

/// One column.
#[derive(Clone, Debug)]
struct Key {
    /// Where it is: a column, then fields of structs.
    position: Vec<usize>,
    /// Its type and its order.
    field: SortField,
    /// The same as files say it.
    column: SortingColumn,
}

/// Rows of the row group that is not full yet.
#[derive(Debug)]
pub(super) struct Sorter {
    /// Their order.
    plan: SortPlan,
    /// The rows.
    batches: Vec<RecordBatch>,
    /// How many.
    rows: usize,
    /// About how many bytes.
    bytes: usize,
    /// Bytes of all rows that were sorted before.
    sorted_bytes: usize,
}

/// The rows of a row group in order: an iterator over batches.
#[derive(Debug)]
pub(super) struct Sorted {
    /// The rows as they came.
    batches: Vec<RecordBatch>,
    /// Batch and row of each that is still to come, the next one last.
    order: Vec<(u32, u32)>,
    /// So many are taken at once.
    batch_rows: usize,
}

impl SortPlan {
    /// How rows of files with this schema are sorted; `None` where they are not.
    pub(super) fn new(config: &ParquetConfig, schema: &Schema, leaves: &[Leaf]) -> Result<Option<Self>, PipelineError> {
        check_names("sink.parquet.sort_by", config.sort_by.iter().map(|column| &column.column), leaves)?;
        let keys: Vec<Key> =
            config.sort_by.iter().map(|column| Key::new(column, schema, leaves)).collect::<Result<_, _>>()?;
        let (rows_max, bytes_max) = (config.row_group_rows.max(1), config.row_group_bytes.clamp(1, BYTES_MAX));
        Ok((!keys.is_empty()).then(|| Self { keys: keys.into(), rows_max, bytes_max }))
    }

    /// What files say of their order.
    pub(super) fn columns(&self) -> Vec<SortingColumn> {
        self.keys.iter().map(|key| key.column.clone()).collect()
    }
}

impl Key {
    /// A column as it is configured.
    fn new(config: &SortColumn, schema: &Schema, leaves: &[Leaf]) -> Result<Self, PipelineError> {
        let SortColumn { column: name, descending, nulls_first } = config;
        let stop = |why: &str| PipelineError::stop(format!("sink.parquet.sort_by names `{name}`, {why}"));
        let Some((position, parts, data_type)) = find(schema.fields(), name) else {
            return Err(stop("which is in a list or a map and has no order; name a column with one value a row"));
        };
        let options = SortOptions { descending: *descending, nulls_first: *nulls_first };
        let field = SortField::new_with_options(data_type.clone(), options);
        let leaf = leaves.iter().position(|leaf| leaf.path.parts() == parts);
        let Some(leaf) =
            leaf.filter(|_| !data_type.is_nested() && RowConverter::supports_fields(std::slice::from_ref(&field)))
        else {
            return Err(stop(&format!(
                "of type {data_type}, which has no order; name a column that is no list, map or struct"
            )));
        };
        let column_idx = i32::try_from(leaf).map_err(|_| stop("which is too far to the right"))?;
        let column = SortingColumn { column_idx, descending: *descending, nulls_first: *nulls_first };
        Ok(Self { position, field, column })
    }

    /// The values of the column; null where a struct around it is.
    fn values(&self, rows: &RecordBatch) -> Result<ArrayRef, ArrowError> {
        let lost = || ArrowError::SchemaError("a column to sort by is not there".to_owned());
        let (first, rest) = self.position.split_first().ok_or_else(lost)?;
        let mut values = Arc::clone(rows.columns().get(*first).ok_or_else(lost)?);
        let mut nulls: Option<NullBuffer> = None;
        for field in rest {
            nulls = NullBuffer::union(nulls.as_ref(), values.nulls());
            let around = values.as_any().downcast_ref::<StructArray>().ok_or_else(lost)?;
            values = Arc::clone(around.columns().get(*field).ok_or_else(lost)?);
        }
        if nulls.is_none() {
            return Ok(values);
        }
        let nulls = NullBuffer::union(nulls.as_ref(), values.logical_nulls().as_ref());
        Ok(make_array(values.to_data().into_builder().nulls(nulls).build()?))
    }
}

impl Sorter {
    /// No rows yet.
    pub(super) fn new(plan: SortPlan) -> Self {
        Self { plan, batches: Vec::new(), rows: 0, bytes: 0, sorted_bytes: 0 }
    }

    /// Adds rows; whether the row group is full with them.
    pub(super) fn push(&mut self, rows: &RecordBatch) -> Result<bool, ArrowError> {
        let own_bytes = slice_bytes(rows)?;
        let all_bytes = rows.get_array_memory_size();
        // A small part of a batch would keep all of it in memory.
        let is_part = all_bytes / 2 > own_bytes;
        let rows = if is_part {
            take_record_batch(rows, &arrow_array::UInt64Array::from_iter_values(0..rows.num_rows() as u64))?
        } else {
            rows.clone()
        };
        self.rows += rows.num_rows();
        self.bytes += if is_part { own_bytes } else { all_bytes };
        self.batches.push(rows);
        Ok(self.rows >= self.plan.rows_max || self.bytes >= self.plan.bytes_max)
    }

    /// So many rows fit into the row group still.
    pub(super) fn room_rows(&self) -> usize {
        self.plan.rows_max.saturating_sub(self.rows).max(1)
    }

    /// What the rows take.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the file has a row group.
    pub(super) fn has_sorted(&self) -> bool {
        self.sorted_bytes > 0
    }

    /// About how many bytes the rows will be in the file, of which those before became so many: as many as they are now,
    /// until that is known.
    pub(super) fn encoded_bytes(&self, sent_bytes: usize) -> usize {
        let shrunk = self.bytes as u128 * sent_bytes as u128;
        let shrunk = shrunk.checked_div(self.sorted_bytes as u128);
        shrunk.map_or(self.bytes, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
    }

    /// All rows, in order. Afterwards it is empty.
    pub(super) fn take(&mut self) -> Result<Sorted, ArrowError> {
        let batches = std::mem::take(&mut self.batches);
        let batch_rows = (BATCH_BYTES / (self.bytes / self.rows.max(1)).max(1)).clamp(1, BATCH_ROWS);
        self.sorted_bytes += self.bytes;
        let rows = std::mem::take(&mut self.rows);
        self.bytes = 0;
        let fields = self.plan.keys.iter().map(|key| key.field.clone()).collect();
        let converter = RowConverter::new(fields)?;
        let mut keys = converter.empty_rows(rows, 0);
        let mut order: Vec<(u32, u32)> = Vec::with_capacity(rows);
        for (number, batch) in (0..).zip(&batches) {
            let columns: Vec<ArrayRef> =
                self.plan.keys.iter().map(|key| key.values(batch)).collect::<Result<_, _>>()?;
            converter.append(&mut keys, &columns)?;
            order.extend((0..).take(batch.num_rows()).map(|row| (number, row)));
        }
        let mut sorted: Vec<u32> = (0..).take(order.len()).collect();
        // Equal ones stay in their order, and the next one is to be last.
        sorted.sort_by(|one, other| keys.row(*one as usize).cmp(&keys.row(*other as usize)));
        drop(keys);
        let order = sorted.into_iter().rev().filter_map(|at| order.get(at as usize).copied()).collect();
        Ok(Sorted { batches, order, batch_rows })
    }
}

impl Iterator for Sorted {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.order.len().saturating_sub(self.batch_rows);
        let next: Vec<(usize, usize)> =
            self.order.drain(rest..).rev().map(|(batch, row)| (batch as usize, row as usize)).collect();
        if next.is_empty() {
            return None;
        }
        let batches: Vec<&RecordBatch> = self.batches.iter().collect();
        Some(interleave_record_batch(&batches, &next))
    }
}

/// What rows take, without what lies beside them in the same memory.
fn slice_bytes(rows: &RecordBatch) -> Result<usize, ArrowError> {
    rows.columns().iter().map(|column| column.to_data().get_slice_memory_size()).sum()
}

/// Where a column of a dotted path is: its place, the names on the way, and its type.
fn find<'schema>(fields: &'schema Fields, path: &str) -> Option<(Vec<usize>, Vec<String>, &'schema DataType)> {
    fields.iter().enumerate().find_map(|(at, field)| {
        let rest = path.strip_prefix(field.name().as_str())?;
        let (mut position, mut names, data_type) = match (rest.strip_prefix('.'), field.data_type()) {
            _ if rest.is_empty() => (Vec::new(), Vec::new(), field.data_type()),
            (Some(rest), DataType::Struct(inner)) => find(inner, rest)?,
            _ => return None,
        };
        position.insert(0, at);
        names.insert(0, field.name().clone());
        Some((position, names, data_type))
    })
}

#[cfg(test)]
mod tests {
    use arrow_array::{Int64Array, StringArray, cast::AsArray as _, types::Int64Type};
    use arrow_schema::Field;
    use proptest::prelude::*;

    use super::*;
    use crate::file::leaf;

    /// A configuration that sorts.
    fn config(columns: &[(&str, bool, bool)], rows: usize) -> ParquetConfig {
        let column = |(column, descending, nulls_first): &(&str, bool, bool)| SortColumn {
            column: (*column).to_owned(),
            descending: *descending,
            nulls_first: *nulls_first,
        };
        ParquetConfig {
            sort_by: columns.iter().map(column).collect(),
            row_group_rows: rows,
            ..ParquetConfig::default()
        }
    }

    /// The plan for rows.
    fn plan(config: &ParquetConfig, schema: &Schema) -> Result<Option<SortPlan>, PipelineError> {
        SortPlan::new(config, schema, &leaf::leaves(schema).unwrap())
    }

    /// Rows with a number of their own, and a key inside of a struct that may be null.
    fn rows(keys: &[(bool, Option<i64>)], from: i64) -> RecordBatch {
        let inner: Int64Array = keys.iter().map(|(_, key)| *key).collect();
        let fields = Fields::from(vec![Field::new("key", DataType::Int64, true)]);
        let nulls: NullBuffer = keys.iter().map(|(is_there, _)| *is_there).collect();
        let around = StructArray::new(fields, vec![Arc::new(inner)], Some(nulls));
        let ids = from..from + i64::try_from(keys.len()).unwrap();
        let texts = StringArray::from_iter_values(ids.clone().map(|id| format!("row {id}")));
        RecordBatch::try_from_iter_with_nullable([
            ("text", Arc::new(texts) as ArrayRef, false),
            ("inner", Arc::new(around), true),
            ("id", Arc::new(Int64Array::from_iter_values(ids)), false),
        ])
        .unwrap()
    }

    proptest! {
        #[test]
        fn rows_come_out_in_order_and_equal_ones_as_they_came(
            batches in proptest::collection::vec(
                proptest::collection::vec((any::<bool>(), proptest::option::of(-3_i64..3)), 1..50), 1..8),
            (descending, nulls_first) in (any::<bool>(), any::<bool>()),
        ) {
            let plan = plan(&config(&[("inner.key", descending, nulls_first)], 1000), rows(&[(true, None)], 0).schema_ref());
            let mut sorter = Sorter::new(plan.unwrap().unwrap());
            let mut expected: Vec<(Option<i64>, i64)> = Vec::new();
            for batch in &batches {
                let from = i64::try_from(expected.len()).unwrap();
                expected.extend((from..).zip(batch).map(|(id, (is_there, key))| (key.filter(|_| *is_there), id)));
                // Slices count as what they are.
                let whole = rows(&[batch.as_slice(), &[(true, None)]].concat(), from);
                sorter.push(&whole.slice(0, batch.len())).unwrap();
            }
            expected.sort_by(|(one, _), (other, _)| match (one, other) {
                (Some(one), Some(other)) if descending => other.cmp(one),
                (Some(one), Some(other)) => one.cmp(other),
                _ if nulls_first => one.is_some().cmp(&other.is_some()),
                _ => one.is_none().cmp(&other.is_none()),
            });
            let mut found = Vec::new();
            for batch in sorter.take().unwrap() {
                let batch = batch.unwrap();
                let ids = batch.column(2).as_primitive::<Int64Type>();
                let texts = batch.column(0).as_string::<i32>();
                for (id, text) in ids.values().iter().zip(texts.iter().flatten()) {
                    prop_assert_eq!(format!("row {id}"), text);
                    found.push(*id);
                }
            }
            prop_assert_eq!(found, expected.into_iter().map(|(_, id)| id).collect::<Vec<_>>());
            prop_assert_eq!((sorter.bytes(), sorter.rows), (0, 0));
        }
    }

    #[test]
    fn a_row_group_is_full_at_its_rows_or_its_bytes() {
        let some = rows(&[(true, Some(1)); 40], 0);
        let by_rows = plan(&config(&[("id", false, false)], 100), some.schema_ref()).unwrap().unwrap();
        let mut sorter = Sorter::new(by_rows);
        assert_eq!([(); 3].map(|()| sorter.push(&some).unwrap()), [false, false, true]);
        let config = ParquetConfig { row_group_bytes: 1, ..config(&[("id", false, false)], 100) };
        assert!(Sorter::new(plan(&config, some.schema_ref()).unwrap().unwrap()).push(&some).unwrap());
    }

    #[test]
    fn a_column_without_an_order_is_refused_by_name() {
        let some = rows(&[(true, None)], 0);
        let refused =
            |name: &str| plan(&config(&[(name, false, false)], 1), some.schema_ref()).unwrap_err().to_string();
        assert!(
            refused("inner").contains("sink.parquet.sort_by names `inner`, of type Struct"),
            "{}",
            refused("inner")
        );
        assert!(refused("nothing").contains("their columns are: text, inner.key, id"), "{}", refused("nothing"));
        let list = Schema::new(vec![Field::new_list("list", Field::new("item", DataType::Int64, true), true)]);
        assert!(plan(&config(&[("list", false, false)], 1), &list).is_err());
        let found = plan(&config(&[("id", true, false), ("text", false, true)], 1), some.schema_ref());
        let columns = found.unwrap().unwrap().columns();
        assert_eq!(columns.iter().map(|column| column.column_idx).collect::<Vec<_>>(), [2, 0]);
    }
}
