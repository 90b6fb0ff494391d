//! The visitor of one JSON object: asks for the next key with a guess, and sends each value from the parser straight
//! into its column.
//!
//! The guess is the field after the last one: records of one topic mostly have their fields in one order, so a hit costs
//! one comparison of strings. No tree, no tape, no allocation a record.

use std::{collections::HashMap, fmt};

use arrow_array::ArrayRef;
use arrow_schema::{ArrowError, DataType, FieldRef, Fields as ArrowFields};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{
    column::{Column, Values},
    decimal::parse_decimal,
    timestamp::{Moment, parse_date, parse_timestamp},
};
use crate::config::OnNewField;

/// Most bytes of text or binary in one column of a batch: Arrow's offsets have 31 bits.
const COLUMN_BYTES_MAX: usize = i32::MAX as usize;

/// Most characters of a value in a message.
const EXCERPT_CHARS: usize = 80;

/// Why a record is refused, in a form that becomes a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// Stable and of few values.
    pub(super) code: &'static str,
    /// For people.
    pub(super) message: String,
}

/// What happens beside the columns while a record is read.
#[derive(Debug)]
pub(super) struct Reading {
    /// What to do with a field that the schema lacks.
    pub(super) on_new_field: OnNewField,
    /// Why the record is refused; the parser's own message otherwise.
    pub(super) fault: Option<Fault>,
    /// Whether the record has a field with a value that the schema lacks, or a value of another type: what a wider
    /// schema could hold.
    pub(super) wants_wider_schema: bool,
    /// The names from the fault outwards.
    path: Vec<String>,
    /// Fields that are left out without a word, since a column of ours has the name.
    pub(super) reserved: Vec<String>,
}

impl Reading {
    /// For a decoder.
    pub(super) fn new(on_new_field: OnNewField, reserved: Vec<String>) -> Self {
        Self { on_new_field, fault: None, wants_wider_schema: false, path: Vec::new(), reserved }
    }

    /// Before a record.
    pub(super) fn reset(&mut self) {
        self.fault = None;
        self.path.clear();
    }

    /// The fault of the record with the path to it.
    pub(super) fn take_fault(&mut self) -> Option<Fault> {
        let mut fault = self.fault.take()?;
        if !self.path.is_empty() {
            self.path.reverse();
            fault.message = format!("{}: {}", self.path.join("."), fault.message);
            self.path.clear();
        }
        Some(fault)
    }

    /// Notes why the record is refused.
    fn refuse<E: serde::de::Error>(&mut self, code: &'static str, message: String) -> E {
        self.fault.get_or_insert(Fault { code, message });
        E::custom("refused")
    }

    /// A value of another type than the column's.
    fn wrong_type<E: serde::de::Error>(&mut self, column: &Column, found: &str) -> E {
        self.wants_wider_schema = true;
        let found: String = found.chars().take(EXCERPT_CHARS).collect();
        self.refuse("wrong-type", format!("expected {}, found {found}", column.field.data_type()))
    }
}

/// The fields of an object, with a way from a name to its column.
#[derive(Debug)]
pub(super) struct Fields {
    /// One for each field, in order.
    pub(super) columns: Vec<Column>,
    /// Where each name is.
    positions: HashMap<String, usize>,
    /// In which object each column was last filled.
    filled_in: Vec<u64>,
    /// Counts objects.
    object: u64,
}

impl Fields {
    /// Empty columns of these fields.
    pub(super) fn new(fields: &ArrowFields, exact_integers: bool) -> Result<Self, ArrowError> {
        let columns = fields.iter().map(|field| Column::new(field, exact_integers)).collect::<Result<Vec<_>, _>>()?;
        let positions = fields.iter().enumerate().map(|(position, field)| (field.name().clone(), position)).collect();
        Ok(Self { filled_in: vec![0; columns.len()], columns, positions, object: 0 })
    }

    /// Appends null to every column, below a null object.
    pub(super) fn push_nulls(&mut self) {
        self.columns.iter_mut().for_each(Column::push_null);
    }

    /// Cuts every column back.
    pub(super) fn truncate(&mut self, len: usize) {
        self.columns.iter_mut().for_each(|column| column.truncate(len));
    }

    /// All rows so far, with the fields that they have.
    pub(super) fn finish(&mut self) -> Result<(ArrowFields, Vec<ArrayRef>), ArrowError> {
        let fields: Vec<FieldRef> = self.columns.iter().map(|column| FieldRef::clone(&column.field)).collect();
        let arrays = self.columns.iter_mut().map(Column::finish).collect::<Result<Vec<_>, _>>()?;
        Ok((fields.into(), arrays))
    }
}

