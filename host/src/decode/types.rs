//! Arrow types: what becomes of those that Parquet lays out in one way only, and which type holds two.
//!
//! [`stored`] is about layout: large, view and dictionary forms, sizes of lists, seconds, zones. [`wider`] is the typed
//! brother of `merge.rs`: the same rules, over the types that JSON does not have, too.

use std::sync::Arc;

use arrow_schema::{DataType, Field, FieldRef, Fields, TimeUnit};

use super::fault::{Fault, excerpt};
use crate::config::{OnNewField, OnTypeChange};

/// The zone of all times with a zone: Parquet holds the instant alone.
pub(super) const UTC: &str = "UTC";

/// Digits of the largest decimals of 128 bits.
const DIGITS_128: u8 = 38;

/// Digits of the largest decimals at all.
const DIGITS_MAX: u8 = 76;

/// What goes together.
#[derive(Clone, Copy, Debug)]
pub(super) struct TypePolicy {
    /// What becomes of values of another type.
    pub(super) on_type_change: OnTypeChange,
    /// What becomes of new fields.
    pub(super) on_new_field: OnNewField,
}

/// The type that values of a type have in a column; `None` where Parquet has no way to hold them that others read.
pub(super) fn stored(data_type: &DataType) -> Option<DataType> {
    Some(match data_type {
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        DataType::Float16 => DataType::Float32,
        DataType::Date64 => DataType::Date32,
        DataType::Time32(_) => DataType::Time32(TimeUnit::Millisecond),
        DataType::Timestamp(unit, zone) => {
            let unit = if *unit == TimeUnit::Second { TimeUnit::Millisecond } else { *unit };
            DataType::Timestamp(unit, zone.as_ref().map(|_| UTC.into()))
        }
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => {
            DataType::Decimal128(*precision, *scale)
        }
        DataType::Dictionary(_, values) => stored(values)?,
        DataType::RunEndEncoded(_, values) => stored(values.data_type())?,
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _) => list_of(stored(item.data_type())?),
        DataType::Struct(children) => DataType::Struct(stored_fields(children)?),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(pair) => {
                let [key, value] = pair.as_ref() else { return None };
                map_of(stored(key.data_type())?, stored(value.data_type())?)
            }
            _ => return None,
        },
        DataType::Duration(_) | DataType::Interval(_) | DataType::Union(..) => return None,
        flat => flat.clone(),
    })
}

/// Fields in the types in which they are stored, all nullable and without metadata; `None` as for [`stored`].
pub(super) fn stored_fields(fields: &Fields) -> Option<Fields> {
    let field = |field: &FieldRef| Some(Field::new(field.name(), stored(field.data_type())?, true));
    fields.iter().map(field).collect()
}

/// The part of a type that says something: null does not, nor do lists and structs of nothing else.
pub(super) fn substance(data_type: &DataType) -> Option<DataType> {
    Some(match data_type {
        DataType::Null => return None,
        DataType::List(item) => list_of(substance(item.data_type())?),
        DataType::Struct(children) => {
            let field = |field: &FieldRef| Some(Field::new(field.name(), substance(field.data_type())?, true));
            let children: Fields = children.iter().filter_map(field).collect();
            DataType::Struct(Some(children).filter(|children| !children.is_empty())?)
        }
        DataType::Map(entries, _) => {
            let (key, value) = pair(entries)?;
            map_of(key.data_type().clone(), substance(value.data_type())?)
        }
        other => other.clone(),
    })
}

/// A list, as inferred ones are.
pub(super) fn list_of(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", item, true)))
}

/// A map, as declared ones are.
pub(super) fn map_of(key: DataType, value: DataType) -> DataType {
    let pair = vec![Field::new("key", key, false), Field::new("value", value, true)];
    DataType::Map(Arc::new(Field::new("key_value", DataType::Struct(pair.into()), false)), false)
}

