//! A typed array into the type of its column, value by value: the same values, or a refusal; nothing is rounded, cut or
//! turned into null.
//!
//! Lists, structs and maps are taken apart here and their scalars cast by `arrow_cast`; what was cast is cast back and
//! compared. Two casts need no way back: into text where that was asked for, and from double to declared single floats, where
//! the nearest is meant, as in JSON.

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, FixedSizeBinaryArray, FixedSizeListArray, Float32Array, ListArray, MapArray, OffsetSizeTrait,
    StructArray, cast::AsArray, make_array, new_null_array, types::Float32Type,
};
use arrow_buffer::{ArrowNativeType as _, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{ArrowError, DataType, Field, FieldRef};
use uuid::Uuid;

use super::{
    column::UUID_WIDTH,
    fault::Fault,
    types::{is_same_kind, is_texty, pair},
};

/// Values of a type that cannot be held are told by the nulls that they become.
const CAST: CastOptions<'static> =
    CastOptions { safe: true, format_options: arrow_cast::display::FormatOptions::new() };

/// What a column may take besides the same value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leeway {
    /// Nothing.
    Exact,
    /// The text of another scalar.
    Text,
    /// The single float that is nearest to a double: the column is declared, so it is meant.
    Nearest,
}

/// The values of an array as those of a field.
pub(super) fn conform(array: &ArrayRef, field: &Field, leeway: Leeway) -> Result<ArrayRef, Fault> {
    column(array, field, None, leeway)
}

/// The same below `parents`: where one is null, whatever is here is not there.
fn column(array: &ArrayRef, field: &Field, parents: Option<&NullBuffer>, leeway: Leeway) -> Result<ArrayRef, Fault> {
    let data_type = field.data_type();
    let array =
        if array.data_type() == data_type { Arc::clone(array) } else { convert(array, data_type, parents, leeway)? };
    if !field.is_nullable() {
        let nulls = array.logical_nulls().map_or(0, |nulls| match parents {
            None => nulls.null_count(),
            Some(parents) => (0..nulls.len()).filter(|row| parents.is_valid(*row) && nulls.is_null(*row)).count(),
        });
        if nulls > 0 {
            let message = "null in a column that is not nullable".to_owned();
            return Err(Fault { code: "null-not-allowed", message });
        }
    }
    Ok(array)
}

/// Dictionaries and run-ends as the values that they stand for; `None` for all else.
fn unpack(array: &ArrayRef) -> Result<Option<ArrayRef>, Fault> {
    let values = match array.data_type() {
        DataType::Dictionary(_, values) => values.as_ref(),
        DataType::RunEndEncoded(_, values) => values.data_type(),
        _ => return Ok(None),
    };
    cast_with_options(array, values, &CAST).map(Some).map_err(|error| failed(&error))
}

/// An array of another type than its column.
fn convert(
    array: &ArrayRef,
    wanted: &DataType,
    parents: Option<&NullBuffer>,
    leeway: Leeway,
) -> Result<ArrayRef, Fault> {
    let unpacked = unpack(array)?;
    let array = unpacked.as_ref().unwrap_or(array);
    match (array.data_type(), wanted) {
        (given, wanted) if given == wanted => Ok(Arc::clone(array)),
        (DataType::Null, wanted) => Ok(new_null_array(wanted, array.len())),
        (DataType::List(_), DataType::List(item)) => list(array.as_list::<i32>(), item, leeway),
        (DataType::LargeList(_), DataType::List(item)) => list(array.as_list::<i64>(), item, leeway),
        (DataType::FixedSizeList(..), DataType::List(item)) => fixed_list(array.as_fixed_size_list(), item, leeway),
        (DataType::ListView(item) | DataType::LargeListView(item), DataType::List(_)) => {
            let plain = cast_with_options(array, &DataType::List(Arc::clone(item)), &CAST);
            convert(&plain.map_err(|error| failed(&error))?, wanted, parents, leeway)
        }
        (DataType::Struct(_), DataType::Struct(fields)) => structure(array.as_struct(), fields, leeway),
        (DataType::Map(..), DataType::Map(entries, _)) => map(array.as_map(), entries, leeway),
        (given, wanted) if is_same_kind(given, wanted) => exact(&visible(array, parents)?, wanted, leeway),
        (given, DataType::Utf8) if leeway == Leeway::Text && is_texty(given) => {
            // Arrow knows how to write times of zones that are numbers.
            let array = match given {
                DataType::Timestamp(unit, Some(_)) => {
                    with_type(array, &DataType::Timestamp(*unit, Some("+00:00".into())))?
                }
                _ => Arc::clone(array),
            };
            cast_with_options(&array, wanted, &CAST).map_err(|error| failed(&error))
        }
        (DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View, DataType::FixedSizeBinary(UUID_WIDTH))
            if leeway == Leeway::Nearest =>
        {
            uuids(&visible(array, parents)?)
        }
        (given, wanted) => Err(Fault { code: "wrong-type", message: format!("expected {wanted}, found {given}") }),
    }
}

