//! One JSON value into a row of a column.
//!
//! Values go from the parser straight into the column. Where the parser's own reading would lose something (the sign of
//! zero and the rounding of floats, digits of decimals, the spelling of a scalar that becomes text), the value's text
//! is taken instead.

use std::{borrow::Cow, collections::HashSet, fmt};

use arrow_schema::TimeUnit;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::de::{Deserialize as _, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use uuid::Uuid;

use super::{
    column::{Column, Values},
    decimal::parse_decimal,
    fault::{Cause, Step, is_integer},
    object::ObjectSeed,
    record::Reading,
    timestamp::{Moment, parse_date, parse_time, parse_timestamp},
};
use crate::config::BinaryEncoding;

/// Most bytes of text or binary, and most elements of lists, in one column of a batch: Arrow's offsets have 31 bits.
const OFFSET_MAX: usize = i32::MAX as usize;

/// Integers of so few digits are exact in a `Float64`.
const EXACT_DIGITS: usize = 15;

/// Up to so many entries of a map each is compared with each; above, a set is made.
const ENTRIES_COMPARED_MAX: usize = 16;

/// Reads one value into a row of a column.
pub(super) struct ValueSeed<'a> {
    /// Where it goes.
    pub(super) column: &'a mut Column,
    /// What happens beside.
    pub(super) reading: &'a mut Reading,
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.column.values {
            Values::Int(..) | Values::UInt64(_) if !self.reading.integers_from_text => {
                deserializer.deserialize_any(self)
            }
            Values::Float64(_)
            | Values::Float32(_)
            | Values::Decimal(..)
            | Values::Decimal256(..)
            | Values::Text(.., true)
            | Values::Int(..)
            | Values::UInt64(_) => {
                let raw: sonic_rs::LazyValue<'de> = sonic_rs::LazyValue::deserialize(deserializer)?;
                self.push_raw(raw.as_raw_str())
            }
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl ValueSeed<'_> {
    /// A value from its text in JSON, which is known to be sound.
    fn push_raw<E: serde::de::Error>(self, raw: &str) -> Result<(), E> {
        let Self { column, reading } = self;
        if raw == "null" {
            return push_null(column, reading);
        }
        let is_number = raw.starts_with(|first: char| first == '-' || first.is_ascii_digit());
        let is_text = raw.starts_with('"');
        match &mut column.values {
            Values::Float64(values) if is_number => match raw.parse::<f64>() {
                Ok(value) if value.is_finite() && (!column.is_inferred || is_exact(raw, value)) => values.push(value),
                _ => return Err(reading.unfit(column, "number-out-of-range")),
            },
            Values::Float32(values) if is_number => match raw.parse::<f32>() {
                Ok(value) if value.is_finite() => values.push(value),
                _ => return Err(reading.unfit(column, "number-out-of-range")),
            },
            Values::Int(values, least, most) if is_number && is_integer(raw) => match raw.parse::<i64>() {
                Ok(value) if (*least..=*most).contains(&value) => values.push(value),
                _ => return Err(reading.unfit(column, "number-out-of-range")),
            },
            Values::UInt64(values) if is_number && is_integer(raw) => {
                match raw.parse::<i128>().ok().and_then(|value| u64::try_from(value).ok()) {
                    Some(value) => values.push(value),
                    None => return Err(reading.unfit(column, "number-out-of-range")),
                }
            }
            Values::Decimal(values, precision, scale) if is_number || is_text => {
                match parse_decimal(raw.trim_matches('"'), *precision, *scale) {
                    Ok(value) => values.push(value),
                    Err(code) => return Err(reading.unfit(column, code)),
                }
            }
            Values::Decimal256(values, precision, scale) if is_number || is_text => {
                match parse_decimal(raw.trim_matches('"'), *precision, *scale) {
                    Ok(value) => values.push(value),
                    Err(code) => return Err(reading.unfit(column, code)),
                }
            }
            Values::Text(ends, data, _) if is_text => {
                let text: Cow<'_, str> = match raw.get(1..raw.len() - 1) {
                    Some(inner) if !inner.contains('\\') => inner.into(),
                    _ => sonic_rs::from_str::<String>(raw).map_err(E::custom)?.into(),
                };
                push_bytes(reading, ends, data, text.as_bytes())?;
            }
            Values::Text(ends, data, _) if !raw.starts_with(['[', '{']) => {
                push_bytes(reading, ends, data, raw.as_bytes())?;
            }
            _ => return Err(reading.wrong_type(column)),
        }
        column.validity.push(true);
        Ok(())
    }

    /// A text from the parser.
    fn push_text<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        let Self { column, reading } = self;
        match &mut column.values {
            Values::Text(ends, data, _) => push_bytes(reading, ends, data, text.as_bytes())?,
            Values::Timestamp(values, unit, _) => match parse_timestamp(text) {
                None => return Err(reading.wrong_type(column)),
                Some(moment) => match in_unit(moment, *unit) {
                    Ok(value) => values.push(value),
                    Err(code) => return Err(reading.unfit(column, code)),
                },
            },
            Values::Date(values) => match parse_date(text) {
                Some(days) => values.push(days),
                None => return Err(reading.wrong_type(column)),
            },
            Values::Time(values, unit) => match parse_time(text) {
                None => return Err(reading.wrong_type(column)),
                Some(nanos) if nanos % nanos_of(*unit) != 0 => return Err(reading.unfit(column, "precision-loss")),
                Some(nanos) => values.push(nanos / nanos_of(*unit)),
            },
            Values::Uuid(values) => match Uuid::try_parse(text) {
                Ok(uuid) => values.push(uuid.into_bytes()),
                Err(_) => return Err(reading.wrong_type(column)),
            },
            Values::Binary(ends, data, encoding) => match bytes_in(text, *encoding) {
                Some(bytes) => push_bytes(reading, ends, data, &bytes)?,
                None => return Err(reading.wrong_type(column)),
            },
            _ => return Err(reading.wrong_type(column)),
        }
        column.validity.push(true);
        Ok(())
    }
}

