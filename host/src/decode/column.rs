//! Columns under construction: plain vectors that can be cut back to an earlier length, and become Arrow arrays at the
//! end of a batch. Arrow's own builders cannot be cut back, which a refused record needs.
//!
//! What each JSON value becomes, and what is refused, is the table in `decode/mod.rs`.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Decimal128Array, Decimal256Array, FixedSizeBinaryArray, Float32Array,
    Float64Array, ListArray, MapArray, PrimitiveArray, StringArray, StructArray, new_null_array,
    types::{
        ArrowPrimitiveType, Date32Type, Int8Type, Int16Type, Int32Type, Int64Type, Time32MillisecondType,
        Time64MicrosecondType, Time64NanosecondType, TimestampMicrosecondType, TimestampMillisecondType,
        TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    },
};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer, i256};
use arrow_schema::{ArrowError, DataType, Field, FieldRef, TimeUnit};

use super::{object::Fields, shape::plain_field};
use crate::config::{BinaryEncoding, JsonHints, OnNewField};

/// Where a column's type comes from, which decides what it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rules {
    /// The configuration.
    Declared,
    /// The records.
    Inferred {
        /// Whether a text column takes other scalars as their JSON text.
        scalars_as_text: bool,
    },
}

impl Rules {
    /// What to do with a field that an object inside a column lacks: a declared type stays as it is declared.
    fn inside(self, on_new_field: OnNewField) -> OnNewField {
        match (self, on_new_field) {
            (Self::Declared, OnNewField::Add) => OnNewField::Ignore,
            (_, on_new_field) => on_new_field,
        }
    }
}

/// One column.
#[derive(Debug)]
pub(super) struct Column {
    /// Name, type and whether null is allowed.
    pub(super) field: FieldRef,
    /// Whether a record with a value of another type may widen the column.
    pub(super) is_inferred: bool,
    /// One entry a row.
    pub(super) validity: Vec<bool>,
    /// The values.
    pub(super) values: Values,
}

/// The values of a column, one a row (or offsets into a child).
#[derive(Debug)]
pub(super) enum Values {
    /// Booleans.
    Bool(Vec<bool>),
    /// Signed and unsigned integers up to 64 bits, but for `UInt64`; the smallest and largest that fit.
    Int(Vec<i64>, i64, i64),
    /// `UInt64`.
    UInt64(Vec<u64>),
    /// `Float64`.
    Float64(Vec<f64>),
    /// `Float32`.
    Float32(Vec<f32>),
    /// Text: where each value ends, and all of them; whether other scalars are taken as their JSON text.
    Text(Vec<i32>, Vec<u8>, bool),
    /// Bytes, and how they are written in JSON.
    Binary(Vec<i32>, Vec<u8>, BinaryEncoding),
    /// Times in a unit, and the unit of integers in JSON.
    Timestamp(Vec<i64>, TimeUnit, TimeUnit),
    /// Times of day in a unit.
    Time(Vec<i64>, TimeUnit),
    /// Days since 1970.
    Date(Vec<i32>),
    /// Decimals of a precision and scale.
    Decimal(Vec<i128>, u8, i8),
    /// Decimals of more than 38 digits.
    Decimal256(Vec<i256>, u8, i8),
    /// UUIDs, as RFC 9562 orders their bytes.
    Uuid(Vec<[u8; 16]>),
    /// Where each list ends, and the elements.
    List(Vec<i32>, Box<Column>),
    /// The fields.
    Struct(Box<Fields>),
    /// Where each map ends, the keys and the values.
    Map(Vec<i32>, Box<Column>, Box<Column>),
    /// A type that JSON cannot fill, which typed rows brought: nothing but null.
    Foreign,
}

impl Column {
    /// An empty column; an error for a type that JSON cannot fill.
    pub(super) fn new(field: &FieldRef, rules: Rules, on_new_field: OnNewField) -> Result<Self, ArrowError> {
        Self::below(field, rules, on_new_field, JsonHints::default())
    }