/// Texts as the UUIDs that they are; nothing else of this length can be declared.
fn uuids(array: &ArrayRef) -> Result<ArrayRef, Fault> {
    let texts = cast_with_options(array, &DataType::Utf8, &CAST).map_err(|error| failed(&error))?;
    let uuid = |text: Option<&str>| match text.map(Uuid::try_parse) {
        None => Ok(None),
        Some(Ok(uuid)) => Ok(Some(uuid.into_bytes())),
        Some(Err(error)) => Err(Fault { code: "wrong-type", message: format!("expected a UUID: {error}") }),
    };
    let uuids = texts.as_string::<i32>().iter().map(uuid).collect::<Result<Vec<_>, _>>()?;
    let uuids = FixedSizeBinaryArray::try_from_sparse_iter_with_size(uuids.into_iter(), UUID_WIDTH);
    uuids.map(|uuids| Arc::new(uuids) as ArrayRef).map_err(|error| failed(&error))
}

/// The array with what lies below null parents as null: it may be anything.
fn visible(array: &ArrayRef, parents: Option<&NullBuffer>) -> Result<ArrayRef, Fault> {
    let Some(parents) = parents.filter(|parents| parents.null_count() > 0) else { return Ok(Arc::clone(array)) };
    let nulls = NullBuffer::union(Some(parents), array.nulls());
    let data = array.to_data().into_builder().nulls(nulls).build();
    data.map(make_array).map_err(|error| failed(&error))
}

/// Scalars of the same kind: there and back again.
fn exact(array: &ArrayRef, wanted: &DataType, leeway: Leeway) -> Result<ArrayRef, Fault> {
    let given = array.data_type();
    // Zones are names for the same instants; without one a time counts as UTC.
    let plain = without_zone(array)?;
    let there = match wanted {
        DataType::Timestamp(unit, _) => DataType::Timestamp(*unit, None),
        other => other.clone(),
    };
    let unfit = |code: &'static str| {
        let words = if code == "precision-loss" { "cannot be held exactly as" } else { "does not fit" };
        Fault { code, message: format!("a value of {given} {words} {wanted}") }
    };
    let cast = cast_with_options(&plain, &there, &CAST).map_err(|error| failed(&error))?;
    if cast.null_count() > array.null_count() {
        return Err(unfit("number-out-of-range"));
    }
    if leeway == Leeway::Nearest && matches!((given, wanted), (DataType::Float64, DataType::Float32)) {
        if has_new_infinities(&plain, cast.as_primitive::<Float32Type>()) {
            return Err(unfit("number-out-of-range"));
        }
    } else {
        let back = cast_with_options(&cast, plain.data_type(), &CAST).map_err(|error| failed(&error))?;
        if back.as_ref() != plain.as_ref() {
            return Err(unfit("precision-loss"));
        }
    }
    with_type(&cast, wanted)
}

/// Whether a finite number became infinite.
fn has_new_infinities(from: &ArrayRef, to: &Float32Array) -> bool {
    let from = from.as_primitive::<arrow_array::types::Float64Type>();
    from.iter().zip(to).any(|pair| matches!(pair, (Some(from), Some(to)) if from.is_finite() && to.is_infinite()))
}

/// A time without its zone.
fn without_zone(array: &ArrayRef) -> Result<ArrayRef, Fault> {
    match array.data_type() {
        DataType::Timestamp(unit, Some(_)) => with_type(array, &DataType::Timestamp(*unit, None)),
        _ => Ok(Arc::clone(array)),
    }
}