/// Null where the column allows it.
fn push_null<E: serde::de::Error>(column: &mut Column, reading: &mut Reading) -> Result<(), E> {
    if !column.field.is_nullable() {
        return Err(reading.refuse("null-not-allowed", "null in a column that is not nullable".to_owned()));
    }
    column.push_null();
    Ok(())
}

/// Bytes of one row.
fn push_bytes<E: serde::de::Error>(
    reading: &mut Reading,
    ends: &mut Vec<i32>,
    data: &mut Vec<u8>,
    bytes: &[u8],
) -> Result<(), E> {
    let end = end_of(reading, data.len() + bytes.len())?;
    data.extend_from_slice(bytes);
    ends.push(end);
    Ok(())
}

/// Where a value ends in its column.
fn end_of<E: serde::de::Error>(reading: &mut Reading, end: usize) -> Result<i32, E> {
    i32::try_from(end).map_err(|_| {
        let message = format!("more than {OFFSET_MAX} bytes or elements in one column; lower source.batch_size");
        reading.refuse("batch-too-large", message)
    })
}

/// Whether a float says exactly what an integer said. Fractions are always rounded to the nearest float.
fn is_exact(raw: &str, value: f64) -> bool {
    #[expect(clippy::cast_possible_truncation, reason = "saturates, and then differs")]
    let as_integer = value as i128;
    raw.len() <= EXACT_DIGITS || !is_integer(raw) || raw.parse::<i128>().is_ok_and(|integer| integer == as_integer)
}

/// Nanoseconds of a unit.
fn nanos_of(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    }
}

/// A count of one unit in another; the code of the fault where it cannot be held.
fn counted(value: i64, given: TimeUnit, wanted: TimeUnit) -> Result<i64, &'static str> {
    let (given, wanted) = (nanos_of(given), nanos_of(wanted));
    if given >= wanted {
        return value.checked_mul(given / wanted).ok_or("number-out-of-range");
    }
    let ratio = wanted / given;
    if value % ratio == 0 { Ok(value / ratio) } else { Err("precision-loss") }
}

/// The bytes that a text stands for.
fn bytes_in(text: &str, encoding: BinaryEncoding) -> Option<Vec<u8>> {
    match encoding {
        BinaryEncoding::Base64 => STANDARD.decode(text).ok(),
        BinaryEncoding::Hex => {
            let digit = |digit: &u8| char::from(*digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            let pairs = text.as_bytes().chunks(2).map(|pair| match pair {
                [high, low] => Some(digit(high)? << 4 | digit(low)?),
                _ => None,
            });
            pairs.collect()
        }
    }
}

/// A time in a unit; the code of the fault where it cannot be held.
fn in_unit(moment: Moment, unit: TimeUnit) -> Result<i64, &'static str> {
    let nanos_of_one = nanos_of(unit);
    let per_second = nanos_of(TimeUnit::Second) / nanos_of_one;
    let nanos = i64::from(moment.nanos);
    if nanos % nanos_of_one != 0 {
        return Err("precision-loss");
    }
    let whole = moment.seconds.checked_mul(per_second);
    whole.and_then(|whole| whole.checked_add(nanos / nanos_of_one)).ok_or("number-out-of-range")
}