    /// The same inside a list or a map whose field has these hints.
    fn below(field: &FieldRef, rules: Rules, on_new_field: OnNewField, hints: JsonHints) -> Result<Self, ArrowError> {
        let hints = JsonHints::of(field).or(hints);
        let child = |field: &FieldRef| Self::below(field, rules, on_new_field, hints).map(Box::new);
        let values = match field.data_type() {
            DataType::Boolean => Values::Bool(Vec::new()),
            DataType::Int8 => Values::Int(Vec::new(), i8::MIN.into(), i8::MAX.into()),
            DataType::Int16 => Values::Int(Vec::new(), i16::MIN.into(), i16::MAX.into()),
            DataType::Int32 => Values::Int(Vec::new(), i32::MIN.into(), i32::MAX.into()),
            DataType::Int64 => Values::Int(Vec::new(), i64::MIN, i64::MAX),
            DataType::UInt8 => Values::Int(Vec::new(), 0, u8::MAX.into()),
            DataType::UInt16 => Values::Int(Vec::new(), 0, u16::MAX.into()),
            DataType::UInt32 => Values::Int(Vec::new(), 0, u32::MAX.into()),
            DataType::UInt64 => Values::UInt64(Vec::new()),
            DataType::Float32 => Values::Float32(Vec::new()),
            DataType::Float64 => Values::Float64(Vec::new()),
            DataType::Utf8 => {
                Values::Text(Vec::new(), Vec::new(), matches!(rules, Rules::Inferred { scalars_as_text: true }))
            }
            DataType::Binary => Values::Binary(Vec::new(), Vec::new(), hints.encoding.unwrap_or_default()),
            DataType::Timestamp(unit, _) => Values::Timestamp(Vec::new(), *unit, hints.epoch.unwrap_or(*unit)),
            DataType::Time32(unit @ TimeUnit::Millisecond)
            | DataType::Time64(unit @ (TimeUnit::Microsecond | TimeUnit::Nanosecond)) => {
                Values::Time(Vec::new(), *unit)
            }
            DataType::Date32 => Values::Date(Vec::new()),
            DataType::Decimal128(precision, scale) => Values::Decimal(Vec::new(), *precision, *scale),
            DataType::Decimal256(precision, scale) if rules == Rules::Declared => {
                Values::Decimal256(Vec::new(), *precision, *scale)
            }
            // No other bytes of one length can be declared.
            DataType::FixedSizeBinary(_) if rules == Rules::Declared => Values::Uuid(Vec::new()),
            DataType::List(element) => Values::List(Vec::new(), child(element)?),
            DataType::Struct(fields) => {
                Values::Struct(Box::new(Fields::new(fields, |_| rules, rules.inside(on_new_field))?))
            }
            DataType::Map(entries, _) => match entries.data_type() {
                DataType::Struct(pair)
                    if pair.len() == 2 && pair.first().is_some_and(|key| *key.data_type() == DataType::Utf8) =>
                {
                    let [key, value] = [pair.first(), pair.last()].map(|field| field.map(child));
                    match (key.transpose()?, value.transpose()?) {
                        (Some(key), Some(value)) => Values::Map(Vec::new(), key, value),
                        _ => return Err(unsupported(field)),
                    }
                }
                _ if rules != Rules::Declared => Values::Foreign,
                _ => return Err(unsupported(field)),
            },
            _ if rules != Rules::Declared => Values::Foreign,
            _ => return Err(unsupported(field)),
        };
        let is_inferred = rules != Rules::Declared;
        let field = Arc::new(plain_field(field));
        Ok(Self { field, is_inferred, validity: Vec::new(), values })
    }

    /// Number of rows.
    pub(super) fn len(&self) -> usize {
        self.validity.len()
    }

    /// Appends null, whether or not the column allows it; the caller has checked.
    pub(super) fn push_null(&mut self) {
        self.validity.push(false);
        match &mut self.values {
            Values::Bool(values) => values.push(false),
            Values::Int(values, ..) | Values::Timestamp(values, ..) | Values::Time(values, _) => values.push(0),
            Values::UInt64(values) => values.push(0),
            Values::Float64(values) => values.push(0.0),
            Values::Float32(values) => values.push(0.0),
            Values::Text(ends, data, _) | Values::Binary(ends, data, _) => ends.push(end_of(data.len())),
            Values::Date(values) => values.push(0),
            Values::Decimal(values, ..) => values.push(0),
            Values::Decimal256(values, ..) => values.push(i256::ZERO),
            Values::Uuid(values) => values.push([0; 16]),
            Values::List(ends, child) | Values::Map(ends, child, _) => ends.push(end_of(child.len())),
            Values::Struct(fields) => fields.push_nulls(),
            Values::Foreign => {}
        }
    }