/// The same bytes under another name.
fn with_type(array: &ArrayRef, data_type: &DataType) -> Result<ArrayRef, Fault> {
    if array.data_type() == data_type {
        return Ok(Arc::clone(array));
    }
    let data = array.to_data().into_builder().data_type(data_type.clone()).build();
    data.map(make_array).map_err(|error| failed(&error))
}

/// A list of either width.
fn list<O: OffsetSizeTrait>(
    given: &arrow_array::GenericListArray<O>,
    item: &FieldRef,
    leeway: Leeway,
) -> Result<ArrayRef, Fault> {
    let (Some(first), Some(last)) = (given.value_offsets().first(), given.value_offsets().last()) else {
        return Ok(Arc::new(ListArray::new_null(Arc::clone(item), given.len())));
    };
    let (first, last) = (first.as_usize(), last.as_usize());
    let values =
        column(&given.values().slice(first, last - first), item, None, leeway).map_err(|fault| fault.at("[]"))?;
    let ends = given.value_offsets().iter().map(|end| i32::try_from(end.as_usize() - first));
    let ends = ends.collect::<Result<Vec<_>, _>>().map_err(|_| too_long())?;
    let offsets = OffsetBuffer::new(ScalarBuffer::from(ends));
    let list = ListArray::try_new(Arc::clone(item), offsets, values, given.nulls().cloned());
    list.map(|list| Arc::new(list) as ArrayRef).map_err(|error| failed(&error))
}

/// A list of lists of one length.
fn fixed_list(given: &FixedSizeListArray, item: &FieldRef, leeway: Leeway) -> Result<ArrayRef, Fault> {
    let values = column(given.values(), item, None, leeway).map_err(|fault| fault.at("[]"))?;
    let ends = (0..=i32::try_from(given.len()).map_err(|_| too_long())?)
        .map(|row| row.checked_mul(given.value_length()))
        .collect::<Option<Vec<_>>>()
        .ok_or_else(too_long)?;
    let offsets = OffsetBuffer::new(ScalarBuffer::from(ends));
    let list = ListArray::try_new(Arc::clone(item), offsets, values, given.nulls().cloned());
    list.map(|list| Arc::new(list) as ArrayRef).map_err(|error| failed(&error))
}

/// A struct, field by field in the order of the column; fields that the column lacks are left out, those that the struct
/// lacks are null.
fn structure(given: &StructArray, fields: &arrow_schema::Fields, leeway: Leeway) -> Result<ArrayRef, Fault> {
    let nulls = given.nulls();
    let children = fields.iter().map(|field| {
        let child = match given.column_by_name(field.name()) {
            Some(child) => Arc::clone(child),
            None => new_null_array(field.data_type(), given.len()),
        };
        column(&child, field, nulls, leeway).map_err(|fault| fault.at(field.name()))
    });
    let children = children.collect::<Result<Vec<_>, _>>()?;
    let structure = StructArray::try_new_with_length(fields.clone(), children, nulls.cloned(), given.len());
    structure.map(|structure| Arc::new(structure) as ArrayRef).map_err(|error| failed(&error))
}

/// A map.
fn map(given: &MapArray, entries: &FieldRef, leeway: Leeway) -> Result<ArrayRef, Fault> {
    let Some((key, value)) = pair(entries) else {
        return Err(failed(&ArrowError::SchemaError("not a map".to_owned())));
    };
    let offsets = given.value_offsets();
    let (first, last) = (offsets.first().copied().unwrap_or(0), offsets.last().copied().unwrap_or(0));
    let (from, count) = (first.as_usize(), (last - first).as_usize());
    let keys = column(&given.keys().slice(from, count), key, None, leeway).map_err(|fault| fault.at("key"))?;
    let values = column(&given.values().slice(from, count), value, None, leeway).map_err(|fault| fault.at("value"))?;
    let ends: Vec<i32> = offsets.iter().map(|end| end - first).collect();
    let DataType::Struct(fields) = entries.data_type() else {
        return Err(failed(&ArrowError::SchemaError("not a map".to_owned())));
    };
    let pairs = StructArray::try_new(fields.clone(), vec![keys, values], None).map_err(|error| failed(&error))?;
    let offsets = OffsetBuffer::new(ScalarBuffer::from(ends));
    let map = MapArray::try_new(Arc::clone(entries), offsets, pairs, given.nulls().cloned(), false);
    map.map(|map| Arc::new(map) as ArrayRef).map_err(|error| failed(&error))
}