impl<'de> Visitor<'de> for ValueSeed<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.column.field.data_type())
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        push_null(self.column, self.reading)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        let Values::Bool(values) = &mut self.column.values else {
            return Err(self.reading.wrong_type(self.column));
        };
        values.push(value);
        self.column.validity.push(true);
        Ok(())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        let Self { column, reading } = self;
        match &mut column.values {
            Values::Int(values, least, most) if (*least..=*most).contains(&value) => values.push(value),
            Values::UInt64(values) if value >= 0 => values.push(value.unsigned_abs()),
            // A count in the column's unit since 1970, but only where somebody said that this is a time.
            Values::Timestamp(values, unit, epoch) if !column.is_inferred => match counted(value, *epoch, *unit) {
                Ok(value) => values.push(value),
                Err(code) => return Err(reading.unfit(column, code)),
            },
            Values::Int(..) | Values::UInt64(_) => return Err(reading.unfit(column, "number-out-of-range")),
            _ => return Err(reading.wrong_type(column)),
        }
        column.validity.push(true);
        Ok(())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        if let Ok(value) = i64::try_from(value) {
            return self.visit_i64(value);
        }
        let Self { column, reading } = self;
        match &mut column.values {
            Values::UInt64(values) => values.push(value),
            Values::Int(..) => return Err(reading.unfit(column, "number-out-of-range")),
            Values::Timestamp(..) if !column.is_inferred => {
                return Err(reading.unfit(column, "number-out-of-range"));
            }
            _ => return Err(reading.wrong_type(column)),
        }
        column.validity.push(true);
        Ok(())
    }

    fn visit_f64<E: serde::de::Error>(self, _value: f64) -> Result<(), E> {
        let expected = self.column.field.data_type().to_string();
        Err(match self.column.values {
            // The parser gives integers beyond 64 bits as floats, too.
            Values::Int(..) | Values::UInt64(_) => self.reading.note(self.column, Cause::NotAnInteger(expected)),
            _ => self.reading.wrong_type(self.column),
        })
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        self.push_text(text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Self { column, reading } = self;
        let Values::List(ends, child) = &mut column.values else {
            return Err(reading.wrong_type(column));
        };
        let first = child.len();
        loop {
            match list.next_element_seed(ValueSeed { column: child, reading: &mut *reading }) {
                Ok(Some(())) => {}
                Ok(None) => break,
                Err(error) => {
                    reading.step(|| Step::Element(child.len() - first));
                    return Err(error);
                }
            }
        }
        ends.push(end_of(reading, child.len())?);
        column.validity.push(true);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        let Self { column, reading } = self;
        match &mut column.values {
            Values::Struct(fields) => ObjectSeed { fields, reading }.visit_map(object)?,
            Values::Map(ends, keys, values) => {
                let first = keys.len();
                while object.next_key_seed(ValueSeed { column: keys, reading: &mut *reading })?.is_some() {
                    if let Err(error) = object.next_value_seed(ValueSeed { column: values, reading: &mut *reading }) {
                        reading.step(|| Step::Field(last_key(keys)));
                        return Err(error);
                    }
                }
                if has_duplicates(keys, first) {
                    return Err(reading.refuse("duplicate-key", "a key of the map is there twice".to_owned()));
                }
                ends.push(end_of(reading, keys.len())?);
            }
            _ => return Err(reading.wrong_type(column)),
        }
        column.validity.push(true);
        Ok(())
    }
}

/// The text of one row.
fn text_at(column: &Column, row: usize) -> Option<&[u8]> {
    let Values::Text(ends, data, _) = &column.values else { return None };
    let end = |row: usize| ends.get(row).and_then(|end| usize::try_from(*end).ok());
    data.get(row.checked_sub(1).and_then(end).unwrap_or(0)..end(row)?)
}

/// The key that was read last.
fn last_key(keys: &Column) -> String {
    let key = keys.len().checked_sub(1).and_then(|row| text_at(keys, row)).unwrap_or_default();
    String::from_utf8_lossy(key).into_owned()
}

/// Whether a key is among the last ones twice.
fn has_duplicates(keys: &Column, first: usize) -> bool {
    let rows = first..keys.len();
    if rows.len() <= ENTRIES_COMPARED_MAX {
        return rows.clone().any(|row| (first..row).any(|other| text_at(keys, other) == text_at(keys, row)));
    }
    let mut known = HashSet::with_capacity(rows.len());
    !rows.map(|row| text_at(keys, row)).all(|key| known.insert(key))
}
