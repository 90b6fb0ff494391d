//! What one record tells about the schema.
//!
//! Comes in: a record as text. Goes out: what was seen of each field ([`SeenFields`]), or why no schema can hold it.
//! How what was seen in many records becomes one schema is in `merge.rs`.

use std::{collections::HashMap, fmt};

use arrow_schema::DataType;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{
    fault::{Cause, Fault, Step, excerpt, explain, is_integer},
    merge::Policy,
    pointer::PointerSeed,
    text,
    timestamp::parse_timestamp,
};
use crate::config::OnTypeChange;

/// Most levels of lists and objects in an inferred schema; a level is a level in every file's schema for ever.
const LEVELS_MAX: usize = 64;

/// Seconds since 1970 that nanoseconds can count, rounded inwards.
const NANOS_FROM_S: i64 = i64::MIN / 1_000_000_000 + 1;

/// The end of them.
const NANOS_TO_S: i64 = i64::MAX / 1_000_000_000;

/// What was seen of a value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Seen {
    /// Only null.
    Nothing,
    /// Scalars; whether earlier batches have settled the type.
    Scalar(Scalar, Settled),
    /// Lists of such elements.
    List(Box<Self>),
    /// Objects of such fields.
    Object(SeenFields),
    /// A column of a type that JSON does not have, which typed rows brought: it stays as it is.
    Typed(DataType),
}

impl Seen {
    /// A scalar of this batch.
    fn scalar(scalar: Scalar) -> Self {
        Self::Scalar(scalar, Settled::No)
    }
}

/// Whether rows of this type are on their way already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// The type is a column's.
    Yes,
    /// The type was first seen in this batch.
    No,
}

/// Kinds of scalars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scalar {
    /// `true`, `false`.
    Boolean,
    /// Integers of 64 bits; whether a float holds each of them exactly.
    Integer {
        /// Whether a float holds each of them exactly.
        is_exact_as_float: bool,
    },
    /// Numbers with a fraction or an exponent.
    Float,
    /// RFC 3339 texts with a zone; whether a microsecond is not enough.
    Time {
        /// Whether a microsecond is not enough.
        needs_nanos: bool,
    },
    /// Other texts.
    Text,
}

/// Fields of an object in the order in which they were first seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct SeenFields {
    /// The fields.
    pub(super) fields: Vec<(String, Seen)>,
    /// Where each name is.
    positions: HashMap<String, usize>,
}

impl SeenFields {
    /// What was seen of a field.
    pub(super) fn get(&self, name: &str) -> Option<&Seen> {
        self.positions.get(name).and_then(|position| self.fields.get(*position)).map(|(_, seen)| seen)
    }

    /// What was seen of a field, to be added to.
    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut Seen> {
        self.positions.get(name).and_then(|position| self.fields.get_mut(*position)).map(|(_, seen)| seen)
    }

    /// A new field; `false` when the name is taken.
    pub(super) fn push(&mut self, name: String, seen: Seen) -> bool {
        let position = self.fields.len();
        if self.positions.contains_key(&name) {
            return false;
        }
        self.positions.insert(name.clone(), position);
        self.fields.push((name, seen));
        true
    }
}

/// What a record tells, or why no schema can hold it: of a list of objects what all of them tell. Fields that
/// `is_left_out` names are not looked at; `payload` leads to the part of the record that is.
pub(super) fn infer(
    value: &[u8],
    policy: Policy,
    payload: &[String],
    is_left_out: &dyn Fn(&str) -> bool,
) -> Result<SeenFields, Fault> {
    let record = text::check(value)?;
    let mut notes = Notes { policy, is_left_out, cause: None, path: Vec::new() };
    let mut parser = sonic_rs::Deserializer::from_str(record);
    let then = InferSeed { notes: &mut notes, level: 0 };
    let seen = PointerSeed { steps: payload, then, twice: &mut None }.deserialize(&mut parser);
    let seen = seen.and_then(|seen| parser.end().map(|()| seen));
    match (seen, notes.cause) {
        (Ok(Some(Seen::Object(fields))), _) => Ok(fields),
        (Ok(Some(Seen::List(element))), _) if matches!(*element, Seen::Object(_) | Seen::Nothing) => match *element {
            Seen::Object(fields) => Ok(fields),
            _ => Ok(SeenFields::default()),
        },
        (_, Some(cause)) => {
            let mut path = notes.path;
            path.extend(payload.iter().rev().cloned().map(Step::Field));
            Err(explain(record, cause, path))
        }
        // What is not JSON, or not an object, is refused in better words where it is decoded.
        _ => Err(Fault { code: "bad-json", message: "not a JSON object".to_owned() }),
    }
}

/// What is noted while a record is looked at.
struct Notes<'a> {
    /// What goes together.
    policy: Policy,
    /// Which fields of the record are not looked at.
    is_left_out: &'a dyn Fn(&str) -> bool,
    /// Why no schema can hold the record.
    cause: Option<Cause>,
    /// From the fault outwards.
    path: Vec<Step>,
}

