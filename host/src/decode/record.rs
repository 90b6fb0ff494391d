//! The visitor of one JSON object: asks for the next key with a guess, and sends each value from the parser straight
//! into its column.
//!
//! The guess is the field that followed last time: records of one topic mostly have their fields in one order, so a hit
//! costs one comparison of strings. No tree, no tape, no allocation a record.

use std::{borrow::Cow, collections::HashMap, fmt};

use arrow_array::ArrayRef;
use arrow_schema::{ArrowError, FieldRef, Fields as ArrowFields};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{
    column::{Column, Rules},
    fault::{Cause, Fault, Step, excerpt, explain},
    substance::SubstanceSeed,
    text,
    value::ValueSeed,
};
use crate::config::OnNewField;

/// What happens beside the columns while a record is read.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// Why the record is refused; the parser's own message otherwise.
    cause: Option<Cause>,
    /// From the fault outwards.
    path: Vec<Step>,
    /// Whether a wider schema could hold the record.
    pub(super) wants_wider_schema: bool,
    /// Whether a field of the record was left out because a metadata column has its name.
    pub(super) has_reserved: bool,
}

impl Reading {
    /// Notes why the record is refused.
    pub(super) fn refuse<E: serde::de::Error>(&mut self, code: &'static str, message: String) -> E {
        self.cause.get_or_insert(Cause::Said(Fault { code, message }));
        E::custom("refused")
    }

    /// Notes what a value of an inferred or declared column lacks.
    #[cold]
    pub(super) fn note<E: serde::de::Error>(&mut self, column: &Column, cause: Cause) -> E {
        self.wants_wider_schema |= column.is_inferred;
        self.cause.get_or_insert(cause);
        E::custom("refused")
    }

    /// A value of another type than the column's.
    pub(super) fn wrong_type<E: serde::de::Error>(&mut self, column: &Column) -> E {
        self.note(column, Cause::WrongType(column.field.data_type().to_string()))
    }

    /// A value of the right kind that the column cannot hold.
    pub(super) fn unfit<E: serde::de::Error>(&mut self, column: &Column, code: &'static str) -> E {
        let expected = column.field.data_type().to_string();
        let cause = if code == "wrong-type" { Cause::WrongType(expected) } else { Cause::Unfit(code, expected) };
        self.note(column, cause)
    }

    /// One step of the path to a fault of ours.
    pub(super) fn step(&mut self, step: impl FnOnce() -> Step) {
        if self.cause.is_some() {
            self.path.push(step());
        }
    }
}

/// Reads one record into a row of the columns. After a fault they may hold a part of it, which the caller cuts off.
pub(super) fn read_record(value: &[u8], fields: &mut Fields, reading: &mut Reading) -> Result<(), Fault> {
    let record = text::check(value)?;
    let mut parser = sonic_rs::Deserializer::from_str(record);
    let read = ObjectSeed { fields, reading: &mut *reading }.deserialize(&mut parser).and_then(|()| parser.end());
    read.map_err(|error| match reading.cause.take() {
        Some(cause) => explain(record, cause, std::mem::take(&mut reading.path)),
        None => parser_fault(record, &error),
    })
}

/// The words for a record that the parser refused by itself.
#[cold]
fn parser_fault(record: &str, error: &sonic_rs::Error) -> Fault {
    // A record that the parser only skips over without complaint has a float beyond all floats: that is JSON all the same.
    let mut parser = sonic_rs::Deserializer::from_str(record);
    let is_json = parser.deserialize::<IgnoredAny>().is_ok() && parser.end().is_ok();
    // The first line says what and where; the rest repeats the record.
    let message = error.to_string().lines().next().unwrap_or_default().to_owned();
    Fault { code: if is_json { "number-out-of-range" } else { "bad-json" }, message }
}

/// The fields of an object, with a way from a name to its column.
#[derive(Debug)]
pub(super) struct Fields {
    /// One for each field, in order.
    pub(super) columns: Vec<Column>,
    /// Where each name is.
    positions: HashMap<String, usize>,
    /// Which column followed the first brace, and each column, last time.
    followers: Vec<usize>,
    /// In which object each column was last filled.
    filled_in: Vec<u64>,
    /// Counts objects.
    object: u64,
    /// What to do with a field that the schema lacks.
    on_new_field: OnNewField,
    /// Fields that are left out, since a column of ours has the name.
    pub(super) reserved: Vec<String>,
}