    /// Cuts back to an earlier length; nothing of later rows stays.
    pub(super) fn truncate(&mut self, len: usize) {
        self.validity.truncate(len);
        match &mut self.values {
            Values::Bool(values) => values.truncate(len),
            Values::Int(values, ..) | Values::Timestamp(values, ..) | Values::Time(values, _) => values.truncate(len),
            Values::UInt64(values) => values.truncate(len),
            Values::Float64(values) => values.truncate(len),
            Values::Float32(values) => values.truncate(len),
            Values::Text(ends, data, _) | Values::Binary(ends, data, _) => {
                ends.truncate(len);
                data.truncate(last_end(ends));
            }
            Values::Date(values) => values.truncate(len),
            Values::Decimal(values, ..) => values.truncate(len),
            Values::Decimal256(values, ..) => values.truncate(len),
            Values::Uuid(values) => values.truncate(len),
            Values::List(ends, child) => {
                ends.truncate(len);
                child.truncate(last_end(ends));
            }
            Values::Map(ends, keys, values) => {
                ends.truncate(len);
                keys.truncate(last_end(ends));
                values.truncate(last_end(ends));
            }
            Values::Struct(fields) => fields.truncate(len),
            Values::Foreign => {}
        }
    }

    /// The rows so far as an array; the column is empty then.
    pub(super) fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let len = self.validity.len();
        let validity = taken(&mut self.validity);
        let nulls = if validity.iter().all(|valid| *valid) {
            None
        } else {
            Some(NullBuffer::new(BooleanBuffer::from(validity)))
        };
        let data_type = self.field.data_type().clone();
        Ok(match &mut self.values {
            Values::Bool(values) => Arc::new(BooleanArray::new(BooleanBuffer::from(taken(values)), nulls)),
            Values::Int(values, ..) => integers(taken(values), nulls, &data_type)?,
            Values::UInt64(values) => Arc::new(PrimitiveArray::<UInt64Type>::try_new(taken(values).into(), nulls)?),
            Values::Float64(values) => Arc::new(Float64Array::try_new(taken(values).into(), nulls)?),
            Values::Float32(values) => Arc::new(Float32Array::try_new(taken(values).into(), nulls)?),
            Values::Text(ends, data, _) => {
                Arc::new(StringArray::try_new(offsets(ends), Buffer::from_vec(taken(data)), nulls)?)
            }
            Values::Binary(ends, data, _) => {
                Arc::new(BinaryArray::try_new(offsets(ends), Buffer::from_vec(taken(data)), nulls)?)
            }
            Values::Timestamp(values, unit, _) => timestamps(taken(values), nulls, *unit, &data_type)?,
            Values::Time(values, unit) => times(taken(values), nulls, *unit)?,
            Values::Date(values) => Arc::new(PrimitiveArray::<Date32Type>::try_new(taken(values).into(), nulls)?),
            Values::Decimal(values, precision, scale) => Arc::new(
                Decimal128Array::try_new(taken(values).into(), nulls)?.with_precision_and_scale(*precision, *scale)?,
            ),
            Values::Decimal256(values, precision, scale) => Arc::new(
                Decimal256Array::try_new(taken(values).into(), nulls)?.with_precision_and_scale(*precision, *scale)?,
            ),
            Values::Uuid(values) => {
                let bytes = Buffer::from_vec(taken(values).into_flattened());
                Arc::new(FixedSizeBinaryArray::try_new(UUID_WIDTH, bytes, nulls)?)
            }
            Values::List(ends, child) => {
                let element = Arc::clone(&child.field);
                Arc::new(ListArray::try_new(element, offsets(ends), child.finish()?, nulls)?)
            }
            Values::Struct(fields) => {
                let (children, arrays) = fields.finish()?;
                Arc::new(StructArray::try_new_with_length(children, arrays, nulls, len)?)
            }
            Values::Map(ends, keys, values) => map(&data_type, ends, keys, values, nulls)?,
            Values::Foreign => new_null_array(&data_type, len),
        })
    }
}

/// Arrow's length of a UUID.
pub(super) const UUID_WIDTH: i32 = 16;

/// What a vector holds; room for as much again is kept, since the next batch is like this one.
fn taken<T>(values: &mut Vec<T>) -> Vec<T> {
    let capacity = values.len();
    std::mem::replace(values, Vec::with_capacity(capacity))
}

/// Where a value ends; the cap on a batch's bytes keeps it below 2 GiB, and `record.rs` checks.
fn end_of(len: usize) -> i32 {
    i32::try_from(len).unwrap_or(i32::MAX)
}

/// Where the last value ends.
fn last_end(ends: &[i32]) -> usize {
    ends.last().and_then(|end| usize::try_from(*end).ok()).unwrap_or(0)
}