/// The type that holds both; the first is the column's.
pub(super) fn wider(known: &DataType, other: &DataType, policy: TypePolicy) -> Result<DataType, Fault> {
    use DataType::{
        Decimal128, Decimal256, Float32, Float64, List, Map, Null, Struct, Time32, Time64, Timestamp, Utf8,
    };
    let (is_fixed, as_text) =
        (policy.on_type_change == OnTypeChange::Reject, policy.on_type_change == OnTypeChange::String);
    Ok(match (known, other) {
        (known, other) if known == other => known.clone(),
        (known, Null) => known.clone(),
        (Null, other) => other.clone(),
        (Struct(known), Struct(other)) => Struct(wider_fields(known, other, policy)?),
        (List(known), List(other)) => list_of(wider(known.data_type(), other.data_type(), policy)?),
        (Map(known, _), Map(other, _)) => match (pair(known), pair(other)) {
            (Some((key, known)), Some((other_key, other))) if key.data_type() == other_key.data_type() => {
                map_of(key.data_type().clone(), wider(known.data_type(), other.data_type(), policy)?)
            }
            _ => return Err(mixed(known.data_type(), other.data_type())),
        },
        // Whether the column holds them is a matter of each value.
        (known, other) if is_fixed && is_same_kind(known, other) => known.clone(),
        (known, other) if known.is_integer() && other.is_integer() => wider_integer(known, other),
        (known, Float32 | Float64) if known.is_integer() => Float64,
        (known @ (Float32 | Float64), other) if other.is_integer() => {
            if *known == Float32 {
                Float64
            } else {
                known.clone()
            }
        }
        (Float32 | Float64, Float32 | Float64) => Float64,
        (
            Decimal128(precision, scale) | Decimal256(precision, scale),
            Decimal128(other_precision, other_scale) | Decimal256(other_precision, other_scale),
        ) => wider_decimal((*precision, *scale), (*other_precision, *other_scale)).unwrap_or_else(|| known.clone()),
        (Timestamp(unit, zone), Timestamp(other_unit, other_zone)) if zone.is_some() == other_zone.is_some() => {
            Timestamp(finer(*unit, *other_unit), zone.clone())
        }
        (Time32(unit) | Time64(unit), Time32(other) | Time64(other)) => match finer(*unit, *other) {
            TimeUnit::Second | TimeUnit::Millisecond => Time32(TimeUnit::Millisecond),
            unit => Time64(unit),
        },
        (known, other) if as_text && is_texty(known) && is_texty(other) => Utf8,
        (known, other) => return Err(mixed(known, other)),
    })
}

/// The fields of both.
fn wider_fields(known: &Fields, other: &Fields, policy: TypePolicy) -> Result<Fields, Fault> {
    let mut fields: Vec<FieldRef> = known.iter().cloned().collect();
    for field in other.iter().filter(|field| *field.data_type() != DataType::Null) {
        let name = field.name();
        match fields.iter_mut().find(|known| known.name() == name) {
            Some(known) => {
                let data_type = wider(known.data_type(), field.data_type(), policy).map_err(|fault| fault.at(name))?;
                *known = Arc::new(Field::new(name, data_type, true));
            }
            None => match policy.on_new_field {
                OnNewField::Add => fields.push(Arc::clone(field)),
                OnNewField::Ignore => {}
                OnNewField::Reject => {
                    let message = format!("the schema has no field {:?}", excerpt(name));
                    return Err(Fault { code: "unknown-field", message });
                }
            },
        }
    }
    Ok(fields.into())
}

/// Key and value of a map's entries.
pub(super) fn pair(entries: &Field) -> Option<(&FieldRef, &FieldRef)> {
    match entries.data_type() {
        DataType::Struct(pair) => pair.first().zip(pair.get(1)),
        _ => None,
    }
}

/// The finer of two units.
fn finer(one: TimeUnit, other: TimeUnit) -> TimeUnit {
    let rank = |unit| match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 1,
        TimeUnit::Microsecond => 2,
        TimeUnit::Nanosecond => 3,
    };
    if rank(one) >= rank(other) { one } else { other }
}

