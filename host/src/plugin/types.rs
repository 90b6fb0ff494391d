//! Which Arrow types a plugin may answer, and what it is shown of the types that it cannot be handed as they are.
//!
//! The list is closed: a type that is not on it can claim any number of rows without paying for them in bytes
//! (views, run-end, union, null, zero-width), and the host would pay instead.

use std::{collections::HashSet, sync::Arc};

use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{ArrowError, DataType, Field, Fields, IntervalUnit, Schema, SchemaRef, TimeUnit};

use super::failure::BadOutput;

/// Lists in structs in lists: deeper than this nobody reads, and every level costs stack in the host.
const DEPTH_MAX: usize = 8;
/// Fields at all levels together; the widest tables seen in practice have a few thousand.
const FIELDS_MAX: usize = 10_000;
/// Bytes of one column name.
const NAME_BYTES_MAX: usize = 1024;

/// Refuses a schema with a type that is not on the list, too many or too long names, or one name twice. A column that
/// `passed_on` has too may be of any type: the host takes it from the input.
pub(super) fn check_output_schema(schema: &Schema, passed_on: Option<&Schema>) -> Result<(), BadOutput> {
    let mut names = HashSet::new();
    let mut fields = 0;
    for field in schema.fields() {
        let known = passed_on.and_then(|input| input.column_with_name(field.name()));
        if known.is_none_or(|(_, known)| known.data_type() != field.data_type()) {
            check_field(field, 1, &mut fields)?;
        }
        if !names.insert(field.name()) {
            return Err(BadOutput::new(format!("answered a schema with two columns named `{}`", field.name())));
        }
    }
    Ok(())
}

/// One field with all below it.
fn check_field(field: &Field, depth: usize, fields: &mut usize) -> Result<(), BadOutput> {
    *fields += 1;
    if *fields > FIELDS_MAX {
        return Err(BadOutput::new(format!("answered a schema of more than {FIELDS_MAX} fields")));
    }
    if field.name().len() > NAME_BYTES_MAX {
        return Err(BadOutput::new(format!("answered a column name of more than {NAME_BYTES_MAX} bytes")));
    }
    if depth > DEPTH_MAX {
        return Err(BadOutput::new(format!("answered a type nested deeper than {DEPTH_MAX} levels")));
    }
    match field.data_type() {
        DataType::List(item) | DataType::LargeList(item) => check_field(item, depth + 1, fields),
        DataType::FixedSizeList(item, size) if *size > 0 => check_field(item, depth + 1, fields),
        DataType::Struct(children) if !children.is_empty() => {
            children.iter().try_for_each(|child| check_field(child, depth + 1, fields))
        }
        DataType::Map(entries, _) if is_map_entries(entries) => check_field(entries, depth + 1, fields),
        flat if is_flat_output(flat) => Ok(()),
        other => Err(BadOutput::new(format!("answered column `{}` of type {other}, which plugins may not answer", {
            field.name()
        }))),
    }
}

/// Whether a map's child is a struct of a key that is never null and a value.
fn is_map_entries(entries: &Field) -> bool {
    match entries.data_type() {
        DataType::Struct(children) => {
            matches!(children.as_ref(), [key, _] if !key.is_nullable()) && !entries.is_nullable()
        }
        _ => false,
    }
}

/// Types without children that a plugin may answer.
fn is_flat_output(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(keys, values) => {
            keys.is_integer()
                && matches!(
                    values.as_ref(),
                    DataType::Utf8 | DataType::LargeUtf8 | DataType::Binary | DataType::LargeBinary
                )
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Binary | DataType::LargeBinary | DataType::Boolean => true,
        other => fixed_width(other).is_some(),
    }
}

/// Bytes per value of a type without children whose values are all of one length of whole bytes.
pub(super) fn fixed_width(data_type: &DataType) -> Option<usize> {
    let decimal =
        |precision: u8, scale: i8, digits: u8| (1..=digits).contains(&precision) && scale.unsigned_abs() <= precision;
    match data_type {
        DataType::Int8 | DataType::UInt8 => Some(1),
        DataType::Int16 | DataType::UInt16 | DataType::Float16 => Some(2),
        DataType::Int32
        | DataType::UInt32
        | DataType::Float32
        | DataType::Date32
        | DataType::Time32(TimeUnit::Second | TimeUnit::Millisecond)
        | DataType::Interval(IntervalUnit::YearMonth) => Some(4),
        DataType::Int64
        | DataType::UInt64
        | DataType::Float64
        | DataType::Date64
        | DataType::Time64(TimeUnit::Microsecond | TimeUnit::Nanosecond)
        | DataType::Timestamp(..)
        | DataType::Duration(_)
        | DataType::Interval(IntervalUnit::DayTime) => Some(8),
        DataType::Interval(IntervalUnit::MonthDayNano) => Some(16),
        DataType::Decimal32(precision, scale) if decimal(*precision, *scale, 9) => Some(4),
        DataType::Decimal64(precision, scale) if decimal(*precision, *scale, 18) => Some(8),
        DataType::Decimal128(precision, scale) if decimal(*precision, *scale, 38) => Some(16),
        DataType::Decimal256(precision, scale) if decimal(*precision, *scale, 76) => Some(32),
        DataType::FixedSizeBinary(width) => usize::try_from(*width).ok().filter(|width| *width > 0),
        _ => None,
    }
}

