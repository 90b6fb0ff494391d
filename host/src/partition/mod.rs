//! Splits rows by value: every row goes to the directory of its own value, whatever else is in its batch.
//!
//! Comes in: rows. Goes out: the same rows per directory, in the order in which each directory is first seen; rows of
//! one directory stay in order. Partition columns are left out of the rows unless they are to be kept. Promise: no
//! row is lost, doubled or put beside its value, for any number of distinct values.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use arrow_array::{RecordBatch, UInt32Array};
use arrow_row::{RowConverter, Rows, SortField};
use arrow_schema::{Schema, SchemaRef};

use crate::{
    config::{PartitionColumn, PartitionTransform, SinkConfig},
    error::PipelineError,
};

pub mod path;
mod value;

/// Directory names remembered, so that each is formatted once: 10,000 names of 100 bytes are 1 MB.
const NAMES_MAX: usize = 10_000;

/// Rows and where they go.
#[derive(Clone, Debug)]
pub struct PartitionedRows {
    /// For instance `country=DE/ts_day=2026-11-23`; empty without partitioning.
    pub directory: Arc<str>,
    /// Rows in the file schema.
    pub rows: RecordBatch,
}

/// Splits batches of one schema.
#[derive(Debug)]
pub struct Partitioner {
    /// What is stored in files.
    file_schema: SchemaRef,
    /// Positions of the file's columns among the rows'.
    file_columns: Vec<usize>,
    /// The columns looked at, outermost directory first.
    keys: Vec<Key>,
    /// Turns keys into comparable bytes; `None` without partitioning.
    converter: Option<RowConverter>,
    /// Names of directories by key.
    names: HashMap<Box<[u8]>, Arc<str>>,
    /// The keys of `names`, oldest first.
    name_order: VecDeque<Box<[u8]>>,
}

/// One column that is looked at.
#[derive(Debug)]
struct Key {
    /// Position among the rows' columns.
    position: usize,
    /// Left of `=`.
    directory_name: String,
    /// What is made of a value.
    transform: PartitionTransform,
}

impl Partitioner {
    /// Fails when a column is missing or its values cannot be directories.
    pub fn new(sink: &SinkConfig, schema: &SchemaRef) -> Result<Self, PipelineError> {
        let keys = sink.partition_by.iter().map(|column| key(column, schema)).collect::<Result<Vec<_>, _>>()?;
        let file_columns: Vec<usize> = (0..schema.fields().len())
            .filter(|position| sink.keep_partition_columns || !leaves_file(&keys, *position))
            .collect();
        let file_schema = schema.project(&file_columns).map_err(internal)?;
        if file_schema.fields().is_empty() && !schema.fields().is_empty() {
            return Err(PipelineError::stop(
                "sink.partition_by names every column, so nothing would be left to store: \
                 set sink.keep_partition_columns: true or name fewer columns",
            ));
        }
        let fields = keys.iter().map(|key| SortField::new(value::key_type(schema, key.position, key.transform)));
        let converter =
            (!keys.is_empty()).then(|| RowConverter::new(fields.collect())).transpose().map_err(internal)?;
        Ok(Self {
            file_schema: Arc::new(file_schema),
            file_columns,
            keys,
            converter,
            names: HashMap::new(),
            name_order: VecDeque::new(),
        })
    }

    /// What is stored in files.
    #[must_use]
    pub fn file_schema(&self) -> &SchemaRef {
        &self.file_schema
    }

    /// Splits rows of the schema that this was made for.
    pub fn split(&mut self, rows: &RecordBatch) -> Result<Vec<PartitionedRows>, PipelineError> {
        let stored = rows.project(&self.file_columns).map_err(internal)?;
        if self.converter.is_none() {
            return Ok(vec![PartitionedRows { directory: Arc::from(""), rows: stored }]);
        }
        let key_columns = self
            .keys
            .iter()
            .map(|key| value::key_column(rows.column(key.position), key.transform).map_err(internal))
            .collect::<Result<Vec<_>, _>>()?;
        let Some(converter) = &mut self.converter else { return Ok(Vec::new()) };
        let keys = converter.convert_columns(&key_columns).map_err(internal)?;
        let groups = group(&keys);
        let directories =
            groups.iter().map(|group| self.directory(&keys, group.first, rows)).collect::<Result<Vec<_>, _>>()?;
        deal_out(&stored, &groups, directories)
    }