/// Bits of an integer, and whether it has a sign.
fn integer(data_type: &DataType) -> (u8, bool) {
    match data_type {
        DataType::Int8 => (8, true),
        DataType::Int16 => (16, true),
        DataType::Int32 => (32, true),
        DataType::UInt8 => (8, false),
        DataType::UInt16 => (16, false),
        DataType::UInt32 => (32, false),
        DataType::UInt64 => (64, false),
        _ => (64, true),
    }
}

/// The integer that holds both; where none does the column stays, and each value has to fit it.
fn wider_integer(known: &DataType, other: &DataType) -> DataType {
    let ((bits, is_signed), (other_bits, other_is_signed)) = (integer(known), integer(other));
    if is_signed == other_is_signed {
        return if bits >= other_bits { known.clone() } else { other.clone() };
    }
    let unsigned_bits = if is_signed { other_bits } else { bits };
    let signed_bits = if is_signed { bits } else { other_bits };
    match signed_bits.max(unsigned_bits.saturating_mul(2)) {
        16 => DataType::Int16,
        32 => DataType::Int32,
        64 => DataType::Int64,
        _ => known.clone(),
    }
}

/// The decimal that holds both; `None` where none does.
fn wider_decimal(known: (u8, i8), other: (u8, i8)) -> Option<DataType> {
    let scale = known.1.max(other.1);
    let whole = |(precision, scale): (u8, i8)| i16::from(precision) - i16::from(scale);
    let precision = u8::try_from(whole(known).max(whole(other)) + i16::from(scale)).ok()?;
    match precision {
        1..=DIGITS_128 => Some(DataType::Decimal128(precision, scale)),
        _ if precision <= DIGITS_MAX => Some(DataType::Decimal256(precision, scale)),
        _ => None,
    }
}

/// Whether values of one type may be values of the other.
pub(super) fn is_same_kind(one: &DataType, other: &DataType) -> bool {
    let is_mixed = |one: &DataType, other: &DataType| one.is_floating() && other.is_decimal();
    let is_time_of_day = |data_type: &DataType| matches!(data_type, DataType::Time32(_) | DataType::Time64(_));
    let is_text = |data_type: &DataType| matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    let is_bytes = |data_type: &DataType| {
        matches!(
            data_type,
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_)
        )
    };
    let is_date = |data_type: &DataType| matches!(data_type, DataType::Date32 | DataType::Date64);
    let is_instant = |data_type: &DataType| matches!(data_type, DataType::Timestamp(..));
    // A float and a decimal of the same text are not the same number.
    (one.is_numeric() && other.is_numeric() && !is_mixed(one, other) && !is_mixed(other, one))
        || (is_time_of_day(one) && is_time_of_day(other))
        || (is_text(one) && is_text(other))
        || (is_bytes(one) && is_bytes(other))
        || (is_date(one) && is_date(other))
        || (is_instant(one) && is_instant(other))
}

/// Whether a scalar has a text that says all it says.
pub(super) fn is_texty(data_type: &DataType) -> bool {
    !data_type.is_nested()
        && !matches!(
            data_type,
            DataType::Null
                | DataType::Binary
                | DataType::LargeBinary
                | DataType::BinaryView
                | DataType::FixedSizeBinary(_)
                | DataType::Dictionary(..)
                | DataType::RunEndEncoded(..)
        )
}