/// Arrow's offsets: 0, then where each value ends.
fn offsets(ends: &mut Vec<i32>) -> OffsetBuffer<i32> {
    let mut whole = Vec::with_capacity(ends.len() + 1);
    whole.push(0);
    whole.extend_from_slice(ends);
    ends.clear();
    // Each end is the length of a growing vector, so they ascend from 0, which is all that `new` checks.
    OffsetBuffer::new(ScalarBuffer::from(whole))
}

/// Integers of a narrower type; each value was checked against its range.
fn integers(values: Vec<i64>, nulls: Option<NullBuffer>, data_type: &DataType) -> Result<ArrayRef, ArrowError> {
    fn narrow<T>(values: &[i64], nulls: Option<NullBuffer>) -> Result<ArrayRef, ArrowError>
    where
        T: ArrowPrimitiveType,
        T::Native: TryFrom<i64>,
    {
        let values: Vec<T::Native> =
            values.iter().map(|value| T::Native::try_from(*value).unwrap_or_default()).collect();
        Ok(Arc::new(PrimitiveArray::<T>::try_new(values.into(), nulls)?))
    }
    match data_type {
        DataType::Int8 => narrow::<Int8Type>(&values, nulls),
        DataType::Int16 => narrow::<Int16Type>(&values, nulls),
        DataType::Int32 => narrow::<Int32Type>(&values, nulls),
        DataType::UInt8 => narrow::<UInt8Type>(&values, nulls),
        DataType::UInt16 => narrow::<UInt16Type>(&values, nulls),
        DataType::UInt32 => narrow::<UInt32Type>(&values, nulls),
        _ => Ok(Arc::new(PrimitiveArray::<Int64Type>::try_new(values.into(), nulls)?)),
    }
}

/// Times of a unit and zone.
fn timestamps(
    values: Vec<i64>,
    nulls: Option<NullBuffer>,
    unit: TimeUnit,
    data_type: &DataType,
) -> Result<ArrayRef, ArrowError> {
    let zone = match data_type {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    };
    let values = ScalarBuffer::from(values);
    Ok(match unit {
        TimeUnit::Second => {
            Arc::new(PrimitiveArray::<TimestampSecondType>::try_new(values, nulls)?.with_timezone_opt(zone))
        }
        TimeUnit::Millisecond => {
            Arc::new(PrimitiveArray::<TimestampMillisecondType>::try_new(values, nulls)?.with_timezone_opt(zone))
        }
        TimeUnit::Microsecond => {
            Arc::new(PrimitiveArray::<TimestampMicrosecondType>::try_new(values, nulls)?.with_timezone_opt(zone))
        }
        TimeUnit::Nanosecond => {
            Arc::new(PrimitiveArray::<TimestampNanosecondType>::try_new(values, nulls)?.with_timezone_opt(zone))
        }
    })
}

/// Times of day of a unit; each was checked to lie within a day.
fn times(values: Vec<i64>, nulls: Option<NullBuffer>, unit: TimeUnit) -> Result<ArrayRef, ArrowError> {
    Ok(match unit {
        TimeUnit::Nanosecond => Arc::new(PrimitiveArray::<Time64NanosecondType>::try_new(values.into(), nulls)?),
        TimeUnit::Microsecond => Arc::new(PrimitiveArray::<Time64MicrosecondType>::try_new(values.into(), nulls)?),
        _ => {
            let values: Vec<i32> = values.iter().map(|value| i32::try_from(*value).unwrap_or_default()).collect();
            Arc::new(PrimitiveArray::<Time32MillisecondType>::try_new(values.into(), nulls)?)
        }
    })
}

/// A map of text to values.
fn map(
    data_type: &DataType,
    ends: &mut Vec<i32>,
    keys: &mut Column,
    values: &mut Column,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef, ArrowError> {
    let DataType::Map(entries_field, sorted) = data_type else {
        return Err(ArrowError::InvalidArgumentError("not a map".to_owned()));
    };
    let DataType::Struct(pair) = entries_field.data_type() else {
        return Err(ArrowError::InvalidArgumentError("not a map".to_owned()));
    };
    let entries = StructArray::try_new(pair.clone(), vec![keys.finish()?, values.finish()?], None)?;
    Ok(Arc::new(MapArray::try_new(Arc::clone(entries_field), offsets(ends), entries, nulls, *sorted)?))
}

/// A type that JSON cannot fill.
fn unsupported(field: &Field) -> ArrowError {
    ArrowError::SchemaError(format!("column {:?}: JSON cannot fill the type {}", field.name(), field.data_type()))
}