/// Reads one object into a row of fields.
pub(super) struct ObjectSeed<'a> {
    /// Where values go.
    pub(super) fields: &'a mut Fields,
    /// What happens beside.
    pub(super) reading: &'a mut Reading,
}

impl<'de> DeserializeSeed<'de> for ObjectSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// For the top level, where anything but an object is refused.
macro_rules! not_an_object {
    ($($method:ident: $type:ty => $found:literal),*) => {
        $(fn $method<E: serde::de::Error>(self, _value: $type) -> Result<(), E> {
            Err(self.reading.refuse("not-an-object", concat!("expected a JSON object, found ", $found).to_owned()))
        })*
    };
}

impl<'de> Visitor<'de> for ObjectSeed<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object")
    }

    not_an_object!(visit_bool: bool => "a boolean", visit_i64: i64 => "a number", visit_u64: u64 => "a number",
        visit_f64: f64 => "a number", visit_str: &str => "a text");

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        Err(self.reading.refuse("not-an-object", "expected a JSON object, found null".to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _list: A) -> Result<(), A::Error> {
        Err(self.reading.refuse("not-an-object", "expected a JSON object, found a list".to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        let Self { fields, reading } = self;
        fields.object += 1;
        let this_object = fields.object;
        let mut guess = 0;
        while let Some(key) = object.next_key_seed(KeySeed { fields, guess })? {
            let position = match key {
                Key::Known(position) => position,
                Key::Unknown(name) => {
                    skip_unknown(&mut object, &name, reading)?;
                    continue;
                }
            };
            guess = position + 1;
            let (Some(column), Some(filled_in)) =
                (fields.columns.get_mut(position), fields.filled_in.get_mut(position))
            else {
                continue;
            };
            if std::mem::replace(filled_in, this_object) == this_object {
                let name = column.field.name().clone();
                return Err(reading.refuse("duplicate-key", format!("the key {name:?} is there twice")));
            }
            if let Err(error) = object.next_value_seed(ValueSeed { column, reading }) {
                if reading.fault.is_some() {
                    reading.path.push(column.field.name().clone());
                }
                return Err(error);
            }
        }
        fill_missing(fields, this_object, reading)
    }
}

/// Null for every field that the object lacks.
fn fill_missing<E: serde::de::Error>(fields: &mut Fields, this_object: u64, reading: &mut Reading) -> Result<(), E> {
    for (column, filled_in) in fields.columns.iter_mut().zip(&fields.filled_in) {
        if *filled_in != this_object {
            if !column.field.is_nullable() {
                let name = column.field.name().clone();
                return Err(reading.refuse("null-not-allowed", format!("{name}: the field is missing")));
            }
            column.push_null();
        }
    }
    Ok(())
}

/// Passes over a field that the schema lacks; notes it where it could become a column.
fn skip_unknown<'de, A: MapAccess<'de>>(object: &mut A, name: &str, reading: &mut Reading) -> Result<(), A::Error> {
    if reading.reserved.iter().any(|reserved| reserved == name) {
        return object.next_value::<IgnoredAny>().map(|_| ());
    }
    match reading.on_new_field {
        OnNewField::Ignore => object.next_value::<IgnoredAny>().map(|_| ()),
        OnNewField::Reject => {
            let name: String = name.chars().take(EXCERPT_CHARS).collect();
            Err(reading.refuse("unknown-field", format!("the schema has no field {name:?}")))
        }
        OnNewField::Add => {
            let has_substance = object.next_value_seed(SubstanceSeed)?;
            reading.wants_wider_schema |= has_substance;
            Ok(())
        }
    }
}

/// A key of an object.
enum Key {
    /// The position of its column.
    Known(usize),
    /// A name that the schema lacks.
    Unknown(String),
}

/// Finds the column of a key.
struct KeySeed<'a> {
    /// All columns.
    fields: &'a Fields,
    /// The likely one.
    guess: usize,
}

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Key;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = Key;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<Key, E> {
        if self.fields.columns.get(self.guess).is_some_and(|column| column.field.name() == key) {
            return Ok(Key::Known(self.guess));
        }
        Ok(self.fields.positions.get(key).map_or_else(|| Key::Unknown(key.to_owned()), |at| Key::Known(*at)))
    }
}

/// Reads one value into a row of a column.
struct ValueSeed<'a> {
    /// Where it goes.
    column: &'a mut Column,
    /// What happens beside.
    reading: &'a mut Reading,
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if let Values::Decimal(..) = self.column.values {
            // The raw text, so that no digit goes through a float.
            let raw: sonic_rs::LazyValue<'de> = serde::Deserialize::deserialize(deserializer)?;
            return self.push_decimal(raw.as_raw_str());
        }
        deserializer.deserialize_any(self)
    }
}