/// What a plugin sees of a schema: views, dictionaries and run-ends are unpacked, everything else stays.
pub(super) fn plain_schema(schema: &SchemaRef) -> SchemaRef {
    let fields: Vec<_> = schema.fields().iter().map(plain_field).collect();
    if fields.iter().zip(schema.fields()).all(|(plain, field)| Arc::ptr_eq(plain, field)) {
        return Arc::clone(schema);
    }
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// The same for one field.
fn plain_field(field: &Arc<Field>) -> Arc<Field> {
    let plain = plain_type(field.data_type());
    if plain == *field.data_type() {
        Arc::clone(field)
    } else {
        Arc::new(Field::new(field.name(), plain, field.is_nullable()).with_metadata(field.metadata().clone()))
    }
}

/// The same for one type.
fn plain_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, values) => plain_type(values),
        DataType::RunEndEncoded(_, values) => plain_type(values.data_type()),
        DataType::List(item) | DataType::ListView(item) => DataType::List(plain_field(item)),
        DataType::LargeList(item) | DataType::LargeListView(item) => DataType::LargeList(plain_field(item)),
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(plain_field(item), *size),
        DataType::Struct(children) => DataType::Struct(children.iter().map(plain_field).collect::<Fields>()),
        DataType::Map(entries, sorted) => DataType::Map(plain_field(entries), *sorted),
        other => other.clone(),
    }
}

/// Rows with every column in the type of `schema`, a schema made by [`plain_schema`].
pub(super) fn plain_rows(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let given = rows.schema_ref();
    if Arc::ptr_eq(given, schema) {
        return Ok(rows.clone());
    }
    if given.fields().len() != schema.fields().len()
        || given.fields().iter().zip(schema.fields()).any(|(given, wanted)| given.name() != wanted.name())
    {
        return Err(ArrowError::SchemaError(format!("the chain was opened for {schema} and was given {given}")));
    }
    let columns = rows
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| plain_column(column, field.data_type()))
        .collect::<Result<Vec<_>, _>>()?;
    RecordBatch::try_new(Arc::clone(schema), columns)
}

/// One column in its plain type.
fn plain_column(column: &ArrayRef, data_type: &DataType) -> Result<ArrayRef, ArrowError> {
    if column.data_type() == data_type {
        Ok(Arc::clone(column))
    } else if plain_type(column.data_type()) == *data_type {
        arrow_cast::cast(column, data_type)
    } else {
        Err(ArrowError::SchemaError(format!("the chain was opened for {data_type} and was given {}", {
            column.data_type()
        })))
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::{DictionaryArray, StringArray, StringViewArray, cast::AsArray, types::Int32Type};

    use super::*;

    /// A schema of one column.
    fn schema_of(data_type: DataType) -> Schema {
        Schema::new(vec![Field::new("x", data_type, true)])
    }

    #[test]
    fn types_that_cost_nothing_per_row_are_refused_and_the_others_pass() {
        let item = |data_type| Arc::new(Field::new("item", data_type, true));
        for refused in [
            DataType::Null,
            DataType::Utf8View,
            DataType::BinaryView,
            DataType::FixedSizeBinary(0),
            DataType::FixedSizeList(item(DataType::Int8), 0),
            DataType::Struct(Fields::empty()),
            DataType::ListView(item(DataType::Int8)),
            DataType::Time32(TimeUnit::Nanosecond),
            DataType::Decimal128(40, 0),
            DataType::List(item(DataType::Null)),
            DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Int64)),
        ] {
            assert!(check_output_schema(&schema_of(refused.clone()), None).is_err(), "{refused}");
        }
        for allowed in [
            DataType::Boolean,
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            DataType::Decimal128(10, 2),
            DataType::FixedSizeBinary(16),
            DataType::List(item(DataType::Struct(Fields::from(vec![Field::new("a", DataType::Utf8, true)])))),
            DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
        ] {
            check_output_schema(&schema_of(allowed), None).unwrap();
        }
    }

    #[test]
    fn nesting_and_double_names_are_refused_in_words() {
        let mut deep = DataType::Int8;
        for _ in 0..9 {
            deep = DataType::List(Arc::new(Field::new("item", deep, true)));
        }
        let message = check_output_schema(&schema_of(deep), None).unwrap_err().to_string();
        assert_eq!(message, "answered a type nested deeper than 8 levels");
        let twice = Schema::new(vec![Field::new("a", DataType::Int8, true), Field::new("a", DataType::Int8, true)]);
        let message = check_output_schema(&twice, None).unwrap_err().to_string();
        assert_eq!(message, "answered a schema with two columns named `a`");
    }

    #[test]
    fn views_and_dictionaries_are_unpacked() {
        let keys: DictionaryArray<Int32Type> = ["a", "b", "a"].into_iter().collect();
        let views = StringViewArray::from(vec!["x", "a string that is too long for a view", "z"]);
        let given = RecordBatch::try_from_iter([
            ("dictionary", Arc::new(keys) as ArrayRef),
            ("view", Arc::new(views) as ArrayRef),
        ])
        .unwrap();
        let schema = plain_schema(given.schema_ref());
        let plain = plain_rows(&given, &schema).unwrap();
        assert_eq!(plain.column(0).as_string::<i32>(), &StringArray::from(vec!["a", "b", "a"]));
        assert_eq!(plain.column(1).as_string::<i32>().value(1), "a string that is too long for a view");
    }
}
