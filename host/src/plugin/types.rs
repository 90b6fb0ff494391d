//! What a plugin is shown of the types that it cannot be handed as they are.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{ArrowError, DataType, Field, Fields, Schema, SchemaRef};

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