    /// The directory of one row.
    fn directory(&mut self, keys: &Rows, row: usize, rows: &RecordBatch) -> Result<Arc<str>, PipelineError> {
        let bytes = keys.row(row);
        if let Some(known) = self.names.get(bytes.as_ref()) {
            return Ok(Arc::clone(known));
        }
        let mut directory = String::new();
        for key in &self.keys {
            if !directory.is_empty() {
                directory.push('/');
            }
            let text = value::text(rows.column(key.position), row, key.transform).map_err(internal)?;
            path::push_level(&mut directory, &key.directory_name, text.as_deref());
        }
        let directory: Arc<str> = directory.into();
        let (names, order) = (&mut self.names, &mut self.name_order);
        if order.len() >= NAMES_MAX
            && let Some(oldest) = order.pop_front()
        {
            names.remove(&oldest);
        }
        names.insert(bytes.as_ref().into(), Arc::clone(&directory));
        order.push_back(bytes.as_ref().into());
        Ok(directory)
    }
}

/// Whether a column is told by the directory, so that the file need not have it. A time column of which only the
/// day is told stays.
fn leaves_file(keys: &[Key], position: usize) -> bool {
    keys.iter().any(|key| key.position == position && key.transform == PartitionTransform::Identity)
}

/// Finds a column and checks its type.
fn key(column: &PartitionColumn, schema: &Schema) -> Result<Key, PipelineError> {
    let names = || schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ");
    let position = schema.index_of(&column.column).map_err(|_| {
        PipelineError::stop(format!(
            "sink.partition_by: the rows have no column {:?}; they have: {}",
            column.column,
            names()
        ))
    })?;
    let data_type = schema.field(position).data_type();
    if !value::can_be_directory(data_type, column.transform) {
        let wanted = match column.transform {
            PartitionTransform::Identity => "text, numbers, booleans, dates, times and decimals can",
            _ => "year, month, day and hour need a date or a timestamp",
        };
        return Err(PipelineError::stop(format!(
            "sink.partition_by: column {:?} of type {data_type} cannot be a directory: {wanted}",
            column.column
        )));
    }
    Ok(Key { position, directory_name: column.directory_name(), transform: column.transform })
}

/// Rows of one key.
struct Group {
    /// The first of them.
    first: usize,
    /// How many.
    len: usize,
}

/// For each group its first row and length, in order of first rows; and each row's group.
struct Groups {
    /// In order of first rows.
    list: Vec<Group>,
    /// For each row the number of its group.
    of_row: Vec<u32>,
}

impl Groups {
    /// Each group.
    fn iter(&self) -> std::slice::Iter<'_, Group> {
        self.list.iter()
    }
}

/// Finds the rows of equal keys.
fn group(keys: &Rows) -> Groups {
    let mut known: HashMap<&[u8], u32> = HashMap::new();
    let mut groups = Groups { list: Vec::new(), of_row: Vec::with_capacity(keys.num_rows()) };
    for row in 0..keys.num_rows() {
        let next = u32::try_from(groups.list.len()).unwrap_or(u32::MAX);
        let number = *known.entry(keys.row(row).data()).or_insert(next);
        match groups.list.get_mut(number as usize) {
            Some(group) => group.len += 1,
            None => groups.list.push(Group { first: row, len: 1 }),
        }
        groups.of_row.push(number);
    }
    groups
}

/// One permutation that brings rows of one directory together, then a slice for each; no copy for a single one.
fn deal_out(
    stored: &RecordBatch,
    groups: &Groups,
    directories: Vec<Arc<str>>,
) -> Result<Vec<PartitionedRows>, PipelineError> {
    if let [directory] = directories.as_slice() {
        return Ok(vec![PartitionedRows { directory: Arc::clone(directory), rows: stored.clone() }]);
    }
    let mut starts = Vec::with_capacity(groups.list.len());
    let mut total = 0u32;
    for group in groups.iter() {
        starts.push(total);
        total += u32::try_from(group.len).unwrap_or(u32::MAX);
    }
    let (mut order, mut next) = (vec![0u32; total as usize], starts.clone());
    for (row, number) in (0u32..).zip(&groups.of_row) {
        if let Some(place) = next.get_mut(*number as usize) {
            if let Some(slot) = order.get_mut(*place as usize) {
                *slot = row;
            }
            *place += 1;
        }
    }
    let together = arrow_select::take::take_record_batch(stored, &UInt32Array::from(order)).map_err(internal)?;
    let slices = groups.iter().zip(starts).zip(directories);
    Ok(slices
        .map(|((group, start), directory)| PartitionedRows {
            directory,
            rows: together.slice(start as usize, group.len),
        })
        .collect())
}

