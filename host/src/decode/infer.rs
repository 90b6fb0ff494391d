//! What schema the records themselves tell.
//!
//! Comes in: JSON objects. Goes out: Arrow fields, all nullable, in the order in which they were first seen. Integers
//! are `int64`, numbers with a fraction or exponent `float64`, texts that are all RFC 3339 with a zone
//! `timestamp(us, UTC)` (or `ns` where a microsecond is not enough), other texts `utf8`. Fields of which only null, `[]`
//! or `{}` was seen wait: they become columns once they have a value.

use std::{fmt, sync::Arc};

use arrow_schema::{DataType, Field, Fields, TimeUnit};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::timestamp::parse_timestamp;
use crate::config::OnTypeChange;

/// Most fields of one object: what makes new names for ever would make new files for ever.
const FIELDS_MAX: usize = 2_000;

/// What was seen of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Only null.
    Nothing,
    /// Values of a scalar type.
    Scalar(DataType),
    /// Lists of such elements.
    List(Box<Self>),
    /// Objects of such fields.
    Object(Vec<(String, Self)>),
}

/// The zone of all inferred times.
const UTC: &str = "UTC";

impl Seen {
    /// What a column of a type has seen, so that a schema can grow.
    pub(super) fn of_type(data_type: &DataType) -> Self {
        match data_type {
            DataType::List(element) => Self::List(Box::new(Self::of_type(element.data_type()))),
            DataType::Struct(fields) => Self::Object(
                fields.iter().map(|field| (field.name().clone(), Self::of_type(field.data_type()))).collect(),
            ),
            scalar => Self::Scalar(scalar.clone()),
        }
    }

    /// Takes in what was seen of another value. What does not go together stays as it was first seen, unless mixed
    /// scalars become text.
    pub(super) fn merge(&mut self, other: Self, on_type_change: OnTypeChange) {
        match (&mut *self, other) {
            (_, Self::Nothing) => {}
            (Self::Nothing, other) => *self = other,
            (Self::Scalar(mine), Self::Scalar(other)) => {
                if let Some(wider) = widened(mine, &other, on_type_change) {
                    *mine = wider;
                }
            }
            (Self::List(mine), Self::List(other)) => mine.merge(*other, on_type_change),
            (Self::Object(mine), Self::Object(other)) => {
                for (name, seen) in other {
                    add_field(mine, &name, seen, on_type_change);
                }
            }
            _ => {}
        }
    }

    /// The type of a column; `None` while it waits for a value.
    pub(super) fn data_type(&self) -> Option<DataType> {
        match self {
            Self::Nothing => None,
            Self::Scalar(scalar) => Some(scalar.clone()),
            Self::List(element) => Some(DataType::List(Arc::new(Field::new("item", element.data_type()?, true)))),
            Self::Object(fields) => Some(fields_of(fields)).filter(|fields| !fields.is_empty()).map(DataType::Struct),
        }
    }
}

/// Takes in one field of an object.
pub(super) fn add_field(fields: &mut Vec<(String, Seen)>, name: &str, seen: Seen, on_type_change: OnTypeChange) {
    if let Some((_, known)) = fields.iter_mut().find(|(known, _)| known == name) {
        known.merge(seen, on_type_change);
    } else if fields.len() < FIELDS_MAX {
        fields.push((name.to_owned(), seen));
    }
}

/// The fields that have a type.
pub(super) fn fields_of(fields: &[(String, Seen)]) -> Fields {
    fields.iter().filter_map(|(name, seen)| Some(Field::new(name, seen.data_type()?, true))).collect()
}

/// The type that holds both; `None` where there is none.
fn widened(mine: &DataType, other: &DataType, on_type_change: OnTypeChange) -> Option<DataType> {
    use DataType::{Boolean, Float64, Int64, Timestamp, Utf8};
    match (mine, other) {
        (mine, other) if mine == other => Some(mine.clone()),
        _ if on_type_change == OnTypeChange::Reject => None,
        (Int64, Float64) | (Float64, Int64) => Some(Float64),
        (Timestamp(_, zone), Timestamp(_, _)) => Some(Timestamp(TimeUnit::Nanosecond, zone.clone())),
        // That a text is a time was a guess, and the text says all that the time did.
        (Timestamp(_, _), Utf8) | (Utf8, Timestamp(_, _)) => Some(Utf8),
        (Boolean | Int64 | Float64 | Timestamp(_, _) | Utf8, Boolean | Int64 | Float64 | Timestamp(_, _) | Utf8)
            if on_type_change == OnTypeChange::String =>
        {
            Some(Utf8)
        }
        _ => None,
    }
}