impl ValueSeed<'_> {
    /// A decimal from its text in JSON.
    fn push_decimal<E: serde::de::Error>(self, raw: &str) -> Result<(), E> {
        let Self { column, reading } = self;
        if raw == "null" {
            return push_null(column, reading);
        }
        let Values::Decimal(values, precision, scale) = &mut column.values else {
            return Err(E::custom("not a decimal"));
        };
        let text = raw.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(raw);
        match parse_decimal(text, *precision, *scale) {
            Ok(value) => {
                values.push(value);
                column.validity.push(true);
                Ok(())
            }
            Err(fault) => {
                let excerpt: String = raw.chars().take(EXCERPT_CHARS).collect();
                Err(reading.refuse(fault.code, format!("{excerpt} {} {}", fault.message, column.field.data_type())))
            }
        }
    }

    /// An integer, as wide as JSON's integers are here.
    fn push_integer<E: serde::de::Error>(self, value: i128) -> Result<(), E> {
        let Self { column, reading } = self;
        let out_of_range = |reading: &mut Reading, column: &Column| {
            reading.wants_wider_schema = true;
            reading.refuse("number-out-of-range", format!("{value} does not fit {}", column.field.data_type()))
        };
        match &mut column.values {
            Values::Int(values, least, most) => match i64::try_from(value) {
                Ok(value) if (*least..=*most).contains(&value) => values.push(value),
                _ => return Err(out_of_range(reading, column)),
            },
            Values::UInt64(values) => match u64::try_from(value) {
                Ok(value) => values.push(value),
                Err(_) => return Err(out_of_range(reading, column)),
            },
            Values::Float(values, exact) => {
                #[expect(clippy::cast_precision_loss, reason = "checked right below where it matters")]
                let float = value as f64;
                #[expect(clippy::cast_possible_truncation, reason = "saturates, and then differs")]
                if *exact && float as i128 != value {
                    return Err(out_of_range(reading, column));
                }
                values.push(float);
            }
            // A number in a time column counts in the column's unit since 1970; only where the column is declared.
            Values::Timestamp(values, _) => match i64::try_from(value) {
                Ok(value) => values.push(value),
                Err(_) => return Err(out_of_range(reading, column)),
            },
            _ => return Err(reading.wrong_type(column, &format!("the number {value}"))),
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

/// A time in a unit; `None` where it cannot be held exactly.
fn in_unit(moment: Moment, unit: arrow_schema::TimeUnit) -> Option<i64> {
    use arrow_schema::TimeUnit::{Microsecond, Millisecond, Nanosecond, Second};
    let per_second = match unit {
        Second => 1,
        Millisecond => 1_000,
        Microsecond => 1_000_000,
        Nanosecond => 1_000_000_000,
    };
    let nanos_of_one = 1_000_000_000 / per_second;
    let nanos = i64::from(moment.nanos);
    if nanos % nanos_of_one != 0 {
        return None;
    }
    moment.seconds.checked_mul(per_second)?.checked_add(nanos / nanos_of_one)
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
            return Err(self.reading.wrong_type(self.column, if value { "true" } else { "false" }));
        };
        values.push(value);
        self.column.validity.push(true);
        Ok(())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.push_integer(value.into())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.push_integer(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        // The parser gives `-0` as a float.
        if value == 0.0 && matches!(self.column.values, Values::Int(..) | Values::UInt64(_)) && value.is_sign_negative()
        {
            return self.push_integer(0);
        }
        let Self { column, reading } = self;
        let Values::Float(values, _) = &mut column.values else {
            // The parser gives integers beyond 64 bits as floats.
            if value.fract() == 0.0
                && value.abs() >= 9.2e18
                && matches!(column.values, Values::Int(..) | Values::UInt64(_))
            {
                let message = format!("{value:e} does not fit {}", column.field.data_type());
                return Err(reading.refuse("number-out-of-range", message));
            }
            return Err(reading.wrong_type(column, &format!("the number {value}")));
        };
        #[expect(clippy::cast_possible_truncation, reason = "asks whether it would be cut")]
        let fits = *column.field.data_type() != DataType::Float32 || (value as f32).is_finite();
        if !fits {
            return Err(
                reading.refuse("number-out-of-range", format!("{value:e} does not fit {}", column.field.data_type()))
            );
        }
        values.push(value);
        column.validity.push(true);
        Ok(())
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        let Self { column, reading } = self;
        match &mut column.values {
            Values::Text(ends, data) => {
                if data.len() + text.len() > COLUMN_BYTES_MAX {
                    return Err(reading.refuse(
                        "batch-too-large",
                        "more than 2 GiB of text in one batch; lower source.batch_size".to_owned(),
                    ));
                }
                data.extend_from_slice(text.as_bytes());
                ends.push(i32::try_from(data.len()).unwrap_or(i32::MAX));
            }
            Values::Timestamp(values, unit) => match parse_timestamp(text) {
                None => return Err(reading.wrong_type(column, &format!("the text {text:?}"))),
                Some(moment) => {
                    if let Some(value) = in_unit(moment, *unit) {
                        values.push(value);
                    } else {
                        reading.wants_wider_schema = true;
                        let message = format!("{text:?} cannot be held exactly as {}", column.field.data_type());
                        return Err(reading.refuse("precision-loss", message));
                    }
                }
            },
            Values::Date(values) => match parse_date(text) {
                Some(days) => values.push(days),
                None => return Err(reading.wrong_type(column, &format!("the text {text:?}"))),
            },
            Values::Binary(ends, data) => {
                let before = data.len();
                if STANDARD.decode_vec(text, data).is_err() || data.len() > COLUMN_BYTES_MAX {
                    data.truncate(before);
                    return Err(reading.wrong_type(column, "a text that is not base64"));
                }
                ends.push(i32::try_from(data.len()).unwrap_or(i32::MAX));
            }
            _ => return Err(reading.wrong_type(column, &format!("the text {text:?}"))),
        }
        column.validity.push(true);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Self { column, reading } = self;
        let Values::List(ends, child) = &mut column.values else {
            return Err(reading.wrong_type(column, "a list"));
        };
        while list.next_element_seed(ValueSeed { column: child, reading: &mut *reading })?.is_some() {}
        let end =
            i32::try_from(child.len()).map_err(|_| A::Error::custom("more than 2^31 list elements in one batch"))?;
        ends.push(end);
        column.validity.push(true);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        let Self { column, reading } = self;
        match &mut column.values {
            Values::Struct(fields) => {
                ObjectSeed { fields, reading }.visit_map(object)?;
            }
            Values::Map(ends, keys, values) => {
                let first = keys.len();
                while object.next_key_seed(ValueSeed { column: keys, reading: &mut *reading })?.is_some() {
                    if last_key_is_repeated(keys, first) {
                        return Err(reading.refuse("duplicate-key", "a key of the map is there twice".to_owned()));
                    }
                    object.next_value_seed(ValueSeed { column: values, reading: &mut *reading })?;
                }
                ends.push(
                    i32::try_from(keys.len())
                        .map_err(|_| A::Error::custom("more than 2^31 map entries in one batch"))?,
                );
            }
            _ => return Err(reading.wrong_type(column, "an object")),
        }
        column.validity.push(true);
        Ok(())
    }
}

/// Whether the last key was there before; maps are small, so a scan does.
fn last_key_is_repeated(keys: &Column, first: usize) -> bool {
    let Values::Text(ends, data) = &keys.values else { return false };
    let key = |row: usize| {
        let from = row.checked_sub(1).and_then(|before| ends.get(before)).copied().unwrap_or(0);
        let to = ends.get(row).copied().unwrap_or(0);
        data.get(usize::try_from(from).unwrap_or(0)..usize::try_from(to).unwrap_or(0))
    };
    let Some(last) = keys.len().checked_sub(1) else { return false };
    (first..last).any(|row| key(row) == key(last))
}

/// Whether a value would make a column: anything but null, and lists and objects of nothing else.
struct SubstanceSeed;

impl<'de> DeserializeSeed<'de> for SubstanceSeed {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for SubstanceSeed {
    type Value = bool;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_bool<E: serde::de::Error>(self, _value: bool) -> Result<bool, E> {
        Ok(true)
    }

    fn visit_i64<E: serde::de::Error>(self, _value: i64) -> Result<bool, E> {
        Ok(true)
    }

    fn visit_u64<E: serde::de::Error>(self, _value: u64) -> Result<bool, E> {
        Ok(true)
    }

    fn visit_f64<E: serde::de::Error>(self, _value: f64) -> Result<bool, E> {
        Ok(true)
    }

    fn visit_str<E: serde::de::Error>(self, _value: &str) -> Result<bool, E> {
        Ok(true)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<bool, A::Error> {
        let mut found = false;
        while let Some(has_substance) = list.next_element_seed(Self)? {
            found |= has_substance;
        }
        Ok(found)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<bool, A::Error> {
        let mut found = false;
        while object.next_key::<IgnoredAny>()?.is_some() {
            found |= object.next_value_seed(Self)?;
        }
        Ok(found)
    }
}