impl Fields {
    /// No columns at all, and every field passed over.
    pub(super) fn empty() -> Self {
        Self {
            columns: Vec::new(),
            positions: HashMap::new(),
            followers: Vec::new(),
            filled_in: Vec::new(),
            object: 0,
            on_new_field: OnNewField::Ignore,
            reserved: Vec::new(),
        }
    }

    /// Empty columns of these fields.
    pub(super) fn new(
        fields: &ArrowFields,
        rules: impl Fn(&str) -> Rules,
        on_new_field: OnNewField,
    ) -> Result<Self, ArrowError> {
        let column = |field: &FieldRef| Column::new(field, rules(field.name()), on_new_field);
        let columns = fields.iter().map(column).collect::<Result<Vec<_>, _>>()?;
        let positions = fields.iter().enumerate().map(|(position, field)| (field.name().clone(), position)).collect();
        Ok(Self {
            followers: (0..=columns.len()).collect(),
            filled_in: vec![0; columns.len()],
            columns,
            positions,
            object: 0,
            on_new_field,
            reserved: Vec::new(),
        })
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
        let mut slot = 0;
        loop {
            let guess = fields.followers.get(slot).copied().unwrap_or(usize::MAX);
            let position = match object.next_key_seed(KeySeed { fields, guess })? {
                Some(Key::Known(position)) => position,
                Some(Key::Unknown(name)) => {
                    skip_unknown(&mut object, fields, &name, reading)?;
                    continue;
                }
                None => break,
            };
            if position != guess
                && let Some(follower) = fields.followers.get_mut(slot)
            {
                *follower = position;
            }
            slot = position + 1;
            let (Some(column), Some(filled_in)) =
                (fields.columns.get_mut(position), fields.filled_in.get_mut(position))
            else {
                continue;
            };
            if std::mem::replace(filled_in, this_object) == this_object {
                let name = excerpt(column.field.name());
                return Err(reading.refuse("duplicate-key", format!("the key {name:?} is there twice")));
            }
            if let Err(error) = object.next_value_seed(ValueSeed { column: &mut *column, reading }) {
                reading.step(|| Step::Field(column.field.name().clone()));
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
                let error = reading.refuse("null-not-allowed", "the field is missing".to_owned());
                reading.step(|| Step::Field(column.field.name().clone()));
                return Err(error);
            }
            column.push_null();
        }
    }
    Ok(())
}

/// Passes over a field that the schema lacks, where that loses nothing or was asked for.
fn skip_unknown<'de, A: MapAccess<'de>>(
    object: &mut A,
    fields: &Fields,
    name: &str,
    reading: &mut Reading,
) -> Result<(), A::Error> {
    let is_reserved = fields.reserved.iter().any(|reserved| reserved == name);
    reading.has_reserved |= is_reserved;
    if is_reserved || fields.on_new_field == OnNewField::Ignore {
        return object.next_value::<IgnoredAny>().map(|_| ());
    }
    if !object.next_value_seed(SubstanceSeed)? {
        return Ok(());
    }
    reading.wants_wider_schema |= fields.on_new_field == OnNewField::Add;
    Err(reading.refuse("unknown-field", format!("the schema has no field {:?}", excerpt(name))))
}

/// A key of an object.
enum Key<'de> {
    /// The position of its column.
    Known(usize),
    /// A name that the schema lacks.
    Unknown(Cow<'de, str>),
}

/// Finds the column of a key.
struct KeySeed<'a> {
    /// All columns.
    fields: &'a Fields,
    /// The likely one.
    guess: usize,
}

impl KeySeed<'_> {
    /// The column of a key, where there is one.
    fn find(&self, key: &str) -> Option<usize> {
        if self.fields.columns.get(self.guess).is_some_and(|column| column.field.name() == key) {
            return Some(self.guess);
        }
        self.fields.positions.get(key).copied()
    }
}

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Key<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key<'de>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for KeySeed<'_> {
    type Value = Key<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

<<<<<<< HEAD
    fn visit_borrowed_str<E: serde::de::Error>(self, key: &'de str) -> Result<Key<'de>, E> {
        Ok(self.find(key).map_or(Key::Unknown(Cow::Borrowed(key)), Key::Known))
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<Key<'de>, E> {
        Ok(self.find(key).map_or_else(|| Key::Unknown(Cow::Owned(key.to_owned())), Key::Known))
=======
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
>>>>>>> main
    }
}