/// Looks at one value.
pub(super) struct InferSeed(pub(super) OnTypeChange);

impl<'de> DeserializeSeed<'de> for InferSeed {
    type Value = Seen;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Seen, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for InferSeed {
    type Value = Seen;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Seen, E> {
        Ok(Seen::Nothing)
    }

    fn visit_bool<E: serde::de::Error>(self, _value: bool) -> Result<Seen, E> {
        Ok(Seen::Scalar(DataType::Boolean))
    }

    fn visit_i64<E: serde::de::Error>(self, _value: i64) -> Result<Seen, E> {
        Ok(Seen::Scalar(DataType::Int64))
    }

    fn visit_u64<E: serde::de::Error>(self, _value: u64) -> Result<Seen, E> {
        Ok(Seen::Scalar(DataType::Int64))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Seen, E> {
        // The parser gives integers beyond 64 bits as floats; rounding them in silence would be wrong.
        let is_huge_integer = value.fract() == 0.0 && value.abs() >= 9.2e18 && value.abs() < 1e25;
        Ok(Seen::Scalar(if is_huge_integer { DataType::Int64 } else { DataType::Float64 }))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Seen, E> {
        let time = parse_timestamp(text).filter(|moment| moment.has_zone);
        Ok(Seen::Scalar(match time {
            Some(moment) if moment.nanos % 1_000 == 0 => DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())),
            Some(_) => DataType::Timestamp(TimeUnit::Nanosecond, Some(UTC.into())),
            None => DataType::Utf8,
        }))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Seen, A::Error> {
        let mut element = Seen::Nothing;
        while let Some(seen) = list.next_element_seed(Self(self.0))? {
            element.merge(seen, self.0);
        }
        Ok(Seen::List(Box::new(element)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Seen, A::Error> {
        let mut fields = Vec::new();
        while let Some(name) = object.next_key::<String>()? {
            let seen = object.next_value_seed(Self(self.0))?;
            add_field(&mut fields, &name, seen, self.0);
        }
        Ok(Seen::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fields that these records tell.
    fn infer(records: &[&str], on_type_change: OnTypeChange) -> String {
        let mut all = Seen::Object(Vec::new());
        for record in records {
            let mut parser = sonic_rs::Deserializer::from_str(record);
            all.merge(InferSeed(on_type_change).deserialize(&mut parser).unwrap(), on_type_change);
        }
        let Seen::Object(fields) = all else { unreachable!() };
        let fields = fields_of(&fields);
        fields.iter().map(|field| format!("{}: {}", field.name(), field.data_type())).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn types_and_widening() {
        let widen = |records: &[&str]| infer(records, OnTypeChange::Widen);
        assert_eq!(widen(&[r#"{"a":1,"b":"x","c":true,"d":1.5}"#]), "a: Int64; b: Utf8; c: Boolean; d: Float64");
        assert_eq!(widen(&[r#"{"a":1}"#, r#"{"a":2.5}"#]), "a: Float64");
        assert_eq!(widen(&[r#"{"a":null,"l":[],"o":{}}"#]), "");
        assert_eq!(widen(&[r#"{"a":null}"#, r#"{"a":3}"#]), "a: Int64");
        assert_eq!(widen(&[r#"{"t":"2026-11-23T14:05:12Z"}"#]), "t: Timestamp(µs, \"UTC\")");
        assert_eq!(widen(&[r#"{"t":"2026-11-23T14:05:12.123456789Z"}"#]), "t: Timestamp(ns, \"UTC\")");
        assert_eq!(widen(&[r#"{"t":"2026-11-23T14:05:12Z"}"#, r#"{"t":"soon"}"#]), "t: Utf8");
        assert_eq!(widen(&[r#"{"a":1}"#, r#"{"a":"x"}"#]), "a: Int64", "what does not go together stays");
        assert_eq!(infer(&[r#"{"a":1}"#, r#"{"a":"x"}"#], OnTypeChange::String), "a: Utf8");
        assert_eq!(infer(&[r#"{"a":1}"#, r#"{"a":1.5}"#], OnTypeChange::Reject), "a: Int64");
        assert_eq!(
            widen(&[r#"{"o":{"x":1}}"#, r#"{"o":{"y":[1,2.5]}}"#]),
            "o: Struct(\"x\": Int64, \"y\": List(Float64))"
        );
    }

    #[test]
    fn endless_new_names_are_bounded() {
        let record: Vec<String> = (0..FIELDS_MAX + 5).map(|number| format!("\"f{number}\":1")).collect();
        let text = format!("{{{}}}", record.join(","));
        assert_eq!(infer(&[&text], OnTypeChange::Widen).split("; ").count(), FIELDS_MAX);
    }
}
