//! One record into rows: an object is one, a list is one for each of its objects.
//!
//! The parser runs over the record once, straight into the columns. Only where it stops is the record looked at again, for
//! the words of the refusal.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{
    column::Column,
    fault::{Cause, Fault, Step, excerpt, explain},
    object::{Fields, ObjectSeed},
    pointer::PointerSeed,
    text,
};

/// What happens beside the columns while a record is read.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// Why the record is refused; the parser's own message otherwise.
    cause: Option<Cause>,
    /// From the fault outwards.
    path: Vec<Step>,
    /// Whether a wider schema could hold the record.
    pub(super) wants_wider_schema: bool,
    /// Whether integers are read from their text: the parser gives `-0` as a float without its sign.
    pub(super) integers_from_text: bool,
    /// Whether a field of the record was left out because a metadata column has its name.
    pub(super) has_reserved: bool,
    /// Rows that the record gave.
    pub(super) rows: usize,
    /// What the payload in the record is.
    pub(super) payload: Payload,
}

/// What the payload in a record is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Payload {
    /// An object, or a list of them.
    #[default]
    Value,
    /// Null: the record says that there is nothing any more.
    Null,
}

/// Most values of the rows of one record, nulls counted: 64 million are half a gigabyte of numbers. A list of empty
/// objects costs a producer three bytes a row, and us a null in each column.
const CELLS_MAX: usize = 64 << 20;

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

/// Reads one record into the next rows of the columns, from `row` on. After a fault they may hold a part of it, which the
/// caller cuts off at that row. `payload` leads to the part of the record that is read.
pub(super) fn read_record(
    value: &[u8],
    row: usize,
    fields: &mut Fields,
    reading: &mut Reading,
    payload: &[String],
) -> Result<(), Fault> {
    let record = text::check(value)?;
    let mut read = read_text(record, fields, reading, payload);
    if read.is_err() && matches!(reading.cause, Some(Cause::NotAnInteger(_))) && record.contains("-0") {
        fields.truncate(row);
        *reading = Reading { integers_from_text: true, ..Reading::default() };
        read = read_text(record, fields, reading, payload);
    }
    let is_found = read.map_err(|error| match (skip_text(record), reading.cause.take()) {
        // That a record is not JSON comes before all else, and does not depend on the schema.
        (Err(not_json), _) => Fault { code: "bad-json", message: first_line(&not_json) },
        (Ok(()), Some(cause)) => {
            let mut path = std::mem::take(&mut reading.path);
            path.extend(payload.iter().rev().cloned().map(Step::Field));
            explain(record, cause, path)
        }
        // What only the reading of a value refuses is a float beyond all floats: that is JSON all the same.
        (Ok(()), None) => Fault { code: "number-out-of-range", message: first_line(&error) },
    })?;
    if is_found {
        return Ok(());
    }
    let message = format!("the record has nothing at /{}, where its payload should be", payload.join("/"));
    Err(Fault { code: "payload-missing", message: excerpt(&message) })
}

/// Lets the parser run over a record; whether there is a payload.
fn read_text(record: &str, fields: &mut Fields, reading: &mut Reading, payload: &[String]) -> sonic_rs::Result<bool> {
    let mut parser = sonic_rs::Deserializer::from_str(record);
    let mut twice = None;
    let then = RecordSeed { fields, reading, is_payload: !payload.is_empty() };
    let found = PointerSeed { steps: payload, then, twice: &mut twice }.deserialize(&mut parser);
    if let Some(name) = twice {
        reading.cause = Some(Cause::Said(Fault {
            code: "duplicate-key",
            message: format!("the key {:?} is there twice", excerpt(&name)),
        }));
        reading.path.clear();
    }
    let found = found?;
    parser.end()?;
    Ok(found.is_some())
}

/// Lets the parser run over a record without reading any value.
fn skip_text(record: &str) -> sonic_rs::Result<()> {
    let mut parser = sonic_rs::Deserializer::from_str(record);
    parser.deserialize::<IgnoredAny>()?;
    parser.end()
}

/// What the parser says, and where; the lines below repeat the record.
fn first_line(error: &sonic_rs::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// Reads a record: an object is a row, a list is a row for each of its objects.
struct RecordSeed<'a> {
    /// Where values go.
    fields: &'a mut Fields,
    /// What happens beside.
    reading: &'a mut Reading,
    /// Whether it is a part of the record, which may be null.
    is_payload: bool,
}

impl<'de> DeserializeSeed<'de> for RecordSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> RecordSeed<'a> {
    /// What refuses everything but an object.
    fn object(self) -> ObjectSeed<'a> {
        ObjectSeed { fields: self.fields, reading: self.reading }
    }
}

impl<'de> Visitor<'de> for RecordSeed<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object, or a list of objects")
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        self.object().visit_bool(value)
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.object().visit_i64(value)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.object().visit_u64(value)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        self.object().visit_f64(value)
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<(), E> {
        self.object().visit_str(value)
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        if self.is_payload {
            self.reading.payload = Payload::Null;
            return Ok(());
        }
        self.object().visit_unit()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Self { fields, reading, .. } = self;
        loop {
            match list.next_element_seed(ObjectSeed { fields: &mut *fields, reading: &mut *reading }) {
                Ok(Some(())) => reading.rows += 1,
                Ok(None) => return Ok(()),
                Err(error) => {
                    let position = reading.rows;
                    reading.step(|| Step::Element(position));
                    return Err(error);
                }
            }
            if reading.rows.saturating_mul(fields.columns.len()) > CELLS_MAX {
                let message = format!("its rows are more than {CELLS_MAX} values, those that are missing counted");
                return Err(reading.refuse("too-many-rows", message));
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<(), A::Error> {
        self.reading.rows = 1;
        self.object().visit_map(object)
    }
}