/// Values that no column holds together.
fn mixed(known: &DataType, other: &DataType) -> Fault {
    Fault { code: "wrong-type", message: format!("expected {known}, found {other}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What holds both, or the code of the fault.
    fn both(known: &DataType, other: &DataType, on_type_change: OnTypeChange) -> Result<DataType, &'static str> {
        wider(known, other, TypePolicy { on_type_change, on_new_field: OnNewField::Add }).map_err(|fault| fault.code)
    }

    #[test]
    fn the_smallest_type_that_holds_both() {
        use DataType::{
            Date32, Decimal128, Decimal256, Float32, Float64, Int8, Int16, Int32, Int64, Time32, Time64, Timestamp,
            UInt8, UInt32, UInt64, Utf8,
        };
        let widened = |known: DataType, other: DataType| both(&known, &other, OnTypeChange::Widen);
        assert_eq!(widened(Int32, Int64), Ok(Int64));
        assert_eq!(widened(Int64, Int32), Ok(Int64));
        assert_eq!(widened(UInt8, Int8), Ok(Int16));
        assert_eq!(widened(Int16, UInt32), Ok(Int64));
        assert_eq!(widened(Int64, UInt64), Ok(Int64), "each value has to fit");
        assert_eq!(widened(Int32, Float32), Ok(Float64));
        assert_eq!(widened(Float32, Int8), Ok(Float64));
        assert_eq!(widened(Float32, Float64), Ok(Float64));
        assert_eq!(widened(Decimal128(10, 2), Decimal128(8, 4)), Ok(Decimal128(12, 4)));
        assert_eq!(widened(Decimal128(38, 0), Decimal128(38, 10)), Ok(Decimal256(48, 10)));
        let milli = |zone: Option<&str>| Timestamp(TimeUnit::Millisecond, zone.map(Into::into));
        let nano = Timestamp(TimeUnit::Nanosecond, None);
        assert_eq!(widened(milli(None), nano.clone()), Ok(nano));
        assert_eq!(widened(milli(None), milli(Some(UTC))), Err("wrong-type"));
        assert_eq!(
            widened(Time32(TimeUnit::Millisecond), Time64(TimeUnit::Nanosecond)),
            Ok(Time64(TimeUnit::Nanosecond))
        );
        assert_eq!(widened(Int64, Utf8), Err("wrong-type"));
        assert_eq!(widened(DataType::Null, Date32), Ok(Date32));
        assert_eq!(both(&Int64, &Utf8, OnTypeChange::String), Ok(Utf8));
        assert_eq!(both(&Int64, &DataType::Binary, OnTypeChange::String), Err("wrong-type"));
        assert_eq!(both(&Int32, &Int64, OnTypeChange::Reject), Ok(Int32), "each value has to fit");
        assert_eq!(both(&Int32, &Utf8, OnTypeChange::Reject), Err("wrong-type"));
    }

    #[test]
    fn what_is_inside_widens_too() {
        let object = |fields: Vec<Field>| list_of(DataType::Struct(fields.into()));
        let known = object(vec![Field::new("a", DataType::Int8, true), Field::new("b", DataType::Utf8, true)]);
        let other = object(vec![Field::new("c", DataType::Date32, true), Field::new("a", DataType::Int16, true)]);
        let all = object(vec![
            Field::new("a", DataType::Int16, true),
            Field::new("b", DataType::Utf8, true),
            Field::new("c", DataType::Date32, true),
        ]);
        assert_eq!(both(&known, &other, OnTypeChange::Widen), Ok(all));
        let other = object(vec![Field::new("a", DataType::Utf8, true)]);
        let policy = TypePolicy { on_type_change: OnTypeChange::Widen, on_new_field: OnNewField::Add };
        assert_eq!(wider(&known, &other, policy).unwrap_err().message, "a: expected Int8, found Utf8");
    }

    #[test]
    fn one_layout_for_each_kind_of_value() {
        let words = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::LargeUtf8));
        let given = DataType::LargeList(Arc::new(Field::new("element", words, false)));
        assert_eq!(stored(&given), Some(list_of(DataType::Utf8)));
        let berlin = DataType::Timestamp(TimeUnit::Second, Some("Europe/Berlin".into()));
        assert_eq!(stored(&berlin), Some(DataType::Timestamp(TimeUnit::Millisecond, Some(UTC.into()))));
        assert_eq!(stored(&DataType::Duration(TimeUnit::Second)), None);
    }
}