impl Notes<'_> {
    /// Notes why no schema can hold the record.
    fn refuse<E: serde::de::Error>(&mut self, cause: Cause) -> E {
        self.cause.get_or_insert(cause);
        E::custom("refused")
    }

    /// One step of the path to a fault of ours.
    fn step(&mut self, step: impl FnOnce() -> Step) {
        if self.cause.is_some() {
            self.path.push(step());
        }
    }

    /// What a JSON number is.
    fn number<E: serde::de::Error>(&mut self, raw: &str) -> Result<Seen, E> {
        let mixes = self.policy.on_type_change == OnTypeChange::String;
        if is_integer(raw) {
            return match raw.parse::<i64>() {
                #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "asks what is lost")]
                Ok(value) => {
                    let is_exact_as_float = (value as f64) as i128 == i128::from(value);
                    Ok(Seen::scalar(Scalar::Integer { is_exact_as_float }))
                }
                Err(_) if mixes => Ok(Seen::scalar(Scalar::Text)),
                Err(_) => Err(self.refuse(Cause::Unfit("number-out-of-range", "Int64".to_owned()))),
            };
        }
        match raw.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(Seen::scalar(Scalar::Float)),
            _ if mixes => Ok(Seen::scalar(Scalar::Text)),
            _ => Err(self.refuse(Cause::Unfit("number-out-of-range", "Float64".to_owned()))),
        }
    }
}

/// Looks at one value.
struct InferSeed<'a, 'b> {
    /// What is noted beside.
    notes: &'a mut Notes<'b>,
    /// How many lists and objects are around.
    level: usize,
}

impl<'de> DeserializeSeed<'de> for InferSeed<'_, '_> {
    type Value = Seen;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Seen, D::Error> {
        // As text first, since the parser does not tell an integer beyond 64 bits from a float.
        let raw: sonic_rs::LazyValue<'de> = serde::Deserialize::deserialize(deserializer)?;
        let raw = raw.as_raw_str();
        match raw.as_bytes().first() {
            Some(b'-' | b'0'..=b'9') => self.notes.number(raw),
            _ => sonic_rs::Deserializer::from_str(raw).deserialize_any(self).map_err(serde::de::Error::custom),
        }
    }
}

impl<'de> Visitor<'de> for InferSeed<'_, '_> {
    type Value = Seen;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Seen, E> {
        Ok(Seen::Nothing)
    }

    fn visit_bool<E: serde::de::Error>(self, _value: bool) -> Result<Seen, E> {
        Ok(Seen::scalar(Scalar::Boolean))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Seen, E> {
        let time = parse_timestamp(text).filter(|moment| moment.has_zone);
        Ok(Seen::scalar(match time {
            Some(moment) if moment.nanos % 1_000 == 0 => Scalar::Time { needs_nanos: false },
            // Nanoseconds since 1970 end in 2262.
            Some(moment) if (NANOS_FROM_S..NANOS_TO_S).contains(&moment.seconds) => Scalar::Time { needs_nanos: true },
            _ => Scalar::Text,
        }))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Seen, A::Error> {
        let Self { notes, level } = self;
        check_level(notes, level)?;
        let mut element = Seen::Nothing;
        // The objects of a list that is a record are rows.
        let inside = if level == 0 { 0 } else { level + 1 };
        for position in 0.. {
            let fault = match list.next_element_seed(InferSeed { notes: &mut *notes, level: inside }) {
                Ok(Some(seen)) => match element.check(&seen, notes.policy) {
                    Ok(()) => {
                        element.absorb(seen, notes.policy);
                        continue;
                    }
                    Err(fault) => notes.refuse(Cause::Said(fault)),
                },
                Ok(None) => break,
                Err(error) => error,
            };
            notes.step(|| Step::Element(position));
            return Err(fault);
        }
        Ok(Seen::List(Box::new(element)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Seen, A::Error> {
        let Self { notes, level } = self;
        check_level(notes, level)?;
        let mut fields = SeenFields::default();
        while let Some(name) = object.next_key::<String>()? {
            if level == 0 && (notes.is_left_out)(&name) {
                object.next_value::<IgnoredAny>()?;
                continue;
            }
            match object.next_value_seed(InferSeed { notes: &mut *notes, level: level + 1 }) {
                Ok(seen) if fields.get(&name).is_none() => fields.push(name, seen),
                Ok(_) => {
                    let message = format!("the key {:?} is there twice", excerpt(&name));
                    return Err(notes.refuse(Cause::Said(Fault { code: "duplicate-key", message })));
                }
                Err(error) => {
                    notes.step(|| Step::Field(name));
                    return Err(error);
                }
            };
        }
        Ok(Seen::Object(fields))
    }
}

/// Ends where a schema would be nested too deep.
fn check_level<E: serde::de::Error>(notes: &mut Notes<'_>, level: usize) -> Result<(), E> {
    if level < LEVELS_MAX {
        return Ok(());
    }
    let message = format!("more than {LEVELS_MAX} levels of lists and objects, in a field whose type is inferred");
    Err(notes.refuse(Cause::Said(Fault { code: "too-deep", message })))
}