/// Something that the checks at the start should have ruled out.
fn internal(error: arrow_schema::ArrowError) -> PipelineError {
    PipelineError::stop("rows cannot be split by sink.partition_by").because(error)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use arrow_array::{Int64Array, StringArray, TimestampMicrosecondArray, cast::AsArray, types::Int64Type};
    use arrow_schema::{DataType, Field, TimeUnit};
    use proptest::prelude::*;

    use super::*;
    use crate::config::{LocalConfig, ParquetConfig, SinkKind};

    /// A sink that is partitioned like this.
    fn sink(columns: &[(&str, PartitionTransform)]) -> SinkConfig {
        SinkConfig {
            kind: SinkKind::Local(LocalConfig { base_path: "unused".into() }),
            partition_by: columns
                .iter()
                .map(|(column, transform)| PartitionColumn { column: (*column).to_owned(), transform: *transform })
                .collect(),
            keep_partition_columns: false,
            parquet: ParquetConfig::default(),
            retry_timeout: Duration::ZERO,
        }
    }

    /// Rows of a country, a time and a number.
    fn rows(countries: Vec<Option<String>>) -> RecordBatch {
        let count = countries.len();
        let schema = Schema::new(vec![
            Field::new("country", DataType::Utf8, true),
            Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false),
            Field::new("id", DataType::Int64, false),
        ]);
        let ids: Vec<i64> = (0..i64::try_from(count).unwrap()).collect();
        let times: Vec<i64> = ids.iter().map(|id| -3_600_000_000 + id * 1_800_000_000).collect();
        RecordBatch::try_new(
            Arc::new(schema),
            vec![
                Arc::new(StringArray::from(countries)),
                Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")),
                Arc::new(Int64Array::from(ids)),
            ],
        )
        .unwrap()
    }

    #[test]
    fn rows_go_to_the_directory_of_their_own_value_and_hours_before_1970_are_right() {
        let rows = rows(vec![Some("DE".into()), None, Some("a/b".into()), Some("DE".into())]);
        let sink = sink(&[("country", PartitionTransform::Identity), ("ts", PartitionTransform::Hour)]);
        let mut partitioner = Partitioner::new(&sink, rows.schema_ref()).unwrap();
        let parts = partitioner.split(&rows).unwrap();
        let names: Vec<_> = parts.iter().map(|part| &*part.directory).collect();
        assert_eq!(
            names,
            [
                "country=DE/ts_hour=1969-12-31-23",
                "country=__HIVE_DEFAULT_PARTITION__/ts_hour=1969-12-31-23",
                "country=a%2Fb/ts_hour=1970-01-01-00",
                "country=DE/ts_hour=1970-01-01-00",
            ]
        );
        let stored: Vec<_> = partitioner.file_schema().fields().iter().map(|field| field.name().clone()).collect();
        assert_eq!(stored, ["ts", "id"], "a column of which only the hour is told stays in the file");
    }

    #[test]
    fn a_missing_column_and_a_type_that_cannot_be_a_directory_are_named() {
        let rows = rows(vec![]);
        let missing = Partitioner::new(&sink(&[("land", PartitionTransform::Identity)]), rows.schema_ref());
        assert_eq!(
            missing.unwrap_err().to_string(),
            "sink.partition_by: the rows have no column \"land\"; they have: country, ts, id"
        );
        let wrong = Partitioner::new(&sink(&[("id", PartitionTransform::Day)]), rows.schema_ref());
        assert!(wrong.unwrap_err().to_string().contains("need a date or a timestamp"));
    }

    proptest! {
        #[test]
        fn no_row_is_lost_doubled_or_misplaced(countries in proptest::collection::vec(proptest::option::of("[a-c/=%]{0,2}"), 0..200)) {
            let rows = rows(countries.clone());
            let sink = sink(&[("country", PartitionTransform::Identity)]);
            let mut partitioner = Partitioner::new(&sink, rows.schema_ref()).unwrap();
            let mut found = BTreeMap::new();
            for part in partitioner.split(&rows).unwrap() {
                let ids = part.rows.column_by_name("id").unwrap().as_primitive::<Int64Type>().clone();
                prop_assert!(ids.values().is_sorted(), "rows of one directory stay in order");
                for id in ids.values() {
                    let value = path::unescape(part.directory.strip_prefix("country=").unwrap());
                    prop_assert!(found.insert(*id, value).is_none(), "row {} twice", id);
                }
            }
            prop_assert_eq!(found.len(), countries.len());
            for (id, country) in countries.iter().enumerate() {
                let expected = country.clone().filter(|text| !text.is_empty()).unwrap_or(path::NULL_DIRECTORY.to_owned());
                prop_assert_eq!(&found[&i64::try_from(id).unwrap()], &expected);
            }
        }
    }

    #[test]
    fn ten_thousand_values_in_one_batch() {
        let rows = rows((0..20_000).map(|row| Some(format!("c{}", row % 10_000))).collect());
        let mut partitioner =
            Partitioner::new(&sink(&[("country", PartitionTransform::Identity)]), rows.schema_ref()).unwrap();
        let parts = partitioner.split(&rows).unwrap();
        assert_eq!(parts.len(), 10_000);
        assert!(parts.iter().all(|part| part.rows.num_rows() == 2));
    }
}
