//! The leaves of a schema: what Parquet stores as one column each.
//!
//! Comes in: an Arrow schema, and batches of it. Goes out: the leaves in Parquet's order, with the dotted path that a
//! user writes for each, and their values. Refuses what Parquet cannot store, by name. Pure.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, OffsetSizeTrait, RecordBatch, cast::AsArray};
use arrow_buffer::OffsetBuffer;
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{ArrowError, DataType, Field, FieldRef, IntervalUnit, Schema, SchemaRef, TimeUnit};
use parquet::{
    arrow::ArrowSchemaConverter,
    basic::Type as PhysicalType,
    schema::types::{ColumnDescPtr, ColumnPath},
};

use crate::error::PipelineError;

/// One column of a Parquet file.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    /// Its path in the configuration: names of struct fields with dots between; lists have no part of their own.
    pub(super) name: String,
    /// Its path in the file.
    pub(super) path: ColumnPath,
    /// How its values are stored.
    pub(super) physical: PhysicalType,
}

impl Leaf {
    /// Whether a path of the configuration means this leaf, or a struct or list around it.
    pub(super) fn is_named(&self, path: &str) -> bool {
        let within = |name: &str| name.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        within(&self.name) || within(&self.path.string())
    }
}

/// The leaves of a schema that [`storable`] made.
pub(super) fn leaves(schema: &Schema) -> Result<Vec<Leaf>, PipelineError> {
    let unsupported = |error: parquet::errors::ParquetError| {
        PipelineError::stop(format!("Parquet cannot store rows of the schema {schema}")).because(error)
    };
    let columns = ArrowSchemaConverter::new().with_coerce_types(true).convert(schema).map_err(unsupported)?;
    let mut names = Vec::new();
    for field in schema.fields() {
        add_names(field.name().clone(), field.data_type(), &mut names);
    }
    let leaf = |(column, name): (&ColumnDescPtr, String)| Leaf {
        name,
        path: column.path().clone(),
        physical: column.physical_type(),
    };
    Ok(columns.columns().iter().zip(names).map(leaf).collect())
}

/// The values of each leaf of some rows, in the same order.
pub(super) fn values(rows: &RecordBatch) -> Vec<ArrayRef> {
    let mut leaves = Vec::new();
    for column in rows.columns() {
        add_values(column, &mut leaves);
    }
    leaves
}

/// The schema as files have it: Parquet has no seconds, so they become milliseconds. What it cannot store at all is an
/// error that names the column.
pub(super) fn storable(schema: &SchemaRef) -> Result<SchemaRef, PipelineError> {
    let fields: Vec<FieldRef> =
        schema.fields().iter().map(|field| storable_field(field, field.name())).collect::<Result<_, _>>()?;
    let storable = Schema::new_with_metadata(fields, schema.metadata().clone());
    Ok(if storable == **schema { Arc::clone(schema) } else { Arc::new(storable) })
}

/// Rows in the schema that [`storable`] made of theirs.
pub(super) fn to_storable(rows: &RecordBatch, storable: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    if Arc::ptr_eq(rows.schema_ref(), storable) || rows.schema_ref() == storable {
        return Ok(rows.clone());
    }
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let columns = rows.columns().iter().zip(storable.fields()).map(|(column, field)| {
        if column.data_type() == field.data_type() {
            Ok(Arc::clone(column))
        } else {
            cast_with_options(column, field.data_type(), &options)
        }
    });
    RecordBatch::try_new(Arc::clone(storable), columns.collect::<Result<_, _>>()?)
}

/// A field as files have it.
fn storable_field(field: &FieldRef, path: &str) -> Result<FieldRef, PipelineError> {
    let child = |child: &FieldRef| storable_field(child, &format!("{path}.{}", child.name()));
    let refused = |why: &str| {
        Err(PipelineError::stop(format!(
            "the column `{path}` is of type {}, {why}; change its type in `schema`, or leave it out with a plugin",
            field.data_type()
        )))
    };
    let data_type = match field.data_type() {
        DataType::Timestamp(TimeUnit::Second, zone) => DataType::Timestamp(TimeUnit::Millisecond, zone.clone()),
        DataType::Time32(TimeUnit::Second) => DataType::Time32(TimeUnit::Millisecond),
        DataType::Struct(fields) if fields.is_empty() => {
            return refused("a struct without fields, which Parquet has not");
        }
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(child).collect::<Result<_, _>>()?),
        DataType::List(item) => DataType::List(child(item)?),
        DataType::LargeList(item) => DataType::LargeList(child(item)?),
        DataType::FixedSizeList(item, length) => DataType::FixedSizeList(child(item)?, *length),
        DataType::Map(entries, sorted) => DataType::Map(child(entries)?, *sorted),
        DataType::Union(..) | DataType::Interval(IntervalUnit::MonthDayNano) => {
            return refused("which Parquet cannot store");
        }
        other => other.clone(),
    };
    Ok(if data_type == *field.data_type() {
        Arc::clone(field)
    } else {
        Arc::new(Field::clone(field).with_data_type(data_type))
    })
}

/// Adds the names of the leaves of a type, depth first as Parquet does.
fn add_names(name: String, data_type: &DataType, names: &mut Vec<String>) {
    match data_type {
        DataType::Struct(fields) => {
            for field in fields {
                add_names(format!("{name}.{}", field.name()), field.data_type(), names);
            }
        }
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _) => add_names(name, item.data_type(), names),
        _ => names.push(name),
    }
}

/// Adds the leaves of an array, depth first as Parquet does.
fn add_values(array: &ArrayRef, leaves: &mut Vec<ArrayRef>) {
    match array.data_type() {
        DataType::Struct(_) => array.as_struct().columns().iter().for_each(|column| add_values(column, leaves)),
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            add_values(&between(list.values(), list.offsets()), leaves);
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            add_values(&between(list.values(), list.offsets()), leaves);
        }
        DataType::FixedSizeList(..) => add_values(array.as_fixed_size_list().values(), leaves),
        DataType::ListView(_) => add_values(array.as_list_view::<i32>().values(), leaves),
        DataType::LargeListView(_) => add_values(array.as_list_view::<i64>().values(), leaves),
        DataType::Map(..) => {
            let map = array.as_map();
            for column in map.entries().columns() {
                add_values(&between(column, map.offsets()), leaves);
            }
        }
        _ => leaves.push(Arc::clone(array)),
    }
}

/// The values of a list that are between its first and its last offset: a slice shares the values of the whole.
fn between<O: OffsetSizeTrait>(values: &ArrayRef, offsets: &OffsetBuffer<O>) -> ArrayRef {
    let (first, last) = (offsets.first().as_usize(), offsets.last().as_usize());
    values.slice(first, last.saturating_sub(first))
}