/// What Arrow says of values that our own checks let through.
fn failed(error: &ArrowError) -> Fault {
    Fault { code: "wrong-type", message: format!("the values cannot be converted: {error}") }
}

/// More than offsets of 31 bits can count.
fn too_long() -> Fault {
    Fault { code: "batch-too-large", message: "more than 2,147,483,647 elements in one column".to_owned() }
}

#[cfg(test)]
mod tests {
    use arrow_array::{
        Date64Array, Decimal128Array, DictionaryArray, Float64Array, Int64Array, LargeListArray, LargeStringArray,
        StringArray, TimestampNanosecondArray, UInt64Array,
        types::{Int8Type, Int64Type},
    };
    use arrow_schema::TimeUnit;

    use super::*;

    /// An array in another type, nullable; the code of the fault otherwise.
    fn to(array: impl Array + 'static, data_type: DataType) -> Result<ArrayRef, &'static str> {
        conform(&(Arc::new(array) as ArrayRef), &Field::new("x", data_type, true), Leeway::Nearest)
            .map_err(|fault| fault.code)
    }

    #[test]
    fn what_is_the_same_in_another_type_passes_and_the_rest_is_refused() {
        use DataType::{Date32, Decimal128, Float32, Float64, Int8, Int32, Int64, Timestamp, Utf8};
        let integers = |values: &[i64]| Int64Array::from(values.to_vec());
        assert_eq!(to(integers(&[1, -128]), Int8).unwrap().as_primitive::<Int8Type>().values(), &[1, -128]);
        assert_eq!(to(integers(&[128]), Int8).unwrap_err(), "number-out-of-range");
        assert_eq!(to(UInt64Array::from(vec![u64::MAX]), Int64).unwrap_err(), "number-out-of-range");
        assert!(to(integers(&[1 << 53]), Float64).is_ok());
        assert_eq!(to(integers(&[(1 << 53) + 1]), Float64).unwrap_err(), "precision-loss");
        assert_eq!(to(integers(&[i64::MAX]), Float64).unwrap_err(), "precision-loss");
        assert_eq!(to(Float64Array::from(vec![1.5]), Int32).unwrap_err(), "precision-loss");
        assert!(to(Float64Array::from(vec![0.1, f64::NAN, f64::INFINITY]), Float32).is_ok());
        assert_eq!(to(Float64Array::from(vec![1e300]), Float32).unwrap_err(), "number-out-of-range");
        let single = |value: f64| {
            let array: ArrayRef = Arc::new(Float64Array::from(vec![value]));
            conform(&array, &Field::new("x", Float32, true), Leeway::Exact).map_err(|fault| fault.code)
        };
        assert!(single(0.5).is_ok(), "an inferred column takes what is exact");
        assert_eq!(single(0.1).unwrap_err(), "precision-loss");
        assert_eq!(to(Float64Array::from(vec![0.1]), Decimal128(5, 1)).unwrap_err(), "wrong-type");
        let decimals = Decimal128Array::from(vec![1234]).with_precision_and_scale(10, 2).unwrap();
        assert_eq!(to(decimals.clone(), Decimal128(10, 1)).unwrap_err(), "precision-loss");
        assert!(to(decimals, Decimal128(10, 4)).is_ok());
        let uuid = DataType::FixedSizeBinary(16);
        let text = |text: &'static str| arrow_array::StringArray::from(vec![text]);
        assert!(to(text("0189fedcba9870008000000000000001"), uuid.clone()).is_ok());
        assert_eq!(to(text("0189fedcba987000800000000000000"), uuid.clone()).unwrap_err(), "wrong-type");
        let array: ArrayRef = Arc::new(text("0189fedcba9870008000000000000001"));
        let inferred = conform(&array, &Field::new("x", uuid, true), Leeway::Exact);
        assert!(inferred.is_err(), "other bytes of this length are none");
        let nanos = |value| TimestampNanosecondArray::from(vec![value]).with_timezone("Europe/Berlin");
        let micros = Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        assert_eq!(to(nanos(1_000), micros.clone()).unwrap().data_type(), &micros);
        assert_eq!(to(nanos(1_001), micros.clone()).unwrap_err(), "precision-loss");
        assert!(to(TimestampNanosecondArray::from(vec![1_000]), micros).is_ok(), "no zone counts as UTC");
        assert!(to(Date64Array::from(vec![86_400_000]), Date32).is_ok());
        assert_eq!(to(Date64Array::from(vec![86_400_001]), Date32).unwrap_err(), "precision-loss");
        assert_eq!(to(integers(&[1]), Utf8).unwrap_err(), "wrong-type");
        assert_eq!(to(StringArray::from(vec!["1"]), Int64).unwrap_err(), "wrong-type");
        let words: DictionaryArray<Int8Type> = [Some("a"), None, Some("a")].into_iter().collect();
        assert_eq!(to(words, Utf8).unwrap().as_string::<i32>(), &StringArray::from(vec![Some("a"), None, Some("a")]));
    }

    #[test]
    fn scalars_become_their_text_where_asked() {
        let text = |array: ArrayRef| {
            let found = conform(&array, &Field::new("x", DataType::Utf8, true), Leeway::Text).unwrap();
            found.as_string::<i32>().value(0).to_owned()
        };
        let time = TimestampNanosecondArray::from(vec![1_500_000_000]).with_timezone("Europe/Berlin");
        assert_eq!(text(Arc::new(time)), "1970-01-01T00:00:01.500Z");
        assert_eq!(text(Arc::new(TimestampNanosecondArray::from(vec![0]))), "1970-01-01T00:00:00");
        assert_eq!(text(Arc::new(Float64Array::from(vec![1.5]))), "1.5");
        assert_eq!(text(Arc::new(arrow_array::BooleanArray::from(vec![true]))), "true");
    }

    #[test]
    fn nested_values_keep_their_places_also_in_slices() {
        let lists = LargeListArray::from_iter_primitive::<Int64Type, _, _>([
            Some(vec![Some(9), Some(9)]),
            Some(vec![Some(1), None]),
            None,
            Some(vec![Some(3)]),
        ]);
        let item = Arc::new(Field::new("item", DataType::Int8, true));
        let found = to(lists.slice(1, 3), DataType::List(Arc::clone(&item))).unwrap();
        let expected =
            ListArray::from_iter_primitive::<Int8Type, _, _>([Some(vec![Some(1), None]), None, Some(vec![Some(3)])]);
        assert_eq!(found.as_list::<i32>(), &expected);
        let given = StructArray::from(vec![(
            Arc::new(Field::new("b", DataType::LargeUtf8, true)),
            Arc::new(LargeStringArray::from(vec!["x", "y"])) as ArrayRef,
        )]);
        let wanted = vec![Field::new("a", DataType::Int8, true), Field::new("b", DataType::Utf8, false)];
        let found = to(given, DataType::Struct(wanted.into())).unwrap();
        assert_eq!(found.as_struct().column(0).null_count(), 2);
        assert_eq!(found.as_struct().column(1).as_string::<i32>(), &StringArray::from(vec!["x", "y"]));
    }

    #[test]
    fn null_is_refused_where_it_may_not_be_but_not_below_a_null_parent() {
        let inner = Arc::new(Field::new("a", DataType::Int64, true));
        let values = Arc::new(Int64Array::from(vec![Some(1), None, Some(i64::MAX)])) as ArrayRef;
        let given = |valid: Vec<bool>| {
            let nulls = Some(NullBuffer::from(valid));
            StructArray::try_new(vec![Arc::clone(&inner)].into(), vec![Arc::clone(&values)], nulls).unwrap()
        };
        let wanted = || DataType::Struct(vec![Field::new("a", DataType::Int8, false)].into());
        assert!(to(given(vec![true, false, false]), wanted()).is_ok());
        assert_eq!(to(given(vec![true, true, false]), wanted()).unwrap_err(), "null-not-allowed");
        assert_eq!(to(given(vec![true, false, true]), wanted()).unwrap_err(), "number-out-of-range");
    }
}
