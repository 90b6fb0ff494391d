//! Columns as raw buffers: made for plugins that read them, and read from plugins that answer them.
//!
//! What a plugin answered is checked as an IPC stream is: lengths against rows and width, offsets, UTF-8, null count.

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, make_array};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer};
use arrow_data::ArrayData;
use arrow_schema::{DataType, Field, Schema};

use super::{
    bindings::types::Column,
    decimals::check_decimals,
    failure::BadOutput,
    format::{format_of, type_of},
    ipc_check::{Caps, check_output_schema, too_many_bytes, too_many_rows},
};
use crate::ipc::fixed_width;

/// The buffers of a compacted array; `None` where its type has no raw form.
pub(super) fn raw_column(name: &str, array: &ArrayData) -> Option<Column> {
    let format = format_of(array.data_type())?;
    let (offsets, data) = match (array.data_type(), array.buffers()) {
        (DataType::Utf8 | DataType::Binary, [offsets, data]) if !offsets.is_empty() => (Some(offsets.to_vec()), data),
        // An empty array may have no offset at all; a reader expects one.
        (DataType::Utf8 | DataType::Binary, [_, data]) => (Some(vec![0; 4]), data),
        (_, [data]) => (None, data),
        _ => return None,
    };
    Some(Column {
        name: name.to_owned(),
        format,
        length: u32::try_from(array.len()).ok()?,
        null_count: u32::try_from(array.null_count()).ok()?,
        validity: array.nulls().filter(|nulls| nulls.null_count() > 0).map(|nulls| nulls.inner().sliced().to_vec()),
        offsets,
        data: data.to_vec(),
    })
}

/// Columns that a plugin answered, as a batch; they must have one length.
pub(super) fn read_columns(
    columns: Vec<Column>,
    caps: Caps,
    accept: impl FnOnce(&Schema) -> Result<(), BadOutput>,
) -> Result<RecordBatch, BadOutput> {
    let bytes = columns.iter().map(column_bytes).fold(0, usize::saturating_add);
    if bytes > caps.bytes {
        return Err(too_many_bytes(caps));
    }
    let rows = columns.first().map_or(0, |column| column.length as usize);
    if rows > caps.rows {
        return Err(too_many_rows(caps));
    }
    let fields = columns.iter().map(field_of).collect::<Result<Vec<_>, _>>()?;
    let schema = Schema::new(fields);
    check_output_schema(&schema)?;
    accept(&schema)?;
    let arrays = columns
        .into_iter()
        .zip(schema.fields())
        .map(|(column, field)| read_column(column, field.data_type(), rows))
        .collect::<Result<Vec<_>, _>>()?;
    let rows = RecordBatch::try_new(Arc::new(schema), arrays)
        .map_err(|error| BadOutput::new(format!("answered columns that do not make a batch: {error}")))?;
    check_decimals(&rows)?;
    Ok(rows)
}

/// Bytes that a column holds.
fn column_bytes(column: &Column) -> usize {
    column.data.len()
        + column.validity.as_ref().map_or(0, Vec::len)
        + column.offsets.as_ref().map_or(0, Vec::len)
        + column.name.len()
}

/// The field of a column; whether it may be null is decided by the declared schema.
fn field_of(column: &Column) -> Result<Field, BadOutput> {
    let data_type = type_of(&column.format).ok_or_else(|| {
        BadOutput::new(format!(
            "answered column `{}` in format `{}`, which has no raw form",
            column.name, column.format
        ))
    })?;
    Ok(Field::new(&column.name, data_type, true))
}

/// One column as an array.
fn read_column(column: Column, data_type: &DataType, rows: usize) -> Result<ArrayRef, BadOutput> {
    let Column { name, format: _, length, null_count, validity, offsets, data } = column;
    let wrong = |what: &str| BadOutput::new(format!("answered column `{name}` with {what}"));
    if length as usize != rows {
        return Err(wrong(&format!("{length} rows beside columns of {rows} rows")));
    }
    let least = match data_type {
        DataType::Boolean => Some(rows.div_ceil(8)),
        DataType::Utf8 | DataType::Binary => Some(0),
        other => fixed_width(other).and_then(|width| rows.checked_mul(width)),
    };
    if least.is_none_or(|least| data.len() < least) {
        return Err(wrong(&format!("{} bytes of data, too few for {rows} rows", data.len())));
    }
    let mut builder = ArrayData::builder(data_type.clone()).len(rows);
    match (matches!(data_type, DataType::Utf8 | DataType::Binary), offsets) {
        (true, Some(offsets)) if offsets.len() >= (rows + 1) * 4 && offsets.len() % 4 == 0 => {
            builder = builder.add_buffer(Buffer::from_vec(offsets));
        }
        (true, _) => return Err(wrong("offsets that are missing or not one more than its rows")),
        (false, Some(_)) => return Err(wrong("offsets, which its type does not have")),
        (false, None) => {}
    }
    let nulls = match validity {
        Some(bitmap) if bitmap.len() >= rows.div_ceil(8) => {
            Some(NullBuffer::new(BooleanBuffer::new(Buffer::from_vec(bitmap), 0, rows)))
        }
        Some(_) => return Err(wrong("a validity bitmap that is too short")),
        None => None,
    };
    if nulls.as_ref().map_or(0, NullBuffer::null_count) != null_count as usize {
        return Err(wrong("a null count that is not that of its validity bitmap"));
    }
    let builder = builder.add_buffer(whole_values(data, data_type)).nulls(nulls).align_buffers(true);
    // `build` validates in full: offsets ascending and in range, UTF-8.
    let array = builder.build().map_err(|error| wrong(&format!("buffers that cannot be read: {error}")))?;
    Ok(make_array(array))
}

/// The data without half a value at its end.
fn whole_values(mut data: Vec<u8>, data_type: &DataType) -> Buffer {
    if let Some(width) = fixed_width(data_type) {
        data.truncate(data.len() - data.len() % width);
    }
    Buffer::from_vec(data)
}
